//! The canonical key against brute force: all cells up to 6 nodes, and a second oracle for larger ones.

use std::collections::{BTreeMap, BTreeSet};

use gram_ir::strategies::arb_cell_with_ops;
use gram_ir::{CanonicalKey, Cell, CellNodeId, CellOp};
use petgraph::graph::DiGraph;
use proptest::prelude::*;

const OPS: [CellOp; 2] = [CellOp::Conv1x1, CellOp::Sep3x3];

/// The cell of `n_nodes` nodes whose edges are the bits of `edges` in the order (0,1), (0,2), (1,2), (0,3), … and whose operators are
/// the bits of `ops`.
fn cell(n_nodes: u16, edges: u32, ops: u32) -> Cell {
    let mut cell = Cell::new();
    let mut bit = 0;
    for to in 1..n_nodes {
        let op = OPS[(ops >> (to - 1) & 1) as usize];
        cell.add_node(CellNodeId(to), op).unwrap();
        for from in 0..to {
            if edges >> bit & 1 == 1 {
                cell.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
            }
            bit += 1;
        }
    }
    cell
}

/// All orders of `0..n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let insert = |shorter: &Vec<usize>, place: usize| {
        let mut longer = shorter.clone();
        longer.insert(place, n - 1);
        longer
    };
    permutations(n - 1).iter().flat_map(|shorter| (0..n).map(move |place| insert(shorter, place))).collect()
}

/// Number of live operator nodes, their operators and the adjacency matrix with the input as first row: the least over all orders of the
/// live operator nodes. It computes liveness by itself.
fn least_encoding(n_nodes: usize, edges: u32, ops: u32, orders: &[Vec<Vec<usize>>]) -> (usize, u32, u64) {
    let edge = |from: usize, to: usize| edges >> (to * (to - 1) / 2 + from) & 1 == 1;
    let mut live = vec![0];
    for to in 1..n_nodes {
        if live.iter().any(|&from| edge(from, to)) {
            live.push(to);
        }
    }
    let n_ops = live.len() - 1;
    let encode = |order: &Vec<usize>| {
        let place = |i: usize| if i == 0 { 0 } else { order[i - 1] + 1 };
        let (mut labels, mut matrix) = (0, 0);
        for (j, &to) in live.iter().enumerate().skip(1) {
            labels |= (ops >> (to - 1) & 1) << (place(j) - 1);
            for (i, &from) in live[..j].iter().enumerate() {
                matrix |= u64::from(edge(from, to)) << (place(i) * 6 + place(j));
            }
        }
        (n_ops, labels, matrix)
    };
    orders[n_ops].iter().map(encode).min().unwrap()
}

/// Checks that keys and brute force part the cells of `n_nodes` nodes alike; gives the number of classes.
fn compare(n_nodes: u16, op_masks: impl Iterator<Item = u32> + Clone) -> usize {
    let orders: Vec<_> = (0..6).map(permutations).collect();
    let mut key_of: BTreeMap<(usize, u32, u64), CanonicalKey> = BTreeMap::new();
    let n_edges = n_nodes * (n_nodes - 1) / 2;
    for edges in 0..1u32 << n_edges {
        for ops in op_masks.clone() {
            let key = cell(n_nodes, edges, ops).canonical_key();
            let least = least_encoding(usize::from(n_nodes), edges, ops, &orders);
            let known = key_of.entry(least).or_insert_with(|| key.clone());
            assert_eq!(known, &key, "isomorphic cells differ: {n_nodes} nodes, edges {edges:b}, operators {ops:b}");
        }
    }
    let keys: BTreeSet<&CanonicalKey> = key_of.values().collect();
    assert_eq!(keys.len(), key_of.len(), "cells that are not isomorphic share a key");
    key_of.len()
}

#[test]
fn all_cells_of_one_operator_up_to_6_nodes() {
    // Unlabelled acyclic digraphs with one source on 1 to 6 nodes: 1, 1, 3, 16, 164, 3341; a cell has live parts of every smaller size.
    let mut expected = 0;
    for (n_nodes, classes) in [(1, 1), (2, 1), (3, 3), (4, 16), (5, 164), (6, 3341)] {
        expected += classes;
        assert_eq!(compare(n_nodes, std::iter::once(0)), expected, "{n_nodes} nodes");
    }
}

#[test]
fn all_cells_of_two_operators_up_to_6_nodes() {
    for n_nodes in 2..=6 {
        compare(n_nodes, 0..1 << (n_nodes - 1));
    }
}

/// The live part as petgraph's own type, for its own isomorphism test (VF2).
fn live_graph(cell: &Cell) -> DiGraph<Option<CellOp>, ()> {
    let mut graph = DiGraph::new();
    let mut nodes = BTreeMap::from([(CellNodeId::INPUT, graph.add_node(None))]);
    for (id, op, inputs) in cell.live_inputs() {
        let node = graph.add_node(Some(op));
        inputs.iter().for_each(|from| {
            graph.add_edge(nodes[from], node, ());
        });
        nodes.insert(id, node);
    }
    graph
}

fn isomorphic(a: &Cell, b: &Cell) -> bool {
    let (a, b) = (live_graph(a), live_graph(b));
    petgraph::algo::is_isomorphic_matching(&a, &b, |a, b| a == b, |(), ()| true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // Moving one edge gives a cell that is isomorphic now and then.
    #[test]
    fn keys_agree_with_vf2(cell in arb_cell_with_ops(7..=10, OPS.to_vec()), pick in any::<(usize, usize)>()) {
        let mut other = cell.clone();
        let edges: Vec<_> = cell.edges().into_iter().collect();
        if !edges.is_empty() {
            let (from, to) = edges[pick.0 % edges.len()];
            other.remove_edge(from, to);
            let earlier: Vec<CellNodeId> =
                std::iter::once(CellNodeId::INPUT).chain(cell.ops().map(|(id, _)| id)).filter(|id| *id < to).collect();
            other.add_edge(earlier[pick.1 % earlier.len()], to).unwrap();
        }
        prop_assert_eq!(cell.canonical_key() == other.canonical_key(), isomorphic(&cell, &other));
        prop_assert!(isomorphic(&cell, &cell.canonical_form()));
    }
}
