//! Convolution as products on gathered panels ("im2col" of [`LANES`] output pixels at a time), any geometry.

use rayon::prelude::*;

use super::gemm::{PackedRows, add_transposed_product, block_product};
use super::{LANES, Real, add_lanes, images_per_chunk, sum_in_order, vectorised};

/// Elements of gathered input that the weight gradient keeps at once, so that they stay in the L2 cache.
const BLOCK_ELEMENTS: usize = 1 << 15;

/// Sizes of a convolution of one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) n: usize,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) groups: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) h_out: usize,
    pub(crate) w_out: usize,
}

impl Geometry {
    pub(crate) fn input_len(&self) -> usize {
        self.c_in * self.h * self.w
    }

    pub(crate) fn output_len(&self) -> usize {
        self.c_out * self.h_out * self.w_out
    }

    fn group_in(&self) -> usize {
        self.c_in / self.groups
    }

    fn group_out(&self) -> usize {
        self.c_out / self.groups
    }

    /// Weights of one output channel, the depth of the products.
    fn depth(&self) -> usize {
        self.group_in() * self.kernel * self.kernel
    }

    pub(crate) fn weight_len(&self) -> usize {
        self.c_out * self.depth()
    }

    /// The same convolution, a plane seen as one row where rows do not matter.
    fn flattened(self) -> Self {
        if self.kernel == 1 && self.stride == 1 && self.padding == 0 {
            let pixels = self.h * self.w;
            return Self { h: 1, w: pixels, h_out: 1, w_out: pixels, ..self };
        }
        self
    }
}

/// The convolution of `x` `[n, c_in, h, w]` with `weight` `[c_out, c_in / groups, k, k]`, plus `bias` `[c_out]` if there is one.
pub(crate) fn forward<T: Real>(geometry: &Geometry, x: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
    let geometry = geometry.flattened();
    let (depth, group_out) = (geometry.depth(), geometry.group_out());
    let packed: Vec<PackedRows<T>> = weight
        .chunks_exact(group_out * depth)
        .map(|group| PackedRows::pack(group_out, depth, |row, d| group[row * depth + d]))
        .collect();
    let mut y = vec![T::zero(); geometry.n * geometry.output_len()];
    let images = images_per_chunk(geometry.n);
    y.par_chunks_mut(images * geometry.output_len()).zip(x.par_chunks(images * geometry.input_len())).for_each(
        |(y, x)| {
            vectorised(Forward { gather: Gather::new(geometry, x), packed: &packed, bias, y });
        },
    );
    y
}

struct Forward<'a, T> {
    gather: Gather<'a, T>,
    packed: &'a [PackedRows<T>],
    bias: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<T: Real> pulp::NullaryFnOnce for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let geometry = self.gather.geometry;
        let mut panel = vec![T::zero(); geometry.depth() * LANES];
        for (group, weights) in self.packed.iter().enumerate() {
            for first in (0..self.gather.columns()).step_by(LANES) {
                self.gather.input_panel(group, first, &mut panel);
                for (first_row, n_rows, quads) in weights.blocks() {
                    for (i, lanes) in block_product(quads, &panel).into_iter().enumerate().take(n_rows) {
                        let channel = group * geometry.group_out() + first_row + i;
                        let bias = self.bias.map_or(T::zero(), |bias| bias[channel]);
                        let lanes = add_lanes(lanes, &[bias; LANES]);
                        for run in self.gather.runs(first) {
                            let start = run.output_offset(&geometry, channel);
                            copy_run(&mut self.y[start..start + run.len], &lanes[run.lane..run.lane + run.len]);
                        }
                    }
                }
            }
        }
    }
}

/// Gradients of a convolution.
pub(crate) struct Gradients<T> {
    /// For the input, if it was asked for.
    pub(crate) x: Option<Vec<T>>,
    /// For the weight.
    pub(crate) weight: Vec<T>,
}

