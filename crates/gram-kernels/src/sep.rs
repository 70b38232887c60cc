//! Separable convolutions: one block of the depthwise part, with norm and activation, and its share of the 1x1 part.
//!
//! The depthwise output is never stored: each pass computes it again from a frame of its input.

use std::ops::Range;

use crate::ahead::Ahead;
use crate::block::Frame;
use crate::depthwise::{convolve, differentiate, window};
use crate::gemm::{Rows, product, transposed};
use crate::isa::{Element, Isa, LANES};
use crate::lift::{Activate, ForActivation, Lift, Lifter, with_activation};
use crate::norm::{Coefficients, GradientSums, ShiftedSums};
use crate::pointwise::{TransposedWeights, Weights};
use crate::raw::{Source, Target};

/// Pixels that are handled together, in whole rows.
const TILE: usize = crate::norm::RUN;

/// Scratch elements that the functions of this module need for images of `w` columns.
pub const fn sep_scratch(w: usize) -> usize {
    2 * LANES * if w > TILE { w } else { TILE }
}

/// A block of a depthwise convolution: lifted input in a frame with `pad = kernel / 2`, weights `[kernel²][16]`; stride 1.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a, E> {
    /// Size of the input and its border.
    pub frame: Frame,
    /// The input.
    pub x: &'a [E],
    /// Height and width of the kernel: 3, 5 or 7.
    pub kernel: usize,
    /// The weights.
    pub weights: &'a [E],
    /// What will be read next.
    pub ahead: Ahead<'a, E>,
}

impl<E> Depthwise<'_, E> {
    /// Whether there is code for a kernel of that size.
    pub const fn is_supported(kernel: usize) -> bool {
        matches!(kernel, 3 | 5 | 7)
    }

    fn check(&self) {
        assert!(
            Self::is_supported(self.kernel)
                && self.frame.pad == self.kernel / 2
                && self.x.len() >= self.frame.len()
                && self.weights.len() >= self.kernel * self.kernel * LANES,
            "invariant: frame, kernel and weights of a depthwise block fit"
        );
    }
}

/// The rows of an image in parts of about 128 pixels: what the functions of this module handle together.
pub fn sep_tiles(rows: Range<usize>, w: usize) -> impl Iterator<Item = Range<usize>> {
    let per_tile = (TILE / w.max(1)).max(1);
    let end = rows.end;
    rows.step_by(per_tile).map(move |y| y..(y + per_tile).min(end))
}

/// Calls a function that is generic in the kernel's size.
macro_rules! for_kernel {
    ($kernel:expr, $call:ident::<$($t:ty),+>($($argument:expr),*)) => {
        match $kernel {
            3 => $call::<$($t),+, 3>($($argument),*),
            5 => $call::<$($t),+, 5>($($argument),*),
            _ => $call::<$($t),+, 7>($($argument),*),
        }
    };
}

/// The depthwise output in the middle of the image: a good shift for [`sep_moments`].
///
/// # Panics
/// If a slice is too short.
pub fn sep_centre<S: Isa>(s: S, dw: Depthwise<'_, S::E>) -> [S::E; LANES] {
    dw.check();
    let at = (dw.frame.inner.h / 2 * dw.frame.w() + dw.frame.inner.w / 2) * LANES;
    s.run(
        #[inline(always)]
        || {
            let (x, w) = (Source::new(dw.x), Source::new(dw.weights));
            // SAFETY: checked above; the window of a pixel of the image lies inside the frame.
            let [sum] = unsafe {
                match dw.kernel {
                    3 => window::<S, 3, 1>(s, dw.frame, x, w, false, at),
                    5 => window::<S, 5, 1>(s, dw.frame, x, w, false, at),
                    _ => window::<S, 7, 1>(s, dw.frame, x, w, false, at),
                }
            };
            s.array(sum)
        },
    )
}

/// Adds one image's depthwise output to `sums`.
///
/// # Panics
/// If a slice is too short.
pub fn sep_moments<S: Isa>(s: S, dw: Depthwise<'_, S::E>, sums: &mut ShiftedSums<S::E>) {
    #[inline(always)]
    fn moments<S: Isa, const K: usize>(s: S, dw: Depthwise<'_, S::E>, shift: &[S::E; LANES]) -> [[S::E; LANES]; 2] {
        let shift = s.lanes(shift);
        let (mut sum, mut squares) = (s.zero(), s.zero());
        let (x, w) = (Source::new(dw.x), Source::new(dw.weights));
        for rows in sep_tiles(0..dw.frame.inner.h, dw.frame.inner.w) {
            let (mut run, mut run_squares) = (s.zero(), s.zero());
            // SAFETY: checked by the caller.
            unsafe {
                convolve::<S, K>(
                    s,
                    dw.frame,
                    x,
                    w,
                    false,
                    rows,
                    #[inline(always)]
                    |_, d| {
                        let d = s.sub(d, shift);
                        run = s.add(run, d);
                        run_squares = s.fma(d, d, run_squares);
                    },
                );
            }
            (sum, squares) = (s.add(sum, run), s.add(squares, run_squares));
        }
        [s.array(sum), s.array(squares)]
    }
    dw.check();
    let shift = sums.shift;
    let [sum, squares] = s.run(
        #[inline(always)]
        || for_kernel!(dw.kernel, moments::<S>(s, dw, &shift)),
    );
    sums.add(sum, squares);
}

