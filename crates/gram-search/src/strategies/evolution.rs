//! Regularised evolution.

use std::collections::VecDeque;

use rand::seq::{IndexedRandom, index};
use rand_chacha::ChaCha8Rng;

use crate::domain::{Domain, Point};

use super::{DomainStrategy, History, Round, Streams, new_random};

/// Settings of [`RegularisedEvolution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvolutionConfig {
    /// Children that are alive; the oldest dies first.
    pub population: usize,
    /// Children of which the best is the parent.
    pub tournament: usize,
}

impl Default for EvolutionConfig {
    /// Our choice: the best of eleven settings (populations of 5 to 50) on NAS-Bench-Macro and enas-dag over 200 seeds. With the paper's
    /// population of 100, hardly a step would be made within 100 evaluations.
    fn default() -> Self {
        Self { population: 10, tournament: 10 }
    }
}

/// A random neighbour of the best of a random tournament; the oldest child dies.
///
/// A child whose class was evaluated earlier joins the population with that score for nothing.
/// # Source
/// Real et al., [arXiv:1802.01548](https://arxiv.org/abs/1802.01548).
#[derive(Clone, Debug)]
pub struct RegularisedEvolution {
    config: EvolutionConfig,
    streams: Streams,
    history: History,
    asked: Round,
    population: VecDeque<(Point, f64)>,
}

/// Known children that join the population in a row before a random one is asked for instead.
const MAX_KNOWN_CHILDREN: usize = 200;

impl RegularisedEvolution {
    /// A search with this seed.
    pub fn new(seed: u64, config: EvolutionConfig) -> Self {
        let (history, asked) = (History::default(), Round::default());
        Self { config, streams: Streams::new(seed), history, asked, population: VecDeque::new() }
    }

    /// A child that was not evaluated; known ones age the population on the way.
    fn breed(&mut self, domain: &dyn Domain, rng: &mut ChaCha8Rng) -> Option<Point> {
        for _ in 0..MAX_KNOWN_CHILDREN {
            let n_contestants = self.config.tournament.max(1).min(self.population.len());
            let contestants = index::sample(rng, self.population.len(), n_contestants);
            let contestants = contestants.into_iter().map(|contestant| &self.population[contestant]);
            let (parent, _) = contestants.max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.cmp(&a.0)))?;
            let child = self.mutate(&parent.clone(), domain, rng)?;
            match self.history.score_of(&child, domain) {
                Some(score) => self.join(child, score),
                None if !self.asked.contains(&domain.class_of(&child)) => return Some(child),
                None => {}
            }
        }
        None
    }

    /// One edit of one member of the class.
    fn mutate(&self, parent: &Point, domain: &dyn Domain, rng: &mut ChaCha8Rng) -> Option<Point> {
        domain.neighbours(parent).choose(rng).cloned()
    }

    fn join(&mut self, child: Point, score: f64) {
        self.population.push_back((child, score));
        while self.population.len() > self.config.population.max(1) {
            self.population.pop_front();
        }
    }
}

impl DomainStrategy for RegularisedEvolution {
    fn name(&self) -> &'static str {
        "evolution"
    }

    fn ask(&mut self, n: usize, domain: &dyn Domain) -> Vec<Point> {
        let mut rng = self.streams.next();
        self.asked = Round::default();
        while self.asked.len() < n {
            let is_founding = self.history.entries().len() + self.asked.len() < self.config.population;
            let child = if is_founding { None } else { self.breed(domain, &mut rng) };
            let Some(child) = child.or_else(|| new_random(domain, &self.history, &self.asked, &mut rng)) else { break };
            self.asked.push(child, domain);
        }
        self.asked.points.clone()
    }

    fn tell(&mut self, scores: &[Option<f64>], _domain: &dyn Domain) {
        let n_before = self.history.entries().len();
        self.history.extend(std::mem::take(&mut self.asked), scores);
        for index in n_before..self.history.entries().len() {
            let told = &self.history.entries()[index];
            let (point, score) = (told.point.clone(), told.score);
            if let Some(score) = score {
                self.join(point, score);
            }
        }
    }
}
