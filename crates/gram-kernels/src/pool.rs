//! Maxima and means of the pixels under a window, and means of whole images.

use crate::block::{Block, Frame, Plane};
use crate::isa::{Element, Isa, LANES};
use crate::lift::{Activate, ForActivation, Lift, Lifter, with_activation};
use crate::raw::{Source, Target};
use crate::window::{Steps, Window};

/// Calls a function that is generic in the kernel's size, 0 for any.
macro_rules! for_kernel {
    ($kernel:expr, $call:ident::<$s:ty>($($argument:expr),*)) => {
        match $kernel {
            2 => $call::<$s, 2>($($argument),*),
            3 => $call::<$s, 3>($($argument),*),
            _ => $call::<$s, 0>($($argument),*),
        }
    };
}

/// The kernel's size, where the compiler knows it and where not.
#[inline(always)]
const fn size<const K: usize>(window: Window) -> usize {
    if K == 0 { window.kernel } else { K }
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
    fn pool<S: Isa, const K: usize>(
        s: S,
        (steps, x): (Steps, &[S::E]),
        (window, plane): (Window, Plane),
        (out, stride, at): (&mut [S::E], usize, usize),
    ) {
        let (x, out) = (Source::new(x), Target::new(out));
        for y in 0..plane.h {
            for i in 0..plane.w {
                // SAFETY: the caller has checked that the frame, and so all windows, and the output's block lie inside.
                unsafe {
                    out.put(s, (y * plane.w + i) * stride + at, largest::<S, K>(s, x, steps, window, steps.at(y, i)))
                }
            }
        }
    }
    let plane = window.check(frame, x.len());
    Block { data: &*out, stride, at }.check(plane.pixels());
    let steps = Steps::new(window, frame);
    s.run(
        #[inline(always)]
        || for_kernel!(window.kernel, pool::<S>(s, (steps, x), (window, plane), (out, stride, at))),
    );
}

/// The largest pixel of the window that begins at element `at`.
///
/// # Safety
/// The window must lie inside.
#[inline(always)]
unsafe fn largest<S: Isa, const K: usize>(s: S, x: Source<'_, S::E>, steps: Steps, window: Window, at: usize) -> S::V {
    let lowest = s.splat(S::E::from_f64(f64::NEG_INFINITY));
    let highest = s.splat(S::E::from_f64(f64::INFINITY));
    // Maxima forget what is no number as soon as a number follows; `odd` does not.
    let (mut max, mut odd) = (lowest, s.zero());
    for ky in 0..size::<K>(window) {
        for kx in 0..size::<K>(window) {
            // SAFETY: as granted.
            let x = unsafe { x.lanes(s, at + steps.to_tap(ky, kx)) };
            max = s.max(x, max);
            odd = s.add(odd, s.select_gt(x, lowest, s.zero(), x));
        }
    }
    s.select_gt(highest, odd, max, odd)
}