/// The part that one block has in rows `rows` of the output `z` `[pixels][width]`: replaces it, or with `add` is added to it. Of the frame only
/// the rows that this needs are read: `rows.start..rows.end + kernel - 1`.
///
/// # Panics
/// If a slice is too short, or there are not so many rows.
pub fn sep<S: Isa>(
    s: S,
    (dw, rows): (Depthwise<'_, S::E>, Range<usize>),
    lift: &Lift<'_, S::E>,
    weights: Weights<'_, S::E>,
    scratch: &mut [S::E],
    (z, add): (&mut [S::E], bool),
) {
    struct Forward<'a, S: Isa>(
        S,
        (Depthwise<'a, S::E>, Range<usize>),
        &'a Lift<'a, S::E>,
        Weights<'a, S::E>,
        &'a mut [S::E],
        (&'a mut [S::E], bool),
    );
    impl<S: Isa> ForActivation<S> for Forward<'_, S> {
        type Output = ();
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) {
            let Self(s, dw, lift, weights, scratch, z) = self;
            let lift = Lifter::new(s, lift, activation);
            for_kernel!(dw.0.kernel, forward::<S, A>(s, dw, lift, weights, scratch, z));
        }
    }
    #[inline(always)]
    fn forward<S: Isa, A: Activate<S>, const K: usize>(
        s: S,
        (dw, rows): (Depthwise<'_, S::E>, Range<usize>),
        lift: Lifter<S, A>,
        weights: Weights<'_, S::E>,
        scratch: &mut [S::E],
        (z, add): (&mut [S::E], bool),
    ) {
        let ahead = dw.ahead.asker();
        let (x, w, w1, width) = (Source::new(dw.x), Source::new(dw.weights), Source::new(weights.data), weights.width);
        for rows in sep_tiles(rows, dw.frame.inner.w) {
            let (first, n) = (rows.start * dw.frame.inner.w, rows.len() * dw.frame.inner.w);
            let tile = Target::new(&mut *scratch);
            // SAFETY: checked by the caller; a tile has n pixels.
            unsafe {
                convolve::<S, K>(
                    s,
                    dw.frame,
                    x,
                    w,
                    false,
                    rows,
                    #[inline(always)]
                    |p, d| {
                        ahead.ask(s, p - first);
                        tile.put(s, (p - first) * LANES, lift.value(s, d));
                    },
                );
                let (tile, out) = (Source::new(&*scratch), Target::new(&mut *z));
                let out_rows = Rows::new(first * width, width);
                let sizes = (n, weights.depth, width);
                product(s, (tile, Rows::new(0, LANES)), (w1, Rows::new(0, width)), (out, out_rows), sizes, add);
            }
        }
    }
    dw.check();
    weights.check();
    let pixels = dw.frame.inner.pixels();
    assert!(rows.end <= dw.frame.inner.h, "invariant: row {} of {}", rows.end, dw.frame.inner.h);
    assert!(
        z.len() >= pixels * weights.width && scratch.len() >= sep_scratch(dw.frame.inner.w),
        "invariant: full length"
    );
    s.run(
        #[inline(always)]
        || with_activation(s, lift.activation, Forward(s, (dw, rows), lift, weights, scratch, (z, add))),
    );
}

/// What both backward passes of one block of one image read.
#[derive(Clone, Copy, Debug)]
pub struct SepGradient<'a, E> {
    /// The depthwise part and its input.
    pub dw: Depthwise<'a, E>,
    /// Norm and activation behind it.
    pub lift: Lift<'a, E>,
    /// Gradient of the 1x1 part's output, `[pixels][width]`.
    pub g: &'a [E],
    /// Its channels, padding included.
    pub width: usize,
    /// Weights of the 1x1 part.
    pub weights: TransposedWeights<'a, E>,
}

