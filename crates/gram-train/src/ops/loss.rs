//! The training loss.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};

use super::access::{by_dtype, dense, storage, tensor, values};
use crate::kernels::loss::CrossEntropy;

/// Softmax cross-entropy with label smoothing, the mean over the batch; a scalar.
///
/// The target of an image is `1 - smoothing + smoothing / classes` for its label and `smoothing / classes` for every other class.
///
/// # Shapes
/// `logits` are `[n, classes]`; there are `n` labels.
/// # Errors
/// If there are no images, a label is not below `classes`, `smoothing` is not in `0..1`, or the tensor is not f32 or f64 on the CPU.
/// # Source
/// Szegedy et al., [arXiv:1512.00567](https://arxiv.org/abs/1512.00567), section 7.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], smoothing: f64) -> Result<Tensor> {
    let (n, classes) = logits.dims2()?;
    if n == 0 || n != labels.len() {
        bail!("cross-entropy: {} labels for {n} images", labels.len());
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        bail!("cross-entropy: label {label} for {classes} classes");
    }
    if !(0.0..1.0).contains(&smoothing) {
        bail!("cross-entropy: smoothing {smoothing} is not in 0..1");
    }
    logits.apply_op1(LossOp(CrossEntropy { labels: labels.to_vec(), smoothing }))
}

struct LossOp(CrossEntropy);

impl CustomOp1 for LossOp {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(logits.dtype(), "cross-entropy", T => {
            let mean = self.0.mean::<T>(&dense(logits, layout)?);
            Ok(storage(vec![mean as T], ()))
        })
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(logits.dtype(), "cross-entropy", T => {
            let g = g.to_scalar::<T>()?.to_f64();
            Ok(Some(tensor(self.0.backward::<T>(&values(logits)?, g), logits.shape())?))
        })
    }
}
