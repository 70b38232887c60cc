//! Studies from begin to end: reproducible for any number of jobs, resumable at any point, within limits, better than chance.

mod toy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gram_ir::{CanonicalKey, CellOp, Limits, Macs, NodeOperators, Params};
use gram_meta::{MetaConfig, MetaGraph};
use gram_search::{
    Context, Evaluator, EvaluatorError, Gate, Job, LocalExecutor, Observer, Outcome, Progress, Proposal, Record,
    RoundRecord, Run, Sampler, StopReason, StrategyKind, Study, StudyConfig, StudyError, StudyReport, WarmStart,
    child_seed, read_journal, trained_children,
};
use toy::{Toy, config, files, run, run_on, space};

#[test]
fn journals_are_the_same_for_any_number_of_jobs() {
    let kinds = [NodeOperators::Dealt, NodeOperators::Searched];
    for (strategy, node_operators) in StrategyKind::ALL.into_iter().flat_map(|s| kinds.map(|kind| (s, kind))) {
        let mut config = config(&[6, 9], strategy, 30, 3);
        config.space.node_operators = node_operators;
        let study = |jobs| {
            let folder = tempfile::tempdir().unwrap();
            let toy = Toy { diverge_every: 5, pause: Duration::from_millis(3), ..Toy::default() };
            let report = run(folder.path(), &config, &toy, jobs).unwrap();
            assert_eq!((report.n_children, report.stop), (30, StopReason::BudgetSpent));
            assert!(report.n_diverged > 0 && report.best.len() + report.n_diverged == 30);
            files(folder.path())
        };
        let alone = study(1);
        assert!(alone.len() > 30);
        for jobs in [2, 4] {
            assert_eq!(study(jobs), alone, "{jobs} jobs, {strategy}, {node_operators:?}");
        }
    }
}

/// What a journal holds is enough to build every child anew.
#[test]
fn children_are_rebuilt_from_the_journal() {
    for node_operators in [NodeOperators::Dealt, NodeOperators::Searched] {
        let mut config = config(&[6, 9], StrategyKind::Gram, 20, 3);
        config.space.node_operators = node_operators;
        let folder = tempfile::tempdir().unwrap();
        let report = run(folder.path(), &config, &Toy::default(), 2).unwrap();
        let gate = Gate {
            space: &config.space,
            input: config.input,
            num_classes: config.num_classes,
            limits: &config.limits,
            latency: None,
        };
        let records = read_journal(&folder.path().join("journal.jsonl")).unwrap();
        let mut rebuilt = trained_children(&records, report.meta_graph.as_ref().unwrap(), &gate);
        assert_eq!(rebuilt.len(), 20, "{node_operators:?}");
        for child in &report.best {
            let key = child.architecture.canonical_key();
            let same = rebuilt.iter().position(|other| other.architecture.canonical_key() == key);
            assert_eq!(rebuilt.remove(same.unwrap()).validation_top1, child.outcome.validation_top1());
        }
    }
}

/// The memory limit decides who runs when, and nothing else.
#[test]
fn journals_are_the_same_for_any_memory_limit() {
    let config = config(&[6, 9], StrategyKind::Gram, 30, 3);
    let study = |jobs, max_bytes| {
        let folder = tempfile::tempdir().unwrap();
        let toy = Toy { pause: Duration::from_millis(3), ..Toy::default() };
        let executor = LocalExecutor { jobs: NonZeroUsize::new(jobs).unwrap(), max_bytes };
        let report = run_on(folder.path(), &config, &toy, &executor);
        let most = toy.most_bytes.into_inner();
        assert!(most > 0 && most <= max_bytes.unwrap_or(u64::MAX), "{most} of {max_bytes:?}");
        report.map(|_| files(folder.path()))
    };
    let unlimited = study(4, None).unwrap();
    for (jobs, max_bytes) in [(1, 6_000), (4, 6_000), (8, 20_000)] {
        assert_eq!(study(jobs, Some(max_bytes)).unwrap(), unlimited, "{jobs} jobs in {max_bytes} bytes");
    }
}

