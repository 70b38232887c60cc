//! Meta-graphs of one stage, and scores whose answer is known.

use gram_ir::{Activation, CellOp, CellOutput, Downsample, Head, NodeOperators, Space, StageSpace};
use gram_meta::{Child, MetaConfig, MetaGraph, StageEdges};
use proptest::prelude::*;

/// One stage with `conv1x1` and `sep3x3`, at its prior.
pub(crate) fn fresh(n_nodes: usize, node_operators: NodeOperators, seed: u64) -> MetaGraph {
    let output = CellOutput { project: Some(8), residual: false, linear_leaves: false, activation: false };
    let stage = StageSpace::new(n_nodes, 4, Downsample::None, output);
    let space = Space {
        name: "test".into(),
        activation: Activation::Relu,
        max_in_degree: 4,
        operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
        node_operators,
        image_sizes: Vec::new(),
        channel_multiple: 1,
        stem: Vec::new(),
        stages: vec![stage],
        head: Head::default(),
    };
    MetaGraph::new(&space, MetaConfig::default(), seed).unwrap()
}

/// Share of all pairs in which a child agrees with a planted graph.
pub(crate) fn agreement(child: &Child, planted: &StageEdges) -> f64 {
    let kept = &child.stages()[0];
    let differ = kept.edges().filter(|&(i, j)| !planted.contains(i, j)).count()
        + planted.edges().filter(|&(i, j)| !kept.contains(i, j)).count();
    let n_nodes = kept.n_nodes();
    1.0 - 2.0 * differ as f64 / (n_nodes * (n_nodes - 1)) as f64
}

pub(crate) fn operators() -> impl Strategy<Value = NodeOperators> {
    prop_oneof![Just(NodeOperators::Dealt), Just(NodeOperators::Searched)]
}
