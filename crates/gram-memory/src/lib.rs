//! Schedules of operators with the least peak of live bytes, offsets of their maps, and hard limits on both.
//!
//! A network's operators can be executed in many orders, and how many bytes of feature maps are alive at one time depends on which. For
//! irregularly wired networks the order in which the nodes happen to stand is often far from the best. [`plan`] finds the best, exactly
//! where the network's parts are of the usual size, and otherwise the best that it can with a proven bound beside it. [`fits`] decides
//! a hard limit, mostly without a search. [`reorder`] puts a network's nodes in the planned order.
//!
//! What an engine copies, fuses and accumulates is described by [`MemoryModel`]; [`MemoryGraph`] is the graph that follows from it, and can
//! also be made by hand and scheduled ([`schedule`]). Batch size is 1, and weights are not counted.
//!
//! The crate computes and decides nothing else: it reads no files and no clock, and draws no random numbers. What a search may take is
//! counted in states, so results depend on nothing but the arguments.
//!
//! # Example
//! ```
//! use gram_ir::preset;
//! use gram_memory::{Concat, Dtype, MemoryModel, fits, plan, reorder};
//!
//! let network = preset("swiftnet-vww", None, None)?.lower()?;
//! let engine = MemoryModel { dtype: Dtype::U8, concat: Concat::View, ..MemoryModel::default() };
//! assert!(fits(&network, &engine, 200_704)?.fits());
//! assert!(!fits(&network, &engine, 200_703)?.fits());
//!
//! let scheduled = reorder(&network, &plan(&network, &engine)?)?;
//! assert_eq!(plan(&scheduled, &engine)?.plain_peak_bytes, 200_704);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod bits;
mod bound;
mod build;
mod error;
mod exact;
mod follow;
mod graph;
mod greedy;
mod live;
mod parts;
mod plan;
mod problem;
mod schedule;

pub use arena::{Allocation, Arena, ArenaError};
pub use error::MemoryError;
pub use gram_ir::{Concat, Dtype, MemoryModel, Separable};
pub use graph::{BufferId, Fragment, MAX_READS, MemoryGraph, Step, StepId};
pub use plan::{Plan, PlannedStep, fits, keeps_peak_limit, peak_bytes, plan, reorder};
pub use schedule::{DEFAULT_MAX_STATES, Fit, MAX_EXACT_STEPS, Part, Peaks, Schedule, fits as fits_graph, schedule};
