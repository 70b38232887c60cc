//! Local search with restarts.

use rand::seq::SliceRandom;

use crate::domain::{Domain, Point};

use super::{DomainStrategy, History, Round, Streams, new_random};

/// Hill climbing: neighbours of the incumbent in random order; the first better one becomes the incumbent; a random restart where none is.
///
/// Neighbours whose class was evaluated earlier are judged by that score for nothing.
/// # Source
/// White, Nolen and Savani, Exploring the Loss Landscape in Neural Architecture Search, [arXiv:2005.02960](https://arxiv.org/abs/2005.02960);
/// the first improvement is taken rather than the best of all neighbours, which would cost a whole neighbourhood a step.
#[derive(Clone, Debug)]
pub struct LocalSearch {
    streams: Streams,
    history: History,
    asked: Round,
    incumbent: Option<(Point, f64)>,
    /// Neighbours of the incumbent that were not tried yet; the last comes next.
    untried: Vec<Point>,
}

impl LocalSearch {
    /// A search with this seed.
    pub fn new(seed: u64) -> Self {
        let streams = Streams::new(seed);
        Self { streams, history: History::default(), asked: Round::default(), incumbent: None, untried: Vec::new() }
    }

    /// Moves to better neighbours that are known already, until only neighbours without a score are left to try.
    fn skip_known(&mut self, domain: &dyn Domain) {
        let Some((_, mut best)) = self.incumbent else { return };
        while let Some(score) = self.untried.last().and_then(|point| self.history.score_of(point, domain)) {
            let Some(point) = self.untried.pop() else { return };
            if score > best {
                best = score;
                self.climb(point, score, domain);
            }
        }
    }

    fn climb(&mut self, point: Point, score: f64, domain: &dyn Domain) {
        self.untried = domain.neighbours(&point);
        self.untried.shuffle(&mut self.streams.next());
        self.incumbent = Some((point, score));
    }
}

impl DomainStrategy for LocalSearch {
    fn name(&self) -> &'static str {
        "local"
    }

    fn ask(&mut self, n: usize, domain: &dyn Domain) -> Vec<Point> {
        self.asked = Round::default();
        self.skip_known(domain);
        while self.asked.len() < n
            && let Some(point) = self.untried.pop()
        {
            let class = domain.class_of(&point);
            // One that is known is tried only here, behind an unknown one: when its turn comes it may be the better one.
            if let Some(score) = self.history.score_of(&point, domain) {
                if self.incumbent.as_ref().is_some_and(|(_, best)| score > *best) {
                    self.untried.push(point);
                    break;
                }
            } else if !self.asked.contains(&class) {
                self.asked.push(point, domain);
            }
        }
        if self.asked.len() == 0 {
            self.incumbent = None;
            let mut rng = self.streams.next();
            while self.asked.len() < n
                && let Some(point) = new_random(domain, &self.history, &self.asked, &mut rng)
            {
                self.asked.push(point, domain);
            }
        }
        self.asked.points.clone()
    }

    fn tell(&mut self, scores: &[Option<f64>], domain: &dyn Domain) {
        let n_before = self.history.entries().len();
        self.history.extend(std::mem::take(&mut self.asked), scores);
        let mut best: Option<(Point, f64)> = None;
        for told in &self.history.entries()[n_before..] {
            let bar = best.as_ref().or(self.incumbent.as_ref()).map_or(f64::NEG_INFINITY, |(_, score)| *score);
            if let Some(score) = told.score.filter(|&score| score > bar) {
                best = Some((told.point.clone(), score));
            }
        }
        if let Some((point, score)) = best {
            self.climb(point, score, domain);
        }
    }
}
