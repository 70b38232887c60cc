//! From a finished search to a checked model: prune, compare the finalists, train the winner, test it once, export it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gram_ir::{Architecture, Design, Space};
use gram_latency::Prediction;
use gram_meta::MetaGraph;
use gram_prune::PruneError;
use gram_search::{EvalKey, Evaluator, EvaluatorError, Executor, Job, StudyReport, child_seed};
use gram_train::{Device, TrainConfig};
use serde::{Deserialize, Serialize};

use crate::checked::{read_checked, save_checked};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::interrupt;
use crate::model_dir::{self, Metrics, ModelDir};
use crate::onnx;
use crate::output;
use crate::study::config::{FORMAT_VERSION, StudyConfig};
use crate::study::images::{Images, Prepared};
use crate::study::jobs::cores;
use crate::study::latency::Latency;
use crate::study::memory::{MORE_MEMORY, MemoryLimit};
use crate::study::prune::prune;
use crate::study::training::{self, Training};

/// A network that was scored once more at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finalist {
    /// `pruned`, or `child 37`.
    pub(crate) origin: String,
    pub(crate) macs: u64,
    pub(crate) params: u64,
    /// Score of the search; none if the network is no child of it.
    pub(crate) search_top1: Option<f64>,
    /// Score of one more training with a fresh seed, on its last rung; none if it diverged.
    pub(crate) validation_top1: Option<f64>,
    /// The last rung that it was trained on, from 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub(crate) rung: usize,
    /// Where the study has a limit on latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<FinalistLatency>,
    key: EvalKey,
    architecture: serde_json::Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_first(rung: &usize) -> bool {
    *rung == 0
}

/// Latency of a finalist on the device of the study's limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinalistLatency {
    pub(crate) predicted_ms: f64,
    /// Ends of the prediction's 90 % interval.
    pub(crate) low_ms: f64,
    pub(crate) high_ms: f64,
    /// Median; none where this machine is not the device.
    pub(crate) measured_ms: Option<f64>,
    pub(crate) max_ms: f64,
}

impl Finalist {
    /// Whether it was measured to be slower than allowed.
    fn is_too_slow(&self) -> bool {
        self.latency.as_ref().is_some_and(|latency| latency.measured_ms.is_some_and(|ms| ms > latency.max_ms))
    }
}

/// `finalists.json`, best first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FinalistsFile {
    format_version: u32,
    finalists: Vec<Finalist>,
}

/// What a study ended with.
pub(crate) struct Winner {
    pub(crate) origin: String,
    pub(crate) metrics: Metrics,
    /// Of the network that it learnt from, if any.
    pub(crate) teacher: Option<Metrics>,
    pub(crate) latency: Option<FinalistLatency>,
}

/// What a network that is trained at the end is for.
#[derive(Clone, Copy)]
pub(super) enum Role<'a> {
    Teacher,
    /// With where it comes from and what it learns from.
    Winner(&'a str, Option<&'a ModelDir>),
}

/// One step of successive halving; see [`RungConfig`](crate::study::config::RungConfig).
pub(crate) struct Rung<'a> {
    pub(crate) n_networks: usize,
    pub(crate) evaluator: &'a dyn Evaluator,
    pub(crate) executor: &'a dyn Executor,
}

/// A study whose search is over.
pub(crate) struct Finish<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) config: &'a StudyConfig,
    pub(crate) space: &'a Space,
    pub(crate) images: &'a Images,
    /// What the best networks are scored on before the winner is named, cheap to dear; at least one.
    pub(crate) rungs: &'a [Rung<'a>],
    pub(crate) memory: &'a MemoryLimit,
    pub(crate) latency: Option<&'a Latency>,
    pub(crate) device: &'a Device,
    pub(crate) flag: &'a AtomicBool,
}

