//! Sums for batch norm, and its gradient.

use std::fmt;

use gram_kernels::{
    Block, Coefficients, Element, GradientSums, Isa, LANES, ShiftedSums, add_moments, lower_gradient, norm_gradient,
};
use proptest::prelude::*;

use crate::check::{Checked, Sum, close, close_wide, config, on_every_isa};
use crate::draw::{Draw, Image, Lifting, arb_activation, arb_place, cast, cast_lanes};

struct Case {
    pixels: usize,
    z: Image,
    lifting: Lifting<f64>,
    /// `[pixels][16]`.
    g: Vec<f64>,
    /// As `z`.
    out: Vec<f64>,
    mean: [f64; LANES],
    abc: [[f64; LANES]; 3],
}

/// Without the numbers.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("pixels", &self.pixels)
            .field("lifting", &self.lifting)
            .field("z", &self.z)
            .finish_non_exhaustive()
    }
}

fn arb_case() -> impl Strategy<Value = Case> {
    (1..=361usize, arb_place(), arb_activation(), any::<u64>()).prop_map(|(pixels, (stride, at), activation, seed)| {
        let mut draw = Draw(seed);
        Case {
            pixels,
            z: Image { data: draw.grid(pixels * stride), stride, at },
            lifting: Lifting::draw(&mut draw, activation),
            g: draw.reals(pixels * LANES),
            out: draw.reals(pixels * stride),
            mean: draw.grid_lanes(),
            abc: [draw.lanes(), draw.lanes(), draw.lanes()],
        }
    })
}

impl Case {
    /// `out` with a block replaced by `f(pixel, lane)`.
    fn written(&self, f: impl Fn(usize, usize) -> Sum) -> Vec<Sum> {
        let mut out: Vec<Sum> = self.out.iter().map(|&x| Sum::of(x)).collect();
        for p in 0..self.pixels {
            for lane in 0..LANES {
                out[p * self.z.stride + self.z.at + lane] = f(p, lane);
            }
        }
        out
    }

    fn per_lane(&self, f: impl Fn(usize, usize) -> Sum) -> [Sum; LANES] {
        std::array::from_fn(|lane| {
            let mut sum = Sum::default();
            (0..self.pixels).for_each(|p| sum.add_sum(1.0, f(p, lane)));
            sum
        })
    }
}

/// K1 both sums are of all pixels less the shift, K2 and grow with each image.
fn moments<S: Isa>(s: S, case: &Case) -> Checked {
    let z = cast::<S::E>(&case.z.data);
    let mut sums = ShiftedSums::new(cast_lanes(&case.mean));
    let [mut sum, mut squares] = [[Sum::default(); LANES]; 2];
    for _ in 0..2 {
        add_moments(s, case.z.block(&z), case.pixels, &mut sums);
        let off = |p, lane| case.z.get(p, lane) - case.mean[lane];
        for (lane, image) in case.per_lane(|p, lane| Sum::of(off(p, lane))).into_iter().enumerate() {
            sum[lane].add_sum(1.0, image);
        }
        for (lane, image) in case.per_lane(|p, lane| Sum::of(off(p, lane).powi(2))).into_iter().enumerate() {
            squares[lane].add_sum(1.0, image);
        }
        close_wide::<S::E>("sum", &sums.sum, &sum)?; // K1, K2
        close_wide::<S::E>("squares", &sums.squares, &squares)?; // K1, K2
    }
    Ok(())
}

/// K1 gradients pass the activation's slope, K2 and their sums are those of the norm's shift and scale.
fn lowers<S: Isa>(s: S, case: &Case) -> Checked {
    let (z, lifting) = (cast::<S::E>(&case.z.data), case.lifting.cast());
    let (g, mut out) = (cast(&case.g), cast(&case.out));
    let mut sums = GradientSums::new(cast_lanes(&case.mean));
    lower_gradient(s, case.z.block(&z), &lifting.lift(), &g, case.pixels, &mut out, &mut sums);
    let times = |factor: f64, sum| {
        let mut product = Sum::default();
        product.add_sum(factor, sum);
        product
    };
    let lowered = |p, lane| times(case.g[p * LANES + lane], case.lifting.slope(lane, case.z.get(p, lane)));
    let centred = |p, lane| times(case.z.get(p, lane) - case.mean[lane], lowered(p, lane));
    close("lower_gradient", &out, &case.written(lowered))?; // K1, A3
    close_wide::<S::E>("g", &sums.g, &case.per_lane(lowered))?; // K2
    close_wide::<S::E>("g_centred", &sums.g_centred, &case.per_lane(centred)) // K2
}

/// K1 `g` becomes `a · g + b · z + c`.
fn normalises<S: Isa>(s: S, case: &Case) -> Checked {
    let (z, mut g) = (cast::<S::E>(&case.z.data), cast(&case.out));
    let [a, b, c] = case.abc.map(|lanes| cast_lanes(&lanes));
    norm_gradient(s, case.z.block(&z), Coefficients { a: &a, b: &b, c: &c }, case.pixels, &mut g);
    let expected = case.written(|p, lane| {
        let [a, b, c] = case.abc.map(|lanes| lanes[lane]);
        let mut sum = Sum::of(c);
        sum.add(a * case.out[p * case.z.stride + case.z.at + lane]);
        sum.add(b * case.z.get(p, lane));
        sum
    });
    close("norm_gradient", &g, &expected) // K1, A3
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn batch_norm(case in arb_case()) {
        on_every_isa!(moments(&case));
        on_every_isa!(lowers(&case));
        on_every_isa!(normalises(&case));
    }
}

/// K1 a mean that is large against the spread does not spoil the variance: against that of the very same numbers in f64, it is off by less
/// than rounding the inputs costs. (Squares of numbers near 1000 in f32 are off by more than the variance here.)
#[test]
fn large_means_do_not_cancel() -> Checked {
    fn check<S: Isa>(s: S, images: &[Vec<f64>]) -> Checked {
        let images: Vec<Vec<S::E>> = images.iter().map(|image| cast(image)).collect();
        let (pixels, count) = (images[0].len() / LANES, images.len() * images[0].len() / LANES);
        let mut sums = ShiftedSums::new(std::array::from_fn(|lane| images[0][lane]));
        for image in &images {
            add_moments(s, Block::alone(image), pixels, &mut sums);
        }
        for lane in 0..LANES {
            let numbers = || images.iter().flat_map(|image| image.iter().skip(lane).step_by(LANES)).map(|x| x.to_f64());
            let mean = numbers().sum::<f64>() / count as f64;
            let variance = numbers().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
            let (got_mean, squares) = sums.moments(lane, count as f64);
            let got = squares / count as f64;
            prop_assert!((got_mean - mean).abs() < 1e-7, "mean {} instead of {}", got_mean, mean);
            prop_assert!((got / variance - 1.0).abs() < 1e-5, "variance {} instead of {}", got, variance); // K1
            prop_assert!((variance / 1e-4 - 1.0).abs() < 0.05, "the numbers are as spread as meant: {}", variance);
        }
        Ok(())
    }
    let mut draw = Draw(7);
    let mut image = || (0..16 * 16 * LANES).map(|_| 1000.0 + 0.01 * draw.normal()).collect();
    let images: Vec<Vec<f64>> = (0..64).map(|_| image()).collect();
    on_every_isa!(check(&images));
    Ok(())
}
