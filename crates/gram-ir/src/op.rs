//! Primitive operators of a lowered [`Network`](crate::Network): shapes out of shapes, exact costs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{MAX_AXIS, Macs, Params, Shape};

/// No kernel or pooling window may be larger.
pub const MAX_KERNEL: usize = 1 << 10;

/// Added to the variance inside every batch norm; torch's default.
pub const BATCH_NORM_EPS: f64 = 1e-5;

/// Element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(0, x)`.
    Relu,
    /// `min(max(0, x), 6)`; the shipped SwiftNet's (ALGORITHMS 1.2, author model).
    Relu6,
    /// `x · min(max(0, x + 3), 6) / 6`; MobileNetV3, arXiv:1905.02244 section 5.2.
    HardSwish,
}

impl Activation {
    /// Every activation, in the order of their names in text.
    pub const ALL: [Self; 3] = [Self::Relu, Self::Relu6, Self::HardSwish];

    /// The name in text and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::HardSwish => "hard-swish",
        }
    }
}

/// A 2-d convolution with square kernel, stride, padding and dilation, as in torch's `Conv2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Input channels; a multiple of `groups`.
    pub c_in: usize,
    /// Output channels; a multiple of `groups`.
    pub c_out: usize,
    /// Kernel height and width.
    pub kernel: usize,
    /// Step between output pixels, per axis.
    pub stride: usize,
    /// Zeros added on each side, per axis.
    pub padding: usize,
    /// Distance between kernel taps, per axis.
    pub dilation: usize,
    /// Channel groups; `c_in` for a depthwise convolution.
    pub groups: usize,
    /// Whether a bias is added per output channel.
    pub bias: bool,
}

impl Conv2d {
    /// A `kernel`×`kernel` convolution with stride 1, "same" padding for odd kernels, no bias.
    pub const fn new(c_in: usize, c_out: usize, kernel: usize) -> Self {
        Self { c_in, c_out, kernel, stride: 1, padding: kernel / 2, dilation: 1, groups: 1, bias: false }
    }

    /// A depthwise `kernel`×`kernel` convolution of `c` channels with "same" padding, no bias.
    pub const fn depthwise(c: usize, kernel: usize) -> Self {
        Self { groups: c, ..Self::new(c, c, kernel) }
    }

    /// The same convolution with another stride.
    pub const fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The same convolution with or without bias.
    pub const fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Whether every channel is convolved alone (`groups = c_in = c_out`).
    pub const fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.c_in && self.groups == self.c_out
    }

    /// Weights `[c_out, c_in / groups, kernel, kernel]`.
    pub const fn weight_shape(&self) -> [usize; 4] {
        [self.c_out, self.c_in / self.groups, self.kernel, self.kernel]
    }

    /// The output's shape.
    ///
    /// # Shapes
    /// `input` is `[c_in, h, w]`; the output is `[c_out, h', w']`,
    /// `h' = ⌊(h + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1`.
    /// # Errors
    /// [`ShapeError`] where the hyper-parameters are out of range, `input` has other than `c_in` channels, or the kernel exceeds the padded input.
    pub fn output_shape(&self, input: Shape) -> Result<Shape, ShapeError> {
        let windows = [self.kernel, self.stride, self.dilation];
        let in_range = [self.c_in, self.c_out, self.groups].iter().all(|field| (1..=MAX_AXIS).contains(field))
            && windows.iter().all(|field| (1..=MAX_KERNEL).contains(field))
            && self.padding <= MAX_KERNEL;
        if !in_range {
            return Err(ShapeError::OutOfRange { what: "a size of the convolution" });
        }
        if !self.c_in.is_multiple_of(self.groups) || !self.c_out.is_multiple_of(self.groups) {
            return Err(ShapeError::Groups { c_in: self.c_in, c_out: self.c_out, groups: self.groups });
        }
        check_channels(self.c_in, input)?;
        let reach = self.dilation * (self.kernel - 1) + 1;
        let axis = |size| window_count(size, reach, self.stride, self.padding, input);
        Ok(Shape::chw(self.c_out, axis(input.h)?, axis(input.w)?))
    }

    /// Multiply–accumulates of one forward pass at batch 1 for an output of shape `output`; the bias is not counted.
    ///
    /// # Source
    /// Equation 2 of MobileNets, [arXiv:1704.04861](https://arxiv.org/abs/1704.04861), extended to groups.
    pub const fn macs(&self, output: Shape) -> Macs {
        let [c_out, c_in, kh, kw] = self.weight_shape();
        Macs(((output.pixels() * c_out) as u64).saturating_mul((c_in * kh * kw) as u64))
    }

    /// Weights and, if there is one, the bias.
    pub const fn params(&self) -> Params {
        let [c_out, c_in, kh, kw] = self.weight_shape();
        Params((c_out * c_in * kh * kw + if self.bias { c_out } else { 0 }) as u64)
    }
}

