//! From a network to the kernels that an engine runs: what it fuses, and where it changes the layout.
//!
//! The rules are onnxruntime's, read out of the graphs that it writes after optimisation; a test compares them. Batch norm is folded on
//! export; a convolution takes over an activation that alone reads it; where maps can be blocked by channels, they are, and a sum takes
//! the place of a convolution's bias. Where the layout breaks, a reorder is a kernel of its own.

use std::collections::BTreeMap;

use gram_ir::{Activation, Network, NodeId, Op, Pool, Shape};
use serde::{Deserialize, Serialize};

use crate::kernel::{Kernel, KernelOp};

/// The blocked layout of a device's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Channels in a block: 16 with AVX-512, 8 with AVX2; 1 where the engine knows no blocks.
    pub block: usize,
    /// Convolutions are blocked where their channels are multiples of this.
    pub align: usize,
}

impl Layout {
    /// Maps as they are, channel after channel.
    pub const PLAIN: Self = Self { block: 1, align: 1 };

    /// Blocks of `block` channels, as onnxruntime has them.
    pub const fn blocked(block: usize) -> Self {
        if block <= 1 { Self::PLAIN } else { Self { block, align: 4 } }
    }

    const fn is_blocked(self) -> bool {
        self.block > 1
    }

    const fn fills(self, channels: usize) -> bool {
        self.is_blocked() && channels.is_multiple_of(self.block)
    }
}

/// A kernel of a network, and the node whose value it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedKernel {
    /// The kernel.
    pub kernel: Kernel,
    /// The node whose value it gives; for a sum in a convolution the convolution, for a reorder the map that is reordered.
    pub node: NodeId,
}

/// The kernels that an engine with this layout runs for `network`, reorders last; nodes that the output does not need have none.
///
/// # Complexity
/// One pass over nodes and edges.
/// # Source
/// The graphs that onnxruntime 1.32 writes (session option "optimized model path"); `docs/latency.md` lists the rules.
pub fn fused_kernels(network: &Network, layout: Layout) -> Vec<PlacedKernel> {
    fuse(network, layout).kernels
}

/// The kernels of a network and which of its nodes went into which.
pub(crate) struct Fused {
    pub(crate) kernels: Vec<PlacedKernel>,
    /// For each node the one whose kernel computes its value.
    origins: Vec<NodeId>,
}

impl Fused {
    /// The kernel, by its place, that a node went into; none for the input and for nodes that are not needed.
    pub(crate) fn kernel_of(&self, node: NodeId) -> Option<usize> {
        let origin = self.origins[node.index()];
        self.kernels.iter().position(|placed| placed.node == origin && !placed.kernel.op.is_reorder())
    }
}

pub(crate) fn fuse(network: &Network, layout: Layout) -> Fused {
    let mut fusion = Fusion::new(network, layout);
    for (id, node) in network.iter() {
        if fusion.readers[id.index()] > 0 {
            fusion.node(id, node.op, node.shape);
        }
    }
    fusion.finish()
}

/// Where a node's value stands.
#[derive(Clone, Copy, Debug)]
enum Value {
    /// It has not been computed, or nobody needs it.
    None,
    /// The value of an earlier node, whose kernel took this one over: folded norms, fused activations and sums.
    Of(NodeId),
    /// In plain layout.
    Plain,
    /// In blocks, made by this kernel.
    Blocked { by: usize },
}

/// For each node the first that gives the same value: identities give their input's, and operators without weights that read the same
/// are computed once.
fn first_equals(network: &Network) -> Vec<NodeId> {
    let mut first: Vec<NodeId> = Vec::with_capacity(network.nodes().len());
    let mut seen: BTreeMap<(Op, Vec<NodeId>), NodeId> = BTreeMap::new();
    for (id, node) in network.iter() {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| first[input.index()]).collect();
        first.push(match node.op {
            Op::Identity => inputs[0],
            Op::Input { .. } | Op::Conv(_) | Op::Linear { .. } | Op::BatchNorm { .. } => id,
            op => *seen.entry((op, inputs)).or_insert(id),
        });
    }
    first
}

