//! The full conditional law of one coordinate: what both samplers are made of.

use gram_ir::CellNodeId;

use super::state::position;
use super::{ChainState, Site, Target};
use crate::Child;

/// The options of one coordinate with their probabilities given all others, and the scores that the child has with each.
///
/// A buffer to be used again: a move does not allocate.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditional {
    pub(super) probabilities: Vec<f64>,
    pub(super) scores: Vec<f64>,
}

impl Conditional {
    /// Computes the law of `site` given the rest of `state`, whose child has `score`.
    ///
    /// Option `o` has probability ∝ `p_w(o)·exp(β·S_o)` if it is feasible and has a finite score, else 0. For an edge that is
    /// `σ(logit w + β·ΔS)` where both options are feasible; the present option always is. A site that does not enter the child has the
    /// prior's law, and no score is asked for.
    ///
    /// Leaves `state` with any of the options: give it one afterwards.
    pub(super) fn compute(
        &mut self,
        target: &Target<'_>,
        state: &mut ChainState,
        site: Site,
        score: f64,
        score_of: &mut dyn FnMut(&Child) -> f64,
    ) {
        self.probabilities.clear();
        prior(target, site, &mut self.probabilities);
        self.scores.clear();
        self.scores.resize(self.probabilities.len(), score);
        if !state.is_live(site) {
            return;
        }
        let current = state.option(site);
        for option in (0..self.scores.len()).filter(|&option| option != current) {
            state.set(target.meta, site, option);
            self.scores[option] =
                if target.allows(state.child()) { score_of(state.child()) } else { f64::NEG_INFINITY };
        }
        self.temper(target.beta);
    }

    /// Multiplies the probabilities with `exp(β·S)`; options without a finite score get 0.
    fn temper(&mut self, beta: f64) {
        let finite = || self.scores.iter().copied().filter(|score| score.is_finite());
        let most = finite().fold(f64::NEG_INFINITY, f64::max);
        let mut total = 0.0;
        for (probability, &score) in self.probabilities.iter_mut().zip(&self.scores) {
            *probability *= if score.is_finite() { (beta * (score - most)).exp() } else { 0.0 };
            total += *probability;
        }
        self.probabilities.iter_mut().for_each(|probability| *probability /= total);
    }
}

/// The prior's law of a coordinate.
fn prior(target: &Target<'_>, site: Site, law: &mut Vec<f64>) {
    match site {
        Site::Edge { stage, from, to } => {
            let weight = target.meta.stages[stage].weights.values()[position(from, to)];
            law.extend([1.0 - weight, weight]);
        }
        Site::Op { stage, node } => {
            law.extend_from_slice(of_node(target, stage, node));
        }
        Site::Layout { dimension } => law.extend_from_slice(target.meta.layout[dimension].weights()),
    }
}

fn of_node<'a>(target: &Target<'a>, stage: usize, node: CellNodeId) -> &'a [f64] {
    target.meta.stages[stage].op_weights.as_ref().and_then(|weights| weights.of(node)).unwrap_or_default()
}
