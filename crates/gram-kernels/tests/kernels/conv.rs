//! Dense convolutions.

use std::fmt;

use gram_kernels::{Frame, Isa, LANES, Window, conv, conv_input, conv_weights};
use proptest::prelude::*;

use crate::check::{Checked, Sum, close, config, on_every_isa};
use crate::draw::{Draw, arb_window, cast, stale};

struct Case {
    frame: Frame,
    window: Window,
    depth: usize,
    width: usize,
    n_out: usize,
    /// A frame: the border, too, is something.
    x: Vec<f64>,
    /// `[kernel²][depth][width]`.
    weights: Vec<f64>,
    old_weights: Vec<f64>,
    /// `[kernel²][n_out][16]`.
    transposed: Vec<f64>,
    /// `[output pixels][width]`.
    g: Vec<f64>,
    z: Vec<f64>,
    dx: Vec<f64>,
}

/// Without the numbers.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("frame", &self.frame)
            .field("window", &self.window)
            .field("depth", &self.depth)
            .field("width", &self.width)
            .field("n_out", &self.n_out)
            .finish_non_exhaustive()
    }
}

fn arb_case() -> impl Strategy<Value = Case> {
    let width = (1..=5usize).prop_flat_map(|blocks| (Just(blocks * LANES), blocks * LANES - 15..=blocks * LANES));
    let depth = prop_oneof![1..=4usize, 1..=LANES];
    (arb_window(), depth, width, any::<u64>()).prop_map(|((frame, window), depth, (width, n_out), seed)| {
        let (mut draw, taps, pixels) = (Draw(seed), window.kernel.pow(2), window.output(frame).pixels());
        Case {
            frame,
            window,
            depth,
            width,
            n_out,
            x: draw.reals(frame.len()),
            weights: draw.reals(taps * depth * width),
            old_weights: draw.reals(taps * depth * width),
            transposed: draw.reals(taps * n_out * LANES),
            g: draw.reals(pixels * width),
            z: draw.reals(pixels * width),
            dx: draw.reals(frame.len()),
        }
    })
}

impl Case {
    /// Output pixel, tap and the element of the frame where it finds lane 0.
    fn meetings(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let (plane, Window { kernel, stride, dilation }) = (self.window.output(self.frame), self.window);
        let row = self.frame.w();
        (0..plane.pixels()).flat_map(move |p| {
            (0..kernel * kernel).map(move |tap| {
                let y = p / plane.w * stride + tap / kernel * dilation;
                let x = p % plane.w * stride + tap % kernel * dilation;
                (p, tap, (y * row + x) * LANES)
            })
        })
    }
}

/// What is expected, once for all instruction sets.
struct Expected {
    /// Without what was there before.
    z: Vec<Sum>,
    dw: Vec<Sum>,
    dx: Vec<Sum>,
}

/// K1 `z[p][o] = Σ_t Σ_k x[p · stride + t · dilation][k] · w[t][k][o]`, K2 `dw[t][k][o] += Σ_p x[p · stride + t · dilation][k] · g[p][o]`,
/// K3 `dx[p · stride + t · dilation][k] += Σ_o g[p][o] · w[t][o][k]` over real output channels.
fn expect(case: &Case) -> Expected {
    let of = |old: &[f64]| old.iter().map(|&x| Sum::of(x)).collect();
    let (depth, width, n_out) = (case.depth, case.width, case.n_out);
    let mut expected = Expected { z: vec![Sum::default(); case.z.len()], dw: of(&case.old_weights), dx: of(&case.dx) };
    for (p, tap, at) in case.meetings() {
        for k in 0..depth {
            let row = (tap * depth + k) * width;
            for o in 0..width {
                expected.z[p * width + o].add(case.x[at + k] * case.weights[row + o]);
                expected.dw[row + o].add(case.x[at + k] * case.g[p * width + o]);
            }
        }
        for o in 0..n_out {
            for k in 0..LANES {
                expected.dx[at + k].add(case.g[p * width + o] * case.transposed[(tap * n_out + o) * LANES + k]);
            }
        }
    }
    expected
}

fn agrees<S: Isa>(s: S, case: &Case, expected: &Expected) -> Checked {
    let (x, w, g) = (cast::<S::E>(&case.x), cast(&case.weights), cast(&case.g));
    let sizes = (case.depth, case.width);
    let mut z = stale(case.z.len());
    conv(s, (case.frame, &x), case.window, &w, sizes, (&mut z, false));
    close("conv", &z, &expected.z)?; // K1, A2
    let mut z = cast(&case.z);
    conv(s, (case.frame, &x), case.window, &w, sizes, (&mut z, true));
    let added =
        expected.z.iter().zip(&case.z).map(|(sum, old)| Sum { value: sum.value + old, size: sum.size + old.abs() });
    close("conv, added", &z, &added.collect::<Vec<_>>())?; // K1, A2

    let mut dw = cast(&case.old_weights);
    conv_weights(s, (case.frame, &x), case.window, &g, sizes, &mut dw);
    close("conv_weights", &dw, &expected.dw)?; // K2

    let (transposed, mut dx) = (cast(&case.transposed), cast(&case.dx));
    conv_input(s, case.frame, case.window, (&g, case.width), (&transposed, case.n_out), &mut dx);
    close("conv_input", &dx, &expected.dx) // K3
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn convolutions(case in arb_case()) {
        let expected = expect(&case);
        on_every_isa!(agrees(&case, &expected));
    }
}

/// Bounds are checked before anything is read.
#[test]
#[should_panic(expected = "weights for 3x16")]
fn short_weights_are_refused() {
    let frame = Frame { inner: gram_kernels::Plane { h: 4, w: 4 }, pad: 1 };
    let (x, weights, mut z) = (vec![0.0; frame.len()], vec![0.0; 9 * 3 * 16 - 1], vec![0.0; 256]);
    let window = Window { kernel: 3, stride: 1, dilation: 1 };
    conv(gram_kernels::Portable::<f64>::new(), (frame, &x), window, &weights, (3, 16), (&mut z, false));
}
