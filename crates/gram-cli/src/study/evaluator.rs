//! Scores a child: trains it on the proxy subset, top-1 on the proxy's validation images.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gram_data::{Batch, Batches, ImageSet, Normalisation, proxy_subset};
use gram_search::{EvalKey, Evaluator, EvaluatorError, Halving, Job, Outcome};
use gram_train::{Control, Device, EpochReport, TrainConfig, TrainData, TrainOptions, numerics_on, training_bytes};

use crate::failure::{Kind, OrFail, Result};
use crate::study::config::{DataConfig, ProxyConfig, ProxyScore};
use crate::study::images::{Images, Prepared};
use crate::study::inherit::KeptWeights;

/// Name of the metric with the loss on the training images over the last epoch.
pub(crate) const TRAIN_LOSS: &str = "train_loss";

/// The proxy task.
pub(crate) struct ProxyEvaluator<'a> {
    /// For each height and width of images.
    sets: BTreeMap<(usize, usize), ProxySet<'a>>,
    config: TrainConfig,
    score: ProxyScore,
    halving: Option<Halving>,
    /// Where children wait for the others of their round.
    checkpoints: PathBuf,
    weights: KeptWeights,
    device: &'a Device,
    n_threads: AtomicUsize,
    interrupt: &'a AtomicBool,
    identity: String,
}

/// The proxy's images at one size.
struct ProxySet<'a> {
    train: ImageSet,
    validation: ImageSet,
    normalisation: &'a Normalisation,
}

