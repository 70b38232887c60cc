//! 1x1 convolutions.

use std::fmt;

use gram_kernels::{
    Block, Isa, LANES, POINTWISE_SCRATCH, TransposedWeights, Weights, pointwise, pointwise_input, pointwise_weights,
};
use proptest::prelude::*;

use crate::check::{Checked, Sum, close, config, on_every_isa};
use crate::draw::{Draw, Image, Lifting, arb_activation, arb_place, cast, stale};

struct Case {
    pixels: usize,
    depth: usize,
    width: usize,
    n_out: usize,
    x: Image,
    lifting: Lifting<f64>,
    /// `[16][width]`.
    weights: Vec<f64>,
    /// `[pixels][width]`.
    g: Vec<f64>,
    z: Vec<f64>,
    /// `[pixels][16]`.
    dx: Vec<f64>,
}

/// Without the numbers.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("pixels", &self.pixels)
            .field("depth", &self.depth)
            .field("width", &self.width)
            .field("n_out", &self.n_out)
            .field("lifting", &self.lifting)
            .field("x", &self.x)
            .finish_non_exhaustive()
    }
}

fn arb_case() -> impl Strategy<Value = Case> {
    let width = (1..=5usize).prop_flat_map(|blocks| (Just(blocks * LANES), blocks * LANES - 15..=blocks * LANES));
    let shape = (1..=361usize, 1..=LANES, width, arb_place());
    (shape, arb_activation(), any::<u64>()).prop_map(
        |((pixels, depth, (width, n_out), (stride, at)), activation, seed)| {
            let mut draw = Draw(seed);
            Case {
                pixels,
                depth,
                width,
                n_out,
                x: Image { data: draw.grid(pixels * stride), stride, at },
                lifting: Lifting::draw(&mut draw, activation),
                weights: draw.reals(LANES * width),
                g: draw.reals(pixels * width),
                z: draw.reals(pixels * width),
                dx: draw.reals(pixels * LANES),
            }
        },
    )
}

impl Case {
    fn lifted(&self, pixel: usize, lane: usize) -> f64 {
        self.lifting.value(lane, self.x.get(pixel, lane))
    }
}

/// K1 `z[p][o] = Σ_k lift(x[p][k]) · w[k][o]`.
fn forward<S: Isa>(s: S, case: &Case) -> Checked {
    let (x, w, lifting) =
        (cast::<S::E>(&case.x.data), cast(&case.weights[..case.depth * case.width]), case.lifting.cast());
    let mut scratch = stale(POINTWISE_SCRATCH);
    for add in [false, true] {
        let mut z = if add { cast(&case.z) } else { stale(case.z.len()) };
        let weights = Weights { data: &w, depth: case.depth, width: case.width };
        let from = (case.x.block(&x), &lifting.lift());
        pointwise(s, from, case.pixels, weights, &mut scratch, (&mut z, add));
        let mut expected = vec![Sum::default(); z.len()];
        for (i, sum) in expected.iter_mut().enumerate() {
            let (p, o) = (i / case.width, i % case.width);
            sum.add(if add { case.z[i] } else { 0.0 });
            (0..case.depth).for_each(|k| sum.add(case.lifted(p, k) * case.weights[k * case.width + o]));
        }
        close("pointwise", &z, &expected)?; // K1
    }
    Ok(())
}

/// K1 `dw[k][o] += Σ_p lift(x[p][k]) · g[p][o]`, K2 `dx[p][k] = Σ_o g[p][o] · w[o][k]` over real output channels.
fn backward<S: Isa>(s: S, case: &Case) -> Checked {
    let (x, g, lifting) = (cast::<S::E>(&case.x.data), cast(&case.g), case.lifting.cast());
    let mut scratch = stale(POINTWISE_SCRATCH);
    let old = &case.weights[..case.depth * case.width];
    let (mut dw, sizes) = (cast(old), (case.depth, case.width));
    pointwise_weights(s, (case.x.block(&x), &lifting.lift()), case.pixels, &g, sizes, &mut scratch, &mut dw);
    let mut expected = vec![Sum::default(); dw.len()];
    for (i, sum) in expected.iter_mut().enumerate() {
        let (k, o) = (i / case.width, i % case.width);
        sum.add(old[i]);
        (0..case.pixels).for_each(|p| sum.add(case.lifted(p, k) * case.g[p * case.width + o]));
    }
    close("pointwise_weights", &dw, &expected)?; // K1

    let transposed: Vec<f64> =
        (0..case.n_out * LANES).map(|i| case.weights[i % LANES * case.width + i / LANES]).collect();
    let transposed = cast(&transposed);
    for add in [false, true] {
        let mut dx = if add { cast(&case.dx) } else { stale(case.dx.len()) };
        let weights = TransposedWeights { data: &transposed, n_out: case.n_out };
        pointwise_input(s, (&g, case.width), weights, case.pixels, (&mut dx, add));
        let mut expected = vec![Sum::default(); dx.len()];
        for (i, sum) in expected.iter_mut().enumerate() {
            let (p, k) = (i / LANES, i % LANES);
            sum.add(if add { case.dx[i] } else { 0.0 });
            (0..case.n_out).for_each(|o| sum.add(case.g[p * case.width + o] * case.weights[k * case.width + o]));
        }
        close("pointwise_input", &dx, &expected)?; // K2
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn pointwise_convolutions(case in arb_case()) {
        on_every_isa!(forward(&case));
        on_every_isa!(backward(&case));
    }
}

/// Bounds are checked before anything is read: an image that is one element short is refused.
#[test]
#[should_panic(expected = "a block of 4 pixels")]
fn short_images_are_refused() {
    let (x, lifting) = (vec![0.0; 4 * LANES - 1], Lifting::identity());
    let weights = Weights { data: &[0.0; LANES], depth: 1, width: LANES };
    let (mut scratch, mut z) = (vec![0.0; POINTWISE_SCRATCH], vec![0.0; 4 * LANES]);
    let s = gram_kernels::Portable::<f64>::new();
    pointwise(s, (Block::alone(&x), &lifting.lift()), 4, weights, &mut scratch, (&mut z, false));
}
