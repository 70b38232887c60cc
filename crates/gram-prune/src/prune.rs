//! The entry point, and what it gives.

use gram_ir::{Architecture, Cell, CellOp, Cost, EdgeMap, Limits, LowerError, Network, Shape, Space, StageSpace};
use gram_memory::keeps_peak_limit;

use crate::PruneError;
use crate::candidates::{StageCandidate, stage_candidates};
use crate::costs::{Costs, PartCost};
use crate::merge::{Combination, join};

/// One stage of a meta-graph, as the pruner needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrunableStage<'a> {
    /// Operators of nodes 1, 2, …: node 0 is the stage's input and has none.
    pub ops: &'a [CellOp],
    /// The belief in each edge of the complete DAG, between 0 and 1.
    pub weights: &'a EdgeMap<f64>,
}

/// A network that one threshold per stage leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Cells with live nodes only; ids are those of the complete DAGs.
    pub architecture: Architecture,
    /// Exact costs of the lowered network.
    pub cost: Cost,
    /// Sum of the log-odds `ln(w / (1 − w))` of all kept edges.
    pub retained_weight: f64,
    /// For each stage the largest threshold that leaves its cell.
    pub thresholds: Vec<f64>,
}

/// What pruning gives: networks within the limits that are best in some respect.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// The network with the largest retained weight; of those, the one with fewest MACs, then fewest params.
    pub best: Candidate,
    /// Networks that no other dominates in retained weight, MACs and params; by descending retained weight, [`Pruned::best`] first.
    ///
    /// All of them, or [`MAX_FRONT`] at even distances in that order where there are more, first and last included.
    pub front: Vec<Candidate>,
    /// Networks within the limits that no other dominates: as many as [`Pruned::front`] has, or more.
    pub n_undominated: usize,
    /// For each stage the number of different cells that its thresholds leave; all their combinations were considered.
    pub n_candidates: Vec<usize>,
}

/// [`Pruned::front`] has at most so many networks: smooth weights can leave more than ten thousand undominated.
pub const MAX_FRONT: usize = 100;

