//! From a network to what an engine would run: fusion, views, partial sums.

use gram_ir::{Conv2d, Network, Node, NodeId, Op, Shape};

use crate::graph::{Fragment, MAX_READS};
use crate::{BufferId, Concat, MemoryError, MemoryGraph, MemoryModel, Separable, Step};

impl MemoryGraph {
    /// The steps in which an engine would execute `network`.
    ///
    /// - What the output does not need is left out.
    /// - Batch norm and activation are computed where they stand, in the buffer of the operator in front, if nobody else reads that; an
    ///   identity is another name for its input. An activation is assumed to work in place, an addition is not.
    /// - A depthwise convolution and the 1x1 convolution behind it are one step, unless [`MemoryModel::separable`] says otherwise.
    /// - A concatenation is a step, or with [`Concat::View`] free; if it is the output, it is copied in any case.
    /// - With [`MemoryModel::partial`] a convolution of a concatenation is a step per input, all of which accumulate into one buffer; a depthwise
    ///   one is a step per input, each of which writes channels of its own (with [`Concat::View`] into a buffer of its own). With
    ///   [`Concat::Copy`] the concatenation goes away if all that read it are split. Convolutions with groups of several channels are not
    ///   split. What is computed in place between the two halves of a separable convolution is computed for each part;
    ///   [`SplitConvOverConcat`](gram_ir::SplitConvOverConcat), the same rewrite of a network, stops there.
    ///
    /// Weights are not counted.
    /// # Errors
    /// [`MemoryError`] if the network is too large to be counted.
    /// # Source
    /// Ahn et al., [arXiv:2003.02369](https://arxiv.org/abs/2003.02369), sections 2 and 3.3 (ALGORITHMS 5.2 and 5.4).
    pub fn from_network(network: &Network, engine: &MemoryModel) -> Result<Self, MemoryError> {
        let mut builder = Builder::new(network, engine);
        for (id, node) in network.iter() {
            if builder.readers[id.index()].is_some() && !builder.fused[id.index()] {
                builder.node(id, node)?;
            }
        }
        builder.finish()
    }
}

/// A run of channels of one buffer.
#[derive(Clone, Copy, Debug)]
struct Piece {
    buffer: BufferId,
    channels: usize,
}

struct Builder<'a> {
    network: &'a Network,
    engine: &'a MemoryModel,
    /// For each node that the output needs, who reads it: nobody, one node once, or several.
    readers: Vec<Option<Readers>>,
    /// Concatenations that are not made.
    is_view: Vec<bool>,
    /// The node whose values the network gives: its output, or what that is another name for.
    source: NodeId,
    /// Nodes that belong to the step of an earlier one.
    fused: Vec<bool>,
    /// Where the output of each node stands, channel by channel.
    values: Vec<Vec<Piece>>,
    bytes: Vec<u64>,
    steps: Vec<Step>,
    n_reads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    /// The network's output, or of no use but that.
    Outside,
    One(NodeId),
    Several,
}

/// A node with all that is computed in its step.
struct Fused {
    nodes: Vec<NodeId>,
    /// How it may be split over the pieces of its input.
    split: Option<Split>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    /// Parts are summed up in place.
    Sum,
    /// Parts stand side by side; each input channel makes so many output channels.
    SideBySide { multiplier: usize },
}

impl<'a> Builder<'a> {
    fn new(network: &'a Network, engine: &'a MemoryModel) -> Self {
        let n = network.nodes().len();
        let readers = readers(network);
        let is_view = views(network, engine, &readers);
        let mut source = network.output();
        while network.node(source).op == Op::Identity {
            source = network.node(source).inputs[0];
        }
        Self {
            network,
            engine,
            readers,
            is_view,
            source,
            fused: vec![false; n],
            values: vec![Vec::new(); n],
            bytes: Vec::new(),
            steps: Vec::new(),
            n_reads: 0,
        }
    }

    fn node(&mut self, id: NodeId, node: &Node) -> Result<(), MemoryError> {
        match node.op {
            Op::Input { .. } => {
                let buffer = self.buffer(node.shape.elements());
                self.values[id.index()] = vec![Piece { buffer, channels: node.shape.c }];
            }
            Op::Identity => self.values[id.index()] = self.values[node.inputs[0].index()].clone(),
            Op::Concat if self.is_view[id.index()] => {
                let pieces = node.inputs.iter().flat_map(|input| &self.values[input.index()]).copied().collect();
                self.values[id.index()] = pieces;
            }
            _ => self.operator(id, node)?,
        }
        // Views cost no step; what bounds them is their number of pieces.
        self.count(self.values[id.index()].len())
    }

