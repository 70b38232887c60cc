//! The fixed-prior mode: marginals of a chain's law, learnt beside a prior that stays as it is.

use gram_ir::EdgeMap;

use crate::propagate::{chosen_edges, chosen_ops};
use crate::{Child, LayoutWeights, MetaGraph, OpWeights, PropagateError, StageEdges};

/// True marginals of the target, estimated from children while the sampler's prior stays `w0`.
///
/// Where [`MetaGraph::propagate`] feeds the weights back into their own prior, and so commits itself, here the prior is fixed and a second
/// set of weights follows the children: an honest map of how important each edge is. The weight of edge `i → j` converges to
/// `E_π[g_ij | i is live]`, the share of children with the edge among those of `π` in which its source is live, and that of operator `o` of
/// node `v` to `P_π(v has o | v is live)`; not to `E_π[g_ij]` over all states, to which edges out of dead nodes would add mere prior.
///
/// The rule is `w ← w + γ·(ĝ − w)` with `ĝ` as in propagation and the Robbins–Monro step `γ = U/(U + M)`: `U` is the weight of the new
/// children in which the source is live, `M` that of all earlier ones. So the weight is at any time the mean over all children, and no clip
/// holds it off 0 or 1. For children of sampler G or D at a fixed β, each with the same weight, the limit is exact with probability 1; for
/// sampler A with `softmax(β·S)` as weights it has the bias of self-normalised importance sampling within a round, which falls as the
/// rounds grow.
///
/// # Source
/// ALGORITHMS 1.5, `prior = fixed(w0)` \[ours\]; steps: Robbins and Monro, Annals of Mathematical Statistics 22 (1951).
/// # Example
/// ```
/// # use gram_ir::{space_preset, CellNodeId};
/// # use gram_meta::{Marginals, MetaConfig, MetaGraph};
/// # use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// let prior = MetaGraph::new(&space_preset("swiftnet-small").unwrap(), MetaConfig::default(), 7)?;
/// let mut marginals = Marginals::new(prior);
/// let mut rng = ChaCha8Rng::seed_from_u64(7);
/// for _ in 0..100 {
///     let child = marginals.prior().sample(&mut rng, &|_| true)?;
///     marginals.observe([(&child, 1.0)])?;
/// }
/// let weight = marginals.weights(0).and_then(|weights| weights.get(CellNodeId(0), CellNodeId(1)));
/// assert!(weight.is_some_and(|weight| (0.3..0.7).contains(weight)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Marginals {
    prior: MetaGraph,
    stages: Vec<StageMarginals>,
    layout: Vec<LayoutWeights>,
    /// Weight of all children.
    total: f64,
    n_rounds: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct StageMarginals {
    /// For each node the weight of all children in which it was live.
    live: Vec<f64>,
    weights: EdgeMap<f64>,
    op_weights: Option<OpWeights>,
}

impl Marginals {
    /// Starts at the prior's own weights, which the first child with a live source replaces.
    pub fn new(prior: MetaGraph) -> Self {
        let stages = prior.stages.iter().map(|stage| StageMarginals {
            live: vec![0.0; stage.n_nodes()],
            weights: stage.weights.clone(),
            op_weights: stage.op_weights.clone(),
        });
        let stages = stages.collect();
        Self { stages, layout: prior.layout.clone(), prior, total: 0.0, n_rounds: 0 }
    }

    /// The prior to sample from: it never changes.
    pub fn prior(&self) -> &MetaGraph {
        &self.prior
    }

    /// The marginals of a stage's edges, in `0..=1`; none if there is no such stage.
    pub fn weights(&self, stage: usize) -> Option<&EdgeMap<f64>> {
        self.stages.get(stage).map(|stage| &stage.weights)
    }

    /// The marginals of a stage's operators; none where they are dealt out.
    pub fn op_weights(&self, stage: usize) -> Option<&OpWeights> {
        self.stages.get(stage)?.op_weights.as_ref()
    }