/// The window of a pooling operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Window height and width.
    pub kernel: usize,
    /// Step between windows, per axis.
    pub stride: usize,
    /// Padding on each side; padded pixels never win a maximum and are not counted in an average.
    pub padding: usize,
}

impl Pool {
    /// A window of `kernel` moved by `stride`, padded by `padding`.
    pub const fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel, stride, padding }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, ShapeError> {
        if [self.kernel, self.stride].iter().any(|size| !(1..=MAX_KERNEL).contains(size)) {
            return Err(ShapeError::OutOfRange { what: "a size of the pool" });
        }
        if self.padding * 2 > self.kernel {
            return Err(ShapeError::OutOfRange { what: "the pool's padding (at most half its kernel)" });
        }
        let axis = |size| window_count(size, self.kernel, self.stride, self.padding, input);
        Ok(Shape::chw(input.c, axis(input.h)?, axis(input.w)?))
    }
}

/// A primitive operator of a lowered network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// The network's input; node 0 and only node 0.
    Input {
        /// Shape of one image.
        shape: Shape,
    },
    /// Convolution.
    Conv(Conv2d),
    /// Batch norm per channel, with scale and shift ([`BATCH_NORM_EPS`]).
    BatchNorm {
        /// Channels in and out.
        channels: usize,
    },
    /// Element-wise non-linearity.
    Act {
        /// Which one.
        activation: Activation,
    },
    /// Concatenation along channels, in the order of the inputs; two or more.
    Concat,
    /// Element-wise sum of two or more equal shapes.
    Add,
    /// Maximum of each window.
    MaxPool(Pool),
    /// Mean of each window, over the pixels inside the image.
    AvgPool(Pool),
    /// Mean over all pixels: `[c, h, w]` to `[c, 1, 1]`.
    GlobalAvgPool,
    /// Fully connected layer on `[c_in, 1, 1]`.
    Linear {
        /// Input features.
        c_in: usize,
        /// Output features.
        c_out: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// Gives its input.
    Identity,
    /// Gives zeros of its input's shape (NAS-Bench-201's `none`).
    Zero,
}

