//! Measures how fast children train side by side: a few steps of a real child in every way that cores can be shared out.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gram_data::Batch;
use gram_ir::Network;
use gram_search::Job;
use gram_train::{TrainConfig, Trainer};

use crate::study::evaluator::ProxyEvaluator;
use crate::study::jobs::Share;

/// How fast each child trains while others do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed {
    pub(crate) share: Share,
    /// Steps per second of one of the children.
    pub(crate) steps_per_second: f64,
}

/// All measurements end about here.
const BUDGET: Duration = Duration::from_millis(1500);

/// Every share is measured so often, in alternating order, so that a passing load of the machine meets all of them.
const PASSES: u32 = 2;

/// Images that show how large a step may be; also the least that all threads of a child can share.
const FEW_IMAGES: usize = 16;

/// Steps of one measurement.
const STEPS: u32 = 6;

/// A measurement goes on for at least so long.
const LEAST: Duration = Duration::from_millis(40);

/// Speeds of the network of `job` in every share. Nothing where that would take too long, where it fails (its real training will say why),
/// or once `interrupt` is set.
pub(crate) fn measure(
    shares: &[Share],
    evaluator: &ProxyEvaluator<'_>,
    job: &Job,
    interrupt: &AtomicBool,
) -> Vec<Speed> {
    let deadline = Instant::now() + BUDGET;
    all(shares, evaluator, &job.network, deadline, interrupt).unwrap_or_default()
}

fn all(
    shares: &[Share],
    evaluator: &ProxyEvaluator<'_>,
    network: &Network,
    deadline: Instant,
    interrupt: &AtomicBool,
) -> Option<Vec<Speed>> {
    let config = evaluator.config();
    let few = evaluator.batch(FEW_IMAGES.min(config.batch_size))?;
    let per_image = seconds_of_a_step(network, config, &few)? / few.n as f64;
    let (n_images, n_steps) = plan(per_image, shares.len(), config.batch_size)?;
    let batch = evaluator.batch(n_images)?;
    let steps = Steps { network, config, batch: &batch, n_steps, deadline, interrupt };
    let mut sums = vec![0.0; shares.len()];
    for pass in 0..PASSES {
        let mut order: Vec<usize> = (0..shares.len()).collect();
        if pass % 2 == 1 {
            order.reverse();
        }
        for i in order {
            sums[i] += steps.per_second(shares[i])?;
        }
    }
    let speed = |(&share, sum): (&Share, f64)| Speed { share, steps_per_second: sum / f64::from(PASSES) };
    Some(shares.iter().zip(sums).map(speed).collect())
}

/// Images of a step and steps of a measurement for which all measurements end in time; none if even the fewest would not. Given the seconds of
/// an image on one thread.
fn plan(per_image: f64, n_shares: usize, batch_size: usize) -> Option<(usize, u32)> {
    // A step more is not timed. Side by side everything is slower than alone, by half at most for what is planned here.
    let steps = |seconds: f64| seconds / (1.5 * f64::from(PASSES) * n_shares as f64 * per_image);
    let images = steps(BUDGET.as_secs_f64());
    let few = FEW_IMAGES.min(batch_size);
    let n_images = ((images / f64::from(STEPS + 1)) as usize).clamp(few, batch_size);
    let n_steps = (images / n_images as f64) as u32;
    (n_steps > 2).then(|| (n_images, (n_steps - 1).min(STEPS)))
}

/// On one thread; the second step, because the first one allocates.
fn seconds_of_a_step(network: &Network, config: &TrainConfig, batch: &Batch) -> Option<f64> {
    let mut trainer = Trainer::new(network, config, 0, Some(1), batch.n).ok()?;
    trainer.step(&batch.pixels, &batch.labels, 0.0).ok()?;
    let start = Instant::now();
    trainer.step(&batch.pixels, &batch.labels, 0.0).ok()?;
    Some(start.elapsed().as_secs_f64().max(1e-9))
}

/// What a measurement does.
#[derive(Clone, Copy)]
struct Steps<'a> {
    network: &'a Network,
    config: &'a TrainConfig,
    batch: &'a Batch,
    n_steps: u32,
    deadline: Instant,
    interrupt: &'a AtomicBool,
}

impl Steps<'_> {
    /// Mean steps per second of the children of a share.
    fn per_second(self, share: Share) -> Option<f64> {
        let (n, barrier) = (share.children.get(), Barrier::new(share.children.get()));
        thread::scope(|scope| {
            let children: Vec<_> = (0..n).map(|_| scope.spawn(|| self.child(share.threads.get(), &barrier))).collect();
            let speeds: Vec<Option<f64>> = children.into_iter().map(|child| child.join().ok().flatten()).collect();
            speeds.into_iter().sum::<Option<f64>>().map(|sum| sum / n as f64)
        })
    }

    /// Steps per second of one child, from when all are ready.
    fn child(self, n_threads: usize, all_ready: &Barrier) -> Option<f64> {
        let Batch { pixels, labels, n } = self.batch;
        let ready = || {
            let mut trainer = Trainer::new(self.network, self.config, 0, Some(n_threads), *n).ok()?;
            trainer.step(pixels, labels, 0.0).ok()?;
            Some(trainer)
        };
        let trainer = ready();
        all_ready.wait();
        let (mut trainer, start) = (trainer?, Instant::now());
        let mut n_steps = 0;
        while n_steps < self.n_steps || start.elapsed() < LEAST {
            if Instant::now() > self.deadline || self.interrupt.load(Ordering::Relaxed) {
                return None;
            }
            trainer.step(pixels, labels, 0.0).ok()?;
            n_steps += 1;
        }
        Some(f64::from(n_steps) / start.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_shrink_until_they_end_in_time() {
        // A child of CIFAR-10's size: 0.3 ms an image.
        assert_eq!(plan(3e-4, 2, 64), Some((64, 6)));
        assert_eq!(plan(3e-4, 5, 64), Some((47, 6)));
        assert_eq!(plan(3e-3, 2, 64), Some((16, 4)));
        assert_eq!(plan(1e-9, 5, 256), Some((256, 6)));
        assert_eq!(plan(1e-3, 2, 4), Some((4, 6)), "a batch is never larger than in training");
        assert_eq!(plan(5e-2, 2, 64), None, "too slow to be measured");
        for (per_image, n_shares) in [(1e-4, 2), (1e-3, 3), (3e-3, 4), (1e-2, 2)] {
            let Some((n_images, n_steps)) = plan(per_image, n_shares, 64) else { continue };
            let seconds = per_image * n_images as f64 * f64::from((n_steps + 1) * PASSES) * n_shares as f64;
            assert!(seconds <= BUDGET.as_secs_f64() / 1.4, "{seconds} s");
        }
    }
}