/// A child that does not fit ends the run with an error; with more memory the study goes on as if nothing had been.
#[test]
fn a_child_that_is_too_large_costs_nothing_that_was_done() {
    let config = config(&[6, 9], StrategyKind::Gram, 24, 3);
    let reference = tempfile::tempdir().unwrap();
    run(reference.path(), &config, &Toy::default(), 2).unwrap();
    let most = largest_child(reference.path());
    let folder = tempfile::tempdir().unwrap();
    let executor = |max_bytes| LocalExecutor { jobs: NonZeroUsize::new(2).unwrap(), max_bytes: Some(max_bytes) };
    let error = run_on(folder.path(), &config, &Toy::default(), &executor(most - 1)).unwrap_err();
    let StudyError::Evaluation { source: EvaluatorError::Memory { bytes, max_bytes }, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((bytes, max_bytes), (most, most - 1));
    let resumed = run_on(folder.path(), &config, &Toy::default(), &executor(most)).unwrap();
    assert_eq!(resumed.n_children, 24);
    assert_eq!(files(folder.path()), files(reference.path()));
}

/// Bytes that [`Toy`] says its largest child takes: its params.
fn largest_child(directory: &Path) -> u64 {
    let params = |record: &Record| if let Record::Child(child) = record { Some(child.params) } else { None };
    read_journal(&directory.join("journal.jsonl")).unwrap().iter().filter_map(params).max().unwrap()
}

#[test]
fn journal_holds_no_times_and_every_child_once() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &config(&[6, 9], StrategyKind::Gram, 40, 1), &Toy::default(), 2).unwrap();
    let text = fs::read_to_string(folder.path().join("journal.jsonl")).unwrap();
    for word in ["second", "time", "duration"] {
        assert!(!text.contains(word), "{word}");
    }
    let records = read_journal(&folder.path().join("journal.jsonl")).unwrap();
    let children: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Child(child) => Some(child),
            _ => None,
        })
        .collect();
    let graphs: BTreeSet<&str> = children.iter().map(|child| child.graph.as_str()).collect();
    assert_eq!((children.len(), graphs.len()), (40, 40));
    assert!(children.iter().enumerate().all(|(index, child)| child.child == index + 1));
    assert!(matches!(records[0], Record::Header { .. }) && matches!(records.last(), Some(Record::Stop { .. })));
    let timings = fs::read_to_string(folder.path().join("timings.jsonl")).unwrap();
    assert_eq!(timings.lines().count(), 40);
    let meta = MetaGraph::from_json(&fs::read_to_string(folder.path().join("meta-graph.json")).unwrap()).unwrap();
    let is_lesson = |record: &&Record| matches!(record, Record::Round(round) if round.lesson.is_some());
    let n_lessons = records.iter().filter(is_lesson).count();
    assert_eq!((n_lessons, meta.n_rounds()), (2, 3), "the last eight children are taught when the study has ended");
}

/// Copies journal and results, the journal cut to its first `bytes` bytes and results to those that `keep` names.
fn partial_copy(from: &Path, to: &Path, bytes: usize, keep: impl Fn(usize) -> bool) {
    fs::create_dir_all(to.join("results")).unwrap();
    let journal = fs::read(from.join("journal.jsonl")).unwrap();
    fs::write(to.join("journal.jsonl"), &journal[..bytes]).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(from.join("results")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        if keep(index) {
            fs::copy(from.join("results").join(name), to.join("results").join(name)).unwrap();
        }
    }
}

#[test]
fn a_study_that_is_killed_anywhere_ends_with_the_same_bytes() {
    killed_anywhere(&config(&[5, 6], StrategyKind::Gram, 20, 9));
}

#[test]
fn a_study_of_draws_alone_that_is_killed_anywhere_ends_with_the_same_bytes() {
    killed_anywhere(&StudyConfig { sampler: Sampler::Ancestral, ..config(&[5, 6], StrategyKind::Gram, 20, 9) });
}

