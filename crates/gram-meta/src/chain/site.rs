//! The coordinates of a chain's state.

use gram_ir::CellNodeId;

use crate::{MetaGraph, MetaStage};

/// One coordinate of a chain's state: what a Gibbs move draws anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// Whether the pair `from < to` is an edge.
    Edge {
        /// Index of the stage, from 0.
        stage: usize,
        /// Source.
        from: CellNodeId,
        /// Target.
        to: CellNodeId,
    },
    /// Which operator a node has, where operators are searched.
    Op {
        /// Index of the stage, from 0.
        stage: usize,
        /// The operator node.
        node: CellNodeId,
    },
    /// Which value a dimension of the layout has.
    Layout {
        /// Index of the dimension, from 0.
        dimension: usize,
    },
}

/// Up to so many sites a delayed-acceptance step makes two moves per site.
const FEW_SITES: usize = 60;

/// So many moves it makes where there are more.
const MANY_MOVES: usize = 128;

impl MetaGraph {
    /// Number of coordinates of a chain's state: all pairs of all stages, all operator nodes where operators are searched, and all
    /// dimensions of the layout.
    pub fn n_sites(&self) -> usize {
        self.stages.iter().map(|stage| stage.weights.len() + n_op_sites(stage)).sum::<usize>() + self.layout.len()
    }

    /// The coordinate with that number: stage by stage, edges before operators, then the layout; none if there are not so many.
    pub fn site(&self, mut index: usize) -> Option<Site> {
        for (stage, meta) in self.stages.iter().enumerate() {
            let n_edges = meta.weights.len();
            if index < n_edges {
                let (from, to) = pair(index);
                return Some(Site::Edge { stage, from, to });
            }
            index -= n_edges;
            if index < n_op_sites(meta) {
                return Some(Site::Op { stage, node: CellNodeId(index as u16 + 1) });
            }
            index -= n_op_sites(meta);
        }
        (index < self.layout.len()).then_some(Site::Layout { dimension: index })
    }

    /// How many moves against the surrogate one step of [`DelayedChain`](crate::DelayedChain) makes by default: `2·E` up to `E = 60`
    /// coordinates, else 128 (ALGORITHMS 1.5).
    pub fn inner_moves(&self) -> usize {
        let n_sites = self.n_sites();
        if n_sites <= FEW_SITES { 2 * n_sites } else { MANY_MOVES }
    }
}

/// A menu of one leaves nothing to draw.
fn n_op_sites(stage: &MetaStage) -> usize {
    match stage.op_weights() {
        Some(weights) if weights.menu().len() > 1 => stage.n_nodes() - 1,
        _ => 0,
    }
}

/// The pair at that position of an `EdgeMap`: (0,1), (0,2), (1,2), (0,3), ….
fn pair(position: usize) -> (CellNodeId, CellNodeId) {
    // The largest `to` with `to·(to − 1)/2 ≤ position`.
    let to = (1 + 8 * position).isqrt().div_ceil(2);
    (CellNodeId((position - to * (to - 1) / 2) as u16), CellNodeId(to as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::{meta, searched};
    use gram_ir::EdgeMap;
    use std::collections::BTreeSet;

    #[test]
    fn positions_and_pairs_agree() {
        let pairs = EdgeMap::from_fn(128, |from, to| (from, to));
        assert!(pairs.values().iter().enumerate().all(|(position, &expected)| pair(position) == expected));
    }

    #[test]
    fn every_site_is_there_once() {
        for (meta, expected) in [(meta(&[4, 7]), 6 + 21), (searched(&[4, 7]), 6 + 3 + 21 + 6)] {
            assert_eq!(meta.n_sites(), expected);
            let sites: BTreeSet<Site> = (0..expected).map(|index| meta.site(index).unwrap()).collect();
            assert_eq!((sites.len(), meta.site(expected)), (expected, None));
        }
    }

    #[test]
    fn inner_moves_follow_the_number_of_sites() {
        // 6, 28 + 28, 3·435 pairs.
        let moves = [meta(&[4]), meta(&[8, 8]), meta(&[30, 30, 30])].map(|meta| meta.inner_moves());
        assert_eq!(moves, [12, 112, 128]);
    }
}
