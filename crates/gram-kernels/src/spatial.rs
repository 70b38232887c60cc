//! Depthwise convolutions of one block of channels, any window.
//!
//! For kernels 3 and 5 without dilation, at strides 1 and 2, the compiler knows all distances; other windows go the same ways, but slowly.

use crate::block::{Block, Frame, Plane};
use crate::isa::{Isa, LANES};
use crate::raw::{Source, Target};
use crate::window::{Steps, Window};

/// Pixels whose sums are in registers together, at most.
const WIDEST: usize = 8;

/// Calls a function that is generic in the kernel's size and the stride, both 0 for any window.
macro_rules! for_window {
    ($window:expr, $call:ident::<$s:ty>($($argument:expr),*)) => {
        match $window {
            Window { kernel: 3, stride: 1, dilation: 1 } => $call::<$s, 3, 1>($($argument),*),
            Window { kernel: 3, stride: 2, dilation: 1 } => $call::<$s, 3, 2>($($argument),*),
            Window { kernel: 5, stride: 1, dilation: 1 } if <$s>::WIDE => $call::<$s, 5, 1>($($argument),*),
            Window { kernel: 5, stride: 2, dilation: 1 } if <$s>::WIDE => $call::<$s, 5, 2>($($argument),*),
            _ => $call::<$s, 0, 0>($($argument),*),
        }
    };
}

fn check_weights(window: Window, blocks: usize) {
    assert!(blocks >= window.taps(), "invariant: weights of {blocks} taps for {window:?}");
}

/// The convolution of each channel with its own kernel, into the block of `out` `[output pixels][stride]` from channel `at` on.
///
/// `weights` are `[kernel²][16]`.
///
/// # Panics
/// If a slice is too short.
pub fn depthwise<S: Isa>(
    s: S,
    (frame, x): (Frame, &[S::E]),
    window: Window,
    weights: &[S::E],
    (out, stride, at): (&mut [S::E], usize, usize),
) {
    #[inline(always)]
    fn convolve<S: Isa, const K: usize, const STRIDE: usize>(
        s: S,
        (frame, x): (Frame, &[S::E]),
        (window, plane): (Window, Plane),
        weights: &[S::E],
        (out, stride, at): (&mut [S::E], usize, usize),
    ) {
        let window = window.known::<K, STRIDE>();
        let (x, w, out) = (Source::new(x), Source::new(weights), Target::new(out));
        let steps = Steps::new(window, frame);
        for y in 0..plane.h {
            let mut i = 0;
            let to = |i: usize| (y * plane.w + i) * stride + at;
            // SAFETY: the caller has checked that the frame, and so all windows, the weights and the output's block lie inside.
            unsafe {
                while S::WIDE && i + WIDEST <= plane.w {
                    let sums = tile::<S, WIDEST>(s, (steps, x), w, window.kernel, steps.at(y, i));
                    for (p, sum) in sums.into_iter().enumerate() {
                        out.put(s, to(i + p), sum);
                    }
                    i += WIDEST;
                }
                while i + 4 <= plane.w {
                    let sums = tile::<S, 4>(s, (steps, x), w, window.kernel, steps.at(y, i));
                    for (p, sum) in sums.into_iter().enumerate() {
                        out.put(s, to(i + p), sum);
                    }
                    i += 4;
                }
                if i + 2 <= plane.w {
                    let sums = tile::<S, 2>(s, (steps, x), w, window.kernel, steps.at(y, i));
                    out.put(s, to(i), sums[0]);
                    out.put(s, to(i + 1), sums[1]);
                    i += 2;
                }
                if i < plane.w {
                    let [sum] = tile::<S, 1>(s, (steps, x), w, window.kernel, steps.at(y, i));
                    out.put(s, to(i), sum);
                }
            }
        }
    }
    let plane = window.check(frame, x.len());
    check_weights(window, weights.len() / LANES);
    Block { data: &*out, stride, at }.check(plane.pixels());
    s.run(
        #[inline(always)]
        || for_window!(window, convolve::<S>(s, (frame, x), (window, plane), weights, (out, stride, at))),
    );
}

