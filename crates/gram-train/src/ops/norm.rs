//! Batch norm, with the activation behind it in the same operator.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};
use gram_ir::{Activation, BATCH_NORM_EPS};

use super::access::{by_dtype, dense, storage, tensor, values};
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

impl BatchMoments {
    fn of(moments: &Moments) -> Self {
        let unbiased = moments.count as f64 / (moments.count as f64 - 1.0).max(1.0);
        Self { mean: moments.mean.clone(), unbiased_var: moments.var.iter().map(|var| var * unbiased).collect() }
    }
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
    let norm = normalise(x, [scale, shift], activation)?;
    let moments = Arc::new(OnceLock::new());
    let y = x.apply_op3(scale, shift, NormOp { norm, moments: Arc::clone(&moments), batch: true })?;
    let moments = BatchMoments::of(moments.get().expect("invariant: the forward pass has set them"));
    Ok((y, moments))
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
    let norm = normalise(x, [scale, shift], activation)?;
    if mean.dims() != scale.dims() || var.dims() != scale.dims() {
        bail!("batch norm: mean {:?} and variance {:?} for scale {:?}", mean.dims(), var.dims(), scale.dims());
    }
    let numbers = |t: &Tensor| -> Result<Vec<f64>> {
        by_dtype!(t.dtype(), "batch norm", T => Ok(values::<T>(t)?.iter().map(|v| v.to_f64()).collect()))
    };
    let moments = Moments { mean: numbers(mean)?, var: numbers(var)?, count: norm.n * norm.pixels };
    x.apply_op3(scale, shift, NormOp { norm, moments: Arc::new(OnceLock::from(moments)), batch: false })
}

fn normalise(x: &Tensor, params: [&Tensor; 2], activation: Option<Activation>) -> Result<Normalise> {
    let (n, channels, h, w) = x.dims4()?;
    if let Some(param) = params.iter().find(|param| param.dims() != [channels]) {
        bail!("batch norm: a parameter of shape {:?} for {channels} channels", param.dims());
    }
    if x.elem_count() == 0 {
        bail!("batch norm: an empty batch");
    }
    Ok(Normalise { n, channels, pixels: h * w, eps: BATCH_NORM_EPS, activation })
}

struct NormOp {
    norm: Normalise,
    /// Set by the forward pass, read by the backward pass.
    moments: Arc<OnceLock<Moments>>,
    /// Whether the moments are those of the batch.
    batch: bool,
}

impl NormOp {
    fn forward<T: Real>(&self, x: &[T], scale: &[T], shift: &[T]) -> Vec<T> {
        let moments = self.moments.get_or_init(|| self.norm.moments(x));
        self.norm.forward(x, moments, scale, shift)
    }

    fn backward<T: Real>(&self, x: &Tensor, scale: &Tensor, shift: &Tensor, g: &Tensor) -> Result<[Tensor; 3]> {
        let moments = self.moments.get().expect("invariant: the forward pass came before");
        let params = (&*values::<T>(scale)?, &*values::<T>(shift)?);
        let (dx, d_scale, d_shift) =
            self.norm.backward(&values::<T>(x)?, &values::<T>(g)?, moments, params, self.batch);
        Ok([tensor(dx, x.shape())?, tensor(d_scale, scale.shape())?, tensor(d_shift, shift.shape())?])
    }
}

impl CustomOp3 for NormOp {
    fn name(&self) -> &'static str {
        "batch norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        scale: &CpuStorage,
        l_scale: &Layout,
        shift: &CpuStorage,
        l_shift: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_dtype!(x.dtype(), "batch norm", T => {
            let y = self.forward::<T>(&dense(x, lx)?, &dense(scale, l_scale)?, &dense(shift, l_shift)?);
            Ok(storage(y, lx.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        by_dtype!(x.dtype(), "batch norm", T => {
            let [dx, d_scale, d_shift] = self.backward::<T>(x, scale, shift, g)?;
            Ok((Some(dx), Some(d_scale), Some(d_shift)))
        })
    }
}
