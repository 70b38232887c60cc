//! Studies that stop children on their way: decided by the round alone, the same for any number of jobs, and after any kill.

mod toy;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gram_search::{
    ChildRecord, EvalKey, Evaluator, EvaluatorError, Halving, Job, KeepBy, LocalExecutor, Outcome, Record, Run,
    StopReason, StrategyKind, Study, StudyConfig, StudyReport, read_journal,
};
use serde_json::Value;
use toy::{Toy, config, files};

/// Epochs of the whole training.
const EPOCHS: usize = 6;

/// A toy whose score grows with its epochs, by another amount for every child.
struct Halved {
    halving: Halving,
    toy: Toy,
    /// Epochs that a child was trained for, as a checkpoint knows them.
    trained: Mutex<BTreeMap<EvalKey, usize>>,
    n_epochs: AtomicUsize,
}

impl Halved {
    fn new(keep_by: KeepBy, toy: Toy) -> Self {
        let halving = Halving { epochs: vec![1, 3], keep: 0.5, keep_by };
        Self { halving, toy, trained: Mutex::default(), n_epochs: AtomicUsize::new(0) }
    }
}

impl Evaluator for Halved {
    fn identity(&self) -> String {
        format!("{}, {:?}", self.toy.identity(), self.halving)
    }

    fn evaluate(&self, _: &Job) -> Result<Outcome, EvaluatorError> {
        panic!("children are evaluated together")
    }

    fn halving(&self) -> Option<&Halving> {
        Some(&self.halving)
    }

    fn evaluate_until(&self, job: &Job, epochs: Option<usize>) -> Result<Outcome, EvaluatorError> {
        let epochs = epochs.unwrap_or(EPOCHS);
        let outcome = self.toy.evaluate(job)?;
        let mut trained = self.trained.lock().unwrap();
        let before = trained.entry(job.key).or_default();
        self.n_epochs.fetch_add(epochs.saturating_sub(*before), Ordering::Relaxed);
        *before = epochs.max(*before);
        let Outcome::Scored { validation_top1, score, metrics } = outcome else { return Ok(outcome) };
        let speed = 1.0 + (job.seed % 7) as f64;
        let validation_top1 = validation_top1 * epochs as f64 / (epochs as f64 + speed);
        Ok(Outcome::Scored { validation_top1, score, metrics })
    }

    fn forget(&self, key: EvalKey) {
        self.trained.lock().unwrap().remove(&key);
    }
}

fn run(directory: &Path, config: &StudyConfig, evaluator: &Halved, jobs: usize) -> StudyReport {
    let mut study = Study::open(directory, config.clone(), &evaluator.identity(), &Value::Null).unwrap();
    let report = study.run(Run {
        evaluator,
        executor: &LocalExecutor::new(NonZeroUsize::new(jobs).unwrap()),
        observer: &mut (),
        interrupt: &evaluator.toy.interrupt,
        pruned: &|_| None,
        warm_source: None,
        latency: None,
    });
    report.unwrap()
}

fn children(directory: &Path) -> Vec<ChildRecord> {
    let records = read_journal(&directory.join("journal.jsonl")).unwrap();
    let child = |record| if let Record::Child(child) = record { Some(child) } else { None };
    records.into_iter().filter_map(child).collect()
}

/// Epochs where a child was stopped, and its top-1 there.
fn stopped(child: &ChildRecord) -> Option<(usize, f64)> {
    let Outcome::Stopped { epochs, validation_top1, .. } = child.outcome else { return None };
    Some((epochs, validation_top1))
}

#[test]
fn children_that_are_behind_are_stopped_and_never_rank_above_the_others() {
    for strategy in StrategyKind::ALL {
        let folder = tempfile::tempdir().unwrap();
        let evaluator = Halved::new(KeepBy::Top1, Toy::default());
        let report = run(folder.path(), &config(&[6, 6], strategy, 32, 4), &evaluator, 1);
        assert_eq!((report.n_children, report.stop), (32, StopReason::BudgetSpent));
        let children = children(folder.path());
        let mut n_epochs = 0;
        for round in 0..report.n_rounds {
            let of = |epochs: Option<usize>| {
                let round = children.iter().filter(move |child| child.round == round);
                round.filter(move |child| stopped(child).map(|(at, _)| at) == epochs).collect::<Vec<_>>()
            };
            let [first, second, last] = [of(Some(1)), of(Some(3)), of(None)];
            // Of 8 children 4 go on behind epoch 1, 2 of them behind epoch 3; some strategies ask for fewer at a time.
            let n = first.len() + second.len() + last.len();
            let (in_second, in_last) = (n.div_ceil(2), n.div_ceil(2).div_ceil(2));
            assert_eq!((second.len() + last.len(), last.len()), (in_second, in_last), "{strategy}");
            n_epochs += n + 2 * in_second + (EPOCHS - 3) * in_last;
            let top1 = |child: &&ChildRecord| child.outcome.score().unwrap();
            let most = |children: &[&ChildRecord]| children.iter().map(top1).fold(0.0, f64::max);
            let least = |children: &[&ChildRecord]| children.iter().map(top1).fold(1.0, f64::min);
            assert!(most(&first) < least(&second) && most(&second) < least(&last), "{strategy}");
            let measured = |child: &&ChildRecord| stopped(child).unwrap().1;
            assert!(first.iter().all(|child| measured(child) <= top1(child)), "all gain from there on");
        }
        assert_eq!(evaluator.n_epochs.into_inner(), n_epochs);
        // A whole round of 8 takes 8 + 4 · 2 + 2 · 3 of 48 epochs.
        assert!(strategy != StrategyKind::Random || n_epochs == 4 * 22, "{n_epochs}");
        assert!(evaluator.trained.into_inner().unwrap().is_empty(), "nothing is kept when all is over");
    }
}

