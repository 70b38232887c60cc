//! Separable convolutions.

use std::fmt;
use std::ops::Range;

use gram_kernels::{
    Activation, Ahead, Block, Coefficients, Depthwise, Element, Frame, GradientSums, Isa, LANES, Plane, Portable,
    SepGradient, ShiftedSums, TransposedWeights, Weights, fill_frame, lower_gradient, sep, sep_centre, sep_input,
    sep_moments, sep_scratch, sep_weights,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::check::{Checked, Sum, close, close_lanes, close_wide, config, on_every_isa};
use crate::draw::{Draw, Lifting, arb_activation, arb_plane, cast, cast_lanes, stale};

struct Case {
    frame: Frame,
    kernel: usize,
    depth: usize,
    width: usize,
    n_out: usize,
    /// A frame with zeros around the image.
    x: Vec<f64>,
    /// `[kernel²][16]`.
    spatial: Vec<f64>,
    lifting: Lifting<f64>,
    /// `[16][width]`.
    weights: Vec<f64>,
    /// `[pixels][width]`.
    g: Vec<f64>,
    z: Vec<f64>,
    /// `[pixels][16]`.
    dx: Vec<f64>,
    mean: [f64; LANES],
    abc: [[f64; LANES]; 3],
}

/// Without the numbers.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("frame", &self.frame)
            .field("kernel", &self.kernel)
            .field("depth", &self.depth)
            .field("width", &self.width)
            .field("n_out", &self.n_out)
            .field("lifting", &self.lifting)
            .finish_non_exhaustive()
    }
}

fn arb_case() -> impl Strategy<Value = Case> {
    let width = (1..=5usize).prop_flat_map(|blocks| (Just(blocks * LANES), blocks * LANES - 15..=blocks * LANES));
    let shape = (arb_plane(), select(vec![3, 5, 7]), 1..=LANES, width, arb_activation(), any::<u64>());
    shape.prop_map(|(inner, kernel, depth, (width, n_out), activation, seed)| {
        let (mut draw, frame, pixels) = (Draw(seed), Frame { inner, pad: kernel / 2 }, inner.pixels());
        let mut x = vec![0.0; frame.len()];
        for p in 0..pixels {
            let at = frame.origin() + (p / inner.w * frame.w() + p % inner.w) * LANES;
            x[at..at + LANES].copy_from_slice(&draw.grid(LANES));
        }
        Case {
            frame,
            kernel,
            depth,
            width,
            n_out,
            x,
            spatial: draw.grid(kernel * kernel * LANES),
            lifting: Lifting::draw(&mut draw, activation),
            weights: draw.reals(LANES * width),
            g: draw.reals(pixels * width),
            z: draw.reals(pixels * width),
            dx: draw.reals(pixels * LANES),
            mean: draw.grid_lanes(),
            abc: [draw.lanes(), draw.lanes(), draw.lanes()],
        }
    })
}

/// A case's numbers for one instruction set.
struct Numbers<E> {
    x: Vec<E>,
    spatial: Vec<E>,
    lifting: Lifting<E>,
    /// `[depth][width]`.
    weights: Vec<E>,
    /// `[n_out][16]`.
    transposed: Vec<E>,
    g: Vec<E>,
}

impl Case {
    fn numbers<E: Element>(&self) -> Numbers<E> {
        let transposed: Vec<f64> =
            (0..self.n_out * LANES).map(|i| self.weights[i % LANES * self.width + i / LANES]).collect();
        Numbers {
            x: cast(&self.x),
            spatial: cast(&self.spatial),
            lifting: self.lifting.cast(),
            weights: cast(&self.weights[..self.depth * self.width]),
            transposed: cast(&transposed),
            g: cast(&self.g),
        }
    }