fn killed_anywhere(config: &StudyConfig) {
    let reference = tempfile::tempdir().unwrap();
    run(reference.path(), config, &Toy { diverge_every: 7, ..Toy::default() }, 1).unwrap();
    let expected = files(reference.path());
    let journal = fs::read(reference.path().join("journal.jsonl")).unwrap();
    let ends: Vec<usize> =
        journal.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1).collect();
    // After every record, and in the middle of every record; with all, none and a part of the results.
    let cuts: Vec<usize> = std::iter::once(0).chain(ends.iter().flat_map(|&end| [end - 30, end])).collect();
    for (n, &cut) in cuts.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        partial_copy(reference.path(), folder.path(), cut, |index| match n % 3 {
            0 => true,
            1 => false,
            _ => (index + n) % 2 == 0,
        });
        // What a kill leaves behind must not matter.
        fs::write(folder.path().join("results").join("x.json.99.tmp"), "half").unwrap();
        fs::write(folder.path().join("meta-graph.json"), "half").unwrap();
        let toy = Toy { diverge_every: 7, ..Toy::default() };
        let report = run(folder.path(), config, &toy, 1 + n % 2).unwrap();
        assert_eq!(report.n_children, 20);
        assert_eq!(files(folder.path()), expected, "cut at {cut}");
    }
}

#[test]
fn interrupted_studies_go_on() {
    let config = config(&[6, 6], StrategyKind::Gram, 24, 4);
    let reference = tempfile::tempdir().unwrap();
    run(reference.path(), &config, &Toy::default(), 2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut n_calls = 0;
    for stop_after in [1, 3, 9, 2, usize::MAX] {
        let toy = Toy { stop_after, ..Toy::default() };
        let report = run(folder.path(), &config, &toy, 2).unwrap();
        n_calls += report.n_evaluated_now;
        if stop_after == usize::MAX {
            assert_eq!(report.stop, StopReason::BudgetSpent);
        } else {
            assert_eq!(report.stop, StopReason::Interrupted);
            assert_eq!(report.n_evaluated_now, stop_after);
        }
    }
    assert_eq!(n_calls, 24, "nothing is evaluated twice");
    assert_eq!(files(folder.path()), files(reference.path()));
    let again = Toy::default();
    let report = run(folder.path(), &config, &again, 1).unwrap();
    assert_eq!((report.n_evaluated_now, report.n_children), (0, 24));
    assert_eq!(files(folder.path()), files(reference.path()));
}

#[derive(Default)]
struct Log {
    progress: Vec<Progress>,
    n_rounds: usize,
    notes: Vec<String>,
}

impl Observer for Log {
    fn child_done(&mut self, progress: &Progress) {
        self.progress.push(progress.clone());
    }

    fn round_done(&mut self, _: &RoundRecord) {
        self.n_rounds += 1;
    }

    fn note(&mut self, message: &str) {
        self.notes.push(message.to_owned());
    }
}

#[test]
fn observers_hear_of_every_child_round_and_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[6, 6], StrategyKind::Gram, 20, 4);
    run(folder.path(), &config, &Toy { stop_after: 5, ..Toy::default() }, 1).unwrap();
    let path = folder.path().join("journal.jsonl");
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 10]).unwrap();
    let (toy, mut log) = (Toy { diverge_every: 0, ..Toy::default() }, Log::default());
    let mut study = Study::open(folder.path(), config, &toy.identity(), &serde_json::Value::Null).unwrap();
    let executor = LocalExecutor::new(NonZeroUsize::MIN);
    let pruned = |_: &MetaGraph| None;
    let report = study
        .run(Run {
            evaluator: &toy,
            executor: &executor,
            observer: &mut log,
            interrupt: &toy.interrupt,
            pruned: &pruned,
            warm_source: None,
            latency: None,
        })
        .unwrap();
    assert!(log.progress.iter().enumerate().all(|(index, progress)| progress.n_done == index + 1));
    assert_eq!((log.progress.len(), log.n_rounds), (20, report.n_rounds));
    assert_eq!(log.progress.iter().filter(|progress| progress.duration.is_none()).count(), 5);
    assert_eq!(log.progress[19].best_validation_top1, report.best[0].outcome.validation_top1());
    assert!(log.notes[0].contains("last line was torn"), "{:?}", log.notes);
    assert_eq!(log.notes[1], "going on after 4 evaluated children");
    let again = Run {
        evaluator: &toy,
        executor: &executor,
        observer: &mut log,
        interrupt: &toy.interrupt,
        pruned: &pruned,
        warm_source: None,
        latency: None,
    };
    assert!(matches!(study.run(again), Err(StudyError::HasRun)));
}

