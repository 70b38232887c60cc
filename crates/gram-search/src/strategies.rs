//! Strategies that search a [`Domain`] by ask and tell.
//!
//! A strategy asks for points of classes that were not evaluated yet and is told their scores, which are frozen: a class that it meets
//! again, as whichever member, costs nothing. All draws come from ChaCha streams of the seed and the round, so the same seed and scores
//! give the same points. The same strategies run on tables and on children that are trained.

mod autoshrink;
mod evolution;
mod gram;
mod history;
mod local_search;
mod random;

use rand_chacha::ChaCha8Rng;

use crate::domain::{Domain, Point};
use crate::try_stream;

pub use autoshrink::AutoShrink;
pub use evolution::{EvolutionConfig, RegularisedEvolution};
pub use gram::{ClassCredit, GramConfig, GramConfigError, GramSearch};
pub use history::{Evaluated, History};
pub use local_search::LocalSearch;
pub use random::RandomSearch;

/// A search of a [`Domain`].
///
/// The caller alternates: [`DomainStrategy::ask`], evaluate all the points, [`DomainStrategy::tell`] their scores in the same order.
pub trait DomainStrategy: Send {
    /// The name in reports and on the command line.
    fn name(&self) -> &'static str;

    /// Up to `n` feasible points of as many classes, none of them asked for before. None at all means that no new one was found in a
    /// bounded number of tries: the domain is as good as exhausted.
    fn ask(&mut self, n: usize, domain: &dyn Domain) -> Vec<Point>;

    /// Scores of the points of the last round, higher is better; `None` for those that diverged. Scores that are missing count as diverged.
    fn tell(&mut self, scores: &[Option<f64>], domain: &dyn Domain);
}

/// Random points without anything new before a strategy takes the domain for exhausted.
const MAX_STALE_DRAWS: usize = 2_000;

/// A strategy's randomness: one stream for each round of asking and of telling.
#[derive(Clone, Debug)]
struct Streams {
    seed: u64,
    round: usize,
}

impl Streams {
    fn new(seed: u64) -> Self {
        Self { seed, round: 0 }
    }

    /// The stream of the next round.
    fn next(&mut self) -> ChaCha8Rng {
        self.round += 1;
        try_stream(self.seed, self.round, 0)
    }
}

/// A random point of a class that neither `history` nor `round` has.
fn new_random(domain: &dyn Domain, history: &History, round: &Round, rng: &mut ChaCha8Rng) -> Option<Point> {
    for _ in 0..MAX_STALE_DRAWS {
        let point = domain.random(rng)?;
        let class = domain.class_of(&point);
        if !history.contains(&class) && !round.contains(&class) {
            return Some(point);
        }
    }
    None
}

/// The points of a round and their classes.
#[derive(Clone, Debug, Default)]
struct Round {
    points: Vec<Point>,
    classes: Vec<crate::domain::ClassKey>,
}

impl Round {
    fn contains(&self, class: &crate::domain::ClassKey) -> bool {
        self.classes.contains(class)
    }

    fn push(&mut self, point: Point, domain: &dyn Domain) {
        self.classes.push(domain.class_of(&point));
        self.points.push(point);
    }

    fn len(&self) -> usize {
        self.points.len()
    }
}

#[cfg(test)]
mod tests;