impl Op {
    /// The kind of operator in one word, as in text forms and messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Conv(conv) if conv.is_depthwise() => "dwconv",
            Self::Conv(_) => "conv",
            Self::BatchNorm { .. } => "batchnorm",
            Self::Act { activation } => activation.name(),
            Self::Concat => "concat",
            Self::Add => "add",
            Self::MaxPool(_) => "maxpool",
            Self::AvgPool(_) => "avgpool",
            Self::GlobalAvgPool => "global-avgpool",
            Self::Linear { .. } => "linear",
            Self::Identity => "identity",
            Self::Zero => "zero",
        }
    }

    /// The output's shape for the given input shapes.
    ///
    /// # Errors
    /// [`ShapeError`] names the number of inputs, channels, sizes or range that does not fit.
    pub fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, ShapeError> {
        let one = || match inputs {
            &[input] => Ok(input),
            _ => Err(ShapeError::Arity { op: self.kind(), expected: "one input", got: inputs.len() }),
        };
        let shape = match self {
            Self::Input { shape } if inputs.is_empty() => Ok(*shape),
            Self::Input { .. } => Err(ShapeError::Arity { op: "input", expected: "no inputs", got: inputs.len() }),
            Self::Conv(conv) => conv.output_shape(one()?),
            Self::BatchNorm { channels } => one().and_then(|input| check_channels(*channels, input).map(|()| input)),
            Self::Act { .. } | Self::Identity | Self::Zero => one(),
            Self::Concat => concat_shape(inputs),
            Self::Add => add_shape(inputs),
            Self::MaxPool(pool) | Self::AvgPool(pool) => pool.output_shape(one()?),
            Self::GlobalAvgPool => one().map(|input| Shape::chw(input.c, 1, 1)),
            Self::Linear { c_in, c_out, .. } => linear_shape(*c_in, *c_out, one()?),
        }?;
        // Concat adds channels up, so the result is checked whatever the inputs were.
        if [shape.c, shape.h, shape.w].iter().any(|axis| !(1..=MAX_AXIS).contains(axis)) {
            return Err(ShapeError::OutOfRange { what: "an axis of the output" });
        }
        Ok(shape)
    }

    /// Multiply–accumulates of one forward pass at batch 1 for an output of shape `output`; zero for all but convolutions and linear layers.
    pub fn macs(&self, output: Shape) -> Macs {
        match self {
            Self::Conv(conv) => conv.macs(output),
            Self::Linear { c_in, c_out, .. } => Macs((c_in * c_out) as u64),
            _ => Macs(0),
        }
    }

    /// Trainable scalars: weights, biases, batch norm's scale and shift.
    pub fn params(&self) -> Params {
        match *self {
            Self::Conv(conv) => conv.params(),
            Self::BatchNorm { channels } => Params(2 * channels as u64),
            Self::Linear { c_in, c_out, bias } => Params((c_in * c_out + if bias { c_out } else { 0 }) as u64),
            _ => Params(0),
        }
    }
}

/// Why an operator cannot be applied to its inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Wrong number of inputs.
    #[error("{op} takes {expected}, got {got}")]
    Arity {
        /// Operator kind.
        op: &'static str,
        /// What it takes.
        expected: &'static str,
        /// How many it was given.
        got: usize,
    },
    /// Wrong number of channels.
    #[error("expected {expected} input channels, got {got}")]
    Channels {
        /// What the operator was made for.
        expected: usize,
        /// What its input has.
        got: Shape,
    },
    /// `groups` does not divide the channels.
    #[error("{groups} groups do not divide {c_in} input and {c_out} output channels")]
    Groups {
        /// Input channels.
        c_in: usize,
        /// Output channels.
        c_out: usize,
        /// Groups.
        groups: usize,
    },
    /// The window exceeds the padded input.
    #[error("a window of {window} pixels does not fit into {input} padded by {padding}")]
    Empty {
        /// Extent of the window in pixels.
        window: usize,
        /// Input shape.
        input: Shape,
        /// Padding on each side.
        padding: usize,
    },
    /// Two inputs do not go together.
    #[error("{op} of {first} and {other}: {rule}")]
    Mismatch {
        /// Operator kind.
        op: &'static str,
        /// First input.
        first: Shape,
        /// The one that does not fit.
        other: Shape,
        /// What must agree.
        rule: &'static str,
    },
    /// A size is zero, or beyond [`MAX_AXIS`] or [`MAX_KERNEL`].
    #[error("{what} is out of range (axes 1 to 65536, windows 1 to 1024)")]
    OutOfRange {
        /// What is out of range.
        what: &'static str,
    },
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn check_channels(expected: usize, input: Shape) -> Result<(), ShapeError> {
    if input.c == expected { Ok(()) } else { Err(ShapeError::Channels { expected, got: input }) }
}

fn window_count(size: usize, reach: usize, stride: usize, padding: usize, input: Shape) -> Result<usize, ShapeError> {
    match (size + 2 * padding).checked_sub(reach) {
        Some(slack) => Ok(slack / stride + 1),
        None => Err(ShapeError::Empty { window: reach, input, padding }),
    }
}

