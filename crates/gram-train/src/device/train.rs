//! The training loop on a device.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use gram_ir::Network;

use super::resume;
use super::teacher::DeviceTeacher;
use super::trainer::{BatchReport, DeviceTrainer, Pending};
use crate::batches::{TrainBatch, TrainBatches};
use crate::evaluate::check_set;
use crate::prefetch::Prefetch;
use crate::train::check_teacher;
use crate::{
    Control, EpochReport, Outcome, TrainConfig, TrainData, TrainError, TrainOptions, Trained, learning_rate, train,
};

/// [`train`] on `device`: the CPU has an engine of its own, other devices use [`train_on_device`].
///
/// [`numerics_on`](crate::numerics_on) tells apart what comes out.
///
/// # Errors
/// [`TrainError`] where configuration, images, network or checkpoint do not fit, or the device has no room.
pub fn train_on(
    device: &Device,
    network: &Network,
    data: &TrainData<'_>,
    config: &TrainConfig,
    seed: u64,
    options: TrainOptions<'_>,
) -> Result<Outcome, TrainError> {
    if device.is_cpu() {
        train(network, data, config, seed, options)
    } else {
        train_on_device(network, data, config, seed, device, options)
    }
}

/// What [`train`] does, on any candle device, by a [`DeviceModel`](crate::DeviceModel).
///
/// Weights, batches and schedule are those of [`train`], results equal but for rounding. Only pixels and labels go to the device, only
/// scores come back, those of a step while the next one runs; so a loss that is not finite is noticed a step later, and reported for its
/// own step. `options.n_threads` is not used. A checkpoint goes on only on the same kind of device.
///
/// Trainings that run at the same time on one GPU need to open it once each: an opened [`Device`] has one library handle and one queue.
///
/// # Errors
/// As [`train`], and [`TrainError::Tensor`] if the device has no room.
pub fn train_on_device(
    network: &Network,
    data: &TrainData<'_>,
    config: &TrainConfig,
    seed: u64,
    device: &Device,
    options: TrainOptions<'_>,
) -> Result<Outcome, TrainError> {
    check_set(network, data.train, "training")?;
    if let Some(validation) = data.validation {
        check_set(network, validation, "validation")?;
    }
    check_teacher(data, config)?;
    let mut trainer = DeviceTrainer::new(network, config, seed, device, options.initial)?;
    if let Some((teacher, distillation)) = data.teacher.zip(config.distillation) {
        trainer.teacher = Some(DeviceTeacher::new(&teacher, network, data.normalisation, (distillation, device))?);
    }
    let steps_per_epoch = TrainBatches::new(data, config, seed, 0)?.len();
    let history = Vec::with_capacity(config.epochs.min(1024));
    DeviceRun { network, data, config, seed, steps_per_epoch, trainer, history }.all(options)
}

/// A training under way.
pub(super) struct DeviceRun<'a> {
    pub(super) network: &'a Network,
    pub(super) data: &'a TrainData<'a>,
    pub(super) config: &'a TrainConfig,
    pub(super) seed: u64,
    steps_per_epoch: usize,
    pub(super) trainer: DeviceTrainer,
    pub(super) history: Vec<EpochReport>,
}

/// How an epoch ended.
enum Epoch {
    Done { loss: f64, top1: f64, learning_rate: f64 },
    Diverged { step: usize },
    Interrupted,
}

impl DeviceRun<'_> {
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
                let validation = data.validation.filter(|_| due);
                let validation_top1 = validation.map(|set| self.trainer.top1(set, data.normalisation)).transpose()?;
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
            Ok(Outcome::Trained(Trained { weights: self.trainer.result().weights()?, history: self.history }))
        })
    }

    fn epoch(
        &mut self,
        epoch: usize,
        ahead: &mut Prefetch<'_, TrainBatch>,
        interrupt: Option<&AtomicBool>,
    ) -> Result<Epoch, TrainError> {
        let mut totals = Totals::default();
        let mut pending: Option<Pending> = None;
        let mut rate = 0.0;
        for step in 0..self.steps_per_epoch {
            if interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Ok(Epoch::Interrupted);
            }
            let batch = ahead.next()?.expect("invariant: every epoch has the same number of batches");
            rate = self.rate(epoch * self.steps_per_epoch + step);
            let launched = self.trainer.step(batch, rate)?;
            // The scores of the step before are read while the device works on this one.
            if let Some(before) = pending.replace(launched)
                && !totals.add(before.report()?)
            {
                return Ok(Epoch::Diverged { step: step - 1 });
            }
        }
        let last = pending.map(Pending::report).transpose()?;
        let finite = last.is_none_or(|report| totals.add(report)) && self.trainer.is_finite()?;
        if !finite {
            return Ok(Epoch::Diverged { step: self.steps_per_epoch - 1 });
        }
        let n = totals.n as f64;
        Ok(Epoch::Done { loss: totals.loss / n, top1: totals.right as f64 / n, learning_rate: rate })
    }

    fn rate(&self, step: usize) -> f64 {
        let steps = |epochs: usize| (epochs * self.steps_per_epoch) as u64;
        let config = self.config;
        learning_rate(config.learning_rate, step as u64, steps(config.warmup_epochs), steps(config.epochs))
    }
}

/// Sums over the batches of an epoch.
#[derive(Default)]
struct Totals {
    /// Of images.
    loss: f64,
    right: usize,
    n: usize,
}

impl Totals {
    /// Whether the batch's loss is finite.
    fn add(&mut self, report: BatchReport) -> bool {
        self.loss += report.loss * report.n as f64;
        self.right += report.right;
        self.n += report.n;
        report.loss.is_finite()
    }
}
