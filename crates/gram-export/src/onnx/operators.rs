//! Nodes of an ONNX file as operators of a network.

use std::collections::BTreeMap;

use gram_ir::{Activation, BATCH_NORM_EPS, Conv2d, MAX_AXIS, NodeId, Op, Pool, Shape};

use super::proto;
use super::read::{GraphReader, ReadError, Value, shorten};

/// Adds what `node` computes to the network and gives its value.
pub(super) fn read(
    reader: &mut GraphReader<'_>,
    node: &proto::Node,
    attributes: &mut Attributes<'_>,
) -> Result<Value, ReadError> {
    let id = match node.op_type() {
        "Conv" => conv(reader, node, attributes)?,
        "BatchNormalization" => batch_norm(reader, node, attributes)?,
        "Relu" => unary(reader, node, Op::Act { activation: Activation::Relu })?,
        "HardSwish" => unary(reader, node, Op::Act { activation: Activation::HardSwish })?,
        "Clip" => clip(reader, node)?,
        "Concat" => {
            attributes.expect_int("axis", 1, None)?;
            nary(reader, node, Op::Concat)?
        }
        "Add" => {
            expect_inputs(node, 2..=2)?;
            nary(reader, node, Op::Add)?
        }
        "Sum" => nary(reader, node, Op::Add)?,
        "MaxPool" => {
            let pool = pool(attributes)?;
            unary(reader, node, Op::MaxPool(pool))?
        }
        "AveragePool" => {
            attributes.expect_int("count_include_pad", 0, Some(0))?;
            let pool = pool(attributes)?;
            unary(reader, node, Op::AvgPool(pool))?
        }
        "GlobalAveragePool" => unary(reader, node, Op::GlobalAvgPool)?,
        "Identity" => unary(reader, node, Op::Identity)?,
        "Flatten" => return flatten(reader, node, attributes),
        "Gemm" => return gemm(reader, node, attributes),
        "Reshape" => return reshape(reader, node),
        op => return Err(ReadError::UnknownOp { node: shorten(node.name()), op: shorten(op) }),
    };
    Ok(Value::Image(id))
}

fn expect_inputs(node: &proto::Node, counts: std::ops::RangeInclusive<usize>) -> Result<(), ReadError> {
    if counts.contains(&node.input.len()) {
        Ok(())
    } else {
        Err(ReadError::node(node, "its operator does not take that many inputs"))
    }
}

fn unary(reader: &mut GraphReader<'_>, node: &proto::Node, op: Op) -> Result<NodeId, ReadError> {
    expect_inputs(node, 1..=1)?;
    let input = reader.image(node, 0)?;
    reader.add(node, op, &[input])
}

fn nary(reader: &mut GraphReader<'_>, node: &proto::Node, op: Op) -> Result<NodeId, ReadError> {
    let inputs = (0..node.input.len()).map(|position| reader.image(node, position)).collect::<Result<Vec<_>, _>>()?;
    reader.add(node, op, &inputs)
}

fn conv(
    reader: &mut GraphReader<'_>,
    node: &proto::Node,
    attributes: &mut Attributes<'_>,
) -> Result<NodeId, ReadError> {
    expect_inputs(node, 2..=3)?;
    let input = reader.image(node, 0)?;
    let (c_out, c_in, kernel) = match reader.initialisers.shape(node, 1)?.as_slice() {
        &[c_out, c_in, height, width] if height == width => (c_out, c_in, height),
        _ => return Err(ReadError::node(node, "its weight is not [c_out, c_in, k, k]")),
    };
    let groups = attributes.int("group", Some(1))?;
    let window = Window::read(attributes, Some(kernel))?;
    if window.kernel != kernel {
        return Err(attributes.bad("kernel_shape", "does not agree with the weight"));
    }
    let c_in = c_in.checked_mul(groups).ok_or_else(|| attributes.bad("group", "is too large"))?;
    let Window { stride, padding, dilation, .. } = window;
    let bias = node.input.len() == 3;
    let conv = Conv2d { c_in, c_out, kernel, stride, padding, dilation, groups, bias };
    let id = reader.add(node, Op::Conv(conv), &[input])?;
    reader.move_tensor(node, 1, "weight")?;
    if bias {
        reader.move_tensor(node, 2, "bias")?;
    }
    Ok(id)
}

