//! One network in training: a step at a time.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use gram_ir::{Network, TensorRole, TensorSpec, Weights};
use rayon::ThreadPool;

use crate::edit::edit;
use crate::evaluate::images;
use crate::ops::values;
use crate::optim::{Ema, OptimizerState, Segment, all_finite, clip};
use crate::program::{Action, Program};
use crate::seeds::{Purpose, derived_seed};
use crate::{ConfigError, Model, TrainConfig, TrainError};

/// What one step says about its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Mean loss of the batch before the step, label smoothing included, in nats.
    pub loss: f64,
    /// Scores `[n, classes]` before the step.
    pub logits: Vec<f32>,
}

/// A network in training: its tensors, optimiser, moving average and worker threads.
///
/// [`train`](crate::train) runs one over the epochs of a data set; used alone, data and learning rate are up to the caller. The weights
/// are the same bits for any number of threads.
///
/// # Example
/// ```
/// use gram_ir::{Network, Op, Shape};
/// use gram_train::{TrainConfig, Trainer};
///
/// let mut network = Network::new(Shape::chw(1, 2, 2));
/// let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()])?;
/// let fc = network.add("fc", Op::Linear { c_in: 1, c_out: 2, bias: true }, &[pool])?;
/// network.set_output(fc)?;
///
/// let mut trainer = Trainer::new(&network, &TrainConfig::default(), 1, None, 2)?;
/// let (dark_and_bright, labels) = ([[-1.0; 4], [1.0; 4]].concat(), [0, 1]);
/// let first = trainer.step(&dark_and_bright, &labels, 0.1)?;
/// let second = trainer.step(&dark_and_bright, &labels, 0.1)?;
/// assert!(second.loss < first.loss);
/// assert_eq!(trainer.weights().get("fc.weight")?.shape(), [2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Trainer {
    model: Model,
    network: Network,
    tensors: Vec<Placed>,
    values: Vec<f32>,
    gradient: Vec<f32>,
    pub(crate) optimizer: OptimizerState,
    pub(crate) ema: Option<Ema>,
    clip_norm: Option<f64>,
    label_smoothing: f64,
    max_batch: usize,
    pool: Arc<ThreadPool>,
}

/// A tensor and where it stands in the flat buffers.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) spec: TensorSpec,
    pub(crate) range: Range<usize>,
    /// Whether the optimiser changes it: it is no running statistic, and the output depends on it.
    pub(crate) trained: bool,
}

