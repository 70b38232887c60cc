//! `gram search`: the whole way from labelled images to a checked model.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use gram_ir::grouped;
use gram_search::{
    AskError, Evaluator, EvaluatorError, Executor, Observer, RoundRecord, Run, StopReason, Study,
    StudyConfig as SearchStudy, StudyError, StudyReport, WarmOutcome, cheapest_child,
};
use gram_train::{DeviceChoice, training_bytes};
use serde::Serialize;

use crate::args::{SearchArgs, StrategyArg};
use crate::commands::space::{preflight, preflight_failure, preflight_kind};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::interrupt;
use crate::model_dir::{Metrics, save};
use crate::output;
use crate::progress::Progress;
use crate::study::config::{ProxyConfig, StudyConfig};
use crate::study::evaluator::ProxyEvaluator;
use crate::study::finish::{FinalistLatency, Finish, Rung, Winner};
use crate::study::images::Images;
use crate::study::jobs::{SharedCores, cores, share_out};
use crate::study::latency::Latency;
use crate::study::load::{Loaded, SearchOptions, load, shape_of};
use crate::study::memory::{MORE_MEMORY, MemoryLimit};
use crate::study::prune::prune;
use crate::study::training::train_failure;
use crate::study::warm::WarmSource;

/// What `--json` prints; fractions, not percent.
#[derive(Serialize)]
struct Summary<'a> {
    study: String,
    model: String,
    strategy: &'static str,
    /// Where the winner comes from: `pruned`, or the number of a child.
    winner: &'a str,
    #[serde(flatten)]
    metrics: &'a Metrics,
    /// The network that the winner learnt from, in `teacher/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<&'a Metrics>,
    n_children: usize,
    n_diverged: usize,
    n_rounds: usize,
    n_cache_hits: usize,
    /// Predicted and measured latency of the winner, where the study has a limit on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<&'a FinalistLatency>,
    /// Children trained by this run, per hour of its search; none if it trained none, as when a finished study is run again.
    children_per_hour: Option<f64>,
    stop: StopReason,
    /// blake3 of `journal.jsonl`.
    journal_digest: String,
    /// blake3 of `best/model.safetensors`.
    weights_digest: &'a str,
}

