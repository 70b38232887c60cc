//! Kernels on the best instruction set, one thread, eight images one after the other: elements per second are FLOP/s (two per
//! multiply–add, recomputed ones included), but for pools, where they are input pixels times channels.
//!
//! Names end in channels @ rows (and columns); `sep` is a depthwise 3x3 with norm, activation and 1x1 as the training engine runs them.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use gram_kernels::*;

const IMAGES: usize = 8;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Numbers without a pattern.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

const ONES: [f32; LANES] = [1.0; LANES];
const ZEROS: [f32; LANES] = [0.0; LANES];
const LIFT: Lift<'static, f32> = Lift { scale: &ONES, shift: &ZEROS, activation: Activation::RELU };

fn measure(group: &mut Group<'_>, name: &str, flops_per_image: usize, mut image: impl FnMut(usize)) {
    group.throughput(Throughput::Elements((IMAGES * flops_per_image) as u64));
    group.bench_function(name, |b| b.iter(|| (0..IMAGES).for_each(&mut image)));
}

fn plane(side: usize) -> Plane {
    Plane { h: side, w: side }
}

/// `channels -> width @ side²`, block by block: what the two passes over a 1x1 convolution do.
fn pointwise_convolutions<S: Isa<E = f32>>(c: &mut Criterion, s: S) {
    let mut group = c.benchmark_group("pointwise");
    for (channels, width, side) in [(48, 16, 32), (96, 32, 16), (256, 64, 8)] {
        let (pixels, name) = (side * side, format!("{channels}_{width}@{side}"));
        let (x, w, g) =
            (numbers(IMAGES * pixels * channels), numbers(channels * width), numbers(IMAGES * pixels * width));
        let (mut z, mut dx, mut dw) = (g.clone(), numbers(pixels * LANES), w.clone());
        let mut scratch = vec![0.0; POINTWISE_SCRATCH];
        let flops = 2 * pixels * channels * width;
        let block = |i: usize, at: usize| Block { data: &x[i * pixels * channels..], stride: channels, at };
        measure(&mut group, &format!("forward/{name}"), flops, |i| {
            for at in (0..channels).step_by(LANES) {
                let weights = Weights { data: &w[at * width..], depth: LANES, width };
                let z = &mut z[i * pixels * width..];
                pointwise(s, (block(i, at), &LIFT), pixels, weights, &mut scratch, (z, at > 0));
            }
            black_box(&mut z);
        });
        measure(&mut group, &format!("backward/{name}"), 2 * flops, |i| {
            for at in (0..channels).step_by(LANES) {
                let g = &g[i * pixels * width..];
                let dw = &mut dw[at * width..];
                pointwise_weights(s, (block(i, at), &LIFT), pixels, g, (LANES, width), &mut scratch, dw);
                let weights = TransposedWeights { data: &w[at * width..], n_out: width };
                pointwise_input(s, (g, width), weights, pixels, (&mut dx, false));
            }
            black_box((&mut dx, &mut dw));
        });
    }
}