#[test]
fn small_spaces_are_exhausted() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&[4], StrategyKind::Random, 100, 4);
    config.space.operators = vec![CellOp::Conv1x1];
    let report = run(folder.path(), &config, &Toy::default(), 1).unwrap();
    assert_eq!(report.stop, StopReason::SpaceExhausted);
    // 30 feasible graphs of 4 nodes; with one operator fewer classes. Chain and fork on two nodes, three nodes with 21 − 1 labelled ones.
    assert!(report.n_children >= 15 && report.n_children < 30, "{}", report.n_children);
    assert!(report.n_cache_hits > 0);
}

#[test]
fn a_search_converges_on_a_small_space() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&[9], StrategyKind::Gram, 5000, 4);
    config.meta = MetaConfig { max_rounds: 12, ..MetaConfig::default() };
    let report = run(folder.path(), &config, &Toy::default(), 1).unwrap();
    assert_eq!(report.stop, StopReason::Converged(gram_meta::Converged::RoundsCap));
    assert_eq!(report.n_rounds, 24, "twelve lessons of two rounds");
}

/// Scores of a search in order of evaluation, by ask and tell alone.
fn search(config: &StudyConfig, warm_source: Option<&MetaGraph>) -> Vec<f64> {
    let (n_children, seed) = (config.n_children, config.seed);
    let mut strategy = config.build_strategy(warm_source).unwrap();
    let interrupt = AtomicBool::new(false);
    let gate =
        Gate { space: &config.space, input: config.input, num_classes: 10, limits: &config.limits, latency: None };
    let mut scores: BTreeMap<CanonicalKey, f64> = BTreeMap::new();
    let mut in_order = Vec::new();
    for round in 0.. {
        let is_seen = |graph: &CanonicalKey| scores.contains_key(graph);
        let context = Context { gate, seed, round, is_seen: &is_seen, interrupt: &interrupt };
        if round == 0 {
            strategy.start(&context).unwrap();
        }
        let n_new = config.children_per_round.min(n_children - in_order.len());
        if n_new == 0 {
            break;
        }
        let proposals = strategy.ask(n_new, &context).unwrap();
        for proposal in &proposals {
            if let Proposal::New(candidate) = proposal {
                let noise = (child_seed(seed, &candidate.graph) % 1000) as f64 / 1000.0;
                let score = 0.95 * toy::quality(&candidate.blueprint.cells) + 0.05 * noise;
                scores.insert(candidate.graph.clone(), score);
                in_order.push(score);
            }
        }
        let told: Vec<Option<f64>> = proposals.iter().map(|proposal| scores.get(proposal.graph()).copied()).collect();
        strategy.tell(&told, &|_| None).unwrap();
    }
    in_order
}

#[test]
fn gram_beats_random_search() {
    // Mean of the last quarter of children's scores, and the best score.
    let figures = |kind, sampler, n_children, seed| {
        let scores = search(&StudyConfig { sampler, ..config(&[12, 12], kind, n_children, seed) }, None);
        assert_eq!(scores.len(), n_children);
        let last = &scores[n_children * 3 / 4..];
        (last.iter().sum::<f64>() / last.len() as f64, scores.iter().copied().fold(0.0, f64::max))
    };
    for (sampler, n_children) in [(Sampler::Ancestral, 160), (Sampler::Screened, 64)] {
        let (mut n_wins, mut gain) = (0, 0.0);
        for seed in 0..20 {
            let gram = figures(StrategyKind::Gram, sampler, n_children, seed);
            let random = figures(StrategyKind::Random, sampler, n_children, seed);
            n_wins += usize::from(gram.0 > random.0);
            gain += (gram.1 - random.1) / 20.0;
        }
        // If neither were better, 18 or more wins of 20 would have probability 0.0002.
        assert!(n_wins >= 18, "{sampler:?}: {n_wins} of 20");
        assert!(gain > 0.0, "{sampler:?}: mean gain of the best score {gain}");
    }
}

