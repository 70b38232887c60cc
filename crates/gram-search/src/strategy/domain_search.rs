//! Strategies of [`crate::strategies`] on a study's children.

use gram_meta::MetaGraph;

use super::draw::{Fitted, Tilt, probe_prior};
use crate::cell_domain::CellDomain;
use crate::domain::Point;
use crate::strategies::DomainStrategy;
use crate::{AskError, Context, Lesson, Prior, Proposal, Pruned, Strategy, TellError};

/// A strategy of a search domain, on children that are trained.
///
/// Its random children come from the same prior as those of the other strategies, fitted to the limits in the same way.
pub struct DomainSearch {
    inner: Box<dyn DomainStrategy>,
    prior: MetaGraph,
    /// Where limits are very tight.
    tilt: Option<Tilt>,
    /// There from the first round on.
    domain: Option<CellDomain>,
    n_asked: usize,
}

impl DomainSearch {
    /// Runs `inner` on the children of a meta-graph.
    pub fn new(prior: MetaGraph, inner: Box<dyn DomainStrategy>) -> Self {
        Self { inner, prior, tilt: None, domain: None, n_asked: 0 }
    }
}

impl Strategy for DomainSearch {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn start(&mut self, context: &Context<'_>) -> Result<Option<Prior>, AskError> {
        let Fitted { meta, tilt, prior } = probe_prior(&self.prior, context)?;
        self.prior = meta;
        self.tilt = tilt;
        Ok(Some(prior))
    }

    fn ask(&mut self, n_new: usize, context: &Context<'_>) -> Result<Vec<Proposal>, AskError> {
        let domain = match self.domain.take() {
            Some(domain) => domain,
            None => CellDomain::new(self.prior.clone(), self.tilt.clone(), &context.gate)?,
        };
        let domain = self.domain.insert(domain);
        let proposals = proposals(&self.inner.ask(n_new, domain), domain, context)?;
        self.n_asked = proposals.len();
        Ok(proposals)
    }

    fn tell(&mut self, scores: &[Option<f64>], _pruned: &Pruned<'_>) -> Result<Option<Lesson>, TellError> {
        if scores.len() != self.n_asked {
            return Err(TellError::Count { expected: self.n_asked, got: scores.len() });
        }
        self.n_asked = 0;
        if let Some(domain) = &self.domain {
            self.inner.tell(scores, domain);
        }
        Ok(None)
    }

    fn meta_graph(&self) -> Option<&MetaGraph> {
        None
    }
}

/// What a domain's points propose to the study.
pub(super) fn proposals(
    points: &[Point],
    domain: &CellDomain,
    context: &Context<'_>,
) -> Result<Vec<Proposal>, AskError> {
    let proposal = |point: &Point| {
        if context.is_interrupted() {
            return Err(AskError::Interrupted);
        }
        let candidate = context.admit(domain.meta().blueprint(&domain.child(point))?)?;
        let is_seen = (context.is_seen)(&candidate.graph);
        Ok(if is_seen { Proposal::Repeat(candidate.graph) } else { Proposal::New(Box::new(candidate)) })
    };
    points.iter().map(proposal).collect()
}
