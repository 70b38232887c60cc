//! Random graphs for property tests of your own transforms, cost models and samplers (feature `proptest`).
//!
//! ```
//! use gram_ir::strategies::arb_cell;
//! use proptest::prelude::*;
//! proptest!(|(cell in arb_cell(2..=6))| prop_assert!(cell.leaves().len() < 6));
//! ```

mod network;

use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub use network::arb_network;

use crate::{
    Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, EdgeMap, Head, Shape, Stage, StemLayer,
};

/// Cells with `n_nodes` nodes, the input among them, and any operator of the menu; see [`arb_cell_with_ops`].
pub fn arb_cell(n_nodes: RangeInclusive<usize>) -> impl Strategy<Value = Cell> {
    arb_cell_with_ops(n_nodes, CellOp::ALL.to_vec())
}

/// Cells with `n_nodes` nodes (1 to 85, the input among them) and the operators of `menu`.
///
/// Cells are sparse, dense or complete; ids may have gaps, nodes may be dead, and there may be no leaf at all.
/// They shrink to fewer nodes, fewer edges and ids without gaps.
///
/// # Panics
/// If `menu` is empty while there are operator nodes.
pub fn arb_cell_with_ops(n_nodes: RangeInclusive<usize>, menu: Vec<CellOp>) -> impl Strategy<Value = Cell> {
    let densities = select(vec![0.1, 0.25, 0.5, 1.0]);
    (n_nodes, densities).prop_flat_map(move |(n_nodes, density)| {
        let n_ops = n_nodes.saturating_sub(1);
        let ops = vec(select(menu.clone()), n_ops);
        let steps = vec(prop_oneof![3 => Just(1u16), 1 => 1..=3u16], n_ops);
        let edges = vec(proptest::bool::weighted(density), n_nodes * n_ops / 2);
        (ops, steps, edges).prop_map(|(ops, steps, edges)| build_cell(&ops, &steps, &edges))
    })
}

/// Node `i + 1` gets operator `ops[i]` and an id `steps[i]` above that of node `i`; edges are in the order of [`EdgeMap`].
fn build_cell(ops: &[CellOp], steps: &[u16], edges: &[bool]) -> Cell {
    let mut ids = vec![CellNodeId::INPUT];
    let mut cell = Cell::new();
    for (&op, step) in ops.iter().zip(steps) {
        let id = CellNodeId(ids[ids.len() - 1].0 + step);
        cell.add_node(id, op).expect("ids ascend and stay below 256");
        ids.push(id);
    }
    for (position, _) in edges.iter().enumerate().filter(|(_, present)| **present) {
        let (from, to) = ids_at(&ids, position);
        cell.add_edge(from, to).expect("both nodes exist and ascend");
    }
    cell
}

/// The pair of `ids` that stands at `position` in an [`EdgeMap`].
fn ids_at(ids: &[CellNodeId], position: usize) -> (CellNodeId, CellNodeId) {
    let to = (1..ids.len()).take_while(|to| to * (to - 1) / 2 <= position).last().expect("a pair of the complete DAG");
    (ids[position - to * (to - 1) / 2], ids[to])
}

/// Cells of which at least one operator node is live, so that a stage can be made of them.
pub fn arb_live_cell(n_nodes: RangeInclusive<usize>) -> impl Strategy<Value = Cell> {
    assert!(*n_nodes.start() >= 2, "a live cell has an input and an operator");
    arb_cell(n_nodes).prop_map(|mut cell| {
        let first = cell.ops().next().map(|(id, _)| id).expect("two nodes or more");
        cell.add_edge(CellNodeId::INPUT, first).expect("both nodes exist and ascend");
        cell
    })
}

/// Weights of all candidate edges of `n_nodes` nodes, in 0..=1; about half are multiples of 1/8, so that ties occur.
pub fn arb_edge_weights(n_nodes: usize) -> impl Strategy<Value = EdgeMap<f64>> {
    let weight = prop_oneof![(0..=8u8).prop_map(|eighths| f64::from(eighths) / 8.0), 0.0..=1.0f64];
    vec(weight, n_nodes * n_nodes.saturating_sub(1) / 2)
        .prop_map(|weights| EdgeMap::try_from(weights).expect("a triangular number of weights"))
}

