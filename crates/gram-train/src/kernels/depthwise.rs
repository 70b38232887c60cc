//! Depthwise convolution on padded planes laid out flat.
//!
//! With the padding written out, a kernel tap is one constant offset in the flat plane, so that every tap is a long shifted
//! multiply–add; positions that are no output pixel are computed and dropped. Planes of several images lie behind each other,
//! which keeps the loops long for small images. Strides compute all positions and keep some.

use rayon::prelude::*;

use super::conv::{Geometry, Gradients};
use super::{LANES, Real, add_lanes, add_products, add_scaled, images_per_chunk, sum_in_order, sum_lanes, vectorised};

/// Flat elements that are worked on at once, so that they stay in the L1 cache.
const FLAT_ELEMENTS: usize = 2048;

/// Positions that are computed together.
const BLOCK: usize = 2 * LANES;

/// The depthwise convolution of `x` `[n, c, h, w]` with `weight` `[c, 1, k, k]`, plus `bias` `[c]` if there is one.
pub(crate) fn forward<T: Real>(geometry: &Geometry, x: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
    let layout = Flat::new(*geometry);
    let mut y = vec![T::zero(); geometry.n * geometry.output_len()];
    let images = images_per_chunk(geometry.n);
    y.par_chunks_mut(images * geometry.output_len())
        .zip(x.par_chunks(images * geometry.input_len()))
        .for_each(|(y, x)| vectorised(Forward { layout: &layout, x, weight, bias, y }));
    y
}

/// Gradients for input (if `wants_x`) and weight, given the output's gradient `g`.
pub(crate) fn backward<T: Real>(geometry: &Geometry, x: &[T], weight: &[T], g: &[T], wants_x: bool) -> Gradients<T> {
    let layout = Flat::new(*geometry);
    let images = images_per_chunk(geometry.n);
    let (input_len, output_len) = (images * geometry.input_len(), images * geometry.output_len());
    let job = |x, g, dx| Backward { layout: &layout, x, weight, g, dx };
    if wants_x {
        let mut dx = vec![T::zero(); geometry.n * geometry.input_len()];
        let partials: Vec<Vec<T>> = dx
            .par_chunks_mut(input_len)
            .zip(x.par_chunks(input_len))
            .zip(g.par_chunks(output_len))
            .map(|((dx, x), g)| vectorised(job(x, g, Some(dx))))
            .collect();
        return Gradients { x: Some(dx), weight: sum_in_order(partials, geometry.weight_len()) };
    }
    let chunks = x.par_chunks(input_len).zip(g.par_chunks(output_len));
    let partials: Vec<Vec<T>> = chunks.map(|(x, g)| vectorised(job(x, g, None))).collect();
    Gradients { x: None, weight: sum_in_order(partials, geometry.weight_len()) }
}

/// Where pixels lie in flat planes.
struct Flat {
    geometry: Geometry,
    /// Elements of a padded row.
    pitch: usize,
    /// Elements of a padded plane.
    plane: usize,
    /// Offset of each kernel tap.
    taps: Vec<usize>,
    /// The largest offset.
    reach: usize,
    /// Images worked on at once.
    images: usize,
}

impl Flat {
    fn new(geometry: Geometry) -> Self {
        let Geometry { kernel, padding, dilation, h, w, .. } = geometry;
        let pitch = w + 2 * padding;
        let plane = pitch * (h + 2 * padding);
        let tap = |t: usize| dilation * (t / kernel * pitch + t % kernel);
        let taps: Vec<usize> = (0..kernel * kernel).map(tap).collect();
        let reach = tap(kernel * kernel - 1);
        Self { geometry, pitch, plane, taps, reach, images: (FLAT_ELEMENTS / plane).max(1) }
    }

    /// Positions of `images` planes, rounded up to whole blocks.
    fn positions(&self, images: usize) -> usize {
        (images * self.plane).next_multiple_of(BLOCK)
    }

    /// Writes the planes of one channel of `images` images into `padded`, whose padding is zero already.
    #[inline(always)]
    fn pad<T: Real>(&self, channel: usize, x: &[T], padded: &mut [T]) {
        let Geometry { padding, h, w, .. } = self.geometry;
        let images = x.chunks_exact(self.geometry.input_len());
        for (image, padded) in images.zip(padded.chunks_exact_mut(self.plane)) {
            let rows = image[channel * h * w..(channel + 1) * h * w].chunks_exact(w);
            for (row, to) in rows.zip(padded[padding * self.pitch..].chunks_mut(self.pitch)) {
                copy_row(&mut to[padding..padding + w], row);
            }
        }
    }

    /// The transpose of [`Self::pad`]: takes the image out of padded planes.
    #[inline(always)]
    fn unpad<T: Real>(&self, channel: usize, padded: &[T], x: &mut [T]) {
        let Geometry { padding, h, w, .. } = self.geometry;
        let images = x.chunks_exact_mut(self.geometry.input_len());
        for (image, padded) in images.zip(padded.chunks_exact(self.plane)) {
            let rows = image[channel * h * w..(channel + 1) * h * w].chunks_exact_mut(w);
            for (row, from) in rows.zip(padded[padding * self.pitch..].chunks(self.pitch)) {
                copy_row(row, &from[padding..padding + w]);
            }
        }
    }