    /// For each node of a stage the weight of the children in which it was live: how much evidence the marginals behind it rest on.
    pub fn evidence(&self, stage: usize) -> Option<&[f64]> {
        self.stages.get(stage).map(|stage| stage.live.as_slice())
    }

    /// Takes in the children of a round with their weights, which sum to 1 or less; returns the largest change of a marginal.
    ///
    /// # Errors
    /// [`PropagateError`] as for [`MetaGraph::propagate`]; nothing has changed then.
    pub fn observe<'a>(&mut self, children: impl IntoIterator<Item = (&'a Child, f64)>) -> Result<f64, PropagateError> {
        let children: Vec<(&Child, f64)> = children.into_iter().collect();
        self.prior.check_round(&children)?;
        let mut largest: f64 = 0.0;
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let kept: Vec<(&StageEdges, f64)> =
                children.iter().map(|(child, weight)| (&child.stages()[index], *weight)).collect();
            largest = largest.max(stage.observe(&kept));
        }
        largest = largest.max(self.observe_layouts(&children));
        self.n_rounds += 1;
        Ok(largest)
    }

    fn observe_layouts(&mut self, children: &[(&Child, f64)]) -> f64 {
        let new: f64 = children.iter().map(|(_, weight)| weight).sum();
        self.total += new;
        let mut largest: f64 = 0.0;
        for (index, dimension) in self.layout.iter_mut().enumerate().filter(|_| new > 0.0) {
            for (value, marginal) in dimension.weights.iter_mut().enumerate() {
                let chose = children.iter().filter(|(child, _)| usize::from(child.layout().0[index]) == value);
                let chosen: f64 = chose.map(|(_, weight)| weight).sum();
                let change = (chosen - new * *marginal) / self.total;
                largest = largest.max(change.abs());
                *marginal = (*marginal + change).clamp(0.0, 1.0);
            }
        }
        largest
    }

    /// The marginals of the layout's dimensions.
    pub fn layout(&self) -> &[LayoutWeights] {
        &self.layout
    }

    /// The prior's meta-graph with the marginals in place of its weights, clipped to `[ε, 1 − ε]`: for pruning, files and the convergence
    /// test.
    pub fn to_meta_graph(&self) -> MetaGraph {
        let mut meta = self.prior.clone();
        meta.n_rounds += self.n_rounds;
        let epsilon = meta.config.epsilon;
        for (stage, learnt) in meta.stages.iter_mut().zip(&self.stages) {
            for (weight, marginal) in stage.weights.values_mut().iter_mut().zip(learnt.weights.values()) {
                *weight = marginal.clamp(epsilon, 1.0 - epsilon);
            }
            if let Some(marginals) = &learnt.op_weights {
                let mut op_weights = marginals.clone();
                op_weights.nodes_mut().for_each(|weights| crate::op_weights::raise_to_floor(weights, epsilon));
                op_weights.keep_likeliest(&mut stage.ops);
                stage.op_weights = Some(op_weights);
            }
        }
        for (dimension, marginals) in meta.layout.iter_mut().zip(&self.layout) {
            dimension.weights.clone_from(&marginals.weights);
            crate::op_weights::raise_to_floor(&mut dimension.weights, epsilon);
        }
        meta
    }
}

