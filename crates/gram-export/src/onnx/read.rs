//! ONNX files read back, so that the *file* can be run and compared.

use std::collections::BTreeMap;

use gram_ir::{MAX_AXIS, Network, NetworkError, NodeId, Op, Shape, TensorError, Weights};
use prost::Message;

use super::limits;
use super::operators::{self, Attributes};
use super::tensors::Initialisers;
use super::{IR_VERSION, OPSET, OnnxMetadata, proto};

/// What an ONNX file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxModel {
    /// The network, its nodes named as the file's nodes.
    pub network: Network,
    /// Its weights, exactly as stored.
    pub weights: Weights,
    /// Name of the graph and `metadata_props`.
    pub metadata: OnnxMetadata,
}

/// Reads an ONNX file as [`to_onnx`](super::to_onnx) writes it.
///
/// It reads what `to_onnx` can write and refuses everything else, also where ONNX allows it; it is no general importer.
/// Memory is bounded by a small multiple of the file's size, whatever sizes it claims.
/// # Errors
/// [`ReadError`], naming the node or tensor.
pub fn from_onnx(bytes: &[u8]) -> Result<OnnxModel, ReadError> {
    limits::check_fields(bytes)?;
    let model = proto::Model::decode(bytes).map_err(|error| ReadError::NotProtobuf { reason: error.to_string() })?;
    check_versions(&model)?;
    let graph = model.graph.as_ref().ok_or(ReadError::Graph { reason: "there is no graph" })?;
    let (network, weights) = GraphReader::new(graph)?.read(graph)?;
    weights.check(&network)?;
    Ok(OnnxModel { network, weights, metadata: metadata(&model, graph) })
}

fn check_versions(model: &proto::Model) -> Result<(), ReadError> {
    let version = |what, expected: i64, got: Option<i64>| {
        if got == Some(expected) { Ok(()) } else { Err(ReadError::Version { what, expected, got: got.unwrap_or(0) }) }
    };
    version("file format", IR_VERSION, model.ir_version)?;
    match model.opset_import.as_slice() {
        [set] if is_default_domain(set.domain.as_deref()) => version("operator set", OPSET, set.version),
        _ => Err(ReadError::Graph { reason: "it needs another operator set than ONNX's own" }),
    }
}

fn is_default_domain(domain: Option<&str>) -> bool {
    matches!(domain, None | Some("" | "ai.onnx"))
}

fn metadata(model: &proto::Model, graph: &proto::Graph) -> OnnxMetadata {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    OnnxMetadata {
        name: text(&graph.name),
        metadata_props: model.metadata_props.iter().map(|entry| (text(&entry.key), text(&entry.value))).collect(),
    }
}

/// A value of the file and the node of the network that gives it.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// `[batch, c, h, w]`.
    Image(NodeId),
    /// `[batch, c]`, the same numbers as a map of one pixel.
    Flat(NodeId),
}

/// Builds the network, node by node.
pub(super) struct GraphReader<'a> {
    pub(super) network: Network,
    pub(super) weights: Weights,
    pub(super) initialisers: Initialisers<'a>,
    values: BTreeMap<&'a str, Value>,
}

impl<'a> GraphReader<'a> {
    fn new(graph: &'a proto::Graph) -> Result<Self, ReadError> {
        let [input] = graph.input.as_slice() else {
            return Err(ReadError::Graph { reason: "it has other than one input" });
        };
        let shape = match axes(input).as_deref() {
            Some(&[c, h, w]) => Shape::chw(c, h, w),
            _ => return Err(ReadError::Graph { reason: "its input is not f32 of shape [batch, c, h, w]" }),
        };
        let network = Network::new(shape);
        let values = BTreeMap::from([(input.name(), Value::Image(network.input()))]);
        Ok(Self { network, weights: Weights::new(), initialisers: Initialisers::new(&graph.initializer)?, values })
    }

