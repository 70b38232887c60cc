//! Leaving out nodes: identities, and what the output does not need.

use crate::rebuild::Rebuild;
use crate::{Network, NetworkError, Op, Transform, TransformFailure, WeightedNetwork};

/// Takes out every [`Op::Identity`]; its readers read what it read.
///
/// All other nodes keep their names. An identity that is the output hands that over too, be it to the input.
///
/// # Complexity
/// One pass over nodes and edges.
/// # Example
/// ```
/// use gram_ir::{Network, Op, RemoveIdentities, Shape, apply_checked};
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let same = network.add("same", Op::Identity, &[network.input()])?;
/// network.set_output(same)?;
/// apply_checked(&RemoveIdentities, &mut network)?;
/// assert_eq!(network.output(), network.input());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveIdentities;

impl Transform<Network> for RemoveIdentities {
    fn name(&self) -> &'static str {
        "remove-identities"
    }

    fn apply(&self, network: &mut Network) -> Result<bool, TransformFailure> {
        let without = without_identities(network)?;
        Ok(replace_if_smaller(network, without))
    }
}

impl Transform<WeightedNetwork> for RemoveIdentities {
    fn name(&self) -> &'static str {
        Transform::<Network>::name(self)
    }

    fn apply(&self, graph: &mut WeightedNetwork) -> Result<bool, TransformFailure> {
        // Identities have no tensors.
        self.apply(&mut graph.network)
    }
}

fn without_identities(network: &Network) -> Result<Network, NetworkError> {
    let mut next = Rebuild::new(network);
    for (id, node) in network.iter().skip(1) {
        match node.op {
            Op::Identity => next.replace(id, next.stand_in(node.inputs[0])),
            _ => next.copy(id)?,
        }
    }
    next.finish()
}

/// Drops the nodes from which no path leads to the output; the input stays.
///
/// # Complexity
/// Two passes over nodes and edges.
#[derive(Clone, Copy, Debug, Default)]
pub struct DropUnusedNodes;

impl Transform<Network> for DropUnusedNodes {
    fn name(&self) -> &'static str {
        "drop-unused-nodes"
    }

    fn apply(&self, network: &mut Network) -> Result<bool, TransformFailure> {
        let without = without_unused(network)?;
        Ok(replace_if_smaller(network, without))
    }
}

impl Transform<WeightedNetwork> for DropUnusedNodes {
    fn name(&self) -> &'static str {
        Transform::<Network>::name(self)
    }

    fn apply(&self, graph: &mut WeightedNetwork) -> Result<bool, TransformFailure> {
        let without = without_unused(&graph.network)?;
        let changed = without.nodes().len() < graph.network.nodes().len();
        graph.replace_network(without);
        Ok(changed)
    }
}

fn without_unused(network: &Network) -> Result<Network, NetworkError> {
    let mut used = vec![false; network.nodes().len()];
    used[network.output().index()] = true;
    for (id, node) in network.iter().rev() {
        if used[id.index()] {
            node.inputs.iter().for_each(|from| used[from.index()] = true);
        }
    }
    let mut next = Rebuild::new(network);
    for (id, _) in network.iter().skip(1).filter(|(id, _)| used[id.index()]) {
        next.copy(id)?;
    }
    next.finish()
}

fn replace_if_smaller(network: &mut Network, smaller: Network) -> bool {
    let changed = smaller.nodes().len() < network.nodes().len();
    *network = smaller;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, Shape, Tensor, Weights, apply_checked};

    /// input → i1 → conv → i2 (output); conv → i3 → unused.
    fn with_identities() -> WeightedNetwork {
        let mut network = Network::new(Shape::chw(2, 3, 3));
        let mut add = |name: &str, op, from| network.add(name, op, &[crate::NodeId(from)]).unwrap();
        add("i1", Op::Identity, 0);
        add("conv", Op::Conv(Conv2d::new(2, 2, 3)), 1);
        let output = add("i2", Op::Identity, 2);
        add("i3", Op::Identity, 2);
        add("unused", Op::Conv(Conv2d::new(2, 4, 1)), 4);
        network.set_output(output).unwrap();
        let weights = Weights::arbitrary(&network, 1);
        WeightedNetwork { network, weights }
    }

    fn names(network: &Network) -> Vec<&str> {
        network.nodes().iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn identities_hand_their_readers_over() {
        let mut graph = with_identities();
        let input = Tensor::arbitrary(&[1, 2, 3, 3], 2);
        let before = graph.run(&input).unwrap();
        assert!(apply_checked(&RemoveIdentities, &mut graph).unwrap());
        assert_eq!(names(&graph.network), ["input", "conv", "unused"]);
        assert_eq!(graph.network.node(graph.network.output()).name, "conv");
        assert_eq!(graph.run(&input).unwrap(), before);
        assert!(!apply_checked(&RemoveIdentities, &mut graph).unwrap());
    }

    #[test]
    fn unused_nodes_take_their_tensors_along() {
        let mut graph = with_identities();
        assert!(apply_checked(&DropUnusedNodes, &mut graph).unwrap());
        assert_eq!(names(&graph.network), ["input", "i1", "conv", "i2"]);
        assert_eq!(graph.weights.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["conv.weight"]);
        assert!(!apply_checked(&DropUnusedNodes, &mut graph).unwrap());
    }

    #[test]
    fn the_input_stays_even_alone() {
        let mut network = Network::new(Shape::chw(1, 1, 1));
        network.add("unused", Op::Zero, &[network.input()]).unwrap();
        assert!(apply_checked(&DropUnusedNodes, &mut network).unwrap());
        assert_eq!(names(&network), ["input"]);
        assert!(!apply_checked(&DropUnusedNodes, &mut network).unwrap());
        assert!(!apply_checked(&RemoveIdentities, &mut network).unwrap());
    }
}
