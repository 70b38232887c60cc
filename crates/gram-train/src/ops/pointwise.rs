//! Activations and concatenation.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use gram_ir::Activation;

use super::access::{by_dtype, dense, storage, tensor, values};
use crate::kernels::{activation as kernel, concat as join};

/// The activation of every element; its slope is that of the flat side at kinks (0 at 0 for ReLU), as in torch.
///
/// # Errors
/// If the tensor is not f32 or f64 on the CPU.
pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    x.apply_op1(ActOp(activation))
}

struct ActOp(Activation);

impl CustomOp1 for ActOp {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), self.0, T => Ok(storage(kernel::forward::<T>(self.0, &dense(x, lx)?), lx.shape().clone())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), self.0, T => {
            Ok(Some(tensor(kernel::backward::<T>(self.0, &values(x)?, &values(g)?), x.shape())?))
        })
    }
}

/// Concatenation of `[n, c_i, h, w]` maps along channels.
///
/// candle's own is right, but its gradient goes through strided views, element by element.
///
/// # Errors
/// If there are no maps, their shapes differ in other than channels, or they are not f32 or f64 of one type on the CPU.
pub fn concat(maps: &[Tensor]) -> Result<Tensor> {
    let Some(first) = maps.first() else { bail!("concat: no maps") };
    let (n, _, h, w) = first.dims4()?;
    for map in maps {
        let (other_n, _, other_h, other_w) = map.dims4()?;
        if (other_n, other_h, other_w) != (n, h, w) {
            bail!("concat: {:?} and {:?}", first.dims(), map.dims());
        }
    }
    joined(maps)
}

/// A tree of three-way joins, as an operator takes three tensors at most.
fn joined(maps: &[Tensor]) -> Result<Tensor> {
    match maps {
        [map] => Ok(map.clone()),
        [a, b] => a.apply_op2(b, ConcatOp),
        [a, b, c] => a.apply_op3(b, c, ConcatOp),
        _ => joined(&maps.chunks(maps.len().div_ceil(3)).map(joined).collect::<Result<Vec<_>>>()?),
    }
}

struct ConcatOp;

impl ConcatOp {
    fn forward(&self, parts: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let Some(&(first, layout)) = parts.first() else { bail!("concat: no maps") };
        let (n, _, h, w) = layout.shape().dims4()?;
        let lens: Vec<usize> = parts.iter().map(|(_, layout)| layout.shape().elem_count() / n.max(1)).collect();
        let channels = lens.iter().sum::<usize>() / (h * w).max(1);
        by_dtype!(first.dtype(), "concat", T => {
            let parts: Vec<_> = parts.iter().map(|(s, l)| dense::<T>(s, l)).collect::<Result<_>>()?;
            let slices: Vec<&[T]> = parts.iter().map(|part| &**part).collect();
            Ok(storage(join::forward(n, &slices, &lens), (n, channels, h, w)))
        })
    }

    fn backward<const N: usize>(&self, parts: [&Tensor; N], g: &Tensor) -> Result<[Option<Tensor>; N]> {
        let n = g.dim(0)?;
        let mut offset = 0;
        let mut gradients = [const { None }; N];
        for (gradient, part) in gradients.iter_mut().zip(parts) {
            let len = part.elem_count() / n.max(1);
            if part.track_op() {
                *gradient = Some(by_dtype!(g.dtype(), "concat", T => {
                    tensor(join::part::<T>(n, &values(g)?, offset, len), part.shape())?
                }));
            }
            offset += len;
        }
        Ok(gradients)
    }
}

impl CustomOp2 for ConcatOp {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(a, la), (b, lb)])
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.backward([a, b], g)?.into())
    }
}

impl CustomOp3 for ConcatOp {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
        c: &CpuStorage,
        lc: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(&[(a, la), (b, lb), (c, lc)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok(self.backward([a, b, c], g)?.into())
    }
}