/// What a study of this configuration learnt.
fn meta_graph(config: &StudyConfig, toy: &Toy) -> MetaGraph {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), config, toy, 1).unwrap();
    MetaGraph::from_json(&fs::read_to_string(folder.path().join("meta-graph.json")).unwrap()).unwrap()
}

/// Mean score of the first `n` children of a study that starts from `source`, if there is one.
fn mean_of_first(config: &StudyConfig, source: Option<&MetaGraph>, n: usize) -> f64 {
    let warm_start = source.map(|source| WarmStart { digest: WarmStart::digest_of(source).unwrap(), rho: 0.5 });
    let scores = search(&StudyConfig { warm_start, n_children: n, ..config.clone() }, source);
    scores.iter().sum::<f64>() / n as f64
}

/// The meta-graph that believes the opposite, if its prior was 0.5 everywhere, as it is up to 8 nodes.
fn inverted(meta: &MetaGraph) -> MetaGraph {
    let mut file: serde_json::Value = serde_json::from_str(&meta.to_json().unwrap()).unwrap();
    for weight in file["stages"][0]["weights"].as_array_mut().unwrap() {
        *weight = (1.0 - weight.as_f64().unwrap()).into();
    }
    MetaGraph::from_json(&file.to_string()).unwrap()
}

/// ALGORITHMS F6 and F3: what was learnt with 10 nodes a stage helps with 30, whose operators are dealt otherwise, and the opposite of it
/// does not harm. Ten seeds, draws alone.
#[test]
fn small_stages_teach_large_ones() {
    let draws = |nodes, n_children, seed| StudyConfig {
        sampler: Sampler::Ancestral,
        ..config(&[nodes], StrategyKind::Gram, n_children, seed)
    };
    let (mut n_wins, mut harm) = (0, Vec::new());
    for seed in 0..10 {
        let source = meta_graph(&draws(10, 96, 100 + seed), &Toy::default());
        let large = draws(30, 48, seed);
        let cold = mean_of_first(&large, None, 48);
        n_wins += usize::from(mean_of_first(&large, Some(&source), 48) > cold);
        let opposite = inverted(&meta_graph(&draws(8, 96, 100 + seed), &Toy::default()));
        harm.push(cold - mean_of_first(&large, Some(&opposite), 48));
    }
    // If it made no difference, 8 or more wins of 10 would have probability 0.055.
    assert!(n_wins >= 8, "{n_wins} of 10");
    let mean = harm.iter().sum::<f64>() / 10.0;
    let error = (harm.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 90.0).sqrt();
    assert!(mean <= error.max(0.01), "the opposite costs {mean} ± {error} of the mean score");
}