impl StageMarginals {
    fn observe(&mut self, children: &[(&StageEdges, f64)]) -> f64 {
        let mut largest: f64 = 0.0;
        let mut move_to = |weight: &mut f64, chosen: f64, new: f64, all: f64| {
            // γ·(ĝ − w) with γ = new/all and ĝ = chosen/new.
            let change = (chosen - new * *weight) / all;
            largest = largest.max(change.abs());
            *weight = (*weight + change).clamp(0.0, 1.0);
        };
        let (new, chosen) = chosen_edges(self.live.len(), children);
        self.live.iter_mut().zip(&new).for_each(|(all, new)| *all += new);
        for ((from, _, &chosen), weight) in chosen.iter().zip(self.weights.values_mut()) {
            if new[from.index()] > 0.0 {
                move_to(weight, chosen, new[from.index()], self.live[from.index()]);
            }
        }
        if let Some(op_weights) = &mut self.op_weights {
            let (_, chosen) = chosen_ops(op_weights, children);
            let chosen = chosen.chunks_exact(op_weights.menu().len());
            for (node, (weights, chosen)) in (1..).zip(op_weights.nodes_mut().zip(chosen)) {
                if new[node] > 0.0 {
                    weights.iter_mut().zip(chosen).for_each(|(w, &c)| move_to(w, c, new[node], self.live[node]));
                }
            }
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::{meta, searched};
    use gram_ir::{CellNodeId, CellOp};

    fn child(edges: &[(u16, u16)]) -> Child {
        let edges = edges.iter().map(|&(from, to)| (CellNodeId(from), CellNodeId(to)));
        Child::new(vec![StageEdges::new(4, edges)])
    }

    #[test]
    fn marginals_are_means_given_a_live_source() {
        let mut marginals = Marginals::new(meta(&[4]));
        let rounds = [child(&[(0, 1), (1, 2)]), child(&[(0, 2), (0, 3)]), child(&[(0, 1), (0, 3)])];
        // Only (0,1) was in doubt before, at 0.5; the first child replaces all weights out of live nodes.
        assert_eq!(marginals.observe([(&rounds[0], 1.0)]), Ok(0.5));
        marginals.observe([(&rounds[1], 0.5), (&rounds[2], 0.5)]).unwrap();
        let weights = marginals.weights(0).unwrap().values().to_vec();
        // Order (0,1), (0,2), (1,2), (0,3), (1,3), (2,3). Node 0 was live with weight 2, node 1 with 1.5, node 2 with 1.5.
        let expected = [1.5 / 2.0, 0.5 / 2.0, 1.0 / 1.5, 1.0 / 2.0, 0.0, 0.0];
        assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{weights:?}");
        assert_eq!(marginals.evidence(0), Some([2.0, 1.5, 1.5, 1.0].as_slice()));
        assert_eq!(*marginals.prior(), meta(&[4]), "the prior is fixed");
        let learnt = marginals.to_meta_graph();
        assert_eq!(learnt.n_rounds(), 2);
        assert_eq!(learnt.stages()[0].weights().values()[4], 0.02);
        assert_eq!((marginals.weights(1), marginals.op_weights(0), marginals.evidence(1)), (None, None, None));
    }

    #[test]
    fn operators_too_and_only_of_live_nodes() {
        let mut marginals = Marginals::new(searched(&[4]));
        let with = |edges: &[(u16, u16)], op| Child::new(vec![child(edges).stages()[0].clone().with_ops(|_| op)]);
        marginals.observe([(&with(&[(0, 1), (1, 2)], CellOp::Sep3x3), 1.0)]).unwrap();
        marginals.observe([(&with(&[(0, 1), (1, 2)], CellOp::Sep3x3), 1.0)]).unwrap();
        marginals.observe([(&with(&[(0, 2), (0, 1)], CellOp::Conv1x1), 1.0)]).unwrap();
        let weights = marginals.op_weights(0).unwrap().values().to_vec();
        let third = 1.0 / 3.0;
        let expected = [third, 2.0 * third, third, 2.0 * third, 0.5, 0.5];
        assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{weights:?}");
        assert_eq!(marginals.to_meta_graph().stages()[0].ops()[..2], [CellOp::Sep3x3; 2]);
    }

    #[test]
    fn refused_rounds_change_nothing() {
        let mut marginals = Marginals::new(meta(&[4]));
        let before = marginals.clone();
        assert!(marginals.observe([(&child(&[(0, 1), (0, 2)]), f64::NAN)]).is_err());
        assert!(marginals.observe([(&Child::new(vec![]), 1.0)]).is_err());
        assert_eq!(marginals, before);
    }
}