/// Gradients for input (if `wants_x`) and weight, given the output's gradient `g` `[n, c_out, h', w']`.
pub(crate) fn backward<T: Real>(geometry: &Geometry, x: &[T], weight: &[T], g: &[T], wants_x: bool) -> Gradients<T> {
    let geometry = geometry.flattened();
    let (depth, group_out) = (geometry.depth(), geometry.group_out());
    let transposed: Vec<PackedRows<T>> = weight
        .chunks_exact(group_out * depth)
        .map(|group| PackedRows::pack(depth, group_out, |d, row| group[row * depth + d]))
        .collect();
    let images = images_per_chunk(geometry.n);
    let (input_len, output_len) = (images * geometry.input_len(), images * geometry.output_len());
    let job = |x, g, dx| Backward { gather: Gather::new(geometry, x), g, transposed: &transposed, dx };
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

/// The gradient of a bias: the sums of `g` `[n, channels, pixels]` over images and pixels.
pub(crate) fn bias_gradient<T: Real>(channels: usize, pixels: usize, g: &[T]) -> Vec<T> {
    let mut sums = vec![0.0f64; channels];
    for image in g.chunks_exact((channels * pixels).max(1)) {
        for (sum, plane) in sums.iter_mut().zip(image.chunks_exact(pixels)) {
            *sum += plane.iter().map(|g| g.to_f64()).sum::<f64>();
        }
    }
    sums.into_iter().map(T::from_f64).collect()
}

struct Backward<'a, T> {
    gather: Gather<'a, T>,
    g: &'a [T],
    transposed: &'a [PackedRows<T>],
    dx: Option<&'a mut [T]>,
}

impl<T: Real> pulp::NullaryFnOnce for Backward<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn call(mut self) -> Vec<T> {
        let geometry = self.gather.geometry;
        let (depth, group_out) = (geometry.depth(), geometry.group_out());
        let n_panels = self.gather.columns().div_ceil(LANES);
        let block = (BLOCK_ELEMENTS / ((depth + group_out) * LANES)).clamp(1, n_panels.max(1));
        let mut xs = vec![T::zero(); block * depth * LANES];
        let mut gs = vec![T::zero(); block * group_out * LANES];
        let mut dcol = vec![T::zero(); if self.dx.is_some() { depth * LANES } else { 0 }];
        let mut dw = vec![T::zero(); geometry.weight_len()];
        for (group, weights) in self.transposed.iter().enumerate() {
            let dw = &mut dw[group * group_out * depth..(group + 1) * group_out * depth];
            for first_panel in (0..n_panels).step_by(block) {
                let len = block.min(n_panels - first_panel);
                for i in 0..len {
                    let first = (first_panel + i) * LANES;
                    self.gather.input_panel(group, first, &mut xs[i * depth * LANES..(i + 1) * depth * LANES]);
                    let gs = &mut gs[i * group_out * LANES..(i + 1) * group_out * LANES];
                    self.gather.output_panel(group, first, self.g, gs);
                    if let Some(dx) = self.dx.as_deref_mut() {
                        for (first_row, n_rows, quads) in weights.blocks() {
                            let product = block_product(quads, gs);
                            let target = dcol[first_row * LANES..].as_chunks_mut::<LANES>().0;
                            target[..n_rows].copy_from_slice(&product[..n_rows]);
                        }
                        self.gather.scatter(group, first, &dcol, dx);
                    }
                }
                let (gs, xs) = (&gs[..len * group_out * LANES], &xs[..len * depth * LANES]);
                add_transposed_product(gs, xs, group_out, depth, dw);
            }
        }
        dw
    }
}

/// Adjacent output pixels of one row, in one panel.
struct Run {
    /// First lane.
    lane: usize,
    len: usize,
    image: usize,
    row: usize,
    column: usize,
}

impl Run {
    #[inline(always)]
    fn output_offset(&self, geometry: &Geometry, channel: usize) -> usize {
        ((self.image * geometry.c_out + channel) * geometry.h_out + self.row) * geometry.w_out + self.column
    }
}

