//! Optimisers, gradient clipping and the moving average of weights, on flat buffers.
//!
//! A network's tensors stand one behind the other in one buffer, running statistics included; its gradients in another one with the same
//! offsets. [`Segment`]s say which parts are trained. Everything here is a plain loop in the order of the elements, so the results do not
//! depend on threads or instruction sets.

use std::ops::Range;

use crate::Optimizer;

/// A part of a buffer that is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Elements of the buffer.
    pub(crate) range: Range<usize>,
    /// Whether weight decay applies: to weights, not to norms and biases.
    pub(crate) decay: bool,
}

/// An optimiser: its settings and what it remembers of earlier gradients.
#[derive(Debug)]
pub(crate) struct OptimizerState {
    kind: Optimizer,
    weight_decay: f64,
    segments: Vec<Segment>,
    /// Steps taken.
    pub(crate) n_steps: u64,
    /// Momentum, or AdamW's mean of gradients; as long as the buffer, or empty where the optimiser has none.
    pub(crate) first: Vec<f32>,
    /// Mean of squared gradients; as long as the buffer, or empty for SGD.
    pub(crate) second: Vec<f32>,
}

impl OptimizerState {
    /// An optimiser of the parts `segments` of a buffer of `len` elements.
    pub(crate) fn new(kind: Optimizer, weight_decay: f64, segments: Vec<Segment>, len: usize) -> Self {
        let [first, second] = match kind {
            Optimizer::Sgd { momentum, .. } => [momentum > 0.0, false],
            Optimizer::Adamw { .. } => [true, true],
            Optimizer::Rmsprop { momentum, .. } => [momentum > 0.0, true],
        };
        let zeros = |wanted: bool| if wanted { vec![0.0; len] } else { Vec::new() };
        Self { kind, weight_decay, segments, n_steps: 0, first: zeros(first), second: zeros(second) }
    }

    /// The parts that are trained.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Changes all trained elements of `values`.
    pub(crate) fn step(&mut self, values: &mut [f32], gradient: &[f32], lr: f64) {
        self.n_steps += 1;
        for Segment { range, decay } in &self.segments {
            let decay = if *decay { self.weight_decay } else { 0.0 };
            let part = Part {
                values: &mut values[range.clone()],
                gradient: &gradient[range.clone()],
                first: self.first.get_mut(range.clone()).unwrap_or_default(),
                second: self.second.get_mut(range.clone()).unwrap_or_default(),
            };
            match self.kind {
                Optimizer::Sgd { momentum, nesterov } => Sgd::new(lr, decay, momentum, nesterov).update(part),
                Optimizer::Adamw { beta1, beta2, epsilon } => {
                    Adamw::new([beta1, beta2], epsilon, lr, decay, self.n_steps).update(part);
                }
                Optimizer::Rmsprop { alpha, momentum, epsilon } => {
                    Rmsprop::new(lr, decay, alpha, momentum, epsilon).update(part);
                }
            }
        }
    }
}

/// Whether no element is infinite or no number.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    // Chunks without an early return, so that the inner loop runs on vectors.
    values.chunks(1024).all(|chunk| chunk.iter().fold(true, |all, x| all & x.is_finite()))
}

/// What one update works on: slices of the same elements; memories are empty where the optimiser has none.
struct Part<'a> {
    values: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

/// One step of SGD, torch's formula: the decay joins the gradient, the gradient joins the momentum.
#[derive(Clone, Copy)]
struct Sgd {
    lr: f32,
    decay: f32,
    momentum: f32,
    nesterov: bool,
}

impl Sgd {
    fn new(lr: f64, decay: f64, momentum: f64, nesterov: bool) -> Self {
        Self { lr: lr as f32, decay: decay as f32, momentum: momentum as f32, nesterov }
    }

    fn update(self, Part { values, gradient, first, .. }: Part<'_>) {
        let decayed = |weight: f32, gradient: f32| gradient + self.decay * weight;
        if first.is_empty() {
            for (weight, &gradient) in values.iter_mut().zip(gradient) {
                *weight -= self.lr * decayed(*weight, gradient);
            }
            return;
        }
        for ((weight, &gradient), memory) in values.iter_mut().zip(gradient).zip(first) {
            let gradient = decayed(*weight, gradient);
            *memory = self.momentum * *memory + gradient;
            let update = if self.nesterov { gradient + self.momentum * *memory } else { *memory };
            *weight -= self.lr * update;
        }
    }
}

