//! GRAM's search: moves around the best children, screened by a surrogate, and draws from a meta-graph.

mod config;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use gram_meta::{MetaConfig, temper};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::domain::{ClassKey, DecisionWeights, Domain, Point};
use crate::surrogate::{Features, KernelRidge, Prediction, Surrogate};

use super::{DomainStrategy, History, Round, Streams, new_random};

pub use config::{ClassCredit, GramConfig, GramConfigError};

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
    asked: Vec<Point>,
    surrogate: Box<dyn Surrogate>,
    /// Features of classes that were screened; only of the present round's, so that memory stays bounded.
    known_features: BTreeMap<ClassKey, Features>,
    meta: Meta,
    beta: Option<f64>,
    /// Entries of the history that the meta-graph was taught.
    n_taught: usize,
}

/// Where draws come from.
enum Meta {
    /// Weights of the domain's decisions, which the search teaches; none before the first round.
    Own(Option<DecisionWeights>),
    /// [`Domain::random`]: whoever owns the domain teaches its meta-graph.
    Domain,
}

/// Draws from the meta-graph before a weighted choice among random points is made instead.
const MAX_META_DRAWS: usize = 20;

/// Random points of that choice.
const POOL: usize = 16;

impl GramSearch {
    /// A search with this seed and a [`KernelRidge`].
    pub fn new(seed: u64, config: GramConfig) -> Self {
        let surrogate = KernelRidge::new(config.surrogate.clone());
        Self::with_surrogate(seed, config, Box::new(surrogate))
    }

    /// A search with this seed and a surrogate without examples.
    pub fn with_surrogate(seed: u64, config: GramConfig, surrogate: Box<dyn Surrogate>) -> Self {
        Self {
            config,
            streams: Streams::new(seed),
            history: History::default(),
            asked: Vec::new(),
            surrogate,
            known_features: BTreeMap::new(),
            meta: Meta::Own(None),
            beta: None,
            n_taught: 0,
        }
    }

    /// A search of a domain that has a meta-graph behind [`Domain::random`], which the caller teaches between rounds.
    pub fn of_meta_graph(seed: u64, config: GramConfig) -> Self {
        Self { meta: Meta::Domain, ..Self::new(seed, config) }
    }

    /// What was learnt about the decisions; `None` before the first round, and where the domain has a meta-graph of its own.
    pub fn weights(&self) -> Option<&DecisionWeights> {
        match &self.meta {
            Meta::Own(weights) => weights.as_ref(),
            Meta::Domain => None,
        }
    }

    /// Whether there are enough children for the surrogate to choose the next ones.
    pub fn is_founded(&self) -> bool {
        self.history.entries().len() >= self.config.founders
    }

    /// Learns scores of points, whoever proposed them: the first children of a study come from elsewhere.
    pub fn learn(&mut self, points: impl IntoIterator<Item = Point>, scores: &[Option<f64>], domain: &dyn Domain) {
        let mut round = Round::default();
        points.into_iter().for_each(|point| round.push(point, domain));
        let n_before = self.history.entries().len();
        self.history.extend(round, scores);
        for entry in &self.history.entries()[n_before..] {
            self.surrogate.observe(Features::of(&entry.point, domain));
        }
        self.teach(domain);
    }

    /// Proposals of the chains: new neighbours of the best children, best children first.
    fn proposals(&self, domain: &dyn Domain) -> BTreeMap<ClassKey, Point> {
        let mut found = BTreeMap::new();
        for (rank, index) in self.history.ranked().into_iter().enumerate() {
            if rank >= self.config.starts && found.len() >= self.config.proposals {
                break;
            }
            for point in domain.neighbours(&self.history.entries()[index].point) {
                self.offer(&mut found, point, domain);
            }
        }
        found
    }

    /// Adds a feasible point if its class was neither evaluated nor proposed.
    fn offer(&self, proposals: &mut BTreeMap<ClassKey, Point>, point: Point, domain: &dyn Domain) {
        let class = domain.class_of(&point);
        if !self.history.contains(&class) {
            proposals.entry(class).or_insert(point);
        }
    }

    /// Adds moves of two edits from the best children. Where a hard limit binds, an edit that costs more is feasible only together with one that
    /// saves, and the saving one alone makes a child worse.
    fn add_pairs(&self, proposals: &mut BTreeMap<ClassKey, Point>, domain: &dyn Domain, rng: &mut ChaCha8Rng) {
        let decisions = domain.decisions();
        let n_pairs = if decisions.is_empty() { 0 } else { self.config.pairs };
        let edited = |point: Point, rng: &mut ChaCha8Rng| {
            let decision = rng.random_range(0..decisions.len());
            point.with(decision, rng.random_range(0..decisions[decision].n_values()))
        };
        for index in self.history.ranked().into_iter().take(self.config.starts) {
            for _ in 0..n_pairs {
                let once = edited(self.history.entries()[index].point.clone(), rng);
                let twice = edited(once, rng);
                if domain.is_feasible(&twice) {
                    self.offer(proposals, twice, domain);
                }
            }
        }
    }