pub(crate) fn run(args: SearchArgs) -> Result<()> {
    let flag = interrupt::flag()?;
    let jobs = jobs_on(args.device, args.jobs)?;
    let for_cpu = [("--threads", args.threads.is_some()), ("--max-memory", args.max_memory.is_some())];
    if let Some((option, _)) = for_cpu.into_iter().find(|&(_, given)| given && args.device.is_cuda()) {
        return Err(Failure::new(Kind::Usage, format!("{option} is for the CPU; on a GPU leave it out")));
    }
    let device = args.device.open().map_err(train_failure)?;
    let strategy = args.strategy.map(|strategy| match strategy {
        StrategyArg::Gram => gram_search::StrategyKind::Gram,
        StrategyArg::Autoshrink => gram_search::StrategyKind::Autoshrink,
        StrategyArg::Evolution => gram_search::StrategyKind::Evolution,
        StrategyArg::Local => gram_search::StrategyKind::Local,
        StrategyArg::Random => gram_search::StrategyKind::Random,
    });
    // What is free is asked before images take a part of it. Trainings on a GPU take its memory, not this machine's.
    let mut memory = if args.device.is_cuda() { MemoryLimit::unlimited() } else { MemoryLimit::new(args.max_memory) };
    let shares = share_out(jobs, if args.device.is_cuda() { Some(1) } else { args.threads }, cores())?;
    let options = SearchOptions {
        strategy,
        children: args.children,
        warm_start: args.warm_start,
        max_latency_ms: args.max_latency_ms,
        latency_device: args.latency_device,
    };
    let Loaded { config, space, dataset } = load(&args.selectors, options)?;
    let warm = config.search.warm_start.as_ref().map(|from| WarmSource::read(from, &args.output)).transpose()?;
    let latency = config.latency.as_ref().map(Latency::open).transpose()?;
    memory.hold(&dataset);
    refuse_data_folder(&args.output, &config.data.path)?;
    let images = Images::prepare(&dataset, &config.data, &space)?;
    let study = SearchStudy {
        space: space.clone(),
        input: shape_of(&dataset),
        num_classes: dataset.classes.len(),
        limits: config.limits,
        latency: latency.as_ref().map(|latency| latency.config.clone()),
        strategy: config.search.strategy,
        sampler: config.search.sampler,
        warm_start: warm.as_ref().map(|warm| warm.start.clone()),
        n_children: config.search.children,
        children_per_round: config.search.children_per_round,
        seed: config.seed,
        meta: config.meta,
    };
    preflight(&space, study.input, study.num_classes, &study.limits, study.seed)?
        .require()
        .map_err(preflight_failure)?;
    require_memory(&memory, &study, &config)?;
    latency.as_ref().map_or(Ok(()), |latency| require_operators(latency, &study))?;
    let ckpt = args.output.join("ckpt");
    let proxy = |proxy: &ProxyConfig| ProxyEvaluator::new(&images, (proxy, &config.data), &ckpt, &device, flag);
    let evaluator = proxy(&config.proxy)?;
    let executor = SharedCores::new(&evaluator, shares.clone(), memory.left());
    let dearer = config.rungs.iter().map(|rung| proxy(&rung.proxy(&config.proxy))).collect::<Result<Vec<_>>>()?;
    let executors: Vec<_> =
        dearer.iter().map(|evaluator| SharedCores::new(evaluator, shares.clone(), memory.left())).collect();
    let mut rungs: Vec<Rung<'_>> = (config.rungs.iter().zip(&dearer).zip(&executors))
        .map(|((rung, evaluator), executor)| Rung { n_networks: rung.networks, evaluator, executor })
        .collect();
    if rungs.is_empty() {
        rungs.push(Rung { n_networks: config.search.finalists, evaluator: &evaluator, executor: &executor });
    }
    // The study stays open, and locked, until all is done.
    let searched =
        search(&args.output, study, &config, (warm.as_ref(), latency.as_ref()), &evaluator, &executor, flag)?;
    evaluator.close();
    let finish = Finish {
        dir: &args.output,
        config: &config,
        space: &space,
        images: &images,
        rungs: &rungs,
        memory: &memory,
        latency: latency.as_ref(),
        device: &device,
        flag,
    };
    let winner = finish.run(&searched.report)?;
    let summary = summary(&args.output, &config, &searched, &winner)?;
    if args.json {
        return output::json(&summary);
    }
    print(&summary);
    Ok(())
}

/// Children trained at the same time: what is asked for, but one at a time on a GPU, whose queue and library handles all would share.
fn jobs_on(device: DeviceChoice, jobs: Option<usize>) -> Result<Option<usize>> {
    match jobs {
        Some(jobs) if device.is_cuda() && jobs > 1 => {
            let message = format!("--jobs is {jobs}: on a GPU children are trained one at a time, leave it out");
            Err(Failure::new(Kind::Usage, message))
        }
        None if device.is_cuda() => Ok(Some(1)),
        jobs => Ok(jobs),
    }
}

/// A study inside its dataset would be taken for images the next time.
fn refuse_data_folder(output: &Path, data: &str) -> Result<()> {
    let (Ok(data), Ok(output)) = (Path::new(data).canonicalize(), std::path::absolute(output)) else { return Ok(()) };
    let existing = output.ancestors().find_map(|folder| folder.canonicalize().ok());
    match existing {
        Some(folder) if folder.starts_with(&data) => {
            Err(Failure::new(Kind::Usage, format!("{} lies in the dataset; choose another folder", output.display())))
        }
        _ => Ok(()),
    }
}

/// Refuses a memory limit that leaves no room for any child, in the search or at the end.
fn require_memory(memory: &MemoryLimit, study: &SearchStudy, config: &StudyConfig) -> Result<()> {
    let SearchStudy { space, input, num_classes, seed, .. } = study;
    let network = cheapest_child(space, *input, *num_classes, *seed).map_err(preflight_failure)?;
    for (table, train) in [("proxy.train", &config.proxy.train), ("final", &config.final_training)] {
        let then = format!("raise --max-memory or lower {table}.batch_size");
        let bytes = |n_threads: NonZeroUsize| training_bytes(&network, train, n_threads.get()) as u64;
        memory.threads("even the child with the fewest MACs", bytes, NonZeroUsize::MIN, &then)?;
    }
    Ok(())
}

