//! Random search: the baseline that GRAM must beat.

use gram_meta::MetaGraph;

use super::draw::{Fitted, Tilt, draw_round, probe_prior};
use crate::{AskError, Context, Lesson, Prior, Proposal, Pruned, Strategy, TellError};

/// Draws every child from the initial meta-graph, whatever the scores are: GRAM without its learning.
#[derive(Clone, Debug)]
pub struct RandomStrategy {
    prior: MetaGraph,
    /// Where limits are very tight.
    tilt: Option<Tilt>,
}

impl RandomStrategy {
    /// Draws from this meta-graph.
    pub fn new(prior: MetaGraph) -> Self {
        Self { prior, tilt: None }
    }
}

impl Strategy for RandomStrategy {
    fn name(&self) -> &'static str {
        "random"
    }

    fn start(&mut self, context: &Context<'_>) -> Result<Option<Prior>, AskError> {
        let Fitted { meta, tilt, prior } = probe_prior(&self.prior, context)?;
        self.prior = meta;
        self.tilt = tilt;
        Ok(Some(prior))
    }

    fn ask(&mut self, n_new: usize, context: &Context<'_>) -> Result<Vec<Proposal>, AskError> {
        Ok(draw_round(&|_| &self.prior, self.tilt.as_ref(), n_new, context)?
            .into_iter()
            .map(|(_, proposal)| proposal)
            .collect())
    }

    fn tell(&mut self, _scores: &[Option<f64>], _pruned: &Pruned<'_>) -> Result<Option<Lesson>, TellError> {
        Ok(None)
    }

    fn meta_graph(&self) -> Option<&MetaGraph> {
        None
    }
}
