//! Sums of tensors, and over channels of one.

use candle_core::{Result, Tensor};

/// Sums over each channel of `[c, n, h, w]`: first over the pixels of an image, then over images, which keeps rounding errors small.
pub(super) fn channel_sums(x: &Tensor) -> Result<Tensor> {
    let (c, n, h, w) = x.dims4()?;
    x.reshape((c, n, h * w))?.sum(2)?.sum(1)
}

/// The sum of one or more tensors, in order.
pub(super) fn sum(terms: impl IntoIterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let total = terms.into_iter().reduce(|total, term| total? + term?);
    total.unwrap_or_else(|| Err(candle_core::Error::msg("invariant: a sum has terms")))
}
