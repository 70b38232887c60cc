//! Scores a child: trains it on the proxy subset, top-1 on the proxy's validation images.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use gram_data::{ImageSet, Normalisation, Splits, proxy_subset};
use gram_search::{Evaluator, EvaluatorError, Job, Outcome};
use gram_train::{Control, Device, TrainConfig, TrainData, TrainOptions, numerics_on};

use crate::failure::{Kind, OrFail, Result};
use crate::model_dir::Preprocessing;
use crate::study::config::StudyConfig;

/// The proxy task.
pub(crate) struct ProxyEvaluator<'a> {
    train: ImageSet,
    validation: ImageSet,
    normalisation: &'a Normalisation,
    config: &'a TrainConfig,
    device: &'a Device,
    n_threads: usize,
    interrupt: &'a AtomicBool,
    identity: String,
}

impl<'a> ProxyEvaluator<'a> {
    /// Draws the proxy subsets. `n_threads` are used for each child and change nothing but time.
    pub(crate) fn new(
        splits: &Splits,
        preprocessing: &'a Preprocessing,
        config: &'a StudyConfig,
        device: &'a Device,
        n_threads: usize,
        interrupt: &'a AtomicBool,
    ) -> Result<Self> {
        let (proxy, seed) = (&config.proxy, config.data.split_seed);
        let (settings, data) = (serde_json::to_string(proxy), serde_json::to_string(&config.data.without_path()));
        let settings = settings.or_fail_with(Kind::Internal, "writing the proxy's settings")?;
        let data = data.or_fail_with(Kind::Internal, "writing the splits' settings")?;
        let digest = &preprocessing.data_digest;
        Ok(Self {
            train: proxy_subset(&splits.train, proxy.images_per_class, seed),
            validation: proxy_subset(&splits.validation, proxy.validation_images_per_class, seed),
            normalisation: &preprocessing.normalisation,
            config: &proxy.train,
            device,
            n_threads,
            interrupt,
            identity: format!("proxy {settings}; data {digest} split {data}; numerics {}", numerics_on(device)),
        })
    }
}

impl Evaluator for ProxyEvaluator<'_> {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn evaluate(&self, job: &Job) -> std::result::Result<Outcome, EvaluatorError> {
        let data =
            TrainData { train: &self.train, validation: Some(&self.validation), normalisation: self.normalisation };
        let mut observer = |_: &_| Control::Continue;
        let options = TrainOptions {
            n_threads: Some(self.n_threads),
            interrupt: Some(self.interrupt),
            evaluate_every: 0,
            ..TrainOptions::new(&mut observer)
        };
        let outcome = gram_train::train_on(self.device, &job.network, &data, self.config, job.seed, options);
        match outcome.map_err(|error| EvaluatorError::with_source(error.to_string(), error))? {
            gram_train::Outcome::Trained(trained) => score(&trained),
            gram_train::Outcome::Diverged { epoch, step } => {
                // A single image that is left over makes no batch.
                let (n, batch_size) = (self.train.len(), self.config.batch_size);
                let steps_per_epoch = n / batch_size + usize::from(n % batch_size > 1);
                Ok(Outcome::Diverged { step: ((epoch - 1) * steps_per_epoch + step) as u64 })
            }
            gram_train::Outcome::Interrupted { .. } => Err(EvaluatorError::Interrupted),
        }
    }
}

fn score(trained: &gram_train::Trained) -> std::result::Result<Outcome, EvaluatorError> {
    let last = trained.history.last().ok_or_else(|| EvaluatorError::new("a training without epochs"))?;
    let validation_top1 = last.validation_top1.ok_or_else(|| EvaluatorError::new("a training without validation"))?;
    let metrics =
        BTreeMap::from([("train_loss".to_owned(), last.train_loss), ("train_top1".to_owned(), last.train_top1)]);
    Ok(Outcome::Scored { validation_top1, metrics })
}

/// How `cores` are shared out: so many children at a time, each on so many threads.
///
/// Children are small, so whole children in parallel use cores better than threads inside one.
pub(crate) fn share_out(jobs: Option<usize>, cores: usize) -> Result<(NonZeroUsize, usize)> {
    let jobs = NonZeroUsize::new(jobs.unwrap_or(cores));
    let jobs = jobs.ok_or_else(|| crate::failure::Failure::new(Kind::Usage, "--jobs is 0, it must be 1 or more"))?;
    Ok((jobs, (cores / jobs).max(1)))
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_out() {
        let shared = |jobs, cores| share_out(jobs, cores).map(|(jobs, threads)| (jobs.get(), threads)).ok();
        assert_eq!(shared(None, 2), Some((2, 1)));
        assert_eq!(shared(Some(1), 8), Some((1, 8)));
        assert_eq!(shared(Some(3), 8), Some((3, 2)));
        assert_eq!(shared(Some(16), 8), Some((16, 1)));
        assert_eq!(shared(Some(0), 8), None);
    }
}
