//! Small networks in which an engine runs one given kernel, and the times of kernels out of an engine's profile.

use gram_export::{ExportError, OnnxMetadata, to_onnx};
use gram_ir::{Activation, Conv2d, Network, NetworkError, NodeId, Op, Pool, Shape, Weights};
use gram_latency_runner::NodeTime;

use crate::Layout;
use crate::fuse::{Fused, fuse};
use crate::kernel::{Kernel, KernelOp};

/// A network in which an engine of this layout runs `kernel`, and the kernel's place among the network's; none if no such network is
/// known.
pub(crate) fn bench_network(kernel: &Kernel, layout: Layout) -> Option<(Network, usize)> {
    let network = build(kernel).ok()?;
    let place = fuse(&network, layout).kernels.iter().position(|placed| placed.kernel == *kernel)?;
    Some((network, place))
}

/// The ONNX bytes of a network with made-up weights; times do not depend on their values.
pub(crate) fn timing_model(network: &Network) -> Result<Vec<u8>, ExportError> {
    to_onnx(network, &Weights::arbitrary(network, 1), &OnnxMetadata::new("timing"))
}

fn build(kernel: &Kernel) -> Result<Network, NetworkError> {
    let [c, h, w] = kernel.input();
    let single = |shape: Shape| Bench { network: Network::new(shape) };
    let mut bench = match kernel.op {
        // 18 channels are no multiple of 4, so convolutions of them stay plain.
        KernelOp::Concat | KernelOp::Add => single(Shape::chw(if kernel.blocked { 16 } else { 18 }, h, w)),
        _ => single(Shape::chw(c, h, w)),
    };
    let input = bench.network.input();
    let pool = Pool::new(kernel.kernel, kernel.stride, kernel.padding);
    let output = match kernel.op {
        KernelOp::Conv | KernelOp::DepthwiseConv => bench.conv(kernel, input)?,
        KernelOp::MaxPool => bench.add("kernel", Op::MaxPool(pool), &[input])?,
        KernelOp::AvgPool => bench.add("kernel", Op::AvgPool(pool), &[input])?,
        KernelOp::GlobalAvgPool => {
            let source = if kernel.blocked { bench.add("blocked", ONE_PIXEL_POOL, &[input])? } else { input };
            bench.add("kernel", Op::GlobalAvgPool, &[source])?
        }
        KernelOp::Concat => bench.joined(Op::Concat, &parts(kernel.c_in, kernel.inputs))?,
        KernelOp::Add => bench.joined(Op::Add, &vec![kernel.c_in; kernel.inputs])?,
        KernelOp::Act => {
            let activation = kernel.act.unwrap_or(Activation::Relu);
            let source = if kernel.blocked { bench.add("blocked", ONE_PIXEL_POOL, &[input])? } else { input };
            bench.add("kernel", Op::Act { activation }, &[source])?
        }
        KernelOp::BatchNorm => bench.add("kernel", Op::BatchNorm { channels: c }, &[input])?,
        KernelOp::Linear => bench.add("kernel", Op::Linear { c_in: c, c_out: kernel.c_out, bias: true }, &[input])?,
        KernelOp::ReorderInput | KernelOp::ReorderOutput if c.is_multiple_of(16) => {
            bench.add("blocked", ONE_PIXEL_POOL, &[input])?
        }
        KernelOp::ReorderInput | KernelOp::ReorderOutput => {
            bench.add("blocked", Op::Conv(Conv2d::depthwise(c, 1)), &[input])?
        }
    };
    // The engine does not fuse this one into what gives the network's output.
    let composite = kernel.act == Some(Activation::HardSwish);
    let output = if composite { bench.add("end", Op::GlobalAvgPool, &[output])? } else { output };
    bench.network.set_output(output)?;
    Ok(bench.network)
}

/// Changes nothing but the layout.
const ONE_PIXEL_POOL: Op = Op::MaxPool(Pool::new(1, 1, 0));

struct Bench {
    network: Network,
}

impl Bench {
    fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, NetworkError> {
        self.network.add(name, op, inputs)
    }

    fn conv(&mut self, kernel: &Kernel, input: NodeId) -> Result<NodeId, NetworkError> {
        let conv = Conv2d {
            c_in: kernel.c_in,
            c_out: kernel.c_out,
            kernel: kernel.kernel,
            stride: kernel.stride,
            padding: kernel.padding,
            dilation: kernel.dilation,
            groups: kernel.groups,
            bias: true,
        };
        let mut tip = self.add("kernel", Op::Conv(conv), &[input])?;
        if kernel.residual {
            // Another map of the same shape; its activation keeps the sum out of its own convolution.
            let other = Conv2d { kernel: 1, padding: 0, dilation: 1, groups: 1, ..conv };
            let other = self.add("other", Op::Conv(other), &[input])?;
            let other = self.add("other.act", Op::Act { activation: Activation::Relu }, &[other])?;
            tip = self.add("kernel.add", Op::Add, &[tip, other])?;
        }
        match kernel.act {
            Some(activation) => self.add("kernel.act", Op::Act { activation }, &[tip]),
            None => Ok(tip),
        }
    }

