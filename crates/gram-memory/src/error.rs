//! What can be wrong with a graph or a plan.

use gram_ir::NetworkError;

use crate::{BufferId, StepId};

/// Why there is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The buffers together have more bytes than can be counted.
    #[error("all maps together take more than {} bytes", u64::MAX)]
    TooManyBytes,
    /// More than [`MAX_READS`](crate::MAX_READS) reads, steps or buffers.
    #[error("more than {} reads of maps: the network is too large to be scheduled", crate::MAX_READS)]
    TooManyReads,
    /// A buffer that does not exist.
    #[error("{at}: there is no buffer {buffer}")]
    NoSuchBuffer {
        /// The step, or `outputs`.
        at: String,
        /// The buffer.
        buffer: BufferId,
    },
    /// A step stands before another that writes what it reads, or reads what it writes itself.
    #[error("step {step} reads {buffer}, which {writer} writes and which does not stand before it")]
    NotInOrder {
        /// The reading step.
        step: StepId,
        /// What it reads.
        buffer: BufferId,
        /// Who writes it too late.
        writer: StepId,
    },
    /// An order that is none of the graph's: a step is missing, stands twice or before what it needs.
    #[error("not an order of the graph: position {position} cannot be {step}")]
    NotAnOrder {
        /// Position in the order, from 0.
        position: usize,
        /// What stands there.
        step: StepId,
    },
    /// A plan of another network.
    #[error("the plan orders {plan} nodes, the network has {network}: it was made for another network")]
    OtherNetwork {
        /// Nodes of the plan.
        plan: usize,
        /// Nodes of the network.
        network: usize,
    },
    /// A plan of another network, in whose order the nodes cannot stand.
    #[error("the plan was made for another network: {0}")]
    OtherOrder(#[from] NetworkError),
}