    fn operator(&mut self, id: NodeId, node: &Node) -> Result<(), MemoryError> {
        let Fused { nodes, split } = self.fuse(id, node);
        let pieces: Vec<Piece> = node.inputs.iter().flat_map(|input| &self.values[input.index()]).copied().collect();
        let last = nodes[nodes.len() - 1];
        let shape = self.network.node(last).shape;
        let split = split.filter(|_| self.engine.partial && pieces.len() > 1);
        let buffers = distinct(&pieces);
        self.values[last.index()] = match split {
            // An output in pieces would have to be joined.
            Some(Split::SideBySide { multiplier })
                if self.engine.concat == Concat::View && !nodes.contains(&self.source) =>
            {
                self.side_by_side(&nodes, &pieces, multiplier, shape.pixels())?
            }
            Some(_) => self.parts_of_one(&nodes, &buffers, shape)?,
            None => {
                let writes = self.buffer(shape.elements());
                self.step(Step { nodes, fragment: None, reads: buffers, writes })?;
                vec![Piece { buffer: writes, channels: shape.c }]
            }
        };
        Ok(())
    }

    /// A step per buffer, each of which adds to the output, or writes some of its channels.
    fn parts_of_one(
        &mut self,
        nodes: &[NodeId],
        buffers: &[BufferId],
        shape: Shape,
    ) -> Result<Vec<Piece>, MemoryError> {
        let writes = self.buffer(shape.elements());
        let of = buffers.len() as u32;
        for (index, &buffer) in (0..of).zip(buffers) {
            let fragment = (of > 1).then_some(Fragment { index, of });
            self.step(Step { nodes: nodes.to_vec(), fragment, reads: vec![buffer], writes })?;
        }
        Ok(vec![Piece { buffer: writes, channels: shape.c }])
    }

    /// A step and a buffer per piece.
    fn side_by_side(
        &mut self,
        nodes: &[NodeId],
        pieces: &[Piece],
        multiplier: usize,
        pixels: usize,
    ) -> Result<Vec<Piece>, MemoryError> {
        let of = pieces.len() as u32;
        let mut outputs = Vec::with_capacity(pieces.len());
        for (index, piece) in (0..of).zip(pieces) {
            let channels = piece.channels * multiplier;
            let writes = self.buffer(channels * pixels);
            let fragment = Some(Fragment { index, of });
            self.step(Step { nodes: nodes.to_vec(), fragment, reads: vec![piece.buffer], writes })?;
            outputs.push(Piece { buffer: writes, channels });
        }
        Ok(outputs)
    }

    /// What is computed together with the node `id`.
    fn fuse(&mut self, id: NodeId, node: &Node) -> Fused {
        let mut nodes = vec![id];
        let mut split = match node.op {
            Op::Conv(conv) => split_of(&conv),
            _ => None,
        };
        let may_be_separable = matches!(node.op, Op::Conv(conv) if is_depthwise(&conv));
        let mut may_be_separable = may_be_separable && self.engine.separable == Separable::Fused;
        while let Some(Readers::One(next)) = self.readers[nodes[nodes.len() - 1].index()] {
            match self.network.node(next).op {
                Op::BatchNorm { .. } | Op::Act { .. } | Op::Identity => {}
                Op::Conv(conv) if may_be_separable && is_pointwise(&conv) => {
                    may_be_separable = false;
                    split = Some(Split::Sum);
                }
                _ => break,
            }
            self.fused[next.index()] = true;
            nodes.push(next);
        }
        Fused { nodes, split }
    }

    fn buffer(&mut self, elements: usize) -> BufferId {
        // At most 2⁴⁸ elements, for axes of at most 2¹⁶.
        self.bytes.push(elements as u64 * self.engine.dtype.bytes());
        BufferId(self.bytes.len() as u32 - 1)
    }

    fn step(&mut self, step: Step) -> Result<(), MemoryError> {
        self.count(step.reads.len() + 1)?;
        self.steps.push(step);
        Ok(())
    }

    fn count(&mut self, reads: usize) -> Result<(), MemoryError> {
        self.n_reads += reads;
        if self.n_reads > MAX_READS { Err(MemoryError::TooManyReads) } else { Ok(()) }
    }

    /// Joins the output if it stands in several buffers.
    fn finish(mut self) -> Result<MemoryGraph, MemoryError> {
        let output = self.network.output();
        let pieces = std::mem::take(&mut self.values[output.index()]);
        let buffer = match pieces[..] {
            [piece] => piece.buffer,
            _ => {
                let writes = self.buffer(self.network.output_shape().elements());
                self.step(Step { nodes: vec![output], fragment: None, reads: distinct(&pieces), writes })?;
                writes
            }
        };
        MemoryGraph::new(self.bytes, self.steps, &[buffer])
    }
}

