//! What is applied when a map is read: made from batch statistics or running ones, and its gradient.

use gram_ir::BATCH_NORM_EPS;
use gram_kernels::{Activation, Coefficients, Element, GradientSums, LANES, Lift, ShiftedSums};

use super::plan::{NormTensors, Site};
use crate::model::BATCH_NORM_MOMENTUM;

type Row<E> = [E; LANES];

/// The numbers of a [`Site`], block by block.
#[derive(Clone, Debug)]
pub(crate) struct SiteState<E> {
    activation: Activation,
    scale: Vec<Row<E>>,
    shift: Vec<Row<E>>,
    /// Mean of the batch; zeros without a norm.
    mean: Vec<Row<E>>,
    /// One over the standard deviation of the batch.
    inverse_std: Vec<[f64; LANES]>,
    /// The gradient of a norm's input as an affine function of that of its output and of the input.
    gradient: [Vec<Row<E>>; 3],
}

impl<E: Element> SiteState<E> {
    pub(crate) fn new(site: &Site) -> Self {
        let zeros = vec![[E::default(); LANES]; site.blocks.len()];
        let mut scale = zeros.clone();
        for (row, lanes) in scale.iter_mut().zip(&site.blocks) {
            row[..lanes.depth].fill(E::from_f64(1.0));
        }
        Self {
            activation: site.activation,
            scale,
            shift: zeros.clone(),
            mean: zeros.clone(),
            inverse_std: vec![[0.0; LANES]; site.blocks.len()],
            gradient: [zeros.clone(), zeros.clone(), zeros],
        }
    }

    pub(crate) fn lift(&self, block: usize) -> Lift<'_, E> {
        Lift { scale: &self.scale[block], shift: &self.shift[block], activation: self.activation }
    }

    pub(crate) fn mean(&self, block: usize) -> Row<E> {
        self.mean[block]
    }

    pub(crate) fn coefficients(&self, block: usize) -> Coefficients<'_, E> {
        let [a, b, c] = &self.gradient;
        Coefficients { a: &a[block], b: &b[block], c: &c[block] }
    }

    /// Without a norm only the bias is added.
    pub(crate) fn set_bias(&mut self, site: &Site, bias: &[E]) {
        for (row, lanes) in self.shift.iter_mut().zip(&site.blocks) {
            row[..lanes.depth].copy_from_slice(&bias[lanes.first..lanes.first + lanes.depth]);
        }
    }

    /// Evaluation mode: norm and bias as one affine map.
    pub(crate) fn fix(&mut self, site: &Site, norm: NormTensors, tensors: &dyn Fn(usize) -> Vec<f64>) {
        let [scale, shift, mean, var] = [norm.scale, norm.shift, norm.mean, norm.var].map(tensors);
        let bias = site.bias.map(tensors);
        for (block, lanes) in site.blocks.iter().enumerate() {
            for i in 0..lanes.depth {
                let c = lanes.first + i;
                let factor = scale[c] / (var[c] + BATCH_NORM_EPS).sqrt();
                let centre = mean[c] - bias.as_ref().map_or(0.0, |bias| bias[c]);
                self.scale[block][i] = E::from_f64(factor);
                self.shift[block][i] = E::from_f64(shift[c] - centre * factor);
            }
        }
    }

    /// Training mode: statistics of the batch, which also move the running ones. `moments` are those of the blocks from `first` on.
    pub(crate) fn normalise(
        &mut self,
        site: &Site,
        norm: NormTensors,
        (first, moments): (usize, &[Vec<Moments>]),
        values: &mut Tensors<'_, E>,
    ) {
        for (block, moments) in (first..).zip(moments) {
            let lanes = site.blocks[block];
            for (i, &Moments { mean, squares, count }) in moments.iter().enumerate().take(lanes.depth) {
                let c = lanes.first + i;
                let (scale, shift) = (values.at(norm.scale, c), values.at(norm.shift, c));
                let inverse_std = 1.0 / (squares / count + BATCH_NORM_EPS).sqrt();
                self.scale[block][i] = E::from_f64(scale * inverse_std);
                self.shift[block][i] = E::from_f64(shift - mean * scale * inverse_std);
                self.mean[block][i] = E::from_f64(mean);
                self.inverse_std[block][i] = inverse_std;
                // Statistics are taken in front of the bias, which moves the mean alone.
                let bias = site.bias.map_or(0.0, |bias| values.at(bias, c));
                values.average(norm.mean, c, mean + bias);
                values.average(norm.var, c, squares / (count - 1.0).max(1.0));
            }
        }
    }

    /// Coefficients for the gradient of the norm's input; `out` gets the gradients of scale and shift, given their tensors and the channel.
    pub(crate) fn differentiate(
        &mut self,
        site: &Site,
        norm: NormTensors,
        sums: &[GradientSums<E>],
        count: f64,
        out: &mut dyn FnMut(usize, usize, f64),
    ) {
        for (block, lanes) in site.blocks.iter().enumerate() {
            let sums = &sums[block];
            for i in 0..lanes.depth {
                let c = lanes.first + i;
                let inverse_std = self.inverse_std[block][i];
                out(norm.shift, c, sums.g[i]);
                out(norm.scale, c, sums.g_centred[i] * inverse_std);
                let a = self.scale[block][i].to_f64();
                let b = -a * inverse_std * inverse_std * sums.g_centred[i] / count;
                let c = -a * sums.g[i] / count - b * self.mean[block][i].to_f64();
                for (rows, value) in self.gradient.iter_mut().zip([a, b, c]) {
                    rows[block][i] = E::from_f64(value);
                }
            }
        }
    }
}

