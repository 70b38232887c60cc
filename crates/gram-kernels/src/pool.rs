//! Maxima and means of the pixels under a window, and means of whole images.

use crate::block::{Block, Frame, Plane};
use crate::isa::{Element, Isa, LANES};
use crate::lift::{Activate, ForActivation, Lift, Lifter, with_activation};
use crate::raw::{Source, Target};
use crate::window::{Steps, Window};

/// Calls a function that is generic in the kernel's size and the stride, both 0 for any window.
macro_rules! for_window {
    ($window:expr, $call:ident::<$s:ty>($($argument:expr),*)) => {
        match $window {
            Window { kernel: 2, stride: 2, dilation: 1 } => $call::<$s, 2, 2>($($argument),*),
            Window { kernel: 3, stride: 1, dilation: 1 } => $call::<$s, 3, 1>($($argument),*),
            Window { kernel: 3, stride: 2, dilation: 1 } => $call::<$s, 3, 2>($($argument),*),
            _ => $call::<$s, 0, 0>($($argument),*),
        }
    };
}

/// The largest pixel under each position of `window`, into the block of `out` `[output pixels][stride]` from channel `at` on; not a number
/// where a pixel is none. The frame's border must hold −∞.
///
/// # Panics
/// If a slice is too short.
pub fn max_pool<S: Isa>(
    s: S,
    (frame, x): (Frame, &[S::E]),
    window: Window,
    (out, stride, at): (&mut [S::E], usize, usize),
) {
    #[inline(always)]
    fn pool<S: Isa, const K: usize, const STRIDE: usize>(
        s: S,
        (frame, x): (Frame, &[S::E]),
        (window, plane): (Window, Plane),
        (out, stride, at): (&mut [S::E], usize, usize),
    ) {
        let (pixels, x, out) =
            (Pixels::new(s, (frame, x), window.known::<K, STRIDE>()), Source::new(x), Target::new(out));
        for y in 0..plane.h {
            for i in 0..plane.w {
                // SAFETY: the caller has checked that the frame, and so all windows, and the output's block lie inside.
                unsafe { out.put(s, (y * plane.w + i) * stride + at, pixels.largest(s, x, pixels.steps.at(y, i))) }
            }
        }
    }
    let plane = window.check(frame, x.len());
    Block { data: &*out, stride, at }.check(plane.pixels());
    s.run(
        #[inline(always)]
        || for_window!(window, pool::<S>(s, (frame, x), (window, plane), (out, stride, at))),
    );
}

/// What maxima are taken of.
#[derive(Clone, Copy)]
struct Pixels {
    steps: Steps,
    kernel: usize,
    /// Whether all of them are numbers.
    plain: bool,
}

impl Pixels {
    #[inline(always)]
    fn new<S: Isa>(s: S, (frame, x): (Frame, &[S::E]), window: Window) -> Self {
        let mut odd = s.zero();
        for pixel in x[..frame.len()].as_chunks().0 {
            odd = s.add(odd, oddness(s, s.lanes(pixel)));
        }
        let plain = s.array(odd).iter().all(|odd| !odd.to_f64().is_nan());
        Self { steps: Steps::new(window, frame), kernel: window.kernel, plain }
    }

    /// The largest pixel of the window that begins at element `at`; not a number where one of them is none.
    ///
    /// # Safety
    /// The window must lie inside.
    #[inline(always)]
    unsafe fn largest<S: Isa>(self, s: S, x: Source<'_, S::E>, at: usize) -> S::V {
        let (mut max, mut odd) = (s.splat(S::E::from_f64(f64::NEG_INFINITY)), s.zero());
        for ky in 0..self.kernel {
            for kx in 0..self.kernel {
                // SAFETY: as granted.
                let x = unsafe { x.lanes(s, at + self.steps.to_tap(ky, kx)) };
                max = s.max(x, max);
                if !self.plain {
                    odd = s.add(odd, oddness(s, x));
                }
            }
        }
        // Maxima forget what is no number as soon as a number follows; sums do not.
        if self.plain { max } else { s.select_gt(s.splat(S::E::from_f64(f64::INFINITY)), odd, max, odd) }
    }
}

/// Not a number where `x` is none, −∞ where it is −∞, else zero.
#[inline(always)]
fn oddness<S: Isa>(s: S, x: S::V) -> S::V {
    s.select_gt(x, s.splat(S::E::from_f64(f64::NEG_INFINITY)), s.zero(), x)
}

