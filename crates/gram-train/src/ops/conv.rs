//! Convolution and linear layer.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};
use gram_ir::{Conv2d, Shape as MapShape};

use super::access::{by_dtype, dense, storage, tensor, values};
use super::operator::{Operator, apply};
use crate::kernels::conv::{self, Geometry, Gradients, bias_gradient};
use crate::kernels::{Real, depthwise};

/// The convolution of `x` with `weight` as `conv` says, plus `bias` if there is one; `conv.bias` is not read.
///
/// # Shapes
/// `x` is `[n, c_in, h, w]`, `weight` `[c_out, c_in / groups, k, k]`, `bias` `[c_out]`; the output is `[n, c_out, h', w']` as
/// [`Conv2d::output_shape`] has it.
/// # Errors
/// If shapes do not fit, or the tensors are not f32 or f64 of one type on the CPU.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, conv: &Conv2d) -> Result<Tensor> {
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    apply(ConvOp::new(x.dims(), conv)?, &inputs)
}

/// `x · weightᵀ + bias`.
///
/// # Shapes
/// `x` is `[n, c_in]`, `weight` `[c_out, c_in]`, `bias` `[c_out]`; the output is `[n, c_out]`.
/// # Errors
/// If shapes do not fit, or the tensors are not f32 or f64 of one type on the CPU.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n, c_in) = x.dims2()?;
    let (c_out, _) = weight.dims2()?;
    conv2d(&x.reshape((n, c_in, 1, 1))?, weight, bias, &Conv2d::new(c_in, c_out, 1))?.reshape((n, c_out))
}

/// Convolution of `[x, weight]` or `[x, weight, bias]`; a 1x1 weight may also be `[c_out, c_in]`.
#[derive(Clone, Copy)]
pub(crate) struct ConvOp {
    geometry: Geometry,
    conv: Conv2d,
}

impl ConvOp {
    /// For inputs of shape `dims`.
    pub(crate) fn new(dims: &[usize], conv: &Conv2d) -> Result<Self> {
        let &[n, c, h, w] = dims else { bail!("conv2d: an input of shape {dims:?}") };
        let output = conv.output_shape(MapShape::chw(c, h, w)).map_err(candle_core::Error::wrap)?;
        let Conv2d { c_in, c_out, kernel, stride, padding, dilation, groups, .. } = *conv;
        let (h_out, w_out) = (output.h, output.w);
        let geometry = Geometry { n, c_in, c_out, groups, kernel, stride, padding, dilation, h, w, h_out, w_out };
        Ok(Self { geometry, conv: *conv })
    }

    fn check(&self, weight: &[usize], bias: Option<&[usize]>) -> Result<()> {
        let expected = self.conv.weight_shape();
        if weight != expected && (self.conv.kernel != 1 || weight != &expected[..2]) {
            bail!("conv2d: a weight of shape {weight:?} instead of {expected:?}");
        }
        match bias {
            Some(bias) if bias != [self.conv.c_out] => {
                bail!("conv2d: a bias of shape {bias:?} for {} channels", self.conv.c_out)
            }
            _ => Ok(()),
        }
    }

    fn run<T: Real>(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let inputs = inputs.iter().map(|(s, l)| dense::<T>(s, l)).collect::<Result<Vec<_>>>()?;
        let run = if self.conv.is_depthwise() { depthwise::forward } else { conv::forward };
        let y = run(&self.geometry, &inputs[0], &inputs[1], inputs.get(2).map(|bias| &**bias));
        let Geometry { n, c_out, h_out, w_out, .. } = self.geometry;
        Ok(storage(y, (n, c_out, h_out, w_out)))
    }

    fn differentiate<T: Real>(&self, inputs: &[&Tensor], g: &Tensor, wants_x: bool) -> Result<Vec<Option<Tensor>>> {
        let (x, weight) = (inputs[0], inputs[1]);
        let run = if self.conv.is_depthwise() { depthwise::backward } else { conv::backward };
        let g = values::<T>(g)?;
        let Gradients { x: dx, weight: dw } = run(&self.geometry, &values::<T>(x)?, &values::<T>(weight)?, &g, wants_x);
        let dx = dx.map(|dx| tensor(dx, x.shape())).transpose()?;
        let mut gradients = vec![dx, Some(tensor(dw, weight.shape())?)];
        if let Some(bias) = inputs.get(2) {
            let db = bias_gradient::<T>(self.geometry.c_out, self.geometry.h_out * self.geometry.w_out, &g);
            gradients.push(Some(tensor(db, bias.shape())?));
        }
        Ok(gradients)
    }
}

impl Operator for ConvOp {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let [(x, _), (_, weight), bias @ ..] = inputs else { bail!("conv2d: {} inputs", inputs.len()) };
        self.check(weight.dims(), bias.first().map(|(_, layout)| layout.dims()))?;
        by_dtype!(x.dtype(), "conv2d", T => self.run::<T>(inputs))
    }

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, wanted: &[bool]) -> Result<Vec<Option<Tensor>>> {
        by_dtype!(g.dtype(), "conv2d", T => self.differentiate::<T>(inputs, g, wanted[0]))
    }
}