/// The [`Run`]s of one panel.
struct Runs {
    h_out: usize,
    w_out: usize,
    n_lanes: usize,
    lane: usize,
    image: usize,
    row: usize,
    column: usize,
}

impl Iterator for Runs {
    type Item = Run;

    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        if self.lane == self.n_lanes {
            return None;
        }
        let Self { lane, image, row, column, .. } = *self;
        let len = (self.n_lanes - lane).min(self.w_out - column);
        self.lane += len;
        self.column = 0;
        self.row += 1;
        if self.row == self.h_out {
            (self.row, self.image) = (0, image + 1);
        }
        Some(Run { lane, len, image, row, column })
    }
}

/// Where the columns of panels come from: column `i` is output pixel `i % pixels` of image `i / pixels`.
struct Gather<'a, T> {
    geometry: Geometry,
    x: &'a [T],
    n_images: usize,
    /// For each kernel column the output columns whose input pixel lies inside the image.
    inside: Vec<(usize, usize)>,
}

impl<'a, T: Real> Gather<'a, T> {
    fn new(geometry: Geometry, x: &'a [T]) -> Self {
        let inside = (0..geometry.kernel)
            .map(|k| {
                let reach = k * geometry.dilation;
                let from = geometry.padding.saturating_sub(reach).div_ceil(geometry.stride);
                let to = (geometry.w + geometry.padding).saturating_sub(reach).div_ceil(geometry.stride);
                (from.min(geometry.w_out), to.min(geometry.w_out))
            })
            .collect();
        Self { geometry, x, n_images: x.len() / geometry.input_len(), inside }
    }

    fn columns(&self) -> usize {
        self.n_images * self.geometry.h_out * self.geometry.w_out
    }

    /// The pieces of rows that columns `first..first + LANES` are made of.
    #[inline(always)]
    fn runs(&self, first: usize) -> Runs {
        let Geometry { h_out, w_out, .. } = self.geometry;
        let row = first / w_out;
        let n_lanes = LANES.min(self.columns() - first);
        Runs { h_out, w_out, n_lanes, lane: 0, image: row / h_out, row: row % h_out, column: first % w_out }
    }

    /// Calls `f(panel offset, input offset, len)` for every piece of a run that a kernel tap finds inside the image.
    #[inline(always)]
    fn for_each_piece(&self, group: usize, run: &Run, mut f: impl FnMut(usize, usize, usize)) {
        let Geometry { c_in, kernel, stride, padding, dilation, h, w, .. } = self.geometry;
        let group_in = self.geometry.group_in();
        for c in 0..group_in {
            let plane = (run.image * c_in + group * group_in + c) * h * w;
            for ky in 0..kernel {
                let y = run.row * stride + ky * dilation;
                if y < padding || y >= h + padding {
                    continue;
                }
                let input_row = plane + (y - padding) * w;
                for (kx, &(from, to)) in self.inside.iter().enumerate() {
                    let (from, to) = (from.max(run.column), to.min(run.column + run.len));
                    if from < to {
                        let k = (c * kernel + ky) * kernel + kx;
                        let lane = run.lane + from - run.column;
                        f(k * LANES + lane, input_row + from * stride + kx * dilation - padding, to - from);
                    }
                }
            }
        }
    }

    /// Fills `panel` `[depth][LANES]` with the input under columns `first..first + LANES`.
    #[inline(always)]
    fn input_panel(&self, group: usize, first: usize, panel: &mut [T]) {
        let stride = self.geometry.stride;
        if self.geometry.kernel > 1 || self.geometry.padding > 0 || first + LANES > self.columns() {
            panel.fill(T::zero());
        }
        for run in self.runs(first) {
            self.for_each_piece(group, &run, |at, from, len| {
                if stride == 1 {
                    copy_run(&mut panel[at..at + len], &self.x[from..from + len]);
                } else {
                    let source = self.x[from..].iter().step_by(stride);
                    panel[at..at + len].iter_mut().zip(source).for_each(|(to, from)| *to = *from);
                }
            });
        }
    }