/// A ReLU that only a ReLU6 reads changes nothing.
fn drop_relus_before_relu6(network: &Network, first: &mut [NodeId]) {
    let readers = count_readers(network, first);
    let is_clip = |op: Op| matches!(op, Op::Act { activation: Activation::Relu6 } | Op::Zero);
    for (_, node) in network.iter().filter(|(id, node)| readers[id.index()] > 0 && is_clip(node.op)) {
        let source = first[node.inputs[0].index()];
        let relu = network.node(source);
        if relu.op == (Op::Act { activation: Activation::Relu }) && readers[source.index()] == 1 {
            let input = first[relu.inputs[0].index()];
            // Equal nodes point to it as well.
            first.iter_mut().filter(|id| **id == source).for_each(|id| *id = input);
        }
    }
}

/// For each node the number of edges to needed nodes, and one more for the output; none for nodes that are not needed.
fn count_readers(network: &Network, first: &[NodeId]) -> Vec<usize> {
    let mut readers = vec![0; first.len()];
    readers[first[network.output().index()].index()] = 1;
    for (id, node) in network.iter().rev() {
        if readers[id.index()] > 0 {
            node.inputs.iter().for_each(|input| readers[first[input.index()].index()] += 1);
        }
    }
    readers
}

struct Fusion<'a> {
    network: &'a Network,
    layout: Layout,
    /// [`first_equals`].
    first: Vec<NodeId>,
    /// [`count_readers`].
    readers: Vec<usize>,
    values: Vec<Value>,
    /// Readers of a blocked value that want it plain.
    plain_readers: Vec<usize>,
    /// Whether a plain value was reordered already.
    reordered: Vec<bool>,
    kernels: Vec<PlacedKernel>,
    reorders: Vec<PlacedKernel>,
}

impl<'a> Fusion<'a> {
    fn new(network: &'a Network, layout: Layout) -> Self {
        let n_nodes = network.nodes().len();
        let mut first = first_equals(network);
        drop_relus_before_relu6(network, &mut first);
        let readers = count_readers(network, &first);
        Self {
            network,
            layout,
            first,
            readers,
            values: vec![Value::None; n_nodes],
            plain_readers: vec![0; n_nodes],
            reordered: vec![false; n_nodes],
            kernels: Vec::with_capacity(n_nodes),
            reorders: Vec::new(),
        }
    }

    /// The node whose kernel computes the value of `id`.
    fn origin(&self, id: NodeId) -> NodeId {
        let mut id = self.first[id.index()];
        while let Value::Of(source) = self.values[id.index()] {
            id = source;
        }
        id
    }

    fn inputs(&self, id: NodeId) -> Vec<NodeId> {
        self.network.node(id).inputs.iter().map(|&input| self.origin(input)).collect()
    }

    /// The kernel that makes a blocked value.
    fn blocked_by(&self, origin: NodeId) -> Option<usize> {
        match self.values[origin.index()] {
            Value::Blocked { by } => Some(by),
            _ => None,
        }
    }

