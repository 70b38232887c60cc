//! Small random spaces with weights, and what thresholds leave of them straight from the definition.
#![allow(dead_code, reason = "each test crate uses a part")]

use std::collections::BTreeSet;

use gram_ir::strategies::{arb_cell_output, arb_edge_weights};
use gram_ir::{
    Activation, Cell, CellNodeId, CellOp, CellOutput, Downsample, EdgeMap, Head, MIN_LIVE_NODES, Shape, Space,
    StageSpace, StemLayer,
};
use gram_prune::PrunableStage;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const INPUT: Shape = Shape::chw(2, 9, 8);
pub(crate) const NUM_CLASSES: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) space: Space,
    pub(crate) stages: Vec<(Vec<CellOp>, EdgeMap<f64>)>,
}

impl Case {
    pub(crate) fn prunable(&self) -> Vec<PrunableStage<'_>> {
        self.stages.iter().map(|(ops, weights)| PrunableStage { ops, weights }).collect()
    }

    /// Every feasible combination of thresholds, each cell with its retained weight.
    pub(crate) fn tuples(&self) -> Vec<Vec<(Cell, f64)>> {
        let mut tuples: Vec<Vec<(Cell, f64)>> = vec![Vec::new()];
        for (ops, weights) in &self.stages {
            let kept = kept_by_every_threshold(ops, weights, self.space.max_in_degree);
            let longer =
                |tuple: &Vec<(Cell, f64)>, next: &(Cell, f64)| [tuple.as_slice(), std::slice::from_ref(next)].concat();
            tuples = tuples
                .iter()
                .flat_map(|tuple| kept.iter().map(|next| longer(tuple, next)).collect::<Vec<_>>())
                .collect();
        }
        tuples
    }
}

/// Straight from the definition: `w ≥ τ`, one of the heaviest in-edges, source live.
pub(crate) fn kept_by_every_threshold(
    ops: &[CellOp],
    weights: &EdgeMap<f64>,
    max_in_degree: usize,
) -> Vec<(Cell, f64)> {
    let by_threshold = |&threshold: &f64| {
        let mut cell = Cell::new();
        let mut live = BTreeSet::from([0]);
        for (to, &op) in (1..).zip(ops) {
            let weight = |from: u16| *weights.get(CellNodeId(from), CellNodeId(to)).unwrap();
            let is_heavier = |a: u16, b: u16| weight(a) > weight(b) || weight(a) == weight(b) && a < b;
            let rank = |from: u16| (0..to).filter(|&other| is_heavier(other, from)).count();
            let is_kept = |from: &u16| live.contains(from) && weight(*from) >= threshold && rank(*from) < max_in_degree;
            let sources: Vec<u16> = (0..to).filter(is_kept).collect();
            if sources.is_empty() {
                continue;
            }
            cell.add_node(CellNodeId(to), op).unwrap();
            live.insert(to);
            for from in sources {
                cell.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
            }
        }
        // Added up in the order of sources, as the pruner does, for equal last bits.
        let odds = |(from, to)| weights.get(from, to).map(|weight| weight / (1.0 - weight)).unwrap();
        let retained_weight = cell.edges().into_iter().map(|edge| odds(edge).ln()).sum();
        (live.len() > MIN_LIVE_NODES).then_some((cell, retained_weight))
    };
    weights.values().iter().filter_map(by_threshold).collect()
}

/// Spaces of 1 to 3 stages with 3 to 6 nodes, every kind of output, 1 or 2 repeats, the first two stages down-sampled or not.
pub(crate) fn arb_case() -> impl Strategy<Value = Case> {
    let stem = prop_oneof![Just(vec![]), Just(vec![StemLayer::Conv { channels: 3, kernel: 3, stride: 1 }])];
    let head = option::of(1..=4usize).prop_map(|conv| Head { conv });
    // Three stages of 6 nodes have 3,375 combinations.
    let stages = vec(arb_stage(6), 1..=2).boxed().prop_union(vec(arb_stage(5), 3).boxed());
    (stem, head, 1..=4usize, stages).prop_map(|(stem, head, max_in_degree, stages)| {
        let (stage_spaces, stages) = stages.into_iter().unzip();
        let space = Space {
            name: "small".into(),
            activation: Activation::Relu,
            max_in_degree,
            operators: CellOp::ALL.to_vec(),
            node_operators: Default::default(),
            image_sizes: Vec::new(),
            channel_multiple: 1,
            stem,
            stages: stage_spaces,
            head,
        };
        Case { space, stages }
    })
}

fn arb_stage(most_nodes: usize) -> impl Strategy<Value = (StageSpace, (Vec<CellOp>, EdgeMap<f64>))> {
    let downsample = select(vec![Downsample::None, Downsample::Maxpool2]);
    // Half of the outputs pass the leaves on as they are, so that channels vary.
    let output = (arb_cell_output(), any::<bool>())
        .prop_map(|(output, plain)| if plain { CellOutput { project: None, ..output } } else { output });
    (3..=most_nodes, 1..=4usize, 1..=2usize, downsample, output).prop_flat_map(
        |(nodes, channels, repeats, downsample, output)| {
            let space = StageSpace { repeats, ..StageSpace::new(nodes, channels, downsample, output) };
            let weights = arb_edge_weights(nodes).prop_map(within_unit_interval);
            (Just(space), (vec(select(CellOp::ALL.to_vec()), nodes - 1), weights))
        },
    )
}

fn within_unit_interval(mut weights: EdgeMap<f64>) -> EdgeMap<f64> {
    weights.values_mut().iter_mut().for_each(|weight| *weight = weight.clamp(0.02, 0.98));
    weights
}