/// The networks within `limits` that one threshold per stage leaves of the complete DAGs, and that no other beats.
///
/// For each stage, each threshold τ keeps the edges that weigh τ or more; edges from dead nodes go, leaves are decided anew. Of a node
/// with more than the space's `max_in_degree` in-edges, the heaviest are kept (lower ids first among equals); these are chosen before the
/// threshold, among all candidate edges, so what a threshold keeps always contains what a higher one keeps. Cells with fewer than
/// [`MIN_LIVE_NODES`](gram_ir::MIN_LIVE_NODES) live nodes are left out. All combinations over the stages are considered.
///
/// The retained weight Σ ln(w / (1 − w)) rewards edges that weigh more than ½ and penalises lighter ones, which are kept only where a
/// threshold cannot keep better ones without them. Without limits the best network has, up to liveness and the in-degree, the edges
/// believed in rather than not.
///
/// Costs are not monotone in the threshold: taking a node's last out-edge away makes it a leaf, and the projection wider. That is why all
/// thresholds are tried, each at its exact cost.
///
/// A limit on peak bytes is kept by the whole network, and by each stage on its own with a pool behind it. For an engine that copies
/// concatenations and runs the halves of separable convolutions one after the other that is the same; for others a network may be missed that
/// keeps the limit only as a whole. All combinations are then considered that keep it stage by stage.
///
/// # Errors
/// [`PruneError::LimitsUnmeetable`] with the smallest possible costs; another [`PruneError`] if stages, weights or the space are not
/// usable, if no network fits the input, or if one of the front has more than [`MAX_NODES`](gram_ir::MAX_NODES).
/// # Panics
/// If costs of parts do not add up to the network's: a bug.
/// # Source
/// ALGORITHMS 1.6 \[ours\], in the spirit of the paper's structure-level pruning; the cap on in-edges is \[ours\] too.
/// # Complexity
/// One lowering per stage, threshold and number of channels that the stage before can give, and one per network of the front.
pub fn prune(
    space: &Space,
    input: Shape,
    num_classes: usize,
    stages: &[PrunableStage<'_>],
    limits: &Limits,
) -> Result<Pruned, PruneError> {
    check(space, stages)?;
    let candidates: Vec<Vec<StageCandidate>> =
        stages.iter().map(|stage| stage_candidates(stage.ops, stage.weights, space.max_in_degree)).collect();
    let costs = Costs::new(space, input, num_classes, &candidates, limits)?;
    let undominated = join(&candidates, &costs, limits);
    let keeping = |combination: &Combination| {
        finish(space, input, num_classes, &candidates, combination)
            .map(|(candidate, network)| keeps_peak_limit(&network, limits).then_some(candidate))
            .transpose()
    };
    let mut front = spread(&undominated, MAX_FRONT).filter_map(keeping).collect::<Result<Vec<_>, LowerError>>()?;
    if let Some(best) = undominated.iter().find_map(keeping).transpose()?
        && front.first() != Some(&best)
    {
        front.insert(0, best);
    }
    let n_candidates = candidates.iter().map(Vec::len).collect();
    match front.first() {
        Some(best) => Ok(Pruned { best: best.clone(), front, n_undominated: undominated.len(), n_candidates }),
        None => {
            let PartCost { macs, params } = costs.least();
            Err(PruneError::LimitsUnmeetable { limits: *limits, smallest_macs: macs, smallest_params: params })
        }
    }
}

pub(crate) fn check(space: &Space, stages: &[PrunableStage<'_>]) -> Result<(), PruneError> {
    space.verify()?;
    if stages.len() != space.stages.len() {
        return Err(PruneError::Stages { expected: space.stages.len(), got: stages.len() });
    }
    stages
        .iter()
        .zip(&space.stages)
        .enumerate()
        .try_for_each(|(index, (stage, space))| check_stage(index, stage, space))
}

fn check_stage(stage: usize, given: &PrunableStage<'_>, space: &StageSpace) -> Result<(), PruneError> {
    let (nodes, ops, weights) = (space.nodes, given.ops.len() + 1, given.weights.n_nodes());
    if ops != nodes || weights != nodes {
        return Err(PruneError::Nodes { stage, nodes, ops, weights });
    }
    // Odds of weights within (0, 1) are positive and finite, so are their logarithms' sums; NaN is in no range.
    match given.weights.iter().find(|&(_, _, &weight)| !(weight > 0.0 && weight < 1.0)) {
        Some((from, to, &weight)) => Err(PruneError::Weight { stage, from, to, weight }),
        None => Ok(()),
    }
}

/// All items, or `most` (two or more) at even distances, first and last included.
pub(crate) fn spread<T>(items: &[T], most: usize) -> impl Iterator<Item = &T> {
    let n = items.len().min(most);
    (0..n).map(move |i| if items.len() <= most { &items[i] } else { &items[i * (items.len() - 1) / (most - 1)] })
}

/// The whole network, and lowered for its exact cost.
fn finish(
    space: &Space,
    input: Shape,
    num_classes: usize,
    candidates: &[Vec<StageCandidate>],
    combination: &Combination,
) -> Result<(Candidate, Network), LowerError> {
    let picked: Vec<&StageCandidate> = candidates.iter().zip(&combination.picks).map(|(stage, &i)| &stage[i]).collect();
    let cells: Vec<Cell> = picked.iter().map(|candidate| candidate.cell.clone()).collect();
    let architecture = space.assemble(input, num_classes, &cells);
    let network = architecture.lower()?;
    let cost = network.cost();
    let PartCost { macs, params } = combination.cost;
    assert_eq!((cost.macs, cost.params), (macs, params), "invariant: costs of stem, stages and head add up");
    let thresholds = picked.iter().map(|candidate| candidate.threshold).collect();
    Ok((Candidate { architecture, cost, retained_weight: combination.retained_weight, thresholds }, network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_spread_evenly() {
        let spread = |n: usize, most| spread(&(0..n).collect::<Vec<_>>(), most).copied().collect::<Vec<_>>();
        assert_eq!(spread(0, 3), Vec::<usize>::new());
        assert_eq!(spread(3, 3), [0, 1, 2]);
        assert_eq!(spread(4, 3), [0, 1, 3]);
        assert_eq!(spread(101, 3), [0, 50, 100]);
        assert!(spread(101, 100).is_sorted_by(|a, b| a < b));
    }
}