fn concat_shape(inputs: &[Shape]) -> Result<Shape, ShapeError> {
    let [first, rest @ ..] = inputs else {
        return Err(ShapeError::Arity { op: "concat", expected: "two or more inputs", got: 0 });
    };
    if rest.is_empty() {
        return Err(ShapeError::Arity { op: "concat", expected: "two or more inputs", got: 1 });
    }
    if let Some(&other) = rest.iter().find(|other| (other.h, other.w) != (first.h, first.w)) {
        return Err(ShapeError::Mismatch { op: "concat", first: *first, other, rule: "height and width must agree" });
    }
    Ok(Shape::chw(inputs.iter().map(|input| input.c).sum(), first.h, first.w))
}

fn add_shape(inputs: &[Shape]) -> Result<Shape, ShapeError> {
    let (Some(&first), true) = (inputs.first(), inputs.len() >= 2) else {
        return Err(ShapeError::Arity { op: "add", expected: "two or more inputs", got: inputs.len() });
    };
    match inputs.iter().find(|&&other| other != first) {
        Some(&other) => Err(ShapeError::Mismatch { op: "add", first, other, rule: "shapes must agree" }),
        None => Ok(first),
    }
}

fn linear_shape(c_in: usize, c_out: usize, input: Shape) -> Result<Shape, ShapeError> {
    check_channels(c_in, input)?;
    let point = Shape::chw(c_in, 1, 1);
    if input != point {
        return Err(ShapeError::Mismatch {
            op: "linear",
            first: point,
            other: input,
            rule: "a linear layer works on single pixels",
        });
    }
    Ok(Shape::chw(c_out, 1, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_convolution_by_hand() {
        let conv = Conv2d::new(32, 64, 3).stride(2);
        let output = conv.output_shape(Shape::chw(32, 32, 32)).unwrap();
        assert_eq!(output, Shape::chw(64, 16, 16));
        assert_eq!(conv.macs(output), Macs(16 * 16 * 64 * 32 * 9));
        assert_eq!(conv.params(), Params(64 * 32 * 9));
    }

    #[test]
    fn depthwise_convolution_by_hand() {
        let conv = Conv2d::depthwise(16, 3).bias(true);
        let output = conv.output_shape(Shape::chw(16, 7, 9)).unwrap();
        assert_eq!(output, Shape::chw(16, 7, 9));
        assert_eq!(conv.macs(output), Macs(63 * 16 * 9));
        assert_eq!(conv.params(), Params(16 * 9 + 16));
    }

    #[test]
    fn dilation_widens_the_window() {
        let conv = Conv2d { dilation: 2, padding: 0, ..Conv2d::new(1, 1, 3) };
        assert_eq!(conv.output_shape(Shape::chw(1, 5, 6)), Ok(Shape::chw(1, 1, 2)));
        assert!(matches!(conv.output_shape(Shape::chw(1, 4, 6)), Err(ShapeError::Empty { window: 5, .. })));
    }

    #[test]
    fn wrong_inputs_are_named() {
        let (a, b) = (Shape::chw(4, 8, 8), Shape::chw(4, 8, 7));
        let conv = Op::Conv(Conv2d::new(3, 8, 1));
        assert_eq!(conv.output_shape(&[a]).unwrap_err().to_string(), "expected 3 input channels, got 4x8x8");
        assert_eq!(Op::Add.output_shape(&[a, b]).unwrap_err().to_string(), "add of 4x8x8 and 4x8x7: shapes must agree");
        assert!(Op::Concat.output_shape(&[a]).is_err());
        assert!(Op::Concat.output_shape(&[a, b]).is_err());
        assert_eq!(Op::Concat.output_shape(&[a, a]), Ok(Shape::chw(8, 8, 8)));
        let huge = Op::Conv(Conv2d { c_out: usize::MAX, ..Conv2d::new(4, 8, 1) });
        assert!(huge.output_shape(&[a]).is_err());
    }
}
