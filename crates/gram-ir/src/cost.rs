//! Exact costs of a lowered network, in all and per node. Computed, never predicted.

use serde::{Deserialize, Serialize};

use crate::network_transforms::fold_batch_norm::params_after_folding;
use crate::{Macs, MemoryModel, Network, Params, Shape};

/// Costs of one network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Multiply–accumulates of one forward pass at batch 1; convolutions and linear layers.
    pub macs: Macs,
    /// Trainable scalars: weights, biases, batch norm's scale and shift.
    pub params: Params,
    /// Scalars left after [`FoldBatchNorm`](crate::FoldBatchNorm): a bias per channel of a normalised layer, none of the norm's own.
    pub deployed_params: Params,
}

/// Costs of one node of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeCost {
    /// The node's name.
    pub name: String,
    /// The kind of operator.
    pub op: &'static str,
    /// Shape of its output.
    pub shape: Shape,
    /// Multiply–accumulates.
    pub macs: Macs,
    /// Trainable scalars.
    pub params: Params,
}

impl Network {
    /// MACs, params and deployed params of the whole network.
    ///
    /// # Complexity
    /// One pass over nodes and edges.
    pub fn cost(&self) -> Cost {
        Cost {
            macs: self.nodes().iter().map(|node| node.op.macs(node.shape)).sum(),
            params: self.params(),
            deployed_params: params_after_folding(self),
        }
    }

    /// Costs of each node, in execution order; their sums are those of [`Network::cost`].
    pub fn node_costs(&self) -> Vec<NodeCost> {
        let cost = |node: &crate::Node| NodeCost {
            name: node.name.clone(),
            op: node.op.kind(),
            shape: node.shape,
            macs: node.op.macs(node.shape),
            params: node.op.params(),
        };
        self.nodes().iter().map(cost).collect()
    }
}

/// Hard limits; none given: everything is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most multiply–accumulates of one forward pass at batch 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_macs: Option<Macs>,
    /// Most trainable scalars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_params: Option<Params>,
    /// Most bytes of feature maps that are alive at one time, in the best order of operators. No part of a [`Cost`], for it takes a schedule:
    /// `gram-memory` says whether a network keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_peak_bytes: Option<u64>,
    /// What peak bytes are counted for.
    #[serde(default, skip_serializing_if = "MemoryModel::is_default")]
    pub memory: MemoryModel,
}

impl Limits {
    /// Whether a network of this cost keeps every limit but that on peak bytes.
    pub fn allow(&self, cost: &Cost) -> bool {
        self.max_macs.is_none_or(|most| cost.macs <= most) && self.max_params.is_none_or(|most| cost.params <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        let cost = Cost { macs: Macs(10), params: Params(5), deployed_params: Params(4) };
        let limits =
            |macs, params| Limits { max_macs: Some(Macs(macs)), max_params: Some(Params(params)), ..Limits::default() };
        assert!(limits(10, 5).allow(&cost) && Limits::default().allow(&cost));
        assert!(!limits(9, 5).allow(&cost) && !limits(10, 4).allow(&cost));
    }
}
