//! Sampler G: exact random-scan Gibbs.

use rand::{Rng, RngExt};

use super::conditional::Conditional;
use super::{ChainError, ChainState, Target};
use crate::Child;
use crate::sample::draw_index;

/// A chain that draws one coordinate anew per move, from its exact law given all others: sampler G of ALGORITHMS 1.5.
///
/// Scores come from the caller's function. They must be *frozen*: the same child always has the same score, as if read off a table. Then
/// the chain is exact for that table; with scores that differ from visit to visit it would not be. A move asks for at most one score for
/// an edge, and for one less than the menu is long for an operator; none where the coordinate does not enter the child. Children whose
/// score is not finite count as infeasible.
///
/// # Example
/// ```
/// # use gram_ir::{Activation, CellOp, CellOutput, Downsample, Head, Space, StageSpace};
/// # use gram_meta::{Child, ChainState, GibbsChain, MetaConfig, MetaGraph, Target};
/// # use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// # let output = CellOutput { project: Some(8), residual: false, linear_leaves: false, activation: false };
/// # let stage = StageSpace::new(6, 8, Downsample::None, output);
/// # let space = Space {
/// #     name: "tiny".into(), activation: Activation::Relu, max_in_degree: 4, operators: vec![CellOp::Conv1x1],
/// #     node_operators: Default::default(), image_sizes: vec![], channel_multiple: 1, stem: vec![], stages: vec![stage],
/// #     head: Head::default(),
/// # };
/// let meta = MetaGraph::new(&space, MetaConfig::default(), 7)?;
/// let target = Target::new(&meta, 20.0, &|_| true)?;
/// let mut score = |child: &Child| 1.0 / child.stages()[0].n_edges() as f64;
/// let mut rng = ChaCha8Rng::seed_from_u64(7);
/// let mut chain = GibbsChain::new(&target, ChainState::draw(&meta, &mut rng, &|_| true)?, &mut score)?;
/// for _ in 0..1000 {
///     chain.step(&target, &mut score, &mut rng)?;
/// }
/// assert!(chain.score() > 0.1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct GibbsChain {
    state: ChainState,
    score: f64,
    buffer: Conditional,
}

impl GibbsChain {
    /// Starts a chain, asking for the score of its child.
    ///
    /// # Errors
    /// [`ChainError`] if the state is not of the target's meta-graph or not feasible, or its score is not finite.
    pub fn new(
        target: &Target<'_>,
        state: ChainState,
        score_of: &mut dyn FnMut(&Child) -> f64,
    ) -> Result<Self, ChainError> {
        target.check(&state)?;
        let score = score_of(state.child());
        if !score.is_finite() {
            return Err(ChainError::Score { score });
        }
        Ok(Self { state, score, buffer: Conditional::default() })
    }

    /// Chooses a coordinate uniformly and draws it anew; whether the state changed.
    ///
    /// The prior and β may differ from move to move, the feasible set may not.
    ///
    /// # Errors
    /// [`ChainError::Foreign`] if the chain is not of the target's meta-graph.
    /// # Complexity
    /// One step per node of one stage, one call of the caller's rule and one of `score_of`, per option that is not the present one.
    pub fn step(
        &mut self,
        target: &Target<'_>,
        score_of: &mut dyn FnMut(&Child) -> f64,
        rng: &mut impl Rng,
    ) -> Result<bool, ChainError> {
        target.meta.check_child(self.state.child())?;
        Ok(gibbs_move(target, &mut self.state, &mut self.score, score_of, &mut self.buffer, rng))
    }

    /// Where the chain stands.
    pub fn state(&self) -> &ChainState {
        &self.state
    }

    /// The canonical child of where the chain stands.
    pub fn child(&self) -> &Child {
        self.state.child()
    }

    /// The child's score.
    pub fn score(&self) -> f64 {
        self.score
    }
}

/// One random-scan move of `state`, whose child has `score`; whether it changed.
pub(super) fn gibbs_move(
    target: &Target<'_>,
    state: &mut ChainState,
    score: &mut f64,
    score_of: &mut dyn FnMut(&Child) -> f64,
    buffer: &mut Conditional,
    rng: &mut impl Rng,
) -> bool {
    let site = target.meta.site(rng.random_range(0..target.meta.n_sites()));
    let site = site.expect("invariant: every number below n_sites is a site");
    let before = state.option(site);
    buffer.compute(target, state, site, *score, score_of);
    let option = draw_index(&buffer.probabilities, rng);
    state.set(target.meta, site, option);
    *score = buffer.scores[option];
    option != before
}
