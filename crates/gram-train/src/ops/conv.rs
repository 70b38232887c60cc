//! Convolution and linear layer.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use gram_ir::{Conv2d, Shape as MapShape};

use super::access::{by_dtype, dense, storage, tensor, values};
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
    let op = ConvOp(geometry(x, weight, conv)?);
    match bias {
        None => x.apply_op2(weight, op),
        Some(bias) if bias.dims() == [conv.c_out] => x.apply_op3(weight, bias, op),
        Some(bias) => bail!("conv2d: a bias of shape {:?} for {} channels", bias.dims(), conv.c_out),
    }
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
    let weight = weight.reshape((c_out, (), 1, 1))?;
    conv2d(&x.reshape((n, c_in, 1, 1))?, &weight, bias, &Conv2d::new(c_in, c_out, 1))?.reshape((n, c_out))
}

fn geometry(x: &Tensor, weight: &Tensor, conv: &Conv2d) -> Result<Geometry> {
    let (n, c, h, w) = x.dims4()?;
    let output = conv.output_shape(MapShape::chw(c, h, w)).map_err(candle_core::Error::wrap)?;
    if weight.dims() != conv.weight_shape() {
        bail!("conv2d: a weight of shape {:?} instead of {:?}", weight.dims(), conv.weight_shape());
    }
    let Conv2d { c_in, c_out, kernel, stride, padding, dilation, groups, .. } = *conv;
    let (h_out, w_out) = (output.h, output.w);
    Ok(Geometry { n, c_in, c_out, groups, kernel, stride, padding, dilation, h, w, h_out, w_out })
}

#[derive(Clone, Copy)]
struct ConvOp(Geometry);

impl ConvOp {
    fn is_depthwise(&self) -> bool {
        self.0.groups > 1 && self.0.groups == self.0.c_in && self.0.groups == self.0.c_out
    }

    fn forward<T: Real>(&self, x: &[T], weight: &[T], bias: Option<&[T]>) -> (CpuStorage, Shape) {
        let geometry = &self.0;
        let run = if self.is_depthwise() { depthwise::forward } else { conv::forward };
        storage(run(geometry, x, weight, bias), (geometry.n, geometry.c_out, geometry.h_out, geometry.w_out))
    }

    fn backward<T: Real>(&self, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wants_x = x.track_op();
        let Gradients { x: dx, weight: dw } = {
            let run = if self.is_depthwise() { depthwise::backward } else { conv::backward };
            run(&self.0, &values::<T>(x)?, &values::<T>(weight)?, &values::<T>(g)?, wants_x)
        };
        let dx = dx.map(|dx| tensor(dx, x.shape())).transpose()?;
        Ok((dx, Some(tensor(dw, weight.shape())?)))
    }
}

impl CustomOp2 for ConvOp {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), "conv2d", T => Ok(self.forward::<T>(&dense(x, lx)?, &dense(w, lw)?, None)))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        by_dtype!(x.dtype(), "conv2d", T => self.backward::<T>(x, w, g))
    }
}

impl CustomOp3 for ConvOp {
    fn name(&self) -> &'static str {
        "conv2d with bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), "conv2d", T => Ok(self.forward::<T>(&dense(x, lx)?, &dense(w, lw)?, Some(&dense(b, lb)?))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        by_dtype!(x.dtype(), "conv2d", T => {
            let (dx, dw) = self.backward::<T>(x, w, g)?;
            let db = bias_gradient::<T>(self.0.c_out, self.0.h_out * self.0.w_out, &values(g)?);
            Ok((dx, dw, Some(tensor(db, b.shape())?)))
        })
    }
}
