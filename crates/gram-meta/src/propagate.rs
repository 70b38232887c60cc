//! Propagation: a round's children move the weights of edges and, where those are searched, of operators.

use gram_ir::{CellNodeId, EdgeMap};

use crate::op_weights::raise_to_floor;
use crate::{Child, Credit, MetaGraph, MetaGraphError, MetaStage, OpWeights, StageEdges};

impl MetaGraph {
    /// Moves every edge weight towards what the weighted children chose; returns the largest change of a weight.
    ///
    /// For edge `e = (i, j)` let `A` be the children in which `i` is live, `U = Σ_A u_k`, `ĝ = Σ_A u_k·g_k / U`: then
    /// `w ← clip((1 − η·U)·w + η·U·ĝ, ε, 1 − ε)`, which is `w + η·Σ_A u_k·(g_k − w)` before the clip. An edge whose source is dead in all
    /// children (of weight above 0) stays as it is. Operators are taught by the same rule: for node `v`, `U` the weight of the children in
    /// which `v` is live and `ĝ` the share of each operator among them, `w ← (1 − η·U)·w + η·U·ĝ`, then clipped as [`OpWeights`] says. So are
    /// layouts, of which every child has one: `U` is the weight of all children.
    /// Weights of children are `softmax(β·S)`, see [`temper`](crate::temper).
    ///
    /// # Errors
    /// [`PropagateError`] if a child is of another meta-graph, a weight is negative or not finite, or the weights sum to more than 1;
    /// the meta-graph is unchanged then.
    /// # Source
    /// ALGORITHMS 1.5, propagation \[ours\]: natural-gradient ascent for independent Bernoullis, the cross-entropy method.
    pub fn propagate<'a>(
        &mut self,
        children: impl IntoIterator<Item = (&'a Child, f64)>,
    ) -> Result<f64, PropagateError> {
        let children: Vec<(&Child, f64)> = children.into_iter().collect();
        self.check_round(&children)?;
        let mut largest: f64 = 0.0;
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let kept: Vec<(&StageEdges, f64)> =
                children.iter().map(|(child, weight)| (&child.stages()[index], *weight)).collect();
            largest = largest.max(propagate_stage(stage, &kept, self.config.eta, self.config.epsilon));
            largest = largest.max(propagate_ops(stage, &kept, self.config.eta, self.config.epsilon));
        }
        largest = largest.max(self.propagate_layout(&children, self.config.eta));
        self.n_rounds += 1;
        Ok(largest)
    }

    pub(crate) fn check_round(&self, children: &[(&Child, f64)]) -> Result<(), PropagateError> {
        for &(child, weight) in children {
            self.check_child(child)?;
            if !weight.is_finite() || weight < 0.0 {
                return Err(PropagateError::Weight { weight });
            }
        }
        let sum: f64 = children.iter().map(|(_, weight)| weight).sum();
        if sum > 1.0 + 1e-9 { Err(PropagateError::Sum { sum }) } else { Ok(()) }
    }
}

pub(crate) fn propagate_stage(stage: &mut MetaStage, children: &[(&StageEdges, f64)], eta: f64, epsilon: f64) -> f64 {
    let n_nodes = stage.n_nodes();
    let (live, chosen) = chosen_edges(n_nodes, children);
    let mut largest: f64 = 0.0;
    for ((from, _, &mass), weight) in chosen.iter().zip(stage.weights.values_mut()) {
        if live[from.index()] > 0.0 {
            let moved = (*weight + eta * (mass - live[from.index()] * *weight)).clamp(epsilon, 1.0 - epsilon);
            largest = largest.max((moved - *weight).abs());
            *weight = moved;
        }
    }
    largest
}

