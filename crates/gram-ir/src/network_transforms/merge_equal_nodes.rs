//! Common subexpressions: nodes that compute the same from the same become one.

use std::collections::BTreeMap;

use crate::rebuild::Rebuild;
use crate::{Network, NetworkError, NodeId, Op, Tensor, TensorError, Transform, TransformFailure, WeightedNetwork};

/// Merges nodes of the same operator and the same inputs, in order; the first keeps its name and stands for all.
///
/// On a [`Network`] only operators without tensors are merged, since equal shapes say nothing of equal weights. On a
/// [`WeightedNetwork`] nodes with tensors are merged too where those agree bit by bit. Merging goes on behind merged nodes: two equal
/// branches become one. If the output is merged away, the first of its equals is the output.
///
/// # Complexity
/// One pass over nodes and edges with a search tree (hash-consing); each tensor is compared with those of the same operator and inputs.
/// # Example
/// ```
/// use gram_ir::{Activation, MergeEqualNodes, Network, Op, Shape, apply_checked};
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let relu = Op::Act { activation: Activation::Relu };
/// let (a, b) = (network.add("a", relu, &[network.input()])?, network.add("b", relu, &[network.input()])?);
/// let sum = network.add("sum", Op::Add, &[a, b])?;
/// network.set_output(sum)?;
/// apply_checked(&MergeEqualNodes, &mut network)?;
/// assert_eq!(network.node(network.output()).inputs, [a, a]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeEqualNodes;

impl Transform<Network> for MergeEqualNodes {
    fn name(&self) -> &'static str {
        "merge-equal-nodes"
    }

    fn apply(&self, network: &mut Network) -> Result<bool, TransformFailure> {
        let has_tensors = |id: NodeId| network.node(id).op.params().0 > 0;
        let merged = merged(network, |id, _| !has_tensors(id))?;
        let changed = merged.nodes().len() < network.nodes().len();
        *network = merged;
        Ok(changed)
    }
}

impl Transform<WeightedNetwork> for MergeEqualNodes {
    fn name(&self) -> &'static str {
        Transform::<Network>::name(self)
    }

    fn apply(&self, graph: &mut WeightedNetwork) -> Result<bool, TransformFailure> {
        let tensors = tensors_by_node(graph)?;
        let merged = merged(&graph.network, |a, b| {
            let (a, b) = (&tensors[a.index()], &tensors[b.index()]);
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_bits(a, b))
        })?;
        let changed = merged.nodes().len() < graph.network.nodes().len();
        graph.replace_network(merged);
        Ok(changed)
    }
}

/// Merges nodes with the same operator and stand-ins for which `same_tensors` holds.
fn merged(network: &Network, same_tensors: impl Fn(NodeId, NodeId) -> bool) -> Result<Network, NetworkError> {
    let mut next = Rebuild::new(network);
    let mut firsts: BTreeMap<(Op, Vec<NodeId>), Vec<NodeId>> = BTreeMap::new();
    for (id, node) in network.iter().skip(1) {
        let alike = firsts.entry((node.op, next.inputs(id))).or_default();
        match alike.iter().find(|&&first| same_tensors(first, id)) {
            Some(&first) => next.replace(id, next.stand_in(first)),
            None => {
                alike.push(id);
                next.copy(id)?;
            }
        }
    }
    next.finish()
}

/// The tensors of each node, in the order of [`Network::tensors`].
fn tensors_by_node(graph: &WeightedNetwork) -> Result<Vec<Vec<&Tensor>>, TensorError> {
    let mut by_node = vec![Vec::new(); graph.network.nodes().len()];
    for spec in graph.network.tensors() {
        by_node[spec.node.index()].push(graph.weights.get(&spec.name)?);
    }
    Ok(by_node)
}

fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    a.shape() == b.shape() && a.data().iter().map(|x| x.to_bits()).eq(b.data().iter().map(|x| x.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Conv2d, Shape, Weights, apply_checked};

    /// Three branches conv → relu of the input, concatenated; the weights of the first two agree.
    fn three_branches() -> WeightedNetwork {
        let mut network = Network::new(Shape::chw(2, 3, 3));
        let mut ends = Vec::new();
        for name in ["a", "b", "c"] {
            let conv = network.add(format!("{name}.conv"), Op::Conv(Conv2d::new(2, 2, 3)), &[network.input()]).unwrap();
            let relu = Op::Act { activation: Activation::Relu };
            ends.push(network.add(format!("{name}.relu"), relu, &[conv]).unwrap());
        }
        let output = network.add("concat", Op::Concat, &ends).unwrap();
        network.set_output(output).unwrap();
        let mut weights = Weights::arbitrary(&network, 3);
        weights.insert("b.conv.weight", weights.get("a.conv.weight").unwrap().clone());
        WeightedNetwork { network, weights }
    }

    #[test]
    fn equal_branches_become_one() {
        let mut graph = three_branches();
        let input = Tensor::arbitrary(&[2, 2, 3, 3], 4);
        let before = graph.run(&input).unwrap();
        assert!(apply_checked(&MergeEqualNodes, &mut graph).unwrap());
        let names: Vec<&str> = graph.network.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["input", "a.conv", "a.relu", "c.conv", "c.relu", "concat"]);
        assert_eq!(graph.network.nodes()[5].inputs, [NodeId(2), NodeId(2), NodeId(4)]);
        assert!(graph.weights.get("b.conv.weight").is_err());
        assert_eq!(graph.run(&input).unwrap(), before, "not one bit changes");
        assert!(!apply_checked(&MergeEqualNodes, &mut graph).unwrap());
    }

    #[test]
    fn without_weights_nothing_is_known_of_convolutions() {
        let mut network = three_branches().network;
        assert!(!apply_checked(&MergeEqualNodes, &mut network).unwrap());
    }

    #[test]
    fn one_bit_keeps_nodes_apart() {
        let mut graph = three_branches();
        let mut weight = graph.weights.remove("b.conv.weight").unwrap();
        weight.data_mut()[0] = f64::from_bits(weight.data()[0].to_bits() ^ 1);
        graph.weights.insert("b.conv.weight", weight);
        assert!(!apply_checked(&MergeEqualNodes, &mut graph).unwrap());
    }

    #[test]
    fn an_output_that_is_merged_away_moves_to_its_equal() {
        let mut network = Network::new(Shape::chw(1, 2, 2));
        let first = network.add("first", Op::Zero, &[network.input()]).unwrap();
        let second = network.add("second", Op::Zero, &[network.input()]).unwrap();
        network.set_output(second).unwrap();
        assert!(apply_checked(&MergeEqualNodes, &mut network).unwrap());
        assert_eq!((network.output(), network.nodes().len()), (first, 2));
    }

    #[test]
    fn the_order_of_inputs_matters() {
        let mut network = Network::new(Shape::chw(1, 2, 2));
        let zero = network.add("zero", Op::Zero, &[network.input()]).unwrap();
        let ab = network.add("ab", Op::Concat, &[network.input(), zero]).unwrap();
        let ba = network.add("ba", Op::Concat, &[zero, network.input()]).unwrap();
        let sum = network.add("sum", Op::Add, &[ab, ba]).unwrap();
        network.set_output(sum).unwrap();
        assert!(!apply_checked(&MergeEqualNodes, &mut network).unwrap());
    }
}
