//! Depthwise convolutions of one block of channels, any window.

use crate::block::{Block, Frame, Plane};
use crate::isa::{Isa, LANES};
use crate::raw::{Source, Target};
use crate::window::{Steps, Window};

/// Pixels whose sums are in registers together.
const PIXELS: usize = 8;

/// Calls a function that is generic in the kernel's size, 0 for any.
macro_rules! for_kernel {
    ($kernel:expr, $call:ident::<$s:ty>($($argument:expr),*)) => {
        match $kernel {
            3 => $call::<$s, 3>($($argument),*),
            5 => $call::<$s, 5>($($argument),*),
            _ => $call::<$s, 0>($($argument),*),
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
    fn convolve<S: Isa, const K: usize>(
        s: S,
        (steps, x): (Steps, &[S::E]),
        (kernel, plane): (usize, Plane),
        weights: &[S::E],
        (out, stride, at): (&mut [S::E], usize, usize),
    ) {
        let kernel = if K == 0 { kernel } else { K };
        let (x, w, out) = (Source::new(x), Source::new(weights), Target::new(out));
        for y in 0..plane.h {
            let mut i = 0;
            let to = |i: usize| (y * plane.w + i) * stride + at;
            // SAFETY: the caller has checked that the frame, and so all windows, the weights and the output's block lie inside.
            unsafe {
                while i + PIXELS <= plane.w {
                    let sums = tile::<S, PIXELS>(s, (steps, x), w, kernel, steps.at(y, i));
                    for (p, sum) in sums.into_iter().enumerate() {
                        out.put(s, to(i + p), sum);
                    }
                    i += PIXELS;
                }
                while i < plane.w {
                    let [sum] = tile::<S, 1>(s, (steps, x), w, kernel, steps.at(y, i));
                    out.put(s, to(i), sum);
                    i += 1;
                }
            }
        }
    }
    let plane = window.check(frame, x.len());
    check_weights(window, weights.len() / LANES);
    Block { data: &*out, stride, at }.check(plane.pixels());
    let steps = Steps::new(window, frame);
    s.run(
        #[inline(always)]
        || for_kernel!(window.kernel, convolve::<S>(s, (steps, x), (window.kernel, plane), weights, (out, stride, at))),
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
    let plane = window.check(frame, x.len());
    g.check(plane.pixels());
    check_weights(window, dw.len());
    let steps = Steps::new(window, frame);
    s.run(
        #[inline(always)]
        || {
            let (x, kernel) = (Source::new(x), window.kernel);
            for ky in 0..kernel {
                let mut kx = 0;
                // SAFETY: checked above.
                unsafe {
                    while kx + 3 <= kernel {
                        correlate::<S, 3>(s, (steps, x, steps.to_tap(ky, kx)), plane, g, &mut dw[ky * kernel + kx..]);
                        kx += 3;
                    }
                    while kx < kernel {
                        correlate::<S, 1>(s, (steps, x, steps.to_tap(ky, kx)), plane, g, &mut dw[ky * kernel + kx..]);
                        kx += 1;
                    }
                }
            }
        },
    );
}

/// `T` neighbouring taps, the first at `from`, with three sums each so that additions need not wait for each other.
///
/// # Safety
/// The windows and the block of gradients must lie inside.
#[inline(always)]
unsafe fn correlate<S: Isa, const T: usize>(
    s: S,
    (steps, x, from): (Steps, Source<'_, S::E>, usize),
    plane: Plane,
    g: Block<'_, S::E>,
    dw: &mut [[S::E; LANES]],
) {
    const CHAINS: usize = 3;
    let gs = Source::new(g.data);
    let mut sums = [[s.zero(); T]; CHAINS];
    for y in 0..plane.h {
        let one = |i: usize, sums: &mut [S::V; T]| {
            // SAFETY: as granted.
            unsafe {
                let g = gs.lanes(s, (y * plane.w + i) * g.stride + g.at);
                for (t, sum) in sums.iter_mut().enumerate() {
                    let x = x.lanes(s, from + steps.at(y, i) + t * steps.tap.0);
                    *sum = s.fma(x, g, *sum);
                }
            }
        };
        let mut i = 0;
        while i + CHAINS <= plane.w {
            for (chain, sums) in sums.iter_mut().enumerate() {
                one(i + chain, sums);
            }
            i += CHAINS;
        }
        for (chain, sums) in sums.iter_mut().enumerate().take(plane.w - i) {
            one(i + chain, sums);
        }
    }
    for (t, dw) in dw.iter_mut().take(T).enumerate() {
        let sum = sums.iter().fold(s.lanes(dw), |total, sums| s.add(total, sums[t]));
        *dw = s.array(sum);
    }
}

/// Adds the gradient of [`depthwise`]'s input to `dx`, a frame, given that of its output, the block `g`.
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
    let plane = window.check(frame, dx.len());
    g.check(plane.pixels());
    check_weights(window, weights.len() / LANES);
    if plane.pixels() == 0 {
        return;
    }
    let adjoint = Adjoint { window, plane, frame };
    s.run(
        #[inline(always)]
        || {
            let (gs, w, dx) = ((Source::new(g.data), g.stride, g.at), Source::new(weights), Target::new(dx));
            // Columns x + stride · j meet the same taps for all j that are not too near the edges.
            for y in 0..frame.h() {
                for first in 0..window.stride.min(frame.w()) {
                    // SAFETY: checked above.
                    unsafe { adjoint.columns(s, (y, first), gs, w, dx) }
                }
            }
        },
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
    /// Columns `first + stride · j` of row `y`.
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
        let Window { kernel, stride, dilation } = self.window;
        let n = (self.frame.w() - first).div_ceil(stride);
        // Positions of taps right of the first one by less than this reach beyond the left edge for smaller j.
        let left = ((kernel - 1) * dilation).div_ceil(stride).min(n);
        let right = self.plane.w.clamp(left, n);
        let at = |j: usize| (y * self.frame.w() + first + j * stride) * LANES;
        // SAFETY: as granted; all columns lie inside the frame, and `tile` takes care of what no position covers.
        unsafe {
            let mut j = 0;
            while j < n {
                let inside = j >= left && j + PIXELS <= right;
                if inside {
                    let sums = self.tile::<S, PIXELS>(s, (y, first, j), g, w);
                    for (p, sum) in sums.into_iter().enumerate() {
                        dx.put(s, at(j + p), s.add(dx.lanes(s, at(j + p)), sum));
                    }
                    j += PIXELS;
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
            let Some(row) = position(y, ky * dilation, stride) else { continue };
            if row >= self.plane.h {
                continue;
            }
            for kx in 0..kernel {
                let Some(column) = position(first + j * stride, kx * dilation, stride) else { continue };
                if column + P > self.plane.w {
                    continue;
                }
                // SAFETY: as granted; the positions exist.
                unsafe {
                    let weight = w.lanes(s, (ky * kernel + kx) * LANES);
                    let from = (row * self.plane.w + column) * g_stride + g_at;
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(weight, g.lanes(s, from + p * g_stride), *sum);
                    }
                }
            }
        }
        sums
    }
}

/// The position whose tap at `offset` is pixel `at`.
#[inline(always)]
fn position(at: usize, offset: usize, stride: usize) -> Option<usize> {
    let from = at.checked_sub(offset)?;
    if stride == 1 { Some(from) } else { from.is_multiple_of(stride).then(|| from / stride) }
}
