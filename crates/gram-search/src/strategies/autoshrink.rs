//! AutoShrink: a full architecture loses one part after the other.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::domain::{Domain, Point};

use super::{DomainStrategy, History, MAX_STALE_DRAWS, Round, Streams, new_random};

/// Removes, for good, the part whose removal scores best among a few that are drawn; from an architecture in which nothing is removed.
///
/// Values of decisions that are kept are drawn once, as AutoShrink deals operators to nodes; when nothing is left to remove, or no
/// removal is feasible, the next architecture is dealt. Decisions without a [`Domain::removal`] are drawn and kept.
/// # Source
/// ALGORITHMS 2.1 (sibling code of AutoShrink, AAAI 2020). The score has no cost term, for tables have none; limits are hard instead.
#[derive(Clone, Debug)]
pub struct AutoShrink {
    streams: Streams,
    history: History,
    asked: Round,
    current: Option<Point>,
    /// Removals of the current step: all those drawn, and those of them that still wait for an evaluation.
    step: Vec<Point>,
    waiting: Vec<Point>,
}

/// Removals that are compared in a step, as in the sibling code.
const N_CANDIDATES: usize = 10;

impl AutoShrink {
    /// A search with this seed.
    pub fn new(seed: u64) -> Self {
        let (history, asked) = (History::default(), Round::default());
        Self { streams: Streams::new(seed), history, asked, current: None, step: Vec::new(), waiting: Vec::new() }
    }

    /// An architecture in which nothing is removed; any feasible one where none of those drawn is.
    fn deal(domain: &dyn Domain, rng: &mut ChaCha8Rng) -> Option<Point> {
        for _ in 0..MAX_STALE_DRAWS {
            let deal = |(index, decision): (usize, &crate::domain::Decision)| {
                let removal = domain.removal(index);
                let kept: Vec<u8> = (0..decision.n_values()).filter(|&value| Some(value) != removal).collect();
                kept.get(rng.random_range(0..kept.len().max(1))).copied().or(removal).unwrap_or(0)
            };
            let point = Point::from(domain.decisions().iter().enumerate().map(deal).collect::<Vec<u8>>());
            if domain.is_feasible(&point) {
                return Some(point);
            }
        }
        domain.random(rng)
    }

    /// Chooses the best of a finished step, then draws removals until one of them is not known.
    fn advance(&mut self, domain: &dyn Domain, rng: &mut ChaCha8Rng) {
        for _ in 0..MAX_STALE_DRAWS {
            if let Some(best) = self.best_of_step(domain) {
                self.current = Some(best);
            }
            let mut candidates = match &self.current {
                Some(current) => removals(domain, current),
                None => Vec::new(),
            };
            if candidates.is_empty() {
                let Some(full) = Self::deal(domain, rng) else { return };
                self.current = None;
                candidates = vec![full];
            }
            candidates.shuffle(rng);
            candidates.truncate(N_CANDIDATES);
            self.waiting = candidates.iter().filter(|p| self.history.score_of(p, domain).is_none()).cloned().collect();
            self.step = candidates;
            if !self.waiting.is_empty() {
                return;
            }
        }
    }

    fn best_of_step(&mut self, domain: &dyn Domain) -> Option<Point> {
        let scored =
            std::mem::take(&mut self.step).into_iter().filter_map(|p| Some((self.history.score_of(&p, domain)?, p)));
        scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1))).map(|(_, point)| point)
    }
}

/// Feasible points with one part fewer.
fn removals(domain: &dyn Domain, point: &Point) -> Vec<Point> {
    let removed = |(index, &value): (usize, &u8)| {
        let removal = domain.removal(index).filter(|&removal| removal != value)?;
        Some(point.with(index, removal)).filter(|edited| domain.is_feasible(edited))
    };
    point.values().iter().enumerate().filter_map(removed).collect()
}

impl DomainStrategy for AutoShrink {
    fn name(&self) -> &'static str {
        "autoshrink"
    }

    fn ask(&mut self, n: usize, domain: &dyn Domain) -> Vec<Point> {
        let mut rng = self.streams.next();
        self.asked = Round::default();
        if self.waiting.is_empty() {
            self.advance(domain, &mut rng);
        }
        while self.asked.len() < n
            && let Some(point) = self.waiting.pop()
        {
            let class = domain.class_of(&point);
            if !self.history.contains(&class) && !self.asked.contains(&class) {
                self.asked.push(point, domain);
            }
        }
        if self.asked.len() == 0
            && let Some(point) = new_random(domain, &self.history, &self.asked, &mut rng)
        {
            self.asked.push(point, domain);
        }
        self.asked.points.clone()
    }

    fn tell(&mut self, scores: &[Option<f64>], _domain: &dyn Domain) {
        self.history.extend(std::mem::take(&mut self.asked), scores);
    }
}
