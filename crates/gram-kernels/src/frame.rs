//! Blocks out of a map into scratch memory, lifted on the way.

use std::ops::Range;

use crate::block::{Block, Frame};
use crate::isa::{Element, Isa, LANES};
use crate::lift::{Activate, ForActivation, Lift, Lifter, with_activation};
use crate::raw::{Source, Target};

/// Fills `frame` with the lifted block, and its border with `border`.
///
/// # Panics
/// If the block is smaller than the frame's image, or `out` smaller than the frame.
pub fn fill_frame<S: Isa>(
    s: S,
    x: Block<'_, S::E>,
    lift: &Lift<'_, S::E>,
    frame: Frame,
    border: S::E,
    out: &mut [S::E],
) {
    fill_rows(s, (x, lift), (frame, border), 0..frame.h(), out);
}

/// As [`fill_frame`], but only the given rows of the frame: what is read soon behind it is still in the first-level cache then.
///
/// # Panics
/// As [`fill_frame`], and if there are not so many rows.
pub fn fill_rows<S: Isa>(
    s: S,
    (x, lift): (Block<'_, S::E>, &Lift<'_, S::E>),
    (frame, border): (Frame, S::E),
    rows: Range<usize>,
    out: &mut [S::E],
) {
    struct Fill<'a, S: Isa>(S, Block<'a, S::E>, &'a Lift<'a, S::E>, (Frame, S::E), Range<usize>, &'a mut [S::E]);
    impl<S: Isa> ForActivation<S> for Fill<'_, S> {
        type Output = ();
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) {
            let Self(s, x, lift, frame, rows, out) = self;
            fill(s, x, Lifter::new(s, lift, activation), frame, rows, out);
        }
    }
    s.run(
        #[inline(always)]
        || with_activation(s, lift.activation, Fill(s, x, lift, (frame, border), rows, out)),
    );
}

/// Elements that are asked for ahead: one page of f32, because hardware prefetching stops at its end.
const AHEAD: usize = 1024;

#[inline(always)]
fn fill<S: Isa, A: Activate<S>>(
    s: S,
    x: Block<'_, S::E>,
    lift: Lifter<S, A>,
    (frame, border): (Frame, S::E),
    rows: Range<usize>,
    out: &mut [S::E],
) {
    x.check(frame.inner.pixels());
    assert!(out.len() >= frame.len(), "invariant: a frame of {} elements in {}", frame.len(), out.len());
    assert!(rows.end <= frame.h(), "invariant: row {} of {}", rows.end, frame.h());
    let (source, target) = (Source::new(x.data), Target::new(out));
    let (pad, row) = (frame.pad, frame.w() * LANES);
    let edge = s.splat(border);
    let blank = |from: usize, n: usize| {
        for i in 0..n {
            // SAFETY: callers name whole pixels inside the frame, whose length was checked.
            unsafe { target.put(s, from + i * LANES, edge) }
        }
    };
    for frame_row in rows {
        let start = frame_row * row;
        let Some(y) = frame_row.checked_sub(pad).filter(|&y| y < frame.inner.h) else {
            blank(start, frame.w());
            continue;
        };
        blank(start, pad);
        let (from, to) = (y * frame.inner.w * x.stride + x.at, start + pad * LANES);
        for i in 0..frame.inner.w {
            source.prefetch(s, from + i * x.stride + AHEAD);
            // SAFETY: pixel (y, i) lies inside the block and inside the frame; both were checked.
            unsafe { target.put(s, to + i * LANES, lift.value(s, source.lanes(s, from + i * x.stride))) }
        }
        blank(to + frame.inner.w * LANES, pad);
    }
}

/// Adds the inside of `frame` to the block `out`, or with `store` replaces the block by it.
///
/// # Panics
/// If the block is smaller than the frame's image, or `data` smaller than the frame.
pub fn add_frame<S: Isa>(s: S, frame: Frame, data: &[S::E], store: bool, out: &mut [S::E], stride: usize, at: usize) {
    Block { data: &*out, stride, at }.check(frame.inner.pixels());
    assert!(data.len() >= frame.len(), "invariant: a frame of {} elements in {}", frame.len(), data.len());
    s.run(
        #[inline(always)]
        || {
            let (source, target) = (Source::new(data), Target::new(out));
            for y in 0..frame.inner.h {
                let from = frame.origin() + y * frame.w() * LANES;
                let to = y * frame.inner.w * stride + at;
                for i in 0..frame.inner.w {
                    // SAFETY: pixel (y, i) lies inside the frame and inside the block; both were checked.
                    unsafe {
                        let v = source.lanes(s, from + i * LANES);
                        let to = to + i * stride;
                        target.put(s, to, if store { v } else { s.add(v, target.lanes(s, to)) });
                    }
                }
            }
        },
    );
}

/// `[n, c, h, w]` of one image to `[pixels][stride]`; channels behind the last one are zeros.
///
/// # Panics
/// If `image` is not of `channels` planes of `pixels`, or `out` not of `pixels` times `stride`.
pub fn to_pixels<E: Element>(image: &[E], channels: usize, pixels: usize, stride: usize, out: &mut [E]) {
    assert!(image.len() == channels * pixels && out.len() == pixels * stride && stride >= channels);
    out.fill(E::default());
    for (c, plane) in image.chunks_exact(pixels.max(1)).enumerate() {
        for (value, pixel) in plane.iter().zip(out.chunks_exact_mut(stride)) {
            pixel[c] = *value;
        }
    }
}