#[test]
fn a_warm_start_is_tried_settled_and_bound_to_its_source() {
    let source = meta_graph(&config(&[6], StrategyKind::Gram, 64, 1), &Toy::default());
    let warm_start = WarmStart { digest: WarmStart::digest_of(&source).unwrap(), rho: 0.5 };
    let cold = config(&[6], StrategyKind::Gram, 24, 2);
    let warm = StudyConfig { warm_start: Some(warm_start.clone()), ..cold.clone() };
    let folder = tempfile::tempdir().unwrap();
    let (toy, executor) = (Toy::default(), LocalExecutor::new(NonZeroUsize::MIN));
    let begin = |config: &StudyConfig, name: &str, warm_source: Option<&MetaGraph>| {
        let mut study =
            Study::open(&folder.path().join(name), config.clone(), &toy.identity(), &serde_json::Value::Null)?;
        let (interrupt, pruned) = (&toy.interrupt, &|_: &MetaGraph| None);
        study.run(Run {
            evaluator: &toy,
            executor: &executor,
            observer: &mut (),
            interrupt,
            pruned,
            warm_source,
            latency: None,
        })
    };
    begin(&warm, "warm", Some(&source)).unwrap();
    let outcomes: Vec<_> = read_journal(&folder.path().join("warm/journal.jsonl"))
        .unwrap()
        .into_iter()
        .filter_map(|record| match record {
            Record::Round(round) => Some(round.lesson.and_then(|lesson| lesson.warm_start)),
            _ => None,
        })
        .collect();
    // The first lesson is that of the second round; the source's children and the others have both been scored by then.
    assert_eq!(outcomes.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    assert!(outcomes[1].is_some_and(|outcome| outcome.mean_warm.is_some() && outcome.mean_cold.is_some()));

    let other = meta_graph(&config(&[6], StrategyKind::Gram, 32, 3), &Toy::default());
    let refused = |result: Result<StudyReport, StudyError>| result.unwrap_err().to_string();
    assert!(refused(begin(&warm, "none", None)).contains("which was not given"));
    assert!(refused(begin(&warm, "other", Some(&other))).contains("not from"));
    let evolution = StudyConfig { strategy: StrategyKind::Evolution, ..warm.clone() };
    assert!(refused(begin(&evolution, "evolution", Some(&source))).contains("warm_start: is for the strategy gram"));
    let stages = StudyConfig { space: space(&[6, 6]), ..warm };
    assert!(refused(begin(&stages, "stages", Some(&source))).contains("the source has 1 stages"));
    assert_eq!(toy.n_calls.into_inner(), 24, "what is refused evaluates nothing");
}

#[test]
fn limits_hold_for_every_child_and_unmeetable_ones_are_refused_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&[8, 8], StrategyKind::Gram, 40, 4);
    config.limits = Limits { max_macs: Some(Macs(45_000)), max_params: Some(Params(2_600)), ..Limits::default() };
    let report = run(folder.path(), &config, &Toy::default(), 2).unwrap();
    assert!(report.n_children >= 20, "{report:?}");
    assert!(report.best.iter().all(|child| config.limits.allow(&child.cost)));
    config.limits = Limits { max_macs: Some(Macs(1000)), max_params: None, ..Limits::default() };
    let toy = Toy::default();
    let error = run(&folder.path().join("other"), &config, &toy, 1).unwrap_err();
    assert!(error.to_string().contains("no child keeps the limits of 1,000 MACs"), "{error}");
    assert!(matches!(error, StudyError::Preflight(_)));
    assert_eq!(toy.n_calls.into_inner(), 0);
}

#[test]
fn other_configurations_are_refused_with_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let first = config(&[5], StrategyKind::Gram, 8, 1);
    run(folder.path(), &first, &Toy::default(), 1).unwrap();
    let journal = fs::read(folder.path().join("journal.jsonl")).unwrap();
    let mut other = first.clone();
    other.seed = 2;
    other.space.stages[0].nodes = 6;
    let error = run(folder.path(), &other, &Toy::default(), 1).unwrap_err().to_string();
    assert!(error.contains("study.seed is 1 there, 2 now"), "{error}");
    assert!(error.contains("study.space.stages[0].nodes is 5 there, 6 now"), "{error}");
    let error = run(folder.path(), &first, &Toy { diverge_every: 3, ..Toy::default() }, 1).unwrap_err().to_string();
    assert!(error.contains("evaluator"), "{error}");
    assert_eq!(fs::read(folder.path().join("journal.jsonl")).unwrap(), journal);
}

