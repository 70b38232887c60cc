//! The operators, one plain loop nest each, on tensors `[n, c, h, w]`.

use std::ops::Range;

use crate::{Activation, BATCH_NORM_EPS, Conv2d, Node, Pool, Shape, Tensor, TensorError, Weights};

use super::RunError;

/// A zero tensor of as many images as `like` has.
fn batch_like(like: &Tensor, shape: Shape) -> Tensor {
    Tensor::zeros(&[like.shape()[0], shape.c, shape.h, shape.w])
}

/// `[c, h, w]` of one image.
pub(super) fn image_shape(tensor: &Tensor) -> Shape {
    let [_, c, h, w] = *tensor.shape() else { unreachable!("invariant: maps have four axes") };
    Shape::chw(c, h, w)
}

/// Convolution; one output plane after the other, one kernel tap after the other, so that the innermost loop runs along rows.
pub(super) fn conv2d(input: &Tensor, conv: &Conv2d, weight: &Tensor, bias: Option<&Tensor>, shape: Shape) -> Tensor {
    let from = image_shape(input);
    let [_, group_in, kernel, _] = conv.weight_shape();
    let group_out = conv.c_out / conv.groups;
    let mut output = batch_like(input, shape);
    for (plane, sums) in output.data_mut().chunks_exact_mut(shape.pixels()).enumerate() {
        let (image, c_out) = (plane / conv.c_out, plane % conv.c_out);
        let first_in = image * conv.c_in + c_out / group_out * group_in;
        sums.fill(bias.map_or(0.0, |bias| bias.data()[c_out]));
        for c_in in 0..group_in {
            let pixels = &input.data()[(first_in + c_in) * from.pixels()..][..from.pixels()];
            let taps = &weight.data()[(c_out * group_in + c_in) * kernel * kernel..][..kernel * kernel];
            for (tap, &factor) in taps.iter().enumerate() {
                let rows = Reach::new(conv, tap / kernel, from.h, shape.h);
                let columns = Reach::new(conv, tap % kernel, from.w, shape.w);
                for y in rows.outputs.clone() {
                    let row = &pixels[rows.input(y) * from.w..][..from.w];
                    for x in columns.outputs.clone() {
                        sums[y * shape.w + x] += factor * row[columns.input(x)];
                    }
                }
            }
        }
    }
    output
}

/// Along one axis: the output pixels for which a kernel tap falls inside the image, and where it falls.
struct Reach {
    outputs: Range<usize>,
    stride: usize,
    /// Offset of the tap plus the padding, which `padding` takes off again.
    offset: usize,
    padding: usize,
}

impl Reach {
    fn new(conv: &Conv2d, tap: usize, size_in: usize, size_out: usize) -> Self {
        let (offset, padding, stride) = (tap * conv.dilation, conv.padding, conv.stride);
        // 0 ≤ output·stride + offset − padding < size_in
        let start = padding.saturating_sub(offset).div_ceil(stride);
        let end = (size_in + padding).saturating_sub(offset).div_ceil(stride).min(size_out);
        Self { outputs: start..end.max(start), stride, offset, padding }
    }

    fn input(&self, output: usize) -> usize {
        output * self.stride + self.offset - self.padding
    }
}

/// Per channel `(x − mean) · factor + shift`.
pub(super) struct ChannelAffine<'a> {
    mean: &'a [f64],
    factor: Vec<f64>,
    shift: &'a [f64],
}

impl<'a> ChannelAffine<'a> {
    /// Batch norm in inference: running mean, and scale over the root of running variance plus [`BATCH_NORM_EPS`].
    pub(super) fn from_norm(node: &Node, weights: &'a Weights) -> Result<Self, RunError> {
        let tensor = |suffix: &str| -> Result<&'a [f64], TensorError> {
            Ok(weights.get(&format!("{}.{suffix}", node.name))?.data())
        };
        let variance = tensor("running_var")?;
        if let Some(channel) = variance.iter().position(|&x| x < 0.0) {
            return Err(RunError::NegativeVariance { name: format!("{}.running_var", node.name), channel });
        }
        let factor = tensor("weight")?.iter().zip(variance).map(|(scale, var)| scale / (var + BATCH_NORM_EPS).sqrt());
        Ok(Self { mean: tensor("running_mean")?, factor: factor.collect(), shift: tensor("bias")? })
    }
}