impl<E: Element> SepGradient<'_, E> {
    fn check(&self, scratch: &[E]) {
        self.dw.check();
        self.weights.check();
        let (w, pixels) = (self.dw.frame.inner.w, self.dw.frame.inner.pixels());
        let fits = self.g.len() >= pixels * self.width && self.weights.n_out <= self.width;
        assert!(fits && scratch.len() >= sep_scratch(w), "invariant: slices of full length");
    }

    /// The gradient of the 1x1 part's input for `n` pixels from `first` on, `[n][16]`.
    ///
    /// # Safety
    /// After [`check`](Self::check); `out` must hold `n` pixels, and they must lie in the image.
    #[inline(always)]
    unsafe fn input<S: Isa<E = E>>(&self, s: S, (first, n): (usize, usize), out: Target<'_, E>) {
        let (g, w) = (Source::new(self.g), Source::new(self.weights.data));
        let (g_rows, rows) = (Rows::new(first * self.width, self.width), Rows::new(0, LANES));
        // SAFETY: as granted.
        unsafe { product(s, (g, g_rows), (w, rows), (out, rows), (n, self.weights.n_out, LANES), false) }
    }
}

/// First backward pass, for rows `rows`: adds the gradient of the block's 1x1 weights to `dw` `[depth][width]` and the sums for the norm's
/// gradient to `sums`. Of the frame as many rows are read as by [`sep`].
///
/// # Panics
/// If a slice is too short, or there are not so many rows.
pub fn sep_weights<S: Isa>(
    s: S,
    (gradient, rows): (SepGradient<'_, S::E>, Range<usize>),
    depth: usize,
    scratch: &mut [S::E],
    dw: &mut [S::E],
    sums: &mut GradientSums<S::E>,
) {
    struct Backward<'a, S: Isa>(
        S,
        (SepGradient<'a, S::E>, Range<usize>),
        usize,
        &'a mut [S::E],
        &'a mut [S::E],
        [S::E; LANES],
    );
    impl<S: Isa> ForActivation<S> for Backward<'_, S> {
        type Output = [[S::E; LANES]; 2];
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) -> Self::Output {
            let Self(s, gradient, depth, scratch, dw, mean) = self;
            let lift = Lifter::new(s, &gradient.0.lift, activation);
            for_kernel!(gradient.0.dw.kernel, backward::<S, A>(s, gradient, lift, depth, scratch, dw, &mean))
        }
    }
    #[inline(always)]
    fn backward<S: Isa, A: Activate<S>, const K: usize>(
        s: S,
        (gradient, rows): (SepGradient<'_, S::E>, Range<usize>),
        lift: Lifter<S, A>,
        depth: usize,
        scratch: &mut [S::E],
        dw: &mut [S::E],
        mean: &[S::E; LANES],
    ) -> [[S::E; LANES]; 2] {
        let SepGradient { dw: block, g, width, .. } = gradient;
        let (x, w, g) = (Source::new(block.x), Source::new(block.weights), Source::new(g));
        let ahead = block.ahead.asker();
        let (values, gradients) = scratch.split_at_mut(scratch.len() / 2);
        let mean = s.lanes(mean);
        let (mut sum, mut centred) = (s.zero(), s.zero());
        for rows in sep_tiles(rows, block.frame.inner.w) {
            let (first, n) = (rows.start * block.frame.inner.w, rows.len() * block.frame.inner.w);
            // SAFETY: checked by the caller; a tile has n pixels.
            unsafe {
                gradient.input(s, (first, n), Target::new(&mut *gradients));
                let (tile, da) = (Target::new(&mut *values), Source::new(&*gradients));
                convolve::<S, K>(
                    s,
                    block.frame,
                    x,
                    w,
                    false,
                    rows,
                    #[inline(always)]
                    |p, d| {
                        let at = (p - first) * LANES;
                        ahead.ask(s, p - first);
                        let y = lift.affine(s, d);
                        tile.put(s, at, lift.activation.value(s, y));
                        let m = lift.activation.gradient(s, y, da.lanes(s, at));
                        sum = s.add(sum, m);
                        centred = s.fma(m, s.sub(d, mean), centred);
                    },
                );
                let (tile, out) = (Source::new(&*values), Target::new(&mut *dw));
                let g_rows = Rows::new(first * width, width);
                transposed(s, (tile, Rows::new(0, LANES)), (g, g_rows), (out, Rows::new(0, width)), (n, depth, width));
            }
        }
        [s.array(sum), s.array(centred)]
    }
    gradient.check(scratch);
    assert!(rows.end <= gradient.dw.frame.inner.h, "invariant: row {} of {}", rows.end, gradient.dw.frame.inner.h);
    Weights { data: &*dw, depth, width: gradient.width }.check();
    let mean = sums.mean;
    let [g, centred] = s.run(
        #[inline(always)]
        || with_activation(s, gradient.lift.activation, Backward(s, (gradient, rows), depth, scratch, dw, mean)),
    );
    sums.add(g, centred);
}

