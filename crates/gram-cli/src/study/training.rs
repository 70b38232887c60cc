//! A full training with progress, checkpoint and a model folder at the end.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use gram_data::{ImageSet, Normalisation, Splits};
use gram_ir::{Design, Network, Weights};
use gram_train::{
    Control, Device, EpochReport, Outcome, Teacher, TrainConfig, TrainData, TrainError, TrainOptions, numerics_on,
    teacher_bytes, training_bytes,
};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::interrupt;
use crate::model_dir::{self, Metrics, ModelDir, Preprocessing};
use crate::progress::Progress;
use crate::study::config::FORMAT_VERSION;

/// Images evaluated at once; changes nothing but speed.
const EVALUATION_BATCH: usize = 256;

/// Everything that decides how a model comes out.
pub(crate) struct Training<'a> {
    pub(crate) design: &'a Design,
    pub(crate) network: &'a Network,
    pub(crate) splits: &'a Splits,
    pub(crate) preprocessing: &'a Preprocessing,
    pub(crate) config: &'a TrainConfig,
    pub(crate) seed: u64,
    pub(crate) device: &'a Device,
    /// None: all cores. Changes nothing but time.
    pub(crate) n_threads: Option<NonZeroUsize>,
    /// What the network learns from beside labels.
    pub(crate) teacher: Option<&'a ModelDir>,
}

impl Training<'_> {
    /// Trains with a checkpoint behind every epoch, so that an interrupted training goes on where it was.
    ///
    /// # Errors
    /// Exit code 5 if interrupted, 4 for data and files, 2 where the training diverges: its settings do not suit the network.
    pub(crate) fn run(&self, checkpoint: &Path, flag: &AtomicBool) -> Result<Weights> {
        if let Some(folder) = checkpoint.parent() {
            std::fs::create_dir_all(folder).or_fail_with(Kind::Data, format!("creating {}", folder.display()))?;
        }
        let data = TrainData {
            train: &self.splits.train,
            validation: Some(&self.splits.validation),
            normalisation: &self.preprocessing.normalisation,
            teacher: self.teacher(),
        };
        let started = Instant::now();
        let mut progress: Option<Progress> = None;
        let total = self.config.epochs;
        let mut observer = |report: &EpochReport| {
            let progress = progress.get_or_insert_with(|| Progress::new("epoch", total, report.epoch - 1, started));
            progress.step(report.epoch, &describe(report));
            Control::Continue
        };
        let options = TrainOptions {
            n_threads: self.n_threads.map(NonZeroUsize::get),
            interrupt: Some(flag),
            checkpoint: Some(checkpoint),
            evaluate_every: self.config.epochs.div_ceil(20),
            ..TrainOptions::new(&mut observer)
        };
        let outcome = gram_train::train_on(self.device, self.network, &data, self.config, self.seed, options)
            .map_err(train_failure)?;
        match outcome {
            Outcome::Trained(trained) => Ok(trained.weights),
            Outcome::Interrupted { epoch } => Err(interrupt::failure(&format!("{epoch} of {total} epochs are kept"))),
            Outcome::Paused { .. } => Err(Failure::new(Kind::Internal, "a training paused that was not asked to")),
            Outcome::Diverged { epoch, step } => Err(Failure::new(
                Kind::Usage,
                format!(
                    "the training diverged in epoch {epoch}, step {step}: lower learning_rate (now {})",
                    self.config.learning_rate
                ),
            )),
        }
    }

    fn teacher(&self) -> Option<Teacher<'_>> {
        self.teacher.map(|ModelDir { network, weights, preprocessing, .. }| {
            let normalisation = &preprocessing.normalisation;
            Teacher { network, weights, normalisation }
        })
    }

    /// Bytes that it takes on so many threads, beside its images.
    pub(crate) fn bytes_on(&self, n_threads: NonZeroUsize) -> u64 {
        let own = training_bytes(self.network, self.config, n_threads.get());
        let teacher = self.teacher.map_or(0, |model| teacher_bytes(&model.network, self.config, n_threads.get()));
        (own + teacher) as u64
    }

    /// blake3 of what decides the outcome.
    pub(crate) fn identity(&self) -> String {
        let data = self.preprocessing.data.without_path();
        let preprocessing = Preprocessing { data, ..self.preprocessing.clone() };
        let mut all = serde_json::json!({
            "design": self.design.to_json(),
            "preprocessing": preprocessing,
            "config": self.config,
            "seed": self.seed,
            "numerics": numerics_on(self.device),
        });
        // Only where there is one: other models keep their identity.
        if let Some(teacher) = self.teacher() {
            all["teacher"] = teacher.digest().into();
        }
        blake3::hash(all.to_string().as_bytes()).to_hex().to_string()
    }

    /// Writes the model's files and gives the metrics on the validation images; the test images are not looked at.
    pub(crate) fn save(&self, dir: &Path, weights: &Weights) -> Result<Metrics> {
        model_dir::write(dir, self.design, weights, self.preprocessing)?;
        let normalisation = &self.preprocessing.normalisation;
        let validation = evaluate(self.network, weights, &self.splits.validation, normalisation)?;
        let cost = self.network.cost();
        Ok(Metrics {
            format_version: FORMAT_VERSION,
            macs: cost.macs.0,
            params: cost.params.0,
            deployed_params: cost.deployed_params.0,
            epochs: self.config.epochs,
            seed: self.seed,
            validation_top1: validation.top1,
            validation_top5: validation.top5,
            validation_loss: validation.loss,
            n_validation: validation.n,
            test_top1: None,
            n_test: None,
            identity: self.identity(),
            digests: BTreeMap::new(),
        })
    }
}

/// Top-1, top-5 and loss of weights on a set.
pub(crate) fn evaluate(
    network: &Network,
    weights: &Weights,
    set: &ImageSet,
    normalisation: &Normalisation,
) -> Result<gram_train::Evaluation> {
    let found = gram_train::evaluate(network, weights, set, normalisation, EVALUATION_BATCH).map_err(train_failure)?;
    if found.loss.is_finite() {
        return Ok(found);
    }
    Err(Failure::new(Kind::Data, "the model's outputs are not finite: its weights are damaged or did not train"))
}

/// Where a model's training keeps what it has.
pub(crate) fn checkpoint_of(model: &Path) -> PathBuf {
    model.join("checkpoint.safetensors")
}

/// Settings and devices are exit code 2, data and checkpoints 4, the rest are bugs.
pub(crate) fn train_failure(error: TrainError) -> Failure {
    let kind = match &error {
        TrainError::Config(_) | TrainError::NoCuda | TrainError::Device { .. } | TrainError::Teacher { .. } => {
            Kind::Usage
        }
        TrainError::Data(gram_data::DataError::Setting { .. }) => Kind::Usage,
        TrainError::Tensor(_) => Kind::Internal,
        _ => Kind::Data,
    };
    Failure { kind, error: error.into() }
}

fn describe(report: &EpochReport) -> String {
    let validation = report.validation_top1.map_or(String::new(), |top1| format!("  validation {:.2} %", top1 * 100.0));
    format!("loss {:.4}  train {:.2} %{validation}", report.train_loss, report.train_top1 * 100.0)
}