impl Finish<'_> {
    /// Names the winner, trains it and leaves `best/`. Steps that an earlier run finished are not done again.
    pub(crate) fn run(&self, report: &StudyReport) -> Result<Winner> {
        let finalists = self.scored_finalists(report)?;
        let scored = || finalists.iter().filter(|finalist| finalist.validation_top1.is_some());
        if scored().next().is_none() {
            let message = "every finalist diverged: lower learning_rate under [proxy.train]";
            return Err(Failure::new(Kind::Usage, message));
        }
        let winner = scored().find(|finalist| !finalist.is_too_slow()).ok_or_else(|| {
            let message = "every finalist was measured to be slower than --max-latency-ms allows, against its prediction; \
                           see finalists.json, profile the device again or lower the limit";
            Failure::new(Kind::Limits, message)
        })?;
        let origin = winner.origin.clone();
        let design = Design::from_json(&winner.architecture.to_string()).or_fail_with(Kind::Internal, "the winner")?;
        let latency = winner.latency.clone();
        let teacher = self.config.teacher.as_ref().map(|config| self.teacher(config, report, &design)).transpose()?;
        let (model, teacher) = teacher.unzip();
        let role = Role::Winner(&origin, model.as_ref());
        let metrics = self.train(&design, &self.config.final_training, role, &model_dir::best(self.dir))?;
        Ok(Winner { metrics, teacher, origin, latency })
    }

    /// Final training, for the winner the one look at the test images, export. `metrics.json` is written last and says that all is there.
    pub(super) fn train(&self, design: &Design, config: &TrainConfig, role: Role<'_>, dir: &Path) -> Result<Metrics> {
        let network = design.lower().or_fail(Kind::Internal)?;
        let images = self.images.of(design.input_shape());
        let Prepared { splits, preprocessing } =
            images.ok_or_else(|| Failure::new(Kind::Internal, "there are no images of the network's size"))?;
        let mut training = Training {
            design,
            network: &network,
            splits,
            preprocessing,
            config,
            seed: self.config.seed,
            device: self.device,
            n_threads: None,
            teacher: if let Role::Winner(_, teacher) = role { teacher } else { None },
        };
        if let Some(metrics) = model_dir::sealed(dir, &training.identity())? {
            return Ok(metrics);
        }
        let (what, name) = match role {
            Role::Teacher => ("the teacher", "teacher.safetensors"),
            Role::Winner(..) => ("the winner", "final.safetensors"),
        };
        let bytes = |n_threads| training.bytes_on(n_threads);
        training.n_threads = Some(self.memory.threads(what, bytes, cores(), MORE_MEMORY)?);
        match role {
            Role::Teacher => output::note("training the teacher"),
            Role::Winner(origin, _) => output::note(format_args!("training the winner ({origin})")),
        }
        let checkpoint = self.dir.join("ckpt").join(name);
        let weights = training.run(&checkpoint, self.flag)?;
        let mut metrics = training.save(dir, &weights)?;
        onnx::export(&dir.join("model.onnx"), design.name(), &weights, &network, preprocessing, splits)?;
        if let Role::Winner(..) = role {
            let test = training::evaluate(&network, &weights, &splits.test, &preprocessing.normalisation)?;
            metrics.test_top1 = Some(test.top1);
            metrics.n_test = Some(test.n);
        }
        model_dir::seal(dir, &mut metrics)?;
        // All that the checkpoint was for is done; a leftover would only cost space.
        let _ = std::fs::remove_file(&checkpoint);
        Ok(metrics)
    }

    /// The pruned network and the best children, scored once more with a fresh seed, rung by rung: the best of many noisy scores is partly
    /// luck.
    fn scored_finalists(&self, report: &StudyReport) -> Result<Vec<Finalist>> {
        let mut finalists = self.finalists(report)?;
        let file = self.dir.join("finalists.json");
        if file.is_file() {
            let kept: FinalistsFile = read_checked(&file)?;
            let key = |finalist: &Finalist| (finalist.origin.clone(), finalist.key);
            let keys = |finalists: &[Finalist]| finalists.iter().map(key).collect::<BTreeSet<_>>();
            if kept.format_version == FORMAT_VERSION && keys(&kept.finalists) == keys(&finalists) {
                return Ok(kept.finalists);
            }
        }
        for (index, rung) in self.rungs.iter().enumerate() {
            let n = rung.n_networks.min(finalists.len());
            output::note(format_args!("scoring {n} finalists with a fresh seed"));
            finalists[..n].iter_mut().for_each(|finalist| finalist.rung = index);
            self.score(&mut finalists[..n], rung)?;
            let rank = |f: &Finalist| f.validation_top1.unwrap_or(-1.0);
            finalists[..n].sort_by(|a, b| rank(b).total_cmp(&rank(a)).then(a.macs.cmp(&b.macs)));
        }
        self.time(&mut finalists)?;
        let kept = FinalistsFile { format_version: FORMAT_VERSION, finalists };
        save_checked(&file, &kept)?;
        Ok(kept.finalists)
    }

    fn finalists(&self, report: &StudyReport) -> Result<Vec<Finalist>> {
        let mut finalists: Vec<Finalist> = Vec::new();
        if let Some(best) = report.meta_graph.as_ref().map(|meta| self.pruned(meta)).transpose()?.flatten() {
            let graph = best.canonical_key();
            let child = report.best.iter().find(|child| child.architecture.canonical_key() == graph);
            let search_top1 = child.and_then(|child| child.outcome.validation_top1());
            finalists.push(self.finalist("pruned".into(), &best, search_top1)?);
        }
        for child in &report.best {
            if finalists.len() >= self.rungs.first().map_or(0, |rung| rung.n_networks) {
                break;
            }
            let finalist =
                self.finalist(format!("child {}", child.child), &child.architecture, child.outcome.validation_top1())?;
            if finalists.iter().all(|other| other.key != finalist.key) {
                finalists.push(finalist);
            }
        }
        Ok(finalists)
    }

    fn finalist(&self, origin: String, architecture: &Architecture, search_top1: Option<f64>) -> Result<Finalist> {
        let cost = architecture.lower().or_fail(Kind::Internal)?.cost();
        let identities: String = self.rungs.iter().map(|rung| rung.evaluator.identity()).collect();
        let key = EvalKey::new(&architecture.canonical_key(), &identities, self.fresh_seed(architecture));
        let text = Design::Architecture(architecture.clone()).to_json();
        let architecture = serde_json::from_str(&text).or_fail(Kind::Internal)?;
        Ok(Finalist {
            origin,
            macs: cost.macs.0,
            params: cost.params.0,
            search_top1,
            validation_top1: None,
            rung: 0,
            latency: None,
            key,
            architecture,
        })
    }

    /// A child's seed in a study of another seed.
    fn fresh_seed(&self, architecture: &Architecture) -> u64 {
        child_seed(self.config.seed ^ FRESH, &architecture.canonical_key())
    }

    fn score(&self, finalists: &mut [Finalist], rung: &Rung<'_>) -> Result<()> {
        let mut jobs = Vec::new();
        for (i, finalist) in finalists.iter().enumerate() {
            let design = Design::from_json(&finalist.architecture.to_string()).or_fail(Kind::Internal)?;
            let Design::Architecture(architecture) = design else {
                return Err(Failure::new(Kind::Internal, "a finalist is no architecture"));
            };
            let network = architecture.lower().or_fail(Kind::Internal)?;
            let seed = self.fresh_seed(&architecture);
            jobs.push(Job { child: i + 1, architecture, network, key: finalist.key, seed, source: None });
        }
        let mut failure = None;
        rung.executor.run(&jobs, rung.evaluator, self.flag, &mut |i, ended| match ended {
            Ok(evaluation) => {
                finalists[i].validation_top1 = evaluation.outcome.validation_top1();
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure.get_or_insert(error);
                ControlFlow::Break(())
            }
        });
        match failure {
            Some(EvaluatorError::Interrupted) => Err(interrupt::failure("the search is kept")),
            Some(error @ EvaluatorError::Memory { .. }) => {
                Err(Failure::new(Kind::Limits, format!("a finalist cannot be scored: {error}: {MORE_MEMORY}")))
            }
            Some(error) => Err(Failure { kind: Kind::Data, error: error.into() }),
            None if self.flag.load(Ordering::Relaxed) => Err(interrupt::failure("the search is kept")),
            None => Ok(()),
        }
    }

    /// Predicts and, where this machine is the limit's device, measures all finalists.
    fn time(&self, finalists: &mut [Finalist]) -> Result<()> {
        let Some(latency) = self.latency else { return Ok(()) };
        let mut networks = Vec::new();
        for finalist in &mut *finalists {
            let design = Design::from_json(&finalist.architecture.to_string()).or_fail(Kind::Internal)?;
            let network = design.lower().or_fail(Kind::Internal)?;
            let Prediction { ms, low, high, .. } = latency.predict(&network)?;
            let max_ms = latency.limit.max_ms;
            finalist.latency =
                Some(FinalistLatency { predicted_ms: ms, low_ms: low, high_ms: high, measured_ms: None, max_ms });
            networks.push((finalist.origin.replace(' ', "-"), network));
        }
        let measured = latency.measure(networks)?.unwrap_or_default();
        for (timed, ms) in finalists.iter_mut().filter_map(|finalist| finalist.latency.as_mut()).zip(measured) {
            timed.measured_ms = Some(ms);
        }
        Ok(())
    }

    /// Whether the architecture keeps the limit on latency, if there is one.
    fn is_quick(&self, architecture: &Architecture) -> bool {
        let Some(latency) = self.latency else { return true };
        canonical(architecture).lower().is_ok_and(|network| latency.limit.allows(&network))
    }

    /// The pruned network; none if no threshold keeps the limits, which single children may keep all the same.
    fn pruned(&self, meta: &MetaGraph) -> Result<Option<Architecture>> {
        let preprocessing = &self.images.own().preprocessing;
        let (input, num_classes) = (preprocessing.input.into(), preprocessing.classes.len());
        match prune(self.space, input, num_classes, meta, &self.config.limits) {
            Ok(pruned) => {
                let quick = pruned.front.iter().find(|candidate| self.is_quick(&candidate.architecture));
                Ok(quick.map(|candidate| canonical(&candidate.architecture)))
            }
            Err(error @ (PruneError::LimitsUnmeetable { .. } | PruneError::Lower(_))) => {
                output::note(format_args!("the children stand without a pruned network: {error}"));
                Ok(None)
            }
            Err(error) => Err(prune_failure(error)),
        }
    }
}

/// Tells the seeds of finalists from those of children.
const FRESH: u64 = 0x5eed_f1a1;

/// The same architecture with every cell in canonical form, as children are trained: nodes numbered without gaps.
pub(crate) fn canonical(architecture: &Architecture) -> Architecture {
    let mut canonical = architecture.clone();
    for stage in &mut canonical.stages {
        stage.cell = stage.cell.canonical_form();
    }
    canonical
}

/// Exit code 3 for limits that cannot be met.
pub(crate) fn prune_failure(error: PruneError) -> Failure {
    let kind = if matches!(error, PruneError::LimitsUnmeetable { .. }) { Kind::Limits } else { Kind::Internal };
    Failure { kind, error: error.into() }
}
