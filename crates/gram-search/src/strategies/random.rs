//! Random search.

use crate::domain::{Domain, Point};

use super::{DomainStrategy, History, Round, Streams, new_random};

/// Draws points at random, each class once.
#[derive(Clone, Debug)]
pub struct RandomSearch {
    streams: Streams,
    history: History,
    asked: Round,
}

impl RandomSearch {
    /// A search with this seed.
    pub fn new(seed: u64) -> Self {
        Self { streams: Streams::new(seed), history: History::default(), asked: Round::default() }
    }
}

impl DomainStrategy for RandomSearch {
    fn name(&self) -> &'static str {
        "random"
    }

    fn ask(&mut self, n: usize, domain: &dyn Domain) -> Vec<Point> {
        let mut rng = self.streams.next();
        self.asked = Round::default();
        while self.asked.len() < n
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