/// Refuses a device whose table lacks an operator of the space, before anything is trained.
fn require_operators(latency: &Latency, study: &SearchStudy) -> Result<()> {
    let meta = study.initial_meta_graph().or_fail(Kind::Usage)?;
    let mut networks = Vec::new();
    for attempt in 0..N_PROBES {
        let child =
            meta.sample(&mut gram_search::try_stream(study.seed, 0, attempt), &|_| true).or_fail(Kind::Limits)?;
        let blueprint = meta.blueprint(&child).or_fail(Kind::Internal)?;
        networks.extend(study.space.build(study.input, study.num_classes, &blueprint).lower().ok());
    }
    latency.require(&networks)
}

/// Random children that stand for a space; of a menu's operators hardly one is in none of them.
const N_PROBES: usize = 32;

/// A search that is over.
struct Searched {
    report: StudyReport,
    children_per_hour: Option<f64>,
    /// Open, and so locked.
    _study: Study,
}

/// Runs the rounds, or replays those that an earlier run journaled.
fn search(
    dir: &Path,
    study: SearchStudy,
    config: &StudyConfig,
    (warm, latency): (Option<&WarmSource>, Option<&Latency>),
    evaluator: &ProxyEvaluator<'_>,
    executor: &dyn Executor,
    flag: &AtomicBool,
) -> Result<Searched> {
    // What is behind the search (finalists, final training) may be changed without losing it, as long as there is no `best/`.
    let context = serde_json::json!({ "data": config.data.without_path() });
    let (space, input, num_classes, limits) = (study.space.clone(), study.input, study.num_classes, study.limits);
    let was_there = dir.exists();
    let mut opened = Study::open(dir, study, &evaluator.identity(), &context).map_err(study_failure)?;
    warm.map_or(Ok(()), |warm| warm.save(dir))?;
    let text = toml::to_string_pretty(config).or_fail_with(Kind::Internal, "writing study.toml")?;
    save(&dir.join("study.toml"), text.as_bytes())?;
    let pruned = |meta: &gram_meta::MetaGraph| {
        let pruned = prune(&space, input, num_classes, meta, &limits).ok()?;
        Some(pruned.best.architecture.canonical_key())
    };
    let started = Instant::now();
    let mut observer = Reporter { progress: None, started };
    let warm_source = warm.map(|warm| &warm.meta);
    let latency = latency.map(|latency| latency.limit.clone());
    let run =
        Run { evaluator, executor, observer: &mut observer, interrupt: flag, pruned: &pruned, warm_source, latency };
    let report = match opened.run(run) {
        Ok(report) => report,
        Err(error) => {
            if matches!(error, StudyError::Preflight(_) | StudyError::Ask(AskError::Prior { .. } | AskError::Sample(_)))
            {
                drop(opened);
                withdraw(dir, was_there);
            }
            return Err(study_failure(error));
        }
    };
    if report.stop == StopReason::Interrupted {
        return Err(interrupt::failure(&format!("{} evaluated children are kept", report.n_children)));
    }
    let hours = started.elapsed().as_secs_f64() / 3600.0;
    let children_per_hour = (report.n_evaluated_now > 0).then(|| report.n_evaluated_now as f64 / hours);
    Ok(Searched { report, children_per_hour, _study: opened })
}

/// Takes back what opening a study has written, if no child was evaluated: its limits were refused, and the next try may name others.
///
/// What cannot be removed is left: the refusal is what there is to say.
fn withdraw(dir: &Path, was_there: bool) {
    let journal = dir.join("journal.jsonl");
    let is_empty = gram_search::read_journal(&journal)
        .is_ok_and(|records| !records.iter().any(|record| matches!(record, gram_search::Record::Child(_))));
    let results = dir.join("results");
    if !is_empty || (results.exists() && std::fs::remove_dir(&results).is_err()) {
        return;
    }
    for file in ["study.toml", "journal.jsonl", "lock"] {
        let _ = std::fs::remove_file(dir.join(file));
    }
    if !was_there {
        // A folder that was there may hold the only copy of it.
        let _ = std::fs::remove_file(crate::study::warm::copy(dir));
        let _ = std::fs::remove_dir(dir);
    }
}

fn percent(top1: Option<f64>) -> String {
    top1.map_or("diverged".into(), |top1| format!("{:.2} %", top1 * 100.0))
}

/// Draws the search's progress.
struct Reporter {
    progress: Option<Progress>,
    started: Instant,
}

