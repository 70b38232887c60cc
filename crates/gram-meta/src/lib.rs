//! The meta-graph of GRAM: what earlier children taught, as one weight per candidate edge.
//!
//! A [`MetaGraph`] holds, for each stage of a [`Space`](gram_ir::Space), the operators of the nodes and a Bernoulli weight for every edge
//! of the complete DAG. [`MetaGraph::sample`] draws a [`Child`], [`temper`] turns scores into weights of children, [`MetaGraph::propagate`]
//! moves the edge weights towards the good ones, and [`ConvergenceTest`] says when to stop.
//!
//! Children also come from Markov chains with the law `p_w·exp(β·S)` on the feasible set: [`GibbsChain`] is exact and asks for a score per
//! move; [`DelayedChain`] walks against a surrogate and asks for one per step. [`Marginals`] learns the true marginals of such a law beside
//! a fixed prior; [`MetaGraph::propagate_roles`] shares credit between edges that join the same operators; [`MetaGraph::warm_start`] and
//! [`WarmTrial`] begin where an earlier study ended. A node's operator is dealt out beforehand or searched with the wiring, as the space
//! says ([`NodeOperators`](gram_ir::NodeOperators)).
//!
//! The rules are ours, in the spirit of the paper (arXiv:1906.08305): its text gives the ideas, not the formulas.
//!
//! The crate does not know how a child is scored, and neither reads nor writes files: [`MetaGraph::to_json`] gives text.
//!
//! # Example
//! ```
//! use gram_meta::{MetaConfig, MetaGraph, temper};
//! use gram_ir::{Activation, CellOp, CellOutput, Downsample, Head, Space, StageSpace};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let output = CellOutput { project: Some(8), residual: false, linear_leaves: false, activation: false };
//! let stage = StageSpace::new(6, 8, Downsample::None, output);
//! let space = Space {
//!     name: "tiny".into(),
//!     activation: Activation::Relu,
//!     max_in_degree: 4,
//!     operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
//!     node_operators: Default::default(),
//!     image_sizes: vec![],
//!     channel_multiple: 1,
//!     stem: vec![],
//!     stages: vec![stage],
//!     head: Head::default(),
//! };
//! let mut meta = MetaGraph::new(&space, MetaConfig::default(), 7)?;
//! let mut rng = ChaCha8Rng::seed_from_u64(7);
//! let children = [meta.sample(&mut rng, &|_| true)?, meta.sample(&mut rng, &|_| true)?];
//! let tempered = temper(&[Some(0.6), Some(0.8)], None, meta.config());
//! meta.propagate(children.iter().zip(tempered.weights.iter().copied()))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chain;
mod child;
mod child_cost;
mod config;
mod converge;
mod file;
mod in_degree;
mod layout_weights;
mod marginals;
mod meta_graph;
mod op_weights;
mod propagate;
mod roles;
mod sample;
mod temper;
mod tilt;
mod warm_start;
mod warm_trial;

pub use chain::{ChainError, ChainState, DelayedChain, GibbsChain, Site, Target};
pub use child::{Child, StageEdges};
pub use config::{MetaConfig, MetaConfigError};
pub use converge::{Converged, Convergence, ConvergenceTest};
pub use file::{FORMAT_VERSION, MetaFileError};
pub use layout_weights::LayoutWeights;
pub use marginals::Marginals;
pub use meta_graph::{MetaGraph, MetaGraphError, MetaStage};
pub use op_weights::OpWeights;
pub use propagate::PropagateError;
pub use roles::Credit;
pub use sample::{MAX_REFUSED, MAX_STRUCTURE_TRIES, SampleError};
pub use temper::{Tempered, temper};
pub use tilt::Tilted;
pub use warm_start::{WARM_START_RHO, WarmStartError};
pub use warm_trial::{Settled, WarmTrial};
