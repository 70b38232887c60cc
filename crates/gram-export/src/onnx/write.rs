//! Networks written as ONNX.

use gram_ir::{Activation, BATCH_NORM_EPS, Conv2d, Network, Node, NodeId, Op, Pool, Weights};
use prost::Message;

use super::proto;
use super::{INPUT, IR_VERSION, OPSET, OUTPUT, OnnxMetadata};
use crate::ExportError;
use crate::deploy::deploy;

/// The bytes of an ONNX file (opset 17, IR version 8) that computes `network` with `weights`.
///
/// Batch norm is folded into convolutions and identities are removed first; nodes that the output does not need are left out.
/// Value names follow from node names: `stages.0.cells.0.n14.dw` gives `stages/0/cells/0/n14/dw`, its node and initialisers keep the
/// dotted name, so engines' profiles can be matched with [`Network::nodes`]. The bytes depend on the arguments alone.
///
/// # Shapes
/// Input `input` `[batch, c, h, w]`, output `logits` `[batch, classes]` (`[batch, c, h, w]` if the network does not end in a linear
/// layer), both f32, the batch size free.
/// # Errors
/// [`ExportError`] where the weights are not those of the network, a folded weight is beyond f32, the file would have 2 GiB or more, or
/// a metadata key stands twice.
/// # Example
/// ```
/// use gram_export::{OnnxMetadata, from_onnx, to_onnx};
/// use gram_ir::{Network, Op, Shape, Tensor, Weights};
/// let mut network = Network::new(Shape::chw(2, 1, 1));
/// let linear = network.add("classifier", Op::Linear { c_in: 2, c_out: 3, bias: false }, &[network.input()])?;
/// network.set_output(linear)?;
/// let mut weights = Weights::new();
/// weights.insert("classifier.weight", Tensor::new(vec![3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0])?);
/// let bytes = to_onnx(&network, &weights, &OnnxMetadata::new("demo"))?;
/// let back = from_onnx(&bytes)?;
/// assert_eq!((back.network, back.weights), (network, weights));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_onnx(network: &Network, weights: &Weights, meta: &OnnxMetadata) -> Result<Vec<u8>, ExportError> {
    meta.check()?;
    let deployed = deploy(network, weights)?;
    encode(&deployed.network, &deployed.weights, meta)
}

/// The network as it is, without folding.
pub(crate) fn encode(network: &Network, weights: &Weights, meta: &OnnxMetadata) -> Result<Vec<u8>, ExportError> {
    let scalars: u64 = weights.iter().map(|(_, tensor)| tensor.data().len() as u64).sum();
    check_size(scalars.saturating_mul(4))?;
    let mut writer = Writer::new(network, weights);
    for (id, node) in network.iter() {
        if writer.is_needed(id) {
            writer.node(id, node)?;
        }
    }
    writer.output();
    let graph = proto::Graph { name: Some(meta.name.clone()), ..writer.graph };
    let bytes = model(graph, meta).encode_to_vec();
    check_size(bytes.len() as u64)?;
    Ok(bytes)
}

/// Protobuf messages, and so ONNX files without external data, have less than 2 GiB.
fn check_size(bytes: u64) -> Result<(), ExportError> {
    if bytes > i32::MAX as u64 { Err(ExportError::TooLarge { bytes }) } else { Ok(()) }
}

