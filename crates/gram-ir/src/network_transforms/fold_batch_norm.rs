//! Batch norm in inference is one factor and one offset per channel; the layer in front of it can take both over.

use std::collections::{BTreeMap, BTreeSet};

use crate::rebuild::Rebuild;
use crate::{
    BATCH_NORM_EPS, Conv2d, Network, NetworkError, NodeId, Op, Params, Tensor, Transform, TransformFailure,
    WeightedNetwork, Weights,
};

/// Folds every batch norm into the convolution or linear layer in front of it, if it is that layer's only reader.
///
/// The layer keeps its name, gets a bias if it has none, and `weight · s`, `(bias − mean) · s + shift` with
/// `s = scale / √(variance + ε)`, ε = [`BATCH_NORM_EPS`]. Norms behind a folded norm are folded too. A norm stays where the layer has
/// other readers or is the output, and behind anything else. MACs stay the same, and the params that are left are
/// [`Cost::deployed_params`](crate::Cost::deployed_params).
///
/// On a [`Network`] only the graph is rewritten, for costs and schedules of what will be deployed.
///
/// # Errors
/// [`TransformFailure::Unsuitable`] if a running variance is negative.
/// # Complexity
/// One pass over nodes, edges and the weights of folded layers.
/// # Source
/// Jacob et al., [arXiv:1712.05877](https://arxiv.org/abs/1712.05877), section 3.2, equation 14.
#[derive(Clone, Copy, Debug, Default)]
pub struct FoldBatchNorm;

impl Transform<Network> for FoldBatchNorm {
    fn name(&self) -> &'static str {
        "fold-batch-norm"
    }

    fn apply(&self, network: &mut Network) -> Result<bool, TransformFailure> {
        let folds = foldable_norms(network);
        if !folds.is_empty() {
            *network = without_norms(network, &folds)?;
        }
        Ok(!folds.is_empty())
    }
}

impl Transform<WeightedNetwork> for FoldBatchNorm {
    fn name(&self) -> &'static str {
        Transform::<Network>::name(self)
    }

    fn apply(&self, graph: &mut WeightedNetwork) -> Result<bool, TransformFailure> {
        let folds = foldable_norms(&graph.network);
        if folds.is_empty() {
            return Ok(false);
        }
        for (&norm, &layer) in &folds {
            let name = |id: NodeId| graph.network.node(id).name.clone();
            fold_tensors(&mut graph.weights, &name(norm), &name(layer))?;
        }
        graph.replace_network(without_norms(&graph.network, &folds)?);
        Ok(true)
    }
}

/// Every norm that can be folded, in execution order, with the layer that takes it over.
fn foldable_norms(network: &Network) -> BTreeMap<NodeId, NodeId> {
    let consumers = network.consumers();
    let mut folds = BTreeMap::new();
    for (id, node) in network.iter().filter(|(_, node)| matches!(node.op, Op::BatchNorm { .. })) {
        let source = node.inputs[0];
        if consumers[source.index()].len() > 1 || source == network.output() {
            continue;
        }
        let layer = match network.node(source).op {
            Op::Conv(_) | Op::Linear { .. } => Some(source),
            _ => folds.get(&source).copied(),
        };
        folds.extend(layer.map(|layer| (id, layer)));
    }
    folds
}

/// Params of `network` once all norms that can be folded are.
pub(crate) fn params_after_folding(network: &Network) -> Params {
    let folds = foldable_norms(network);
    let layers: BTreeSet<NodeId> = folds.values().copied().collect();
    let left = network.iter().filter(|(id, _)| !folds.contains_key(id));
    left.map(|(id, node)| if layers.contains(&id) { with_bias(node.op).params() } else { node.op.params() }).sum()
}

fn with_bias(op: Op) -> Op {
    match op {
        Op::Conv(conv) => Op::Conv(Conv2d { bias: true, ..conv }),
        Op::Linear { c_in, c_out, .. } => Op::Linear { c_in, c_out, bias: true },
        other => other,
    }
}

