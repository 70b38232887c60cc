//! Progress for people who wait: a bar on a terminal, plain lines elsewhere; both with the estimated time left.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Plain lines come no more often than this, but for the last.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress of `total` equal steps, of which some were done before.
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    done: usize,
    /// Steps that were there already say nothing about speed.
    done_before: usize,
    started: Instant,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts at `done_before` of `total`, the steps after it having begun at `started`.
    pub(crate) fn new(what: &'static str, total: usize, done_before: usize, started: Instant) -> Self {
        let bar = output::is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(what);
            bar.set_position(done_before as u64);
            bar
        });
        Self { what, total, done: done_before, done_before, started, last_line: None, bar }
    }

    /// Says how far it is, with a few words about the last step.
    pub(crate) fn step(&mut self, done: usize, message: &str) {
        self.done = done;
        let left = self.time_left().map_or(String::new(), |left| format!("  {} left", human(left)));
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(format!("{message}{left}"));
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) || done >= self.total;
        if due {
            self.last_line = Some(Instant::now());
            output::note(format_args!("{} {done}/{}  {message}{left}", self.what, self.total));
        }
    }

    fn time_left(&self) -> Option<Duration> {
        let steps = self.done.checked_sub(self.done_before).filter(|&steps| steps > 0)?;
        let left = self.total.saturating_sub(self.done);
        (left > 0).then(|| self.started.elapsed().mul_f64(left as f64 / steps as f64))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
            // The bar leaves the cursor at its end.
            output::note("");
        }
    }
}

/// `2h05m`, `3m20s`, `12s`.
pub(crate) fn human(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest:02}s"),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        let shown = [0.2, 12.0, 200.0, 7500.0].map(|seconds| human(Duration::from_secs_f64(seconds)));
        assert_eq!(shown, ["1s", "12s", "3m20s", "2h05m"]);
    }

    #[test]
    fn steps_done_before_do_not_count_as_speed() {
        let mut progress = Progress::new("children", 10, 8, Instant::now());
        assert_eq!(progress.time_left(), None);
        progress.step(9, "");
        assert!(progress.time_left().is_some());
        progress.step(10, "");
        assert_eq!(progress.time_left(), None);
    }
}
