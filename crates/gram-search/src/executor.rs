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
