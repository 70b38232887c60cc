//! Random networks, odder than any architecture lowers to.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::{Activation, Conv2d, Network, NodeId, Op, Pool, Shape};

/// Networks of 1 to `n_nodes + 1` nodes, the input among them, with every operator, for inputs of 1 to 4 channels and 3 to 7 pixels
/// along an axis.
///
/// Convolutions have any groups, stride, padding and dilation that fit; nodes read any earlier nodes, also twice; some nodes are read
/// by nobody, and any node may be the output. Shapes stay within 64 channels.
pub fn arb_network(n_nodes: usize) -> impl Strategy<Value = Network> {
    let input = (1..=4usize, 3..=7usize, 3..=7usize).prop_map(|(c, h, w)| Shape::chw(c, h, w));
    // Mostly the last node is the output, so that much of the network matters.
    let output = prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (input, vec(arb_step(), 0..=n_nodes), output).prop_map(|(input, steps, output)| {
        let mut network = Network::new(input);
        for (i, step) in steps.iter().enumerate() {
            let (op, inputs) = step.fit(&network);
            network.add(format!("{}{i}", op.kind()), op, &inputs).expect("the step fits the network");
        }
        let last = network.nodes().len() - 1;
        let output = output.map_or(last, |index| index.index(last + 1));
        network.set_output(NodeId(output as u32)).expect("the node exists");
        network
    })
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Conv,
    Depthwise,
    Norm,
    Act,
    Concat,
    Add,
    MaxPool,
    AvgPool,
    Global,
    Linear,
    Identity,
    Zero,
    /// The source's operator and inputs once more.
    Again,
}

/// What a node should be; [`Step::fit`] makes it fit.
#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    /// Which earlier node it reads; none: the last one.
    source: Option<Index>,
    /// Which nodes of fitting shape a concatenation or sum reads besides.
    others: Vec<Index>,
    /// Its sizes where it is a convolution or pool; channels and groups are wishes.
    conv: Conv2d,
    activation: Activation,
}

fn arb_step() -> impl Strategy<Value = Step> {
    use Kind::{Act, Add, Again, AvgPool, Concat, Conv, Depthwise, Global, Identity, Linear, MaxPool, Norm, Zero};
    let kinds = prop_oneof![
        10 => select(vec![Conv, Depthwise, Norm, Concat]),
        4 => select(vec![Act, Add, Identity]),
        2 => select(vec![MaxPool, AvgPool, Zero, Linear, Global, Again]),
    ];
    let source = prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let sizes = (1..=3usize, 1..=2usize, 0..=2usize, 1..=2usize, 1..=4usize, any::<bool>());
    let conv = (1..=4usize, sizes).prop_map(|(c_out, (kernel, stride, padding, dilation, groups, bias))| Conv2d {
        c_in: 1,
        c_out,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias,
    });
    (kinds, source, vec(any::<Index>(), 1..=2), conv, select(Activation::ALL.to_vec()))
        .prop_map(|(kind, source, others, conv, activation)| Step { kind, source, others, conv, activation })
}

impl Step {
    /// The operator and its inputs; an identity where what was wished for does not fit.
    fn fit(&self, network: &Network) -> (Op, Vec<NodeId>) {
        let n = network.nodes().len();
        let source = NodeId(self.source.as_ref().map_or(n - 1, |index| index.index(n)) as u32);
        let shape = network.node(source).shape;
        let mut inputs = vec![source];
        let op = match self.kind {
            Kind::Conv => Op::Conv(self.conv_of(shape.c)),
            Kind::Depthwise => Op::Conv(Conv2d { c_in: shape.c, c_out: shape.c, groups: shape.c, ..self.conv }),
            Kind::Norm => Op::BatchNorm { channels: shape.c },
            Kind::Act => Op::Act { activation: self.activation },
            Kind::Concat => {
                inputs.extend(self.others(network, |other| (other.h, other.w) == (shape.h, shape.w)));
                Op::Concat
            }
            Kind::Add => {
                inputs.extend(self.others(network, |other| other == shape));
                Op::Add
            }
            Kind::MaxPool => Op::MaxPool(self.pool()),
            Kind::AvgPool => Op::AvgPool(self.pool()),
            Kind::Global => Op::GlobalAvgPool,
            // The first of two wishes for a linear layer makes single pixels for the second.
            Kind::Linear if shape.pixels() > 1 => Op::GlobalAvgPool,
            Kind::Linear => Op::Linear { c_in: shape.c, c_out: self.conv.c_out, bias: self.conv.bias },
            Kind::Identity => Op::Identity,
            Kind::Zero => Op::Zero,
            Kind::Again if source == network.input() => Op::Identity,
            Kind::Again => {
                inputs = network.node(source).inputs.clone();
                network.node(source).op
            }
        };
        let shapes: Vec<Shape> = inputs.iter().map(|&input| network.node(input).shape).collect();
        match op.output_shape(&shapes) {
            Ok(output) if output.c <= 64 => (op, inputs),
            _ => (Op::Identity, vec![source]),
        }
    }

    /// The wished convolution of `c_in` channels, with as many groups as go and output channels rounded up to them.
    fn conv_of(&self, c_in: usize) -> Conv2d {
        let groups = if c_in.is_multiple_of(self.conv.groups) { self.conv.groups } else { 1 };
        Conv2d { c_in, c_out: self.conv.c_out.next_multiple_of(groups), groups, ..self.conv }
    }

    fn pool(&self) -> Pool {
        Pool::new(self.conv.kernel, self.conv.stride, self.conv.padding.min(self.conv.kernel / 2))
    }

    fn others(&self, network: &Network, fits: impl Fn(Shape) -> bool) -> Vec<NodeId> {
        let fitting: Vec<NodeId> = network.iter().filter(|(_, node)| fits(node.shape)).map(|(id, _)| id).collect();
        self.others.iter().map(|index| fitting[index.index(fitting.len())]).collect()
    }
}
