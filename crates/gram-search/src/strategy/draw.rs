//! Drawing rounds from a meta-graph.

use std::cell::RefCell;
use std::collections::BTreeSet;

use gram_ir::{Blueprint, Cell};
use gram_meta::{Child, MetaGraph, MetaStage, SampleError, StageEdges, Tilted};
use rand_chacha::ChaCha8Rng;

use crate::preflight::{Extremes, LeastSeen, small};
use crate::streams::probe_stream;
use crate::{AskError, Candidate, Context, LatencyModel, Prior, Proposal};

/// A round may draw so many children for each new one that it is asked for …
pub const TRIES_PER_NEW_CHILD: usize = 32;
/// … and so many in any case, so that a short last round does not give up early.
const LEAST_TRIES: usize = 512;

/// Draws children until `n_new` of them are new to the study, at most [`TRIES_PER_NEW_CHILD`]`·n_new` or 512 in all.
///
/// Child number `k` of the round comes from `prior(k)`. Each try has its own random stream. A sampler that finds no feasible child ends the round; if it had no child before, that is the error.
pub(crate) fn draw_round<'m>(
    prior: &dyn Fn(usize) -> &'m MetaGraph,
    tilt: Option<&Tilt>,
    n_new: usize,
    context: &Context<'_>,
) -> Result<Vec<(Child, Proposal)>, AskError> {
    let mut drawn: Vec<(Child, Proposal)> = Vec::new();
    let mut in_round = BTreeSet::new();
    for attempt in 0..n_new.saturating_mul(TRIES_PER_NEW_CHILD).max(LEAST_TRIES) {
        if in_round.len() == n_new {
            break;
        }
        let meta = prior(drawn.len());
        let (child, candidate) = match draw_child(meta, &Source::new(meta, tilt)?, attempt, context) {
            Ok(found) => found,
            Err(AskError::Sample(_)) if !drawn.is_empty() => break,
            Err(error) => return Err(error),
        };
        let known = (context.is_seen)(&candidate.graph) || !in_round.insert(candidate.graph.clone());
        let proposal = if known { Proposal::Repeat(candidate.graph) } else { Proposal::New(Box::new(candidate)) };
        drawn.push((child, proposal));
    }
    Ok(drawn)
}

/// One child of the prior restricted to the feasible set, limits included.
fn draw_child(
    meta: &MetaGraph,
    source: &Source<'_>,
    attempt: usize,
    context: &Context<'_>,
) -> Result<(Child, Candidate), AskError> {
    // What the accepted child looks like, or why the sampler must not go on.
    let found: RefCell<Option<Result<Candidate, AskError>>> = RefCell::new(None);
    let accept = |child: &Child| {
        if context.is_interrupted() {
            found.replace(Some(Err(AskError::Interrupted)));
            return true;
        }
        match meta.blueprint(child) {
            Ok(blueprint) => context.admit(blueprint).is_ok_and(|candidate| {
                found.replace(Some(Ok(candidate)));
                true
            }),
            Err(error) => {
                found.replace(Some(Err(error.into())));
                true
            }
        }
    };
    let child = source.sample(&mut context.rng(attempt), &accept)?;
    let candidate = found.into_inner().expect("an accepted child left its candidate")?;
    Ok((child, candidate))
}

/// Structures drawn per factor and per share.
const PROBES: usize = 200;
/// A prior whose children keep the limits at least so often is taken.
const LEAST_ACCEPTANCE: f64 = 0.05;
/// A thinned prior whose children keep the limits less often is no use: a few hits may be luck, and each child takes hundreds of draws.
const RARE: f64 = 0.01;
/// Factors that are tried, in this order.
const FACTORS: [f64; 9] = [1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.06, 0.0];
/// Shares of the witness that are tried, in this order, if no factor gives enough children within the limits. The last one draws nothing else.
const SHARES: [f64; 8] = [0.5, 0.7, 0.8, 0.9, 0.97, 0.99, 0.999, 1.0];

/// An initial meta-graph that was fitted to a study's limits.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The meta-graph to start from.
    pub meta: MetaGraph,
    /// How draws from it lean towards a child that keeps the limits, in every round; none where thinning was enough.
    pub tilt: Option<Tilt>,
    /// What was done, for the journal.
    pub prior: Prior,
}

/// Leaning of draws towards one child.
#[derive(Clone, Debug, PartialEq)]
pub struct Tilt {
    /// A child that keeps the limits.
    pub witness: Child,
    /// Its share, above 0 and at most 1; see [`MetaGraph::tilted`].
    pub share: f64,
}

