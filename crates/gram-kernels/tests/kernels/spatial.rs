//! Depthwise convolutions of any window.

use std::fmt;

use gram_kernels::{Frame, Isa, LANES, Window, depthwise, depthwise_input, depthwise_weights};
use proptest::prelude::*;

use crate::check::{Checked, Sum, close, close_lanes, config, on_every_isa};
use crate::draw::{Draw, Image, arb_place, arb_window, cast, cast_lanes, is_inside};

struct Case {
    frame: Frame,
    window: Window,
    /// A frame: the border, too, is something.
    x: Vec<f64>,
    /// `[kernel²][16]`.
    weights: Vec<f64>,
    old_weights: Vec<[f64; LANES]>,
    g: Image,
    out: Image,
    dx: Vec<f64>,
}

/// Without the numbers.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("frame", &self.frame)
            .field("window", &self.window)
            .field("g", &self.g)
            .field("out", &self.out)
            .finish_non_exhaustive()
    }
}

fn arb_case() -> impl Strategy<Value = Case> {
    (arb_window(), arb_place(), arb_place(), any::<u64>()).prop_map(|((frame, window), g, out, seed)| {
        let (mut draw, taps, pixels) = (Draw(seed), window.kernel.pow(2), window.output(frame).pixels());
        Case {
            frame,
            window,
            x: draw.reals(frame.len()),
            weights: draw.reals(taps * LANES),
            old_weights: (0..taps).map(|_| draw.lanes()).collect(),
            g: Image { data: draw.reals(pixels * g.0), stride: g.0, at: g.1 },
            out: Image { data: draw.reals(pixels * out.0), stride: out.0, at: out.1 },
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

/// K1 `z[p] = Σ_t x[p · stride + t · dilation] · w[t]`.
fn forward<S: Isa>(s: S, case: &Case) -> Checked {
    let (x, w, mut out) = (cast::<S::E>(&case.x), cast(&case.weights), cast(&case.out.data));
    depthwise(s, (case.frame, &x), case.window, &w, (&mut out, case.out.stride, case.out.at));
    let mut expected: Vec<Sum> = case.out.data.iter().map(|&x| Sum::of(x)).collect();
    for (p, tap, at) in case.meetings() {
        for lane in 0..LANES {
            let sum = &mut expected[p * case.out.stride + case.out.at + lane];
            if tap == 0 {
                *sum = Sum::default();
            }
            sum.add(case.x[at + lane] * case.weights[tap * LANES + lane]);
        }
    }
    close("depthwise", &out, &expected) // K1, A2, A3
}

/// K1 `dw[t] += Σ_p x[p · stride + t · dilation] · g[p]`, K2 `dx[p · stride + t · dilation] += Σ g[p] · w[t]` but for the border.
fn backward<S: Isa>(s: S, case: &Case) -> Checked {
    let (x, w, g) = (cast::<S::E>(&case.x), cast(&case.weights), cast(&case.g.data));
    let mut dw: Vec<_> = case.old_weights.iter().map(cast_lanes).collect();
    let mut dx = cast(&case.dx);
    depthwise_weights(s, (case.frame, &x), case.window, case.g.block(&g), &mut dw);
    depthwise_input(s, case.frame, case.window, case.g.block(&g), &w, &mut dx);
    let mut expected_dw: Vec<_> = case.old_weights.iter().map(|lanes| lanes.map(Sum::of)).collect();
    let mut expected_dx: Vec<_> = case.dx.iter().map(|&x| Sum::of(x)).collect();
    for (p, tap, at) in case.meetings() {
        for lane in 0..LANES {
            expected_dw[tap][lane].add(case.x[at + lane] * case.g.get(p, lane));
            if is_inside(case.frame, at) {
                expected_dx[at + lane].add(case.weights[tap * LANES + lane] * case.g.get(p, lane));
            }
        }
    }
    close_lanes("depthwise_weights", &dw, &expected_dw)?; // K1
    close("depthwise_input", &dx, &expected_dx) // K2, A3
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn depthwise_convolutions(case in arb_case()) {
        on_every_isa!(forward(&case));
        on_every_isa!(backward(&case));
    }
}