/// Adds the gradient `g` of [`max_pool`]'s output to `dx`, a frame: each position's goes to the first of its largest pixels, row by row, and
/// where a pixel is not a number to the first pixel.
///
/// # Panics
/// If a slice is too short.
pub fn max_pool_input<S: Isa>(s: S, (frame, x): (Frame, &[S::E]), window: Window, g: Block<'_, S::E>, dx: &mut [S::E]) {
    #[inline(always)]
    fn pool<S: Isa, const K: usize, const STRIDE: usize>(
        s: S,
        (frame, x): (Frame, &[S::E]),
        (window, plane): (Window, Plane),
        g: Block<'_, S::E>,
        dx: &mut [S::E],
    ) {
        let pixels = Pixels::new(s, (frame, x), window.known::<K, STRIDE>());
        let (steps, kernel) = (pixels.steps, pixels.kernel);
        let (x, gs, dx) = (Source::new(x), Source::new(g.data), Target::new(dx));
        for y in 0..plane.h {
            for i in 0..plane.w {
                let at = steps.at(y, i);
                // SAFETY: the caller has checked that the frames, and so all windows, and the gradient's block lie inside.
                unsafe {
                    let max = pixels.largest(s, x, at);
                    let mut left = gs.lanes(s, (y * plane.w + i) * g.stride + g.at);
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let at = at + steps.to_tap(ky, kx);
                            let x = x.lanes(s, at);
                            let here = s.select_gt(max, x, s.zero(), left);
                            left = s.select_gt(max, x, left, s.zero());
                            dx.put(s, at, s.add(dx.lanes(s, at), here));
                        }
                    }
                }
            }
        }
    }
    let plane = window.check(frame, x.len().min(dx.len()));
    g.check(plane.pixels());
    s.run(
        #[inline(always)]
        || for_window!(window, pool::<S>(s, (frame, x), (window, plane), g, dx)),
    );
}

/// Pixels of the image, `n` of them behind a border of `pad`, that a line of the kernel at `position` meets: the border is not counted.
#[inline(always)]
fn inside(window: Window, pad: usize, n: usize, position: usize) -> usize {
    let first = position * window.stride;
    if first >= pad && first + (window.kernel - 1) * window.dilation < pad + n {
        return window.kernel;
    }
    (0..window.kernel).filter(|k| (pad..pad + n).contains(&(first + k * window.dilation))).count()
}

/// One over a number of pixels; zero where there are none.
#[inline(always)]
fn share<S: Isa>(s: S, pixels: usize) -> S::V {
    s.splat(S::E::from_f64(if pixels == 0 { 0.0 } else { 1.0 / pixels as f64 }))
}

/// The mean of the image's pixels under each position of `window`, into the block of `out` `[output pixels][stride]` from channel `at` on.
/// The frame's border, which does not count, must hold zeros.
///
/// # Panics
/// If a slice is too short.
pub fn avg_pool<S: Isa>(
    s: S,
    (frame, x): (Frame, &[S::E]),
    window: Window,
    (out, stride, at): (&mut [S::E], usize, usize),
) {
    #[inline(always)]
    fn pool<S: Isa, const K: usize, const STRIDE: usize>(
        s: S,
        (frame, x): (Frame, &[S::E]),
        (window, plane): (Window, Plane),
        (out, stride, at): (&mut [S::E], usize, usize),
    ) {
        let window = window.known::<K, STRIDE>();
        let (steps, x, out) = (Steps::new(window, frame), Source::new(x), Target::new(out));
        for y in 0..plane.h {
            let rows = inside(window, frame.pad, frame.inner.h, y);
            for i in 0..plane.w {
                let from = steps.at(y, i);
                let mut sum = s.zero();
                for ky in 0..window.kernel {
                    for kx in 0..window.kernel {
                        // SAFETY: the caller has checked that the frame, and so all windows, lie inside.
                        sum = s.add(sum, unsafe { x.lanes(s, from + steps.to_tap(ky, kx)) });
                    }
                }
                let share = share(s, rows * inside(window, frame.pad, frame.inner.w, i));
                // SAFETY: the caller has checked the output's block.
                unsafe { out.put(s, (y * plane.w + i) * stride + at, s.mul(sum, share)) }
            }
        }
    }
    let plane = window.check(frame, x.len());
    Block { data: &*out, stride, at }.check(plane.pixels());
    s.run(
        #[inline(always)]
        || for_window!(window, pool::<S>(s, (frame, x), (window, plane), (out, stride, at))),
    );
}