/// Per source `U`, the weight of the children in which it is live, and per edge `Σ u_k·g_k` (a kept edge's source is live).
pub(crate) fn chosen_edges(n_nodes: usize, children: &[(&StageEdges, f64)]) -> (Vec<f64>, EdgeMap<f64>) {
    let mut live = vec![0.0; n_nodes];
    let mut chosen = EdgeMap::from_fn(n_nodes, |_, _| 0.0);
    for &(kept, weight) in children {
        for (node, mass) in live.iter_mut().enumerate() {
            if kept.is_live(CellNodeId(node as u16)) {
                *mass += weight;
            }
        }
        for (from, to) in kept.edges() {
            if let Some(mass) = chosen.get_mut(from, to) {
                *mass += weight;
            }
        }
    }
    (live, chosen)
}

pub(crate) fn propagate_ops(stage: &mut MetaStage, children: &[(&StageEdges, f64)], eta: f64, epsilon: f64) -> f64 {
    let Some(op_weights) = &mut stage.op_weights else { return 0.0 };
    let (live, chosen) = chosen_ops(op_weights, children);
    let mut largest: f64 = 0.0;
    let chosen = chosen.chunks_exact(op_weights.menu().len());
    let mut moved = Vec::new();
    for ((weights, chosen), mass) in op_weights.nodes_mut().zip(chosen).zip(live) {
        if mass > 0.0 {
            moved.clear();
            moved.extend(weights.iter().zip(chosen).map(|(weight, chosen)| weight + eta * (chosen - mass * weight)));
            raise_to_floor(&mut moved, epsilon);
            for (weight, moved) in weights.iter_mut().zip(&moved) {
                largest = largest.max((moved - *weight).abs());
                *weight = *moved;
            }
        }
    }
    op_weights.keep_likeliest(&mut stage.ops);
    largest
}

/// For each operator node the weight of the children in which it is live, and for each of its operators of those that chose it.
pub(crate) fn chosen_ops(op_weights: &OpWeights, children: &[(&StageEdges, f64)]) -> (Vec<f64>, Vec<f64>) {
    let n_ops = op_weights.menu().len();
    let mut chosen = vec![0.0; op_weights.values().len()];
    let mut live = vec![0.0; chosen.len() / n_ops];
    for &(kept, weight) in children {
        for (node, mass) in live.iter_mut().enumerate() {
            if let Some(op) = kept.op(CellNodeId(node as u16 + 1)).and_then(|op| op_weights.index(op)) {
                *mass += weight;
                chosen[node * n_ops + op] += weight;
            }
        }
    }
    (live, chosen)
}

