//! Pooling.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use gram_ir::{Op, Pool, Shape as MapShape};

use super::access::{by_dtype, dense, storage, tensor, values};
use crate::kernels::pool::{Windows, global_average, global_average_backward};

/// The maximum of each window; the gradient goes to the first of equal maxima, as in torch.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, h', w']`, `h' = ⌊(h + 2·padding − kernel) / stride⌋ + 1`.
/// # Errors
/// If the window does not fit, or the tensor is not f32 or f64 on the CPU.
pub fn max_pool(x: &Tensor, pool: &Pool) -> Result<Tensor> {
    x.apply_op1(PoolOp { windows: windows(x, Op::MaxPool(*pool), *pool)?, kind: Kind::Max })
}

/// The mean of each window over the pixels inside the image.
///
/// # Shapes
/// As [`max_pool`].
/// # Errors
/// As [`max_pool`].
pub fn avg_pool(x: &Tensor, pool: &Pool) -> Result<Tensor> {
    x.apply_op1(PoolOp { windows: windows(x, Op::AvgPool(*pool), *pool)?, kind: Kind::Average })
}

/// The mean of each plane: `[n, c, h, w]` to `[n, c, 1, 1]`.
///
/// # Errors
/// If planes are empty, or the tensor is not f32 or f64 on the CPU.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    Op::GlobalAvgPool.output_shape(&[MapShape::chw(c, h, w)]).map_err(candle_core::Error::wrap)?;
    x.apply_op1(GlobalOp { n, c, pixels: h * w })
}

fn windows(x: &Tensor, op: Op, pool: Pool) -> Result<Windows> {
    let (n, channels, h, w) = x.dims4()?;
    let output = op.output_shape(&[MapShape::chw(channels, h, w)]).map_err(candle_core::Error::wrap)?;
    Ok(Windows { pool, n, channels, h, w, h_out: output.h, w_out: output.w })
}

#[derive(Clone, Copy)]
enum Kind {
    Max,
    Average,
}

struct PoolOp {
    windows: Windows,
    kind: Kind,
}

impl CustomOp1 for PoolOp {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Max => "max pool",
            Kind::Average => "average pool",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let Windows { n, channels, h_out, w_out, .. } = self.windows;
        by_dtype!(x.dtype(), self.name(), T => {
            let x = dense::<T>(x, lx)?;
            let y = match self.kind {
                Kind::Max => self.windows.max(&x),
                Kind::Average => self.windows.average(&x),
            };
            Ok(storage(y, (n, channels, h_out, w_out)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), self.name(), T => {
            let dx = {
                let (x, g) = (values::<T>(x)?, values::<T>(g)?);
                match self.kind {
                    Kind::Max => self.windows.max_backward(&x, &g),
                    Kind::Average => self.windows.average_backward(&x, &g),
                }
            };
            Ok(Some(tensor(dx, x.shape())?))
        })
    }
}

struct GlobalOp {
    n: usize,
    c: usize,
    pixels: usize,
}

impl CustomOp1 for GlobalOp {
    fn name(&self) -> &'static str {
        "global average pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), self.name(), T => {
            Ok(storage(global_average::<T>(self.pixels, &dense(x, lx)?), (self.n, self.c, 1, 1)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(x.dtype(), self.name(), T => {
            Ok(Some(tensor(global_average_backward::<T>(self.pixels, &values(g)?), x.shape())?))
        })
    }
}
