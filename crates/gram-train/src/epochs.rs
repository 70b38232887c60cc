//! A training from epoch to epoch, whatever makes its steps.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gram_data::{ImageSet, Normalisation};
use gram_ir::{Network, Weights};

use crate::batches::{TrainBatch, TrainBatches};
use crate::checkpoint::Checkpoint;
use crate::prefetch::Prefetch;
use crate::{
    Control, EpochReport, Outcome, TrainConfig, TrainData, TrainError, TrainOptions, Trained, learning_rate, resume,
};

/// What makes the steps of a training, and holds all that changes in them.
pub(crate) trait Backend {
    /// Makes the steps until there are no more, or the loss or a weight is not finite.
    fn epoch(&mut self, steps: &mut Steps<'_, '_>) -> Result<Epoch, TrainError>;
    /// Share of `images` that the present weights classify right.
    fn top1(&self, images: &ImageSet, normalisation: &Normalisation) -> Result<f64, TrainError>;
    /// The weights that are evaluated and kept: the moving average if there is one.
    fn weights(&self) -> Result<Weights, TrainError>;
    /// What a checkpoint has to agree in, as [`numerics`](crate::numerics).
    fn numerics(&self) -> String;
    /// Adds tensors and counts.
    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError>;
    /// Takes out what [`save`](Self::save) has added; `path` is for errors.
    fn restore(&mut self, checkpoint: &mut Checkpoint, path: &Path) -> Result<(), TrainError>;
}

/// How the steps of an epoch ended.
pub(crate) enum Epoch {
    Done(Totals),
    /// In this step, from 0.
    Diverged(usize),
}

/// What a batch came to.
pub(crate) struct BatchReport {
    /// Mean loss, label smoothing included, in nats.
    pub(crate) loss: f64,
    /// Images that were classified right.
    pub(crate) right: usize,
    /// Number of images.
    pub(crate) n: usize,
}

/// Sums over the batches of an epoch.
#[derive(Default)]
pub(crate) struct Totals {
    /// Of images.
    loss: f64,
    right: usize,
    n: usize,
}

impl Totals {
    /// Whether the batch's loss is finite.
    pub(crate) fn add(&mut self, report: &BatchReport) -> bool {
        self.loss += report.loss * report.n as f64;
        self.right += report.right;
        self.n += report.n;
        report.loss.is_finite()
    }
}

/// The batches of an epoch that are left, each with its learning rate.
pub(crate) struct Steps<'s, 'scope> {
    ahead: &'s mut Prefetch<'scope, TrainBatch>,
    interrupt: Option<&'s AtomicBool>,
    config: &'s TrainConfig,
    per_epoch: usize,
    /// From 0.
    epoch: usize,
    /// Handed out so far.
    n_done: usize,
    /// Of the last one.
    rate: f64,
    interrupted: bool,
}

impl Steps<'_, '_> {
    /// The next batch; none behind the last one, and once the training is interrupted.
    pub(crate) fn next(&mut self) -> Result<Option<(TrainBatch, f64)>, TrainError> {
        self.interrupted =
            self.n_done < self.per_epoch && self.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed));
        if self.interrupted || self.n_done == self.per_epoch {
            return Ok(None);
        }
        let batch = self.ahead.next()?.expect("invariant: every epoch has the same number of batches");
        let steps = |epochs: usize| (epochs * self.per_epoch) as u64;
        let (warmup, all) = (steps(self.config.warmup_epochs), steps(self.config.epochs));
        self.rate = learning_rate(self.config.learning_rate, steps(self.epoch) + self.n_done as u64, warmup, all);
        self.n_done += 1;
        Ok(Some((batch, self.rate)))
    }

    /// The step that was handed out last, from 0.
    pub(crate) fn last(&self) -> usize {
        self.n_done.saturating_sub(1)
    }
}

/// A training under way.
pub(crate) struct Run<'a, B> {
    pub(crate) network: &'a Network,
    pub(crate) data: &'a TrainData<'a>,
    pub(crate) config: &'a TrainConfig,
    pub(crate) seed: u64,
    pub(crate) backend: B,
    pub(crate) history: Vec<EpochReport>,
}

impl<'a, B: Backend> Run<'a, B> {
    pub(crate) fn new(
        network: &'a Network,
        data: &'a TrainData<'a>,
        config: &'a TrainConfig,
        seed: u64,
        backend: B,
    ) -> Self {
        Self { network, data, config, seed, backend, history: Vec::with_capacity(config.epochs.min(1024)) }
    }

    /// Goes on from the checkpoint, if there is one, to the end or where it is to pause.
    pub(crate) fn all(mut self, options: TrainOptions<'_>) -> Result<Outcome, TrainError> {
        let TrainOptions { observer, interrupt, checkpoint, evaluate_every, pause_after, initial, .. } = options;
        let checkpoint = checkpoint.map(|path| resume::open(&mut self, path, initial)).transpose()?;
        let (data, config, seed) = (self.data, self.config, self.seed);
        let per_epoch = TrainBatches::new(data, config, seed, 0)?.len();
        let n_epochs = pause_after.map_or(config.epochs, |pause| pause.min(config.epochs));
        let left = self.history.len() as u64..n_epochs as u64;
        std::thread::scope(|scope| {
            let mut ahead = Prefetch::start(scope, left, |epoch| TrainBatches::new(data, config, seed, epoch))
                .map_err(TrainError::Prefetch)?;
            while self.history.len() < n_epochs {
                let done = self.history.len();
                let mut steps = Steps {
                    ahead: &mut ahead,
                    interrupt,
                    config,
                    per_epoch,
                    epoch: done,
                    n_done: 0,
                    rate: 0.0,
                    interrupted: false,
                };
                let ended = self.backend.epoch(&mut steps)?;
                let Steps { rate, interrupted, .. } = steps;
                let totals = match ended {
                    _ if interrupted => return Ok(Outcome::Interrupted { epoch: done }),
                    Epoch::Done(totals) => totals,
                    Epoch::Diverged(step) => return Ok(Outcome::Diverged { epoch: done + 1, step }),
                };
                let epoch = done + 1;
                let last = epoch == n_epochs;
                let due = last || (evaluate_every > 0 && epoch.is_multiple_of(evaluate_every));
                self.history.push(self.report(epoch, &totals, rate, due)?);
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
            Ok(Outcome::Trained(Trained { weights: self.backend.weights()?, history: self.history }))
        })
    }

    /// What epoch number `epoch` has brought, with validation top-1 if that is `due`.
    fn report(&self, epoch: usize, totals: &Totals, learning_rate: f64, due: bool) -> Result<EpochReport, TrainError> {
        let n = totals.n as f64;
        let validation = self.data.validation.filter(|_| due);
        let validation_top1 = validation.map(|set| self.backend.top1(set, self.data.normalisation)).transpose()?;
        let (train_loss, train_top1) = (totals.loss / n, totals.right as f64 / n);
        Ok(EpochReport { epoch, train_loss, train_top1, validation_top1, learning_rate })
    }
}
