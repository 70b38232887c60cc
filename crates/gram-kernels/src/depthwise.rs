//! The inner loop of stride-1 "same" depthwise convolutions.

use std::ops::Range;

use crate::block::Frame;
use crate::isa::{Isa, LANES};
use crate::raw::Source;
use crate::sep::sep_tiles;

/// Calls `emit` with each output pixel of rows `rows`, as an index into the image and its 16 sums.
///
/// The weights are `[k·k][16]`; with `flip` they are taken the other way round, which turns the convolution into its adjoint.
/// Pixels come in row order. Emissions of four pixels in a row go by one call of `emit4`.
///
/// # Safety
/// `frame.pad` must be `K / 2`, `data` must hold the frame, `weights` `K·K` blocks, and `rows` must end inside the image.
#[inline(always)]
pub(crate) unsafe fn convolve<S: Isa, const K: usize>(
    s: S,
    frame: Frame,
    data: Source<'_, S::E>,
    weights: Source<'_, S::E>,
    flip: bool,
    rows: Range<usize>,
    mut emit: impl FnMut(usize, S::V),
) {
    let w = frame.inner.w;
    for y in rows {
        let row = y * frame.w() * LANES;
        let mut x = 0;
        while x + 4 <= w {
            // SAFETY: the window of pixels x..x+4 ends at column x + 4 + 2·pad and row y + 2·pad of the frame.
            let sums = unsafe { window::<S, K, 4>(s, frame, data, weights, flip, row + x * LANES) };
            for (i, sum) in sums.into_iter().enumerate() {
                emit(y * w + x + i, sum);
            }
            x += 4;
        }
        while x < w {
            // SAFETY: as above, for one pixel.
            let [sum] = unsafe { window::<S, K, 1>(s, frame, data, weights, flip, row + x * LANES) };
            emit(y * w + x, sum);
            x += 1;
        }
    }
}

/// The sums of `P` neighbouring pixels whose window begins at element `at`.
///
/// # Safety
/// As [`convolve`]; the windows must lie inside the frame.
#[inline(always)]
pub(crate) unsafe fn window<S: Isa, const K: usize, const P: usize>(
    s: S,
    frame: Frame,
    data: Source<'_, S::E>,
    weights: Source<'_, S::E>,
    flip: bool,
    at: usize,
) -> [S::V; P] {
    let mut sums = [s.zero(); P];
    for ky in 0..K {
        for kx in 0..K {
            let tap = if flip { K * K - 1 - (ky * K + kx) } else { ky * K + kx };
            // SAFETY: the caller grants K·K weights and windows inside the frame.
            let weight = unsafe { weights.lanes(s, tap * LANES) };
            for (p, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let x = unsafe { data.lanes(s, at + (ky * frame.w() + kx + p) * LANES) };
                *sum = s.fma(x, weight, *sum);
            }
        }
    }
    sums
}

/// The gradients of a depthwise convolution out of that of its output, `g`: calls `emit` with the input's gradient at each pixel, and adds
/// that of the weights to `sums` `[K·K][16]`.
///
/// Both read the same window of `g`: `dx[q] = Σ_t w[t] · g[q - t]` and `dw[t] = Σ_q x[q] · g[q - t]`.
///
/// # Safety
/// `frame.pad` must be `K / 2`, `x` and `g` must hold the frame, `weights` `K·K` blocks.
#[inline(always)]
pub(crate) unsafe fn differentiate<S: Isa, const K: usize>(
    s: S,
    frame: Frame,
    (x, g): (Source<'_, S::E>, Source<'_, S::E>),
    weights: Source<'_, S::E>,
    sums: &mut [[S::E; LANES]],
    mut emit: impl FnMut(usize, S::V),
) {
    for rows in sep_tiles(0..frame.inner.h, frame.inner.w) {
        if K == 3 && S::WIDE {
            // SAFETY: as granted to this function.
            unsafe { differentiate_3x3(s, frame, (x, g), weights, rows, sums, &mut emit) }
        } else {
            // SAFETY: as granted to this function.
            unsafe {
                convolve::<S, K>(s, frame, g, weights, true, rows.clone(), &mut emit);
                (0..K).for_each(|ky| correlate::<S, K>(s, frame, (x, g), (ky, rows.clone()), sums));
            }
        }
    }
}