/// `channels @ side²`, 3x3, stride 1: the fused passes of separable convolutions (with 16 output channels for each 48), and plain ones.
fn separable_convolutions<S: Isa<E = f32>>(c: &mut Criterion, s: S) {
    let mut group = c.benchmark_group("sep");
    for (channels, width, side) in [(48, 16, 32), (96, 32, 16), (64, 64, 8)] {
        let (frame, pixels, name) =
            (Frame { inner: plane(side), pad: 1 }, side * side, format!("{channels}_{width}@{side}"));
        let (x, spatial) = (numbers(IMAGES * frame.len()), numbers(9 * LANES));
        let (w, g) = (numbers(LANES * width), numbers(IMAGES * pixels * width));
        let (mut z, mut dx, mut dw) = (g.clone(), numbers(pixels * LANES), w.clone());
        let (mut scratch, mut g_frame, mut d_spatial) = (vec![0.0; sep_scratch(side)], x.clone(), [[0.0; LANES]; 9]);
        let (blocks, depthwise, product) = (channels / LANES, 2 * 9 * pixels * LANES, 2 * pixels * LANES * width);
        let part = |i: usize| {
            let x = &x[i * frame.len()..];
            Depthwise { frame, x, kernel: 3, weights: &spatial, ahead: Ahead::block(Block::alone(x), 0) }
        };
        let gradient = |i: usize| {
            let weights = TransposedWeights { data: &w, n_out: width };
            SepGradient { dw: part(i), lift: LIFT, g: &g[i * pixels * width..], width, weights }
        };
        let mut sums = ShiftedSums::new(ZEROS);
        measure(&mut group, &format!("moments/{name}"), blocks * depthwise, |i| {
            (0..blocks).for_each(|_| sep_moments(s, part(i), &mut sums));
        });
        measure(&mut group, &format!("forward/{name}"), blocks * (depthwise + product), |i| {
            for block in 0..blocks {
                let weights = Weights { data: &w, depth: LANES, width };
                sep(
                    s,
                    (part(i), 0..frame.inner.h),
                    &LIFT,
                    weights,
                    &mut scratch,
                    (&mut z[i * pixels * width..], block > 0),
                );
            }
            black_box(&mut z);
        });
        let mut sums = GradientSums::new(ZEROS);
        measure(&mut group, &format!("weights/{name}"), blocks * (depthwise + 2 * product), |i| {
            (0..blocks)
                .for_each(|_| sep_weights(s, (gradient(i), 0..frame.inner.h), LANES, &mut scratch, &mut dw, &mut sums));
        });
        let norm = Coefficients { a: &ONES, b: &ZEROS, c: &ZEROS };
        measure(&mut group, &format!("input/{name}"), blocks * (3 * depthwise + product), |i| {
            for _ in 0..blocks {
                let scratch = (&mut scratch[..], &mut g_frame[..]);
                sep_input(s, gradient(i), norm, scratch, &mut d_spatial, (&mut dx, false));
            }
            black_box((&mut dx, &mut d_spatial));
        });
    }
}

/// 3x3, `channels @ side²`, by the kernels for any window.
fn depthwise_convolutions<S: Isa<E = f32>>(c: &mut Criterion, s: S) {
    let mut group = c.benchmark_group("depthwise");
    for (channels, side, stride) in [(48, 32, 1), (96, 16, 1), (64, 8, 1), (96, 32, 2)] {
        let (frame, window) = (Frame { inner: plane(side), pad: 1 }, Window { kernel: 3, stride, dilation: 1 });
        let (pixels, name) = (window.output(frame).pixels(), format!("{channels}@{side}/{stride}"));
        let (x, w, g) = (numbers(IMAGES * frame.len()), numbers(9 * LANES), numbers(IMAGES * pixels * channels));
        let (mut z, mut dx, mut dw) = (g.clone(), numbers(frame.len()), [[0.0; LANES]; 9]);
        let (flops, image) = (2 * 9 * pixels * channels, pixels * channels);
        measure(&mut group, &format!("forward/{name}"), flops, |i| {
            for at in (0..channels).step_by(LANES) {
                depthwise(s, (frame, &x[i * frame.len()..]), window, &w, (&mut z[i * image..], channels, at));
            }
            black_box(&mut z);
        });
        measure(&mut group, &format!("backward/{name}"), 2 * flops, |i| {
            for at in (0..channels).step_by(LANES) {
                let g = Block { data: &g[i * image..], stride: channels, at };
                depthwise_weights(s, (frame, &x[i * frame.len()..]), window, g, &mut dw);
                depthwise_input(s, frame, window, g, &w, &mut dx);
            }
            black_box((&mut dx, &mut dw));
        });
    }
}