    fn depthwise<'a, E: Element>(&self, numbers: &'a Numbers<E>) -> Depthwise<'a, E> {
        let ahead = Ahead::all(&numbers.g, self.width);
        Depthwise { frame: self.frame, x: &numbers.x, kernel: self.kernel, weights: &numbers.spatial, ahead }
    }

    fn gradient<'a, E: Element>(&self, numbers: &'a Numbers<E>) -> SepGradient<'a, E> {
        let weights = TransposedWeights { data: &numbers.transposed, n_out: self.n_out };
        SepGradient {
            dw: self.depthwise(numbers),
            lift: numbers.lifting.lift(),
            g: &numbers.g,
            width: self.width,
            weights,
        }
    }

    /// Element of the frame that tap `tap` of pixel `p` meets.
    fn met(&self, p: usize, tap: usize, lane: usize) -> usize {
        let w = self.frame.inner.w;
        ((p / w + tap / self.kernel) * self.frame.w() + p % w + tap % self.kernel) * LANES + lane
    }

    /// Depthwise output.
    fn d(&self, p: usize, lane: usize) -> f64 {
        (0..self.kernel * self.kernel)
            .map(|tap| self.x[self.met(p, tap, lane)] * self.spatial[tap * LANES + lane])
            .sum()
    }

    /// Gradient of what the activation is applied to.
    fn m(&self, p: usize, lane: usize, d: f64) -> Sum {
        let (mut sum, slope) = (Sum::default(), self.lifting.slope(lane, d));
        for o in 0..self.n_out {
            sum.add_sum(self.g[p * self.width + o] * self.weights[lane * self.width + o], slope);
        }
        sum
    }

    fn pixels_and_lanes(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        (0..self.frame.inner.pixels()).flat_map(|p| (0..LANES).map(move |lane| (p, lane)))
    }
}

/// K1 the middle's depthwise output, K2 the sums of all of it less the shift.
fn moments<S: Isa>(s: S, case: &Case) -> Checked {
    let numbers = case.numbers::<S::E>();
    let Plane { h, w } = case.frame.inner;
    let centre = sep_centre(s, case.depthwise(&numbers));
    close("sep_centre", &centre, &std::array::from_fn::<_, LANES, _>(|lane| Sum::of(case.d(h / 2 * w + w / 2, lane))))?; // K1
    let mut sums = ShiftedSums::new(centre);
    sep_moments(s, case.depthwise(&numbers), &mut sums);
    let [mut sum, mut squares] = [[Sum::default(); LANES]; 2];
    for (p, lane) in case.pixels_and_lanes() {
        let off = case.d(p, lane) - sums.shift[lane].to_f64();
        sum[lane].add(off);
        squares[lane].add(off * off);
    }
    close_wide::<S::E>("sum", &sums.sum, &sum)?; // K2
    close_wide::<S::E>("squares", &sums.squares, &squares) // K2
}

impl Case {
    /// Rows of the image in two parts, for kernels that must not care how rows are dealt out, each with all of the frame that they may
    /// read: other rows are no numbers.
    fn parts<E: Element>(&self) -> [(Range<usize>, Numbers<E>); 2] {
        let (h, row) = (self.frame.inner.h, self.frame.w() * LANES);
        [0..h / 3, h / 3..h].map(|rows| {
            let (mut numbers, read) = (self.numbers(), rows.start * row..(rows.end + self.kernel - 1) * row);
            numbers
                .x
                .iter_mut()
                .enumerate()
                .filter(|(i, _)| !read.contains(i))
                .for_each(|(_, x)| *x = E::from_f64(f64::NAN));
            (rows, numbers)
        })
    }
}

/// K1 `z[p][o] = Σ_k lift(d[p][k]) · w[k][o]`.
fn forward<S: Isa>(s: S, case: &Case) -> Checked {
    let numbers = case.numbers::<S::E>();
    let weights = Weights { data: &numbers.weights, depth: case.depth, width: case.width };
    let mut scratch = stale(sep_scratch(case.frame.inner.w));
    for add in [false, true] {
        let mut z = if add { cast(&case.z) } else { stale(case.z.len()) };
        for (rows, numbers) in case.parts() {
            let dw = (case.depthwise(&numbers), rows);
            sep(s, dw, &numbers.lifting.lift(), weights, &mut scratch, (&mut z, add));
        }
        let mut expected: Vec<Sum> = case.z.iter().map(|&z| Sum::of(if add { z } else { 0.0 })).collect();
        for (p, k) in case.pixels_and_lanes().filter(|&(_, k)| k < case.depth) {
            let value = case.lifting.value(k, case.d(p, k));
            for o in 0..case.width {
                expected[p * case.width + o].add(value * case.weights[k * case.width + o]);
            }
        }
        close("sep", &z, &expected)?; // K1
    }
    Ok(())
}

