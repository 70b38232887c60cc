//! A convolution of a concatenation is made of convolutions of its parts, so the concatenated map need not exist.

use std::collections::{BTreeMap, BTreeSet};

use crate::rebuild::Rebuild;
use crate::{Conv2d, Network, NetworkError, NodeId, Op, Tensor, Transform, TransformFailure, WeightedNetwork, Weights};

/// Splits convolutions that read a concatenation: `conv(concat(x₁..x_m)) = Σ conv_i(x_i)` without groups, and
/// `conv(concat(x₁..x_m)) = concat(conv_i(x_i))` where every part is made of whole groups, as in a depthwise convolution.
///
/// The parts of `conv` are called `conv.part0`, `conv.part1`, … (with underscores behind where that name is taken), their sum or
/// concatenation `conv`. The bias goes to the first part of a sum, and in slices to the parts of a concatenation. A concatenation is
/// split away only if all its readers are such convolutions and it is not the output: it would have to be made anyway otherwise.
/// Repeats until there is nothing left to split; nested concatenations and those that splitting made are split too.
///
/// MACs, params, and names and shapes of all nodes stay, except for concatenations and for convolutions with groups that became one
/// and were split away in turn. A norm can no longer be folded into a convolution that was split, since it stands behind the sum or
/// concatenation: fold first ([`FoldBatchNorm`](crate::FoldBatchNorm)).
///
/// # Errors
/// [`TransformFailure::Network`] if there are more than [`MAX_NODES`](crate::MAX_NODES) nodes then.
/// # Source
/// Identity graph rewriting of Ahn et al., "Ordering chaos: memory-aware scheduling of irregularly wired neural networks for edge
/// devices", [arXiv:2003.02369](https://arxiv.org/abs/2003.02369), section 3.3 (channel-wise and kernel-wise partitioning);
/// convolutions with groups other than depthwise \[ours\].
/// # Example
/// ```
/// use gram_ir::{Conv2d, Network, Op, Shape, SplitConvOverConcat, apply_checked};
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let zero = network.add("zero", Op::Zero, &[network.input()])?;
/// let concat = network.add("concat", Op::Concat, &[network.input(), zero])?;
/// let conv = network.add("conv", Op::Conv(Conv2d::new(6, 4, 3)), &[concat])?;
/// network.set_output(conv)?;
/// apply_checked(&SplitConvOverConcat, &mut network)?;
/// let names: Vec<&str> = network.nodes().iter().map(|node| node.name.as_str()).collect();
/// assert_eq!(names, ["input", "zero", "conv.part0", "conv.part1", "conv"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitConvOverConcat;

impl Transform<Network> for SplitConvOverConcat {
    fn name(&self) -> &'static str {
        "split-conv-over-concat"
    }

    fn apply(&self, network: &mut Network) -> Result<bool, TransformFailure> {
        let mut changed = false;
        while let Some(plan) = Plan::of(network) {
            *network = plan.rewrite(network)?;
            changed = true;
        }
        Ok(changed)
    }
}

impl Transform<WeightedNetwork> for SplitConvOverConcat {
    fn name(&self) -> &'static str {
        Transform::<Network>::name(self)
    }

    fn apply(&self, graph: &mut WeightedNetwork) -> Result<bool, TransformFailure> {
        let mut changed = false;
        while let Some(plan) = Plan::of(&graph.network) {
            for (&id, split) in &plan.splits {
                split.slice_tensors(&graph.network.node(id).name, &mut graph.weights)?;
            }
            graph.network = plan.rewrite(&graph.network)?;
            changed = true;
        }
        Ok(changed)
    }
}

/// What one round splits.
struct Plan {
    /// Concatenations that go away.
    concats: BTreeSet<NodeId>,
    /// Their readers.
    splits: BTreeMap<NodeId, Split>,
}

/// What becomes of one convolution.
struct Split {
    parts: Vec<Part>,
    /// [`Op::Add`] or [`Op::Concat`].
    join: Op,
}

