//! The lowered network: primitive operators in execution order, a shape on every edge.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Op, Params, Shape, ShapeError};

/// A node of one [`Network`], in execution order; prints as `n7`. Means nothing in another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Position in the execution order.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One operator, its inputs and its output's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Dotted name such as `stages.0.cells.0.n14.conv`, unique in the network; prefix of its parameters' names.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Where its inputs come from, in order; every id is smaller than the node's own.
    pub inputs: Vec<NodeId>,
    /// Shape of its output for one image.
    pub shape: Shape,
}

/// An architecture lowered to primitive operators.
///
/// Nodes stand in execution order: node 0 is the input and every node comes after its inputs, so a network is acyclic by construction.
/// Costs, latency, schedules, training and export all read this one graph.
///
/// # Example
/// ```
/// use gram_ir::{Conv2d, Network, Op, Shape};
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let conv = network.add("conv", Op::Conv(Conv2d::new(3, 16, 3)), &[network.input()])?;
/// network.set_output(conv)?;
/// assert_eq!(network.output_shape(), Shape::chw(16, 8, 8));
/// # Ok::<(), gram_ir::NetworkError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    nodes: Vec<Node>,
    by_name: BTreeMap<String, NodeId>,
    output: NodeId,
}

/// No network may have more nodes.
pub const MAX_NODES: usize = 1 << 16;

impl Network {
    /// A network that gives its input, of shape `input`.
    pub fn new(input: Shape) -> Self {
        let node = Node { name: "input".into(), op: Op::Input { shape: input }, inputs: Vec::new(), shape: input };
        let by_name = BTreeMap::from([(node.name.clone(), NodeId(0))]);
        Self { nodes: vec![node], by_name, output: NodeId(0) }
    }

    /// Appends a node and infers its shape.
    ///
    /// # Errors
    /// [`NetworkError`] where the name is taken, an input does not exist, or the operator does not fit its inputs; the network is unchanged then.
    pub fn add(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> Result<NodeId, NetworkError> {
        let name = name.into();
        let id = NodeId(self.nodes.len() as u32);
        if self.nodes.len() >= MAX_NODES {
            return Err(NetworkError::TooLarge { name });
        }
        if name.is_empty() || name.chars().any(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            return Err(NetworkError::BadName { name });
        }
        if self.by_name.contains_key(&name) {
            return Err(NetworkError::DuplicateName { name });
        }
        if let Some(&input) = inputs.iter().find(|input| input.index() >= self.nodes.len()) {
            return Err(NetworkError::NoSuchNode { name, input });
        }
        let shapes: Vec<Shape> = inputs.iter().map(|input| self.nodes[input.index()].shape).collect();
        if matches!(op, Op::Input { .. }) {
            return Err(NetworkError::SecondInput { name });
        }
        let shape = match op.output_shape(&shapes) {
            Ok(shape) => shape,
            Err(source) => return Err(NetworkError::Shape { name, source }),
        };
        self.by_name.insert(name.clone(), id);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec(), shape });
        Ok(id)
    }

    /// Makes `id` the network's output.
    ///
    /// # Errors
    /// [`NetworkError::NoSuchNode`].
    pub fn set_output(&mut self, id: NodeId) -> Result<(), NetworkError> {
        if id.index() >= self.nodes.len() {
            return Err(NetworkError::NoSuchNode { name: "output".into(), input: id });
        }
        self.output = id;
        Ok(())
    }

    /// The input node, always `n0`.
    pub const fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// The output node.
    pub const fn output(&self) -> NodeId {
        self.output
    }

    /// Shape of one input image.
    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    /// Shape of one output.
    pub fn output_shape(&self) -> Shape {
        self.nodes[self.output.index()].shape
    }

    /// All nodes in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All nodes with their ids, in execution order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> + DoubleEndedIterator {
        self.nodes.iter().enumerate().map(|(i, node)| (NodeId(i as u32), node))
    }

    /// One node.
    ///
    /// # Panics
    /// If `id` is of another network and out of range here.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node of that name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// For each node the nodes that read it, in execution order; a node that reads another twice stands twice.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut consumers = vec![Vec::new(); self.nodes.len()];
        for (id, node) in self.iter() {
            for input in &node.inputs {
                consumers[input.index()].push(id);
            }
        }
        consumers
    }

    /// Trainable scalars: weights, biases, batch norm's scale and shift.
    pub fn params(&self) -> Params {
        self.nodes.iter().map(|node| node.op.params()).sum()
    }

    /// The tensors that a trained network carries, in execution order, with torch's names and shapes.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        self.iter().flat_map(|(id, node)| node_tensors(id, node)).collect()
    }
}

/// What a tensor of a trained network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorRole {
    /// Weight of a convolution or linear layer.
    Weight,
    /// Bias of a convolution or linear layer.
    Bias,
    /// Scale of a batch norm (torch's `weight`).
    NormScale,
    /// Shift of a batch norm (torch's `bias`).
    NormShift,
    /// Running mean of a batch norm; not trained.
    RunningMean,
    /// Running variance of a batch norm; not trained.
    RunningVar,
}