    /// One map for each part, made by a convolution, joined.
    fn joined(&mut self, op: Op, parts: &[usize]) -> Result<NodeId, NetworkError> {
        let c_in = self.network.input_shape().c;
        let mut maps = Vec::new();
        for (i, &channels) in parts.iter().enumerate() {
            let conv = self.add(&format!("part.{i}"), Op::Conv(Conv2d::new(c_in, channels, 1)), &[NodeId(0)])?;
            // The activation keeps a sum out of the convolution.
            maps.push(self.add(&format!("part.{i}.act"), Op::Act { activation: Activation::Relu }, &[conv])?);
        }
        self.add("kernel", op, &maps)
    }
}

/// Channels of the parts of a concatenation, as equal as multiples of 16 (else of 1) allow.
fn parts(channels: usize, n: usize) -> Vec<usize> {
    let unit = if channels.is_multiple_of(16) && channels >= 16 * n { 16 } else { 1 };
    let units = channels / unit;
    (0..n).map(|i| unit * (units / n + usize::from(i < units % n))).collect()
}

/// The time of each kernel of a network out of an engine's profile, in microseconds; none where the profile does not name it.
///
/// Several reorders of one kind are told apart by the maps that they reorder only as far as shapes go.
pub(crate) fn kernel_times(network: &Network, fused: &Fused, nodes: &[NodeTime]) -> Vec<Option<f64>> {
    let mut times: Vec<Option<f64>> = vec![None; fused.kernels.len()];
    for node in nodes {
        let place = match node.op.as_str() {
            "ReorderInput" => untimed_reorder(fused, &times, KernelOp::ReorderInput, node, network),
            "ReorderOutput" => untimed_reorder(fused, &times, KernelOp::ReorderOutput, node, network),
            _ => node_named(network, &node.name).and_then(|id| fused.kernel_of(id)),
        };
        if let Some(place) = place {
            *times[place].get_or_insert(0.0) += node.us;
        }
    }
    times
}

/// A reorder of the node's shape that has no time yet.
fn untimed_reorder(
    fused: &Fused,
    times: &[Option<f64>],
    op: KernelOp,
    node: &NodeTime,
    network: &Network,
) -> Option<usize> {
    let fits = |place: &usize| {
        let placed = &fused.kernels[*place];
        let Shape { h, w, .. } = network.node(placed.node).shape;
        let same_size = node.output.len() != 4 || node.output[2..] == [h, w];
        let padded = node.output.get(1).is_none_or(|&c| c >= placed.kernel.c_in && c < placed.kernel.c_in + 64);
        placed.kernel.op == op && times[*place].is_none() && same_size && padded
    };
    (0..fused.kernels.len()).find(fits)
}

/// The node that an engine's name comes from.
fn node_named(network: &Network, name: &str) -> Option<NodeId> {
    let name = name.strip_suffix("_nchwc").unwrap_or(name);
    if name == gram_export::OUTPUT {
        return Some(network.output());
    }
    network.find(name).or_else(|| network.find(&name.replace('/', ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        assert_eq!(parts(112, 3), [48, 32, 32]);
        assert_eq!(parts(20, 3), [7, 7, 6]);
        assert_eq!(parts(16, 2), [8, 8]);
    }

    #[test]
    fn every_kind_of_kernel_has_a_network() {
        let blocked = Layout::blocked(16);
        for text in [
            "conv 3x32x32>16 k3 s2 p1 +relu6 blocked",
            "conv 64x28x28>32 k1 s1 p0 blocked",
            "conv 64x28x28>32 k3 s2 p1 +add +relu blocked",
            "conv 64x28x28>32 k1 s1 p0 +add blocked",
            "conv 64x28x28 k3 s1 p1 g2 +relu blocked",
            "conv 22x14x14>24 k3 s1 p1 +relu6",
            "dwconv 96x14x14 k5 s1 p2 +hard-swish blocked",
            "dwconv 21x14x14 k3 s1 p1 +relu",
            "maxpool 48x28x28 k2 s2 p0 blocked",
            "maxpool 20x28x28 k2 s2 p0",
            "avgpool 48x28x28 k3 s1 p1 blocked",
            "global-avgpool 80x4x4 blocked",
            "global-avgpool 76x4x4",
            "concat 96x14x14 n3 blocked",
            "concat 20x14x14 n2",
            "concat 64x14x14 n2",
            "add 32x14x14 n2 blocked",
            "add 32x14x14 n3",
            "act 48x28x28 +relu6",
            "act 48x28x28 +relu blocked",
            "batchnorm 48x28x28",
            "linear 80x1x1>10",
            "reorder-input 48x14x14",
            "reorder-output 48x14x14",
            "reorder-output 20x14x14",
        ] {
            let kernel: Kernel = text.parse().unwrap();
            assert!(bench_network(&kernel, blocked).is_some(), "{text}");
        }
        let plain: Kernel = "conv 64x28x28>32 k3 s2 p1 +relu".parse().unwrap();
        assert!(bench_network(&plain, Layout::PLAIN).is_some() && bench_network(&plain, blocked).is_none());
    }
}