    fn read(mut self, graph: &'a proto::Graph) -> Result<(Network, Weights), ReadError> {
        for node in &graph.node {
            self.node(node)?;
        }
        let [output] = graph.output.as_slice() else {
            return Err(ReadError::Graph { reason: "it has other than one output" });
        };
        let Some(&value) = self.values.get(output.name()) else {
            return Err(ReadError::Graph { reason: "no node gives its output" });
        };
        let (Value::Image(id) | Value::Flat(id)) = value;
        let shape = self.network.node(id).shape;
        let expected = match value {
            Value::Image(_) => vec![shape.c, shape.h, shape.w],
            Value::Flat(_) => vec![shape.c],
        };
        if axes(output).as_ref() != Some(&expected) {
            return Err(ReadError::Graph { reason: "its output is not f32 of the shape that the nodes give" });
        }
        self.network.set_output(id)?;
        Ok((self.network, self.weights))
    }

    fn node(&mut self, node: &'a proto::Node) -> Result<(), ReadError> {
        let name = shorten(node.name());
        if !is_default_domain(node.domain.as_deref()) {
            return Err(ReadError::UnknownOp {
                node: name,
                op: shorten(&format!("{}.{}", node.domain(), node.op_type())),
            });
        }
        let [output] = node.output.as_slice() else {
            return Err(ReadError::node(node, "it has other than one output"));
        };
        let mut attributes = Attributes::new(node)?;
        let value = operators::read(self, node, &mut attributes)?;
        attributes.finish()?;
        if output.is_empty() || self.initialisers.contains(output) || self.values.insert(output, value).is_some() {
            return Err(ReadError::DuplicateValue { node: name, value: shorten(output) });
        }
        Ok(())
    }

    /// The value that is input `position` of `node`.
    pub(super) fn input(&self, node: &proto::Node, position: usize) -> Result<Value, ReadError> {
        let name = node.input.get(position).ok_or_else(|| ReadError::node(node, "it has too few inputs"))?;
        let unknown = || ReadError::UnknownValue { node: shorten(node.name()), value: shorten(name) };
        self.values.get(name.as_str()).copied().ok_or_else(unknown)
    }

    /// The map that is input `position` of `node`.
    pub(super) fn image(&self, node: &proto::Node, position: usize) -> Result<NodeId, ReadError> {
        match self.input(node, position)? {
            Value::Image(id) => Ok(id),
            Value::Flat(_) => Err(ReadError::node(node, "it works on [batch, c, h, w], its input is [batch, c]")),
        }
    }

    /// Adds an operator under the node's name.
    pub(super) fn add(&mut self, node: &proto::Node, op: Op, inputs: &[NodeId]) -> Result<NodeId, ReadError> {
        if node.name().len() > MAX_NAME {
            return Err(ReadError::node(node, "its name is too long"));
        }
        Ok(self.network.add(node.name(), op, inputs)?)
    }

    /// Gives the tensor that is input `position` of `node` to its operator as `suffix`.
    pub(super) fn move_tensor(&mut self, node: &proto::Node, position: usize, suffix: &str) -> Result<(), ReadError> {
        let tensor = self.initialisers.take(node, position)?;
        self.weights.insert(format!("{}.{suffix}", node.name()), tensor);
        Ok(())
    }
}

/// Longest name of a node that becomes one of the network.
const MAX_NAME: usize = 1 << 10;

/// Sizes of all axes but the first, if it is a float tensor and they are known and in range.
fn axes(value: &proto::ValueInfo) -> Option<Vec<usize>> {
    let tensor =
        value.value_type.as_ref()?.tensor.as_ref().filter(|tensor| tensor.elem_type == Some(proto::FLOAT32))?;
    let [_batch, axes @ ..] = tensor.shape.as_ref()?.dim.as_slice() else {
        return None;
    };
    let size = |dimension: &proto::Dimension| {
        usize::try_from(dimension.dim_value?).ok().filter(|size| (1..=MAX_AXIS).contains(size))
    };
    axes.iter().map(size).collect()
}

