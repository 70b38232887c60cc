//! Pools.

use std::fmt;

use gram_kernels::{
    Activation, Element, Frame, Isa, LANES, Lift, Plane, Portable, Window, avg_pool, avg_pool_input, global_average,
    global_average_input, max_pool, max_pool_input,
};
use proptest::prelude::*;

use crate::check::{Checked, Sum, close, config, on_every_isa};
use crate::draw::{Draw, Image, Lifting, arb_activation, arb_place, arb_window, cast, cast_lanes, is_inside, stale};

struct Case {
    frame: Frame,
    window: Window,
    /// A frame; what is in the border is up to the pool.
    x: Vec<f64>,
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
        let (mut draw, pixels) = (Draw(seed), window.output(frame).pixels());
        Case {
            frame,
            window,
            x: draw.grid(frame.len()).into_iter().map(|x| (x * 2.0).round()).collect(), // few numbers: many maxima at once
            g: Image { data: draw.reals(pixels * g.0), stride: g.0, at: g.1 },
            out: Image { data: draw.reals(pixels * out.0), stride: out.0, at: out.1 },
            dx: draw.reals(frame.len()),
        }
    })
}

impl Case {
    fn with_border(&self, border: f64) -> Vec<f64> {
        let at = |i: usize| if is_inside(self.frame, i) { self.x[i] } else { border };
        (0..self.x.len()).map(at).collect()
    }

    /// For each output pixel the elements under its window where lane 0 is, row by row.
    fn windows(&self) -> impl Iterator<Item = (usize, Vec<usize>)> {
        let (plane, Window { kernel, stride, dilation }) = (self.window.output(self.frame), self.window);
        let row = self.frame.w();
        (0..plane.pixels()).map(move |p| {
            let (y, x) = (p / plane.w * stride, p % plane.w * stride);
            let taps =
                (0..kernel * kernel).map(|tap| (y + tap / kernel * dilation) * row + x + tap % kernel * dilation);
            (p, taps.map(|pixel| pixel * LANES).collect())
        })
    }

    /// `out` with its block replaced.
    fn written(&self, f: impl Fn(&[usize], usize) -> f64) -> Vec<Sum> {
        let mut out: Vec<Sum> = self.out.data.iter().map(|&x| Sum::of(x)).collect();
        for (p, window) in self.windows() {
            for lane in 0..LANES {
                out[p * self.out.stride + self.out.at + lane] = Sum { size: 1.0, ..Sum::of(f(&window, lane)) };
            }
        }
        out
    }
}

/// K1 the largest of a window comes out, K2 its gradient goes to the first largest, as in PyTorch.
fn maxima<S: Isa>(s: S, case: &Case) -> Checked {
    let x = case.with_border(f64::NEG_INFINITY);
    let (frame, mut out) = (cast::<S::E>(&x), cast(&case.out.data));
    max_pool(s, (case.frame, &frame), case.window, (&mut out, case.out.stride, case.out.at));
    let largest = |window: &[usize], lane| window.iter().map(|&at| x[at + lane]).fold(f64::NEG_INFINITY, f64::max);
    close("max_pool", &out, &case.written(largest))?; // K1, A3

    let (g, mut dx) = (cast(&case.g.data), cast(&case.dx));
    max_pool_input(s, (case.frame, &frame), case.window, case.g.block(&g), &mut dx);
    let mut expected: Vec<Sum> = case.dx.iter().map(|&x| Sum::of(x)).collect();
    for (p, window) in case.windows() {
        for lane in 0..LANES {
            let first = window.iter().position(|&at| x[at + lane] == largest(&window, lane)).unwrap();
            expected[window[first] + lane].add(case.g.get(p, lane));
        }
    }
    close("max_pool_input", &dx, &expected) // K2
}

