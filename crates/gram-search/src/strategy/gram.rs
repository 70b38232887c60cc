//! GRAM: a meta-graph that every round teaches, and children that a surrogate picks around the best ones and out of its draws.

use gram_ir::CanonicalKey;
use gram_meta::{Child, ConvergenceTest, MetaGraph, Settled, WarmTrial, temper};

use super::domain_search::proposals;
use super::draw::{Fitted, Tilt, draw_round, probe_prior};
use crate::cell_domain::CellDomain;
use crate::strategies::{DomainStrategy, GramConfig, GramSearch};
use crate::{AskError, Context, Lesson, Prior, Proposal, Pruned, Strategy, TellError, WarmOutcome};

/// Graph propagation as meta-knowledge: a meta-graph, tempered weights, propagation; see [`Sampler`](crate::Sampler) for where children
/// come from.
///
/// A round of draws may hold repeats: draws are independent, and a child that is drawn twice counts twice with its frozen score, as the
/// rule's weights want it. Screened rounds hold new children only.
///
/// # Source
/// arXiv:1906.08305 for the idea; ALGORITHMS 1.5 for the rules \[ours\].
/// # Departs from ALGORITHMS 1.5
/// Screened children are chosen, not drawn, and are yet propagated like draws: weights lean further towards what scored well than the law
/// says.
pub struct GramStrategy {
    meta: MetaGraph,
    warm: Option<Warm>,
    /// Where limits are very tight.
    tilt: Option<Tilt>,
    screen: Option<Screen>,
    /// The round that was asked for and not told yet.
    asked: Vec<Child>,
    /// Children since the last lesson, with their scores.
    untaught: Vec<(Child, Option<f64>)>,
    beta: Option<f64>,
    convergence: ConvergenceTest<CanonicalKey>,
}

/// A warm start before and during the first lesson, which settles it.
enum Warm {
    /// An earlier study's meta-graph and the share of its evidence, ρ.
    Source(MetaGraph, f64),
    Trial(WarmTrial),
}

/// The search that picks children, and the domain that it moves in; that is there from the first round on.
struct Screen {
    search: GramSearch,
    domain: Option<CellDomain>,
}

impl GramStrategy {
    /// Draws every child from the meta-graph, by sampler A.
    pub fn ancestral(meta: MetaGraph) -> Self {
        let convergence = ConvergenceTest::new(&meta);
        Self {
            meta,
            warm: None,
            tilt: None,
            screen: None,
            asked: Vec::new(),
            untaught: Vec::new(),
            beta: None,
            convergence,
        }
    }

    /// Draws the first children from the meta-graph and lets a [`GramSearch`] with this seed pick the others; see [`GramConfig::for_study`].
    pub fn screened(meta: MetaGraph, seed: u64, n_children: usize) -> Self {
        let search = GramSearch::of_meta_graph(seed, GramConfig::for_study(n_children));
        Self { screen: Some(Screen { search, domain: None }), ..Self::ancestral(meta) }
    }

    /// Puts an earlier study's meta-graph on trial for the first lesson; see [`WarmTrial`].
    #[must_use]
    pub fn warm(self, source: MetaGraph, rho: f64) -> Self {
        Self { warm: Some(Warm::Source(source, rho)), ..self }
    }

    /// Ends the trial with the scores of the first lesson. What the other prior drew teaches nothing: its scores are taken away.
    fn settle(&mut self, scores: &mut [Option<f64>]) -> Option<WarmOutcome> {
        let Some(Warm::Trial(trial)) = self.warm.take() else { return None };
        let Settled { meta, is_warm, mean_warm, mean_cold } = trial.settle(scores);
        for (k, score) in scores.iter_mut().enumerate() {
            *score = score.filter(|_| WarmTrial::is_warm(k) == is_warm);
        }
        self.convergence = ConvergenceTest::new(&meta);
        self.meta = meta;
        Some(WarmOutcome { is_warm, mean_warm, mean_cold })
    }

