//! Trainings on the CPU, and what all trainings are given and give.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use gram_data::{Batch, ImageSet, Normalisation};
use gram_ir::{Network, Weights};
use serde::{Deserialize, Serialize};

use crate::batches::TrainBatch;
use crate::checkpoint::Checkpoint;
use crate::epochs::{Backend, BatchReport, Epoch, Run, Steps, Totals};
use crate::evaluate::{check_set, count_within};
use crate::teacher::TeacherEngine;
use crate::{
    ConfigError, Distillation, StepReport, Targets, Taught, Teacher, TrainConfig, TrainError, Trainer, evaluate,
    numerics,
};

/// The images of a training.
#[derive(Clone, Copy, Debug)]
pub struct TrainData<'a> {
    /// Images to learn from.
    pub train: &'a ImageSet,
    /// Images to watch the accuracy on; nothing is learnt or decided from them.
    pub validation: Option<&'a ImageSet>,
    /// Applied to all images.
    pub normalisation: &'a Normalisation,
    /// A larger network whose scores are learnt from too, as [`TrainConfig::distillation`] says.
    pub teacher: Option<Teacher<'a>>,
}

/// What one epoch has brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochReport {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean loss over the epoch's training images as they were seen, augmented, mixed and smoothed.
    pub train_loss: f64,
    /// Share of them that were classified right in passing, in `0..=1`; of a mixture, what it is most of counts.
    pub train_top1: f64,
    /// Top-1 on the validation images behind the epoch, in `0..=1`, where it was evaluated.
    pub validation_top1: Option<f64>,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
}

/// Whether a training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// It does.
    Continue,
    /// It ends behind this epoch with [`Outcome::Interrupted`], or as trained if it was the last.
    Stop,
}

/// How a training is run; nothing here but [`initial`](Self::initial) changes the weights that come out.
pub struct TrainOptions<'a> {
    /// Worker threads; none: as many as the present rayon pool has.
    pub n_threads: Option<usize>,
    /// Called behind every epoch that is trained, not for those that come from a checkpoint.
    pub observer: &'a mut (dyn FnMut(&EpochReport) -> Control + Send),
    /// Checked before every step: once it is true, the training ends with [`Outcome::Interrupted`].
    pub interrupt: Option<&'a AtomicBool>,
    /// A file that is written behind every epoch. If it is there at the start, the training goes on from it.
    pub checkpoint: Option<&'a Path>,
    /// Validation top-1 is taken every so many epochs and behind the last one; 0: only behind the last one.
    pub evaluate_every: usize,
    /// The training ends with [`Outcome::Paused`] behind so many epochs, where validation top-1 is taken; none: it goes on to the end. With a
    /// checkpoint of as many epochs or more nothing is trained.
    pub pause_after: Option<usize>,
    /// Tensors to start from instead of random ones, running statistics among them, where name and shape are those of the network's; others are
    /// not looked at. A checkpoint goes on only with the same.
    pub initial: Option<&'a Weights>,
}

impl<'a> TrainOptions<'a> {
    /// All threads, no checkpoint, validation behind every epoch, from random weights to the end.
    pub fn new(observer: &'a mut (dyn FnMut(&EpochReport) -> Control + Send)) -> Self {
        Self {
            n_threads: None,
            observer,
            interrupt: None,
            checkpoint: None,
            evaluate_every: 1,
            pause_after: None,
            initial: None,
        }
    }
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Trained(Trained),
    /// The loss or a weight was not finite.
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The step of that epoch, from 0.
        step: usize,
    },
    /// It was stopped, by the observer or the interrupt flag; with a checkpoint, calling again goes on.
    Interrupted {
        /// Epochs done.
        epoch: usize,
    },
    /// It has come to where it was to pause; with a checkpoint, calling again goes on.
    Paused {
        /// One report per epoch; more than asked for if the checkpoint had come further.
        history: Vec<EpochReport>,
    },
}

/// A trained network.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The weights; the moving average if there is one.
    pub weights: Weights,
    /// One report per epoch.
    pub history: Vec<EpochReport>,
}

