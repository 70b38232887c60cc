//! What a study tells while it runs; progress bars and log lines are made of it.

use std::time::Duration;

use crate::RoundRecord;

/// Hears of a study's progress, on the thread that runs it. Every method does nothing by default; `()` is an observer that ignores all.
pub trait Observer {
    /// A child's outcome is known.
    fn child_done(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// A round was told to the strategy.
    fn round_done(&mut self, round: &RoundRecord) {
        let _ = round;
    }

    /// Something worth a line: a study that goes on, a torn line that was cut off, a thinned prior.
    fn note(&mut self, message: &str) {
        let _ = message;
    }
}

impl Observer for () {}

/// Where a study stands after a child.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Children whose outcome is known.
    pub n_done: usize,
    /// Children that the study evaluates in all, unless it ends early.
    pub n_total: usize,
    /// Top-1 of this child on the validation split; none if it diverged.
    pub validation_top1: Option<f64>,
    /// Best top-1 so far on the validation split.
    pub best_validation_top1: Option<f64>,
    /// How long the evaluation took; none if an earlier run did it.
    pub duration: Option<Duration>,
}
