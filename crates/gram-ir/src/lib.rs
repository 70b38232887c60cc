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
mod edge_map;
mod lower;
mod network;
mod op;
pub mod reference;
mod space;
#[cfg(feature = "proptest")]
pub mod strategies;
mod tensor;
mod transform;
mod units;

pub use architecture::{Architecture, CellOutput, Downsample, Head, Stage, StemLayer};
pub use canonical::{CanonicalKey, KeyParseError};
pub use cell::{Cell, CellError, CellNodeId, CellOp, MAX_CELL_NODE, UnknownOp};
pub use cell_transforms::{CanonicaliseCell, DropDeadNodes, EachCell, PerStage, PruneEdges};
pub use cost::{Cost, Limits, NodeCost};
pub use edge_map::{EdgeMap, NotTriangular};
pub use lower::LowerError;
pub use network::{MAX_NODES, Network, NetworkError, Node, NodeId, TensorRole, TensorSpec};
pub use op::{Activation, BATCH_NORM_EPS, Conv2d, MAX_KERNEL, Op, Pool, ShapeError};
pub use space::{MIN_LIVE_NODES, Space, SpaceError, StageSpace};
pub use tensor::{Tensor, TensorError, Weights};
pub use transform::{Transform, TransformError, TransformFailure, Verify, Violations, apply_checked};
pub use units::{MAX_AXIS, Macs, Params, Shape, ShapeParseError, grouped};
