//! GRAM's search: moves around the best children, screened by a surrogate, and draws from a meta-graph.

use std::collections::BTreeMap;

use gram_meta::{MetaConfig, temper};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::domain::{ClassKey, DecisionWeights, Domain, Point};
use crate::surrogate::{Features, KernelRidge, KernelRidgeConfig, Prediction, Surrogate};

use super::{DomainStrategy, History, Round, Streams, new_random};

/// Settings of [`GramSearch`].
///
/// The defaults are ours. Founders, exploration, proposals, draws and optimism were compared on NAS-Bench-Macro and enas-dag; the others are
/// those of ALGORITHMS 1.5.
#[derive(Clone, Debug, PartialEq)]
pub struct GramConfig {
    /// Evaluations before the surrogate is asked.
    pub founders: usize,
    /// Share of the proposals that are drawn from the meta-graph.
    pub exploration: f64,
    /// Chains start at this many of the best children at least.
    pub starts: usize,
    /// Chains start at more children until there are this many proposals to screen.
    pub proposals: usize,
    /// Further proposals, drawn from the meta-graph.
    pub draws: usize,
    /// Proposals are ranked by mean + `optimism` · sd.
    pub optimism: f64,
    /// Children of a lesson to the meta-graph.
    pub lesson: usize,
    /// Step of propagation, η.
    pub eta: f64,
    /// Smallest weight of a value, as a share of a uniform weight, ε.
    pub epsilon: f64,
}

impl Default for GramConfig {
    fn default() -> Self {
        Self {
            founders: 5,
            exploration: 0.05,
            starts: 3,
            proposals: 100,
            draws: 300,
            optimism: 1.0,
            lesson: 16,
            eta: 0.2,
            epsilon: 0.02,
        }
    }
}

/// Sampler D with a screen: chains start at good children, move by one edit of one member of their class, and the surrogate picks the
/// moves worth an evaluation. A share of the children is drawn from the meta-graph instead, which every lesson of children teaches.
///
/// # Source
/// arXiv:1906.08305 for the idea of a meta-graph; ALGORITHMS 1.5 for propagation, tempering and surrogate chains \[ours\].
/// # Differs from the paper
/// With few evaluations the best of the screened moves is taken, not a draw: the chain is used as an optimiser, and its stationary law is not
/// claimed. A batch believes its own predictions (see [`Surrogate::believe`]).
pub struct GramSearch {
    config: GramConfig,
    streams: Streams,
    history: History,
    asked: Round,
    surrogate: Box<dyn Surrogate>,
    /// Features of classes that were screened; only of the present round's, so that memory stays bounded.
    known_features: BTreeMap<ClassKey, Features>,
    weights: Option<DecisionWeights>,
    beta: Option<f64>,
    /// Entries of the history that the meta-graph was taught.
    n_taught: usize,
}

/// Draws from the meta-graph before a weighted choice among random points is made instead.
const MAX_META_DRAWS: usize = 20;

/// Random points of that choice.
const POOL: usize = 16;

impl GramSearch {
    /// A search with this seed and a [`KernelRidge`].
    pub fn new(seed: u64, config: GramConfig) -> Self {
        Self::with_surrogate(seed, config, Box::new(KernelRidge::new(KernelRidgeConfig::default())))
    }

    /// A search with this seed and a surrogate without examples.
    pub fn with_surrogate(seed: u64, config: GramConfig, surrogate: Box<dyn Surrogate>) -> Self {
        Self {
            config,
            streams: Streams::new(seed),
            history: History::default(),
            asked: Round::default(),
            surrogate,
            known_features: BTreeMap::new(),
            weights: None,
            beta: None,
            n_taught: 0,
        }
    }

    /// What was learnt about the decisions; `None` before the first round.
    pub fn weights(&self) -> Option<&DecisionWeights> {
        self.weights.as_ref()
    }

    /// Proposals of the chains: new neighbours of the best children, best children first.
    fn proposals(&self, domain: &dyn Domain) -> BTreeMap<ClassKey, Point> {
        let mut found = BTreeMap::new();
        for (rank, index) in self.history.ranked().into_iter().enumerate() {
            if rank >= self.config.starts && found.len() >= self.config.proposals {
                break;
            }
            for point in domain.neighbours(&self.history.entries()[index].point) {
                let class = domain.class_of(&point);
                if !self.history.contains(&class) {
                    found.entry(class).or_insert(point);
                }
            }
        }
        found
    }

    /// Adds proposals from all over the domain, so that screening is not bound to what is near.
    fn add_draws(&self, proposals: &mut BTreeMap<ClassKey, Point>, domain: &dyn Domain, rng: &mut ChaCha8Rng) {
        let Some(weights) = &self.weights else { return };
        for _ in 0..self.config.draws {
            let drawn = Some(weights.draw(rng)).filter(|point| domain.is_feasible(point));
            if let Some(point) = drawn.or_else(|| domain.random(rng)) {
                let class = domain.class_of(&point);
                if !self.history.contains(&class) {
                    proposals.entry(class).or_insert(point);
                }
            }
        }
    }

