//! GRAM: children are drawn from the meta-graph, which every round teaches.

use gram_ir::CanonicalKey;
use gram_meta::{Child, ConvergenceTest, MetaGraph, temper};

use super::draw::{Fitted, Tilt, draw_round, probe_prior};
use crate::{AskError, Context, Lesson, Prior, Proposal, Pruned, Strategy, TellError};

/// Graph propagation as meta-knowledge: sampler A, tempered weights, propagation.
///
/// A round may hold repeats: draws are independent, and a child that is drawn twice counts twice with its frozen score, as the rule's
/// weights want it.
///
/// # Source
/// arXiv:1906.08305 for the idea; ALGORITHMS 1.5 for the rules \[ours\].
#[derive(Clone, Debug)]
pub struct GramStrategy {
    meta: MetaGraph,
    /// Where limits are very tight.
    tilt: Option<Tilt>,
    /// The round that was asked for and not told yet.
    asked: Vec<Child>,
    beta: Option<f64>,
    convergence: ConvergenceTest<CanonicalKey>,
}

impl GramStrategy {
    /// Starts from a meta-graph.
    pub fn new(meta: MetaGraph) -> Self {
        let convergence = ConvergenceTest::new(&meta);
        Self { meta, tilt: None, asked: Vec::new(), beta: None, convergence }
    }
}

impl Strategy for GramStrategy {
    fn name(&self) -> &'static str {
        "gram"
    }

    fn start(&mut self, context: &Context<'_>) -> Result<Option<Prior>, AskError> {
        let Fitted { meta, tilt, prior } = probe_prior(&self.meta, context)?;
        self.convergence = ConvergenceTest::new(&meta);
        self.meta = meta;
        self.tilt = tilt;
        Ok(Some(prior))
    }

    fn ask(&mut self, n_new: usize, context: &Context<'_>) -> Result<Vec<Proposal>, AskError> {
        let (children, proposals) = draw_round(&self.meta, self.tilt.as_ref(), n_new, context)?.into_iter().unzip();
        self.asked = children;
        Ok(proposals)
    }

    fn tell(&mut self, scores: &[Option<f64>], pruned: &Pruned<'_>) -> Result<Option<Lesson>, TellError> {
        let children = std::mem::take(&mut self.asked);
        if children.len() != scores.len() {
            return Err(TellError::Count { expected: children.len(), got: scores.len() });
        }
        // One score compares nothing: it would draw every edge of its child near, however low it is.
        let unscored = vec![None; scores.len()];
        let scores = if scores.iter().flatten().count() < 2 { &unscored } else { scores };
        let tempered = temper(scores, self.beta, self.meta.config());
        let weighted = children.iter().zip(tempered.weights.iter().copied());
        let max_change = self.meta.propagate(weighted)?;
        self.beta = Some(tempered.beta);
        let state = self.convergence.observe(&self.meta, max_change, pruned(&self.meta));
        Ok(Some(Lesson {
            beta: tempered.beta,
            ess: tempered.ess,
            max_change,
            change_average: state.change_average,
            entropy_bits: state.entropy_bits,
            unchanged_rounds: state.unchanged_rounds,
            converged: state.converged,
        }))
    }

    fn meta_graph(&self) -> Option<&MetaGraph> {
        Some(&self.meta)
    }
}