impl Observer for Reporter {
    fn child_done(&mut self, child: &gram_search::Progress) {
        // Children that an earlier run evaluated say nothing about how long the others take.
        if child.duration.is_none() {
            return;
        }
        let progress =
            self.progress.get_or_insert_with(|| Progress::new("child", child.n_total, child.n_done - 1, self.started));
        let message =
            format!("validation {}  best {}", percent(child.validation_top1), percent(child.best_validation_top1));
        progress.step(child.n_done, &message);
    }

    fn round_done(&mut self, round: &RoundRecord) {
        let Some(WarmOutcome { is_warm, mean_warm, mean_cold }) = round.lesson.and_then(|lesson| lesson.warm_start)
        else {
            return;
        };
        output::note(format_args!(
            "warm start {}: its children have a mean of {}, others {}",
            if is_warm { "kept" } else { "dropped" },
            percent(mean_warm),
            percent(mean_cold)
        ));
    }

    fn note(&mut self, message: &str) {
        output::note(message);
    }
}

/// Exit code 2 for settings, 3 for limits, 5 when interrupted, else 4: what else can fail is files.
fn study_failure(error: StudyError) -> Failure {
    let kind = match &error {
        StudyError::Config(_)
        | StudyError::Strategy(_)
        | StudyError::ConfigDiffers { .. }
        | StudyError::Locked { .. } => Kind::Usage,
        StudyError::Preflight(error) => preflight_kind(error),
        StudyError::Ask(AskError::Prior { .. } | AskError::Sample(_)) => Kind::Limits,
        StudyError::Ask(_) | StudyError::Tell(_) => Kind::Internal,
        StudyError::Evaluation { source: EvaluatorError::Interrupted, .. } => Kind::Interrupted,
        StudyError::Evaluation { source: EvaluatorError::Memory { .. }, .. } => {
            return Failure::new(Kind::Limits, format!("{error}: {MORE_MEMORY}"));
        }
        StudyError::HasRun | StudyError::Identity { .. } | StudyError::Encode(_) => Kind::Internal,
        _ => Kind::Data,
    };
    Failure { kind, error: error.into() }
}

fn summary<'a>(dir: &'a Path, config: &StudyConfig, searched: &Searched, winner: &'a Winner) -> Result<Summary<'a>> {
    let report = &searched.report;
    let journal = dir.join("journal.jsonl");
    let bytes = std::fs::read(&journal).or_fail_with(Kind::Data, journal.display())?;
    Ok(Summary {
        study: dir.display().to_string(),
        model: crate::model_dir::best(dir).display().to_string(),
        strategy: config.search.strategy.name(),
        winner: &winner.origin,
        metrics: &winner.metrics,
        teacher: winner.teacher.as_ref(),
        n_children: report.n_children,
        n_diverged: report.n_diverged,
        n_rounds: report.n_rounds,
        n_cache_hits: report.n_cache_hits,
        latency: winner.latency.as_ref(),
        children_per_hour: searched.children_per_hour,
        stop: report.stop,
        journal_digest: blake3::hash(&bytes).to_hex().to_string(),
        weights_digest: winner.metrics.weights_digest(),
    })
}

fn print(summary: &Summary<'_>) {
    let metrics = summary.metrics;
    let percent = |top1: f64| format!("{:.2} %", top1 * 100.0);
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let why = match summary.stop {
        StopReason::SpaceExhausted => ", then no new ones within the limits were found",
        _ => "",
    };
    let mut rows = vec![
        row("children", format!("{} in {} rounds{why}", summary.n_children, summary.n_rounds)),
        row("winner", summary.winner.to_owned()),
        row("MACs", grouped(metrics.macs)),
        row("params", grouped(metrics.params)),
        row("validation top-1", percent(metrics.validation_top1)),
        row("test top-1", metrics.test_top1.map_or("-".into(), percent)),
    ];
    if let Some(teacher) = summary.teacher {
        let (macs, top1) = (grouped(teacher.macs), percent(teacher.validation_top1));
        rows.push(row("teacher", format!("{macs} MACs, validation top-1 {top1}")));
    }
    if let Some(FinalistLatency { predicted_ms, high_ms, measured_ms, .. }) = summary.latency {
        let measured = measured_ms.map_or("not measured".into(), |ms| format!("{ms:.3} ms measured"));
        rows.push(row("latency", format!("{predicted_ms:.3} ms predicted, up to {high_ms:.3}; {measured}")));
    }
    if let Some(rate) = summary.children_per_hour {
        rows.insert(1, row("children per hour", grouped(rate.round() as u64)));
    }
    output::table(&rows);
    output::line(&summary.model);
}