    /// Adds proposals from all over the domain, so that screening is not bound to what is near.
    fn add_draws(&self, proposals: &mut BTreeMap<ClassKey, Point>, domain: &dyn Domain, rng: &mut ChaCha8Rng) {
        for _ in 0..self.config.draws {
            let drawn = self.weights().map(|weights| weights.draw(rng)).filter(|point| domain.is_feasible(point));
            if let Some(point) = drawn.or_else(|| domain.random(rng)) {
                self.offer(proposals, point, domain);
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

    /// The class among `left` that the surrogate likes best; of equals the first. Takes it, and what the round has already, out of `left`.
    ///
    /// What was believed since a merit was computed can only have lowered it, so only those in front are computed again.
    fn screen(&self, left: &mut BinaryHeap<Ranked>, round: &Round) -> Option<ClassKey> {
        while let Some(Ranked { class: Reverse(class), at, .. }) = left.pop() {
            if round.contains(&class) {
                continue;
            }
            if at == round.len() {
                return Some(class);
            }
            left.push(self.rank(class, round.len()));
        }
        None
    }

    /// A proposal's merit when the round has `at` points.
    fn rank(&self, class: ClassKey, at: usize) -> Ranked {
        let Prediction { mean, sd } = self.surrogate.predict(&self.known_features[&class]);
        Ranked { merit: mean + self.config.optimism * sd, class: Reverse(class), at }
    }

    /// A new point drawn from the meta-graph; where its draws are infeasible or known, one of several random points, by weight.
    fn explore(&self, domain: &dyn Domain, round: &Round, rng: &mut ChaCha8Rng) -> Option<Point> {
        let Some(weights) = self.weights() else { return new_random(domain, &self.history, round, rng) };
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
        let Meta::Own(Some(weights)) = &mut self.meta else { return };
        let meta = MetaConfig::default();
        while self.history.entries().len() - self.n_taught >= self.config.lesson.max(2) {
            let lesson = &self.history.entries()[self.n_taught..][..self.config.lesson.max(2)];
            let scores: Vec<Option<f64>> = lesson.iter().map(|entry| entry.score).collect();
            let tempered = temper(&scores, self.beta, &meta);
            self.beta = Some(tempered.beta);
            let mut shares: Vec<(Point, f64)> = Vec::new();
            for (entry, share) in lesson.iter().zip(tempered.weights) {
                let members = match self.config.credit {
                    ClassCredit::Members => domain.members(&entry.point),
                    ClassCredit::Own => vec![entry.point.clone()],
                    ClassCredit::Nothing => Vec::new(),
                };
                let part = share / members.len().max(1) as f64;
                shares.extend(members.into_iter().map(|member| (member, part)));
            }
            weights.propagate(
                shares.iter().map(|(point, share)| (point, *share)),
                self.config.eta,
                self.config.epsilon,
                self.config.roles,
            );
            self.n_taught += self.config.lesson.max(2);
        }
    }
}

/// A proposal, by merit.
struct Ranked {
    merit: f64,
    class: Reverse<ClassKey>,
    /// Points of the round when the merit was computed.
    at: usize,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.merit.total_cmp(&other.merit).then(self.class.cmp(&other.class))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl DomainStrategy for GramSearch {
    fn name(&self) -> &'static str {
        "gram"
    }

    fn ask(&mut self, n: usize, domain: &dyn Domain) -> Vec<Point> {
        let mut rng = self.streams.next();
        if let Meta::Own(weights) = &mut self.meta {
            weights.get_or_insert_with(|| DecisionWeights::uniform(domain.decisions()));
        }
        let mut round = Round::default();
        let is_founded = self.is_founded() && self.refit();
        let mut proposals = BTreeMap::new();
        if is_founded {
            proposals = self.proposals(domain);
            self.add_pairs(&mut proposals, domain, &mut rng);
            self.add_draws(&mut proposals, domain, &mut rng);
        }
        self.known_features = proposals
            .iter()
            .map(|(class, point)| {
                (*class, self.known_features.remove(class).unwrap_or_else(|| Features::of(point, domain)))
            })
            .collect();
        let mut left: BinaryHeap<Ranked> = proposals.keys().map(|&class| self.rank(class, 0)).collect();
        while round.len() < n {
            let explores = rng.random_bool(self.config.exploration.clamp(0.0, 1.0));
            let class = if explores { None } else { self.screen(&mut left, &round) };
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
        self.asked = round.points;
        self.asked.clone()
    }

    fn tell(&mut self, scores: &[Option<f64>], domain: &dyn Domain) {
        let asked = std::mem::take(&mut self.asked);
        self.learn(asked, scores, domain);
    }
}