/// Nine weights and nine sums stay in registers.
#[inline(always)]
unsafe fn differentiate_3x3<S: Isa>(
    s: S,
    frame: Frame,
    (x, g): (Source<'_, S::E>, Source<'_, S::E>),
    weights: Source<'_, S::E>,
    rows: Range<usize>,
    sums: &mut [[S::E; LANES]],
    emit: &mut impl FnMut(usize, S::V),
) {
    let (w, row) = (frame.inner.w, frame.w() * LANES);
    let mut taps = [s.zero(); 9];
    let mut flipped = [s.zero(); 9];
    for (t, weight) in flipped.iter_mut().enumerate() {
        // SAFETY: nine weights are granted.
        *weight = unsafe { weights.lanes(s, (8 - t) * LANES) };
    }
    for y in rows {
        let (from, at) = (y * row, frame.origin() + y * row);
        let mut i = 0;
        while i + 2 <= w {
            // SAFETY: windows of pixels of the image lie inside the frame.
            unsafe {
                let (x0, x1) = (x.lanes(s, at + i * LANES), x.lanes(s, at + (i + 1) * LANES));
                let (mut d0, mut d1) = (s.zero(), s.zero());
                for ky in 0..3 {
                    let from = from + ky * row + i * LANES;
                    let (a, b) = (g.lanes(s, from), g.lanes(s, from + LANES));
                    let (c, d) = (g.lanes(s, from + 2 * LANES), g.lanes(s, from + 3 * LANES));
                    for (kx, (left, right)) in [(a, b), (b, c), (c, d)].into_iter().enumerate() {
                        let t = ky * 3 + kx;
                        d0 = s.fma(left, flipped[t], d0);
                        d1 = s.fma(right, flipped[t], d1);
                        taps[8 - t] = s.fma(x0, left, taps[8 - t]);
                        taps[8 - t] = s.fma(x1, right, taps[8 - t]);
                    }
                }
                emit(y * w + i, d0);
                emit(y * w + i + 1, d1);
            }
            i += 2;
        }
        if i < w {
            // SAFETY: as above.
            unsafe {
                let x0 = x.lanes(s, at + i * LANES);
                let mut d0 = s.zero();
                for t in 0..9 {
                    let g = g.lanes(s, from + (t / 3) * row + (i + t % 3) * LANES);
                    d0 = s.fma(g, flipped[t], d0);
                    taps[8 - t] = s.fma(x0, g, taps[8 - t]);
                }
                emit(y * w + i, d0);
            }
        }
    }
    for (sum, tap) in sums.iter_mut().zip(taps) {
        *sum = s.array(s.add(s.lanes(sum), tap));
    }
}

/// The weights' gradients of taps that `g` meets in row `ky` of its windows.
#[inline(always)]
unsafe fn correlate<S: Isa, const K: usize>(
    s: S,
    frame: Frame,
    (x, g): (Source<'_, S::E>, Source<'_, S::E>),
    (ky, rows): (usize, Range<usize>),
    sums: &mut [[S::E; LANES]],
) {
    let (w, row) = (frame.inner.w, frame.w() * LANES);
    let tap_of = |kx: usize| K * K - 1 - (ky * K + kx);
    let mut taps = [s.zero(); K];
    for y in rows {
        let (from, at) = ((y + ky) * row, frame.origin() + y * row);
        for i in 0..w {
            // SAFETY: windows of pixels of the image lie inside the frame.
            unsafe {
                let x = x.lanes(s, at + i * LANES);
                for (kx, tap) in taps.iter_mut().enumerate() {
                    *tap = s.fma(x, g.lanes(s, from + (i + kx) * LANES), *tap);
                }
            }
        }
    }
    for (kx, tap) in taps.into_iter().enumerate() {
        let sum = &mut sums[tap_of(kx)];
        *sum = s.array(s.add(s.lanes(sum), tap));
    }
}