impl TensorRole {
    /// Whether an optimiser changes it.
    pub const fn is_trainable(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar)
    }

    /// The last part of the tensor's name, as torch names it.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Weight | Self::NormScale => "weight",
            Self::Bias | Self::NormShift => "bias",
            Self::RunningMean => "running_mean",
            Self::RunningVar => "running_var",
        }
    }
}

/// A tensor of a trained network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Node name and [`TensorRole::suffix`], e.g. `stem.0.conv.weight`.
    pub name: String,
    /// The node it belongs to.
    pub node: NodeId,
    /// What it is for.
    pub role: TensorRole,
    /// Convolutions `[c_out, c_in / groups, k, k]`, linear layers `[c_out, c_in]`, all else `[channels]`.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of scalars.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

fn node_tensors(id: NodeId, node: &Node) -> Vec<TensorSpec> {
    use TensorRole::{Bias, NormScale, NormShift, RunningMean, RunningVar, Weight};
    let tensor = |role: TensorRole, shape: &[usize]| TensorSpec {
        name: format!("{}.{}", node.name, role.suffix()),
        node: id,
        role,
        shape: shape.to_vec(),
    };
    match node.op {
        Op::Conv(conv) => {
            let bias = conv.bias.then(|| tensor(Bias, &[conv.c_out]));
            std::iter::once(tensor(Weight, &conv.weight_shape())).chain(bias).collect()
        }
        Op::Linear { c_in, c_out, bias } => {
            let bias = bias.then(|| tensor(Bias, &[c_out]));
            std::iter::once(tensor(Weight, &[c_out, c_in])).chain(bias).collect()
        }
        Op::BatchNorm { channels } => {
            [NormScale, NormShift, RunningMean, RunningVar].map(|role| tensor(role, &[channels])).to_vec()
        }
        _ => Vec::new(),
    }
}

/// Why a node cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Two nodes of one name.
    #[error("node `{name}` exists already")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A name that is empty or has other characters than letters, digits, `.`, `_` and `-`.
    #[error("`{name}` is no node name: use letters, digits, `.`, `_` and `-`")]
    BadName {
        /// The name.
        name: String,
    },
    /// An input that does not exist or comes later.
    #[error("node `{name}` reads {input}, which does not come before it")]
    NoSuchNode {
        /// The reading node.
        name: String,
        /// What it reads.
        input: NodeId,
    },
    /// A second input node.
    #[error("node `{name}` is a second input; a network has one")]
    SecondInput {
        /// The node.
        name: String,
    },
    /// More than [`MAX_NODES`] nodes.
    #[error("node `{name}` is one too many: a network has at most 65536")]
    TooLarge {
        /// The node.
        name: String,
    },
    /// The operator does not fit its inputs.
    #[error("node `{name}`: {source}")]
    Shape {
        /// The node.
        name: String,
        /// What does not fit.
        source: ShapeError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv2d;

    fn small() -> Network {
        let mut network = Network::new(Shape::chw(3, 8, 8));
        let conv = network.add("conv", Op::Conv(Conv2d::new(3, 4, 3)), &[NodeId(0)]).unwrap();
        let norm = network.add("bn", Op::BatchNorm { channels: 4 }, &[conv]).unwrap();
        let pool = network.add("pool", Op::GlobalAvgPool, &[norm]).unwrap();
        let fc = network.add("fc", Op::Linear { c_in: 4, c_out: 2, bias: true }, &[pool]).unwrap();
        network.set_output(fc).unwrap();
        network
    }

    #[test]
    fn tensors_have_torch_names_and_shapes() {
        let tensors = small().tensors();
        let listed: Vec<_> = tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
        let expected: [(&str, &[usize]); 7] = [
            ("conv.weight", &[4, 3, 3, 3]),
            ("bn.weight", &[4]),
            ("bn.bias", &[4]),
            ("bn.running_mean", &[4]),
            ("bn.running_var", &[4]),
            ("fc.weight", &[2, 4]),
            ("fc.bias", &[2]),
        ];
        assert_eq!(listed, expected);
        let trainable: usize = tensors.iter().filter(|t| t.role.is_trainable()).map(TensorSpec::elements).sum();
        assert_eq!(small().params(), Params(trainable as u64));
    }

    #[test]
    fn refused_nodes_change_nothing() {
        let mut network = small();
        let before = network.clone();
        let refused = [
            network.add("conv", Op::Identity, &[NodeId(0)]),
            network.add("late", Op::Identity, &[NodeId(99)]),
            network.add("wrong", Op::BatchNorm { channels: 5 }, &[NodeId(1)]),
            network.add("a b", Op::Identity, &[NodeId(0)]),
            network.add("second", Op::Input { shape: Shape::chw(1, 1, 1) }, &[]),
        ];
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
        assert!(network.set_output(NodeId(99)).is_err());
        assert_eq!(network, before);
    }

    #[test]
    fn consumers_are_listed_in_order() {
        let consumers = small().consumers();
        assert_eq!(consumers[0], [NodeId(1)]);
        assert!(consumers[4].is_empty());
    }
}