pub(super) fn channel_affine(input: &Tensor, affine: &ChannelAffine<'_>) -> Tensor {
    let shape = image_shape(input);
    let mut output = input.clone();
    for (plane, pixels) in output.data_mut().chunks_exact_mut(shape.pixels()).enumerate() {
        let c = plane % shape.c;
        for x in pixels {
            *x = (*x - affine.mean[c]) * affine.factor[c] + affine.shift[c];
        }
    }
    output
}

pub(super) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

pub(super) fn map(input: &Tensor, function: impl Fn(f64) -> f64) -> Tensor {
    let mut output = input.clone();
    for x in output.data_mut() {
        *x = function(*x);
    }
    output
}

/// Concatenation along channels.
pub(super) fn concat(inputs: &[&Tensor], shape: Shape) -> Tensor {
    let mut output = batch_like(inputs[0], shape);
    for (image, mut rest) in output.data_mut().chunks_exact_mut(shape.elements()).enumerate() {
        for input in inputs {
            let elements = image_shape(input).elements();
            let (part, behind) = rest.split_at_mut(elements);
            part.copy_from_slice(&input.data()[image * elements..][..elements]);
            rest = behind;
        }
    }
    output
}

/// Element-wise sum, from the first input to the last.
pub(super) fn sum(inputs: &[&Tensor]) -> Tensor {
    let mut output = inputs[0].clone();
    for input in &inputs[1..] {
        for (x, y) in output.data_mut().iter_mut().zip(input.data()) {
            *x += y;
        }
    }
    output
}

/// `reduce` of the pixels of each window that lie inside the image.
pub(super) fn pool(input: &Tensor, pool: &Pool, shape: Shape, reduce: impl Fn(&[f64]) -> f64) -> Tensor {
    let from = image_shape(input);
    // Padding is at most half the kernel, so no window lies outside altogether.
    let inside = |output: usize, size: usize| {
        let start = output * pool.stride;
        start.saturating_sub(pool.padding)..(start + pool.kernel - pool.padding).min(size)
    };
    let mut output = batch_like(input, shape);
    let mut window = Vec::new();
    for (plane, pooled) in output.data_mut().chunks_exact_mut(shape.pixels()).enumerate() {
        let pixels = &input.data()[plane * from.pixels()..][..from.pixels()];
        for (i, value) in pooled.iter_mut().enumerate() {
            window.clear();
            for y in inside(i / shape.w, from.h) {
                window.extend_from_slice(&pixels[y * from.w..][..from.w][inside(i % shape.w, from.w)]);
            }
            *value = reduce(&window);
        }
    }
    output
}

pub(super) fn max(window: &[f64]) -> f64 {
    window.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

pub(super) fn mean(window: &[f64]) -> f64 {
    window.iter().sum::<f64>() / window.len() as f64
}

pub(super) fn global_mean(input: &Tensor, shape: Shape) -> Tensor {
    let pixels = image_shape(input).pixels();
    let mut output = batch_like(input, shape);
    for (value, plane) in output.data_mut().iter_mut().zip(input.data().chunks_exact(pixels)) {
        *value = mean(plane);
    }
    output
}

pub(super) fn linear(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: Shape) -> Tensor {
    let c_in = image_shape(input).c;
    let mut output = batch_like(input, shape);
    for (features, scores) in input.data().chunks_exact(c_in).zip(output.data_mut().chunks_exact_mut(shape.c)) {
        for (c_out, score) in scores.iter_mut().enumerate() {
            let row = &weight.data()[c_out * c_in..][..c_in];
            let start = bias.map_or(0.0, |bias| bias.data()[c_out]);
            *score = row.iter().zip(features).fold(start, |sum, (w, x)| sum + w * x);
        }
    }
    output
}
