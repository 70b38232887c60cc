//! How cores are shared out among the children that are trained at the same time. It changes time and nothing else.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock, PoisonError};

use gram_search::{Done, Evaluator, Executor, Job, LocalExecutor};

use crate::failure::{Failure, Kind, Result};
use crate::output;
use crate::study::evaluator::ProxyEvaluator;
use crate::study::measure::{Speed, measure};

/// So many children at a time, each on so many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) children: NonZeroUsize,
    pub(crate) threads: NonZeroUsize,
}

/// The ways to keep `jobs` cores busy (none: all), most children first: N children on one thread each, N/2 on two, …, one on N.
///
/// With `threads` there is one way: so many children, each on so many threads.
///
/// # Errors
/// Exit code 2 for a count of 0.
pub(crate) fn share_out(jobs: Option<usize>, threads: Option<usize>, cores: NonZeroUsize) -> Result<Vec<Share>> {
    let count = |name: &str, count: usize| {
        NonZeroUsize::new(count).ok_or_else(|| Failure::new(Kind::Usage, format!("{name} is 0, it must be 1 or more")))
    };
    if let Some(threads) = threads {
        let threads = count("--threads", threads)?;
        let children = count("--jobs", jobs.unwrap_or((cores.get() / threads).max(1)))?;
        return Ok(vec![Share { children, threads }]);
    }
    let jobs = count("--jobs", jobs.unwrap_or(cores.get()))?;
    let halves = std::iter::successors(Some(jobs), |children| NonZeroUsize::new(children.get() / 2));
    let share =
        |children: NonZeroUsize| Some(Share { children, threads: NonZeroUsize::new(jobs.get() / children.get())? });
    Ok(halves.filter_map(share).collect())
}

/// Cores that this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Trains children in one of several ways: the one that is measured to be the fastest, on a child of the study, before the first of them is
/// trained. Memory is kept within a limit.
pub(crate) struct SharedCores<'a> {
    evaluator: &'a ProxyEvaluator<'a>,
    shares: Vec<Share>,
    max_bytes: Option<u64>,
    speeds: OnceLock<Vec<Speed>>,
    said: Mutex<Vec<Share>>,
}

impl<'a> SharedCores<'a> {
    /// `shares` are most children first and not empty, as from [`share_out`]; trainings together take at most `max_bytes`.
    pub(crate) fn new(evaluator: &'a ProxyEvaluator<'a>, shares: Vec<Share>, max_bytes: Option<u64>) -> Self {
        Self { evaluator, shares, max_bytes, speeds: OnceLock::new(), said: Mutex::default() }
    }

    /// The way for these jobs; nothing is measured where there is no choice.
    fn choose(&self, jobs: &[Job], interrupt: &AtomicBool) -> Option<Share> {
        let job = jobs.first()?;
        if let [only] = self.shares[..] {
            return Some(only);
        }
        let fitting = self.fitting(jobs);
        let share = match fitting.as_slice() {
            // What does not fit on one thread either is refused by the executor.
            [] => Share { children: NonZeroUsize::MIN, threads: NonZeroUsize::MIN },
            [only] => *only,
            several => fastest(
                self.speeds.get_or_init(|| measure(several, self.evaluator, job, interrupt)),
                several,
                jobs.len(),
            ),
        };
        self.say(share, fitting.len() < self.shares.len());
        Some(share)
    }

    /// The shares for which there is memory even if all children are as large as the largest of these.
    fn fitting(&self, jobs: &[Job]) -> Vec<Share> {
        let Some(max_bytes) = self.max_bytes else { return self.shares.clone() };
        let bytes = |job: &Job, n_threads| self.evaluator.bytes_on(job, n_threads);
        let Some(largest) = jobs.iter().max_by_key(|job| bytes(job, NonZeroUsize::MIN)) else { return Vec::new() };
        let fits =
            |share: &Share| bytes(largest, share.threads).saturating_mul(share.children.get() as u64) <= max_bytes;
        self.shares.iter().copied().filter(fits).collect()
    }

