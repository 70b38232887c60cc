//! Who runs evaluations: on this machine's threads, or elsewhere.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Evaluator, EvaluatorError, Job, Outcome};

/// A finished evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took; never part of what must be reproducible.
    pub duration: Duration,
}

/// What an executor calls, on the caller's thread, for every job that ended: its index among the jobs, and how it ended. In any order.
/// [`ControlFlow::Break`] asks to start no further job.
pub type Done<'a> = dyn FnMut(usize, Result<Evaluation, EvaluatorError>) -> ControlFlow<()> + 'a;

/// Runs a round's evaluations.
pub trait Executor {
    /// Runs `jobs`, starting them in their order, and calls `done` once for each that ended.
    ///
    /// When `interrupt` becomes true or `done` breaks, no further job is started; those that run are waited for (evaluators watch the same
    /// flag and may end early with [`EvaluatorError::Interrupted`]).
    fn run(&self, jobs: &[Job], evaluator: &dyn Evaluator, interrupt: &AtomicBool, done: &mut Done<'_>);
}

/// Runs evaluations on threads of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalExecutor {
    /// Evaluations at a time.
    pub jobs: NonZeroUsize,
}

impl Executor for LocalExecutor {
    fn run(&self, jobs: &[Job], evaluator: &dyn Evaluator, interrupt: &AtomicBool, done: &mut Done<'_>) {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.jobs.get().min(jobs.len()) {
                let sender = sender.clone();
                scope.spawn(|| work(jobs, evaluator, [interrupt, &stop], &next, sender));
            }
            drop(sender);
            for (index, ended) in receiver {
                if done(index, ended).is_break() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
    }
}

type Ended = (usize, Result<Evaluation, EvaluatorError>);

fn work(
    jobs: &[Job],
    evaluator: &dyn Evaluator,
    stop: [&AtomicBool; 2],
    next: &AtomicUsize,
    sender: mpsc::Sender<Ended>,
) {
    while stop.iter().all(|flag| !flag.load(Ordering::Relaxed)) {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(job) = jobs.get(index) else { return };
        let start = Instant::now();
        let outcome = evaluator.evaluate(job).and_then(Outcome::check);
        let ended = outcome.map(|outcome| Evaluation { outcome, duration: start.elapsed() });
        if sender.send((index, ended)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Candidate, EvalKey, Gate};
    use gram_ir::{
        Activation, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Limits, Shape, Space, StageSpace,
    };
    use std::sync::Mutex;

    fn candidate() -> Candidate {
        let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
        let stage = StageSpace { nodes: 3, channels: 2, repeats: 1, downsample: Downsample::None, output };
        let space = Space {
            name: "test".into(),
            activation: Activation::Relu,
            max_in_degree: 4,
            operators: vec![CellOp::Conv1x1],
            stem: Vec::new(),
            stages: vec![stage],
            head: Head::default(),
        };
        let mut cell = Cell::new();
        cell.add_node(CellNodeId(1), CellOp::Conv1x1).unwrap();
        cell.add_edge(CellNodeId::INPUT, CellNodeId(1)).unwrap();
        let gate = Gate { space: &space, input: Shape::chw(1, 2, 2), num_classes: 2, limits: &Limits::default() };
        gate.admit(vec![cell]).unwrap()
    }

    fn jobs(n: usize) -> Vec<Job> {
        let Candidate { architecture, network, graph, .. } = candidate();
        let job = |child| Job {
            child,
            architecture: architecture.clone(),
            network: network.clone(),
            key: EvalKey::new(&graph, "test", child as u64),
            seed: child as u64,
        };
        (1..=n).map(job).collect()
    }

    /// Notes in which order children start.
    struct Started(Mutex<Vec<usize>>);

    impl Evaluator for Started {
        fn identity(&self) -> String {
            "test".into()
        }

        fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
            self.0.lock().unwrap().push(job.child);
            // Long enough for a break to be seen before thousands of jobs have run.
            thread::sleep(Duration::from_millis(1));
            if job.child == 3 { Ok(Outcome::scored(7.0)) } else { Ok(Outcome::scored(1.0 / job.child as f64)) }
        }
    }

    fn started(jobs_at_a_time: usize, n: usize, done: &mut Done<'_>, interrupted: bool) -> Vec<usize> {
        let executor = LocalExecutor { jobs: NonZeroUsize::new(jobs_at_a_time).unwrap() };
        let evaluator = Started(Mutex::new(Vec::new()));
        executor.run(&jobs(n), &evaluator, &AtomicBool::new(interrupted), done);
        evaluator.0.into_inner().unwrap()
    }

    #[test]
    fn every_job_ends_once_under_its_index() {
        for jobs_at_a_time in [1, 3, 20] {
            let mut ended = Vec::new();
            let mut order = started(
                jobs_at_a_time,
                10,
                &mut |index, evaluation| {
                    ended.push((index, evaluation.map(|evaluation| evaluation.outcome).ok()));
                    ControlFlow::Continue(())
                },
                false,
            );
            ended.sort_by_key(|(index, _)| *index);
            assert!(ended.iter().map(|(index, _)| *index).eq(0..10));
            assert_eq!(ended[4].1, Some(Outcome::scored(0.2)));
            assert_eq!(ended[2].1, None, "a score of 7 is none");
            order.sort_unstable();
            assert!(order.into_iter().eq(1..=10));
        }
    }

    #[test]
    fn nothing_starts_after_an_interrupt_and_little_after_a_break() {
        assert!(started(2, 5, &mut |_, _| ControlFlow::Continue(()), true).is_empty());
        assert!(started(2, 0, &mut |_, _| ControlFlow::Continue(()), false).is_empty());
        let mut n_ended = 0;
        let order = started(
            1,
            10_000,
            &mut |_, _| {
                n_ended += 1;
                ControlFlow::Break(())
            },
            false,
        );
        assert!(order.len() < 10_000 && n_ended == order.len(), "{n_ended} of {}", order.len());
        assert!(order.into_iter().enumerate().all(|(index, child)| child == index + 1), "in order of submission");
    }
}