    /// Takes the output pixels of one channel out of `positions`.
    #[inline(always)]
    fn keep<T: Real>(&self, channel: usize, positions: &[T], y: &mut [T]) {
        let Geometry { stride, h_out, w_out, .. } = self.geometry;
        let images = y.chunks_exact_mut(self.geometry.output_len());
        for (image, positions) in images.zip(positions.chunks_exact(self.plane)) {
            let rows = image[channel * h_out * w_out..(channel + 1) * h_out * w_out].chunks_exact_mut(w_out);
            for (row, from) in rows.zip(positions.chunks(stride * self.pitch)) {
                if stride == 1 {
                    copy_row(row, &from[..w_out]);
                } else {
                    row.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }

    /// The transpose of [`Self::keep`]: writes an output-shaped slice to its positions; all others stay zero.
    #[inline(always)]
    fn place<T: Real>(&self, channel: usize, g: &[T], positions: &mut [T]) {
        let Geometry { stride, h_out, w_out, .. } = self.geometry;
        let images = g.chunks_exact(self.geometry.output_len());
        for (image, positions) in images.zip(positions.chunks_exact_mut(self.plane)) {
            let rows = image[channel * h_out * w_out..(channel + 1) * h_out * w_out].chunks_exact(w_out);
            for (row, to) in rows.zip(positions.chunks_mut(stride * self.pitch)) {
                if stride == 1 {
                    copy_row(&mut to[..w_out], row);
                } else {
                    to.iter_mut().step_by(stride).zip(row).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

/// `out[i] = bias + Σ_t weight[t] · data[i + offset(t)]`, a block of positions at a time.
#[inline(always)]
fn correlate<T: Real>(data: &[T], taps: impl Iterator<Item = (usize, T)> + Clone, bias: T, out: &mut [T]) {
    for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let mut sums = [[bias; LANES]; BLOCK / LANES];
        for (offset, weight) in taps.clone() {
            let start = block * BLOCK + offset;
            let data = data[start..start + BLOCK].as_chunks::<LANES>().0;
            for half in 0..BLOCK / LANES {
                sums[half] = add_scaled(sums[half], weight, &data[half]);
            }
        }
        for (out, sums) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            *out = sums;
        }
    }
}

/// `Σ_i a[i] · b[i]` over whole blocks.
#[inline(always)]
fn inner_product<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [[T::zero(); LANES]; BLOCK / LANES];
    for (a, b) in a.as_chunks::<BLOCK>().0.iter().zip(b.as_chunks::<BLOCK>().0) {
        let (a, b) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
        for half in 0..BLOCK / LANES {
            sums[half] = add_products(sums[half], &a[half], &b[half]);
        }
    }
    sum_lanes(add_lanes(sums[0], &sums[1]))
}

#[inline(always)]
fn copy_row<T: Real>(to: &mut [T], from: &[T]) {
    // Rows are short: a call of memcpy would cost more than the copy.
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

struct Forward<'a, T> {
    layout: &'a Flat,
    x: &'a [T],
    weight: &'a [T],
    bias: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<T: Real> pulp::NullaryFnOnce for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Flat { geometry, images, ref taps, reach, .. } = *self.layout;
        let positions = self.layout.positions(images);
        let mut padded = vec![T::zero(); positions + reach];
        let mut sums = vec![T::zero(); positions];
        let parts = self.x.chunks(images * geometry.input_len());
        for (x, y) in parts.zip(self.y.chunks_mut(images * geometry.output_len())) {
            for (channel, weight) in self.weight.chunks_exact(taps.len()).enumerate() {
                self.layout.pad(channel, x, &mut padded);
                let bias = self.bias.map_or(T::zero(), |bias| bias[channel]);
                let len = self.layout.positions(x.len() / geometry.input_len());
                correlate(&padded, taps.iter().copied().zip(weight.iter().copied()), bias, &mut sums[..len]);
                self.layout.keep(channel, &sums, y);
            }
        }
    }
}

struct Backward<'a, T> {
    layout: &'a Flat,
    x: &'a [T],
    weight: &'a [T],
    g: &'a [T],
    dx: Option<&'a mut [T]>,
}

impl<T: Real> pulp::NullaryFnOnce for Backward<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn call(mut self) -> Vec<T> {
        let Flat { geometry, images, ref taps, reach, .. } = *self.layout;
        let positions = self.layout.positions(images);
        let mut padded = vec![T::zero(); positions + reach];
        // Behind `reach` zeros, so that every tap can look back.
        let mut placed = vec![T::zero(); reach + positions];
        let mut sums = vec![T::zero(); positions];
        let mut dw = vec![T::zero(); self.weight.len()];
        let (input_len, output_len) = (images * geometry.input_len(), images * geometry.output_len());
        for (part, (x, g)) in self.x.chunks(input_len).zip(self.g.chunks(output_len)).enumerate() {
            // The last part may hold fewer images: what the others left behind must not count.
            let len = self.layout.positions(x.len() / geometry.input_len());
            placed[reach..].fill(T::zero());
            for (channel, weight) in self.weight.chunks_exact(taps.len()).enumerate() {
                self.layout.pad(channel, x, &mut padded);
                self.layout.place(channel, g, &mut placed[reach..]);
                for (dw, &offset) in dw[channel * taps.len()..].iter_mut().zip(taps) {
                    *dw += inner_product(&placed[reach..reach + len], &padded[offset..offset + len]);
                }
                if let Some(dx) = self.dx.as_deref_mut() {
                    let back = taps.iter().map(|&offset| reach - offset).zip(weight.iter().copied());
                    correlate(&placed, back, T::zero(), &mut sums[..len]);
                    let dx = &mut dx[part * input_len..part * input_len + x.len()];
                    self.layout.unpad(channel, &sums, dx);
                }
            }
        }
        dw
    }
}