/// Who reads each node that the output needs; none: the output does not need it.
fn readers(network: &Network) -> Vec<Option<Readers>> {
    let mut readers = vec![None; network.nodes().len()];
    readers[network.output().index()] = Some(Readers::Outside);
    for (id, node) in network.iter().rev() {
        if readers[id.index()].is_none() {
            continue;
        }
        for input in &node.inputs {
            // The world outside is a reader too: nothing may be computed in place of what it wants.
            let reader = &mut readers[input.index()];
            *reader = Some(if reader.is_none() { Readers::One(id) } else { Readers::Several });
        }
    }
    readers
}

/// Which concatenations are not made: all with [`Concat::View`], those that all readers split away with [`Concat::Copy`].
fn views(network: &Network, engine: &MemoryModel, readers: &[Option<Readers>]) -> Vec<bool> {
    let n = network.nodes().len();
    if engine.concat == Concat::View || !engine.partial {
        return vec![engine.concat == Concat::View; n];
    }
    // Whether all readers that were seen so far can do without.
    let mut is_view = vec![true; n];
    is_view[network.output().index()] = false;
    for (id, node) in network.iter().rev().filter(|(id, _)| readers[id.index()].is_some()) {
        let splits = match node.op {
            Op::Conv(conv) => split_of(&conv).is_some(),
            Op::Concat => is_view[id.index()],
            _ => false,
        };
        if !splits {
            node.inputs.iter().for_each(|input| is_view[input.index()] = false);
        }
    }
    is_view
}

fn split_of(conv: &Conv2d) -> Option<Split> {
    if conv.groups == 1 {
        Some(Split::Sum)
    } else {
        (conv.groups == conv.c_in).then_some(Split::SideBySide { multiplier: conv.c_out / conv.c_in })
    }
}

fn is_depthwise(conv: &Conv2d) -> bool {
    conv.groups == conv.c_in && conv.c_out == conv.c_in
}

fn is_pointwise(conv: &Conv2d) -> bool {
    conv.kernel == 1 && conv.groups == 1 && conv.stride == 1 && conv.padding == 0
}