struct Part {
    name: String,
    conv: Conv2d,
    /// What the concatenation read, in the old network.
    input: NodeId,
    /// First of its input channels in a convolution without groups, first of its output channels in one with groups.
    first_channel: usize,
}

impl Plan {
    fn of(network: &Network) -> Option<Self> {
        let consumers = network.consumers();
        let mut plan = Self { concats: BTreeSet::new(), splits: BTreeMap::new() };
        let mut names = BTreeSet::new();
        for (id, node) in network.iter() {
            let readers = &consumers[id.index()];
            if node.op != Op::Concat || id == network.output() || readers.is_empty() {
                continue;
            }
            let channels: Vec<usize> = node.inputs.iter().map(|&from| network.node(from).shape.c).collect();
            let split = |&reader: &NodeId| match network.node(reader).op {
                Op::Conv(conv) => Some((reader, split_conv(&conv, &channels)?)),
                _ => None,
            };
            let Some(splits) = readers.iter().map(split).collect::<Option<Vec<_>>>() else { continue };
            plan.concats.insert(id);
            for (reader, (join, convs)) in splits {
                let base = &network.node(reader).name;
                let part = |(i, (conv, first_channel))| {
                    let name = free_name(network, &mut names, format!("{base}.part{i}"));
                    Part { name, conv, input: node.inputs[i], first_channel }
                };
                plan.splits.insert(reader, Split { parts: convs.into_iter().enumerate().map(part).collect(), join });
            }
        }
        (!plan.splits.is_empty()).then_some(plan)
    }

    fn rewrite(&self, network: &Network) -> Result<Network, NetworkError> {
        let mut next = Rebuild::new(network);
        for (id, node) in network.iter().skip(1).filter(|(id, _)| !self.concats.contains(id)) {
            let Some(split) = self.splits.get(&id) else {
                next.copy(id)?;
                continue;
            };
            let mut joined = Vec::with_capacity(split.parts.len());
            for part in &split.parts {
                let input = next.stand_in(part.input);
                joined.push(next.add(&part.name, Op::Conv(part.conv), &[input])?);
            }
            let new = next.add(&node.name, split.join, &joined)?;
            next.replace(id, new);
        }
        next.finish()
    }
}

/// How to join the parts of `conv` over inputs of so many `channels`, and each part with its first channel; none if a part would
/// end inside a group.
fn split_conv(conv: &Conv2d, channels: &[usize]) -> Option<(Op, Vec<(Conv2d, usize)>)> {
    let firsts = channels.iter().scan(0, |next, c| {
        *next += c;
        Some(*next - c)
    });
    if conv.groups == 1 {
        let part = |(first, &c_in): (usize, &usize)| (Conv2d { c_in, bias: conv.bias && first == 0, ..*conv }, first);
        return Some((Op::Add, firsts.zip(channels).map(part).collect()));
    }
    let (group_in, group_out) = (conv.c_in / conv.groups, conv.c_out / conv.groups);
    if channels.iter().any(|c| !c.is_multiple_of(group_in)) {
        return None;
    }
    let part = |(first, &c_in): (usize, &usize)| {
        let groups = c_in / group_in;
        (Conv2d { c_in, c_out: groups * group_out, groups, ..*conv }, first / group_in * group_out)
    };
    Some((Op::Concat, firsts.zip(channels).map(part).collect()))
}

/// `name`, with as many underscores behind as it takes to be a new one, which is noted in `taken`.
fn free_name(network: &Network, taken: &mut BTreeSet<String>, mut name: String) -> String {
    while network.find(&name).is_some() || taken.contains(&name) {
        name.push('_');
    }
    taken.insert(name.clone());
    name
}

