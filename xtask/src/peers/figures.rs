//! What was measured, and the figures made of it.

use std::fmt;

use super::contender::Answer;

/// Who runs a network, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ours { threads: usize, batch: usize },
    Torch { mode: &'static str, threads: usize, batch: usize },
}

impl Role {
    pub(crate) fn threads(self) -> usize {
        match self {
            Self::Ours { threads, .. } | Self::Torch { threads, .. } => threads,
        }
    }

    pub(crate) fn batch(self) -> usize {
        match self {
            Self::Ours { batch, .. } | Self::Torch { batch, .. } => batch,
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Ours { .. })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours { threads, batch } => write!(f, "gram, threads {threads}, batch {batch}"),
            Self::Torch { mode, .. } => write!(f, "torch {mode}"),
        }
    }
}

/// One contender's rounds, or why there are none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Median step of each round in milliseconds, without the first round; largest memory.
    Ran {
        rounds: Vec<f64>,
        rss_mib: u64,
    },
    Absent(String),
}

/// A contender and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) role: Role,
    /// What it calls itself.
    pub(crate) mode: String,
    pub(crate) outcome: Outcome,
}

impl Entry {
    pub(crate) fn new(role: Role, mode: &str) -> Self {
        Self { role, mode: mode.to_owned(), outcome: Outcome::Ran { rounds: Vec::new(), rss_mib: 0 } }
    }

    pub(crate) fn absent(role: Role, reason: String) -> Self {
        Self { role, mode: String::new(), outcome: Outcome::Absent(reason) }
    }

    /// Counts an answer, whose time is dropped in round 0.
    pub(crate) fn add(&mut self, round: usize, answer: &Answer) {
        // Steps that go wrong are not what was asked for: ours skips the optimiser then.
        if !answer.loss.is_finite() {
            self.outcome = Outcome::Absent(format!("the loss became {}", answer.loss));
        }
        if let Outcome::Ran { rounds, rss_mib } = &mut self.outcome {
            *rss_mib = answer.rss_mib.max(*rss_mib);
            if round > 0 {
                rounds.push(median(&answer.steps));
            }
        }
    }

    /// The rounds; none if it is absent.
    pub(crate) fn rounds(&self) -> Option<&[f64]> {
        match &self.outcome {
            Outcome::Ran { rounds, .. } => Some(rounds),
            Outcome::Absent(_) => None,
        }
    }

    /// The last round for people who wait.
    pub(crate) fn last_round(&self) -> String {
        match self.rounds().and_then(<[f64]>::last) {
            Some(ms) => format!("{ms:.1}"),
            None => "–".into(),
        }
    }
}

/// All contenders on one network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetFigures {
    pub(crate) name: String,
    /// Of one forward pass of one image.
    pub(crate) macs: u64,
    pub(crate) params: u64,
    /// Of all threads together, measured before and after the rounds.
    pub(crate) peak_gflops: f64,
    pub(crate) entries: Vec<Entry>,
}

impl NetFigures {
    /// FLOP of a step: forward, gradients of data, gradients of weights, two for each multiply–add.
    pub(crate) fn step_flop(&self, batch: usize) -> f64 {
        6.0 * self.macs as f64 * batch as f64
    }

    /// Ours as it is compared.
    pub(crate) fn ours(&self) -> &Entry {
        &self.entries[0]
    }

    pub(crate) fn torch(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.role.is_ours())
    }

    /// Ours with other threads or another batch.
    pub(crate) fn ours_with(&self, is: impl Fn(Role) -> bool) -> Option<&Entry> {
        self.entries[1..].iter().find(|entry| entry.role.is_ours() && is(entry.role))
    }

    /// In each round the time of the fastest torch mode.
    pub(crate) fn best_torch_rounds(&self) -> Vec<f64> {
        let present: Vec<&[f64]> = self.torch().filter_map(Entry::rounds).collect();
        let n_rounds = present.iter().map(|rounds| rounds.len()).min().unwrap_or(0);
        (0..n_rounds).map(|i| present.iter().map(|rounds| rounds[i]).fold(f64::INFINITY, f64::min)).collect()
    }
}

/// Ratios of the same round, of `numerator` to `denominator`.
pub(crate) fn ratios(numerator: &[f64], denominator: &[f64]) -> Vec<f64> {
    numerator.iter().zip(denominator).map(|(a, b)| a / b).collect()
}

/// The middle one, or the mean of the two middle ones; NaN if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        n => sorted[n / 2],
    }
}

/// The smallest; infinite if there are none.
pub(crate) fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The largest; minus infinity if there are none.
pub(crate) fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Ours 100 ms, eager 300 and 200, compile 150 and 400, eager-cl absent.
    pub(crate) fn some_figures() -> NetFigures {
        let (threads, batch) = (2, 64);
        let entry = |role, rounds: &[f64], rss_mib| Entry {
            outcome: Outcome::Ran { rounds: rounds.to_vec(), rss_mib },
            ..Entry::new(role, "gram-avx2")
        };
        let torch = |mode| Role::Torch { mode, threads, batch };
        NetFigures {
            name: "some".into(),
            macs: 1_000_000_000 / 6,
            params: 1234,
            peak_gflops: 1280.0,
            entries: vec![
                entry(Role::Ours { threads, batch }, &[100.0, 100.0], 140),
                entry(torch("eager"), &[300.0, 200.0], 1700),
                Entry::absent(torch("eager-cl"), "it ended: no torch".into()),
                entry(torch("compile"), &[150.0, 400.0], 1800),
                entry(Role::Ours { threads: 1, batch }, &[190.0, 190.0], 130),
                entry(Role::Ours { threads, batch: 128 }, &[210.0, 190.0], 260),
            ],
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_best_mode_is_chosen_round_by_round() {
        let figures = some_figures();
        assert_eq!(figures.best_torch_rounds(), [150.0, 200.0]);
        assert_eq!(ratios(&figures.best_torch_rounds(), &[100.0, 100.0]), [1.5, 2.0]);
        assert_eq!(figures.ours_with(|role| role.threads() == 1).unwrap().rounds().unwrap(), [190.0, 190.0]);
    }

    #[test]
    fn the_first_round_counts_for_memory_only() {
        let mut entry = Entry::new(Role::Ours { threads: 2, batch: 64 }, "gram-avx2");
        entry.add(0, &Answer { steps: vec![900.0], rss_mib: 100, loss: 1.0 });
        entry.add(1, &Answer { steps: vec![5.0, 90.0, 4.0], rss_mib: 90, loss: 1.0 });
        assert_eq!(entry.outcome, Outcome::Ran { rounds: vec![5.0], rss_mib: 100 });
        entry.add(2, &Answer { steps: vec![1.0], rss_mib: 90, loss: f64::NAN });
        assert_eq!(entry.outcome, Outcome::Absent("the loss became NaN".into()));
    }
}
