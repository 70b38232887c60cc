//! Drawing rounds from a meta-graph.

use std::cell::RefCell;
use std::collections::BTreeSet;

use gram_meta::{Child, MetaGraph, SampleError};

use crate::streams::probe_stream;
use crate::{AskError, Candidate, Context, Prior, Proposal};

/// A round may draw so many children for each new one that it is asked for …
pub const TRIES_PER_NEW_CHILD: usize = 32;
/// … and so many in any case, so that a short last round does not give up early.
const LEAST_TRIES: usize = 512;

/// Draws children until `n_new` of them are new to the study, at most [`TRIES_PER_NEW_CHILD`]`·n_new` or 512 in all.
///
/// Each try has its own random stream. A sampler that finds no feasible child ends the round; if it had no child before, that is the error.
pub(crate) fn draw_round(
    meta: &MetaGraph,
    n_new: usize,
    context: &Context<'_>,
) -> Result<Vec<(Child, Proposal)>, AskError> {
    let mut drawn: Vec<(Child, Proposal)> = Vec::new();
    let mut in_round = BTreeSet::new();
    for attempt in 0..n_new.saturating_mul(TRIES_PER_NEW_CHILD).max(LEAST_TRIES) {
        if in_round.len() == n_new {
            break;
        }
        let (child, candidate) = match draw_child(meta, attempt, context) {
            Ok(found) => found,
            Err(AskError::Sample(SampleError::Refused { .. })) if !drawn.is_empty() => break,
            Err(error) => return Err(error),
        };
        let known = (context.is_seen)(&candidate.graph) || !in_round.insert(candidate.graph.clone());
        let proposal = if known { Proposal::Repeat(candidate.graph) } else { Proposal::New(Box::new(candidate)) };
        drawn.push((child, proposal));
    }
    Ok(drawn)
}

/// One child of the prior restricted to the feasible set, limits included.
fn draw_child(meta: &MetaGraph, attempt: usize, context: &Context<'_>) -> Result<(Child, Candidate), AskError> {
    // What the accepted child looks like, or why the sampler must not go on.
    let found: RefCell<Option<Result<Candidate, AskError>>> = RefCell::new(None);
    let accept = |child: &Child| {
        if context.is_interrupted() {
            found.replace(Some(Err(AskError::Interrupted)));
            return true;
        }
        match meta.cells(child) {
            Ok(cells) => context.admit(cells).is_ok_and(|candidate| {
                found.replace(Some(Ok(candidate)));
                true
            }),
            Err(error) => {
                found.replace(Some(Err(error.into())));
                true
            }
        }
    };
    let child = meta.sample(&mut context.rng(attempt), &accept)?;
    let candidate = found.into_inner().expect("an accepted child left its candidate")?;
    Ok((child, candidate))
}

/// Structures drawn per factor.
const PROBES: usize = 200;
/// A prior whose children keep the limits at least so often is taken.
const LEAST_ACCEPTANCE: f64 = 0.05;
/// Factors that are tried, in this order.
const FACTORS: [f64; 9] = [1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.06, 0.0];

/// Thins the initial weights until one in twenty of the prior's children keeps the limits, so that sampling by rejection stays quick.
///
/// Tight limits are met by small children, which the usual prior hardly ever draws. The first factor of 1, 0.7, 0.5, … that reaches
/// the share is taken, else the best one.
///
/// # Errors
/// [`AskError::Prior`] if no factor gives a single child within the limits.
/// # Source
/// \[ours\]; the paper's text says nothing about limits during sampling.
pub fn probe_prior(meta: &MetaGraph, context: &Context<'_>) -> Result<(MetaGraph, Prior), AskError> {
    if *context.gate.limits == gram_ir::Limits::default() {
        return Ok((meta.clone(), Prior { factor: 1.0, acceptance: 1.0 }));
    }
    let mut best: Option<(MetaGraph, Prior)> = None;
    for factor in FACTORS {
        let mut thinned = meta.clone();
        thinned.thin(factor);
        let prior = Prior { factor, acceptance: acceptance(&thinned, context)? };
        let is_better = best.as_ref().is_none_or(|(_, least)| prior.acceptance > least.acceptance);
        if is_better {
            best = Some((thinned, prior));
        }
        if prior.acceptance >= LEAST_ACCEPTANCE {
            break;
        }
    }
    best.filter(|(_, prior)| prior.acceptance > 0.0).ok_or(AskError::Prior { tries: PROBES * FACTORS.len() })
}

fn acceptance(meta: &MetaGraph, context: &Context<'_>) -> Result<f64, AskError> {
    let mut kept = 0_usize;
    for attempt in 0..PROBES {
        if context.is_interrupted() {
            return Err(AskError::Interrupted);
        }
        let child = meta.sample(&mut probe_stream(context.seed, attempt), &|_| true)?;
        kept += usize::from(context.gate.check(&meta.cells(&child)?).is_ok());
    }
    Ok(kept as f64 / PROBES as f64)
}
