//! Pruning a meta-graph in every layout that it believes in.

use gram_ir::{EdgeMap, Layout, Limits, Shape, Space};
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
    let layouts = meta.likeliest_layouts(MAX_LAYOUTS);
    let pruned = prune_in((space, input, num_classes), meta, &stages, limits, layouts)?;
    Ok(pruned.expect("invariant: a meta-graph has a likeliest layout"))
}

/// The largest network that the meta-graph believes in within limits which leave more room than its search had, for images of shape
/// `wanted`; none if no likely layout takes them.
///
/// Without that room an edge that is rather not believed in is better left out, and [`prune`] counts it against a network. With it there is
/// no reason to: every edge counts for a network here, the more the more it is believed in. Thresholds leave the same cells as there.
///
/// # Errors
/// As for [`prune`].
pub(crate) fn largest(
    space: &Space,
    input: Shape,
    num_classes: usize,
    meta: &MetaGraph,
    limits: &Limits,
    wanted: Shape,
) -> Result<Option<Pruned>, PruneError> {
    // Between a half and 1, so that log-odds are positive.
    let lifted = |weight: f64| (0.5 + weight / 2.0).min(1.0 - f64::EPSILON);
    let weights: Vec<EdgeMap<f64>> = meta
        .stages()
        .iter()
        .map(|stage| {
            let weight = |from, to| stage.weights().get(from, to).copied().expect("invariant: a weight for each edge");
            EdgeMap::from_fn(stage.weights().n_nodes(), |from, to| lifted(weight(from, to)))
        })
        .collect();
    let stages: Vec<PrunableStage<'_>> = meta
        .stages()
        .iter()
        .zip(&weights)
        .map(|(stage, weights)| PrunableStage { ops: stage.ops(), weights })
        .collect();
    let layouts = meta.likeliest_layouts(CONSIDERED).into_iter();
    let layouts = layouts.filter(|(layout, _)| space.plain(layout, input).1 == wanted).take(MAX_LAYOUTS).collect();
    prune_in((space, input, num_classes), meta, &stages, limits, layouts)
}

/// Layouts among which those with images of a wanted shape are looked for.
const CONSIDERED: usize = 1024;

/// Prunes in these layouts, of these probabilities; none if there are none.
fn prune_in(
    (space, input, num_classes): (&Space, Shape, usize),
    meta: &MetaGraph,
    stages: &[PrunableStage<'_>],
    limits: &Limits,
    layouts: Vec<(Layout, f64)>,
) -> Result<Option<Pruned>, PruneError> {
    let n_layouts: f64 = meta.layout().iter().map(|dimension| dimension.weights().len() as f64).product();
    let (mut kept, mut refused) = (Vec::new(), None);
    for (layout, probability) in layouts {
        let (plain, input) = space.plain(&layout, input);
        match gram_prune::prune(&plain, input, num_classes, stages, limits) {
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
        (Some(pruned), _) => Ok(Some(pruned)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
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