    /// Propagates all children since the last lesson.
    fn teach(&mut self, pruned: &Pruned<'_>) -> Result<Lesson, TellError> {
        let (children, mut scores): (Vec<Child>, Vec<_>) = std::mem::take(&mut self.untaught).into_iter().unzip();
        let warm_start = self.settle(&mut scores);
        // One score compares nothing: it would draw every edge of its child near, however low it is.
        if scores.iter().flatten().count() < 2 {
            scores.fill(None);
        }
        let tempered = temper(&scores, self.beta, self.meta.config());
        let max_change = self.meta.propagate(children.iter().zip(tempered.weights.iter().copied()))?;
        self.beta = Some(tempered.beta);
        if let Some(Screen { domain: Some(domain), .. }) = &mut self.screen {
            domain.teach(self.meta.clone());
        }
        let state = self.convergence.observe(&self.meta, max_change, pruned(&self.meta));
        Ok(Lesson {
            beta: tempered.beta,
            ess: tempered.ess,
            max_change,
            change_average: state.change_average,
            entropy_bits: state.entropy_bits,
            unchanged_rounds: state.unchanged_rounds,
            converged: state.converged,
            warm_start,
        })
    }
}

impl Strategy for GramStrategy {
    fn name(&self) -> &'static str {
        "gram"
    }

    fn start(&mut self, context: &Context<'_>) -> Result<Option<Prior>, AskError> {
        let Fitted { meta, tilt, prior } = probe_prior(&self.meta, context)?;
        if let Some(Warm::Source(source, rho)) = self.warm.take() {
            self.warm = Some(Warm::Trial(WarmTrial::new(meta.clone(), &source, rho)?));
        }
        self.convergence = ConvergenceTest::new(&meta);
        self.meta = meta;
        self.tilt = tilt;
        Ok(Some(prior))
    }

    fn ask(&mut self, n_new: usize, context: &Context<'_>) -> Result<Vec<Proposal>, AskError> {
        if let Some(Screen { search, domain }) = &mut self.screen {
            let domain = match domain.take() {
                Some(known) => domain.insert(known),
                None => domain.insert(CellDomain::new(self.meta.clone(), self.tilt.clone(), &context.gate)?),
            };
            if search.is_founded() && self.warm.is_none() {
                let points = search.ask(n_new, domain);
                let proposals = proposals(&points, domain, context)?;
                self.asked = points.iter().map(|point| domain.child(point)).collect();
                return Ok(proposals);
            }
        }
        let prior = |k: usize| match &self.warm {
            Some(Warm::Trial(trial)) => trial.prior(self.untaught.len() + k),
            _ => &self.meta,
        };
        let (children, proposals) = draw_round(&prior, self.tilt.as_ref(), n_new, context)?.into_iter().unzip();
        self.asked = children;
        Ok(proposals)
    }

    fn tell(&mut self, scores: &[Option<f64>], pruned: &Pruned<'_>) -> Result<Option<Lesson>, TellError> {
        let children = std::mem::take(&mut self.asked);
        if children.len() != scores.len() {
            return Err(TellError::Count { expected: children.len(), got: scores.len() });
        }
        if let Some(Screen { search, domain: Some(domain) }) = &mut self.screen {
            search.learn(children.iter().map(|child| domain.point(child)), scores, domain);
        }
        self.untaught.extend(children.into_iter().zip(scores.iter().copied()));
        if self.untaught.len() < self.meta.config().children_per_lesson {
            Ok(None)
        } else {
            self.teach(pruned).map(Some)
        }
    }

    fn finish(&mut self, pruned: &Pruned<'_>) -> Result<(), TellError> {
        if self.untaught.is_empty() { Ok(()) } else { self.teach(pruned).map(drop) }
    }

    fn meta_graph(&self) -> Option<&MetaGraph> {
        Some(&self.meta)
    }
}