/// Second backward pass: the block's part in the gradient of its input, `dx` `[pixels][16]`, which it replaces or with `add` is added to;
/// adds the gradient of the depthwise weights to `dw` `[kernel²]`. `g_frame` is scratch of the frame's size.
///
/// # Panics
/// If a slice is too short.
pub fn sep_input<S: Isa>(
    s: S,
    gradient: SepGradient<'_, S::E>,
    norm: Coefficients<'_, S::E>,
    (scratch, g_frame): (&mut [S::E], &mut [S::E]),
    dw: &mut [[S::E; LANES]],
    (dx, add): (&mut [S::E], bool),
) {
    struct Backward<'a, S: Isa>(
        S,
        SepGradient<'a, S::E>,
        Coefficients<'a, S::E>,
        (&'a mut [S::E], &'a mut [S::E]),
        &'a mut [[S::E; LANES]],
        (&'a mut [S::E], bool),
    );
    impl<S: Isa> ForActivation<S> for Backward<'_, S> {
        type Output = ();
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) {
            let Self(s, gradient, norm, scratch, dw, dx) = self;
            let lift = Lifter::new(s, &gradient.lift, activation);
            for_kernel!(gradient.dw.kernel, backward::<S, A>(s, gradient, lift, norm, scratch, dw, dx));
        }
    }
    #[inline(always)]
    fn backward<S: Isa, A: Activate<S>, const K: usize>(
        s: S,
        gradient: SepGradient<'_, S::E>,
        lift: Lifter<S, A>,
        norm: Coefficients<'_, S::E>,
        (scratch, g_frame): (&mut [S::E], &mut [S::E]),
        dw: &mut [[S::E; LANES]],
        (dx, add): (&mut [S::E], bool),
    ) {
        let block = gradient.dw;
        let (frame, plane) = (block.frame, block.frame.inner);
        let (x, w) = (Source::new(block.x), Source::new(block.weights));
        let [a, b, c] = [norm.a, norm.b, norm.c].map(|lanes| s.lanes(lanes));
        clear_border(s, frame, g_frame);
        for rows in sep_tiles(0..plane.h, plane.w) {
            let (first, n) = (rows.start * plane.w, rows.len() * plane.w);
            // The next product reads the gradients of the next tile, the last one's is that of the next call.
            let rest = Ahead { first: first + n, ..Ahead::all(gradient.g, gradient.width) };
            let ahead = if rows.end < plane.h { rest } else { block.ahead }.asker();
            // SAFETY: checked by the caller; a tile has n pixels.
            unsafe {
                gradient.input(s, (first, n), Target::new(&mut *scratch));
                let (da, target) = (Source::new(&*scratch), Target::new(&mut *g_frame));
                for y in rows {
                    let (row, to) = (y * plane.w, frame.origin() + y * frame.w() * LANES);
                    convolve::<S, K>(
                        s,
                        frame,
                        x,
                        w,
                        false,
                        y..y + 1,
                        #[inline(always)]
                        |p, d| {
                            ahead.ask_all(s, p - first);
                            let m = lift.gradient(s, d, da.lanes(s, (p - first) * LANES));
                            target.put(s, to + (p - row) * LANES, s.fma(a, m, s.fma(b, d, c)));
                        },
                    );
                }
            }
        }
        let (g, out) = (Source::new(&*g_frame), Target::new(dx));
        // SAFETY: checked by the caller.
        unsafe {
            if add {
                differentiate::<S, K>(
                    s,
                    frame,
                    (x, g),
                    w,
                    dw,
                    #[inline(always)]
                    |p, v| out.put(s, p * LANES, s.add(v, out.lanes(s, p * LANES))),
                );
            } else {
                differentiate::<S, K>(
                    s,
                    frame,
                    (x, g),
                    w,
                    dw,
                    #[inline(always)]
                    |p, v| out.put(s, p * LANES, v),
                );
            }
        }
    }
    gradient.check(scratch);
    let (frame, kernel) = (gradient.dw.frame, gradient.dw.kernel);
    let fits = dx.len() >= frame.inner.pixels() * LANES && g_frame.len() >= frame.len() && dw.len() >= kernel * kernel;
    assert!(fits, "invariant: slices of full length");
    s.run(
        #[inline(always)]
        || with_activation(s, gradient.lift.activation, Backward(s, gradient, norm, (scratch, g_frame), dw, (dx, add))),
    );
}

/// Zeros around the image of a frame.
#[inline(always)]
fn clear_border<S: Isa>(s: S, frame: Frame, data: &mut [S::E]) {
    let (pad, row) = (frame.pad * LANES, frame.w() * LANES);
    let zero = S::E::default();
    let _ = s;
    let (top, rest) = data[..frame.len()].split_at_mut(frame.pad * row);
    top.fill(zero);
    let (middle, bottom) = rest.split_at_mut(frame.inner.h * row);
    bottom.fill(zero);
    for row in middle.chunks_exact_mut(row) {
        row[..pad].fill(zero);
        let end = row.len() - pad;
        row[end..].fill(zero);
    }
}