/// Fits the initial weights to the limits, so that sampling by rejection stays quick.
///
/// Tight limits are met by small children, which the usual prior hardly ever draws. The weights are thinned until one in twenty of the
/// prior's children keeps the limits: the first factor of 1, 0.7, 0.5, … that reaches the share is taken, else the best one.
///
/// If hardly any of the thinned priors' children keep the limits (under one in a hundred, or none in the first draw of a study), the
/// thinnest one is tilted towards the witness, the cheapest child by which [`preflight`](crate::preflight()) proves that the limits can be
/// met: the first share of 0.5, 0.7, … that gives one in twenty is taken. Where preflight has no witness, the best thinned prior must do.
/// The last share, 1, draws the witness itself. The tilt applies to draws alone, in every round anew: the meta-graph's own weights stay in
/// `[ε, 1 − ε]`, where ε would be far too much for such limits. Propagation takes tilted draws as they are, so the witness' edges gain
/// weight whatever they score.
///
/// # Errors
/// [`AskError::Prior`] if neither the thinned priors nor preflight's search gives a single child within the limits.
/// # Source
/// \[ours\]; the paper's text says nothing about limits during sampling.
pub fn probe_prior(meta: &MetaGraph, context: &Context<'_>) -> Result<Fitted, AskError> {
    if *context.gate.limits == gram_ir::Limits::default() && context.gate.latency.is_none() {
        return Ok(Fitted {
            meta: meta.clone(),
            tilt: None,
            prior: Prior { factor: 1.0, acceptance: 1.0, tilt: None },
        });
    }
    let best = thinned(meta, context)?;
    if let Some(best) = &best
        && (best.prior.acceptance >= LEAST_ACCEPTANCE
            || (best.prior.acceptance >= RARE && gives_a_child(&best.meta, context)?))
    {
        return Ok(best.clone());
    }
    match (tilted(meta, context), best) {
        (Err(AskError::Prior { .. }), Some(best)) if gives_a_child(&best.meta, context)? => Ok(best),
        (tilted, _) => tilted,
    }
}

/// The thinned prior whose children keep the limits most often; none if no probe did, whatever the factor.
fn thinned(meta: &MetaGraph, context: &Context<'_>) -> Result<Option<Fitted>, AskError> {
    let mut best: Option<Fitted> = None;
    for factor in FACTORS {
        let mut thinned = meta.clone();
        thinned.thin(factor);
        let acceptance = acceptance(&thinned, None, context)?;
        if acceptance > best.as_ref().map_or(0.0, |best| best.prior.acceptance) {
            best = Some(Fitted { meta: thinned, tilt: None, prior: Prior { factor, acceptance, tilt: None } });
        }
        if acceptance >= LEAST_ACCEPTANCE {
            break;
        }
    }
    Ok(best)
}

/// Whether the first draw of the first round finds a child: that is the draw that a study cannot do without.
fn gives_a_child(meta: &MetaGraph, context: &Context<'_>) -> Result<bool, AskError> {
    match draw_child(meta, &Source::Prior(meta), 0, context) {
        Ok(_) => Ok(true),
        Err(AskError::Sample(SampleError::Refused { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A cell in the meta-graph's numbering as a child keeps it.
fn stage_edges(stage: &MetaStage, cell: &Cell) -> StageEdges {
    let edges = StageEdges::new(stage.n_nodes(), cell.edges());
    if stage.op_weights().is_none() {
        return edges;
    }
    edges.with_ops(|node| cell.op(node).expect("invariant: a live node of the cell has an operator"))
}

/// The thinnest prior tilted towards preflight's witness.
fn tilted(meta: &MetaGraph, context: &Context<'_>) -> Result<Fitted, AskError> {
    let Extremes { least_macs, least_params, witness, cheapest, .. } = Extremes::find(meta, &context.gate)?;
    let refused = || -> Result<AskError, AskError> {
        let gate = &context.gate;
        let model = gate.latency.map(|limit| limit.model.as_ref() as &dyn LatencyModel);
        let LeastSeen { peak_bytes, latency_ms } = small(meta, gate, model, &cheapest, context.seed)?;
        Ok(AskError::Prior {
            tries: PROBES * FACTORS.len(),
            least_macs: least_macs.macs,
            least_params: least_params.params,
            least_peak_bytes: peak_bytes.filter(|_| gate.limits.max_peak_bytes.is_some()),
            least_latency_ms: latency_ms,
        })
    };
    let Some(Blueprint { layout, cells }) = witness else { return Err(refused()?) };
    let stages = meta.stages().iter().zip(&cells);
    let witness = Child::new(stages.map(|(stage, cell)| stage_edges(stage, cell)).collect()).with_layout(layout);
    let factor = 0.0;
    let mut thinnest = meta.clone();
    thinnest.thin(factor);
    for share in SHARES {
        let tilt = Tilt { witness: witness.clone(), share };
        let acceptance = acceptance(&thinnest, Some(&tilt), context)?;
        if acceptance >= LEAST_ACCEPTANCE {
            let prior = Prior { factor, acceptance, tilt: Some(share) };
            return Ok(Fitted { meta: thinnest, tilt: Some(tilt), prior });
        }
    }
    Err(refused()?)
}

fn acceptance(meta: &MetaGraph, tilt: Option<&Tilt>, context: &Context<'_>) -> Result<f64, AskError> {
    let source = Source::new(meta, tilt)?;
    let mut kept = 0_usize;
    for attempt in 0..PROBES {
        if context.is_interrupted() {
            return Err(AskError::Interrupted);
        }
        let child = source.sample(&mut probe_stream(context.seed, attempt), &|_| true)?;
        kept += usize::from(context.gate.check(&meta.blueprint(&child)?).is_ok());
    }
    Ok(kept as f64 / PROBES as f64)
}

/// What children are drawn from.
enum Source<'a> {
    Prior(&'a MetaGraph),
    Tilted(Tilted),
}

impl<'a> Source<'a> {
    fn new(meta: &'a MetaGraph, tilt: Option<&Tilt>) -> Result<Self, AskError> {
        Ok(match tilt {
            None => Self::Prior(meta),
            Some(tilt) => Self::Tilted(meta.tilted(&tilt.witness, tilt.share)?),
        })
    }

    fn sample(&self, rng: &mut ChaCha8Rng, accept: &dyn Fn(&Child) -> bool) -> Result<Child, SampleError> {
        match self {
            Self::Prior(meta) => meta.sample(rng, accept),
            Self::Tilted(tilted) => tilted.sample(rng, accept),
        }
    }
}
