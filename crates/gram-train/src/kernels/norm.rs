//! Batch norm per channel, with the activation behind it in the same pass.

use gram_ir::Activation;
use rayon::prelude::*;

use super::activation::{Scalar, Visitor, visit};
use super::{LANES, Lanes, Real, images_per_chunk, sum_in_order, sum_lanes, vectorised};

/// Mean and (biased) variance of each channel.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f64>,
    pub(crate) var: Vec<f64>,
    /// Elements of each channel that they were taken over.
    pub(crate) count: usize,
}

/// What is normalised: `[n, channels, pixels]`, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalise {
    pub(crate) n: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: usize,
    pub(crate) eps: f64,
    pub(crate) activation: Option<Activation>,
}

impl Normalise {
    fn image_len(&self) -> usize {
        self.channels * self.pixels
    }

    fn chunk_len(&self) -> usize {
        images_per_chunk(self.n) * self.image_len()
    }

    /// Mean and variance of the batch.
    ///
    /// Each chunk takes its mean first and its squared deviations from that mean after it; chunks are merged in f64, in order
    /// (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
    pub(crate) fn moments<T: Real>(&self, x: &[T]) -> Moments {
        let chunks = x.par_chunks(self.chunk_len());
        let parts: Vec<Moments> = chunks.map(|x| vectorised(ChunkMoments { norm: self, x })).collect();
        let mut parts = parts.into_iter();
        let empty = || Moments { mean: vec![0.0; self.channels], var: vec![0.0; self.channels], count: 0 };
        let mut all = parts.next().unwrap_or_else(empty);
        for part in parts {
            let (before, added) = (all.count as f64, part.count as f64);
            let total = before + added;
            let old = all.mean.iter_mut().zip(&mut all.var);
            for ((mean, var), (other_mean, other_var)) in old.zip(part.mean.iter().zip(&part.var)) {
                let delta = other_mean - *mean;
                *var = (*var * before + other_var * added) / total + delta * delta * before * added / (total * total);
                *mean += delta * added / total;
            }
            all.count += part.count;
        }
        all
    }

    /// `activation((x - mean) / sqrt(var + eps) * scale + shift)`.
    pub(crate) fn forward<T: Real>(&self, x: &[T], moments: &Moments, scale: &[T], shift: &[T]) -> Vec<T> {
        visit(self.activation, Apply { norm: self, x, affine: &self.affine(moments, scale, shift) })
    }

    /// Gradients for the input, scale and shift, given the output's gradient.
    ///
    /// With `batch`, the moments are those of `x` itself and depend on it; else they are constants.
    pub(crate) fn backward<T: Real>(
        &self,
        x: &[T],
        g: &[T],
        moments: &Moments,
        (scale, shift): (&[T], &[T]),
        batch: bool,
    ) -> (Vec<T>, Vec<T>, Vec<T>) {
        let affine = self.affine(moments, scale, shift);
        visit(self.activation, Differentiate { norm: self, x, g, moments, affine: &affine, batch })
    }

    fn affine<T: Real>(&self, moments: &Moments, scale: &[T], shift: &[T]) -> Vec<Affine<T>> {
        let moments = moments.mean.iter().zip(&moments.var);
        let affine = |(((mean, var), scale), shift): (((&f64, &f64), &T), &T)| Affine {
            mean: T::from_f64(*mean),
            factor: T::from_f64(scale.to_f64() / (var + self.eps).sqrt()),
            shift: *shift,
        };
        moments.zip(scale).zip(shift).map(affine).collect()
    }
}

/// One channel's map `(x - mean) * factor + shift`.
#[derive(Clone, Copy)]
struct Affine<T> {
    mean: T,
    factor: T,
    shift: T,
}

impl<T: Real> Affine<T> {
    #[inline(always)]
    fn value(&self, x: T) -> T {
        (x - self.mean) * self.factor + self.shift
    }
}

/// `lanes` plus `f` of every element.
#[inline(always)]
fn add_to_lanes<T: Real>(mut lanes: Lanes<T>, x: &[T], f: impl Fn(T) -> T) -> Lanes<T> {
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for i in 0..LANES {
            lanes[i] += f(x[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    lanes
}

struct ChunkMoments<'a, T> {
    norm: &'a Normalise,
    x: &'a [T],
}

impl<T: Real> pulp::NullaryFnOnce for ChunkMoments<'_, T> {
    type Output = Moments;

    #[inline(always)]
    fn call(self) -> Moments {
        let Normalise { channels, pixels, .. } = *self.norm;
        let count = self.x.len() / channels;
        let (mut mean, mut var) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
        for channel in 0..channels {
            let planes = || {
                let images = self.x.chunks_exact(self.norm.image_len());
                images.map(move |image| &image[channel * pixels..(channel + 1) * pixels])
            };
            let mut sums = [T::zero(); LANES];
            for plane in planes() {
                sums = add_to_lanes(sums, plane, |x| x);
            }
            let average = sum_lanes(sums).to_f64() / count as f64;
            let centre = T::from_f64(average);
            let mut squares = [T::zero(); LANES];
            for plane in planes() {
                squares = add_to_lanes(squares, plane, |x| (x - centre) * (x - centre));
            }
            mean.push(average);
            var.push(sum_lanes(squares).to_f64() / count as f64);
        }
        Moments { mean, var, count }
    }
}

struct Apply<'a, T> {
    norm: &'a Normalise,
    x: &'a [T],
    affine: &'a [Affine<T>],
}