/// Why a round cannot be propagated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PropagateError {
    /// A child of another meta-graph.
    #[error(transparent)]
    Child(#[from] MetaGraphError),
    /// A weight below 0 or not finite.
    #[error("a child's weight is {weight}; weights are 0 or more")]
    Weight {
        /// The weight.
        weight: f64,
    },
    /// Credit cannot be shared like this.
    #[error(
        "credit of {} to own edges and {} along roles, with {n_reference} children for reference: both must be 0 to 1, and roles need a reference",
        .credit.own, .credit.roles
    )]
    Credit {
        /// The shares.
        credit: Credit,
        /// Children drawn from the prior.
        n_reference: usize,
    },
    /// The weights sum to more than 1.
    #[error("the children's weights sum to {sum}, which is more than 1")]
    Sum {
        /// The sum.
        sum: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::{meta, searched};
    use gram_ir::CellOp;

    fn child(n_nodes: usize, edges: &[(u16, u16)]) -> Child {
        let edges = edges.iter().map(|&(from, to)| (CellNodeId(from), CellNodeId(to)));
        Child::new(vec![StageEdges::new(n_nodes, edges)])
    }

    #[test]
    fn one_round_by_hand() {
        // Node 1 is live in the first child (u 0.75) only; all weights start at 0.5, η 0.2.
        let mut meta = meta(&[3]);
        let children = [child(3, &[(0, 1), (1, 2)]), child(3, &[(0, 2)])];
        let largest = meta.propagate([(&children[0], 0.75), (&children[1], 0.25)]).unwrap();
        let weights = meta.stages()[0].weights().values();
        // (0,1): 0.5 + 0.2·(0.75 − 0.5); (0,2): 0.5 + 0.2·(0.25 − 0.5); (1,2): U 0.75, 0.5 + 0.2·(0.75 − 0.75·0.5).
        for (weight, expected) in weights.iter().zip([0.55, 0.45, 0.575]) {
            assert!((weight - expected).abs() < 1e-15, "{weight} {expected}");
        }
        assert!((largest - 0.075).abs() < 1e-15);
        assert_eq!(meta.n_rounds(), 1);
    }

    #[test]
    fn operators_by_hand() {
        // Menu conv1x1, sep3x3 at 0.5 each, η 0.2. Node 1 is live in the first child (u 0.75) only, node 2 in both.
        let mut meta = searched(&[3]);
        let with = |edges: &[(u16, u16)], ops: [CellOp; 2]| {
            let kept = child(3, edges).stages()[0].clone();
            Child::new(vec![kept.with_ops(|node| ops[node.index() - 1])])
        };
        let first = with(&[(0, 1), (1, 2)], [CellOp::Sep3x3, CellOp::Sep3x3]);
        let second = with(&[(0, 2)], [CellOp::Sep3x3, CellOp::Conv1x1]);
        let largest = meta.propagate([(&first, 0.75), (&second, 0.25)]).unwrap();
        let weights = meta.stages()[0].op_weights().unwrap().values();
        // Node 1: U 0.75, conv1x1 0.5 + 0.2·(0 − 0.75·0.5); node 2: U 1, conv1x1 0.5 + 0.2·(0.25 − 0.5).
        for (weight, expected) in weights.iter().zip([0.425, 0.575, 0.45, 0.55]) {
            assert!((weight - expected).abs() < 1e-15, "{weight} {expected}");
        }
        assert!((largest - 0.075).abs() < 1e-15);
        assert_eq!(meta.stages()[0].ops(), [CellOp::Sep3x3; 2], "the likeliest");
        assert_eq!(meta.cells(&second).unwrap()[0].op(CellNodeId(2)), Some(CellOp::Conv1x1), "the child's own");
    }

    #[test]
    fn children_fit_the_way_operators_are_given() {
        let (mut dealt, mut searched) = (meta(&[4]), searched(&[4]));
        let plain = child(4, &[(0, 1), (0, 2)]);
        let with = |op| Child::new(vec![plain.stages()[0].clone().with_ops(|_| op)]);
        let refused = |meta: &mut MetaGraph, child: &Child| meta.propagate([(child, 1.0)]).unwrap_err().to_string();
        assert!(
            refused(&mut dealt, &with(CellOp::Conv1x1)).contains("the child chooses operators, which are dealt out")
        );
        assert!(refused(&mut searched, &plain).contains("the child has no operators, which are searched"));
        assert!(refused(&mut searched, &with(CellOp::Identity)).contains("`identity`, which is not on the menu"));
        assert!(searched.propagate([(&with(CellOp::Conv1x1), 1.0)]).is_ok());
    }

    #[test]
    fn a_round_without_weights_changes_nothing() {
        let mut meta = meta(&[4]);
        let before = meta.stages().to_vec();
        let all = child(4, &[(0, 1), (0, 2), (1, 3)]);
        assert_eq!(meta.propagate([(&all, 0.0)]), Ok(0.0));
        assert_eq!(meta.stages(), before);
    }

    #[test]
    fn refused_rounds_change_nothing() {
        let mut meta = meta(&[4]);
        let before = meta.clone();
        let (own, foreign) = (child(4, &[(0, 1), (0, 2)]), child(5, &[(0, 1), (0, 2)]));
        assert!(matches!(meta.propagate([(&own, 0.5), (&foreign, 0.5)]), Err(PropagateError::Child(_))));
        assert!(matches!(meta.propagate([(&own, f64::NAN)]), Err(PropagateError::Weight { .. })));
        assert!(matches!(meta.propagate([(&own, -0.1)]), Err(PropagateError::Weight { .. })));
        assert!(matches!(meta.propagate([(&own, 0.6), (&own, 0.6)]), Err(PropagateError::Sum { .. })));
        assert_eq!(meta, before);
    }
}