/// Adds the gradient `g` of [`avg_pool`]'s output to `dx`, a frame, whose border gets a share that means nothing.
///
/// # Panics
/// If a slice is too short.
pub fn avg_pool_input<S: Isa>(s: S, frame: Frame, window: Window, g: Block<'_, S::E>, dx: &mut [S::E]) {
    #[inline(always)]
    fn pool<S: Isa, const K: usize, const STRIDE: usize>(
        s: S,
        frame: Frame,
        (window, plane): (Window, Plane),
        g: Block<'_, S::E>,
        dx: &mut [S::E],
    ) {
        let window = window.known::<K, STRIDE>();
        let (steps, gs, dx) = (Steps::new(window, frame), Source::new(g.data), Target::new(dx));
        for y in 0..plane.h {
            let rows = inside(window, frame.pad, frame.inner.h, y);
            for i in 0..plane.w {
                let to = steps.at(y, i);
                let share = share(s, rows * inside(window, frame.pad, frame.inner.w, i));
                // SAFETY: the caller has checked that the frame, and so all windows, and the gradient's block lie inside.
                unsafe {
                    let share = s.mul(gs.lanes(s, (y * plane.w + i) * g.stride + g.at), share);
                    for ky in 0..window.kernel {
                        for kx in 0..window.kernel {
                            let at = to + steps.to_tap(ky, kx);
                            dx.put(s, at, s.add(dx.lanes(s, at), share));
                        }
                    }
                }
            }
        }
    }
    let plane = window.check(frame, dx.len());
    g.check(plane.pixels());
    s.run(
        #[inline(always)]
        || for_window!(window, pool::<S>(s, frame, (window, plane), g, dx)),
    );
}

/// The mean of a lifted block over all pixels; zeros where there are none.
///
/// # Panics
/// If the block does not lie inside its image.
pub fn global_average<S: Isa>(s: S, (x, lift): (Block<'_, S::E>, &Lift<'_, S::E>), pixels: usize) -> [S::E; LANES] {
    struct Average<'a, S: Isa>(S, Block<'a, S::E>, &'a Lift<'a, S::E>, usize);
    impl<S: Isa> ForActivation<S> for Average<'_, S> {
        type Output = [S::E; LANES];
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) -> Self::Output {
            let Self(s, x, lift, pixels) = self;
            let (lift, source) = (Lifter::new(s, lift, activation), Source::new(x.data));
            let mut sums = [s.zero(); 4];
            let mut p = 0;
            while p < pixels {
                for (i, sum) in sums.iter_mut().enumerate().take(pixels - p) {
                    // SAFETY: pixel p + i is one of `pixels`, all of which lie inside.
                    let value = lift.value(s, unsafe { source.lanes(s, (p + i) * x.stride + x.at) });
                    *sum = s.add(*sum, value);
                }
                p += 4;
            }
            let sum = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
            s.array(s.mul(sum, s.splat(S::E::from_f64(1.0 / pixels.max(1) as f64))))
        }
    }
    x.check(pixels);
    s.run(
        #[inline(always)]
        || with_activation(s, lift.activation, Average(s, x, lift, pixels)),
    )
}

/// Writes the gradient of each pixel to `dx` `[pixels][16]`, or with `add` adds it, given that of their mean.
///
/// # Panics
/// If `dx` is too short.
pub fn global_average_input<S: Isa>(s: S, g: &[S::E; LANES], pixels: usize, (dx, add): (&mut [S::E], bool)) {
    assert!(dx.len() / LANES >= pixels, "invariant: {} elements for {pixels} pixels", dx.len());
    s.run(
        #[inline(always)]
        || {
            let share = s.mul(s.lanes(g), s.splat(S::E::from_f64(1.0 / pixels.max(1) as f64)));
            let dx = Target::new(dx);
            for p in 0..pixels {
                // SAFETY: pixel p is one of `pixels`, for which there is room.
                unsafe { dx.put(s, p * LANES, if add { s.add(dx.lanes(s, p * LANES), share) } else { share }) }
            }
        },
    );
}