/// Mean, summed squared deviations and number of the elements of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: f64,
    pub(crate) squares: f64,
    pub(crate) count: f64,
}

impl Moments {
    /// Of both together (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
    fn and(self, other: Self) -> Self {
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        Self {
            mean: self.mean + delta * other.count / count,
            squares: self.squares + other.squares + delta * delta * self.count * other.count / count,
            count,
        }
    }
}

/// The moments of each lane of one block, out of the sums of all chunks in their order; `counts` are the chunks' pixels.
pub(crate) fn merge<E: Element>(chunks: &[&ShiftedSums<E>], counts: &[f64]) -> Vec<Moments> {
    let lane = |i: usize| {
        let of = |(sums, &count): (&&ShiftedSums<E>, &f64)| {
            let (mean, squares) = sums.moments(i, count);
            Moments { mean, squares, count }
        };
        chunks.iter().zip(counts).map(of).reduce(Moments::and).unwrap_or_default()
    };
    (0..LANES).map(lane).collect()
}

/// The sums of all chunks, in their order.
pub(crate) fn total<E: Element>(chunks: &[&GradientSums<E>]) -> GradientSums<E> {
    let mut chunks = chunks.iter();
    let mut total = chunks.next().map_or_else(|| GradientSums::new([E::default(); LANES]), |first| **first);
    for chunk in chunks {
        for i in 0..LANES {
            total.g[i] += chunk.g[i];
            total.g_centred[i] += chunk.g_centred[i];
        }
    }
    total
}

/// All tensors of a network in one slice.
pub(crate) struct Tensors<'a, E> {
    pub(crate) values: &'a mut [E],
    pub(crate) offsets: &'a [usize],
}

impl<E: Element> Tensors<'_, E> {
    fn at(&self, tensor: usize, i: usize) -> f64 {
        self.values[self.offsets[tensor] + i].to_f64()
    }

    /// Moves a running statistic towards the batch's.
    fn average(&mut self, tensor: usize, i: usize, new: f64) {
        let value = &mut self.values[self.offsets[tensor] + i];
        *value = E::from_f64(value.to_f64() * (1.0 - BATCH_NORM_MOMENTUM) + new * BATCH_NORM_MOMENTUM);
    }
}