/// 3x3, `channels -> width @ side² / stride`.
fn convolutions<S: Isa<E = f32>>(c: &mut Criterion, s: S) {
    let mut group = c.benchmark_group("conv");
    for (channels, width, side, stride) in
        [(3, 16, 32, 1), (3, 32, 32, 2), (16, 16, 32, 1), (32, 64, 16, 2), (64, 64, 8, 1)]
    {
        let (frame, window) = (Frame { inner: plane(side), pad: 1 }, Window { kernel: 3, stride, dilation: 1 });
        let (pixels, name) = (window.output(frame).pixels(), format!("{channels}_{width}@{side}/{stride}"));
        let (depth, blocks) = (channels.min(LANES), channels.div_ceil(LANES));
        let (x, w, g) = (numbers(IMAGES * frame.len()), numbers(9 * LANES * width), numbers(IMAGES * pixels * width));
        let (mut z, mut dx, mut dw) = (g.clone(), numbers(frame.len()), w.clone());
        let flops = 2 * 9 * pixels * channels * width;
        let from = |i: usize| (frame, &x[i * frame.len()..]);
        measure(&mut group, &format!("forward/{name}"), flops, |i| {
            for block in 0..blocks {
                let z = &mut z[i * pixels * width..];
                conv(s, from(i), window, &w, (depth, width), (z, block > 0));
            }
            black_box(&mut z);
        });
        measure(&mut group, &format!("weights/{name}"), flops, |i| {
            (0..blocks)
                .for_each(|_| conv_weights(s, from(i), window, &g[i * pixels * width..], (depth, width), &mut dw));
            black_box(&mut dw);
        });
        if depth == LANES {
            measure(&mut group, &format!("input/{name}"), flops, |i| {
                let g = (&g[i * pixels * width..], width);
                (0..blocks).for_each(|_| conv_input(s, frame, window, g, (&w, width), &mut dx));
                black_box(&mut dx);
            });
        }
    }
}

/// 16 channels at 32²; elements are numbers that are read.
fn pools<S: Isa<E = f32>>(c: &mut Criterion, s: S) {
    let mut group = c.benchmark_group("max_pool");
    for (kernel, stride, pad) in [(2, 2, 0), (3, 1, 1)] {
        let (frame, window) = (Frame { inner: plane(32), pad }, Window { kernel, stride, dilation: 1 });
        let (pixels, name) = (window.output(frame).pixels(), format!("{kernel}/{stride}"));
        let (x, g) = (numbers(IMAGES * frame.len()), numbers(IMAGES * pixels * LANES));
        let (mut z, mut dx) = (g.clone(), numbers(frame.len()));
        let read = 32 * 32 * LANES;
        measure(&mut group, &format!("forward/{name}"), read, |i| {
            max_pool(s, (frame, &x[i * frame.len()..]), window, (&mut z[i * pixels * LANES..], LANES, 0));
            black_box(&mut z);
        });
        measure(&mut group, &format!("backward/{name}"), read, |i| {
            let g = Block::alone(&g[i * pixels * LANES..]);
            max_pool_input(s, (frame, &x[i * frame.len()..]), window, g, &mut dx);
            black_box(&mut dx);
        });
    }
}

/// The same, lifted on the way: what all kernels that read frames need first.
fn frames<S: Isa<E = f32>>(c: &mut Criterion, s: S) {
    let mut group = c.benchmark_group("frame");
    let (frame, channels) = (Frame { inner: plane(32), pad: 1 }, 48);
    let (x, mut out) = (numbers(IMAGES * 32 * 32 * channels), numbers(frame.len()));
    measure(&mut group, "fill/48@32", 32 * 32 * channels, |i| {
        for at in (0..channels).step_by(LANES) {
            let block = Block { data: &x[i * 32 * 32 * channels..], stride: channels, at };
            fill_frame(s, block, &LIFT, frame, 0.0, &mut out);
            black_box(&mut out);
        }
    });
}

fn all<S: Isa<E = f32>>(c: &mut Criterion, s: S) {
    pointwise_convolutions(c, s);
    separable_convolutions(c, s);
    depthwise_convolutions(c, s);
    convolutions(c, s);
    pools(c, s);
    frames(c, s);
}

fn best(c: &mut Criterion) {
    #[cfg(target_arch = "x86_64")]
    match (Avx512::detect(), Avx2::detect()) {
        (Some(s), _) => return all(c, s),
        (None, Some(s)) => return all(c, s),
        (None, None) => {}
    }
    all(c, Portable::<f32>::new());
}

criterion_group!(benches, best);
criterion_main!(benches);
