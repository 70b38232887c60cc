//! Pruning a meta-graph in every layout that it believes in.

use gram_ir::{Limits, Shape, Space};
use gram_meta::MetaGraph;
use gram_prune::{Candidate, MAX_FRONT, PrunableStage, PruneError, Pruned};

/// Layouts that are pruned: the likeliest ones.
const MAX_LAYOUTS: usize = 16;

/// Prunes a meta-graph to limits in each of its likeliest layouts, and joins what they leave.
///
/// To a network's retained weight its layout's is added: the logarithm of how much likelier the layout is than it would be if all were alike.
///
/// # Errors
/// [`PruneError`] as for [`gram_prune::prune`]; limits and images that do not suit one layout are an error only where they suit none.
pub(crate) fn prune(
    space: &Space,
    input: Shape,
    num_classes: usize,
    meta: &MetaGraph,
    limits: &Limits,
) -> Result<Pruned, PruneError> {
    let stages: Vec<PrunableStage<'_>> =
        meta.stages().iter().map(|stage| PrunableStage { ops: stage.ops(), weights: stage.weights() }).collect();
    let n_layouts: f64 = meta.layout().iter().map(|dimension| dimension.weights().len() as f64).product();
    let (mut kept, mut refused) = (Vec::new(), None);
    for (layout, probability) in meta.likeliest_layouts(MAX_LAYOUTS) {
        let (plain, input) = space.plain(&layout, input);
        match gram_prune::prune(&plain, input, num_classes, &stages, limits) {
            Ok(mut pruned) => {
                let gain = (probability * n_layouts).ln();
                let all = pruned.front.iter_mut().chain([&mut pruned.best]);
                all.for_each(|candidate| candidate.retained_weight += gain);
                kept.push(pruned);
            }
            Err(error @ (PruneError::LimitsUnmeetable { .. } | PruneError::Lower(_))) => {
                refused = Some(refused.map_or_else(|| error.clone(), |other| nearer(other, error.clone())));
            }
            Err(error) => return Err(error),
        }
    }
    match (kept.into_iter().reduce(joined), refused) {
        (Some(pruned), _) => Ok(pruned),
        (None, Some(error)) => Err(error),
        (None, None) => unreachable!("invariant: a meta-graph has a likeliest layout"),
    }
}

/// Of two refusals the one that says more: the smallest costs of both.
fn nearer(a: PruneError, b: PruneError) -> PruneError {
    use PruneError::LimitsUnmeetable as Unmeetable;
    match (a, b) {
        (
            Unmeetable { limits, smallest_macs, smallest_params },
            Unmeetable { smallest_macs: macs, smallest_params: params, .. },
        ) => {
            Unmeetable { limits, smallest_macs: smallest_macs.min(macs), smallest_params: smallest_params.min(params) }
        }
        (PruneError::Lower(_), other) | (other, _) => other,
    }
}

/// What no network of either front beats.
fn joined(a: Pruned, b: Pruned) -> Pruned {
    let mut all: Vec<Candidate> = a.front.into_iter().chain(b.front).collect();
    let order = |a: &Candidate, b: &Candidate| {
        let costs = |candidate: &Candidate| (candidate.cost.macs, candidate.cost.params);
        b.retained_weight.total_cmp(&a.retained_weight).then_with(|| costs(a).cmp(&costs(b)))
    };
    all.sort_by(order);
    let mut front: Vec<Candidate> = Vec::new();
    for candidate in all {
        let beaten = |by: &Candidate| by.cost.macs <= candidate.cost.macs && by.cost.params <= candidate.cost.params;
        if !front.iter().any(beaten) {
            front.push(candidate);
        }
    }
    front.truncate(MAX_FRONT);
    let best = if order(&a.best, &b.best).is_le() { a.best } else { b.best };
    Pruned { best, front, n_undominated: a.n_undominated + b.n_undominated, n_candidates: a.n_candidates }
}
