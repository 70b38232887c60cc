//! Graph representations of GRAM, their exact costs and checked rewrites.
//!
//! Two levels: an [`Architecture`] has a [`Cell`] (a DAG of operators) per stage; [`Architecture::lower`] makes a [`Network`] of
//! primitive operators of it, with a shape on every edge. Costs, latency, schedules, training and export read the network.
//!
//! The crate never trains, times or reads files, and holds no search policy.

mod arbitrary_weights;
mod architecture;
mod canonical;
mod cell;
mod cell_transforms;
mod cost;
mod design;
mod edge_map;
mod json;
mod layout;
mod lower;
mod memory_model;
mod network;
mod network_transforms;
mod op;
mod presets;
mod rebuild;
pub mod reference;
mod space;
mod space_costs;
mod space_presets;
#[cfg(feature = "proptest")]
pub mod strategies;
mod tensor;
mod text;
mod transform;
mod units;
mod verify;
mod weighted;

pub use architecture::{Architecture, CellOutput, Downsample, Head, Stage, StemLayer};
pub use canonical::{CanonicalKey, KeyParseError};
pub use cell::{Cell, CellError, CellNodeId, CellOp, MAX_CELL_NODE, UnknownOp};
pub use cell_transforms::{CanonicaliseCell, DropDeadNodes, EachCell, PerStage, PruneEdges};
pub use cost::{Cost, Limits, NodeCost};
pub use design::{Design, DesignError, RetargetError};
pub use edge_map::{EdgeMap, NotTriangular};
pub use json::{FORMAT_VERSION, JsonError};
pub use layout::{Blueprint, Dimension, Layout, Quantity};
pub use lower::LowerError;
pub use memory_model::{Concat, Dtype, MemoryModel, Separable, UnknownWord};
pub use network::{MAX_NODES, Network, NetworkError, Node, NodeId, TensorRole, TensorSpec};
pub use network_transforms::{DropUnusedNodes, FoldBatchNorm, MergeEqualNodes, RemoveIdentities, SplitConvOverConcat};
pub use op::{Activation, BATCH_NORM_EPS, Conv2d, MAX_KERNEL, Op, Pool, ShapeError};
pub use presets::{
    NasBench101Cell, NasBench101Error, NasBench101Op, NasBench201Cell, NasBench201Error, NasBench201Op, PRESET_NAMES,
    PresetError, preset,
};
pub use reference::RunError;
pub use space::{MIN_LIVE_NODES, NodeOperators, Space, SpaceError, StageSpace};
pub use space_costs::{NodeInputs, SpaceCosts};
pub use space_presets::{SPACE_PRESET_NAMES, space_preset, space_preset_io};
pub use tensor::{Tensor, TensorError, Weights};
pub use text::{MAX_TEXT_BYTES, TextError};
pub use transform::{Transform, TransformError, TransformFailure, Verify, Violations, apply_checked};
pub use units::{MAX_AXIS, Macs, Params, Shape, ShapeParseError, grouped};
pub use weighted::WeightedNetwork;
