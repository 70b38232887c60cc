//! Sampling near one child.

use rand::Rng;

use crate::{Child, MetaGraph, MetaGraphError, SampleError};

/// A meta-graph's prior mixed with one child, edge by edge; only to draw from.
///
/// Its weights may lie outside of `[ε, 1 − ε]`, which is why it is no meta-graph: it is neither taught nor written to a file.
///
/// # Source
/// \[ours\].
#[derive(Clone, Debug)]
pub struct Tilted {
    meta: MetaGraph,
}

impl MetaGraph {
    /// The prior with weights `(1 − share)·w + share·g`, where `g` is 1 for the edges that `child` keeps and 0 for all others; likewise for
    /// the operators of its live nodes, where those are searched, and for its layout.
    ///
    /// With a `share` of 1 (larger ones count as 1) every draw is `child` itself, with 0 the prior is this meta-graph's own.
    ///
    /// # Errors
    /// [`MetaGraphError::Foreign`] if the child is not of this meta-graph.
    pub fn tilted(&self, child: &Child, share: f64) -> Result<Tilted, MetaGraphError> {
        self.check_child(child)?;
        let share = share.clamp(0.0, 1.0);
        let mut meta = self.clone();
        for (stage, kept) in meta.stages.iter_mut().zip(child.stages()) {
            let goals: Vec<f64> =
                stage.weights.iter().map(|(from, to, _)| f64::from(u8::from(kept.contains(from, to)))).collect();
            for (weight, goal) in stage.weights.values_mut().iter_mut().zip(goals) {
                *weight = (1.0 - share) * *weight + share * goal;
            }
            if let Some(op_weights) = &mut stage.op_weights {
                op_weights.tilt(kept, share);
            }
        }
        for (dimension, &choice) in meta.layout.iter_mut().zip(&child.layout().0) {
            dimension.tilt(choice, share);
        }
        Ok(Tilted { meta })
    }
}

impl Tilted {
    /// Draws a child as [`MetaGraph::sample`] does.
    ///
    /// # Errors
    /// [`SampleError`] where the feasible set is so rare that the bounded number of tries does not meet it.
    pub fn sample(&self, rng: &mut impl Rng, accept: &dyn Fn(&Child) -> bool) -> Result<Child, SampleError> {
        self.meta.sample(rng, accept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StageEdges;
    use crate::meta_graph::tests::{meta, searched};
    use gram_ir::{CellNodeId, CellOp};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn child(n_nodes: usize, edges: &[(u16, u16)]) -> Child {
        let edges = edges.iter().map(|&(from, to)| (CellNodeId(from), CellNodeId(to)));
        Child::new(vec![StageEdges::new(n_nodes, edges)])
    }

    #[test]
    fn a_share_of_one_draws_the_child_itself() {
        let (meta, goal) = (meta(&[30]), child(30, &[(0, 3), (3, 29)]));
        let tilted = meta.tilted(&goal, 1.0).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..200).all(|_| tilted.sample(&mut rng, &|_| true).unwrap() == goal));
    }

    #[test]
    fn a_share_of_zero_is_the_prior() {
        let (meta, goal) = (meta(&[30]), child(30, &[(0, 3), (3, 29)]));
        assert_eq!(meta.tilted(&goal, 0.0).unwrap().meta, meta);
    }

    #[test]
    fn weights_are_mixed_edge_by_edge() {
        // All weights start at 0.5.
        let tilted = meta(&[3]).tilted(&child(3, &[(0, 1), (1, 2)]), 0.75).unwrap();
        assert_eq!(tilted.meta.stages()[0].weights().values(), [0.875, 0.125, 0.875]);
    }

    #[test]
    fn operators_are_mixed_where_the_node_is_live() {
        let meta = searched(&[4]);
        let kept = StageEdges::new(4, [(0, 1), (1, 3)].map(|(i, j)| (CellNodeId(i), CellNodeId(j))));
        let goal = Child::new(vec![kept.with_ops(|_| CellOp::Sep3x3)]);
        let tilted = meta.tilted(&goal, 0.5).unwrap();
        let weights = tilted.meta.stages()[0].op_weights().unwrap().values();
        assert_eq!(weights, [0.25, 0.75, 0.5, 0.5, 0.25, 0.75], "node 2 is dead");
        let exact = meta.tilted(&goal, 1.0).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..100).all(|_| exact.sample(&mut rng, &|_| true).unwrap() == goal));
    }

    #[test]
    fn foreign_children_are_refused() {
        let error = meta(&[4]).tilted(&child(5, &[(0, 1), (0, 2)]), 0.5).unwrap_err();
        assert!(matches!(error, MetaGraphError::Foreign { .. }), "{error}");
    }
}