#[test]
fn journals_are_the_same_for_any_number_of_jobs() {
    for keep_by in [KeepBy::Top1, KeepBy::Front] {
        let config = config(&[6, 9], StrategyKind::Gram, 30, 3);
        let study = |jobs| {
            let folder = tempfile::tempdir().unwrap();
            let toy = Toy { diverge_every: 5, pause: Duration::from_millis(2), ..Toy::default() };
            let report = run(folder.path(), &config, &Halved::new(keep_by, toy), jobs);
            assert!(report.n_diverged > 0 && report.n_children == 30);
            files(folder.path())
        };
        let alone = study(1);
        for jobs in [2, 4] {
            assert_eq!(study(jobs), alone, "{jobs} jobs, {keep_by:?}");
        }
    }
}

/// Cut in the middle of a record and behind it, with all, none or some of the results: children of the round that was cut that are in the
/// journal, or in `results/`, change no decision.
#[test]
fn studies_that_are_killed_anywhere_end_with_the_same_bytes() {
    let config = config(&[5, 6], StrategyKind::Gram, 20, 9);
    let toy = || Halved::new(KeepBy::Top1, Toy { diverge_every: 7, ..Toy::default() });
    let reference = tempfile::tempdir().unwrap();
    run(reference.path(), &config, &toy(), 1);
    let expected = files(reference.path());
    let journal = fs::read(reference.path().join("journal.jsonl")).unwrap();
    let ends = journal.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
    for (n, cut) in ends.flat_map(|end| [end - 30, end]).enumerate() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("results")).unwrap();
        fs::write(folder.path().join("journal.jsonl"), &journal[..cut]).unwrap();
        for (index, (name, bytes)) in expected.iter().filter(|(name, _)| name.len() > 60).enumerate() {
            if n % 3 == 0 || (n % 3 == 1 && (index + n) % 2 == 0) {
                fs::write(folder.path().join("results").join(name), bytes).unwrap();
            }
        }
        run(folder.path(), &config, &toy(), 1 + n % 2);
        assert_eq!(files(folder.path()), expected, "cut at {cut}");
    }
}

#[test]
fn interrupted_rounds_go_on_without_training_an_epoch_twice() {
    let config = config(&[6, 6], StrategyKind::Gram, 24, 4);
    let reference = tempfile::tempdir().unwrap();
    let straight = Halved::new(KeepBy::Top1, Toy::default());
    run(reference.path(), &config, &straight, 2);
    let folder = tempfile::tempdir().unwrap();
    let (mut trained, mut n_epochs) = (BTreeMap::new(), 0);
    for stop_after in [1, 9, 12, 20, 25, usize::MAX] {
        let mut evaluator = Halved::new(KeepBy::Top1, Toy { stop_after, ..Toy::default() });
        evaluator.trained = Mutex::new(trained);
        let report = run(folder.path(), &config, &evaluator, 2);
        assert_eq!(report.stop == StopReason::Interrupted, stop_after != usize::MAX);
        assert_eq!(report.n_children % 8, 0, "rounds are written down as a whole");
        trained = evaluator.trained.into_inner().unwrap();
        n_epochs += evaluator.n_epochs.into_inner();
    }
    assert_eq!(n_epochs, straight.n_epochs.into_inner());
    assert_eq!(files(folder.path()), files(reference.path()));
}

/// A result holds among the children of its round and nowhere else.
#[test]
fn results_of_another_round_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let study = |children_per_round| {
        let config = StudyConfig { children_per_round, ..config(&[6, 6], StrategyKind::Random, 16, 4) };
        let evaluator = Halved::new(KeepBy::Top1, Toy::default());
        let report = run(folder.path(), &config, &evaluator, 1);
        fs::remove_file(folder.path().join("journal.jsonl")).unwrap();
        report.n_evaluated_now
    };
    assert_eq!(study(8), 16);
    assert_eq!(study(8), 0, "the same rounds");
    assert_eq!(study(4), 16, "the same children in other rounds");
}
