//! Structure-level pruning: from edge weights to the networks that keep hard limits, without any training.
//!
//! Each stage of a search space comes with a belief in every edge of its complete DAG. Light edges are redundant; what is left above a
//! threshold is a cell. [`prune`] enumerates the thresholds of every stage, computes the exact cost of each cell, and joins the stages to
//! the networks that no other beats in retained weight, MACs and params at once, all within the limits.
//!
//! [`choose`] goes on from there: among these networks and the children of a study it picks those that no other beats in the four costs
//! (MACs, params, peak bytes, latency) and in the accuracy that a model expects, and [`repair`] improves one by single-edge swaps.
//!
//! The crate knows neither meta-graph nor study: it takes operators and weights, and models of
//! latency and accuracy behind traits. It never trains, measures, draws or reads files.
//!
//! # Example
//! ```
//! use gram_ir::{CellNodeId, CellOp, EdgeMap, Limits, Macs, Shape, space_preset};
//! use gram_prune::{PrunableStage, prune};
//!
//! let space = space_preset("swiftnet-small").ok_or("there is such a space")?;
//! let ops = [CellOp::Conv1x1, CellOp::Sep3x3].repeat(4);
//! let weights = EdgeMap::from_fn(8, |from, to| if to.0 - from.0 == 1 { 0.9 } else { 0.3 });
//! let stages = [PrunableStage { ops: &ops[..7], weights: &weights }; 2];
//!
//! let limits = Limits { max_macs: Some(Macs(400_000)), max_params: None, ..Limits::default() };
//! let pruned = prune(&space, Shape::chw(1, 8, 8), 10, &stages, &limits)?;
//! assert_eq!(pruned.best.architecture.stages[0].cell.predecessors(CellNodeId(7)), [CellNodeId(6)]);
//! assert!(pruned.front.iter().all(|candidate| limits.allow(&candidate.cost)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod candidates;
mod choice;
mod choose;
mod costs;
mod error;
mod merge;
mod pareto;
mod proposals;
mod prune;
mod repair;
mod setting;
mod unmeetable;

pub use choice::{Choice, Origin, pareto};
pub use choose::{Chosen, choose};
pub use error::PruneError;
pub use prune::{Candidate, MAX_FRONT, PrunableStage, Pruned, prune};
pub use repair::{Step, Swap, repair};
pub use setting::{AccuracyModel, Expectation, Latency, LatencyModel, Setting};
pub use unmeetable::{ChooseError, Least, Limit, Unmeetable};