/// Small architectures that always lower: 1 to 3 stages of 2 to 6 nodes, inputs of 1 to 4 channels and 8 to 16 pixels
/// along an axis, every stem layer, down-sampling, cell output and head.
pub fn arb_architecture() -> impl Strategy<Value = Architecture> {
    let input = (1..=4usize, 8..=16usize, 8..=16usize).prop_map(|(c, h, w)| Shape::chw(c, h, w));
    let activation = select(Activation::ALL.to_vec());
    let stem = vec(arb_stem_layer(), 0..=2);
    let stages = vec(arb_stage(), 1..=3);
    let head = option::of(1..=4usize).prop_map(|conv| Head { conv });
    (input, 2..=5usize, activation, stem, stages, head).prop_map(
        |(input, num_classes, activation, stem, stages, head)| {
            let name = "arbitrary".into();
            let mut architecture = Architecture { name, input, num_classes, activation, stem, stages, head };
            keep_pools_that_fit(&mut architecture);
            architecture
        },
    )
}

fn arb_stem_layer() -> impl Strategy<Value = StemLayer> {
    let sizes = || (1..=4usize, select(vec![1usize, 3, 5]), 1..=2usize);
    prop_oneof![
        sizes().prop_map(|(channels, kernel, stride)| StemLayer::Conv { channels, kernel, stride }),
        sizes().prop_map(|(channels, kernel, stride)| StemLayer::Sep { channels, kernel, stride }),
        Just(StemLayer::Maxpool2),
    ]
}

/// A stage whose cell has at least one live operator node, 1 to 4 channels and 1 or 2 repeats.
pub fn arb_stage() -> impl Strategy<Value = Stage> {
    let downsample = select(vec![Downsample::None, Downsample::Maxpool2]);
    (arb_live_cell(2..=6), 1..=2usize, 1..=4usize, downsample, arb_cell_output()).prop_map(
        |(cell, repeats, node_channels, downsample, output)| Stage { cell, repeats, node_channels, downsample, output },
    )
}

/// Every combination of projection (to 1 to 4 channels), residual, linear leaves and activation.
pub fn arb_cell_output() -> impl Strategy<Value = CellOutput> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (option::of(1..=4usize), flags).prop_map(|(project, (residual, linear_leaves, activation))| CellOutput {
        project,
        residual,
        linear_leaves,
        activation,
    })
}

/// Takes out the 2x2 pools in front of which a map has fewer than 2 pixels along an axis.
fn keep_pools_that_fit(architecture: &mut Architecture) {
    let mut side = architecture.input.h.min(architecture.input.w);
    architecture.stem.retain(|layer| match layer {
        StemLayer::Conv { stride, .. } | StemLayer::Sep { stride, .. } => {
            side = side.div_ceil(*stride);
            true
        }
        StemLayer::Maxpool2 => halve(&mut side),
    });
    for stage in &mut architecture.stages {
        if stage.downsample == Downsample::Maxpool2 && !halve(&mut side) {
            stage.downsample = Downsample::None;
        }
    }
}

fn halve(side: &mut usize) -> bool {
    let fits = *side >= 2;
    if fits {
        *side /= 2;
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_an_edge_map() {
        let ids = [0, 1, 4, 5].map(CellNodeId);
        let dense = [0, 1, 2, 3].map(CellNodeId);
        for position in 0..6 {
            let (from, to) = ids_at(&dense, position);
            assert_eq!(EdgeMap::<()>::position(from, to), position);
        }
        assert_eq!(ids_at(&ids, 4), (CellNodeId(1), CellNodeId(5)));
    }

    proptest! {
        #[test]
        fn cells_have_the_nodes_asked_for(cell in arb_cell_with_ops(3..=9, vec![CellOp::Dw3x3])) {
            prop_assert!((2..=8).contains(&cell.ops().len()));
            prop_assert!(cell.ops().all(|(_, op)| op == CellOp::Dw3x3));
        }

        #[test]
        fn architectures_lower(architecture in arb_architecture()) {
            prop_assert!(architecture.lower().is_ok(), "{:?}", architecture.lower());
        }

        #[test]
        fn weights_cover_the_complete_dag(weights in arb_edge_weights(7)) {
            prop_assert_eq!(weights.n_nodes(), 7);
            prop_assert!(weights.values().iter().all(|weight| (0.0..=1.0).contains(weight)));
        }
    }
}
