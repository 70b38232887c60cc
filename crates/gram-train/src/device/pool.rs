//! Pooling over windows.
//!
//! candle's own pools know no padding, and the gradient of its `max_pool2d` is too small by the size of the window.

use candle_core::{Result, Tensor};
use gram_ir::Pool;

use super::sums::sum;
use super::tape::{Back, Saved};
use super::windows::Windows;

/// Which tap won each window.
pub(super) struct SavedMax {
    windows: Windows,
    /// Number of the first tap with the maximum, as a number of the map's type: `[c, n, h', w']`.
    winner: Tensor,
}

/// The maximum of each window of `[c, n, h, w]`; its gradient goes to the first of equals, row by row, as in torch.
pub(super) fn max_pool(x: &Tensor, pool: &Pool) -> Result<(Tensor, SavedMax)> {
    let (_, _, h, w) = x.dims4()?;
    let windows = Windows::of_pool(pool, [h, w])?;
    let taps = windows.read(x, f64::NEG_INFINITY)?;
    let mut best = taps.get([0, 0])?.contiguous()?;
    let mut winner = best.zeros_like()?;
    for (number, tap) in windows.taps().enumerate().skip(1) {
        let candidate = taps.get(tap)?;
        let better = candidate.gt(&best)?;
        best = better.where_cond(&candidate, &best)?;
        // winner + better · (number - winner)
        winner = (&winner + (winner.affine(-1.0, number as f64)? * better.to_dtype(x.dtype())?)?)?;
    }
    Ok((best, SavedMax { windows, winner }))
}

impl Saved for SavedMax {
    fn backward(&self, g: &Tensor, _: bool) -> Result<Back> {
        let (readers, winners) = (self.windows.readers(g)?, self.windows.readers(&self.winner)?);
        let terms = self.windows.taps().enumerate().map(|(number, tap)| {
            // 1 where the two numbers are equal. Pixels that nobody reads by this tap have a gradient of 0 whatever stands there.
            let won = winners.get(tap)?.affine(1.0, -(number as f64))?.abs()?.sign()?.affine(-1.0, 1.0)?;
            readers.get(tap)? * won
        });
        Ok(Back::of_input(sum(terms)?))
    }
}

/// How the windows of an average lie.
pub(super) struct SavedAverage {
    windows: Windows,
    /// One over the number of pixels of each window that lie in the image, `[1, 1, h', w']`.
    share: Tensor,
}

/// The mean of each window of `[c, n, h, w]` over its pixels inside the image.
pub(super) fn avg_pool(x: &Tensor, pool: &Pool) -> Result<(Tensor, SavedAverage)> {
    let (_, _, h, w) = x.dims4()?;
    let windows = Windows::of_pool(pool, [h, w])?;
    let [h_out, w_out] = windows.output();
    let shares: Vec<f64> = (0..h_out)
        .flat_map(|row| (0..w_out).map(move |column| [(row, h), (column, w)]))
        .map(|axes| 1.0 / axes.map(|(at, size)| inside(pool, at, size)).into_iter().product::<usize>() as f64)
        .collect();
    let share = Tensor::from_vec(shares, (1, 1, h_out, w_out), &candle_core::Device::Cpu)?;
    let share = share.to_dtype(x.dtype())?.to_device(x.device())?;
    let taps = windows.read(x, 0.0)?;
    let sums = sum(windows.taps().map(|tap| taps.get(tap)))?;
    Ok((sums.broadcast_mul(&share)?, SavedAverage { windows, share }))
}

/// Pixels of window number `at` that lie in an axis of `size` pixels; at least 1, since the padding is at most half a window.
fn inside(pool: &Pool, at: usize, size: usize) -> usize {
    let start = (at * pool.stride).saturating_sub(pool.padding);
    let end = (at * pool.stride + pool.kernel - pool.padding).min(size);
    end - start
}

impl Saved for SavedAverage {
    fn backward(&self, g: &Tensor, _: bool) -> Result<Back> {
        let readers = self.windows.readers(&g.broadcast_mul(&self.share)?)?;
        Ok(Back::of_input(sum(self.windows.taps().map(|tap| readers.get(tap)))?))
    }
}
