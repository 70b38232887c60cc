//! What the transforms of cells keep; the invariants have the numbers of the house style where it names them.

use gram_ir::strategies::{arb_architecture, arb_cell, arb_edge_weights};
use gram_ir::{
    Architecture, CanonicaliseCell, Cell, CellNodeId, DropDeadNodes, EachCell, EdgeMap, PerStage, PruneEdges, Verify,
    apply_checked,
};
use proptest::prelude::*;

/// The largest id that [`arb_cell`] gives to `n_nodes` nodes, plus 1.
fn n_ids(n_nodes: usize) -> usize {
    3 * (n_nodes - 1) + 1
}

fn weighted_cell(most_nodes: usize) -> impl Strategy<Value = (Cell, EdgeMap<f64>)> {
    (arb_cell(1..=most_nodes), arb_edge_weights(n_ids(most_nodes)))
}

fn is_part(small: &Cell, large: &Cell) -> bool {
    small.edges().is_subset(&large.edges()) && small.ops().all(|(id, op)| large.op(id) == Some(op))
}

proptest! {
    #[test]
    fn prune_edges((before, weights) in weighted_cell(12), cuts in (0.0..=1.0f64, 0.0..=1.0f64)) {
        let (low, high) = (cuts.0.min(cuts.1), cuts.0.max(cuts.1));
        let prune = |cut: f64| PruneEdges { weights: &weights, cut };
        let mut after = before.clone();
        let changed = apply_checked(&prune(low), &mut after)?;            // I1 well-formed
        prop_assert_eq!(changed, after != before);
        prop_assert!(!apply_checked(&prune(low), &mut after)?);           // I4 idempotent
        prop_assert!(after.live().is_subset(&before.live()));             // never more live nodes
        for (from, to) in before.edges() {
            let kept = after.edges().contains(&(from, to));
            prop_assert_eq!(kept, weights.get(from, to).is_some_and(|&weight| weight >= low));
        }
        let mut more = before.clone();
        apply_checked(&prune(high), &mut more)?;
        prop_assert!(is_part(&more, &after));                             // nested: G(high) ⊆ G(low)
        let mut in_steps = after.clone();
        apply_checked(&prune(high), &mut in_steps)?;
        prop_assert_eq!(in_steps, more);                                  // only the highest cut counts
    }

    #[test]
    fn edges_without_weight_are_refused((before, _) in weighted_cell(12), n_nodes in 0..=6usize) {
        let weights = EdgeMap::from_fn(n_nodes, |_, _| 0.5);
        let mut after = before.clone();
        let refused = apply_checked(&PruneEdges { weights: &weights, cut: 1.0 }, &mut after).is_err();
        let uncovered = before.edges().iter().any(|&(from, to)| weights.get(from, to).is_none());
        prop_assert_eq!(refused, uncovered);
        prop_assert!(!refused || after == before);                        // I6 a refused edit changes nothing
    }

    #[test]
    fn drop_dead_nodes(before in arb_cell(1..=20)) {
        let mut after = before.clone();
        let changed = apply_checked(&DropDeadNodes, &mut after)?;         // I1 well-formed
        prop_assert_eq!(changed, before.live().len() < before.ops().len() + 1);
        prop_assert!(!apply_checked(&DropDeadNodes, &mut after)?);        // I4 idempotent
        prop_assert!(is_part(&after, &before));
        prop_assert_eq!(after.live(), before.live());                     // never more live nodes; here never fewer
        prop_assert_eq!(after.live_inputs(), before.live_inputs());       // the model sees the same graph
        prop_assert_eq!(after.live().len(), after.ops().len() + 1);       // nothing dead is left
    }

    #[test]
    fn canonicalise_cell(before in arb_cell(1..=20)) {
        let mut after = before.clone();
        apply_checked(&CanonicaliseCell, &mut after)?;                    // I1 well-formed
        prop_assert!(!apply_checked(&CanonicaliseCell, &mut after)?);     // I4 idempotent
        prop_assert_eq!(after.live().len(), before.live().len());         // never more live nodes
        prop_assert_eq!(after.canonical_key(), before.canonical_key());
        let mut dropped = before.clone();
        apply_checked(&DropDeadNodes, &mut dropped)?;
        apply_checked(&CanonicaliseCell, &mut dropped)?;
        prop_assert_eq!(&dropped, &after);
        prop_assert_eq!(after.to_string().parse::<Cell>()?, after);       // I8 parse(print(g)) == g
    }

    #[test]
    fn stages_keep_costs(before in arb_architecture()) {
        let mut dropped = before.clone();
        apply_checked(&EachCell(DropDeadNodes), &mut dropped)?;           // I1 well-formed
        prop_assert_eq!(dropped.lower()?, before.lower()?);               // I7 the very same network
        let mut canonical = before.clone();
        apply_checked(&EachCell(CanonicaliseCell), &mut canonical)?;
        prop_assert!(!apply_checked(&EachCell(CanonicaliseCell), &mut canonical)?); // I4 idempotent
        let (old, new) = (before.lower()?, canonical.lower()?);
        prop_assert_eq!(new.output_shape(), old.output_shape());          // I2 same shapes
        prop_assert_eq!(new.cost(), old.cost());                          // I3 never costs more; here the same
        prop_assert_eq!(canonical.canonical_key(), before.canonical_key());
    }

    #[test]
    fn pruned_stages(before in arb_architecture(), weights in arb_edge_weights(n_ids(6)), cut in 0.0..=1.0f64) {
        let prune = |cut: f64| PerStage(vec![PruneEdges { weights: &weights, cut }; before.stages.len()]);
        let emptied = before.stages.iter().any(|stage| leaves_after(&stage.cell, &weights, cut).is_empty());
        let mut after = before.clone();
        match apply_checked(&prune(cut), &mut after) {
            Ok(changed) => {
                prop_assert!(!emptied);
                prop_assert_eq!(changed, after != before);
                prop_assert_eq!(after.verify(), Ok(()));                  // I1 well-formed
                let shapes = |a: &Architecture| a.lower().map(|network| (network.input_shape(), network.output_shape()));
                prop_assert_eq!(shapes(&after)?, shapes(&before)?);       // I2 same input and output shapes
                prop_assert!(!apply_checked(&prune(cut), &mut after)?);   // I4 idempotent
            }
            Err(_) => {
                prop_assert!(emptied);
                prop_assert_eq!(after, before);                           // I6 a refused edit changes nothing
            }
        }
    }
}

fn leaves_after(cell: &Cell, weights: &EdgeMap<f64>, cut: f64) -> Vec<CellNodeId> {
    let mut pruned = cell.clone();
    for (from, to) in cell.edges() {
        if weights.get(from, to).is_some_and(|&weight| weight < cut) {
            pruned.remove_edge(from, to);
        }
    }
    pruned.leaves()
}