/// K1 `dw[k][o] += Σ_p lift(d[p][k]) · g[p][o]`, K2 sums of the gradient of the norm's output, also times the centred input.
fn weights<S: Isa>(s: S, case: &Case) -> Checked {
    let old = &case.weights[..case.depth * case.width];
    let (mut dw, mut sums) = (cast(old), GradientSums::new(cast_lanes(&case.mean)));
    let mut scratch = stale(sep_scratch(case.frame.inner.w));
    for (rows, numbers) in case.parts() {
        sep_weights(s, (case.gradient(&numbers), rows), case.depth, &mut scratch, &mut dw, &mut sums);
    }
    let mut expected: Vec<Sum> = old.iter().map(|&w| Sum::of(w)).collect();
    let [mut g, mut centred] = [[Sum::default(); LANES]; 2];
    for (p, lane) in case.pixels_and_lanes() {
        let d = case.d(p, lane);
        let m = case.m(p, lane, d);
        g[lane].add_sum(1.0, m);
        centred[lane].add_sum(d - case.mean[lane], m);
        for o in (0..case.width).filter(|_| lane < case.depth) {
            expected[lane * case.width + o].add(case.lifting.value(lane, d) * case.g[p * case.width + o]);
        }
    }
    close("sep_weights", &dw, &expected)?; // K1
    close_wide::<S::E>("g", &sums.g, &g)?; // K2
    close_wide::<S::E>("g_centred", &sums.g_centred, &centred) // K2
}

