//! The training loop.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gram_data::{Batch, ImageSet, Normalisation};
use gram_ir::{Network, Weights};
use serde::{Deserialize, Serialize};

use crate::batches::{TrainBatch, TrainBatches};
use crate::evaluate::{check_set, count_within};
use crate::prefetch::Prefetch;
use crate::teacher::TeacherEngine;
use crate::{
    ConfigError, Distillation, StepReport, Targets, Taught, Teacher, TrainConfig, TrainError, Trainer, evaluate,
    learning_rate, resume,
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
    pool.install(|| Run::start(network, data, config, seed, trainer)?.all(options))
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

/// A training under way.
pub(crate) struct Run<'a> {
    pub(crate) network: &'a Network,
    pub(crate) data: &'a TrainData<'a>,
    pub(crate) config: &'a TrainConfig,
    pub(crate) seed: u64,
    steps_per_epoch: usize,
    pub(crate) trainer: Trainer,
    teacher: Option<(TeacherEngine, Distillation)>,
    pub(crate) history: Vec<EpochReport>,
}

/// How an epoch ended.
enum Epoch {
    Done { loss: f64, top1: f64, learning_rate: f64 },
    Diverged { step: usize },
    Interrupted,
}

impl<'a> Run<'a> {
    fn start(
        network: &'a Network,
        data: &'a TrainData<'a>,
        config: &'a TrainConfig,
        seed: u64,
        trainer: Trainer,
    ) -> Result<Self, TrainError> {
        let history = Vec::with_capacity(config.epochs.min(1024));
        let steps_per_epoch = TrainBatches::new(data, config, seed, 0)?.len();
        let teacher = data.teacher.zip(config.distillation).map(|(teacher, distillation)| {
            Ok::<_, TrainError>((TeacherEngine::new(&teacher, network, data.normalisation)?, distillation))
        });
        Ok(Self { network, data, config, seed, steps_per_epoch, trainer, teacher: teacher.transpose()?, history })
    }

    fn all(mut self, options: TrainOptions<'_>) -> Result<Outcome, TrainError> {
        let TrainOptions { observer, interrupt, checkpoint, evaluate_every, pause_after, initial, .. } = options;
        let checkpoint = checkpoint.map(|path| resume::open(&mut self, path, initial)).transpose()?;
        let (data, config, seed) = (self.data, self.config, self.seed);
        let n_epochs = pause_after.map_or(config.epochs, |pause| pause.min(config.epochs));
        let left = self.history.len() as u64..n_epochs as u64;
        std::thread::scope(|scope| {
            let mut ahead = Prefetch::start(scope, left, |epoch| TrainBatches::new(data, config, seed, epoch))
                .map_err(TrainError::Prefetch)?;
            while self.history.len() < n_epochs {
                let done = self.history.len();
                let (train_loss, train_top1, learning_rate) = match self.epoch(done, &mut ahead, interrupt)? {
                    Epoch::Done { loss, top1, learning_rate } => (loss, top1, learning_rate),
                    Epoch::Diverged { step } => return Ok(Outcome::Diverged { epoch: done + 1, step }),
                    Epoch::Interrupted => return Ok(Outcome::Interrupted { epoch: done }),
                };
                let epoch = done + 1;
                let last = epoch == n_epochs;
                let due = last || (evaluate_every > 0 && epoch.is_multiple_of(evaluate_every));
                let validation_top1 = if due { self.validate()? } else { None };
                self.history.push(EpochReport { epoch, train_loss, train_top1, validation_top1, learning_rate });
                if let Some(checkpoint) = &checkpoint {
                    checkpoint.save(&self)?;
                }
                if observer(&self.history[done]) == Control::Stop && !last {
                    return Ok(Outcome::Interrupted { epoch });
                }
            }
            if n_epochs < config.epochs {
                return Ok(Outcome::Paused { history: self.history });
            }
            Ok(Outcome::Trained(Trained { weights: self.trainer.weights(), history: self.history }))
        })
    }

    fn validate(&self) -> Result<Option<f64>, TrainError> {
        let Some(validation) = self.data.validation else { return Ok(None) };
        let weights = self.trainer.weights();
        let evaluation = evaluate(self.network, &weights, validation, self.data.normalisation, EVALUATION_BATCH)?;
        Ok(Some(evaluation.top1))
    }

    fn epoch(
        &mut self,
        epoch: usize,
        ahead: &mut Prefetch<'_, TrainBatch>,
        interrupt: Option<&AtomicBool>,
    ) -> Result<Epoch, TrainError> {
        let (mut loss, mut right, mut n, mut rate) = (0.0, 0, 0, 0.0);
        for step in 0..self.steps_per_epoch {
            if interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Ok(Epoch::Interrupted);
            }
            let batch = ahead.next()?.expect("invariant: every epoch has the same number of batches");
            rate = self.rate(epoch * self.steps_per_epoch + step);
            let report = self.step(&batch, rate)?;
            if !report.loss.is_finite() {
                return Ok(Epoch::Diverged { step });
            }
            loss += report.loss * batch.batch.n as f64;
            right += count_within(1, &report.logits, batch.main_labels());
            n += batch.batch.n;
        }
        if !self.trainer.is_finite() {
            return Ok(Epoch::Diverged { step: self.steps_per_epoch - 1 });
        }
        Ok(Epoch::Done { loss: loss / n as f64, top1: right as f64 / n as f64, learning_rate: rate })
    }

    fn step(&mut self, batch: &TrainBatch, rate: f64) -> Result<StepReport, TrainError> {
        let TrainBatch { batch: Batch { pixels, n, .. }, .. } = batch;
        let teacher = self.teacher.as_mut();
        let said = teacher.map(|(teacher, distillation)| (teacher.logits(pixels, *n), *distillation));
        let taught = said.as_ref().map(|(logits, distillation)| Taught { logits, distillation: *distillation });
        let targets = Targets { teacher: taught, ..batch.targets(self.config.label_smoothing) };
        self.trainer.step_towards(pixels, &targets, rate)
    }

    fn rate(&self, step: usize) -> f64 {
        let steps = |epochs: usize| (epochs * self.steps_per_epoch) as u64;
        learning_rate(
            self.config.learning_rate,
            step as u64,
            steps(self.config.warmup_epochs),
            steps(self.config.epochs),
        )
    }
}

/// Images evaluated at once; changes nothing but speed.
pub(crate) const EVALUATION_BATCH: usize = 128;
