//! Markov chains over children: the exact Gibbs sampler G and the delayed-acceptance sampler D of ALGORITHMS 1.5.

mod conditional;
mod delayed;
mod gibbs;
mod site;
mod state;

#[cfg(test)]
mod tests;

pub use delayed::DelayedChain;
pub use gibbs::GibbsChain;
pub use site::Site;
pub use state::ChainState;

use crate::{Child, MetaGraph, MetaGraphError};

/// What a chain's law is, but for the scores: `π(g) ∝ p_w(g)·exp(β·S(c(g)))` on the feasible set.
///
/// `g` has a bit for *every* pair `i < j` of each stage, edges out of dead nodes included, and an operator for every node where operators
/// are searched; `p_w` is the meta-graph's prior on it. `c(g)` is the canonical [`Child`]: what is left without edges out of dead nodes
/// and operators of dead nodes. Feasible means the same as for [`MetaGraph::sample`], all of it about `c(g)`: two or more live operator
/// nodes per stage, no live node with more in-edges from live nodes than the space's maximum, and the caller's rule.
///
/// # Source
/// ALGORITHMS 1.5 \[ours\]; Gibbs sampling of children is the paper's (arXiv:1906.08305).
#[derive(Clone, Copy)]
pub struct Target<'a> {
    meta: &'a MetaGraph,
    beta: f64,
    accept: &'a dyn Fn(&Child) -> bool,
}

impl<'a> Target<'a> {
    /// The law with the prior of `meta`, inverse temperature `beta`, and the caller's rule `accept` (hard limits on exact costs, say),
    /// which must always answer alike for the same child.
    ///
    /// # Errors
    /// [`ChainError::Beta`] if `beta` is negative or not finite.
    pub fn new(meta: &'a MetaGraph, beta: f64, accept: &'a dyn Fn(&Child) -> bool) -> Result<Self, ChainError> {
        if beta.is_finite() && beta >= 0.0 { Ok(Self { meta, beta, accept }) } else { Err(ChainError::Beta { beta }) }
    }

    /// The prior.
    pub fn meta(&self) -> &'a MetaGraph {
        self.meta
    }

    /// Inverse temperature β.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// Whether the child is in the feasible set.
    pub fn allows(&self, child: &Child) -> bool {
        self.meta.is_feasible(child) && (self.accept)(child)
    }

    fn check(&self, state: &ChainState) -> Result<(), ChainError> {
        self.meta.check_child(state.child())?;
        if self.allows(state.child()) { Ok(()) } else { Err(ChainError::Infeasible) }
    }
}

/// Why a chain cannot move.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No inverse temperature.
    #[error("beta is {beta}; it must be 0 or more and finite")]
    Beta {
        /// What was given.
        beta: f64,
    },
    /// The chain's state is not of this meta-graph.
    #[error(transparent)]
    Foreign(#[from] MetaGraphError),
    /// The chain stands outside of the feasible set.
    #[error(
        "the chain's child is not feasible: a chain must start from a feasible child, and the rule must not change under it"
    )]
    Infeasible,
    /// The chain's own child has no score.
    #[error("the chain's child has score {score}; it must be finite")]
    Score {
        /// What it has.
        score: f64,
    },
    /// An answer without a question.
    #[error("there is no proposal to resolve")]
    NoProposal,
}