/// The sums of `P` neighbouring positions, the first of whose windows begins at element `at`.
///
/// # Safety
/// The windows and the weights must lie inside.
#[inline(always)]
unsafe fn tile<S: Isa, const P: usize>(
    s: S,
    (steps, x): (Steps, Source<'_, S::E>),
    weights: Source<'_, S::E>,
    kernel: usize,
    at: usize,
) -> [S::V; P] {
    let mut sums = [s.zero(); P];
    for ky in 0..kernel {
        for kx in 0..kernel {
            // SAFETY: as granted.
            unsafe {
                let weight = weights.lanes(s, (ky * kernel + kx) * LANES);
                for (p, sum) in sums.iter_mut().enumerate() {
                    let x = x.lanes(s, at + steps.to_tap(ky, kx) + p * steps.position.0);
                    *sum = s.fma(x, weight, *sum);
                }
            }
        }
    }
    sums
}

/// Adds the gradient of [`depthwise`]'s weights to `dw` `[kernel²]`, given that of its output, the block `g`.
///
/// # Panics
/// If a slice is too short.
pub fn depthwise_weights<S: Isa>(
    s: S,
    (frame, x): (Frame, &[S::E]),
    window: Window,
    g: Block<'_, S::E>,
    dw: &mut [[S::E; LANES]],
) {
    #[inline(always)]
    fn sums<S: Isa, const K: usize, const STRIDE: usize>(
        s: S,
        (frame, x): (Frame, &[S::E]),
        (window, plane): (Window, Plane),
        g: Block<'_, S::E>,
        dw: &mut [[S::E; LANES]],
    ) {
        let (window, x) = (window.known::<K, STRIDE>(), Source::new(x));
        let (steps, kernel) = (Steps::new(window, frame), window.kernel);
        // SAFETY: the caller has checked that the frame, and so all windows, and the block of gradients lie inside.
        unsafe {
            if K == 3 && S::WIDE {
                return correlate::<S, 3, 3>(s, (steps, x, 0), plane, g, (dw, kernel));
            }
            for ky in 0..kernel {
                let mut kx = 0;
                while kx < kernel {
                    let (from, dw) = (steps.to_tap(ky, kx), &mut dw[ky * kernel + kx..]);
                    match kernel - kx {
                        5.. if S::WIDE => {
                            correlate::<S, 1, 5>(s, (steps, x, from), plane, g, (dw, kernel));
                            kx += 5;
                        }
                        3.. => {
                            correlate::<S, 1, 3>(s, (steps, x, from), plane, g, (dw, kernel));
                            kx += 3;
                        }
                        _ => {
                            correlate::<S, 1, 1>(s, (steps, x, from), plane, g, (dw, kernel));
                            kx += 1;
                        }
                    }
                }
            }
        }
    }
    let plane = window.check(frame, x.len());
    g.check(plane.pixels());
    check_weights(window, dw.len());
    s.run(
        #[inline(always)]
        || for_window!(window, sums::<S>(s, (frame, x), (window, plane), g, dw)),
    );
}

/// `R` rows of `T` neighbouring taps, the first at `from`; two sums each, so that additions need not wait for each other, where few.
///
/// # Safety
/// The windows and the block of gradients must lie inside.
#[inline(always)]
unsafe fn correlate<S: Isa, const R: usize, const T: usize>(
    s: S,
    (steps, x, from): (Steps, Source<'_, S::E>, usize),
    plane: Plane,
    g: Block<'_, S::E>,
    (dw, kernel): (&mut [[S::E; LANES]], usize),
) {
    let gs = Source::new(g.data);
    let mut sums = [[[s.zero(); T]; R]; 2];
    for y in 0..plane.h {
        let (row, start) = (y * plane.w * g.stride + g.at, from + steps.at(y, 0));
        let mut i = 0;
        while i + 2 <= plane.w {
            // SAFETY: as granted.
            unsafe {
                let pair = [gs.lanes(s, row + i * g.stride), gs.lanes(s, row + (i + 1) * g.stride)];
                let start = start + i * steps.position.0;
                for (p, g) in pair.into_iter().enumerate() {
                    let start = start + p * steps.position.0;
                    for (r, sums) in sums[if R * T < 8 { p } else { 0 }].iter_mut().enumerate() {
                        for (t, sum) in sums.iter_mut().enumerate() {
                            *sum = s.fma(x.lanes(s, start + steps.to_tap(r, t)), g, *sum);
                        }
                    }
                }
            }
            i += 2;
        }
        if i < plane.w {
            // SAFETY: as granted.
            unsafe {
                let g = gs.lanes(s, row + i * g.stride);
                for (r, sums) in sums[0].iter_mut().enumerate() {
                    for (t, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(x.lanes(s, start + i * steps.position.0 + steps.to_tap(r, t)), g, *sum);
                    }
                }
            }
        }
    }
    for (r, (even, odd)) in sums[0].iter().zip(&sums[1]).enumerate() {
        for (dw, (&even, &odd)) in dw[r * kernel..].iter_mut().zip(even.iter().zip(odd)) {
            *dw = s.array(s.add(s.lanes(dw), s.add(even, odd)));
        }
    }
}

/// Adds the gradient of [`depthwise`]'s input to the inside of `dx`, a frame, given that of its output, the block `g`.
///
/// # Panics
/// If a slice is too short.
pub fn depthwise_input<S: Isa>(
    s: S,
    frame: Frame,
    window: Window,
    g: Block<'_, S::E>,
    weights: &[S::E],
    dx: &mut [S::E],
) {
    #[inline(always)]
    fn spread<S: Isa, const K: usize, const STRIDE: usize>(
        s: S,
        adjoint: Adjoint,
        g: Block<'_, S::E>,
        weights: &[S::E],
        dx: &mut [S::E],
    ) {
        let (frame, stride) = (adjoint.frame, adjoint.window.known::<K, STRIDE>().stride);
        let (gs, w, dx) = ((Source::new(g.data), g.stride, g.at), Source::new(weights), Target::new(dx));
        for y in frame.pad..frame.pad + frame.inner.h {
            // Columns first + stride · j meet the same taps for all j that are not too near the edges.
            for first in 0..stride.min(frame.w()) {
                // SAFETY: the caller has checked that the frame, the gradients and the weights lie inside.
                unsafe {
                    match first {
                        _ if K == 0 => adjoint.columns(s, (y, first), gs, w, dx),
                        0 => adjoint.known_columns::<S, K, STRIDE>(s, (y, 0), gs, w, dx),
                        _ => adjoint.known_columns::<S, K, STRIDE>(s, (y, 1), gs, w, dx),
                    }
                }
            }
        }
    }
    let plane = window.check(frame, dx.len());
    g.check(plane.pixels());
    check_weights(window, weights.len() / LANES);
    if plane.pixels() == 0 {
        return;
    }
    let adjoint = Adjoint { window, plane, frame };
    s.run(
        #[inline(always)]
        || for_window!(window, spread::<S>(s, adjoint, g, weights, dx)),
    );
}

/// A convolution seen from its input.
#[derive(Clone, Copy)]
struct Adjoint {
    window: Window,
    plane: Plane,
    frame: Frame,
}

impl Adjoint {
    /// First and last `j`, the latter excluded, of columns `first + stride · j` inside the image.
    #[inline(always)]
    const fn inside(self, first: usize, stride: usize) -> (usize, usize) {
        let Frame { inner, pad } = self.frame;
        (pad.saturating_sub(first).div_ceil(stride), (pad + inner.w).saturating_sub(first).div_ceil(stride))
    }

    /// Columns `first + stride · j` of row `y`, any window.
    ///
    /// # Safety
    /// Frame, gradients and weights must lie inside.
    #[inline(always)]
    unsafe fn columns<S: Isa>(
        self,
        s: S,
        (y, first): (usize, usize),
        g: (Source<'_, S::E>, usize, usize),
        w: Source<'_, S::E>,
        dx: Target<'_, S::E>,
    ) {
        const P: usize = 4;
        let Window { kernel, stride, dilation } = self.window;
        let (start, n) = self.inside(first, stride);
        // From `left` on no tap is left of the first position, and up to `right` none is right of the last one.
        let left = ((kernel - 1) * dilation).div_ceil(stride).min(n);
        let right = self.plane.w.clamp(left, n);
        let at = |j: usize| (y * self.frame.w() + first + j * stride) * LANES;
        // SAFETY: as granted; all columns lie inside the frame, and several are only asked for between `left` and `right`.
        unsafe {
            let mut j = start;
            while j < n {
                if j >= left && j + P <= right {
                    let sums = self.tile::<S, P>(s, (y, first, j), g, w);
                    for (p, sum) in sums.into_iter().enumerate() {
                        dx.put(s, at(j + p), s.add(dx.lanes(s, at(j + p)), sum));
                    }
                    j += P;
                } else {
                    let [sum] = self.tile::<S, 1>(s, (y, first, j), g, w);
                    dx.put(s, at(j), s.add(dx.lanes(s, at(j)), sum));
                    j += 1;
                }
            }
        }
    }

    /// The gradients of `P` columns from number `j` on. With more than one, all of their taps in a row must belong to a position.
    ///
    /// # Safety
    /// Gradients and weights must lie inside.
    #[inline(always)]
    unsafe fn tile<S: Isa, const P: usize>(
        self,
        s: S,
        (y, first, j): (usize, usize, usize),
        (g, g_stride, g_at): (Source<'_, S::E>, usize, usize),
        w: Source<'_, S::E>,
    ) -> [S::V; P] {
        let Window { kernel, stride, dilation } = self.window;
        let mut sums = [s.zero(); P];
        for ky in 0..kernel {
            let Some(row) = position(y, ky * dilation, stride).filter(|&row| row < self.plane.h) else { continue };
            for kx in 0..kernel {
                // This tap of position `j - back` is column `j`.
                let Some(back) = position(kx * dilation, first, stride) else { continue };
                if P == 1 && (back > j || j - back >= self.plane.w) {
                    continue;
                }
                // SAFETY: as granted; the positions exist.
                unsafe {
                    let weight = w.lanes(s, (ky * kernel + kx) * LANES);
                    let from = (row * self.plane.w + j - back) * g_stride + g_at;
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(weight, g.lanes(s, from + p * g_stride), *sum);
                    }
                }
            }
        }
        sums
    }

    /// As [`columns`](Self::columns), for windows that the compiler knows.
    ///
    /// # Safety
    /// Frame, gradients and weights must lie inside.
    #[inline(always)]
    unsafe fn known_columns<S: Isa, const K: usize, const STRIDE: usize>(
        self,
        s: S,
        (y, first): (usize, usize),
        g: (Source<'_, S::E>, usize, usize),
        w: Source<'_, S::E>,
        dx: Target<'_, S::E>,
    ) {
        let (mut j, n) = self.inside(first, STRIDE);
        while j < n {
            let left = n - j;
            // SAFETY: as granted; all columns lie inside the frame.
            unsafe {
                if S::WIDE && left > WIDEST / 2 {
                    self.known_tile::<S, K, STRIDE, WIDEST>(s, (y, first, j), left.min(WIDEST), g, w, dx);
                    j += WIDEST;
                } else {
                    self.known_tile::<S, K, STRIDE, 4>(s, (y, first, j), left.min(4), g, w, dx);
                    j += 4;
                }
            }
        }
    }

    /// Adds the gradients of `n` columns, at most `P`, from number `j` on.
    ///
    /// # Safety
    /// Frame, gradients and weights must lie inside, and the columns in the frame.
    #[inline(always)]
    unsafe fn known_tile<S: Isa, const K: usize, const STRIDE: usize, const P: usize>(
        self,
        s: S,
        (y, first, j): (usize, usize, usize),
        n: usize,
        (g, g_stride, g_at): (Source<'_, S::E>, usize, usize),
        w: Source<'_, S::E>,
        dx: Target<'_, S::E>,
    ) {
        let reach = (K - 1) / STRIDE;
        let inside = j >= reach && j + P <= self.plane.w;
        let mut sums = [s.zero(); P];
        for ky in 0..K {
            let Some(row) = position(y, ky, STRIDE).filter(|&row| row < self.plane.h) else { continue };
            // Positions `j - reach` to `j + P - 1`, each of which is part of several sums.
            let mut positions = [s.zero(); 2 * WIDEST];
            let positions = &mut positions[..P + reach];
            // SAFETY: as granted; only positions that exist are read.
            unsafe {
                if inside {
                    let mut from = (row * self.plane.w + j - reach) * g_stride + g_at;
                    for position in positions.iter_mut() {
                        *position = g.lanes(s, from);
                        from += g_stride;
                    }
                } else {
                    for (i, position) in positions.iter_mut().enumerate() {
                        if j + i >= reach && j + i - reach < self.plane.w {
                            *position = g.lanes(s, (row * self.plane.w + j + i - reach) * g_stride + g_at);
                        }
                    }
                }
                for kx in (first..K).step_by(STRIDE) {
                    let weight = w.lanes(s, (ky * K + kx) * LANES);
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(weight, positions[reach - kx / STRIDE + p], *sum);
                    }
                }
            }
        }
        for (p, sum) in sums.into_iter().enumerate().take(n) {
            let at = (y * self.frame.w() + first + (j + p) * STRIDE) * LANES;
            // SAFETY: as granted.
            unsafe { dx.put(s, at, s.add(dx.lanes(s, at), sum)) }
        }
    }
}

/// The position whose tap at `offset` is pixel `at`.
#[inline(always)]
fn position(at: usize, offset: usize, stride: usize) -> Option<usize> {
    let from = at.checked_sub(offset)?;
    if stride == 1 { Some(from) } else { from.is_multiple_of(stride).then(|| from / stride) }
}