fn batch_norm(
    reader: &mut GraphReader<'_>,
    node: &proto::Node,
    attributes: &mut Attributes<'_>,
) -> Result<NodeId, ReadError> {
    expect_inputs(node, 5..=5)?;
    let input = reader.image(node, 0)?;
    if attributes.float("epsilon")? != BATCH_NORM_EPS as f32 {
        return Err(attributes.bad("epsilon", "must be 1e-5"));
    }
    attributes.expect_int("training_mode", 0, Some(0))?;
    let channels = reader.network.node(input).shape.c;
    let id = reader.add(node, Op::BatchNorm { channels }, &[input])?;
    for (position, suffix) in [(1, "weight"), (2, "bias"), (3, "running_mean"), (4, "running_var")] {
        reader.move_tensor(node, position, suffix)?;
    }
    Ok(id)
}

fn clip(reader: &mut GraphReader<'_>, node: &proto::Node) -> Result<NodeId, ReadError> {
    expect_inputs(node, 3..=3)?;
    let input = reader.image(node, 0)?;
    let op = match (reader.initialisers.scalar(node, 1)?, reader.initialisers.scalar(node, 2)?) {
        (0.0, 6.0) => Op::Act { activation: Activation::Relu6 },
        (0.0, 0.0) => Op::Zero,
        _ => return Err(ReadError::node(node, "it clips to other than 0 and 6, or 0 and 0")),
    };
    reader.add(node, op, &[input])
}

fn pool(attributes: &mut Attributes<'_>) -> Result<Pool, ReadError> {
    attributes.expect_int("ceil_mode", 0, Some(0))?;
    let window = Window::read(attributes, None)?;
    if window.dilation != 1 {
        return Err(attributes.bad("dilations", "must be 1"));
    }
    Ok(Pool { kernel: window.kernel, stride: window.stride, padding: window.padding })
}

fn flatten(reader: &GraphReader<'_>, node: &proto::Node, attributes: &mut Attributes<'_>) -> Result<Value, ReadError> {
    expect_inputs(node, 1..=1)?;
    attributes.expect_int("axis", 1, Some(1))?;
    let id = reader.image(node, 0)?;
    let shape = reader.network.node(id).shape;
    if shape.pixels() != 1 {
        return Err(ReadError::node(node, "it flattens maps of more than one pixel"));
    }
    Ok(Value::Flat(id))
}

fn gemm(reader: &mut GraphReader<'_>, node: &proto::Node, attributes: &mut Attributes<'_>) -> Result<Value, ReadError> {
    expect_inputs(node, 2..=3)?;
    attributes.expect_int("transB", 1, None)?;
    attributes.expect_int("transA", 0, Some(0))?;
    let Value::Flat(input) = reader.input(node, 0)? else {
        return Err(ReadError::node(node, "it works on [batch, c], its input is [batch, c, h, w]"));
    };
    let &[c_out, c_in] = reader.initialisers.shape(node, 1)?.as_slice() else {
        return Err(ReadError::node(node, "its weight is not [c_out, c_in]"));
    };
    let bias = node.input.len() == 3;
    let id = reader.add(node, Op::Linear { c_in, c_out, bias }, &[input])?;
    reader.move_tensor(node, 1, "weight")?;
    if bias {
        reader.move_tensor(node, 2, "bias")?;
    }
    Ok(Value::Flat(id))
}