#[test]
fn corrupt_journals_and_results_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[5], StrategyKind::Gram, 8, 1);
    run(folder.path(), &config, &Toy::default(), 1).unwrap();
    let path = folder.path().join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(&path, text.replacen(lines[3], &lines[3].replace("macs", "mads"), 1)).unwrap();
    let error = run(folder.path(), &config, &Toy::default(), 1).unwrap_err().to_string();
    assert!(error.contains("journal.jsonl, line 4: its checksum does not fit"), "{error}");
    fs::write(&path, lines[0].to_owned() + "\n").unwrap();
    let result = fs::read_dir(folder.path().join("results")).unwrap().next().unwrap().unwrap().path();
    fs::write(&result, "{}").unwrap();
    let error = run(folder.path(), &config, &Toy::default(), 1).unwrap_err();
    assert!(matches!(error, StudyError::Results(_)) && error.to_string().contains("its checksum"), "{error}");
}

#[test]
fn a_result_that_contradicts_the_journal_is_named() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = config(&[5], StrategyKind::Gram, 8, 1);
    run(one.path(), &config, &Toy::default(), 1).unwrap();
    let mut study = Study::open(other.path(), config.clone(), &Lying.identity(), &serde_json::Value::Null).unwrap();
    let interrupt = AtomicBool::new(false);
    let executor = LocalExecutor::new(NonZeroUsize::MIN);
    let lying = Run {
        evaluator: &Lying,
        executor: &executor,
        observer: &mut (),
        interrupt: &interrupt,
        pruned: &|_| None,
        warm_source: None,
        latency: None,
    };
    study.run(lying).unwrap();
    let results = |folder: &Path| {
        let mut paths: Vec<_> =
            fs::read_dir(folder.join("results")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let (from, to) = (results(other.path()), results(one.path()));
    let differing = from.iter().zip(&to).find(|(from, to)| fs::read(from).unwrap() != fs::read(to).unwrap());
    let (from, to) = differing.unwrap();
    fs::copy(from, to).unwrap();
    let error = run(one.path(), &config, &Toy::default(), 1).unwrap_err().to_string();
    assert!(error.contains("holds Scored { validation_top1: 0.25"), "{error}");
}

/// Claims to be [`Toy`] and is not.
struct Lying;

impl Evaluator for Lying {
    fn identity(&self) -> String {
        Toy::default().identity()
    }

    fn evaluate(&self, _: &Job) -> Result<Outcome, EvaluatorError> {
        Ok(Outcome::scored(0.25))
    }
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[5], StrategyKind::Gram, 8, 1);
    let identity = Toy::default().identity();
    let open = || Study::open(folder.path(), config.clone(), &identity, &serde_json::Value::Null);
    let first = open().unwrap();
    assert!(matches!(open().unwrap_err(), StudyError::Locked { .. }));
    drop(first);
    assert!(open().is_ok());
}

struct Broken;

impl Evaluator for Broken {
    fn identity(&self) -> String {
        Toy::default().identity()
    }

    fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
        match job.child {
            5 => Err(EvaluatorError::new("no space left")),
            6 => Ok(Outcome::scored(f64::NAN)),
            _ => Toy::default().evaluate(job),
        }
    }
}

#[test]
fn a_failed_evaluation_ends_the_run_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&[6], StrategyKind::Gram, 12, 1);
    let mut study = Study::open(folder.path(), config.clone(), &Broken.identity(), &serde_json::Value::Null).unwrap();
    let toy = Toy::default();
    let executor = LocalExecutor::new(NonZeroUsize::MIN);
    let run_broken = Run {
        evaluator: &Broken,
        executor: &executor,
        observer: &mut (),
        interrupt: &toy.interrupt,
        pruned: &|_| None,
        warm_source: None,
        latency: None,
    };
    let error = study.run(run_broken).unwrap_err().to_string();
    assert!(error.starts_with("child 5 (") && error.ends_with("no space left"), "{error}");
    drop(study);
    let report = run(folder.path(), &config, &toy, 2).unwrap();
    // Four were evaluated for certain; 7 and 8 may have been under way when 5 failed.
    assert!(report.n_children == 12 && (6..=8).contains(&report.n_evaluated_now), "{report:?}");
}