fn model(graph: proto::Graph, meta: &OnnxMetadata) -> proto::Model {
    let entry =
        |(key, value): &(String, String)| proto::StringEntry { key: Some(key.clone()), value: Some(value.clone()) };
    proto::Model {
        ir_version: Some(IR_VERSION),
        producer_name: Some("gram".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(graph),
        opset_import: vec![proto::OperatorSet { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: meta.metadata_props.iter().map(entry).collect(),
    }
}

/// Two scalar initialisers that all `Clip` nodes share.
const ZERO: (&str, f32) = ("constant.0", 0.0);
const SIX: (&str, f32) = ("constant.6", 6.0);

struct Writer<'a> {
    network: &'a Network,
    weights: &'a Weights,
    /// Number of needed nodes that read each node; none for nodes that the output does not need.
    readers: Vec<Option<usize>>,
    graph: proto::Graph,
}

impl<'a> Writer<'a> {
    fn new(network: &'a Network, weights: &'a Weights) -> Self {
        let mut readers = vec![None; network.nodes().len()];
        readers[network.output().index()] = Some(0);
        for (id, node) in network.iter().rev() {
            if readers[id.index()].is_some() {
                node.inputs.iter().for_each(|from| *readers[from.index()].get_or_insert(0) += 1);
            }
        }
        let shape = network.input_shape();
        let input = proto::ValueInfo::batched(INPUT, &[shape.c, shape.h, shape.w]);
        let graph = proto::Graph { input: vec![input], ..proto::Graph::default() };
        Self { network, weights, readers, graph }
    }

    fn is_needed(&self, id: NodeId) -> bool {
        self.readers[id.index()].is_some()
    }

    /// Name of the value `[batch, c, h, w]` that a node gives.
    ///
    /// Node names have neither `/` nor `:`, and initialisers always have a dot, so no two names of a graph meet.
    fn value(&self, id: NodeId) -> String {
        let node = self.network.node(id);
        match node.op {
            Op::Input { .. } => INPUT.into(),
            Op::Linear { .. } => unreserved(&node.name),
            _ if id == self.network.output() => OUTPUT.into(),
            _ => unreserved(&node.name),
        }
    }

    /// Name of the value `[batch, c]` that a linear layer gives.
    fn flat_value(&self, id: NodeId) -> String {
        if id == self.network.output() {
            OUTPUT.into()
        } else {
            format!("{}:2d", unreserved(&self.network.node(id).name))
        }
    }

    fn node(&mut self, id: NodeId, node: &Node) -> Result<(), ExportError> {
        let inputs: Vec<String> = node.inputs.iter().map(|&from| self.value(from)).collect();
        match node.op {
            Op::Input { .. } => {}
            Op::Conv(conv) => {
                let inputs =
                    self.with_tensors(node, inputs, if conv.bias { &["weight", "bias"] } else { &["weight"] })?;
                self.push(id, "Conv", inputs, conv_attributes(&conv));
            }
            Op::BatchNorm { .. } => {
                let inputs = self.with_tensors(node, inputs, &["weight", "bias", "running_mean", "running_var"])?;
                self.push(
                    id,
                    "BatchNormalization",
                    inputs,
                    vec![proto::Attribute::float("epsilon", BATCH_NORM_EPS as f32)],
                );
            }
            Op::Act { activation: Activation::Relu } => self.push(id, "Relu", inputs, Vec::new()),
            Op::Act { activation: Activation::HardSwish } => self.push(id, "HardSwish", inputs, Vec::new()),
            Op::Act { activation: Activation::Relu6 } => self.clip(id, inputs, ZERO, SIX),
            // Zero for every finite and infinite input, unlike a product with zero.
            Op::Zero => self.clip(id, inputs, ZERO, ZERO),
            Op::Concat => self.push(id, "Concat", inputs, vec![proto::Attribute::int("axis", 1)]),
            Op::Add if inputs.len() == 2 => self.push(id, "Add", inputs, Vec::new()),
            Op::Add => self.push(id, "Sum", inputs, Vec::new()),
            Op::MaxPool(pool) => self.push(id, "MaxPool", inputs, pool_attributes(&pool)),
            Op::AvgPool(pool) => {
                let mut attributes = pool_attributes(&pool);
                attributes.push(proto::Attribute::int("count_include_pad", 0));
                self.push(id, "AveragePool", inputs, attributes);
            }
            Op::GlobalAvgPool => self.push(id, "GlobalAveragePool", inputs, Vec::new()),
            Op::Identity => self.push(id, "Identity", inputs, Vec::new()),
            Op::Linear { bias, .. } => self.linear(id, node, inputs, bias)?,
        }
        Ok(())
    }

    /// `Flatten`, `Gemm` and, where another node reads the result as an image of one pixel, `Reshape`.
    fn linear(&mut self, id: NodeId, node: &Node, inputs: Vec<String>, bias: bool) -> Result<(), ExportError> {
        let flat = format!("{}:flat", unreserved(&node.name));
        let c_in = self.network.node(node.inputs[0]).shape.c;
        self.push_value(
            format!("{}:flat", node.name),
            "Flatten",
            inputs,
            &flat,
            vec![proto::Attribute::int("axis", 1)],
        );
        self.describe(&flat, &[c_in]);
        let inputs = self.with_tensors(node, vec![flat], if bias { &["weight", "bias"] } else { &["weight"] })?;
        let gemm = self.flat_value(id);
        self.push_value(node.name.clone(), "Gemm", inputs, &gemm, vec![proto::Attribute::int("transB", 1)]);
        self.describe(&gemm, &[node.shape.c]);
        if self.readers[id.index()].is_some_and(|readers| readers > 0) {
            let shape = format!("{}.shape", node.name);
            self.graph.initializer.push(int64_tensor(&shape, &[0, node.shape.c as i64, 1, 1]));
            let value = self.value(id);
            self.push_value(format!("{}:4d", node.name), "Reshape", vec![gemm, shape], &value, Vec::new());
            self.describe(&value, &[node.shape.c, 1, 1]);
        }
        Ok(())
    }

    fn clip(&mut self, id: NodeId, mut inputs: Vec<String>, low: (&str, f32), high: (&str, f32)) {
        for (name, value) in [low, high] {
            if !self.graph.initializer.iter().any(|tensor| tensor.name.as_deref() == Some(name)) {
                self.graph.initializer.push(float_tensor(name, &[], value.to_le_bytes().to_vec()));
            }
            inputs.push(name.into());
        }
        self.push(id, "Clip", inputs, Vec::new());
    }

    fn push(&mut self, id: NodeId, op_type: &str, inputs: Vec<String>, attributes: Vec<proto::Attribute>) {
        let (value, node) = (self.value(id), self.network.node(id));
        self.push_value(node.name.clone(), op_type, inputs, &value, attributes);
        self.describe(&value, &[node.shape.c, node.shape.h, node.shape.w]);
    }

    fn push_value(
        &mut self,
        name: String,
        op_type: &str,
        input: Vec<String>,
        output: &str,
        attribute: Vec<proto::Attribute>,
    ) {
        let (name, op_type, output) = (Some(name), Some(op_type.into()), vec![output.into()]);
        self.graph.node.push(proto::Node { input, output, name, op_type, attribute, domain: None });
    }

    /// Gives the shape of a value; that of the output stands elsewhere.
    fn describe(&mut self, value: &str, axes: &[usize]) {
        if value != OUTPUT {
            self.graph.value_info.push(proto::ValueInfo::batched(value, axes));
        }
    }

    /// Adds the node's tensors as initialisers and their names to `inputs`.
    fn with_tensors(
        &mut self,
        node: &Node,
        mut inputs: Vec<String>,
        suffixes: &[&str],
    ) -> Result<Vec<String>, ExportError> {
        for suffix in suffixes {
            let name = format!("{}.{suffix}", node.name);
            let tensor = self.weights.get(&name)?;
            let raw = f32_bytes(&name, tensor.data())?;
            self.graph.initializer.push(float_tensor(&name, tensor.shape(), raw));
            inputs.push(name);
        }
        Ok(inputs)
    }

    fn output(&mut self) {
        let id = self.network.output();
        let shape = self.network.node(id).shape;
        let axes = [shape.c, shape.h, shape.w];
        let is_linear = matches!(self.network.node(id).op, Op::Linear { .. });
        if id == self.network.input() {
            self.push_value(OUTPUT.into(), "Identity", vec![INPUT.into()], OUTPUT, Vec::new());
        }
        let axes = if is_linear { &axes[..1] } else { &axes[..] };
        self.graph.output = vec![proto::ValueInfo::batched(OUTPUT, axes)];
    }
}

/// A value name for a node name that is not the graph's output's.
fn unreserved(node: &str) -> String {
    let name = node.replace('.', "/");
    if name == OUTPUT { format!("{name}:node") } else { name }
}

fn conv_attributes(conv: &Conv2d) -> Vec<proto::Attribute> {
    vec![
        proto::Attribute::ints("dilations", [conv.dilation; 2]),
        proto::Attribute::int("group", conv.groups),
        proto::Attribute::ints("kernel_shape", [conv.kernel; 2]),
        proto::Attribute::ints("pads", [conv.padding; 4]),
        proto::Attribute::ints("strides", [conv.stride; 2]),
    ]
}

fn pool_attributes(pool: &Pool) -> Vec<proto::Attribute> {
    vec![
        proto::Attribute::ints("kernel_shape", [pool.kernel; 2]),
        proto::Attribute::ints("pads", [pool.padding; 4]),
        proto::Attribute::ints("strides", [pool.stride; 2]),
    ]
}

fn float_tensor(name: &str, shape: &[usize], raw: Vec<u8>) -> proto::Tensor {
    let dims = shape.iter().map(|&axis| axis as i64).collect();
    proto::Tensor { dims, data_type: Some(proto::FLOAT32), name: Some(name.into()), raw_data: Some(raw) }
}

fn int64_tensor(name: &str, values: &[i64]) -> proto::Tensor {
    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (dims, name) = (vec![values.len() as i64], Some(name.into()));
    proto::Tensor { dims, data_type: Some(proto::INT64), name, raw_data: Some(raw) }
}

/// Numbers rounded to f32, little-endian.
pub(crate) fn f32_bytes(name: &str, data: &[f64]) -> Result<Vec<u8>, ExportError> {
    let mut raw = Vec::with_capacity(data.len() * 4);
    for (index, &value) in data.iter().enumerate() {
        let rounded = value as f32;
        if !rounded.is_finite() {
            return Err(ExportError::BeyondF32 { name: name.into(), index, value });
        }
        raw.extend_from_slice(&rounded.to_le_bytes());
    }
    Ok(raw)
}
