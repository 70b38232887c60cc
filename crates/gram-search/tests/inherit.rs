//! Studies whose children start from weights of others: decided by earlier rounds alone, the same for any number of jobs, and after any kill.

mod toy;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use gram_search::{
    ChildRecord, EvalKey, Evaluator, EvaluatorError, Halving, Job, KeepBy, LocalExecutor, Outcome, Record, Run,
    StrategyKind, Study, StudyConfig, StudyError, StudyReport, read_journal,
};
use serde_json::Value;
use toy::{Toy, config, files};

/// A toy whose weights are one number: a mean of its own quality and the number that it starts from.
struct Heirs {
    toy: Toy,
    halving: Option<Halving>,
    /// As kept on disk.
    weights: Mutex<BTreeMap<EvalKey, f64>>,
}

impl Heirs {
    fn new(halving: bool, toy: Toy) -> Self {
        let halving = halving.then(|| Halving { epochs: vec![1], keep: 0.5, keep_by: KeepBy::Top1 });
        Self { toy, halving, weights: Mutex::default() }
    }
}

impl Evaluator for Heirs {
    fn identity(&self) -> String {
        format!("{}, heirs, {:?}", self.toy.identity(), self.halving)
    }

    fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
        self.evaluate_until(job, None)
    }

    fn halving(&self) -> Option<&Halving> {
        self.halving.as_ref()
    }

    fn evaluate_until(&self, job: &Job, epochs: Option<usize>) -> Result<Outcome, EvaluatorError> {
        let start = match job.source {
            None => 0.0,
            Some(source) => {
                assert!(source.child < job.child);
                let weights = self.weights.lock().unwrap().get(&source.key).copied();
                weights.ok_or_else(|| EvaluatorError::new(format!("no weights of child {}", source.child)))?
            }
        };
        let outcome = self.toy.evaluate(job)?;
        let Outcome::Scored { validation_top1, score, metrics } = outcome else { return Ok(outcome) };
        let end = 0.5 * (start + validation_top1);
        if epochs.is_none() {
            self.weights.lock().unwrap().insert(job.key, end);
        }
        Ok(Outcome::Scored { validation_top1: end, score, metrics })
    }

    fn inherits(&self) -> bool {
        true
    }
}

fn try_run(directory: &Path, config: &StudyConfig, evaluator: &Heirs, jobs: usize) -> Result<StudyReport, StudyError> {
    let mut study = Study::open(directory, config.clone(), &evaluator.identity(), &Value::Null).unwrap();
    study.run(Run {
        evaluator,
        executor: &LocalExecutor::new(NonZeroUsize::new(jobs).unwrap()),
        observer: &mut (),
        interrupt: &evaluator.toy.interrupt,
        pruned: &|_| None,
        warm_source: None,
        latency: None,
    })
}

fn children(directory: &Path) -> Vec<ChildRecord> {
    let records = read_journal(&directory.join("journal.jsonl")).unwrap();
    let child = |record| if let Record::Child(child) = record { Some(child) } else { None };
    records.into_iter().filter_map(child).collect()
}

#[test]
fn children_start_from_ones_of_earlier_rounds_that_were_trained_to_the_end() {
    for (strategy, halving) in StrategyKind::ALL.into_iter().flat_map(|strategy| [(strategy, false), (strategy, true)])
    {
        let config = config(&[6, 9], strategy, 30, 3);
        let study = |jobs| {
            let folder = tempfile::tempdir().unwrap();
            let toy = Toy { diverge_every: 5, pause: Duration::from_millis(1), ..Toy::default() };
            let report = try_run(folder.path(), &config, &Heirs::new(halving, toy), jobs).unwrap();
            assert!(report.n_diverged > 0 && report.n_children == 30, "{strategy}");
            (children(folder.path()), files(folder.path()))
        };
        let (children, alone) = study(1);
        for child in &children {
            let Some(source) = child.source else {
                let before = children.iter().filter(|other| other.round < child.round);
                assert!(!before.into_iter().any(|other| matches!(other.outcome, Outcome::Scored { .. })), "{strategy}");
                continue;
            };
            let source = &children[source - 1];
            assert!(source.round < child.round && matches!(source.outcome, Outcome::Scored { .. }), "{strategy}");
        }
        assert!(children.iter().any(|child| child.source.is_some()));
        for jobs in [2, 4] {
            assert_eq!(study(jobs).1, alone, "{jobs} jobs, {strategy}, halving {halving}");
        }
    }
}

/// With the weights that are there at the end, as a kill leaves at least those that are needed.
#[test]
fn studies_that_are_killed_anywhere_end_with_the_same_bytes_or_say_what_is_missing() {
    let config = config(&[5, 6], StrategyKind::Gram, 20, 9);
    let heirs = || Heirs::new(false, Toy { diverge_every: 7, ..Toy::default() });
    let reference = tempfile::tempdir().unwrap();
    let straight = heirs();
    try_run(reference.path(), &config, &straight, 1).unwrap();
    let expected = files(reference.path());
    let journal = fs::read(reference.path().join("journal.jsonl")).unwrap();
    let ends = journal.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
    let mut n_refused = 0;
    for (n, cut) in ends.flat_map(|end| [end - 30, end]).enumerate() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("results")).unwrap();
        fs::write(folder.path().join("journal.jsonl"), &journal[..cut]).unwrap();
        for (index, (name, bytes)) in expected.iter().filter(|(name, _)| name.len() > 60).enumerate() {
            if n % 3 == 0 || (n % 3 == 1 && (index + n) % 2 == 0) {
                fs::write(folder.path().join("results").join(name), bytes).unwrap();
            }
        }
        // Without weights it goes on to the same end, if none are needed, or not at all.
        match try_run(folder.path(), &config, &heirs(), 1) {
            Ok(_) => assert_eq!(files(folder.path()), expected, "cut at {cut}"),
            Err(error) => {
                assert!(error.to_string().contains("no weights of child"), "{error}");
                n_refused += 1;
            }
        }
        let evaluator = heirs();
        *evaluator.weights.lock().unwrap() = straight.weights.lock().unwrap().clone();
        try_run(folder.path(), &config, &evaluator, 1 + n % 2).unwrap();
        assert_eq!(files(folder.path()), expected, "cut at {cut}");
    }
    assert!(n_refused > 0);
}
