//! Rewrites of networks that keep the function: smaller, cheaper or easier to schedule, with the same outputs.
//!
//! All of them work on a [`Network`](crate::Network) and on a [`WeightedNetwork`](crate::WeightedNetwork), whose weights follow.

pub(crate) mod fold_batch_norm;
mod merge_equal_nodes;
mod prune;
mod split_conv_over_concat;

pub use fold_batch_norm::FoldBatchNorm;
pub use merge_equal_nodes::MergeEqualNodes;
pub use prune::{DropUnusedNodes, RemoveIdentities};
pub use split_conv_over_concat::SplitConvOverConcat;