    fn node(&mut self, id: NodeId, op: Op, shape: Shape) {
        let inputs = self.inputs(id);
        match op {
            Op::Input { .. } => self.values[id.index()] = Value::Plain,
            // Never needed: it stands for its input.
            Op::Identity => {}
            Op::Conv(_) => self.conv(id, inputs[0]),
            Op::BatchNorm { .. } => self.batch_norm(id, inputs[0]),
            Op::Act { activation } => self.activation(id, activation, inputs[0]),
            // Written as a `Clip` between zeros, so it is fused like ReLU6.
            Op::Zero => self.activation(id, Activation::Relu6, inputs[0]),
            Op::MaxPool(pool) => self.pool(id, KernelOp::MaxPool, pool, inputs[0]),
            Op::AvgPool(pool) => self.pool(id, KernelOp::AvgPool, pool, inputs[0]),
            Op::GlobalAvgPool => {
                let source = self.network.node(inputs[0]).shape;
                let blocked = self.blocked_by(inputs[0]).is_some() && self.layout.fills(source.c);
                self.push(id, Kernel { blocked, ..keeping(KernelOp::GlobalAvgPool, source) }, &inputs);
            }
            Op::Concat => {
                let fills = |&input: &NodeId| {
                    self.blocked_by(input).is_some() && self.layout.fills(self.network.node(input).shape.c)
                };
                let blocked = inputs.iter().all(fills);
                let kernel = Kernel { inputs: inputs.len(), blocked, ..keeping(KernelOp::Concat, shape) };
                self.push(id, kernel, &inputs);
            }
            Op::Add => self.add(id, shape, &inputs),
            Op::Linear { c_in, c_out, .. } => {
                let kernel = Kernel { c_out, ..Kernel::keeping(KernelOp::Linear, [c_in, 1, 1]) };
                self.push(id, kernel, &inputs);
            }
        }
    }

    /// `id` stands for `source` from now on.
    fn alias(&mut self, id: NodeId, source: NodeId) {
        self.values[id.index()] = Value::Of(source);
        // The edge between them is gone.
        self.readers[source.index()] = self.readers[source.index()] - 1 + self.readers[id.index()];
    }

    fn conv(&mut self, id: NodeId, source: NodeId) {
        let Op::Conv(conv) = self.network.node(id).op else { return };
        let Shape { h, w, .. } = self.network.node(source).shape;
        let (op, layout) = (if conv.is_depthwise() { KernelOp::DepthwiseConv } else { KernelOp::Conv }, self.layout);
        let per_group = |channels: usize| layout.fills(channels / conv.groups);
        let blocked = layout.is_blocked()
            && match conv.groups {
                1 => conv.c_in < layout.block || conv.c_in.is_multiple_of(layout.align),
                _ if conv.is_depthwise() => conv.c_out.is_multiple_of(layout.align),
                _ => per_group(conv.c_in) && per_group(conv.c_out),
            };
        let kernel = Kernel {
            c_out: conv.c_out,
            kernel: conv.kernel,
            stride: conv.stride,
            padding: conv.padding,
            dilation: conv.dilation,
            groups: conv.groups,
            blocked,
            ..Kernel::keeping(op, [conv.c_in, h, w])
        };
        if blocked && conv.groups == 1 && conv.c_in < layout.block {
            // Few channels are read as they are, and written in blocks.
            self.read_plain(source);
            self.place(id, kernel);
        } else {
            self.push(id, kernel, &[source]);
        }
    }

    fn batch_norm(&mut self, id: NodeId, source: NodeId) {
        let shape = self.network.node(id).shape;
        let layer = self.first[self.network.node(id).inputs[0].index()];
        let folds = match self.network.node(layer).op {
            Op::Conv(_) | Op::Linear { .. } => true,
            // Behind a norm that was folded.
            Op::BatchNorm { .. } => matches!(self.values[layer.index()], Value::Of(_)),
            _ => false,
        };
        if folds && self.readers[source.index()] == 1 {
            return self.alias(id, source);
        }
        if self.blocked_by(source).is_some() {
            // A depthwise convolution of single pixels.
            let kernel = keeping(KernelOp::DepthwiseConv, shape);
            self.push(id, Kernel { groups: shape.c, blocked: true, ..kernel }, &[source]);
        } else {
            self.push(id, keeping(KernelOp::BatchNorm, shape), &[source]);
        }
    }

    fn activation(&mut self, id: NodeId, activation: Activation, source: NodeId) {
        let shape = self.network.node(id).shape;
        // The network's output must be there as it is named, which a composite operator is not.
        let is_output = self.first[self.network.output().index()] == id && activation == Activation::HardSwish;
        if let (Some(kernel), false) = (self.fusable(source), is_output) {
            // ReLU and ReLU6 are taken over before the layout is chosen, sums and all else afterwards.
            let early = !kernel.residual && activation != Activation::HardSwish;
            if early || kernel.blocked && works_in_blocks(activation) {
                kernel.act = Some(activation);
                return self.alias(id, source);
            }
        }
        let blocked = self.blocked_by(source).is_some() && works_in_blocks(activation);
        self.push(id, Kernel { act: Some(activation), blocked, ..keeping(KernelOp::Act, shape) }, &[source]);
    }

