//! Batch norm, with the activation behind it in the same operator.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
use gram_ir::{Activation, BATCH_NORM_EPS};

use super::access::{by_dtype, dense, storage, tensor, values};
use super::operator::{Operator, apply};
use crate::kernels::Real;
use crate::kernels::norm::{Moments, Normalise};

/// Statistics of each channel of one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchMoments {
    /// Mean.
    pub mean: Vec<f64>,
    /// Unbiased variance, as torch keeps it in running statistics; 0 for a single element per channel.
    pub unbiased_var: Vec<f64>,
}

/// `activation((x - mean) / sqrt(var + eps) · scale + shift)` with mean and variance of the batch itself, which come back too.
///
/// # Shapes
/// `x` and the output are `[n, c, h, w]`, `scale` and `shift` `[c]`.
/// # Errors
/// If shapes do not fit, or the tensors are not f32 or f64 of one type on the CPU.
/// # Source
/// Ioffe and Szegedy, [arXiv:1502.03167](https://arxiv.org/abs/1502.03167), algorithm 1; eps is [`BATCH_NORM_EPS`].
pub fn batch_norm(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    activation: Option<Activation>,
) -> Result<(Tensor, BatchMoments)> {
    let op = NormOp::of_batch(x.dims(), activation)?;
    let moments = op.moments_after();
    let y = apply(op, &[x, scale, shift])?;
    Ok((y, moments()))
}

/// [`batch_norm`] with given mean and variance, which get no gradient.
///
/// # Shapes
/// `x` and the output are `[n, c, h, w]`, all others `[c]`.
/// # Errors
/// As [`batch_norm`].
pub fn batch_norm_fixed(
    x: &Tensor,
    [mean, var]: [&Tensor; 2],
    scale: &Tensor,
    shift: &Tensor,
    activation: Option<Activation>,
) -> Result<Tensor> {
    let op = NormOp::fixed(x.dims(), [mean, var], activation)?;
    apply(op, &[x, scale, shift])
}

/// Batch norm of `[x, scale, shift]`.
pub(crate) struct NormOp {
    norm: Normalise,
    /// With batch statistics, set by the forward pass.
    moments: Arc<OnceLock<Moments>>,
    /// Whether the moments are those of the batch.
    batch: bool,
}

impl NormOp {
    /// With the statistics of the batch itself, for inputs of shape `dims`.
    pub(crate) fn of_batch(dims: &[usize], activation: Option<Activation>) -> Result<Self> {
        Ok(Self { norm: normalise(dims, activation)?, moments: Arc::new(OnceLock::new()), batch: true })
    }

    /// With given mean and variance.
    pub(crate) fn fixed(dims: &[usize], [mean, var]: [&Tensor; 2], activation: Option<Activation>) -> Result<Self> {
        let norm = normalise(dims, activation)?;
        if mean.dims() != [norm.channels] || var.dims() != [norm.channels] {
            bail!("batch norm: mean {:?} and variance {:?} for {} channels", mean.dims(), var.dims(), norm.channels);
        }
        let numbers = |t: &Tensor| -> Result<Vec<f64>> {
            by_dtype!(t.dtype(), "batch norm", T => Ok(values::<T>(t)?.iter().map(|v| v.to_f64()).collect()))
        };
        let moments = Moments { mean: numbers(mean)?, var: numbers(var)?, count: norm.n * norm.pixels };
        Ok(Self { norm, moments: Arc::new(OnceLock::from(moments)), batch: false })
    }

    /// Gives the statistics of the batch once the forward pass has run.
    pub(crate) fn moments_after(&self) -> impl FnOnce() -> BatchMoments + use<> {
        let moments = Arc::clone(&self.moments);
        move || {
            let Moments { mean, var, count } = moments.get().expect("invariant: the forward pass has run");
            let unbiased = *count as f64 / (*count as f64 - 1.0).max(1.0);
            BatchMoments { mean: mean.clone(), unbiased_var: var.iter().map(|var| var * unbiased).collect() }
        }
    }

    fn check(&self, params: [&Layout; 2]) -> Result<()> {
        match params.iter().find(|param| param.dims() != [self.norm.channels]) {
            Some(param) => {
                bail!("batch norm: a parameter of shape {:?} for {} channels", param.dims(), self.norm.channels)
            }
            None => Ok(()),
        }
    }

    fn differentiate<T: Real>(&self, inputs: &[&Tensor], g: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let &[x, scale, shift] = inputs else { bail!("batch norm: {} inputs", inputs.len()) };
        let moments = self.moments.get().expect("invariant: the forward pass has run");
        let params = (&*values::<T>(scale)?, &*values::<T>(shift)?);
        let (dx, d_scale, d_shift) =
            self.norm.backward(&values::<T>(x)?, &values::<T>(g)?, moments, params, self.batch);
        let gradients = [tensor(dx, x.shape())?, tensor(d_scale, scale.shape())?, tensor(d_shift, shift.shape())?];
        Ok(gradients.map(Some).into())
    }
}

fn normalise(dims: &[usize], activation: Option<Activation>) -> Result<Normalise> {
    let &[n, channels, h, w] = dims else { bail!("batch norm: an input of shape {dims:?}") };
    if dims.contains(&0) {
        bail!("batch norm: an empty input of shape {dims:?}");
    }
    Ok(Normalise { n, channels, pixels: h * w, eps: BATCH_NORM_EPS, activation })
}

impl Operator for NormOp {
    fn name(&self) -> &'static str {
        "batch norm"
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let &[(x, lx), (scale, l_scale), (shift, l_shift)] = inputs else {
            bail!("batch norm: {} inputs", inputs.len())
        };
        self.check([l_scale, l_shift])?;
        by_dtype!(x.dtype(), "batch norm", T => {
            let x = dense::<T>(x, lx)?;
            let moments = self.moments.get_or_init(|| self.norm.moments(&x));
            let y = self.norm.forward(&x, moments, &dense(scale, l_scale)?, &dense(shift, l_shift)?);
            Ok(storage(y, lx.shape().clone()))
        })
    }

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        by_dtype!(g.dtype(), "batch norm", T => self.differentiate::<T>(inputs, g))
    }
}
