//! The live part of a cell as the search for its canonical order sees it.

use std::collections::BTreeMap;

use crate::{Cell, CellNodeId, CellOp};

/// The live part of a cell with twins taken together.
///
/// Twins have one operator, the same predecessors and the same successors. They can be exchanged freely, so a class of twins is one *vertex*
/// here, coloured with the number of its members: that takes the largest groups of symmetries out of the search.
pub(super) struct Dag {
    /// For each vertex the indices of its members, ascending.
    pub(super) members: Vec<Vec<u8>>,
    /// For each vertex its rank by depth (longest path from the input), operator and number of members; edges go to higher ranks.
    pub(super) colours: Vec<u8>,
    /// For each vertex those that read it.
    pub(super) successors: Vec<Vec<u8>>,
    /// For each vertex those that it reads.
    pub(super) predecessors: Vec<Vec<u8>>,
}

/// What twins agree in: operator, predecessors and successors, as indices of nodes.
type TwinClass = (Option<CellOp>, Vec<u8>, Vec<u8>);

impl Dag {
    /// The live part of `cell` and the ids that indices stand for; index 0 is the input.
    pub(super) fn of_live_part(cell: &Cell) -> (Self, Vec<CellNodeId>) {
        let live = cell.live_inputs();
        let ids: Vec<CellNodeId> =
            std::iter::once(CellNodeId::INPUT).chain(live.iter().map(|(id, _, _)| *id)).collect();
        let mut classes: Vec<TwinClass> = vec![(None, Vec::new(), Vec::new()); ids.len()];
        let mut depths = vec![0u8; ids.len()];
        for (i, (_, op, inputs)) in live.iter().enumerate() {
            let node = i + 1;
            classes[node].0 = Some(*op);
            for from in inputs {
                let from = ids.binary_search(from).expect("inputs of live nodes are live");
                classes[node].1.push(from as u8);
                classes[from].2.push(node as u8);
                depths[node] = depths[node].max(depths[from] + 1);
            }
        }
        (Self::from_twins(&classes, &depths), ids)
    }

    fn from_twins(classes: &[TwinClass], depths: &[u8]) -> Self {
        let mut by_class: BTreeMap<&TwinClass, Vec<u8>> = BTreeMap::new();
        for (node, class) in classes.iter().enumerate() {
            by_class.entry(class).or_default().push(node as u8);
        }
        let mut vertex_of = vec![0u8; classes.len()];
        for (vertex, members) in by_class.values().enumerate() {
            members.iter().for_each(|&node| vertex_of[usize::from(node)] = vertex as u8);
        }
        let vertices = |nodes: &[u8]| -> Vec<u8> {
            let mut vertices: Vec<u8> = nodes.iter().map(|&node| vertex_of[usize::from(node)]).collect();
            vertices.sort_unstable();
            vertices.dedup();
            vertices
        };
        let kinds: Vec<_> =
            by_class.iter().map(|(class, members)| (depths[usize::from(members[0])], class.0, members.len())).collect();
        let mut ranks = kinds.clone();
        ranks.sort_unstable();
        ranks.dedup();
        Self {
            colours: kinds.iter().map(|kind| ranks.binary_search(kind).expect("one of them") as u8).collect(),
            predecessors: by_class.keys().map(|class| vertices(&class.1)).collect(),
            successors: by_class.keys().map(|class| vertices(&class.2)).collect(),
            members: by_class.into_values().collect(),
        }
    }

    /// Number of vertices.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The edges with `order[i]` renamed to `i`, one row of bits for each vertex in that order: equal for two orders iff an automorphism
    /// that keeps colours takes one to the other, as long as both list the colours in the same order.
    pub(super) fn certificate(&self, order: &[u8]) -> Vec<u64> {
        let mut place = vec![0usize; order.len()];
        for (i, &vertex) in order.iter().enumerate() {
            place[usize::from(vertex)] = i;
        }
        let words = order.len().div_ceil(64);
        let mut bits = vec![0u64; words * order.len()];
        for (i, &vertex) in order.iter().enumerate() {
            for &from in &self.predecessors[usize::from(vertex)] {
                let from = place[usize::from(from)];
                bits[i * words + from / 64] |= 1 << (from % 64);
            }
        }
        bits
    }
}
