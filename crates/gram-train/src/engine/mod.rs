//! The training engine: a whole network's forward and backward pass in kernels of [`gram_kernels`].
//!
//! [`plan`] says what is stored and who reads it, [`memory`] where, [`pack`] in which order kernels get their weights, [`site`] what is applied
//! on reading; [`executor`] and [`backward`] run training steps over batches, [`evaluator`] runs images in evaluation mode.
//! ALGORITHMS and design: `ARCHITECTURE.md`, "The training engine".

mod backward;
mod compile;
mod evaluator;
mod executor;
mod image;
mod memory;
mod pack;
mod plan;
mod site;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::Range;

use gram_ir::{Network, Shape, TensorSpec, Weights};
use gram_kernels::{IsaKind, Kernels};

use self::evaluator::Evaluator;
use self::executor::Executor;
use self::plan::Plan;
use crate::{StepReport, Targets, TrainError};

/// Where the tensors of a network lie in one flat slice.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Names, roles and shapes, in the order of [`Network::tensors`].
    pub specs: Vec<TensorSpec>,
    /// Elements of each.
    pub ranges: Vec<Range<usize>>,
    /// Whether an optimiser changes it: trainable, and the network's output depends on it.
    pub trained: Vec<bool>,
}

impl Layout {
    fn of(network: &Network) -> Self {
        let specs = network.tensors();
        let mut end = 0;
        let next = |spec: &TensorSpec| {
            end += spec.elements();
            end - spec.elements()..end
        };
        let ranges = specs.iter().map(next).collect();
        let reached = Plan::compile(network, false).differentiated;
        let trained = specs.iter().zip(reached).map(|(spec, reached)| reached && spec.role.is_trainable()).collect();
        Self { specs, ranges, trained }
    }

    /// Elements of all tensors.
    pub fn elements(&self) -> usize {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// The tensors that `values` hold.
    ///
    /// # Errors
    /// None but for a bug: a tensor's shape has its number of elements.
    pub fn weights(&self, values: &[f32]) -> Result<Weights, TrainError> {
        let mut weights = Weights::new();
        for (spec, range) in self.specs.iter().zip(&self.ranges) {
            let data = values[range.clone()].iter().map(|&x| f64::from(x)).collect();
            weights.insert(spec.name.clone(), gram_ir::Tensor::new(spec.shape.clone(), data)?);
        }
        Ok(weights)
    }

    /// Puts tensors into `values`.
    ///
    /// # Errors
    /// [`TrainError::Weights`] if one is missing; check them against the network first.
    pub fn load(&self, weights: &Weights, values: &mut [f32]) -> Result<(), TrainError> {
        for (spec, range) in self.specs.iter().zip(&self.ranges) {
            let data = weights.get(&spec.name)?.data();
            values[range.clone()].iter_mut().zip(data).for_each(|(to, &x)| *to = x as f32);
        }
        Ok(())
    }
}

/// Kernels of the given instruction set, or the best one that this machine has.
fn kernels(isa: Option<IsaKind>) -> &'static dyn Kernels<f32> {
    let portable = || IsaKind::Portable.kernels().expect("invariant: every machine has portable code");
    isa.unwrap_or_else(IsaKind::best).kernels().unwrap_or_else(portable)
}

/// A network that is trained on the CPU: tensors and gradients in flat slices, and all memory of a step.
#[derive(Debug)]
pub struct Engine {
    execute: Executor<f32>,
    layout: Layout,
    input: Shape,
    output: Shape,
}

impl Engine {
    /// A network with all tensors 0, on the given instruction set or the best one.
    pub fn new(network: &Network, isa: Option<IsaKind>, input_gradient: bool) -> Self {
        let execute = Executor::new(kernels(isa), network, input_gradient);
        let (input, output) = (network.input_shape(), network.output_shape());
        Self { execute, layout: Layout::of(network), input, output }
    }

    /// Where each tensor lies in [`values`](Self::values) and [`gradient`](Self::gradient).
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All tensors, running statistics included.
    pub fn values(&self) -> &[f32] {
        &self.execute.values
    }

    /// All tensors, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.execute.values
    }

    /// The gradients of the last step, at the places of their tensors.
    pub fn gradient(&self) -> &[f32] {
        &self.execute.gradient
    }

    /// Values and gradients.
    pub fn parts(&mut self) -> (&mut [f32], &mut [f32]) {
        (&mut self.execute.values, &mut self.execute.gradient)
    }

    /// Loss, scores and gradients of one batch `[n, c, h, w]`; running statistics move. Runs on the present rayon pool.
    ///
    /// # Errors
    /// [`TrainError`] if pixels or labels do not fit the network.
    pub fn step(&mut self, pixels: &[f32], labels: &[u32], smoothing: f64) -> Result<StepReport, TrainError> {
        self.step_towards(pixels, &Targets::of(labels, smoothing))
    }

    /// As [`step`](Self::step), with targets that may be mixed.
    ///
    /// # Errors
    /// [`TrainError`] if pixels or targets do not fit the network.
    pub fn step_towards(&mut self, pixels: &[f32], targets: &Targets<'_>) -> Result<StepReport, TrainError> {
        let n = targets.labels.len();
        if self.output.pixels() != 1 {
            return Err(TrainError::NotAClassifier { got: self.output });
        }
        if pixels.len() != n * self.input.elements() || n == 0 {
            return Err(TrainError::Pixels { expected: self.input, got: pixels.len() });
        }
        targets.check(self.output.c)?;
        let logits = self.execute.forward(pixels, n);
        let loss = targets.mean(&logits);
        self.execute.backward(&targets.backward(&logits, 1.0));
        Ok(StepReport { loss, logits })
    }

    /// The output `[n, c, h, w]` in training mode.
    pub fn forward(&mut self, pixels: &[f32], n: usize) -> Vec<f32> {
        self.execute.forward(pixels, n)
    }

    /// Gradients, given that of the output of the last [`forward`](Self::forward).
    pub fn backward(&mut self, output: &[f32]) {
        self.execute.backward(output);
    }

    /// The gradient of the images, if it was asked for.
    pub fn input_gradient(&self) -> Option<Vec<f32>> {
        self.execute.input_gradient()
    }

    /// Bytes that steps with batches of `n` take on `n_threads` threads, tensors and gradients included.
    pub fn bytes(&self, n: usize, n_threads: usize) -> usize {
        self.execute.bytes(n, n_threads)
    }
}

/// A network with fixed tensors, ready to classify images.
#[derive(Debug)]
pub struct EvalEngine {
    evaluate: Evaluator<f32>,
}

impl EvalEngine {
    /// With the given tensors, on the given instruction set or the best one.
    ///
    /// # Errors
    /// [`TrainError::Weights`] where they are not those of the network.
    pub fn new(network: &Network, weights: &Weights, isa: Option<IsaKind>) -> Result<Self, TrainError> {
        weights.check(network)?;
        let (plan, layout) = (Plan::compile(network, false), Layout::of(network));
        let mut values = vec![0.0; layout.elements()];
        layout.load(weights, &mut values)?;
        let offsets: Vec<usize> = layout.ranges.iter().map(|range| range.start).collect();
        let evaluate = Evaluator::new(kernels(isa), plan, &values, &offsets);
        Ok(Self { evaluate })
    }

    /// The output `[n, c, h, w]` of images `[n, c, h, w]`; runs on the present rayon pool.
    pub fn run(&mut self, images: &[f32], n: usize) -> Vec<f32> {
        self.evaluate.run(images, n)
    }
}