/// With `gd = a · m + b · d + c`: K1 `dx[q] = Σ_t w[t] · gd[q − t]`, K2 `dw[t] += Σ_p x[p + t] · gd[p]`.
fn input<S: Isa>(s: S, case: &Case) -> Checked {
    let numbers = case.numbers::<S::E>();
    let taps = case.kernel * case.kernel;
    let [a, b, c] = case.abc.map(|lanes| cast_lanes(&lanes));
    let old = |tap: usize| -> [f64; LANES] { std::array::from_fn(|lane| case.spatial[tap * LANES + lane]) };
    let mut expected_dw: Vec<_> = (0..taps).map(|tap| old(tap).map(Sum::of)).collect();
    let mut frame_dx = vec![Sum::default(); case.frame.len()];
    for (p, lane) in case.pixels_and_lanes() {
        let [a, b, c] = case.abc.map(|lanes| lanes[lane]);
        let (mut gd, d) = (Sum::of(c), case.d(p, lane));
        gd.add_sum(a, case.m(p, lane, d));
        gd.add(b * d);
        for (tap, dw) in expected_dw.iter_mut().enumerate() {
            let at = case.met(p, tap, lane);
            dw[lane].add_sum(case.x[at], gd);
            frame_dx[at].add_sum(case.spatial[tap * LANES + lane], gd);
        }
    }
    let mut scratch = stale(sep_scratch(case.frame.inner.w));
    let mut g_frame = stale(case.frame.len());
    for add in [false, true] {
        let mut dx = if add { cast(&case.dx) } else { stale(case.dx.len()) };
        let mut dw: Vec<_> = (0..taps).map(|tap| cast_lanes(&old(tap))).collect();
        let norm = Coefficients { a: &a, b: &b, c: &c };
        sep_input(s, case.gradient(&numbers), norm, (&mut scratch, &mut g_frame), &mut dw, (&mut dx, add));
        let mut expected: Vec<Sum> = case.dx.iter().map(|&x| Sum::of(if add { x } else { 0.0 })).collect();
        for (p, lane) in case.pixels_and_lanes() {
            let middle = taps / 2;
            expected[p * LANES + lane].add_sum(1.0, frame_dx[case.met(p, middle, lane)]);
        }
        close("sep_input", &dx, &expected)?; // K1, A2
        close_lanes("sep_input's weights", &dw, &expected_dw)?; // K2
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn separable_convolutions(case in arb_case()) {
        on_every_isa!(moments(&case));
        on_every_isa!(forward(&case));
        on_every_isa!(weights(&case));
        on_every_isa!(input(&case));
    }
}

/// Input, both kinds of weights, scale and shift of the norm between them.
#[derive(Clone)]
struct Parameters {
    x: Vec<f64>,
    spatial: Vec<f64>,
    weights: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
}

type Part = fn(&mut Parameters) -> &mut Vec<f64>;

/// `norm → activation → depthwise → batch norm → activation → 1x1` of one image, and a loss that weighs its output.
struct Network {
    plane: Plane,
    kernel: usize,
    n_out: usize,
    before: Lifting<f64>,
    activation: Activation,
    loss: Vec<f64>,
}

const S: Portable<f64> = Portable::new();

impl Network {
    fn frame(&self) -> Frame {
        Frame { inner: self.plane, pad: self.kernel / 2 }
    }

    fn filled(&self, parameters: &Parameters) -> Vec<f64> {
        let mut frame = stale(self.frame().len());
        fill_frame(S, Block::alone(&parameters.x), &self.before.lift(), self.frame(), 0.0, &mut frame);
        frame
    }

    /// Mean and 1 / standard deviation of the depthwise output.
    fn statistics(&self, dw: Depthwise<'_, f64>) -> [[f64; LANES]; 2] {
        let mut sums = ShiftedSums::new(sep_centre(S, dw));
        sep_moments(S, dw, &mut sums);
        let pixels = self.plane.pixels() as f64;
        let moments: [_; LANES] = std::array::from_fn(|lane| sums.moments(lane, pixels));
        [moments.map(|(mean, _)| mean), moments.map(|(_, squares)| 1.0 / (squares / pixels + 1e-5).sqrt())]
    }

    fn lifting(&self, parameters: &Parameters, [mean, rate]: [[f64; LANES]; 2]) -> Lifting<f64> {
        let scale = std::array::from_fn(|i| parameters.gamma[i] * rate[i]);
        let shift = std::array::from_fn(|i| parameters.beta[i] - mean[i] * scale[i]);
        Lifting { scale, shift, activation: self.activation }
    }

    fn loss(&self, parameters: &Parameters) -> f64 {
        let x = self.filled(parameters);
        let (weights, ahead) = (&parameters.spatial[..], Ahead::block(Block::alone(&x), 0));
        let dw = Depthwise { frame: self.frame(), x: &x, kernel: self.kernel, weights, ahead };
        let lifting = self.lifting(parameters, self.statistics(dw));
        let weights = Weights { data: &parameters.weights, depth: LANES, width: LANES };
        let mut z = stale(self.loss.len());
        let mut scratch = stale(sep_scratch(self.plane.w));
        sep(S, (dw, 0..self.plane.h), &lifting.lift(), weights, &mut scratch, (&mut z, false));
        z.iter().zip(&self.loss).map(|(z, weight)| z * weight).sum()
    }

    /// By the kernels, as the training engine puts them together.
    fn gradient(&self, parameters: &Parameters) -> Parameters {
        let x = self.filled(parameters);
        let (weights, ahead) = (&parameters.spatial[..], Ahead::block(Block::alone(&x), 0));
        let dw = Depthwise { frame: self.frame(), x: &x, kernel: self.kernel, weights, ahead };
        let [mean, rate] = self.statistics(dw);
        let lifting = self.lifting(parameters, [mean, rate]);
        let transposed: Vec<f64> =
            (0..self.n_out * LANES).map(|i| parameters.weights[i % LANES * LANES + i / LANES]).collect();
        let weights = TransposedWeights { data: &transposed, n_out: self.n_out };
        let gradient = SepGradient { dw, lift: lifting.lift(), g: &self.loss, width: LANES, weights };
        let mut scratch = stale(sep_scratch(self.plane.w));
        let (mut d_weights, mut sums) = (vec![0.0; LANES * LANES], GradientSums::new(mean));
        sep_weights(S, (gradient, 0..self.plane.h), LANES, &mut scratch, &mut d_weights, &mut sums);

        // With x̂ = (d − mean) · rate: gd = γ · rate · (m − Σm / n − x̂ · Σ(m · x̂) / n).
        let pixels = self.plane.pixels() as f64;
        let a = lifting.scale;
        let b: [f64; LANES] = std::array::from_fn(|i| -a[i] * rate[i].powi(2) * sums.g_centred[i] / pixels);
        let c = std::array::from_fn(|i| -a[i] * sums.g[i] / pixels - b[i] * mean[i]);
        let (mut g_frame, mut d_spatial) = (stale(x.len()), vec![[0.0; LANES]; self.kernel * self.kernel]);
        let mut dx = stale(parameters.x.len());
        let norm = Coefficients { a: &a, b: &b, c: &c };
        sep_input(S, gradient, norm, (&mut scratch, &mut g_frame), &mut d_spatial, (&mut dx, false));
        let mut lowered = stale(dx.len());
        let mut before = GradientSums::new([0.0; LANES]);
        lower_gradient(
            S,
            Block::alone(&parameters.x),
            &self.before.lift(),
            &dx,
            self.plane.pixels(),
            &mut lowered,
            &mut before,
        );
        Parameters {
            x: lowered.iter().enumerate().map(|(i, g)| g * self.before.scale[i % LANES]).collect(),
            spatial: d_spatial.into_flattened(),
            weights: d_weights,
            gamma: (0..LANES).map(|i| sums.g_centred[i] * rate[i]).collect(),
            beta: sums.g.to_vec(),
        }
    }
}

/// K1 gradients put together out of the kernels, through both activations and the batch norm, are what the loss changes by.
#[test]
fn gradients_are_those_of_the_loss() {
    const STEP: f64 = 1e-5;
    let activations = [Activation::RELU6, Activation::HardSwish];
    for (seed, (kernel, h, w)) in [(3, 5, 6), (5, 4, 7), (7, 3, 3), (3, 1, 9)].into_iter().enumerate() {
        for activation in activations {
            let (mut draw, plane, n_out) = (Draw(seed as u64), Plane { h, w }, 11);
            let mut before = Lifting { scale: draw.lanes(), shift: draw.lanes(), activation };
            before.scale.iter_mut().for_each(|scale| *scale *= 4.0); // beyond both bends
            let mut loss = draw.reals(plane.pixels() * LANES);
            loss.iter_mut().enumerate().filter(|(i, _)| i % LANES >= n_out).for_each(|(_, weight)| *weight = 0.0);
            let network = Network { plane, kernel, n_out, before, activation, loss };
            let parameters = Parameters {
                x: draw.reals(plane.pixels() * LANES).iter().map(|x| 2.0 * x).collect(),
                spatial: draw.reals(kernel * kernel * LANES),
                weights: draw.reals(LANES * LANES),
                gamma: draw.reals(LANES).iter().map(|x| 3.0 * x).collect(),
                beta: draw.reals(LANES).iter().map(|x| 3.0 * x).collect(),
            };
            let gradient = network.gradient(&parameters);
            let parts: [(&str, Part); 5] = [
                ("x", |p| &mut p.x),
                ("spatial", |p| &mut p.spatial),
                ("weights", |p| &mut p.weights),
                ("gamma", |p| &mut p.gamma),
                ("beta", |p| &mut p.beta),
            ];
            for (name, part) in parts {
                let gradient = part(&mut gradient.clone()).clone();
                let largest = gradient.iter().fold(0.0f64, |a, g| a.max(g.abs()));
                assert!(largest > 0.1, "{name}: the gradient is something");
                for (i, g) in gradient.into_iter().enumerate().step_by(7) {
                    let moved = |by: f64| {
                        let mut moved = parameters.clone();
                        part(&mut moved)[i] += by;
                        network.loss(&moved)
                    };
                    let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                    let room = 1e-6 * (largest + 1.0);
                    assert!((g - slope).abs() < room, "{activation:?} {kernel} {name} [{i}]: {g}, loss {slope}"); // K1
                }
            }
        }
    }
}