/// K1 the mean is of pixels inside the image only, K2 each of which gets the same share of the gradient.
fn means<S: Isa>(s: S, case: &Case) -> Checked {
    let x = case.with_border(0.0);
    let (frame, mut out) = (cast::<S::E>(&x), cast(&case.out.data));
    let count = |window: &[usize]| window.iter().filter(|&&at| is_inside(case.frame, at)).count().max(1) as f64;
    avg_pool(s, (case.frame, &frame), case.window, (&mut out, case.out.stride, case.out.at));
    let mean = |window: &[usize], lane| window.iter().map(|at| x[at + lane]).sum::<f64>() / count(window);
    close("avg_pool", &out, &case.written(mean))?; // K1, A3

    let (g, mut dx) = (cast(&case.g.data), cast::<S::E>(&case.dx));
    avg_pool_input(s, case.frame, case.window, case.g.block(&g), &mut dx);
    let mut expected: Vec<Sum> = case.dx.iter().map(|&x| Sum::of(x)).collect();
    for (p, window) in case.windows() {
        for at in window.iter().filter(|&&at| is_inside(case.frame, at)) {
            (0..LANES).for_each(|lane| expected[at + lane].add(case.g.get(p, lane) / count(&window)));
        }
    }
    let inside = |i: &usize| is_inside(case.frame, *i); // the border means nothing
    let (dx, expected): (Vec<_>, Vec<_>) = (0..dx.len()).filter(inside).map(|i| (dx[i], expected[i])).unzip();
    close("avg_pool_input", &dx, &expected) // K2
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn pools(case in arb_case()) {
        on_every_isa!(maxima(&case));
        on_every_isa!(means(&case));
    }

    /// K1 the mean of all lifted pixels, K2 each of which gets the same share of the gradient.
    #[test]
    fn global_averages(
        pixels in 1..=361usize, (stride, at) in arb_place(), activation in arb_activation(), seed: u64,
    ) {
        fn check<S: Isa>(s: S, image: &Image, lifting: &Lifting<f64>, (g, old): (&[f64; LANES], &[f64])) -> Checked {
            let (x, cast_lifting, pixels) = (cast::<S::E>(&image.data), lifting.cast(), image.data.len() / image.stride);
            let got = global_average(s, (image.block(&x), &cast_lifting.lift()), pixels);
            let mut expected = [Sum::default(); LANES];
            for (lane, sum) in expected.iter_mut().enumerate() {
                (0..pixels).for_each(|p| sum.add(lifting.value(lane, image.get(p, lane)) / pixels as f64));
            }
            close("global_average", &got, &expected)?; // K1
            for add in [false, true] {
                let mut dx = if add { cast(old) } else { stale::<S::E>(old.len()) };
                global_average_input(s, &cast_lanes(g), pixels, (&mut dx, add));
                let share = |i: usize| g[i % LANES] / pixels as f64 + if add { old[i] } else { 0.0 };
                let expected: Vec<_> = (0..dx.len()).map(|i| Sum { value: share(i), size: 2.0 }).collect();
                close("global_average_input", &dx, &expected)?; // K2
            }
            Ok(())
        }
        let mut draw = Draw(seed);
        let image = Image { data: draw.grid(pixels * stride), stride, at };
        let (lifting, g, old) = (Lifting::draw(&mut draw, activation), draw.lanes(), draw.reals(pixels * LANES));
        on_every_isa!(check(&image, &lifting, (&g, &old)));
    }
}

/// K1 what is not a number comes out of every window that holds it, wherever in the window it is, K2 also next to infinities, K3 and out
/// of no other window. K4 Infinities alone come out as such.
#[test]
fn what_is_no_number_is_not_hidden() -> Checked {
    fn check<S: Isa>(s: S, kernel: usize, odd: usize, others: f64) -> Checked {
        let frame = Frame { inner: Plane { h: 6, w: 6 }, pad: 1 };
        let window = Window { kernel, stride: 1, dilation: 1 };
        let mut x = vec![S::E::from_f64(f64::NEG_INFINITY); frame.len()];
        for p in 0..36 {
            let value = if p == odd { f64::NAN } else { others };
            x[((p / 6 + 1) * frame.w() + p % 6 + 1) * LANES + 5] = S::E::from_f64(value);
        }
        let plane = window.output(frame);
        let mut out = stale(plane.pixels() * LANES);
        max_pool(s, (frame, &x), window, (&mut out, LANES, 0));
        for (p, got) in out.iter().skip(5).step_by(LANES).enumerate() {
            let (y, x) = (p / plane.w, p % plane.w);
            let holds = (y..y + kernel).contains(&(odd / 6 + 1)) && (x..x + kernel).contains(&(odd % 6 + 1));
            let corner = kernel == 1 && !((1..7).contains(&y) && (1..7).contains(&x));
            let expected = if corner { f64::NEG_INFINITY } else { others };
            prop_assert!(
                if holds { got.to_f64().is_nan() } else { got.to_f64() == expected },
                "{} at {}",
                got.to_f64(),
                p
            );
        }
        Ok(())
    }
    for kernel in [1, 2, 3, 4] {
        for odd in [0, 7, 14, 35, 99] {
            for others in [1.0, f64::INFINITY, f64::NEG_INFINITY] {
                on_every_isa!(check(kernel, odd, others)); // K1, K2, K3, K4
            }
        }
    }
    Ok(())
}

/// Means hide it neither: K1 a sum with such a term is none.
#[test]
fn means_hide_nothing() {
    let s = Portable::<f64>::new();
    let frame = Frame { inner: Plane { h: 2, w: 2 }, pad: 0 };
    let mut x = vec![1.0; frame.len()];
    x[LANES] = f64::NAN;
    let (mut out, lifting) = (stale(LANES), Lifting { activation: Activation::RELU, ..Lifting::identity() });
    avg_pool(s, (frame, &x), Window { kernel: 2, stride: 2, dilation: 1 }, (&mut out, LANES, 0));
    let lift: Lift<'_, f64> = lifting.lift();
    let mean = global_average(s, (gram_kernels::Block::alone(&x), &lift), 4);
    for got in [out, mean.to_vec()] {
        assert!(got[0].is_nan() && got[1..].iter().all(|&x| x == 1.0), "{got:?}");
    }
}
