//! The cells that thresholds leave of one stage.

use gram_ir::{Cell, CellNodeId, CellOp, DropDeadNodes, EdgeMap, MIN_LIVE_NODES, PruneEdges, Transform, apply_checked};

/// What one threshold leaves of a stage.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StageCandidate {
    /// Live nodes and their edges only; ids are those of the complete DAG.
    pub(crate) cell: Cell,
    /// The largest threshold that leaves this cell.
    pub(crate) threshold: f64,
    /// Sum of the kept edges' log-odds.
    pub(crate) retained_weight: f64,
}

/// Every feasible cell that a threshold leaves of the complete DAG, by ascending threshold; all different, one at least.
///
/// The complete DAG is first thinned to the `max_in_degree` heaviest in-edges of each node. Thresholds then take edges away from one
/// fixed set, so the edges of each candidate are among those of the candidates before it. At the lowest threshold every node has an
/// in-edge, so all are live: the first candidate is feasible. Live nodes only get fewer, so the first cell with fewer than
/// [`MIN_LIVE_NODES`] ends the list.
///
/// `weights` are between 0 and 1, for three nodes or more; `ops` are those of nodes 1, 2, …
///
/// # Source
/// ALGORITHMS 1.6, steps 1 and 2 \[ours\].
/// # Complexity
/// Distinct weights × edges.
pub(crate) fn stage_candidates(ops: &[CellOp], weights: &EdgeMap<f64>, max_in_degree: usize) -> Vec<StageCandidate> {
    let mut cell = heaviest_in_edges(ops, weights, max_in_degree);
    let mut candidates: Vec<StageCandidate> = Vec::new();
    for threshold in distinct_weights(&cell, weights) {
        let pruned = rewrite(&PruneEdges { weights, cut: threshold }, &mut cell);
        rewrite(&DropDeadNodes, &mut cell);
        if cell.ops().len() < MIN_LIVE_NODES {
            break;
        }
        match candidates.last_mut() {
            Some(last) if !pruned => last.threshold = threshold,
            _ => {
                let retained_weight = cell.edges().into_iter().map(|edge| log_odds(weight(weights, edge))).sum();
                candidates.push(StageCandidate { cell: cell.clone(), threshold, retained_weight });
            }
        }
    }
    candidates
}

/// All nodes, each with its `max_in_degree` heaviest in-edges of the complete DAG; of equally heavy ones those from the lowest ids.
///
/// Which edges these are does not depend on what is live. If a node took its heaviest *live* in-edges at each threshold, a source that
/// comes to life at a lower threshold could push out an edge that a higher one keeps, and candidates would not be nested.
fn heaviest_in_edges(ops: &[CellOp], weights: &EdgeMap<f64>, max_in_degree: usize) -> Cell {
    let mut cell = Cell::new();
    for (to, &op) in (1..).map(CellNodeId).zip(ops) {
        cell.add_node(to, op).expect("invariant: ids ascend and a stage has at most 128 nodes");
        let mut sources: Vec<CellNodeId> = (0..to.0).map(CellNodeId).collect();
        sources.sort_by(|&a, &b| weight(weights, (b, to)).total_cmp(&weight(weights, (a, to))));
        for &from in sources.iter().take(max_in_degree) {
            cell.add_edge(from, to).expect("invariant: both nodes exist and ascend");
        }
    }
    cell
}

/// The weights that occur in the cell, ascending.
fn distinct_weights(cell: &Cell, weights: &EdgeMap<f64>) -> Vec<f64> {
    let mut distinct: Vec<f64> = cell.edges().into_iter().map(|edge| weight(weights, edge)).collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    distinct
}

fn weight(weights: &EdgeMap<f64>, (from, to): (CellNodeId, CellNodeId)) -> f64 {
    *weights.get(from, to).expect("invariant: there is a weight for each edge of the stage")
}

/// `ln(w / (1 − w))`: positive for edges that are rather kept than not.
fn log_odds(weight: f64) -> f64 {
    (weight / (1.0 - weight)).ln()
}