/// Adds the gradient `g` of [`max_pool`]'s output to `dx`, a frame: each position's goes to the first of its largest pixels, row by row, and
/// where a pixel is not a number to the first pixel.
///
/// # Panics
/// If a slice is too short.
pub fn max_pool_input<S: Isa>(s: S, (frame, x): (Frame, &[S::E]), window: Window, g: Block<'_, S::E>, dx: &mut [S::E]) {
    #[inline(always)]
    fn pool<S: Isa, const K: usize>(
        s: S,
        (steps, x): (Steps, &[S::E]),
        (window, plane): (Window, Plane),
        g: Block<'_, S::E>,
        dx: &mut [S::E],
    ) {
        let (x, gs, dx) = (Source::new(x), Source::new(g.data), Target::new(dx));
        for y in 0..plane.h {
            for i in 0..plane.w {
                let at = steps.at(y, i);
                // SAFETY: the caller has checked that the frames, and so all windows, and the gradient's block lie inside.
                unsafe {
                    let max = largest::<S, K>(s, x, steps, window, at);
                    let mut left = gs.lanes(s, (y * plane.w + i) * g.stride + g.at);
                    for ky in 0..size::<K>(window) {
                        for kx in 0..size::<K>(window) {
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
    let steps = Steps::new(window, frame);
    s.run(
        #[inline(always)]
        || for_kernel!(window.kernel, pool::<S>(s, (steps, x), (window, plane), g, dx)),
    );
}

/// One over the number of pixels of the image under position (`y`, `x`): the border is not counted. Zero where there are none.
fn share(frame: Frame, window: Window, (y, x): (usize, usize)) -> f64 {
    let inside = |position: usize, pixels: usize| {
        let taps = (0..window.kernel).map(|k| position * window.stride + k * window.dilation);
        taps.filter(|at| (frame.pad..frame.pad + pixels).contains(at)).count()
    };
    match inside(y, frame.inner.h) * inside(x, frame.inner.w) {
        0 => 0.0,
        n => 1.0 / n as f64,
    }
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
    fn pool<S: Isa, const K: usize>(
        s: S,
        (frame, x): (Frame, &[S::E]),
        (window, plane): (Window, Plane),
        (out, stride, at): (&mut [S::E], usize, usize),
    ) {
        let (steps, x, out) = (Steps::new(window, frame), Source::new(x), Target::new(out));
        for y in 0..plane.h {
            for i in 0..plane.w {
                let from = steps.at(y, i);
                let mut sum = s.zero();
                for ky in 0..size::<K>(window) {
                    for kx in 0..size::<K>(window) {
                        // SAFETY: the caller has checked that the frame, and so all windows, lie inside.
                        sum = s.add(sum, unsafe { x.lanes(s, from + steps.to_tap(ky, kx)) });
                    }
                }
                let share = s.splat(S::E::from_f64(share(frame, window, (y, i))));
                // SAFETY: the caller has checked the output's block.
                unsafe { out.put(s, (y * plane.w + i) * stride + at, s.mul(sum, share)) }
            }
        }
    }
    let plane = window.check(frame, x.len());
    Block { data: &*out, stride, at }.check(plane.pixels());
    s.run(
        #[inline(always)]
        || for_kernel!(window.kernel, pool::<S>(s, (frame, x), (window, plane), (out, stride, at))),
    );
}

/// Adds the gradient `g` of [`avg_pool`]'s output to `dx`, a frame, whose border gets a share that means nothing.
///
/// # Panics
/// If a slice is too short.
pub fn avg_pool_input<S: Isa>(s: S, frame: Frame, window: Window, g: Block<'_, S::E>, dx: &mut [S::E]) {
    #[inline(always)]
    fn pool<S: Isa, const K: usize>(
        s: S,
        frame: Frame,
        (window, plane): (Window, Plane),
        g: Block<'_, S::E>,
        dx: &mut [S::E],
    ) {
        let (steps, gs, dx) = (Steps::new(window, frame), Source::new(g.data), Target::new(dx));
        for y in 0..plane.h {
            for i in 0..plane.w {
                let to = steps.at(y, i);
                let share = s.splat(S::E::from_f64(share(frame, window, (y, i))));
                // SAFETY: the caller has checked that the frame, and so all windows, and the gradient's block lie inside.
                unsafe {
                    let share = s.mul(gs.lanes(s, (y * plane.w + i) * g.stride + g.at), share);
                    for ky in 0..size::<K>(window) {
                        for kx in 0..size::<K>(window) {
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
        || for_kernel!(window.kernel, pool::<S>(s, frame, (window, plane), g, dx)),
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
            for p in 0..pixels {
                // SAFETY: pixel p is one of `pixels`, all of which lie inside.
                let value = lift.value(s, unsafe { source.lanes(s, p * x.stride + x.at) });
                sums[p % 4] = s.add(sums[p % 4], value);
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