    /// Adds `panel` `[depth][LANES]` to the input's gradient: the transpose of [`Self::input_panel`].
    #[inline(always)]
    fn scatter(&self, group: usize, first: usize, panel: &[T], dx: &mut [T]) {
        let stride = self.geometry.stride;
        for run in self.runs(first) {
            self.for_each_piece(group, &run, |at, to, len| {
                if stride == 1 {
                    add_run(&mut dx[to..to + len], &panel[at..at + len]);
                } else {
                    let target = dx[to..].iter_mut().step_by(stride);
                    target.zip(&panel[at..at + len]).for_each(|(to, from)| *to += *from);
                }
            });
        }
    }

    /// Fills `panel` `[c_out / groups][LANES]` with columns `first..first + LANES` of an output-shaped slice.
    #[inline(always)]
    fn output_panel(&self, group: usize, first: usize, g: &[T], panel: &mut [T]) {
        if first + LANES > self.columns() {
            panel.fill(T::zero());
        }
        let group_out = self.geometry.group_out();
        for run in self.runs(first) {
            for (row, lanes) in panel.chunks_exact_mut(LANES).enumerate() {
                let start = run.output_offset(&self.geometry, group * group_out + row);
                copy_run(&mut lanes[run.lane..run.lane + run.len], &g[start..start + run.len]);
            }
        }
    }
}

/// `copy_from_slice` that is quick for whole panels and for very few elements.
#[inline(always)]
fn copy_run<T: Real>(to: &mut [T], from: &[T]) {
    match (<&mut [T; LANES]>::try_from(&mut *to), <&[T; LANES]>::try_from(from)) {
        (Ok(to), Ok(from)) => *to = *from,
        _ => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
    }
}

#[inline(always)]
fn add_run<T: Real>(to: &mut [T], from: &[T]) {
    match (<&mut [T; LANES]>::try_from(&mut *to), <&[T; LANES]>::try_from(from)) {
        (Ok(to), Ok(from)) => to.iter_mut().zip(from).for_each(|(to, from)| *to += *from),
        _ => to.iter_mut().zip(from).for_each(|(to, from)| *to += *from),
    }
}

#[cfg(test)]
mod tests {
    use pulp::NullaryFnOnce;

    use super::super::testing::noise;
    use super::*;

    fn single(seed: u64, len: usize) -> Vec<f32> {
        noise(seed, len).into_iter().map(|x| x as f32).collect()
    }

    #[test]
    fn the_base_instruction_set_gives_the_same_bits() {
        let geometry = Geometry {
            n: 3,
            c_in: 5,
            c_out: 7,
            groups: 1,
            kernel: 3,
            stride: 1,
            padding: 1,
            dilation: 1,
            h: 6,
            w: 5,
            h_out: 6,
            w_out: 5,
        };
        let x = single(1, 3 * geometry.input_len());
        let weight = single(2, geometry.weight_len());
        let g = single(3, 3 * geometry.output_len());
        let depth = geometry.depth();
        let packed = [PackedRows::pack(7, depth, |row, d| weight[row * depth + d])];
        let transposed = [PackedRows::pack(depth, 7, |d, row| weight[row * depth + d])];
        let forward = |vector: bool| {
            let mut y = vec![0.0f32; 3 * geometry.output_len()];
            let job = Forward { gather: Gather::new(geometry, &x), packed: &packed, bias: None, y: &mut y };
            if vector {
                vectorised(job)
            } else {
                job.call()
            }
            y
        };
        assert_eq!(forward(true), forward(false));
        let backward = |vector: bool| {
            let mut dx = vec![0.0f32; x.len()];
            let gather = Gather::new(geometry, &x);
            let job = Backward { gather, g: &g, transposed: &transposed, dx: Some(&mut dx) };
            let dw = if vector { vectorised(job) } else { job.call() };
            (dx, dw)
        };
        assert_eq!(backward(true), backward(false));
    }
}