fn rewrite(pass: &dyn Transform<Cell>, cell: &mut Cell) -> bool {
    apply_checked(pass, cell).expect("invariant: every edge has a weight that is a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::strategies::arb_edge_weights;
    use proptest::prelude::*;

    fn candidates(n_nodes: usize, weights: &[f64], max_in_degree: usize) -> Vec<StageCandidate> {
        let ops = vec![CellOp::Conv1x1; n_nodes - 1];
        stage_candidates(&ops, &EdgeMap::try_from(weights.to_vec()).unwrap(), max_in_degree)
    }

    fn edges(candidate: &StageCandidate) -> Vec<(u16, u16)> {
        candidate.cell.edges().into_iter().map(|(from, to)| (from.0, to.0)).collect()
    }

    /// Weights in the order (0,1), (0,2), (1,2), (0,3), (1,3), (2,3).
    #[test]
    fn thresholds_by_hand() {
        let found = candidates(4, &[0.75, 0.5, 0.25, 0.5, 0.125, 0.875], 3);
        // 0.125: all. 0.25: without 1 → 3. 0.5: without 1 → 2. 0.75: 2 is dead, and with it 2 → 3, which is heavy enough; 1 is left.
        assert_eq!(found.iter().map(|found| found.threshold).collect::<Vec<_>>(), [0.125, 0.25, 0.5]);
        assert_eq!(edges(&found[2]), [(0, 1), (0, 2), (0, 3), (2, 3)]);
        // ln 3 + 0 + 0 + ln 7, and ln 1/3 with 1 → 2.
        assert!((found[2].retained_weight - 21.0f64.ln()).abs() < 1e-12);
        assert!((found[1].retained_weight - 7.0f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn edges_of_dead_nodes_are_no_thresholds_of_their_own() {
        // 2 is dead from 0.25 on, so 2 → 3 leaves with 0.5 what 0.25 leaves.
        let found = candidates(4, &[0.875, 0.125, 0.125, 0.875, 0.125, 0.5], 3);
        assert_eq!(found.iter().map(|found| found.threshold).collect::<Vec<_>>(), [0.125, 0.875]);
        assert_eq!(edges(&found[1]), [(0, 1), (0, 3)]);
    }

    #[test]
    fn a_full_node_keeps_its_heaviest_edges_and_lower_ids_among_equals() {
        let found = candidates(4, &[0.5, 0.5, 0.5, 0.25, 0.5, 0.5], 1);
        assert_eq!(found.len(), 1);
        assert_eq!(edges(&found[0]), [(0, 1), (0, 2), (1, 3)]);
    }

    proptest! {
        #[test]
        fn nested_feasible_and_by_ascending_threshold(
            (n_nodes, weights) in (3..=9usize).prop_flat_map(|n| (Just(n), arb_edge_weights(n))),
            max_in_degree in 1..=5usize,
        ) {
            let weights: Vec<f64> = weights.values().iter().map(|weight| weight.clamp(0.01, 0.99)).collect();
            let found = candidates(n_nodes, &weights, max_in_degree);
            // All nodes are live at the lowest threshold.
            prop_assert_eq!(found[0].cell.ops().len(), n_nodes - 1);
            prop_assert!(found.len() <= weights.len());
            for candidate in &found {
                let cell = &candidate.cell;
                prop_assert!(cell.ops().len() >= MIN_LIVE_NODES);
                prop_assert_eq!(cell.live().len(), cell.ops().len() + 1);
                prop_assert!(cell.ops().all(|(id, _)| cell.predecessors(id).len() <= max_in_degree));
            }
            for pair in found.windows(2) {
                prop_assert!(pair[0].threshold < pair[1].threshold);
                // G(τ₂) ⊂ G(τ₁) for τ₂ > τ₁, in edges and nodes.
                prop_assert!(pair[1].cell.edges().is_subset(&pair[0].cell.edges()));
                prop_assert!(pair[1].cell.live().is_subset(&pair[0].cell.live()));
                prop_assert!(pair[1].cell != pair[0].cell);
            }
        }
    }
}
