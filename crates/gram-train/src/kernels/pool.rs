//! Pooling over windows and over whole planes.

use gram_ir::Pool;
use rayon::prelude::*;

use super::{LANES, Real, images_per_chunk, sum_lanes, vectorised};

/// What is pooled: `planes` planes of `h`x`w`, to `h_out`x`w_out`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) pool: Pool,
    pub(crate) n: usize,
    pub(crate) channels: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) h_out: usize,
    pub(crate) w_out: usize,
}

/// Rows and columns of the input under one window, clipped to the image; never empty.
#[derive(Clone, Copy)]
struct Window {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

impl Windows {
    fn input_plane(&self) -> usize {
        self.h * self.w
    }

    fn output_plane(&self) -> usize {
        self.h_out * self.w_out
    }

    /// Calls `f(output pixel, window)` for every window of a plane.
    #[inline(always)]
    fn for_each(&self, mut f: impl FnMut(usize, Window)) {
        let Pool { kernel, stride, padding } = self.pool;
        let span = |at: usize, size: usize| {
            let end = at * stride + kernel - padding;
            ((at * stride).saturating_sub(padding), end.min(size))
        };
        for row in 0..self.h_out {
            let (top, bottom) = span(row, self.h);
            for column in 0..self.w_out {
                let (left, right) = span(column, self.w);
                f(row * self.w_out + column, Window { top, bottom, left, right });
            }
        }
    }

    /// The output of a pool that makes one number of a window.
    fn forward<T: Real>(&self, x: &[T], pool: impl Fn(&[T], Window) -> T + Sync) -> Vec<T> {
        let chunk = images_per_chunk(self.n) * self.channels;
        let mut y = vec![T::zero(); self.n * self.channels * self.output_plane()];
        y.par_chunks_mut(chunk * self.output_plane()).zip(x.par_chunks(chunk * self.input_plane())).for_each(
            |(y, x)| {
                for (y, x) in y.chunks_exact_mut(self.output_plane()).zip(x.chunks_exact(self.input_plane())) {
                    self.for_each(|pixel, window| y[pixel] = pool(x, window));
                }
            },
        );
        y
    }

    /// The input's gradient, where `spread(x, dx, window, g)` adds the share of one window.
    fn backward<T: Real>(&self, x: &[T], g: &[T], spread: impl Fn(&[T], &mut [T], Window, T) + Sync) -> Vec<T> {
        let chunk = images_per_chunk(self.n) * self.channels;
        let (input_len, output_len) = (chunk * self.input_plane(), chunk * self.output_plane());
        let mut dx = vec![T::zero(); x.len()];
        dx.par_chunks_mut(input_len).zip(x.par_chunks(input_len)).zip(g.par_chunks(output_len)).for_each(
            |((dx, x), g)| {
                let planes = dx.chunks_exact_mut(self.input_plane()).zip(x.chunks_exact(self.input_plane()));
                for ((dx, x), g) in planes.zip(g.chunks_exact(self.output_plane())) {
                    self.for_each(|pixel, window| spread(x, dx, window, g[pixel]));
                }
            },
        );
        dx
    }

    /// Where the maximum of a window is: the first one of equals, as in torch; the first NaN, if there is one.
    #[inline(always)]
    fn argmax<T: Real>(&self, x: &[T], window: Window) -> usize {
        let mut best = window.top * self.w + window.left;
        for row in window.top..window.bottom {
            for at in row * self.w + window.left..row * self.w + window.right {
                // The second half is true for NaN only.
                #[allow(clippy::eq_op)]
                if x[at] > x[best] || (x[at] != x[at] && x[best] == x[best]) {
                    best = at;
                }
            }
        }
        best
    }

    /// The maximum of each window.
    pub(crate) fn max<T: Real>(&self, x: &[T]) -> Vec<T> {
        self.forward(x, |x, window| x[self.argmax(x, window)])
    }

    /// Gradient of [`Self::max`]: each window's goes to its first maximum.
    pub(crate) fn max_backward<T: Real>(&self, x: &[T], g: &[T]) -> Vec<T> {
        self.backward(x, g, |x, dx, window, g| dx[self.argmax(x, window)] += g)
    }

    /// The mean of each window over the pixels inside the image.
    pub(crate) fn average<T: Real>(&self, x: &[T]) -> Vec<T> {
        self.forward(x, |x, window| {
            let mut sum = T::zero();
            for row in window.top..window.bottom {
                for &value in &x[row * self.w + window.left..row * self.w + window.right] {
                    sum += value;
                }
            }
            sum * window.share::<T>()
        })
    }

    /// Gradient of [`Self::average`].
    pub(crate) fn average_backward<T: Real>(&self, x: &[T], g: &[T]) -> Vec<T> {
        self.backward(x, g, |_, dx, window, g| {
            let share = g * window.share::<T>();
            for row in window.top..window.bottom {
                for value in &mut dx[row * self.w + window.left..row * self.w + window.right] {
                    *value += share;
                }
            }
        })
    }
}

impl Window {
    /// One over the number of pixels.
    #[inline(always)]
    fn share<T: Real>(self) -> T {
        T::one() / T::from_f64(((self.bottom - self.top) * (self.right - self.left)) as f64)
    }
}

/// The mean of every plane of `pixels` elements.
pub(crate) fn global_average<T: Real>(pixels: usize, x: &[T]) -> Vec<T> {
    let share = T::from_f64(1.0 / pixels as f64);
    x.chunks_exact(pixels).map(|plane| vectorised(PlaneSum { plane }) * share).collect()
}

/// Gradient of [`global_average`].
pub(crate) fn global_average_backward<T: Real>(pixels: usize, g: &[T]) -> Vec<T> {
    let share = T::from_f64(1.0 / pixels as f64);
    g.iter().flat_map(|&g| std::iter::repeat_n(g * share, pixels)).collect()
}

struct PlaneSum<'a, T> {
    plane: &'a [T],
}

impl<T: Real> pulp::NullaryFnOnce for PlaneSum<'_, T> {
    type Output = T;

    #[inline(always)]
    fn call(self) -> T {
        let mut lanes = [T::zero(); LANES];
        for values in self.plane.chunks(LANES) {
            lanes.iter_mut().zip(values).for_each(|(lane, &value)| *lane += value);
        }
        sum_lanes(lanes)
    }
}