/// A name out of a file, short enough for a message.
pub(super) fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Why a file is not one that gram writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes are no protobuf message, or not ONNX's.
    #[error("the bytes are not ONNX: {reason}")]
    NotProtobuf {
        /// What is wrong with them.
        reason: String,
    },
    /// More messages than the largest network needs.
    #[error("the file has more than 2097152 fields")]
    TooManyFields,
    /// Another version of the format or of the operators.
    #[error("{what}: expected version {expected}, got {got}")]
    Version {
        /// Of what.
        what: &'static str,
        /// The version that is read.
        expected: i64,
        /// The file's.
        got: i64,
    },
    /// The graph as a whole does not fit.
    #[error("the graph: {reason}")]
    Graph {
        /// What does not fit.
        reason: &'static str,
    },
    /// An operator that gram does not write.
    #[error("node `{node}`: operator `{op}` is not supported")]
    UnknownOp {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// An attribute with a value, or at a place, where gram does not write it.
    #[error("node `{node}`: attribute `{attribute}` {reason}")]
    Attribute {
        /// The node.
        node: String,
        /// Its attribute.
        attribute: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A node reads what no earlier node gives.
    #[error("node `{node}` reads `{value}`, which nothing before it gives")]
    UnknownValue {
        /// The node.
        node: String,
        /// What it reads.
        value: String,
    },
    /// A node gives what another gives already, or something without a name.
    #[error("node `{node}` gives `{value}`, which is taken or empty")]
    DuplicateValue {
        /// The node.
        node: String,
        /// What it gives.
        value: String,
    },
    /// A node that does not fit.
    #[error("node `{node}`: {reason}")]
    Node {
        /// The node.
        node: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// An initialiser whose sizes, type and data do not agree.
    #[error("initialiser `{name}`: {reason}")]
    Initialiser {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A node that the network refuses.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Weights that the network refuses.
    #[error(transparent)]
    Weights(#[from] TensorError),
}

impl ReadError {
    pub(super) fn node(node: &proto::Node, reason: &'static str) -> Self {
        Self::Node { node: shorten(node.name()), reason }
    }
}

#[cfg(test)]
mod tests {
    use gram_ir::{Activation, Conv2d};

    use super::*;
    use crate::to_onnx;

    /// `conv` → `relu6` → `pool` → `fc`.
    fn model() -> proto::Model {
        let mut network = Network::new(Shape::chw(2, 3, 3));
        let conv = network.add("conv", Op::Conv(Conv2d::new(2, 4, 3)), &[network.input()]).unwrap();
        let act = network.add("relu6", Op::Act { activation: Activation::Relu6 }, &[conv]).unwrap();
        let pool = network.add("pool", Op::GlobalAvgPool, &[act]).unwrap();
        let fc = network.add("fc", Op::Linear { c_in: 4, c_out: 3, bias: true }, &[pool]).unwrap();
        network.set_output(fc).unwrap();
        let bytes = to_onnx(&network, &Weights::arbitrary(&network, 0), &OnnxMetadata::new("net")).unwrap();
        proto::Model::decode(bytes.as_slice()).unwrap()
    }

    /// Changes the model's graph and expects to be refused with `message`.
    #[track_caller]
    fn refused(change: impl Fn(&mut proto::Graph), message: &str) {
        let mut model = model();
        change(model.graph.as_mut().unwrap());
        assert_eq!(from_onnx(&model.encode_to_vec()).unwrap_err().to_string(), message);
    }

    fn attribute<'a>(node: &'a mut proto::Node, name: &str) -> &'a mut proto::Attribute {
        node.attribute.iter_mut().find(|attribute| attribute.name() == name).unwrap()
    }

    fn initialiser<'a>(graph: &'a mut proto::Graph, name: &str) -> &'a mut proto::Tensor {
        graph.initializer.iter_mut().find(|tensor| tensor.name() == name).unwrap()
    }

    #[test]
    fn values_and_nodes_have_stable_names() {
        let graph = model().graph.unwrap();
        let nodes: Vec<_> =
            graph.node.iter().map(|node| (node.op_type(), node.name(), node.output[0].as_str())).collect();
        let expected = [
            ("Conv", "conv", "conv"),
            ("Clip", "relu6", "relu6"),
            ("GlobalAveragePool", "pool", "pool"),
            ("Flatten", "fc:flat", "fc:flat"),
            ("Gemm", "fc", "logits"),
        ];
        assert_eq!(nodes, expected);
        let initialisers: Vec<_> = graph.initializer.iter().map(proto::Tensor::name).collect();
        assert_eq!(initialisers, ["conv.weight", "constant.0", "constant.6", "fc.weight", "fc.bias"]);
        assert_eq!(graph.value_info.len(), 4, "all values but input and output are described");
    }

    #[test]
    fn other_versions_are_refused() {
        let refused = |change: &dyn Fn(&mut proto::Model)| {
            let mut model = model();
            change(&mut model);
            from_onnx(&model.encode_to_vec()).unwrap_err().to_string()
        };
        assert_eq!(refused(&|model| model.ir_version = Some(9)), "file format: expected version 8, got 9");
        assert_eq!(refused(&|model| model.opset_import[0].version = None), "operator set: expected version 17, got 0");
        assert_eq!(
            refused(&|model| model.opset_import[0].domain = Some("com.microsoft".into())),
            "the graph: it needs another operator set than ONNX's own"
        );
        assert_eq!(refused(&|model| model.graph = None), "the graph: there is no graph");
    }

    #[test]
    fn unknown_operators_and_attributes_are_named() {
        refused(|graph| graph.node[1].op_type = Some("Tanh".into()), "node `relu6`: operator `Tanh` is not supported");
        refused(
            |graph| graph.node[1].domain = Some("ai.onnx.ml".into()),
            "node `relu6`: operator `ai.onnx.ml.Clip` is not supported",
        );
        refused(
            |graph| graph.node[2].attribute.push(proto::Attribute::int("ceil_mode", 1)),
            "node `pool`: attribute `ceil_mode` is not supported",
        );
        refused(
            |graph| attribute(&mut graph.node[0], "pads").ints = vec![0, 0, 1, 1],
            "node `conv`: attribute `pads` differs between axes or sides, or has another length",
        );
        refused(
            |graph| attribute(&mut graph.node[0], "group").i = Some(-1),
            "node `conv`: attribute `group` is out of range",
        );
        refused(
            |graph| attribute(&mut graph.node[0], "strides").kind = Some(2),
            "node `conv`: attribute `strides` has another type",
        );
        refused(
            |graph| attribute(&mut graph.node[4], "transB").i = Some(0),
            "node `fc`: attribute `transB` has an unsupported value",
        );
        refused(
            |graph| initialiser(graph, "constant.6").raw_data = Some(5f32.to_le_bytes().to_vec()),
            "node `relu6`: it clips to other than 0 and 6, or 0 and 0",
        );
    }

    #[test]
    fn values_must_come_before_their_readers_and_once() {
        refused(|graph| graph.node.swap(0, 1), "node `relu6` reads `conv`, which nothing before it gives");
        refused(|graph| graph.node[1].output[0] = "conv".into(), "node `relu6` gives `conv`, which is taken or empty");
        refused(|graph| drop(graph.node.pop()), "the graph: no node gives its output");
        refused(|graph| drop(graph.input.pop()), "the graph: it has other than one input");
        refused(
            |graph| graph.node[4].input[0] = "pool".into(),
            "node `fc`: it works on [batch, c], its input is [batch, c, h, w]",
        );
        refused(
            |graph| graph.output[0] = proto::ValueInfo::batched("logits", &[4]),
            "the graph: its output is not f32 of the shape that the nodes give",
        );
    }

    #[test]
    fn claimed_sizes_are_checked_before_anything_is_allocated() {
        refused(
            |graph| initialiser(graph, "fc.bias").dims = vec![65536; 5],
            "initialiser `fc.bias`: a shape [65536, 65536, 65536, 65536, 65536] does not go with 12 bytes of raw data",
        );
        refused(
            |graph| initialiser(graph, "conv.weight").dims = vec![1 << 40, 2, 3, 3],
            "initialiser `conv.weight`: an axis is not between 1 and 65536",
        );
        refused(
            |graph| initialiser(graph, "fc.bias").data_type = Some(11),
            "initialiser `fc.bias`: expected data type 1, got 11",
        );
        refused(|graph| graph.node[4].input[2] = "fc.weight".into(), "initialiser `fc.weight`: two nodes share it");
        refused(
            |graph| initialiser(graph, "fc.bias").dims = vec![1, 3],
            "tensor `fc.bias`: expected shape [3], got [1, 3]",
        );
        refused(
            |graph| initialiser(graph, "fc.bias").raw_data = Some([f32::NAN; 3].map(f32::to_le_bytes).concat()),
            "tensor `fc.bias` has elements that are not finite",
        );
    }
}