fn without_norms(network: &Network, folds: &BTreeMap<NodeId, NodeId>) -> Result<Network, NetworkError> {
    let layers: BTreeSet<NodeId> = folds.values().copied().collect();
    let mut next = Rebuild::new(network);
    for (id, node) in network.iter().skip(1) {
        match folds.get(&id) {
            Some(&layer) => next.replace(id, next.stand_in(layer)),
            None if layers.contains(&id) => next.copy_with(id, with_bias(node.op))?,
            None => next.copy(id)?,
        }
    }
    next.finish()
}

/// Takes the tensors of `norm` out and works them into those of `layer`.
fn fold_tensors(weights: &mut Weights, norm: &str, layer: &str) -> Result<(), TransformFailure> {
    let tensor = |suffix: &str| weights.get(&format!("{norm}.{suffix}"));
    let variance = tensor("running_var")?;
    if let Some(channel) = variance.data().iter().position(|&x| x < 0.0) {
        let message = format!("tensor `{norm}.running_var`: the variance of channel {channel} is negative");
        return Err(TransformFailure::Unsuitable(message));
    }
    let roots = variance.data().iter().map(|var| (var + BATCH_NORM_EPS).sqrt());
    let factors: Vec<f64> = tensor("weight")?.data().iter().zip(roots).map(|(scale, root)| scale / root).collect();
    let offsets: Vec<(f64, f64)> =
        tensor("running_mean")?.data().iter().copied().zip(tensor("bias")?.data().iter().copied()).collect();
    for suffix in ["weight", "bias", "running_mean", "running_var"] {
        weights.remove(&format!("{norm}.{suffix}"));
    }

    let mut weight = weights.get(&format!("{layer}.weight"))?.clone();
    let per_channel = weight.data().len() / factors.len();
    for (filter, factor) in weight.data_mut().chunks_exact_mut(per_channel).zip(&factors) {
        filter.iter_mut().for_each(|x| *x *= factor);
    }
    let bias_name = format!("{layer}.bias");
    let mut bias = weights.remove(&bias_name).unwrap_or_else(|| Tensor::zeros(&[factors.len()]));
    for ((x, factor), (mean, shift)) in bias.data_mut().iter_mut().zip(&factors).zip(&offsets) {
        *x = (*x - mean) * factor + shift;
    }
    weights.insert(format!("{layer}.weight"), weight);
    weights.insert(bias_name, bias);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shape, apply_checked};

    fn tensor(shape: &[usize], data: &[f64]) -> Tensor {
        Tensor::new(shape.to_vec(), data.to_vec()).unwrap()
    }

    /// `layers` in a chain; each reads the one before.
    fn chain(input: Shape, layers: &[(&str, Op)]) -> Network {
        let mut network = Network::new(input);
        for (name, op) in layers {
            let id = network.add(*name, *op, &[network.output()]).unwrap();
            network.set_output(id).unwrap();
        }
        network
    }

    const NORM: Op = Op::BatchNorm { channels: 2 };

    #[track_caller]
    fn folds_to(network: Network, names: &[&str]) {
        let mut graph = WeightedNetwork { weights: Weights::arbitrary(&network, 5), network };
        let input = Tensor::arbitrary(&[2, graph.network.input_shape().c, 1, 1], 6);
        let cost = graph.network.cost();
        let before = graph.run(&input).unwrap();
        let mut structure = graph.network.clone();
        let changed = apply_checked(&FoldBatchNorm, &mut graph).unwrap();
        assert_eq!(apply_checked(&FoldBatchNorm, &mut structure), Ok(changed));
        assert_eq!(structure, graph.network);
        assert_eq!(graph.network.nodes().iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!((graph.network.params(), graph.network.cost().macs), (cost.deployed_params, cost.macs));
        let after = graph.run(&input).unwrap();
        assert!(before.data().iter().zip(after.data()).all(|(a, b)| (a - b).abs() < 1e-12), "{before:?} {after:?}");
        assert_eq!(apply_checked(&FoldBatchNorm, &mut graph), Ok(false));
    }

    #[test]
    fn folded_numbers_by_hand() {
        let conv = Op::Conv(Conv2d::new(1, 2, 1).bias(true));
        let network = chain(Shape::chw(1, 1, 1), &[("conv", conv), ("norm", NORM)]);
        let mut weights = Weights::new();
        weights.insert("conv.weight", tensor(&[2, 1, 1, 1], &[3.0, 4.0]));
        weights.insert("conv.bias", tensor(&[2], &[1.0, 0.0]));
        weights.insert("norm.weight", tensor(&[2], &[4.0, -1.0]));
        weights.insert("norm.bias", tensor(&[2], &[0.5, 0.0]));
        weights.insert("norm.running_mean", tensor(&[2], &[2.0, -3.0]));
        weights.insert("norm.running_var", tensor(&[2], &[4.0 - BATCH_NORM_EPS, 1.0 - BATCH_NORM_EPS]));
        let mut graph = WeightedNetwork { network, weights };
        assert_eq!(apply_checked(&FoldBatchNorm, &mut graph), Ok(true));
        // s = 4/2 and -1/1; bias (1 − 2)·2 + 0.5 and (0 + 3)·(−1).
        let mut expected = Weights::new();
        expected.insert("conv.weight", tensor(&[2, 1, 1, 1], &[6.0, -4.0]));
        expected.insert("conv.bias", tensor(&[2], &[-1.5, -3.0]));
        assert_eq!(graph.weights, expected);
    }

    #[test]
    fn convolutions_and_linear_layers_with_and_without_bias() {
        let point = Shape::chw(2, 1, 1);
        for bias in [false, true] {
            let conv = Op::Conv(Conv2d::depthwise(2, 3).bias(bias));
            folds_to(chain(point, &[("conv", conv), ("norm", NORM)]), &["input", "conv"]);
            let linear = Op::Linear { c_in: 2, c_out: 2, bias };
            folds_to(chain(point, &[("fc", linear), ("norm", NORM), ("more", NORM)]), &["input", "fc"]);
        }
    }

    #[test]
    fn norms_behind_anything_else_stay() {
        let identity = Op::Identity;
        let conv = Op::Conv(Conv2d::new(2, 2, 1));
        let network = chain(Shape::chw(2, 1, 1), &[("norm", NORM), ("conv", conv), ("same", identity), ("late", NORM)]);
        folds_to(network, &["input", "norm", "conv", "same", "late"]);
    }

    #[test]
    fn layers_that_are_read_elsewhere_stay() {
        let conv = ("conv", Op::Conv(Conv2d::new(2, 2, 1)));
        let mut shared = chain(Shape::chw(2, 1, 1), &[conv, ("norm", NORM)]);
        let sum = shared.add("sum", Op::Add, &[NodeId(1), NodeId(2)]).unwrap();
        shared.set_output(sum).unwrap();
        folds_to(shared, &["input", "conv", "norm", "sum"]);
        let mut output = chain(Shape::chw(2, 1, 1), &[conv, ("norm", NORM)]);
        output.set_output(NodeId(1)).unwrap();
        folds_to(output, &["input", "conv", "norm"]);
        let mut twice = chain(Shape::chw(2, 1, 1), &[conv]);
        let norms = [twice.add("a", NORM, &[NodeId(1)]).unwrap(), twice.add("b", NORM, &[NodeId(1)]).unwrap()];
        let sum = twice.add("sum", Op::Add, &norms).unwrap();
        twice.set_output(sum).unwrap();
        folds_to(twice, &["input", "conv", "a", "b", "sum"]);
    }

    #[test]
    fn a_negative_variance_is_refused() {
        let network = chain(Shape::chw(2, 1, 1), &[("conv", Op::Conv(Conv2d::new(2, 2, 1))), ("norm", NORM)]);
        let mut graph = WeightedNetwork { weights: Weights::arbitrary(&network, 0), network };
        graph.weights.insert("norm.running_var", tensor(&[2], &[1.0, -2.0]));
        let before = graph.clone();
        let message = "fold-batch-norm: tensor `norm.running_var`: the variance of channel 1 is negative";
        assert_eq!(apply_checked(&FoldBatchNorm, &mut graph).unwrap_err().to_string(), message);
        assert_eq!(graph, before);
    }
}