    /// The convolution that makes `source`, if it has one reader and no activation yet.
    fn fusable(&mut self, source: NodeId) -> Option<&mut Kernel> {
        if self.readers[source.index()] != 1 {
            return None;
        }
        let by = match self.values[source.index()] {
            Value::Blocked { by } => by,
            _ => self.kernels.iter().rposition(|placed| placed.node == source)?,
        };
        let kernel = &mut self.kernels[by].kernel;
        let is_conv = matches!(kernel.op, KernelOp::Conv | KernelOp::DepthwiseConv);
        (is_conv && kernel.act.is_none()).then_some(kernel)
    }

    fn pool(&mut self, id: NodeId, op: KernelOp, pool: Pool, source: NodeId) {
        let shape = self.network.node(source).shape;
        let Pool { kernel, stride, padding } = pool;
        let blocked = self.layout.fills(shape.c);
        self.push(id, Kernel { kernel, stride, padding, blocked, ..keeping(op, shape) }, &[source]);
    }

    fn add(&mut self, id: NodeId, shape: Shape, inputs: &[NodeId]) {
        let blocked = inputs.iter().all(|&input| self.blocked_by(input).is_some());
        if blocked && inputs.len() == 2 {
            for &input in inputs {
                if let Some(kernel) = self.fusable(input)
                    && !kernel.residual
                {
                    kernel.residual = true;
                    return self.alias(id, input);
                }
            }
        }
        self.push(id, Kernel { inputs: inputs.len(), blocked, ..keeping(KernelOp::Add, shape) }, inputs);
    }

    /// Adds a kernel that reads its inputs in its own layout.
    fn push(&mut self, id: NodeId, kernel: Kernel, inputs: &[NodeId]) {
        for &input in inputs {
            if kernel.blocked { self.read_blocked(input) } else { self.read_plain(input) }
        }
        self.place(id, kernel);
    }

    fn place(&mut self, id: NodeId, kernel: Kernel) {
        let by = self.kernels.len();
        self.values[id.index()] = if kernel.blocked { Value::Blocked { by } } else { Value::Plain };
        self.kernels.push(PlacedKernel { kernel, node: id });
    }

    fn read_blocked(&mut self, origin: NodeId) {
        if self.blocked_by(origin).is_none() && !self.reordered[origin.index()] {
            self.reordered[origin.index()] = true;
            let kernel = keeping(KernelOp::ReorderInput, self.network.node(origin).shape);
            self.reorders.push(PlacedKernel { kernel, node: origin });
        }
    }

    fn read_plain(&mut self, origin: NodeId) {
        self.plain_readers[origin.index()] += 1;
    }

    fn finish(mut self) -> Fused {
        let output = self.origin(self.network.output());
        self.read_plain(output);
        for (i, &readers) in self.plain_readers.iter().enumerate() {
            let node = NodeId(i as u32);
            if readers > 0 && self.blocked_by(node).is_some() {
                let kernel = keeping(KernelOp::ReorderOutput, self.network.node(node).shape);
                self.reorders.push(PlacedKernel { kernel, node });
            }
        }
        self.kernels.append(&mut self.reorders);
        let origins = self.network.iter().map(|(id, _)| self.origin(id)).collect();
        Fused { kernels: self.kernels, origins }
    }
}

/// Whether onnxruntime applies it to blocked maps; the others are applied to plain ones, with reorders around.
const fn works_in_blocks(activation: Activation) -> bool {
    !matches!(activation, Activation::Relu6)
}

const fn keeping(op: KernelOp, shape: Shape) -> Kernel {
    Kernel::keeping(op, [shape.c, shape.h, shape.w])
}