/// Trains `network` from random weights, or from those of [`TrainOptions::initial`].
///
/// Initial weights, the order of images, their augmentation and their mixtures come from streams of their own of `seed`. Weights are the same bits for
/// any number of threads, with or without interruptions.
///
/// # Errors
/// [`TrainError`] where configuration, images, network or checkpoint do not fit. Divergence is an [`Outcome`].
/// # Example
/// ```
/// use gram_data::{ImageSet, ImageShape, Normalisation};
/// use gram_ir::{Conv2d, Network, Op, Shape};
/// use gram_train::{Control, Outcome, TrainConfig, TrainData, TrainOptions, train};
///
/// let mut network = Network::new(Shape::chw(1, 2, 2));
/// let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()])?;
/// let fc = network.add("fc", Op::Linear { c_in: 1, c_out: 2, bias: true }, &[pool])?;
/// network.set_output(fc)?;
///
/// // Dark and bright images.
/// let images = ImageSet::new(ImageShape::new(1, 2, 2), [[10; 4], [200; 4], [30; 4], [250; 4]].concat(), vec![0, 1, 0, 1])?;
/// let data = TrainData { train: &images, validation: Some(&images), normalisation: &Normalisation::of(&images), teacher: None };
/// let config = TrainConfig { epochs: 10, batch_size: 2, ..TrainConfig::default() };
/// let outcome = train(&network, &data, &config, 1, TrainOptions::new(&mut |_| Control::Continue))?;
/// let Outcome::Trained(trained) = outcome else { panic!("{outcome:?}") };
/// assert_eq!(trained.history.last().unwrap().validation_top1, Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train(
    network: &Network,
    data: &TrainData<'_>,
    config: &TrainConfig,
    seed: u64,
    options: TrainOptions<'_>,
) -> Result<Outcome, TrainError> {
    check_set(network, data.train, "training")?;
    if let Some(validation) = data.validation {
        check_set(network, validation, "validation")?;
    }
    check_teacher(data, config)?;
    let max_batch = config.batch_size.min(data.train.len()).max(1);
    let mut trainer = Trainer::new(network, config, seed, options.n_threads, max_batch)?;
    if let Some(initial) = options.initial {
        trainer.inherit(initial);
    }
    let pool = trainer.pool();
    pool.install(|| Run::new(network, data, config, seed, Cpu::new(network, data, config, trainer)?).all(options))
}

/// Refuses a teacher without a word on how to learn from it, and the other way round.
pub(crate) fn check_teacher(data: &TrainData<'_>, config: &TrainConfig) -> Result<(), TrainError> {
    let refuse = |value: &str, expected| {
        let field = "distillation";
        Err(TrainError::Config(ConfigError { field, value: value.into(), expected }))
    };
    match (data.teacher, config.distillation) {
        (Some(_), None) => refuse("none", "given where there is a teacher"),
        (None, Some(_)) => refuse("given", "none where there is no teacher"),
        _ => Ok(()),
    }
}

/// Steps on the CPU's engine.
struct Cpu<'a> {
    network: &'a Network,
    label_smoothing: f64,
    trainer: Trainer,
    teacher: Option<(TeacherEngine, Distillation)>,
}

impl<'a> Cpu<'a> {
    fn new(
        network: &'a Network,
        data: &TrainData<'_>,
        config: &TrainConfig,
        trainer: Trainer,
    ) -> Result<Self, TrainError> {
        let teacher = data.teacher.zip(config.distillation).map(|(teacher, distillation)| {
            Ok::<_, TrainError>((TeacherEngine::new(&teacher, network, data.normalisation)?, distillation))
        });
        Ok(Self { network, label_smoothing: config.label_smoothing, trainer, teacher: teacher.transpose()? })
    }

    fn step(&mut self, batch: &TrainBatch, rate: f64) -> Result<BatchReport, TrainError> {
        let Batch { pixels, n, .. } = &batch.batch;
        let teacher = self.teacher.as_mut();
        let said = teacher.map(|(teacher, distillation)| (teacher.logits(pixels, *n), *distillation));
        let taught = said.as_ref().map(|(logits, distillation)| Taught { logits, distillation: *distillation });
        let targets = Targets { teacher: taught, ..batch.targets(self.label_smoothing) };
        let StepReport { loss, logits, .. } = self.trainer.step_towards(pixels, &targets, rate)?;
        Ok(BatchReport { loss, right: count_within(1, &logits, batch.main_labels()), n: *n })
    }
}

impl Backend for Cpu<'_> {
    fn epoch(&mut self, steps: &mut Steps<'_, '_>) -> Result<Epoch, TrainError> {
        let mut totals = Totals::default();
        while let Some((batch, rate)) = steps.next()? {
            if !totals.add(&self.step(&batch, rate)?) {
                return Ok(Epoch::Diverged(steps.last()));
            }
        }
        Ok(if self.trainer.is_finite() { Epoch::Done(totals) } else { Epoch::Diverged(steps.last()) })
    }

    fn top1(&self, images: &ImageSet, normalisation: &Normalisation) -> Result<f64, TrainError> {
        Ok(evaluate(self.network, &self.trainer.weights(), images, normalisation, EVALUATION_BATCH)?.top1)
    }

    fn weights(&self) -> Result<Weights, TrainError> {
        Ok(self.trainer.weights())
    }

    fn numerics(&self) -> String {
        numerics()
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        self.trainer.save(checkpoint);
        Ok(())
    }

    fn restore(&mut self, checkpoint: &mut Checkpoint, path: &Path) -> Result<(), TrainError> {
        Ok(self.trainer.restore(checkpoint).map_err(|problem| problem.at(path))?)
    }
}

/// Images evaluated at once; changes nothing but speed.
pub(crate) const EVALUATION_BATCH: usize = 128;