impl<'a> ProxyEvaluator<'a> {
    /// Draws the proxy subsets. Each child trains on one thread, unless [`set_threads`](Self::set_threads) says otherwise. What a search
    /// needs of children that it trained is kept in the folder `ckpt`, which need not exist.
    pub(crate) fn new(
        images: &'a Images,
        (proxy, data): (&ProxyConfig, &DataConfig),
        ckpt: &Path,
        device: &'a Device,
        interrupt: &'a AtomicBool,
    ) -> Result<Self> {
        let seed = data.split_seed;
        let (settings, data) = (serde_json::to_string(proxy), serde_json::to_string(&data.without_path()));
        let settings = settings.or_fail_with(Kind::Internal, "writing the proxy's settings")?;
        let data = data.or_fail_with(Kind::Internal, "writing the splits' settings")?;
        let digest = &images.own().preprocessing.data_digest;
        let set = |prepared: &'a Prepared| {
            let Prepared { splits, preprocessing } = prepared;
            let set = ProxySet {
                train: proxy_subset(&splits.train, proxy.images_per_class, seed),
                validation: proxy_subset(&splits.validation, proxy.validation_images_per_class, seed),
                normalisation: &preprocessing.normalisation,
            };
            ((preprocessing.input[1], preprocessing.input[2]), set)
        };
        Ok(Self {
            sets: images.for_children().map(set).collect(),
            config: proxy.train.clone(),
            score: proxy.score,
            halving: proxy.halving.clone(),
            checkpoints: ckpt.join("halving"),
            weights: KeptWeights::new(ckpt.join("weights"), proxy.inherit),
            device,
            n_threads: AtomicUsize::new(1),
            interrupt,
            identity: format!("proxy {settings}; data {digest} split {data}; numerics {}", numerics_on(device)),
        })
    }

    /// Trains children that start from now on on so many threads each; it changes nothing but time.
    pub(crate) fn set_threads(&self, n_threads: NonZeroUsize) {
        self.n_threads.store(n_threads.get(), Ordering::Relaxed);
    }

    /// The search is over: removes what was kept of its children, and what a kill in the middle of writing has left.
    pub(crate) fn close(&self) {
        // A leftover would only cost space.
        let _ = std::fs::remove_dir_all(&self.checkpoints);
        self.weights.close();
    }

    /// Bytes of training a child on so many threads.
    pub(crate) fn bytes_on(&self, job: &Job, n_threads: NonZeroUsize) -> u64 {
        training_bytes(&job.network, &self.config, n_threads.get()) as u64
    }

    /// How children are trained.
    pub(crate) fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Some training images, at most `n`; none if they cannot be made into a batch.
    pub(crate) fn batch(&self, n: usize) -> Option<Batch> {
        let largest = self.sets.values().next_back()?;
        Batches::train(&largest.train, largest.normalisation, self.config.augmentation, n, 0, 0).ok()?.next()
    }

    fn checkpoint(&self, key: EvalKey) -> PathBuf {
        self.checkpoints.join(format!("{key}.safetensors"))
    }

    fn score(&self, report: Option<&EpochReport>) -> std::result::Result<Outcome, EvaluatorError> {
        let missing = |what: &str| EvaluatorError::new(format!("a training without {what}"));
        let report = report.ok_or_else(|| missing("epochs"))?;
        let validation_top1 = report.validation_top1.ok_or_else(|| missing("validation"))?;
        let score = match self.score {
            ProxyScore::ValidationTop1 => None,
            ProxyScore::TrainLoss => Some((-report.train_loss).exp()),
        };
        let metrics = [(TRAIN_LOSS.to_owned(), report.train_loss), ("train_top1".to_owned(), report.train_top1)].into();
        Ok(Outcome::Scored { validation_top1, score, metrics })
    }

    /// Trains a child, up to so many epochs if it is to pause there, from and to a checkpoint if there is one.
    fn train(
        &self,
        job: &Job,
        checkpoint: Option<&Path>,
        pause_after: Option<usize>,
    ) -> std::result::Result<Outcome, EvaluatorError> {
        let input = job.architecture.input;
        let set = self.sets.get(&(input.h, input.w));
        let set =
            set.ok_or_else(|| EvaluatorError::new(format!("there are no images of {}x{} pixels", input.h, input.w)))?;
        let data = TrainData {
            train: &set.train,
            validation: Some(&set.validation),
            normalisation: set.normalisation,
            teacher: None,
        };
        let initial = job.source.map(|source| self.weights.read(source)).transpose()?;
        let mut observer = |_: &_| Control::Continue;
        let options = TrainOptions {
            n_threads: Some(self.n_threads.load(Ordering::Relaxed)),
            interrupt: Some(self.interrupt),
            checkpoint,
            evaluate_every: 0,
            pause_after,
            initial: initial.as_ref(),
            ..TrainOptions::new(&mut observer)
        };
        let outcome = gram_train::train_on(self.device, &job.network, &data, &self.config, job.seed, options);
        match outcome.map_err(|error| EvaluatorError::with_source(error.to_string(), error))? {
            gram_train::Outcome::Trained(trained) => {
                self.weights.save(job.key, &trained.weights)?;
                self.score(trained.history.last())
            }
            gram_train::Outcome::Paused { history } => {
                self.score(pause_after.and_then(|epochs| history.get(epochs.checked_sub(1)?)))
            }
            gram_train::Outcome::Diverged { epoch, step } => {
                // A single image that is left over makes no batch.
                let (n, batch_size) = (set.train.len(), self.config.batch_size);
                let steps_per_epoch = n / batch_size + usize::from(n % batch_size > 1);
                Ok(Outcome::Diverged { step: ((epoch - 1) * steps_per_epoch + step) as u64 })
            }
            gram_train::Outcome::Interrupted { .. } => Err(EvaluatorError::Interrupted),
        }
    }
}

impl Evaluator for ProxyEvaluator<'_> {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn evaluate(&self, job: &Job) -> std::result::Result<Outcome, EvaluatorError> {
        self.train(job, None, None)
    }

    fn halving(&self) -> Option<&Halving> {
        self.halving.as_ref()
    }

    fn inherits(&self) -> bool {
        self.weights.is_on()
    }

    fn evaluate_until(&self, job: &Job, epochs: Option<usize>) -> std::result::Result<Outcome, EvaluatorError> {
        let failed = |error| EvaluatorError::with_source(format!("creating {}", self.checkpoints.display()), error);
        std::fs::create_dir_all(&self.checkpoints).map_err(failed)?;
        self.train(job, Some(&self.checkpoint(job.key)), epochs)
    }

    fn forget(&self, key: EvalKey) {
        // A leftover would only cost space.
        let _ = std::fs::remove_file(self.checkpoint(key));
    }

    fn bytes(&self, job: &Job) -> u64 {
        let n_threads = NonZeroUsize::new(self.n_threads.load(Ordering::Relaxed));
        self.bytes_on(job, n_threads.unwrap_or(NonZeroUsize::MIN))
    }
}
