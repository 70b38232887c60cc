//! Fused kernels: what an engine runs as one piece, and the key of a device's table.

use std::fmt;
use std::str::FromStr;

use gram_ir::{Activation, MAX_AXIS, MAX_KERNEL};
use serde::{Deserialize, Serialize};

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelOp {
    /// Convolution, dense or in groups.
    Conv,
    /// Depthwise convolution.
    DepthwiseConv,
    /// Maximum of windows.
    MaxPool,
    /// Mean of windows.
    AvgPool,
    /// Mean of whole maps.
    GlobalAvgPool,
    /// Concatenation along channels.
    Concat,
    /// Sum of maps that was not fused into a convolution.
    Add,
    /// Activation that was not fused into a convolution.
    Act,
    /// Batch norm that was not folded.
    BatchNorm,
    /// Linear layer.
    Linear,
    /// From plain to blocked layout.
    ReorderInput,
    /// From blocked to plain layout.
    ReorderOutput,
}

impl KernelOp {
    /// Every operator.
    pub const ALL: [Self; 12] = [
        Self::Conv,
        Self::DepthwiseConv,
        Self::MaxPool,
        Self::AvgPool,
        Self::GlobalAvgPool,
        Self::Concat,
        Self::Add,
        Self::Act,
        Self::BatchNorm,
        Self::Linear,
        Self::ReorderInput,
        Self::ReorderOutput,
    ];

    /// The name in keys and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::DepthwiseConv => "dwconv",
            Self::MaxPool => "maxpool",
            Self::AvgPool => "avgpool",
            Self::GlobalAvgPool => "global-avgpool",
            Self::Concat => "concat",
            Self::Add => "add",
            Self::Act => "act",
            Self::BatchNorm => "batchnorm",
            Self::Linear => "linear",
            Self::ReorderInput => "reorder-input",
            Self::ReorderOutput => "reorder-output",
        }
    }

    /// Whether it only changes the layout of a map.
    pub const fn is_reorder(self) -> bool {
        matches!(self, Self::ReorderInput | Self::ReorderOutput)
    }

    fn has_window(self) -> bool {
        matches!(self, Self::Conv | Self::DepthwiseConv | Self::MaxPool | Self::AvgPool)
    }
}

impl fmt::Display for KernelOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fused kernel with everything that its time depends on besides the device.
///
/// Prints and parses as the key of a device's table: `conv 64x28x28>32 k3 s1 p1 +add +relu6 blocked`.
///
/// # Example
/// ```
/// use gram_latency::Kernel;
/// let kernel: Kernel = "conv 64x28x28>32 k3 s2 p1 +add +relu6 blocked".parse()?;
/// assert_eq!((kernel.macs(), kernel.output()), (64 * 32 * 9 * 14 * 14, [32, 14, 14]));
/// assert_eq!(kernel.to_string(), "conv 64x28x28>32 k3 s2 p1 +add +relu6 blocked");
/// # Ok::<(), gram_latency::KernelParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kernel {
    /// What it computes.
    pub op: KernelOp,
    /// Input channels, of all inputs together where they are concatenated.
    pub c_in: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels.
    pub c_out: usize,
    /// Window height and width; 1 without windows.
    pub kernel: usize,
    /// Step between windows; 1 without windows.
    pub stride: usize,
    /// Padding on each side; 0 without windows.
    pub padding: usize,
    /// Distance between taps; 1 without windows.
    pub dilation: usize,
    /// Channel groups; 1 without convolution.
    pub groups: usize,
    /// Tensors that are concatenated or added; 1 for all else.
    pub inputs: usize,
    /// Whether another map is added before the activation.
    pub residual: bool,
    /// Activation at the end, or the activation itself.
    pub act: Option<Activation>,
    /// Whether it works in the engine's blocked layout.
    pub blocked: bool,
}

impl Kernel {
    /// A kernel that keeps the shape of its one input.
    pub(crate) const fn keeping(op: KernelOp, [c, h, w]: [usize; 3]) -> Self {
        let (kernel, stride, padding, dilation, groups, inputs) = (1, 1, 0, 1, 1, 1);
        let (residual, act, blocked) = (false, None, false);
        Self { op, c_in: c, h, w, c_out: c, kernel, stride, padding, dilation, groups, inputs, residual, act, blocked }
    }

    /// Shape of the input, `[c, h, w]`.
    pub const fn input(&self) -> [usize; 3] {
        [self.c_in, self.h, self.w]
    }