impl Trainer {
    /// `network` with random weights, as [`Model::new`] draws them from a stream of its own of `seed`.
    ///
    /// Of `config`, everything but the epochs, the batch size, the learning rate and the augmentation is used. Steps run on `n_threads`
    /// threads of their own; none: as many as the present rayon pool has. No step may have more than `max_batch` images.
    ///
    /// # Errors
    /// [`TrainError`] where configuration or network do not fit, or threads cannot be started.
    pub fn new(
        network: &Network,
        config: &TrainConfig,
        seed: u64,
        n_threads: Option<usize>,
        max_batch: usize,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        for (field, value) in [("n_threads", n_threads), ("max_batch", Some(max_batch))] {
            if value == Some(0) {
                return Err(ConfigError { field, value: "0".into(), expected: "1 or more" }.into());
            }
        }
        let n_threads = n_threads.unwrap_or_else(rayon::current_num_threads);
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?);
        let model = Model::new(network, derived_seed(seed, Purpose::Weights), DType::F32)?;
        let tensors = place(&model, network);
        let mut start = Vec::new();
        for var in model.vars() {
            start.extend_from_slice(&values::<f32>(var)?);
        }
        let segment =
            |placed: &Placed| Segment { range: placed.range.clone(), decay: placed.spec.role == TensorRole::Weight };
        let segments = tensors.iter().filter(|placed| placed.trained).map(segment).collect();
        Ok(Self {
            optimizer: OptimizerState::new(config.optimizer, config.weight_decay, segments, start.len()),
            ema: config.ema_decay.map(|decay| Ema::new(decay, &start)),
            gradient: vec![0.0; start.len()],
            values: start,
            tensors,
            model,
            network: network.clone(),
            clip_norm: config.clip_norm,
            label_smoothing: config.label_smoothing,
            max_batch,
            pool,
        })
    }

    /// One step: forward, backward, clipping, optimiser, moving average.
    ///
    /// If the loss is not finite, the optimiser and the moving average are not asked: training on makes no sense.
    ///
    /// # Shapes
    /// `pixels` are `[n, c, h, w]`, one of `labels` for each of the `n` images.
    /// # Errors
    /// [`TrainError`] if pixels or labels do not fit the network.
    pub fn step(&mut self, pixels: &[f32], labels: &[u32], lr: f64) -> Result<StepReport, TrainError> {
        let pool = Arc::clone(&self.pool);
        pool.install(|| {
            let report = self.differentiate(pixels, labels)?;
            if report.loss.is_finite() {
                if let Some(max_norm) = self.clip_norm {
                    clip(&mut self.gradient, self.optimizer.segments(), max_norm);
                }
                self.optimizer.step(&mut self.values, &self.gradient, lr);
                if let Some(ema) = &mut self.ema {
                    ema.update(&self.values);
                }
            }
            Ok(report)
        })
    }

    /// The present weights; the moving average if there is one.
    pub fn weights(&self) -> Weights {
        let values = self.ema.as_ref().map_or(&self.values, |ema| &ema.values);
        let mut weights = Weights::new();
        for Placed { spec, range, .. } in &self.tensors {
            let data = values[range.clone()].iter().map(|&x| f64::from(x)).collect();
            let tensor =
                gram_ir::Tensor::new(spec.shape.clone(), data).expect("invariant: a tensor's range is its size");
            weights.insert(spec.name.clone(), tensor);
        }
        weights
    }

    /// The worker threads.
    pub(crate) fn pool(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.pool)
    }

    /// Where the tensors stand in the flat buffers.
    pub(crate) fn tensors(&self) -> &[Placed] {
        &self.tensors
    }

    /// All tensors, flat.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The buffer of all tensors and what else a checkpoint holds.
    pub(crate) fn state_mut(&mut self) -> (&[Placed], &mut [f32], &mut OptimizerState, &mut Option<Ema>) {
        (&self.tensors, &mut self.values, &mut self.optimizer, &mut self.ema)
    }

    /// Whether all tensors and all that a checkpoint holds of them are; a step can break them though its loss was finite.
    pub(crate) fn is_finite(&self) -> bool {
        let averages = self.ema.as_ref().is_none_or(|ema| all_finite(&ema.values));
        averages && all_finite(&self.values) && self.optimizer.is_finite()
    }

    /// Forward and backward: fills the gradient, updates running statistics.
    fn differentiate(&mut self, pixels: &[f32], labels: &[u32]) -> Result<StepReport, TrainError> {
        if labels.len() > self.max_batch {
            let expected = "at most max_batch";
            return Err(ConfigError { field: "labels", value: labels.len().to_string(), expected }.into());
        }
        for (Placed { range, .. }, var) in self.tensors.iter().zip(self.model.vars()) {
            edit(var, |elements| elements.copy_from_slice(&self.values[range.clone()]))?;
        }
        let images = images(pixels.to_vec(), self.network.input_shape())?;
        let gradients = self.model.gradients(&images, labels, self.label_smoothing)?;
        for (placed, gradient) in self.tensors.iter().zip(&gradients.by_tensor) {
            if let Some(gradient) = gradient {
                self.gradient[placed.range.clone()].copy_from_slice(&values::<f32>(gradient)?);
            }
        }
        for (Placed { spec, range, .. }, var) in self.tensors.iter().zip(self.model.vars()) {
            if !spec.role.is_trainable() {
                self.values[range.clone()].copy_from_slice(&values::<f32>(var)?);
            }
        }
        Ok(StepReport { loss: gradients.loss, logits: values::<f32>(&gradients.logits)?.to_vec() })
    }
}

/// The tensors of a model one behind the other.
fn place(model: &Model, network: &Network) -> Vec<Placed> {
    let reached = reached(&Program::compile(network), model.specs().len());
    let mut end = 0;
    let placed = |(spec, trained): (&TensorSpec, bool)| {
        let start = end;
        end += spec.elements();
        Placed { spec: spec.clone(), range: start..end, trained }
    };
    model.specs().iter().zip(reached).map(placed).collect()
}

/// Tensors that a gradient reaches.
fn reached(program: &Program, n_tensors: usize) -> Vec<bool> {
    let mut slots = vec![false; program.n_slots];
    let mut tensors = vec![false; n_tensors];
    slots[program.output] = true;
    for step in program.steps.iter().rev().filter(|step| program.trainable[step.output]) {
        if !slots[step.output] {
            continue;
        }
        step.inputs.iter().for_each(|&input| slots[input] = true);
        match step.action {
            Action::Conv { weight, bias, .. } => [weight].into_iter().chain(bias).for_each(|i| tensors[i] = true),
            Action::Norm { norm, .. } => [norm.scale, norm.shift].into_iter().for_each(|i| tensors[i] = true),
            _ => {}
        }
    }
    tensors
}

#[cfg(test)]
mod tests;
