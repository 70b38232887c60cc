//! Batch norm.

use candle_core::{Result, Tensor};
use gram_ir::BATCH_NORM_EPS;

use super::sums::channel_sums;
use super::tape::{Back, Saved};

/// Statistics of a batch, `[c]` each.
pub(super) struct Moments {
    pub(super) mean: Tensor,
    /// 0 for a single element per channel.
    pub(super) unbiased_var: Tensor,
}

/// What the gradient of a batch norm needs.
pub(super) struct SavedNorm {
    /// `x - mean`.
    centred: Tensor,
    /// `1 / sqrt(var + eps)`.
    rstd: Tensor,
    scale: Tensor,
}

/// `(x - mean) / sqrt(var + eps) · scale + shift` with mean and variance of the batch itself.
///
/// The variance is that of the deviations from the mean, so nothing cancels where the mean is large.
///
/// # Shapes
/// `x` and the output are `[c, n, h, w]`, all others `[c]`.
pub(super) fn batch_norm(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<(Tensor, SavedNorm, Moments)> {
    let count = count(x)?;
    let mean = (channel_sums(x)? / count)?;
    let centred = x.broadcast_sub(&per_channel(&mean)?)?;
    let var = (channel_sums(&centred.sqr()?)? / count)?;
    let rstd = (&var + BATCH_NORM_EPS)?.sqrt()?.recip()?;
    let y = scaled(&centred, &rstd, scale, shift)?;
    let moments = Moments { mean, unbiased_var: (var * (count / (count - 1.0).max(1.0)))? };
    Ok((y, SavedNorm { centred, rstd, scale: scale.clone() }, moments))
}

/// The same with given mean and variance.
pub(super) fn batch_norm_fixed(
    x: &Tensor,
    [mean, var]: [&Tensor; 2],
    scale: &Tensor,
    shift: &Tensor,
) -> Result<Tensor> {
    let rstd = (var + BATCH_NORM_EPS)?.sqrt()?.recip()?;
    scaled(&x.broadcast_sub(&per_channel(mean)?)?, &rstd, scale, shift)
}

fn scaled(centred: &Tensor, rstd: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    centred.broadcast_mul(&per_channel(&(rstd * scale)?)?)?.broadcast_add(&per_channel(shift)?)
}

impl Saved for SavedNorm {
    /// With `s = Σ g` and `t = Σ g · (x - mean)` over `m` elements of a channel, the input's gradient is
    /// `scale · rstd · (g - s / m - (x - mean) · rstd² · t / m)`; scale gets `t · rstd`, shift `s`.
    fn backward(&self, g: &Tensor, wanted: bool) -> Result<Back> {
        let count = count(g)?;
        let shift = channel_sums(g)?;
        let scale = (channel_sums(&(g * &self.centred)?)? * &self.rstd)?;
        let x = if wanted {
            let slope = ((&scale * &self.rstd)? / count)?;
            let along = self.centred.broadcast_mul(&per_channel(&slope)?)?;
            let rest = (g.broadcast_sub(&per_channel(&(&shift / count)?)?)? - along)?;
            Some(rest.broadcast_mul(&per_channel(&(&self.rstd * &self.scale)?)?)?)
        } else {
            None
        };
        Ok(Back { inputs: vec![x], params: vec![scale, shift] })
    }
}

/// Elements of each channel of `[c, n, h, w]`.
fn count(x: &Tensor) -> Result<f64> {
    Ok((x.elem_count() / x.dim(0)?) as f64)
}

fn per_channel(x: &Tensor) -> Result<Tensor> {
    x.reshape(((), 1, 1, 1))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// Mean 1000, standard deviation 0.01: the difference of the mean square and the squared mean would be all rounding error.
    #[test]
    fn nothing_cancels_where_the_mean_is_large() {
        let noise = gram_ir::Tensor::arbitrary(&[2, 64, 8, 8], 1);
        let pixels: Vec<f32> = noise.data().iter().map(|x| (1000.0 + 0.01 * x) as f32).collect();
        let x = Tensor::from_vec(pixels, (2, 64, 8, 8), &Device::Cpu).unwrap();
        let of = |dtype| {
            let (scale, shift) = (Tensor::ones(2, dtype, &Device::Cpu), Tensor::zeros(2, dtype, &Device::Cpu));
            let (y, _, moments) = batch_norm(&x.to_dtype(dtype).unwrap(), &scale.unwrap(), &shift.unwrap()).unwrap();
            let numbers = |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
            (numbers(&y), numbers(&moments.unbiased_var))
        };
        let ((y, var), (exact_y, exact_var)) = (of(DType::F32), of(DType::F64));
        for (var, exact) in var.iter().zip(&exact_var) {
            assert!((var / exact - 1.0).abs() < 1e-3, "{var} instead of {exact}");
        }
        for (y, exact) in y.iter().zip(&exact_y) {
            assert!((y - exact).abs() < 0.02, "{y} instead of {exact}");
        }
    }
}