    /// Fits the surrogate to all scores; a child that diverged counts as the worst.
    fn refit(&mut self) -> bool {
        let scores = self.history.entries().iter().map(|entry| entry.score);
        let Some(worst) = scores.clone().flatten().min_by(f64::total_cmp) else { return false };
        let scores: Vec<f64> = scores.map(|score| score.unwrap_or(worst)).collect();
        self.surrogate.fit(&scores).is_ok()
    }

    /// The proposal that the surrogate likes best; of equals the first class.
    fn screen(&self, proposals: &BTreeMap<ClassKey, Point>, round: &Round) -> Option<ClassKey> {
        let mut best: Option<(f64, ClassKey)> = None;
        for class in proposals.keys().filter(|class| !round.contains(class)) {
            let Some(features) = self.known_features.get(class) else { continue };
            let Prediction { mean, sd } = self.surrogate.predict(features);
            let merit = mean + self.config.optimism * sd;
            if best.is_none_or(|(most, _)| merit > most) {
                best = Some((merit, *class));
            }
        }
        best.map(|(_, class)| class)
    }

    /// A new point drawn from the meta-graph; where its draws are infeasible or known, one of several random points, by weight.
    fn explore(&self, domain: &dyn Domain, round: &Round, rng: &mut ChaCha8Rng) -> Option<Point> {
        let Some(weights) = &self.weights else { return new_random(domain, &self.history, round, rng) };
        for _ in 0..MAX_META_DRAWS {
            let point = weights.draw(rng);
            if domain.is_feasible(&point) {
                let class = domain.class_of(&point);
                if !self.history.contains(&class) && !round.contains(&class) {
                    return Some(point);
                }
            }
        }
        let pool: Vec<Point> = (0..POOL).map_while(|_| new_random(domain, &self.history, round, rng)).collect();
        weights.choose(&pool, rng).cloned()
    }

    /// Teaches the meta-graph the children that it was not taught yet, once they make a lesson.
    fn teach(&mut self, domain: &dyn Domain) {
        let Some(weights) = &mut self.weights else { return };
        let meta = MetaConfig::default();
        while self.history.entries().len() - self.n_taught >= self.config.lesson.max(2) {
            let lesson = &self.history.entries()[self.n_taught..][..self.config.lesson.max(2)];
            let scores: Vec<Option<f64>> = lesson.iter().map(|entry| entry.score).collect();
            let tempered = temper(&scores, self.beta, &meta);
            self.beta = Some(tempered.beta);
            let mut shares: Vec<(Point, f64)> = Vec::new();
            for (entry, share) in lesson.iter().zip(tempered.weights) {
                let members = domain.members(&entry.point);
                let part = share / members.len().max(1) as f64;
                shares.extend(members.into_iter().map(|member| (member, part)));
            }
            weights.propagate(
                shares.iter().map(|(point, share)| (point, *share)),
                self.config.eta,
                self.config.epsilon,
            );
            self.n_taught += self.config.lesson.max(2);
        }
    }
}

impl DomainStrategy for GramSearch {
    fn name(&self) -> &'static str {
        "gram"
    }

    fn ask(&mut self, n: usize, domain: &dyn Domain) -> Vec<Point> {
        let mut rng = self.streams.next();
        self.weights.get_or_insert_with(|| DecisionWeights::uniform(domain.decisions()));
        let mut round = Round::default();
        let is_founded = self.history.entries().len() >= self.config.founders && self.refit();
        let mut proposals = BTreeMap::new();
        if is_founded {
            proposals = self.proposals(domain);
            self.add_draws(&mut proposals, domain, &mut rng);
        }
        self.known_features = proposals
            .iter()
            .map(|(class, point)| {
                (*class, self.known_features.remove(class).unwrap_or_else(|| Features::of(point, domain)))
            })
            .collect();
        while round.len() < n {
            let explores = rng.random_bool(self.config.exploration.clamp(0.0, 1.0));
            let class = if explores { None } else { self.screen(&proposals, &round) };
            let point = match class {
                Some(class) => {
                    if let Some(features) = self.known_features.get(&class).filter(|_| round.len() + 1 < n) {
                        self.surrogate.believe(features);
                    }
                    proposals.get(&class).cloned()
                }
                None if is_founded => self.explore(domain, &round, &mut rng),
                None => new_random(domain, &self.history, &round, &mut rng),
            };
            let Some(point) = point else { break };
            round.push(point, domain);
        }
        self.asked = round;
        self.asked.points.clone()
    }

    fn tell(&mut self, scores: &[Option<f64>], domain: &dyn Domain) {
        let n_before = self.history.entries().len();
        self.history.extend(std::mem::take(&mut self.asked), scores);
        for entry in &self.history.entries()[n_before..] {
            self.surrogate.observe(Features::of(&entry.point, domain));
        }
        self.teach(domain);
    }
}