impl<T: Real> Visitor for Apply<'_, T> {
    type Output = Vec<T>;

    fn visit(self, scalar: impl Scalar) -> Vec<T> {
        let len = self.norm.chunk_len();
        let mut y = vec![T::zero(); self.x.len()];
        y.par_chunks_mut(len).zip(self.x.par_chunks(len)).for_each(|(y, x)| {
            vectorised(ApplyChunk { scalar, pixels: self.norm.pixels, affine: self.affine, x, y });
        });
        y
    }
}

struct ApplyChunk<'a, T, S> {
    scalar: S,
    pixels: usize,
    affine: &'a [Affine<T>],
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real, S: Scalar> pulp::NullaryFnOnce for ApplyChunk<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let planes = self.x.chunks_exact(self.pixels).zip(self.y.chunks_exact_mut(self.pixels));
        for ((x, y), affine) in planes.zip(self.affine.iter().cycle()) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = self.scalar.value(affine.value(x));
            }
        }
    }
}

struct Differentiate<'a, T> {
    norm: &'a Normalise,
    x: &'a [T],
    g: &'a [T],
    moments: &'a Moments,
    affine: &'a [Affine<T>],
    batch: bool,
}

impl<T: Real> Visitor for Differentiate<'_, T> {
    type Output = (Vec<T>, Vec<T>, Vec<T>);

    fn visit(self, scalar: impl Scalar) -> Self::Output {
        let Self { norm, affine, .. } = self;
        let len = norm.chunk_len();
        let chunks = || self.x.par_chunks(len).zip(self.g.par_chunks(len));
        // Per channel Σ g' and Σ g'·(x - mean), g' being the gradient in front of the activation.
        let sums: Vec<Vec<f64>> = chunks().map(|(x, g)| vectorised(SumChunk { scalar, norm, affine, x, g })).collect();
        let sums = sum_in_order(sums, 2 * norm.channels);
        let (sums_g, sums_gx) = sums.split_at(norm.channels);
        let deviation: Vec<f64> = self.moments.var.iter().map(|var| (var + norm.eps).sqrt()).collect();
        let count = self.moments.count as f64;
        let feedback: Vec<(T, T)> = (0..norm.channels)
            .map(|c| {
                let (mean_g, slope) = (sums_g[c] / count, sums_gx[c] / (count * deviation[c] * deviation[c]));
                if self.batch { (T::from_f64(mean_g), T::from_f64(slope)) } else { (T::zero(), T::zero()) }
            })
            .collect();
        let mut dx = vec![T::zero(); self.x.len()];
        dx.par_chunks_mut(len).zip(chunks()).for_each(|(dx, (x, g))| {
            vectorised(DifferentiateChunk { scalar, norm, affine, feedback: &feedback, x, g, dx });
        });
        let d_scale = sums_gx.iter().zip(&deviation).map(|(sum, deviation)| T::from_f64(sum / deviation)).collect();
        let d_shift = sums_g.iter().map(|&sum| T::from_f64(sum)).collect();
        (dx, d_scale, d_shift)
    }
}

struct SumChunk<'a, T, S> {
    scalar: S,
    norm: &'a Normalise,
    affine: &'a [Affine<T>],
    x: &'a [T],
    g: &'a [T],
}

impl<T: Real, S: Scalar> pulp::NullaryFnOnce for SumChunk<'_, T, S> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn call(self) -> Vec<f64> {
        let Normalise { channels, pixels, .. } = *self.norm;
        let image_len = self.norm.image_len();
        let mut sums = vec![0.0; 2 * channels];
        for (channel, affine) in self.affine.iter().enumerate() {
            let (mut sum_g, mut sum_gx) = ([T::zero(); LANES], [T::zero(); LANES]);
            for (x, g) in self.x.chunks_exact(image_len).zip(self.g.chunks_exact(image_len)) {
                let plane = channel * pixels..(channel + 1) * pixels;
                let (x, rest_x) = x[plane.clone()].as_chunks::<LANES>();
                let (g, rest_g) = g[plane].as_chunks::<LANES>();
                for (x, g) in x.iter().zip(g) {
                    for i in 0..LANES {
                        let g = g[i] * self.scalar.slope(affine.value(x[i]));
                        sum_g[i] += g;
                        sum_gx[i] += g * (x[i] - affine.mean);
                    }
                }
                for (i, (&x, &g)) in rest_x.iter().zip(rest_g).enumerate() {
                    let g = g * self.scalar.slope(affine.value(x));
                    sum_g[i] += g;
                    sum_gx[i] += g * (x - affine.mean);
                }
            }
            sums[channel] = sum_lanes(sum_g).to_f64();
            sums[channels + channel] = sum_lanes(sum_gx).to_f64();
        }
        sums
    }
}

struct DifferentiateChunk<'a, T, S> {
    scalar: S,
    norm: &'a Normalise,
    affine: &'a [Affine<T>],
    feedback: &'a [(T, T)],
    x: &'a [T],
    g: &'a [T],
    dx: &'a mut [T],
}

impl<T: Real, S: Scalar> pulp::NullaryFnOnce for DifferentiateChunk<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let pixels = self.norm.pixels;
        let planes = self.x.chunks_exact(pixels).zip(self.g.chunks_exact(pixels)).zip(self.dx.chunks_exact_mut(pixels));
        let channels = self.affine.iter().zip(self.feedback).cycle();
        for (((x, g), dx), (affine, &(mean_g, slope))) in planes.zip(channels) {
            for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
                let g = g * self.scalar.slope(affine.value(x));
                *dx = affine.factor * (g - mean_g - (x - affine.mean) * slope);
            }
        }
    }
}