    /// Shape of the output, `[c, h, w]`.
    pub fn output(&self) -> [usize; 3] {
        let reach = self.dilation * (self.kernel - 1) + 1;
        let axis = |size: usize| (size + 2 * self.padding).saturating_sub(reach) / self.stride + 1;
        match self.op {
            KernelOp::GlobalAvgPool => [self.c_out, 1, 1],
            op if op.has_window() => [self.c_out, axis(self.h), axis(self.w)],
            _ => [self.c_out, self.h, self.w],
        }
    }

    /// Multiply–accumulates of convolutions and linear layers; operations of an output element times elements for all else.
    pub fn macs(&self) -> u64 {
        let [c_out, h, w] = self.output();
        let outputs = (c_out * h * w) as u64;
        let each = match self.op {
            KernelOp::Conv | KernelOp::DepthwiseConv => self.c_in / self.groups * self.kernel * self.kernel,
            KernelOp::MaxPool | KernelOp::AvgPool => self.kernel * self.kernel,
            KernelOp::GlobalAvgPool => self.h * self.w,
            KernelOp::Linear => self.c_in,
            KernelOp::Add => self.inputs,
            _ => 1,
        };
        outputs * each as u64
    }

    /// Elements that are read.
    pub fn elements_in(&self) -> u64 {
        let own = (self.c_in * self.h * self.w) as u64;
        let added = if self.residual { self.elements_out() } else { 0 };
        if self.op == KernelOp::Add { own * self.inputs as u64 } else { own + added }
    }

    /// Elements that are written.
    pub fn elements_out(&self) -> u64 {
        self.output().iter().product::<usize>() as u64
    }

    /// Weights that are read.
    pub fn weights(&self) -> u64 {
        match self.op {
            KernelOp::Conv | KernelOp::DepthwiseConv => {
                (self.c_in / self.groups * self.c_out * self.kernel * self.kernel) as u64
            }
            KernelOp::Linear => (self.c_in * self.c_out) as u64,
            KernelOp::BatchNorm => 2 * self.c_in as u64,
            _ => 0,
        }
    }

    /// What is wrong with it, if anything.
    fn check(&self) -> Result<(), &'static str> {
        let axes = [self.c_in, self.h, self.w, self.c_out, self.groups, self.inputs];
        let windows = [self.kernel, self.stride, self.dilation];
        if axes.iter().any(|axis| !(1..=MAX_AXIS).contains(axis)) {
            return Err("channels, height, width, groups and inputs must be 1 to 65536");
        }
        if windows.iter().any(|size| !(1..=MAX_KERNEL).contains(size)) || self.padding > MAX_KERNEL {
            return Err("windows, strides, dilations must be 1 to 1024, paddings 0 to 1024");
        }
        let reach = self.dilation * (self.kernel - 1) + 1;
        if self.h.min(self.w) + 2 * self.padding < reach {
            return Err("the window exceeds the padded input");
        }
        if !self.c_in.is_multiple_of(self.groups) || !self.c_out.is_multiple_of(self.groups) {
            return Err("groups must divide the channels");
        }
        let is_depthwise = self.groups > 1 && self.groups == self.c_in && self.groups == self.c_out;
        match self.op {
            KernelOp::DepthwiseConv if !is_depthwise => Err("a depthwise convolution has as many groups as channels"),
            KernelOp::Conv if is_depthwise => Err("a convolution with a group for each channel is a dwconv"),
            KernelOp::Conv | KernelOp::DepthwiseConv | KernelOp::Linear => Ok(()),
            _ if self.c_in != self.c_out => Err("only convolutions and linear layers change the channels"),
            KernelOp::Act if self.act.is_none() => Err("an activation must say which"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}x{}", self.op, self.c_in, self.h, self.w)?;
        if self.c_out != self.c_in {
            write!(f, ">{}", self.c_out)?;
        }
        if self.op.has_window() {
            write!(f, " k{} s{} p{}", self.kernel, self.stride, self.padding)?;
        }
        let default_groups = if self.op == KernelOp::DepthwiseConv { self.c_in } else { 1 };
        for (mark, value, default) in
            [("d", self.dilation, 1), ("g", self.groups, default_groups), ("n", self.inputs, 1)]
        {
            if value != default {
                write!(f, " {mark}{value}")?;
            }
        }
        if self.residual {
            f.write_str(" +add")?;
        }
        if let Some(act) = self.act {
            write!(f, " +{act}")?;
        }
        if self.blocked { f.write_str(" blocked") } else { Ok(()) }
    }
}

/// A text that is no kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no kernel: {reason}")]
pub struct KernelParseError {
    /// The text; long ones are cut.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for Kernel {
    type Err = KernelParseError;

    fn from_str(text: &str) -> Result<Self, KernelParseError> {
        parse(text).map_err(|reason| KernelParseError { text: text.chars().take(80).collect(), reason })
    }
}

