//! Sampler D: delayed acceptance with a surrogate.

use rand::{Rng, RngExt};

use super::conditional::Conditional;
use super::gibbs::gibbs_move;
use super::{ChainError, ChainState, Target};
use crate::Child;

/// A chain that walks against a cheap surrogate `Ŝ` and asks for one true score per step: sampler D of ALGORITHMS 1.5.
///
/// [`DelayedChain::propose`] makes a number of random-scan Gibbs moves for scores `Ŝ` and returns where they end;
/// [`DelayedChain::resolve`] takes the true score of that child and accepts it with probability
/// `min{1, exp(β·[(S(g') − Ŝ(g')) − (S(g) − Ŝ(g))])}`. As the inner moves are reversible for `p_w·exp(β·Ŝ)`, the step is reversible for the
/// target with the true scores, whatever the surrogate is; a bad one merely costs acceptance. Between the two calls the child may be
/// trained, next to those of other chains.
///
/// True scores must be frozen, as for [`GibbsChain`](crate::GibbsChain). The surrogate may be another one in every step, but refitting it
/// to the chain's own past makes the chain adaptive: exact in the limit in which the surrogate settles.
///
/// # Source
/// ALGORITHMS 1.5 \[ours\]; delayed acceptance: Christen and Fox, Journal of Computational and Graphical Statistics 14 (2005).
#[derive(Clone, Debug)]
pub struct DelayedChain {
    state: ChainState,
    score: f64,
    proposal: Option<Proposal>,
    buffer: Conditional,
}

#[derive(Clone, Debug)]
struct Proposal {
    state: ChainState,
    beta: f64,
    /// `Ŝ(g') − Ŝ(g)`.
    surrogate_gain: f64,
    /// Logarithm of the uniform number that decides: drawn now, so that answers may come in any order.
    log_uniform: f64,
}

impl DelayedChain {
    /// Starts a chain at a feasible state whose child has this true score.
    ///
    /// # Errors
    /// [`ChainError`] if the state is not of the target's meta-graph or not feasible, or the score is not finite.
    pub fn new(target: &Target<'_>, state: ChainState, score: f64) -> Result<Self, ChainError> {
        target.check(&state)?;
        if !score.is_finite() {
            return Err(ChainError::Score { score });
        }
        Ok(Self { state, score, proposal: None, buffer: Conditional::default() })
    }

    /// Makes `n_moves` moves against the surrogate (see [`MetaGraph::inner_moves`](crate::MetaGraph::inner_moves)) and returns the child
    /// whose true score is wanted. A proposal that is still open is dropped, which must not depend on its score.
    ///
    /// The child may be the chain's own; its score is known then, but is to be told all the same.
    ///
    /// # Errors
    /// [`ChainError`] if the chain is not of the target's meta-graph, or the surrogate is not finite for the chain's own child.
    /// # Complexity
    /// `n_moves` moves, each of one step per node of a stage and one call of the caller's rule and the surrogate.
    pub fn propose(
        &mut self,
        target: &Target<'_>,
        n_moves: usize,
        surrogate: &mut dyn FnMut(&Child) -> f64,
        rng: &mut impl Rng,
    ) -> Result<&Child, ChainError> {
        target.meta.check_child(self.state.child())?;
        let before = surrogate(self.state.child());
        if !before.is_finite() {
            return Err(ChainError::Score { score: before });
        }
        let mut state = self.state.clone();
        let mut after = before;
        for _ in 0..n_moves {
            gibbs_move(target, &mut state, &mut after, surrogate, &mut self.buffer, rng);
        }
        let log_uniform = rng.random::<f64>().ln();
        let proposal = Proposal { state, beta: target.beta, surrogate_gain: after - before, log_uniform };
        Ok(self.proposal.insert(proposal).state.child())
    }

    /// The open proposal's child.
    pub fn proposal(&self) -> Option<&Child> {
        self.proposal.as_ref().map(|proposal| proposal.state.child())
    }

    /// Takes the true score of the proposed child and moves there or stays; whether it moved. A score that is not finite (training
    /// diverged) counts as infeasible.
    ///
    /// # Errors
    /// [`ChainError::NoProposal`] if none is open.
    pub fn resolve(&mut self, score: f64) -> Result<bool, ChainError> {
        let proposal = self.proposal.take().ok_or(ChainError::NoProposal)?;
        let log_ratio = log_acceptance(proposal.beta, score - self.score, proposal.surrogate_gain);
        let accepted = score.is_finite() && proposal.log_uniform < log_ratio;
        if accepted {
            self.state = proposal.state;
            self.score = score;
        }
        Ok(accepted)
    }

    /// Where the chain stands.
    pub fn state(&self) -> &ChainState {
        &self.state
    }

    /// The canonical child of where the chain stands.
    pub fn child(&self) -> &Child {
        self.state.child()
    }

    /// The child's true score.
    pub fn score(&self) -> f64 {
        self.score
    }
}

/// Logarithm of the ratio with which a step is accepted, if it is below 0; for the gains of true score and surrogate.
pub(super) fn log_acceptance(beta: f64, gain: f64, surrogate_gain: f64) -> f64 {
    beta * (gain - surrogate_gain)
}