    /// Notes how it goes on, each way once: rounds that get smaller on their way change it again and again.
    fn say(&self, share: Share, short_of_memory: bool) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.contains(&share) {
            return;
        }
        said.push(share);
        let count = |n: NonZeroUsize, one: &str, many: &str| format!("{n} {}", if n.get() == 1 { one } else { many });
        let (children, threads) =
            (count(share.children, "child", "children"), count(share.threads, "thread", "threads"));
        let why = if short_of_memory { "; --max-memory leaves no room for more" } else { "" };
        output::note(format_args!("training {children} at a time on {threads} each{why}"));
    }
}

impl Executor for SharedCores<'_> {
    fn run(&self, jobs: &[Job], evaluator: &dyn Evaluator, interrupt: &AtomicBool, done: &mut Done<'_>) {
        let Some(share) = self.choose(jobs, interrupt) else { return };
        self.evaluator.set_threads(share.threads);
        LocalExecutor { jobs: share.children, max_bytes: self.max_bytes }.run(jobs, evaluator, interrupt, done);
    }
}

/// The share among `shares` that ends `n_jobs` equal jobs first; of those that nothing is known about, and of equals, the one with the most
/// children: whole children side by side never wait for each other.
fn fastest(speeds: &[Speed], shares: &[Share], n_jobs: usize) -> Share {
    let time = |share: &Share| {
        let speed = speeds.iter().find(|speed| speed.share == *share)?;
        Some(n_jobs.div_ceil(share.children.get()) as f64 / speed.steps_per_second)
    };
    let known = shares.iter().filter_map(|share| Some((*share, time(share)?)));
    let best = known.reduce(|best, next| if next.1 < best.1 { next } else { best });
    best.map_or(shares[0], |(share, _)| share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(children: usize, threads: usize) -> Share {
        let [children, threads] = [children, threads].map(|n| NonZeroUsize::new(n).unwrap());
        Share { children, threads }
    }

    #[test]
    fn cores_are_shared_out() {
        let shared = |jobs, threads, cores| share_out(jobs, threads, NonZeroUsize::new(cores).unwrap()).ok();
        let of = |pairs: &[(usize, usize)]| Some(pairs.iter().map(|&(c, t)| share(c, t)).collect());
        assert_eq!(shared(None, None, 2), of(&[(2, 1), (1, 2)]));
        assert_eq!(shared(None, None, 1), of(&[(1, 1)]));
        assert_eq!(shared(Some(1), None, 8), of(&[(1, 1)]));
        assert_eq!(shared(Some(8), None, 4), of(&[(8, 1), (4, 2), (2, 4), (1, 8)]));
        assert_eq!(shared(Some(3), None, 8), of(&[(3, 1), (1, 3)]));
        assert_eq!(shared(Some(12), None, 8), of(&[(12, 1), (6, 2), (3, 4), (1, 12)]));
        assert_eq!(shared(Some(3), Some(2), 8), of(&[(3, 2)]));
        assert_eq!(shared(None, Some(2), 8), of(&[(4, 2)]));
        assert_eq!(shared(None, Some(9), 8), of(&[(1, 9)]));
        assert_eq!(shared(Some(0), None, 8), None);
        assert_eq!(shared(Some(2), Some(0), 8), None);
    }

    #[test]
    fn the_way_that_ends_first_is_chosen() {
        let shares = [share(4, 1), share(2, 2), share(1, 4)];
        let speed = |i: usize, steps_per_second| Speed { share: shares[i], steps_per_second };
        // Four children side by side do 40 steps a second in all, two do 36, one 32.
        let speeds = [speed(0, 10.0), speed(1, 18.0), speed(2, 32.0)];
        assert_eq!(fastest(&speeds, &shares, 16), shares[0]);
        assert_eq!(fastest(&speeds, &shares, 1), shares[2], "one child alone leaves no core idle");
        assert_eq!(fastest(&speeds, &shares, 2), shares[1]);
        assert_eq!(fastest(&speeds, &shares[1..], 16), shares[1], "what does not fit is left out");
        assert_eq!(fastest(&[], &shares, 16), shares[0]);
        assert_eq!(fastest(&[speed(0, 10.0), speed(1, 20.0)], &shares, 16), shares[0], "of equals");
    }
}
