//! The training loss.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};

use super::access::{by_dtype, dense, storage, tensor, values};
use super::operator::{Operator, apply};
use crate::Targets;

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
    apply(LossOp::new(logits.dims(), labels.to_vec(), smoothing)?, &[logits])
}

/// Cross-entropy of scores with given labels.
pub(crate) struct LossOp {
    labels: Vec<u32>,
    smoothing: f64,
}

impl LossOp {
    /// For scores of shape `dims`.
    pub(crate) fn new(dims: &[usize], labels: Vec<u32>, smoothing: f64) -> Result<Self> {
        let &[n, classes] = dims else { bail!("cross-entropy: scores of shape {dims:?}") };
        if n == 0 || n != labels.len() {
            bail!("cross-entropy: {} labels for {n} images", labels.len());
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            bail!("cross-entropy: label {label} for {classes} classes");
        }
        if !(0.0..1.0).contains(&smoothing) {
            bail!("cross-entropy: smoothing {smoothing} is not in 0..1");
        }
        Ok(Self { labels, smoothing })
    }

    fn targets(&self) -> Targets<'_> {
        Targets::of(&self.labels, self.smoothing)
    }
}

impl Operator for LossOp {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn forward(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let &[(logits, layout)] = inputs else { bail!("cross-entropy: {} inputs", inputs.len()) };
        by_dtype!(logits.dtype(), "cross-entropy", T => {
            let mean = self.targets().mean::<T>(&dense(logits, layout)?);
            Ok(storage(vec![mean as T], ()))
        })
    }

    fn backward(&self, inputs: &[&Tensor], g: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let &[logits] = inputs else { bail!("cross-entropy: {} inputs", inputs.len()) };
        by_dtype!(g.dtype(), "cross-entropy", T => {
            let g = g.to_scalar::<T>()?.to_f64();
            Ok(vec![Some(tensor(self.targets().backward::<T>(&values(logits)?, g), logits.shape())?)])
        })
    }
}
