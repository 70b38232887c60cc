//! Batch norm: sums for its statistics, and its gradient.

use crate::isa::{Element, Isa, LANES};
use crate::lift::{Activate, ForActivation, Lift, Lifter, with_activation};
use crate::raw::{Source, Target};

/// Sums of a block of channels over some pixels, of numbers less a `shift` near their mean.
///
/// With the shift, squares do not cancel where the mean is large against the spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShiftedSums<E> {
    /// Taken off every number.
    pub shift: [E; LANES],
    /// Sum of what is left.
    pub sum: [f64; LANES],
    /// Sum of its squares.
    pub squares: [f64; LANES],
}

impl<E: Element> ShiftedSums<E> {
    /// No pixels yet.
    pub fn new(shift: [E; LANES]) -> Self {
        Self { shift, sum: [0.0; LANES], squares: [0.0; LANES] }
    }

    pub(crate) fn add(&mut self, sum: [E; LANES], squares: [E; LANES]) {
        for i in 0..LANES {
            self.sum[i] += sum[i].to_f64();
            self.squares[i] += squares[i].to_f64();
        }
    }

    /// Mean and summed squared deviations of lane `i` over `count` pixels.
    pub fn moments(&self, i: usize, count: f64) -> (f64, f64) {
        let offset = self.sum[i] / count;
        (self.shift[i].to_f64() + offset, (self.squares[i] - self.sum[i] * offset).max(0.0))
    }
}

/// Pixels that are summed up before they are added to the sum of all: sums of sums have much smaller rounding errors than one long sum.
pub(crate) const RUN: usize = 128;

/// Adds the block of `image` `[pixels][stride]` from channel `at` on to `sums`.
///
/// # Panics
/// If the block does not lie inside the image.
pub fn add_moments<S: Isa>(s: S, image: crate::Block<'_, S::E>, pixels: usize, sums: &mut ShiftedSums<S::E>) {
    image.check(pixels);
    let (sum, squares) = s.run(
        #[inline(always)]
        || {
            let (source, shift) = (Source::new(image.data), s.lanes(&sums.shift));
            let (mut sum, mut squares) = ([s.zero(); 4], [s.zero(); 4]);
            for first in (0..pixels).step_by(RUN) {
                let (mut run, mut run_squares) = ([s.zero(); 4], [s.zero(); 4]);
                let end = pixels.min(first + RUN);
                for p in (first..end).step_by(4) {
                    for i in 0..4.min(end - p) {
                        // SAFETY: pixel p + i is one of `pixels`, all of which lie inside.
                        let x = s.sub(unsafe { source.lanes(s, (p + i) * image.stride + image.at) }, shift);
                        run[i] = s.add(run[i], x);
                        run_squares[i] = s.fma(x, x, run_squares[i]);
                    }
                }
                for i in 0..4 {
                    sum[i] = s.add(sum[i], run[i]);
                    squares[i] = s.add(squares[i], run_squares[i]);
                }
            }
            let all = |v: [S::V; 4]| s.array(s.add(s.add(v[0], v[1]), s.add(v[2], v[3])));
            (all(sum), all(squares))
        },
    );
    sums.add(sum, squares);
}

/// Sums for the gradient of a batch norm: of the gradient of its output, and of that times its centred input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientSums<E> {
    /// Mean of the input.
    pub mean: [E; LANES],
    /// Sum of the output's gradient: the shift's gradient.
    pub g: [f64; LANES],
    /// Sum of the output's gradient times (input − mean): the scale's gradient times the standard deviation.
    pub g_centred: [f64; LANES],
}

impl<E: Element> GradientSums<E> {
    /// No pixels yet.
    pub fn new(mean: [E; LANES]) -> Self {
        Self { mean, g: [0.0; LANES], g_centred: [0.0; LANES] }
    }

    pub(crate) fn add(&mut self, g: [E; LANES], g_centred: [E; LANES]) {
        for i in 0..LANES {
            self.g[i] += g[i].to_f64();
            self.g_centred[i] += g_centred[i].to_f64();
        }
    }
}