/// One step of AdamW.
#[derive(Clone, Copy)]
struct Adamw {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// `1 - lr · decay`.
    keep: f32,
    /// Learning rate over the bias correction of the mean.
    lr: f32,
    /// Bias correction of the mean square.
    correction: f32,
}

impl Adamw {
    fn new([beta1, beta2]: [f64; 2], epsilon: f64, lr: f64, decay: f64, n_steps: u64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(n_steps as f64);
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: epsilon as f32,
            keep: (1.0 - lr * decay) as f32,
            lr: (lr / correction(beta1)) as f32,
            correction: correction(beta2) as f32,
        }
    }

    fn update(self, Part { values, gradient, first, second }: Part<'_>) {
        let memories = first.iter_mut().zip(second);
        for ((weight, &gradient), (mean, square)) in values.iter_mut().zip(gradient).zip(memories) {
            *mean = self.beta1 * *mean + (1.0 - self.beta1) * gradient;
            *square = self.beta2 * *square + (1.0 - self.beta2) * gradient * gradient;
            *weight = *weight * self.keep - self.lr * *mean / ((*square / self.correction).sqrt() + self.epsilon);
        }
    }
}

/// One step of RMSProp, torch's formula: the decay joins the gradient, ε stands outside of the root, the learning rate outside of the
/// momentum.
#[derive(Clone, Copy)]
struct Rmsprop {
    lr: f32,
    decay: f32,
    alpha: f32,
    momentum: f32,
    epsilon: f32,
}

impl Rmsprop {
    fn new(lr: f64, decay: f64, alpha: f64, momentum: f64, epsilon: f64) -> Self {
        let [lr, decay, alpha, momentum, epsilon] = [lr, decay, alpha, momentum, epsilon].map(|x| x as f32);
        Self { lr, decay, alpha, momentum, epsilon }
    }

    fn update(self, Part { values, gradient, first, second }: Part<'_>) {
        let scaled = |weight: f32, gradient: f32, square: &mut f32| {
            let gradient = gradient + self.decay * weight;
            *square = self.alpha * *square + (1.0 - self.alpha) * gradient * gradient;
            gradient / (square.sqrt() + self.epsilon)
        };
        let elements = values.iter_mut().zip(gradient).zip(second);
        if first.is_empty() {
            elements.for_each(|((weight, &gradient), square)| *weight -= self.lr * scaled(*weight, gradient, square));
            return;
        }
        for (((weight, &gradient), square), memory) in elements.zip(first) {
            *memory = self.momentum * *memory + scaled(*weight, gradient, square);
            *weight -= self.lr * *memory;
        }
    }
}

/// Scales the trained parts of `gradient` so that their Euclidean norm, over all of them together, is at most `max_norm`; gives the norm
/// before.
///
/// A norm that is not finite changes nothing: what is broken must show.
/// # Source
/// Pascanu et al., [arXiv:1211.5063](https://arxiv.org/abs/1211.5063), algorithm 1.
pub(crate) fn clip(gradient: &mut [f32], segments: &[Segment], max_norm: f64) -> f64 {
    let norm = segments.iter().map(|segment| sum_of_squares(&gradient[segment.range.clone()])).sum::<f64>().sqrt();
    if norm.is_finite() && norm > max_norm {
        let factor = (max_norm / norm) as f32;
        for segment in segments {
            gradient[segment.range.clone()].iter_mut().for_each(|x| *x *= factor);
        }
    }
    norm
}

/// Eight sums of every eighth element each, added in their order: fixed, and quick on vectors.
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    let add = |sum: &mut f64, x: f32| *sum += f64::from(x) * f64::from(x);
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &x)| add(sum, x));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &x)| add(sum, x));
    sums.iter().sum()
}

/// A moving average of all tensors, running statistics included.
///
/// The decay of update `t` (from 0) is `min(decay, (1 + t) / (10 + t))`, so that the first weights are soon forgotten.
#[derive(Debug)]
pub(crate) struct Ema {
    pub(crate) values: Vec<f32>,
    decay: f64,
    /// Updates made.
    pub(crate) n_updates: u64,
}

impl Ema {
    pub(crate) fn new(decay: f64, values: &[f32]) -> Self {
        Self { values: values.to_vec(), decay, n_updates: 0 }
    }

    pub(crate) fn update(&mut self, values: &[f32]) {
        let decay = self.decay.min((1 + self.n_updates) as f64 / (10 + self.n_updates) as f64);
        let (keep, take) = (decay as f32, (1.0 - decay) as f32);
        self.values.iter_mut().zip(values).for_each(|(average, &x)| *average = keep * *average + take * x);
        self.n_updates += 1;
    }
}

#[cfg(test)]
mod tests;