/// The buffers of some pieces, ascending, each once.
fn distinct(pieces: &[Piece]) -> Vec<BufferId> {
    let mut buffers: Vec<BufferId> = pieces.iter().map(|piece| piece.buffer).collect();
    buffers.sort_unstable();
    buffers.dedup();
    buffers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;
    use gram_ir::Activation;

    /// Bytes of each step's buffer and what it reads, as `bytes(reads)`.
    #[track_caller]
    fn check(text: &str, engine: MemoryModel, expected: &[&str]) {
        let network: Network = text.parse().unwrap();
        let graph = MemoryGraph::from_network(&network, &MemoryModel { dtype: Dtype::U8, ..engine }).unwrap();
        let step = |step: &Step| {
            let reads: Vec<String> = step.reads.iter().map(ToString::to_string).collect();
            format!("{}={}({})", step.writes, graph.bytes(step.writes), reads.join(","))
        };
        assert_eq!(graph.steps().iter().map(step).collect::<Vec<_>>(), expected);
    }

    const COPY: MemoryModel =
        MemoryModel { dtype: Dtype::U8, concat: Concat::Copy, partial: false, separable: Separable::Fused };
    const VIEW: MemoryModel = MemoryModel { concat: Concat::View, ..COPY };
    const PARTIAL: MemoryModel = MemoryModel { partial: true, ..VIEW };

    /// A convolution and a separable one of a concatenation of the input (2 channels of 4 pixels) and a map of 3 channels.
    const JOINED: &str = "n0 = input 2x2x2\nn1 = conv1x1/3 n0\nn2 = batchnorm n1\nn3 = relu n2\nn4 = concat n0 n3\nn5 = conv1x1/7 n4\n\
                          n6 = dwconv3x3 n4\nn7 = relu n6\nn8 = conv1x1/7 n7\nn9 = add n5 n8\nn10 = relu6 n9\noutput n10";

    #[test]
    fn concatenations_are_steps_or_views() {
        check(JOINED, COPY, &["b1=12(b0)", "b2=20(b0,b1)", "b3=28(b2)", "b4=28(b2)", "b5=28(b3,b4)"]);
        check(JOINED, VIEW, &["b1=12(b0)", "b2=28(b0,b1)", "b3=28(b0,b1)", "b4=28(b2,b3)"]);
    }

    #[test]
    fn convolutions_of_concatenations_accumulate() {
        let steps = ["b1=12(b0)", "b2=28(b0)", "b2=28(b1)", "b3=28(b0)", "b3=28(b1)", "b4=28(b2,b3)"];
        check(JOINED, PARTIAL, &steps);
        check(JOINED, MemoryModel { partial: true, ..COPY }, &steps);
        // The depthwise half makes maps of its own, of 2 and 3 channels.
        let split =
            ["b1=12(b0)", "b2=28(b0)", "b2=28(b1)", "b3=8(b0)", "b4=12(b1)", "b5=28(b3)", "b5=28(b4)", "b6=28(b2,b5)"];
        check(JOINED, MemoryModel { separable: Separable::Split, ..PARTIAL }, &split);
        // Copied, both parts of it are written into one map.
        let slices = ["b1=12(b0)", "b2=28(b0)", "b2=28(b1)", "b3=20(b0)", "b3=20(b1)", "b4=28(b3)", "b5=28(b2,b4)"];
        check(JOINED, MemoryModel { separable: Separable::Split, partial: true, ..COPY }, &slices);
    }

    #[test]
    fn a_concatenation_that_somebody_wants_whole_is_copied() {
        let pooled = "n0 = input 2x2x2\nn1 = relu n0\nn2 = concat n0 n1\nn3 = conv1x1/4 n2\nn4 = maxpool1x1 n2\nn5 = add n3 n4\noutput n5";
        let partial = MemoryModel { partial: true, ..COPY };
        check(pooled, partial, &["b1=8(b0)", "b2=16(b0,b1)", "b3=16(b2)", "b4=16(b2)", "b5=16(b3,b4)"]);
        check(pooled, PARTIAL, &["b1=8(b0)", "b2=16(b0)", "b2=16(b1)", "b3=16(b0,b1)", "b4=16(b2,b3)"]);
        // Inside of another that goes away, it goes away too.
        let nested =
            "n0 = input 2x2x2\nn1 = relu n0\nn2 = concat n0 n1\nn3 = concat n2 n0\nn4 = conv1x1/1 n3\noutput n4";
        check(nested, partial, &["b1=8(b0)", "b2=4(b0)", "b2=4(b1)"]);
    }

    #[test]
    fn an_output_in_pieces_is_joined() {
        let concat = "n0 = input 1x2x2\nn1 = relu n0\nn2 = concat n0 n1\nn3 = identity n2\noutput n3";
        check(concat, VIEW, &["b1=4(b0)", "b2=8(b0,b1)"]);
        // Found by a property test: a depthwise output is not made in pieces, even under another name.
        let depthwise = "n0 = input 1x2x2\nn1 = concat n0 n0\nn2 = dwconv1x1 n1\nn3 = identity n2\noutput n3";
        check(depthwise, PARTIAL, &["b1=8(b0)"]);
    }

    #[test]
    fn what_others_read_is_stored() {
        let tapped = "n0 = input 1x2x2\nn1 = conv1x1/1 n0\nn2 = relu n1\nn3 = add n1 n2\noutput n3";
        check(tapped, COPY, &["b1=4(b0)", "b2=4(b1)", "b3=4(b1,b2)"]);
        // Nobody needs n3.
        let unused = "n0 = input 1x2x2\nn1 = conv1x1/1 n0\nn2 = relu n1\nn3 = relu n1\noutput n2";
        check(unused, COPY, &["b1=4(b0)"]);
        // The output is read by others and outside.
        let inner = "n0 = input 1x2x2\nn1 = conv1x1/1 n0\nn2 = relu n1\noutput n1";
        check(inner, COPY, &["b1=4(b0)"]);
    }

    #[test]
    fn views_of_views_are_counted() {
        let relu = Op::Act { activation: Activation::Relu };
        let mut network = Network::new(Shape::chw(1, 1, 1));
        let mut tip = network.add("relu", relu, &[network.input()]).unwrap();
        let mut i = 0;
        // 2¹⁵ pieces each, over and over.
        while network.node(tip).shape.c < 1 << 15 {
            tip = network.add(format!("c{i}"), Op::Concat, &[tip, tip]).unwrap();
            i += 1;
        }
        for i in 0..200 {
            tip = network.add(format!("same{i}"), Op::Identity, &[tip]).unwrap();
        }
        network.set_output(tip).unwrap();
        assert_eq!(MemoryGraph::from_network(&network, &VIEW), Err(MemoryError::TooManyReads));
        assert!(MemoryGraph::from_network(&network, &COPY).is_ok());
    }
}