fn reshape(reader: &GraphReader<'_>, node: &proto::Node) -> Result<Value, ReadError> {
    expect_inputs(node, 2..=2)?;
    let Value::Flat(id) = reader.input(node, 0)? else {
        return Err(ReadError::node(node, "it works on [batch, c], its input is [batch, c, h, w]"));
    };
    let shape = reader.network.node(id).shape;
    debug_assert_eq!(shape, Shape::chw(shape.c, 1, 1));
    if reader.initialisers.integers(node, 1)? != [0, shape.c as i64, 1, 1] {
        return Err(ReadError::node(node, "it reshapes to other than [0, c, 1, 1]"));
    }
    Ok(Value::Image(id))
}

/// Attributes that convolutions and pools share, each the same for both axes.
struct Window {
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
}

impl Window {
    fn read(attributes: &mut Attributes<'_>, kernel: Option<usize>) -> Result<Self, ReadError> {
        Ok(Self {
            kernel: attributes.uniform::<2>("kernel_shape", kernel)?,
            stride: attributes.uniform::<2>("strides", Some(1))?,
            padding: attributes.uniform::<4>("pads", Some(0))?,
            dilation: attributes.uniform::<2>("dilations", Some(1))?,
        })
    }
}

/// The attributes of one node that nobody has read yet.
pub(super) struct Attributes<'a> {
    node: &'a proto::Node,
    unread: BTreeMap<&'a str, &'a proto::Attribute>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(node: &'a proto::Node) -> Result<Self, ReadError> {
        let mut attributes = Self { node, unread: BTreeMap::new() };
        for attribute in &node.attribute {
            if attributes.unread.insert(attribute.name(), attribute).is_some() {
                return Err(attributes.bad(attribute.name(), "stands twice"));
            }
        }
        Ok(attributes)
    }

    /// Refuses attributes that nobody has read.
    pub(super) fn finish(self) -> Result<(), ReadError> {
        match self.unread.keys().next() {
            Some(name) => Err(self.bad(name, "is not supported")),
            None => Ok(()),
        }
    }

    fn bad(&self, attribute: &str, reason: &'static str) -> ReadError {
        ReadError::Attribute { node: shorten(self.node.name()), attribute: shorten(attribute), reason }
    }

    /// The attribute, which must be of type `kind`.
    fn take(&mut self, name: &str, kind: i32) -> Result<Option<&'a proto::Attribute>, ReadError> {
        match self.unread.remove(name) {
            Some(attribute) if attribute.kind != Some(kind) => Err(self.bad(name, "has another type")),
            attribute => Ok(attribute),
        }
    }

    fn size(&self, name: &str, value: i64) -> Result<usize, ReadError> {
        let size = usize::try_from(value).ok().filter(|&size| size <= MAX_AXIS);
        size.ok_or_else(|| self.bad(name, "is out of range"))
    }

    fn int(&mut self, name: &str, default: Option<usize>) -> Result<usize, ReadError> {
        match (self.take(name, proto::Attribute::INT)?, default) {
            (Some(attribute), _) => self.size(name, attribute.i()),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.bad(name, "is missing")),
        }
    }

    fn expect_int(&mut self, name: &str, expected: usize, default: Option<usize>) -> Result<(), ReadError> {
        if self.int(name, default)? == expected { Ok(()) } else { Err(self.bad(name, "has an unsupported value")) }
    }

    fn float(&mut self, name: &str) -> Result<f32, ReadError> {
        let attribute = self.take(name, proto::Attribute::FLOAT)?.ok_or_else(|| self.bad(name, "is missing"))?;
        Ok(attribute.f())
    }

    /// A list of `N` equal integers.
    fn uniform<const N: usize>(&mut self, name: &str, default: Option<usize>) -> Result<usize, ReadError> {
        match (self.take(name, proto::Attribute::INTS)?, default) {
            (Some(attribute), _) => match attribute.ints.as_slice() {
                &[first, ref rest @ ..] if rest.len() + 1 == N && rest.iter().all(|&size| size == first) => {
                    self.size(name, first)
                }
                _ => Err(self.bad(name, "differs between axes or sides, or has another length")),
            },
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.bad(name, "is missing")),
        }
    }
}
