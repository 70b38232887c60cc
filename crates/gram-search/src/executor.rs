//! Who runs evaluations: on this machine's threads, or elsewhere.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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
///
/// Evaluations start in the order of their jobs, as soon as one of the threads is free and the bytes of all that run ([`Evaluator::bytes`])
/// are at most [`max_bytes`](Self::max_bytes). A large job waits for its turn and is not overtaken by smaller ones behind it. A job that
/// alone is too large is not started: it ends with [`EvaluatorError::Memory`] before any other job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalExecutor {
    /// Evaluations at a time.
    pub jobs: NonZeroUsize,
    /// Most bytes of the evaluations that run at the same time; none: as many as they take.
    pub max_bytes: Option<u64>,
}

impl LocalExecutor {
    /// An executor of `jobs` evaluations at a time, whatever they take.
    pub fn new(jobs: NonZeroUsize) -> Self {
        Self { jobs, max_bytes: None }
    }
}

impl Executor for LocalExecutor {
    fn run(&self, jobs: &[Job], evaluator: &dyn Evaluator, interrupt: &AtomicBool, done: &mut Done<'_>) {
        let stop = AtomicBool::new(false);
        let mut end = |index, ended| {
            if done(index, ended).is_break() {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let mut queue = Vec::with_capacity(jobs.len());
        for (index, job) in jobs.iter().enumerate() {
            let bytes = self.max_bytes.map_or(0, |_| evaluator.bytes(job));
            match self.max_bytes.filter(|&max_bytes| bytes > max_bytes) {
                Some(max_bytes) => end(index, Err(EvaluatorError::Memory { bytes, max_bytes })),
                None => queue.push((index, bytes)),
            }
        }
        let admission = Admission::new(&queue, self.max_bytes, [interrupt, &stop]);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.jobs.get().min(queue.len()) {
                let sender = sender.clone();
                scope.spawn(|| work(jobs, evaluator, &admission, sender));
            }
            drop(sender);
            for (index, ended) in receiver {
                end(index, ended);
            }
        });
    }
}

type Ended = (usize, Result<Evaluation, EvaluatorError>);

fn work(jobs: &[Job], evaluator: &dyn Evaluator, admission: &Admission<'_>, sender: mpsc::Sender<Ended>) {
    while let Some(admitted) = admission.next() {
        let start = Instant::now();
        let outcome = evaluator.evaluate(&jobs[admitted.index]).and_then(Outcome::check);
        let ended = outcome.map(|outcome| Evaluation { outcome, duration: start.elapsed() });
        if sender.send((admitted.index, ended)).is_err() {
            return;
        }
    }
}

/// Lets jobs start in their order while there is memory for them.
struct Admission<'a> {
    /// Index and bytes of each job; none of them is more than all memory.
    queue: &'a [(usize, u64)],
    max_bytes: u64,
    /// Once one of them is true, no job is admitted any more.
    stop: [&'a AtomicBool; 2],
    state: Mutex<Running>,
    /// A job has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Running {
    /// Jobs of the queue that were admitted.
    n_admitted: usize,
    /// What those that run take.
    bytes: u64,
}

/// A job that may run; dropping it gives its memory back, also when its evaluation panics.
struct Admitted<'a> {
    admission: &'a Admission<'a>,
    index: usize,
    bytes: u64,
}