fn parse(text: &str) -> Result<Kernel, String> {
    let mut words = text.split(' ');
    let name = words.next().unwrap_or_default();
    let op = KernelOp::ALL.into_iter().find(|op| op.name() == name).ok_or_else(|| format!("no operator `{name}`"))?;
    let shape = words.next().ok_or("expected a shape such as 64x28x28>32")?;
    let (input, c_out) = shape.split_once('>').map_or((shape, None), |(input, c_out)| (input, Some(c_out)));
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no number"));
    let axes = input.split('x').map(number).collect::<Result<Vec<_>, _>>()?;
    let axes: [usize; 3] = axes.try_into().map_err(|_| format!("`{input}` is no shape CxHxW"))?;
    let mut kernel = Kernel::keeping(op, axes);
    kernel.c_out = c_out.map_or(Ok(kernel.c_out), number)?;
    if op == KernelOp::DepthwiseConv {
        kernel.groups = kernel.c_in;
    }
    for word in words {
        match word {
            "blocked" => kernel.blocked = true,
            "+add" => kernel.residual = true,
            _ => read_word(&mut kernel, word)?,
        }
    }
    kernel.check()?;
    // A kernel has one key only.
    if kernel.to_string() == text { Ok(kernel) } else { Err(format!("it should read `{kernel}`")) }
}

fn read_word(kernel: &mut Kernel, word: &str) -> Result<(), String> {
    if let Some(name) = word.strip_prefix('+') {
        let act = Activation::ALL.into_iter().find(|act| act.name() == name);
        kernel.act = Some(act.ok_or_else(|| format!("no activation `{name}`"))?);
        return Ok(());
    }
    let unknown = || format!("`{word}` is unknown");
    let mark = word.get(..1).ok_or_else(unknown)?;
    let value = word[1..].parse().map_err(|_| unknown())?;
    let field = match mark {
        "k" => &mut kernel.kernel,
        "s" => &mut kernel.stride,
        "p" => &mut kernel.padding,
        "d" => &mut kernel.dilation,
        "g" => &mut kernel.groups,
        "n" => &mut kernel.inputs,
        _ => return Err(unknown()),
    };
    *field = value;
    Ok(())
}

impl TryFrom<String> for Kernel {
    type Error = KernelParseError;

    fn try_from(text: String) -> Result<Self, KernelParseError> {
        text.parse()
    }
}

impl From<Kernel> for String {
    fn from(kernel: Kernel) -> Self {
        kernel.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_by_hand() {
        let kernel = |text: &str| text.parse::<Kernel>().unwrap();
        let residual = kernel("conv 32x8x8>16 k1 s1 p0 +add blocked");
        assert_eq!(residual.macs(), 64 * 16 * 32);
        assert_eq!((residual.elements_in(), residual.elements_out()), (64 * 32 + 64 * 16, 64 * 16));
        let depthwise = kernel("dwconv 32x9x9 k5 s2 p2 +hard-swish blocked");
        assert_eq!((depthwise.output(), depthwise.macs(), depthwise.weights()), ([32, 5, 5], 800 * 25, 800));
        let add = kernel("add 8x4x4 n3");
        assert_eq!((add.elements_in(), add.macs()), (3 * 128, 3 * 128));
        let linear = kernel("linear 80x1x1>10");
        assert_eq!((linear.macs(), linear.weights()), (800, 800));
        assert_eq!(kernel("global-avgpool 80x4x4 blocked").output(), [80, 1, 1]);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        for (text, words) in [
            ("", "no operator"),
            ("conv", "expected a shape"),
            ("conv 3x8", "no shape"),
            ("conv 3x8x0>4 k1 s1 p0", "65536"),
            ("conv 3x8x8>4 k9 s1 p0", "exceeds"),
            ("conv 3x8x8>4 k0 s1 p0", "1024"),
            ("conv 3x8x8>4 k1 s1 p0 g2", "divide"),
            ("conv 3x8x8>4 k1 s1 p0 x2", "unknown"),
            ("conv 3x8x8>4 k1 s1 p0 é", "unknown"),
            ("conv 3x8x8>4 p0 k1 s1", "it should read `conv 3x8x8>4 k1 s1 p0`"),
            ("conv 3x8x8 k1 s1 p0 g3", "dwconv"),
            ("maxpool 3x8x8>4 k1 s1 p0", "change the channels"),
            ("act 3x8x8", "must say which"),
            ("act 3x8x8 +gelu", "no activation"),
        ] {
            let error = text.parse::<Kernel>().unwrap_err();
            assert!(error.reason.contains(words), "{text}: {error}");
        }
    }
}