/// Coefficients of the gradient `a·g + b·z + c` of a batch norm's input `z`, `g` being that of its output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients<'a, E> {
    /// Factor of the output's gradient.
    pub a: &'a [E; LANES],
    /// Factor of the input.
    pub b: &'a [E; LANES],
    /// What is left.
    pub c: &'a [E; LANES],
}

/// Turns the gradient `g` `[pixels][16]` of lifted numbers into that of what the activation was applied to, and writes it into the block of
/// `out` whose stored numbers are the same block of `z`; adds its sums.
///
/// # Panics
/// If a block does not lie inside its image.
pub fn lower_gradient<S: Isa>(
    s: S,
    z: crate::Block<'_, S::E>,
    lift: &Lift<'_, S::E>,
    g: &[S::E],
    pixels: usize,
    out: &mut [S::E],
    sums: &mut GradientSums<S::E>,
) {
    struct Lower<'a, S: Isa>(
        S,
        crate::Block<'a, S::E>,
        &'a Lift<'a, S::E>,
        &'a [S::E],
        usize,
        &'a mut [S::E],
        [S::E; LANES],
    );
    impl<S: Isa> ForActivation<S> for Lower<'_, S> {
        type Output = ([S::E; LANES], [S::E; LANES]);
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) -> Self::Output {
            let Self(s, z, lift, g, pixels, out, mean) = self;
            let lift = Lifter::new(s, lift, activation);
            let (zs, gs, target, mean) = (Source::new(z.data), Source::new(g), Target::new(out), s.lanes(&mean));
            let (mut sum, mut centred) = ([s.zero(); 2], [s.zero(); 2]);
            for first in (0..pixels).step_by(RUN) {
                let (mut run, mut run_centred) = ([s.zero(); 2], [s.zero(); 2]);
                let end = pixels.min(first + RUN);
                for p in (first..end).step_by(2) {
                    for i in 0..2.min(end - p) {
                        // SAFETY: pixel p + i is one of `pixels`, all of which lie inside.
                        unsafe {
                            let at = (p + i) * z.stride + z.at;
                            let z = zs.lanes(s, at);
                            let m = lift.gradient(s, z, gs.lanes(s, (p + i) * LANES));
                            target.put(s, at, m);
                            run[i] = s.add(run[i], m);
                            run_centred[i] = s.fma(m, s.sub(z, mean), run_centred[i]);
                        }
                    }
                }
                for i in 0..2 {
                    sum[i] = s.add(sum[i], run[i]);
                    centred[i] = s.add(centred[i], run_centred[i]);
                }
            }
            (s.array(s.add(sum[0], sum[1])), s.array(s.add(centred[0], centred[1])))
        }
    }
    z.check(pixels);
    crate::Block { data: &*out, ..z }.check(pixels);
    assert!(g.len() >= pixels * LANES, "invariant: one gradient per pixel");
    let mean = sums.mean;
    let (g, centred) = s.run(
        #[inline(always)]
        || with_activation(s, lift.activation, Lower(s, z, lift, g, pixels, out, mean)),
    );
    sums.add(g, centred);
}

/// Replaces the gradient of a batch norm's output, the block of `g` from channel `at` on, by that of its input, whose block of `z` it is.
///
/// # Panics
/// If a block does not lie inside its image.
pub fn norm_gradient<S: Isa>(
    s: S,
    z: crate::Block<'_, S::E>,
    coefficients: Coefficients<'_, S::E>,
    pixels: usize,
    g: &mut [S::E],
) {
    z.check(pixels);
    crate::Block { data: &*g, ..z }.check(pixels);
    s.run(
        #[inline(always)]
        || {
            let (source, target) = (Source::new(z.data), Target::new(g));
            let [a, b, c] = [coefficients.a, coefficients.b, coefficients.c].map(|lanes| s.lanes(lanes));
            for p in 0..pixels {
                let at = p * z.stride + z.at;
                // SAFETY: pixel p is one of `pixels`, all of which lie inside.
                unsafe { target.put(s, at, s.fma(a, target.lanes(s, at), s.fma(b, source.lanes(s, at), c))) }
            }
        },
    );
}
