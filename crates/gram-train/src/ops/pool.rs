//! Pooling.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};
use gram_ir::{Op, Pool, Shape as MapShape};

use super::access::{by_dtype, dense, storage, tensor, values};
use super::operator::{Operator, apply};
use crate::kernels::pool::{Windows, global_average, global_average_backward};

/// The maximum of each window; the gradient goes to the first of equal maxima, as in torch.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, h', w']`, `h' = ⌊(h + 2·padding − kernel) / stride⌋ + 1`.
/// # Errors
/// If the window does not fit, or the tensor is not f32 or f64 on the CPU.
pub fn max_pool(x: &Tensor, pool: &Pool) -> Result<Tensor> {
    apply(PoolOp::max(x.dims(), *pool)?, &[x])
}

/// The mean of each window over the pixels inside the image.
///
/// # Shapes
/// As [`max_pool`].
/// # Errors
/// As [`max_pool`].
pub fn avg_pool(x: &Tensor, pool: &Pool) -> Result<Tensor> {
    apply(PoolOp::average(x.dims(), *pool)?, &[x])
}

/// The mean of each plane: `[n, c, h, w]` to `[n, c, 1, 1]`.
///
/// # Errors
/// If planes are empty, or the tensor is not f32 or f64 on the CPU.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    apply(GlobalOp::new(x.dims())?, &[x])
}

#[derive(Clone, Copy)]
enum Kind {
    Max,
    Average,
}

/// Pooling over windows.
pub(crate) struct PoolOp {
    windows: Windows,
    kind: Kind,
}

impl PoolOp {
    /// Maxima of inputs of shape `dims`.
    pub(crate) fn max(dims: &[usize], pool: Pool) -> Result<Self> {
        Ok(Self { windows: windows(dims, Op::MaxPool(pool), pool)?, kind: Kind::Max })
    }

    /// Means of inputs of shape `dims`.
    pub(crate) fn average(dims: &[usize], pool: Pool) -> Result<Self> {
        Ok(Self { windows: windows(dims, Op::AvgPool(pool), pool)?, kind: Kind::Average })
    }
}

fn windows(dims: &[usize], op: Op, pool: Pool) -> Result<Windows> {
    let &[n, channels, h, w] = dims else { bail!("{}: an input of shape {dims:?}", op.kind()) };
    let output = op.output_shape(&[MapShape::chw(channels, h, w)]).map_err(candle_core::Error::wrap)?;
    Ok(Windows { pool, n, channels, h, w, h_out: output.h, w_out: output.w })
}

impl Operator for PoolOp {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Max => "max pool",
            Kind::Average => "average pool",
        }
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let &[(x, lx)] = inputs else { bail!("{}: {} inputs", self.name(), inputs.len()) };
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

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let &[x] = inputs else { bail!("{}: {} inputs", self.name(), inputs.len()) };
        by_dtype!(g.dtype(), self.name(), T => {
            let (data, g) = (values::<T>(x)?, values::<T>(g)?);
            let dx = match self.kind {
                Kind::Max => self.windows.max_backward(&data, &g),
                Kind::Average => self.windows.average_backward(&data, &g),
            };
            Ok(vec![Some(tensor(dx, x.shape())?)])
        })
    }
}

/// Pooling over whole planes.
pub(crate) struct GlobalOp {
    n: usize,
    c: usize,
    pixels: usize,
}

impl GlobalOp {
    /// For inputs of shape `dims`.
    pub(crate) fn new(dims: &[usize]) -> Result<Self> {
        let &[n, c, h, w] = dims else { bail!("global average pool: an input of shape {dims:?}") };
        Op::GlobalAvgPool.output_shape(&[MapShape::chw(c, h, w)]).map_err(candle_core::Error::wrap)?;
        if h * w == 0 {
            bail!("global average pool: empty planes of shape {dims:?}");
        }
        Ok(Self { n, c, pixels: h * w })
    }
}

impl Operator for GlobalOp {
    fn name(&self) -> &'static str {
        "global average pool"
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let &[(x, lx)] = inputs else { bail!("{}: {} inputs", self.name(), inputs.len()) };
        by_dtype!(x.dtype(), self.name(), T => {
            Ok(storage(global_average::<T>(self.pixels, &dense(x, lx)?), (self.n, self.c, 1, 1)))
        })
    }

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let &[x] = inputs else { bail!("{}: {} inputs", self.name(), inputs.len()) };
        by_dtype!(g.dtype(), self.name(), T => {
            Ok(vec![Some(tensor(global_average_backward::<T>(self.pixels, &values(g)?), x.shape())?)])
        })
    }
}