impl Split {
    /// Replaces the tensors of the convolution `name` by slices of them.
    fn slice_tensors(&self, name: &str, weights: &mut Weights) -> Result<(), TransformFailure> {
        let weight = weights.get(&format!("{name}.weight"))?.clone();
        let bias = weights.remove(&format!("{name}.bias"));
        weights.remove(&format!("{name}.weight"));
        for part in &self.parts {
            let slice = match self.join {
                Op::Add => slice(&weight, 1, part.first_channel, part.conv.c_in)?,
                _ => slice(&weight, 0, part.first_channel, part.conv.c_out)?,
            };
            weights.insert(format!("{}.weight", part.name), slice);
            if let (Some(bias), true) = (&bias, part.conv.bias) {
                let first = if self.join == Op::Add { 0 } else { part.first_channel };
                let slice = self::slice(bias, 0, first, part.conv.c_out)?;
                weights.insert(format!("{}.bias", part.name), slice);
            }
        }
        Ok(())
    }
}

/// Elements `first..first + count` along `axis`.
fn slice(tensor: &Tensor, axis: usize, first: usize, count: usize) -> Result<Tensor, TransformFailure> {
    let mut shape = tensor.shape().to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let blocks = tensor.data().chunks_exact(shape[axis] * inner);
    let data = blocks.flat_map(|block| &block[first * inner..][..count * inner]).copied().collect();
    shape[axis] = count;
    Ok(Tensor::new(shape, data)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shape, apply_checked};

    /// Input of 2 channels, `x` of 4 and `y` of 2 channels made of it, `concat` of input, `x`, `y`: 8 channels.
    fn concatenation() -> (Network, NodeId) {
        let mut network = Network::new(Shape::chw(2, 5, 6));
        let x = network.add("x", Op::Conv(Conv2d::new(2, 4, 3)), &[network.input()]).unwrap();
        let y = network.add("y", Op::Zero, &[network.input()]).unwrap();
        let concat = network.add("concat", Op::Concat, &[network.input(), x, y]).unwrap();
        network.set_output(concat).unwrap();
        (network, concat)
    }

    fn add_output(network: &mut Network, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
        let id = network.add(name, op, inputs).unwrap();
        network.set_output(id).unwrap();
        id
    }

    #[track_caller]
    fn splits_to(network: Network, names: &[&str]) -> WeightedNetwork {
        let mut graph = WeightedNetwork { weights: Weights::arbitrary(&network, 8), network };
        let input = Tensor::arbitrary(&[2, 2, 5, 6], 9);
        let (before, cost) = (graph.run(&input).unwrap(), graph.network.cost());
        let mut structure = graph.network.clone();
        let changed = apply_checked(&SplitConvOverConcat, &mut graph).unwrap();
        assert_eq!(apply_checked(&SplitConvOverConcat, &mut structure), Ok(changed));
        assert_eq!(structure, graph.network);
        assert_eq!(graph.network.nodes().iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!((graph.network.cost().macs, graph.network.params()), (cost.macs, cost.params));
        let after = graph.run(&input).unwrap();
        assert!(before.data().iter().zip(after.data()).all(|(a, b)| (a - b).abs() < 1e-12));
        assert_eq!(apply_checked(&SplitConvOverConcat, &mut graph), Ok(false));
        graph
    }

    #[test]
    fn a_convolution_becomes_a_sum() {
        let (mut network, concat) = concatenation();
        let conv = Conv2d { stride: 2, dilation: 2, padding: 3, ..Conv2d::new(8, 3, 3).bias(true) };
        add_output(&mut network, "conv", Op::Conv(conv), &[concat]);
        let names = ["input", "x", "y", "conv.part0", "conv.part1", "conv.part2", "conv"];
        let graph = splits_to(network, &names);
        let node = |name: &str| graph.network.node(graph.network.find(name).unwrap()).op;
        assert_eq!(node("conv"), Op::Add);
        assert_eq!(node("conv.part0"), Op::Conv(Conv2d { c_in: 2, ..conv }));
        assert_eq!(node("conv.part1"), Op::Conv(Conv2d { c_in: 4, bias: false, ..conv }));
    }

    #[test]
    fn convolutions_with_groups_become_concatenations() {
        for conv in [
            Conv2d::depthwise(8, 3).bias(true),
            Conv2d { groups: 8, ..Conv2d::new(8, 24, 3) },
            Conv2d { groups: 4, ..Conv2d::new(8, 12, 5).bias(true) },
        ] {
            let (mut network, concat) = concatenation();
            add_output(&mut network, "conv", Op::Conv(conv), &[concat]);
            let names = ["input", "x", "y", "conv.part0", "conv.part1", "conv.part2", "conv"];
            let graph = splits_to(network, &names);
            assert_eq!(graph.network.node(graph.network.output()).op, Op::Concat);
        }
    }

    #[test]
    fn parts_that_end_inside_a_group_are_left_alone() {
        let (mut network, concat) = concatenation();
        add_output(&mut network, "conv", Op::Conv(Conv2d { groups: 2, ..Conv2d::new(8, 4, 1) }), &[concat]);
        splits_to(network, &["input", "x", "y", "concat", "conv"]);
    }

    #[test]
    fn all_readers_are_split_or_none() {
        let (mut network, concat) = concatenation();
        let a = network.add("a", Op::Conv(Conv2d::new(8, 8, 1)), &[concat]).unwrap();
        let b = network.add("b", Op::Conv(Conv2d::depthwise(8, 3)), &[concat]).unwrap();
        let mut mixed = network.clone();
        add_output(&mut network, "sum", Op::Add, &[a, b]);
        let parts = ["a.part0", "a.part1", "a.part2", "a", "b.part0", "b.part1", "b.part2", "b", "sum"];
        splits_to(network, &[&["input", "x", "y"], &parts[..]].concat());
        add_output(&mut mixed, "sum", Op::Add, &[a, b, concat]);
        splits_to(mixed, &["input", "x", "y", "concat", "a", "b", "sum"]);
    }

    #[test]
    fn an_output_is_left_alone() {
        let (mut network, concat) = concatenation();
        network.add("conv", Op::Conv(Conv2d::new(8, 8, 1)), &[concat]).unwrap();
        splits_to(network, &["input", "x", "y", "concat", "conv"]);
    }

    #[test]
    fn nested_and_following_concatenations_are_split_too() {
        let (mut network, concat) = concatenation();
        let input = network.input();
        let outer = network.add("outer", Op::Concat, &[concat, input]).unwrap();
        let dw = network.add("dw", Op::Conv(Conv2d::depthwise(10, 3)), &[outer]).unwrap();
        add_output(&mut network, "pw", Op::Conv(Conv2d::new(10, 2, 1).bias(true)), &[dw]);
        let names = [
            "input",
            "x",
            "y",
            "dw.part0.part0",
            "dw.part0.part1",
            "dw.part0.part2",
            "dw.part1",
            "pw.part0.part0",
            "pw.part0.part1",
            "pw.part0.part2",
            "pw.part0",
            "pw.part1",
            "pw",
        ];
        splits_to(network, &names);
    }

    #[test]
    fn a_part_may_stand_twice_and_names_may_be_taken() {
        let mut network = Network::new(Shape::chw(2, 5, 6));
        let taken = network.add("conv.part1", Op::Identity, &[network.input()]).unwrap();
        let concat = network.add("concat", Op::Concat, &[taken, taken]).unwrap();
        add_output(&mut network, "conv", Op::Conv(Conv2d::new(4, 3, 3)), &[concat]);
        splits_to(network, &["input", "conv.part1", "conv.part0", "conv.part1_", "conv"]);
    }

    #[test]
    fn a_sum_hides_a_norm_from_folding() {
        let (mut network, concat) = concatenation();
        let conv = network.add("conv", Op::Conv(Conv2d::new(8, 3, 1)), &[concat]).unwrap();
        add_output(&mut network, "norm", Op::BatchNorm { channels: 3 }, &[conv]);
        let graph = splits_to(network, &["input", "x", "y", "conv.part0", "conv.part1", "conv.part2", "conv", "norm"]);
        assert_eq!(graph.network.cost().deployed_params, graph.network.params());
    }
}
