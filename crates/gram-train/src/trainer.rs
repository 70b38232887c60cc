//! One network in training: a step at a time.

use std::sync::Arc;

use gram_ir::{Network, Tensor, TensorRole, TensorSpec, Weights};
use gram_kernels::IsaKind;
use rayon::ThreadPool;

use crate::engine::{Engine, Layout};
use crate::model::initial_values;
use crate::optim::{Ema, OptimizerState, Segment, all_finite, clip};
use crate::seeds::{Purpose, derived_seed};
use crate::{ConfigError, NUMERICS, Targets, TrainConfig, TrainError};

mod state;

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
    engine: Engine,
    pub(crate) optimizer: OptimizerState,
    pub(crate) ema: Option<Ema>,
    clip_norm: Option<f64>,
    label_smoothing: f64,
    max_batch: usize,
    pool: Arc<ThreadPool>,
}

impl Trainer {
    /// `network` with random weights, as [`Model::new`](crate::Model::new) draws them from a stream of its own of `seed`.
    ///
    /// Of `config`, everything but the epochs, the batch size, the learning rate, mixup and the augmentation is used. Steps run on `n_threads`
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
        Self::with_isa(network, config, seed, n_threads, max_batch, None)
    }

    /// As [`new`](Self::new), on one instruction set instead of the best one that the machine has; one that it lacks gives way to plain code.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_isa(
        network: &Network,
        config: &TrainConfig,
        seed: u64,
        n_threads: Option<usize>,
        max_batch: usize,
        isa: Option<IsaKind>,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        for (field, value) in [("n_threads", n_threads), ("max_batch", Some(max_batch))] {
            if value == Some(0) {
                return Err(ConfigError { field, value: "0".into(), expected: "1 or more" }.into());
            }
        }
        let n_threads = n_threads.unwrap_or_else(rayon::current_num_threads);
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?);
        let mut engine = Engine::new(network, isa, false);
        let seed = derived_seed(seed, Purpose::Weights);
        let Layout { specs, ranges, .. } = engine.layout().clone();
        for (i, (spec, range)) in specs.iter().zip(ranges).enumerate() {
            let values = initial_values(network, spec, seed, i as u64);
            engine.values_mut()[range].iter_mut().zip(values).for_each(|(to, x)| *to = x as f32);
        }
        let segments = segments(engine.layout());
        let start = engine.values();
        Ok(Self {
            optimizer: OptimizerState::new(config.optimizer, config.weight_decay, segments, start.len()),
            ema: config.ema_decay.map(|decay| Ema::new(decay, start)),
            engine,
            clip_norm: config.clip_norm,
            label_smoothing: config.label_smoothing,
            max_batch,
            pool,
        })
    }

    /// Starts from those tensors of `initial` that have name and shape of the network's, running statistics among them; gives their number.
    ///
    /// For before the first step: the moving average starts anew, the optimiser's memories stay.
    pub fn inherit(&mut self, initial: &Weights) -> usize {
        let Layout { specs, ranges, .. } = self.engine.layout().clone();
        let mut n_inherited = 0;
        for (spec, range) in specs.iter().zip(ranges) {
            let Some(tensor) = inherited(spec, initial) else { continue };
            self.engine.values_mut()[range].copy_from_slice(&tensor.to_f32());
            n_inherited += 1;
        }
        if let Some(ema) = &mut self.ema {
            ema.values.copy_from_slice(self.engine.values());
        }
        n_inherited
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
        self.step_towards(pixels, &Targets::of(labels, self.label_smoothing), lr)
    }

    /// As [`step`](Self::step), with targets that may be mixed; their smoothing takes the place of the configuration's.
    ///
    /// # Errors
    /// [`TrainError`] if pixels or targets do not fit the network.
    pub fn step_towards(&mut self, pixels: &[f32], targets: &Targets<'_>, lr: f64) -> Result<StepReport, TrainError> {
        let n = targets.labels.len();
        if n > self.max_batch {
            let expected = "at most max_batch";
            return Err(ConfigError { field: "labels", value: n.to_string(), expected }.into());
        }
        let Self { engine, optimizer, ema, clip_norm, .. } = self;
        self.pool.install(|| {
            let report = engine.step_towards(pixels, targets)?;
            if report.loss.is_finite() {
                let (values, gradient) = engine.parts();
                if let Some(max_norm) = *clip_norm {
                    clip(gradient, optimizer.segments(), max_norm);
                }
                optimizer.step(values, gradient, lr);
                if let Some(ema) = ema {
                    ema.update(values);
                }
            }
            Ok(report)
        })
    }

    /// The present weights; the moving average if there is one.
    pub fn weights(&self) -> Weights {
        let values = self.ema.as_ref().map_or(self.engine.values(), |ema| &ema.values);
        self.engine.layout().weights(values).expect("invariant: a tensor's range is its size")
    }

    /// The worker threads.
    pub(crate) fn pool(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.pool)
    }

    /// Where the tensors stand in the flat buffers.
    pub(crate) fn layout(&self) -> &Layout {
        self.engine.layout()
    }

    /// All that changes in training, by the layout: tensors, moving average and the optimiser's memories. Empty where there is none.
    pub(crate) fn state(&self) -> [&[f32]; 4] {
        let averages = self.ema.as_ref().map_or(&[][..], |ema| &ema.values);
        [self.engine.values(), averages, &self.optimizer.first, &self.optimizer.second]
    }

    /// The same, to be changed.
    pub(crate) fn state_mut(&mut self) -> [&mut [f32]; 4] {
        let averages = self.ema.as_mut().map_or(&mut [][..], |ema| &mut ema.values);
        [self.engine.values_mut(), averages, &mut self.optimizer.first, &mut self.optimizer.second]
    }

    /// Whether all of the state is; a step can break it though its loss was finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.state().into_iter().all(all_finite)
    }
}

/// Names what may change the last bits of a training besides its inputs: [`NUMERICS`] and the instruction set that trainings run on.
///
/// Trainings with the same numerics, inputs and seed give the same bits.
pub fn numerics() -> String {
    format!("{NUMERICS}, {}", IsaKind::best().name())
}

/// The tensor of `initial` that a tensor of a network starts from.
pub(crate) fn inherited<'w>(spec: &TensorSpec, initial: &'w Weights) -> Option<&'w Tensor> {
    initial.get(&spec.name).ok().filter(|tensor| tensor.shape() == spec.shape)
}

/// The tensors that are trained.
fn segments(layout: &Layout) -> Vec<Segment> {
    let tensors = layout.specs.iter().zip(&layout.ranges).zip(&layout.trained);
    let trained = tensors.filter(|&(_, &trained)| trained);
    trained.map(|((spec, range), _)| Segment { range: range.clone(), decay: spec.role == TensorRole::Weight }).collect()
}

#[cfg(test)]
mod tests;