impl<'a> Admission<'a> {
    fn new(queue: &'a [(usize, u64)], max_bytes: Option<u64>, stop: [&'a AtomicBool; 2]) -> Self {
        let (state, ended) = (Mutex::new(Running::default()), Condvar::new());
        Self { queue, max_bytes: max_bytes.unwrap_or(u64::MAX), stop, state, ended }
    }

    /// The next job, once there is memory for it; none behind the last one, or after a stop.
    ///
    /// Whoever waits is woken: while there is too little memory a job runs, and its end wakes all.
    fn next(&'a self) -> Option<Admitted<'a>> {
        let mut running = self.lock();
        loop {
            let &(index, bytes) = self.queue.get(running.n_admitted)?;
            if self.stop.iter().any(|flag| flag.load(Ordering::Relaxed)) {
                return None;
            }
            if bytes <= self.max_bytes - running.bytes {
                running.n_admitted += 1;
                running.bytes += bytes;
                return Some(Admitted { admission: self, index, bytes });
            }
            running = self.ended.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No code that could panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.lock().bytes -= self.bytes;
        self.admission.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Candidate, EvalKey, Gate};
    use gram_ir::{
        Activation, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Limits, Shape, Space, StageSpace,
    };
    use std::sync::atomic::{AtomicU64, AtomicUsize};

    fn candidate() -> Candidate {
        let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
        let stage = StageSpace::new(3, 2, Downsample::None, output);
        let space = Space {
            name: "test".into(),
            activation: Activation::Relu,
            max_in_degree: 4,
            operators: vec![CellOp::Conv1x1],
            node_operators: Default::default(),
            image_sizes: Vec::new(),
            channel_multiple: 1,
            stem: Vec::new(),
            stages: vec![stage],
            head: Head::default(),
        };
        let mut cell = Cell::new();
        cell.add_node(CellNodeId(1), CellOp::Conv1x1).unwrap();
        cell.add_edge(CellNodeId::INPUT, CellNodeId(1)).unwrap();
        let gate = Gate {
            space: &space,
            input: Shape::chw(1, 2, 2),
            num_classes: 2,
            limits: &Limits::default(),
            latency: None,
        };
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
            source: None,
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
        let executor = LocalExecutor::new(NonZeroUsize::new(jobs_at_a_time).unwrap());
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

    /// Jobs of 10 to 70 bytes; counts what runs at the same time.
    #[derive(Default)]
    struct Weighed {
        bytes: AtomicU64,
        most_bytes: AtomicU64,
        running: AtomicUsize,
        most_running: AtomicUsize,
        panics_at: Option<usize>,
        started: Mutex<Vec<usize>>,
    }

    impl Evaluator for Weighed {
        fn identity(&self) -> String {
            "test".into()
        }

        fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
            let bytes = self.bytes(job);
            self.started.lock().unwrap().push(job.child);
            self.most_bytes.fetch_max(self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
            self.most_running.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_micros(bytes * 20));
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
            assert_ne!(self.panics_at, Some(job.child), "as the test wants it");
            Ok(Outcome::scored(0.5))
        }

        fn bytes(&self, job: &Job) -> u64 {
            10 * (job.child as u64 * 5 % 7 + 1)
        }
    }

    /// Indices of the jobs that succeeded, of `n`, and what the others said.
    fn weighed(weighed: &Weighed, max_bytes: Option<u64>, n: usize) -> (Vec<usize>, Vec<String>) {
        let executor = LocalExecutor { jobs: NonZeroUsize::new(8).unwrap(), max_bytes };
        let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
        executor.run(&jobs(n), weighed, &AtomicBool::new(false), &mut |index, ended| {
            match ended {
                Ok(_) => succeeded.push(index),
                Err(error) => failed.push(error.to_string()),
            }
            ControlFlow::Continue(())
        });
        succeeded.sort_unstable();
        (succeeded, failed)
    }

    #[test]
    fn running_jobs_stay_within_the_limit_and_all_end() {
        for max_bytes in [70, 71, 100, 250, 10_000] {
            let evaluator = Weighed::default();
            let (succeeded, failed) = weighed(&evaluator, Some(max_bytes), 100);
            assert!(succeeded.into_iter().eq(0..100) && failed.is_empty());
            let most = evaluator.most_bytes.into_inner();
            assert!(most <= max_bytes, "{most} of {max_bytes}");
            assert!(most > max_bytes / 2 || max_bytes == 10_000, "{most} of {max_bytes}: memory lies idle");
            assert!(evaluator.most_running.into_inner() > usize::from(max_bytes >= 100));
        }
        let evaluator = Weighed::default();
        assert_eq!(weighed(&evaluator, None, 40).0.len(), 40);
        assert!(evaluator.most_running.into_inner() > 2);
    }

    #[test]
    fn a_job_that_is_too_large_ends_at_once_and_delays_no_other() {
        let evaluator = Weighed::default();
        let (succeeded, failed) = weighed(&evaluator, Some(69), 14);
        // Children 4 and 11 take 70 bytes.
        assert!(succeeded.into_iter().eq((0..14).filter(|index| ![3, 10].contains(index))));
        assert_eq!(failed.len(), 2);
        assert!(!evaluator.started.into_inner().unwrap().contains(&4));
        let error = EvaluatorError::Memory { bytes: 3 << 20, max_bytes: 1 << 19 };
        assert_eq!(error.to_string(), "it takes 3.0 MiB, the memory limit leaves 0.5 MiB");
    }

    #[test]
    fn nothing_starts_beside_a_job_that_is_too_large_for_one_who_breaks() {
        let evaluator = Weighed::default();
        let executor = LocalExecutor { jobs: NonZeroUsize::new(3).unwrap(), max_bytes: Some(69) };
        let mut ended = Vec::new();
        executor.run(&jobs(8), &evaluator, &AtomicBool::new(false), &mut |index, result| {
            ended.push((index, result.is_ok()));
            ControlFlow::Break(())
        });
        assert_eq!(ended, [(3, false)]);
        assert!(evaluator.started.into_inner().unwrap().is_empty());
    }

    #[test]
    fn a_panic_gives_its_memory_back() {
        let evaluator = Weighed { panics_at: Some(4), ..Weighed::default() };
        let run = std::panic::AssertUnwindSafe(|| weighed(&evaluator, Some(70), 20));
        assert!(std::panic::catch_unwind(run).is_err(), "it is passed on");
        assert_eq!(evaluator.started.into_inner().unwrap().len(), 20, "but waits for nobody");
    }
}
