//! Propagation along roles: what a child teaches an edge it also teaches all edges between the same two operators.

use std::collections::BTreeMap;

use gram_ir::{CellNodeId, CellOp};

use crate::converge::live_probabilities;
use crate::op_weights::raise_to_floor;
use crate::propagate::{propagate_ops, propagate_stage};
use crate::{Child, MetaGraph, MetaStage, PropagateError, StageEdges};

/// How much of a round's credit goes where; see [`MetaGraph::propagate_roles`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Credit {
    /// Share of the plain rule's step, to the children's own edges and operators, in `0..=1`.
    pub own: f64,
    /// Share of the roles' step, to all edges and operators of the same role, in `0..=1`.
    pub roles: f64,
}

impl MetaGraph {
    /// Propagates credit to the children's own edges, as [`MetaGraph::propagate`] does, and along roles; returns the largest change of a
    /// weight.
    ///
    /// The role of an edge is the pair of operators `(a, b)` that it joins, `a` being the input for edges out of node 0. Let `n_ab` be the
    /// mean number of such edges in a child, `n_ab(u)` over the children with their weights and `n_ab(v)` over the `reference`: children
    /// drawn from the prior, whatever they scored. For sampler A that is the round itself; for chains, a sample of [`MetaGraph::sample`].
    /// Then every edge with that role moves by
    ///
    /// `logit w ← logit w + credit.roles·η·(n_ab(u) − U·n_ab(v)) / (1 + V_ab)`,
    ///
    /// also if its source was dead in all children. `U` is the sum of the weights and `V_ab` the variance of the number of such edges under
    /// the prior, `Σ P(i live)·w_ij·(1 − w_ij)`, sources taken as independent: this is natural-gradient ascent for weights that share one
    /// parameter per role, damped by one edge. Where operators are searched, an edge takes the steps of the roles that it may have, by
    /// their probabilities, and every node's log-weight of operator `o` takes such a step for the number of live nodes with `o`.
    ///
    /// No such step raises the in-degree that is expected of a node above half of the largest one: all edges of a role rise together, and
    /// children would soon not be feasible any more.
    ///
    /// *Invariance.* The numbers are the same for children that are equal up to renaming of nodes, so the roles' step is the same too; with
    /// `own: 0.0` it is all that is taught. With `roles: 0.0` and `own: 1.0` this is [`MetaGraph::propagate`], bit for bit. Equal scores
    /// teach roles nothing: where children and reference are the same sample with the same weights, their step is zero.
    ///
    /// # Errors
    /// [`PropagateError`] as for [`MetaGraph::propagate`], and if a share is not in `0..=1`, or roles get one without a reference; the meta-graph
    /// is unchanged then.
    /// # Source
    /// \[ours\], after the paper's notion of graph propagation (arXiv:1906.08305), of which its text gives no formula.
    pub fn propagate_roles<'a>(
        &mut self,
        children: impl IntoIterator<Item = (&'a Child, f64)>,
        reference: impl IntoIterator<Item = &'a Child>,
        credit: Credit,
    ) -> Result<f64, PropagateError> {
        let children: Vec<(&Child, f64)> = children.into_iter().collect();
        let reference: Vec<&Child> = reference.into_iter().collect();
        self.check_round(&children)?;
        for child in &reference {
            self.check_child(child)?;
        }
        let in_range = [credit.own, credit.roles].iter().all(|share| (0.0..=1.0).contains(share));
        if !in_range || (credit.roles > 0.0 && reference.is_empty()) {
            return Err(PropagateError::Credit { credit, n_reference: reference.len() });
        }
        let total: f64 = children.iter().map(|(_, weight)| weight).sum();
        let each = total / reference.len().max(1) as f64;
        let (eta, epsilon) = (self.config.eta, self.config.epsilon);
        let mut largest: f64 = 0.0;
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let kept: Vec<(&StageEdges, f64)> =
                children.iter().map(|(child, weight)| (&child.stages()[index], *weight)).collect();
            let before = stage.clone();
            let steps = Steps::of(stage, &kept, reference.iter().map(|child| (&child.stages()[index], each)));
            if credit.own > 0.0 {
                propagate_stage(stage, &kept, credit.own * eta, epsilon);
                propagate_ops(stage, &kept, credit.own * eta, epsilon);
            }
            if credit.roles > 0.0 {
                let own = stage.weights.values().to_vec();
                steps.apply(stage, &before, credit.roles * eta, epsilon);
                stage.bound_in_degrees(&own, self.max_in_degree, epsilon);
            }
            largest = largest.max(largest_change(&before, stage));
        }
        if credit.own > 0.0 {
            largest = largest.max(self.propagate_layout(&children, credit.own * eta));
        }
        self.n_rounds += 1;
        Ok(largest)
    }
}

/// An operator, or none for the input.
type Role = Option<CellOp>;

/// How often something occurs in a child.
#[derive(Clone, Copy, Debug, Default)]
struct Occurrence {
    /// Under the children's weights.
    taught: f64,
    /// In the reference.
    expected: f64,
    /// Variance under the prior.
    variance: f64,
}

impl Occurrence {
    /// Step of a logit, in units of `η`.
    fn step(self) -> f64 {
        (self.taught - self.expected) / (1.0 + self.variance)
    }
}

/// What a round teaches the roles of one stage.
#[derive(Default)]
struct Steps {
    edges: BTreeMap<(Role, Role), Occurrence>,
    ops: BTreeMap<Role, Occurrence>,
}

impl Steps {
    fn of<'a>(
        stage: &MetaStage,
        taught: &[(&StageEdges, f64)],
        expected: impl Iterator<Item = (&'a StageEdges, f64)>,
    ) -> Self {
        let mut steps = Self::default();
        for &(kept, weight) in taught {
            steps.count(stage, kept, |occurrence| occurrence.taught += weight);
        }
        for (kept, weight) in expected {
            steps.count(stage, kept, |occurrence| occurrence.expected += weight);
        }
        steps.add_variances(stage);
        steps
    }

    /// Names the role of every kept edge and of every live operator node.
    fn count(&mut self, stage: &MetaStage, kept: &StageEdges, add: impl Fn(&mut Occurrence)) {
        let role = |id: CellNodeId| (id != CellNodeId::INPUT).then(|| stage.op(kept, id));
        kept.edges().for_each(|(from, to)| add(self.edges.entry((role(from), role(to))).or_default()));
        let ids = (1..stage.n_nodes()).map(|id| CellNodeId(id as u16));
        ids.filter(|&id| kept.is_live(id)).for_each(|id| add(self.ops.entry(role(id)).or_default()));
    }

    fn add_variances(&mut self, stage: &MetaStage) {
        let (live, roles) = (live_probabilities(stage), stage.roles());
        for (from, to, weight) in stage.weights.iter() {
            for (&(a, p), &(b, q)) in
                roles[from.index()].iter().flat_map(|a| roles[to.index()].iter().map(move |b| (a, b)))
            {
                let variance = p * q * live[from.index()] * weight * (1.0 - weight);
                self.edges.entry((a, b)).or_default().variance += variance;
            }
        }
        for (live, roles) in live.iter().zip(&roles).skip(1) {
            for &(op, p) in roles {
                self.ops.entry(op).or_default().variance += live * p * (1.0 - p);
            }
        }
    }

    /// Adds the steps, times `rate`; operators that a node may have are as probable as in `before`.
    fn apply(&self, stage: &mut MetaStage, before: &MetaStage, rate: f64, epsilon: f64) {
        let edge = |pair: (Role, Role)| self.edges.get(&pair).copied().unwrap_or_default().step();
        let roles = before.roles();
        let step = |from: CellNodeId, to: CellNodeId| -> f64 {
            let targets = &roles[to.index()];
            let of_source = |&(a, p): &(Role, f64)| targets.iter().map(|&(b, q)| p * q * edge((a, b))).sum::<f64>();
            roles[from.index()].iter().map(of_source).sum()
        };
        let steps: Vec<f64> = before.weights.iter().map(|(from, to, _)| step(from, to)).collect();
        for (weight, step) in stage.weights.values_mut().iter_mut().zip(steps).filter(|(_, step)| *step != 0.0) {
            let odds = *weight / (1.0 - *weight) * (rate * step).exp();
            *weight = (odds / (1.0 + odds)).clamp(epsilon, 1.0 - epsilon);
        }
        let Some(op_weights) = &mut stage.op_weights else { return };
        let factor = |&op: &CellOp| (rate * self.ops.get(&Some(op)).copied().unwrap_or_default().step()).exp();
        let factors: Vec<f64> = op_weights.menu().iter().map(factor).collect();
        for weights in op_weights.nodes_mut() {
            let total: f64 = weights.iter().zip(&factors).map(|(weight, factor)| weight * factor).sum();
            weights.iter_mut().zip(&factors).for_each(|(weight, factor)| *weight *= factor / total);
            raise_to_floor(weights, epsilon);
        }
        op_weights.keep_likeliest(&mut stage.ops);
    }
}

fn largest_change(before: &MetaStage, after: &MetaStage) -> f64 {
    let ops = |stage: &MetaStage| stage.op_weights.as_ref().map_or(Vec::new(), |weights| weights.values().to_vec());
    let edges = before.weights.values().iter().copied().zip(after.weights.values().iter().copied());
    let changes = edges.chain(ops(before).into_iter().zip(ops(after))).map(|(old, new)| (new - old).abs());
    changes.fold(0.0, f64::max)
}

impl MetaStage {
    /// For each node the operators that it may have, with their probabilities; none is the input's.
    pub(crate) fn roles(&self) -> Vec<Vec<(Role, f64)>> {
        let of_node = |node: usize| match &self.op_weights {
            _ if node == 0 => vec![(None, 1.0)],
            None => vec![(Some(self.ops[node - 1]), 1.0)],
            Some(weights) => {
                let probabilities = weights.of(CellNodeId(node as u16)).unwrap_or_default();
                weights.menu().iter().map(|&op| Some(op)).zip(probabilities.iter().copied()).collect()
            }
        };
        (0..self.n_nodes()).map(of_node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::{meta, searched};

    fn child(edges: &[(u16, u16)]) -> Child {
        let edges = edges.iter().map(|&(from, to)| (CellNodeId(from), CellNodeId(to)));
        Child::new(vec![StageEdges::new(4, edges)])
    }

    const ROLES: Credit = Credit { own: 0.0, roles: 1.0 };

    fn close(got: &[f64], expected: &[f64]) {
        assert!(got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{got:?}");
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn one_round_by_hand() {
        let mut meta = meta(&[4]);
        meta.stages[0].ops = vec![CellOp::Conv1x1, CellOp::Sep3x3, CellOp::Conv1x1];
        let children = [child(&[(0, 1), (0, 3)]), child(&[(0, 1), (1, 2)])];
        let largest = meta.propagate_roles([(&children[0], 0.75), (&children[1], 0.25)], &children, ROLES).unwrap();
        // All weights are 0.5, so an edge whose source is live for sure has variance 0.25; node 1 is live with probability 0.5.
        // Input to conv1x1: 2·0.75 + 0.25 = 1.75 taught, 1.5 expected, two edges; conv1x1 to sep3x3: 0.25 taught, 0.5 expected, one edge.
        let (input, conv) = (0.2 * 0.25 / 1.5, -0.2 * 0.25 / 1.125);
        // Order (0,1), (0,2), (1,2), (0,3), (1,3), (2,3).
        let expected = [sigmoid(input), 0.5, sigmoid(conv), sigmoid(input), 0.5, 0.5];
        close(meta.stages()[0].weights().values(), &expected);
        assert!((largest - (0.5 - sigmoid(conv))).abs() < 1e-15);
        assert_eq!(meta.n_rounds(), 1);
    }

    #[test]
    fn searched_operators_by_hand() {
        let mut meta = searched(&[4]);
        let with = |edges: &[(u16, u16)], op| Child::new(vec![child(edges).stages()[0].clone().with_ops(|_| op)]);
        let children = [with(&[(0, 1), (0, 2)], CellOp::Sep3x3), with(&[(0, 1), (0, 2)], CellOp::Conv1x1)];
        meta.propagate_roles([(&children[0], 1.0), (&children[1], 0.0)], &children, ROLES).unwrap();
        // Edges from the input and live nodes alike: sep3x3 2 taught, 1 expected; conv1x1 0 taught, 1 expected. The steps of an edge, which
        // has either role with probability 0.5, cancel. Nodes are live with 0.5, 0.625, 1 − 0.5·0.75·0.6875.
        let variance = 0.25 * (0.5 + 0.625 + 1.0 - 0.5 * 0.75 * 0.6875);
        let share = sigmoid(-2.0 * 0.2 / (1.0 + variance));
        close(meta.stages()[0].op_weights().unwrap().values(), &[share, 1.0 - share].repeat(3));
        close(meta.stages()[0].weights().values(), &[0.5; 6]);
        assert_eq!(meta.stages()[0].ops(), [CellOp::Sep3x3; 3]);
    }

    #[test]
    fn equal_scores_teach_roles_nothing() {
        let mut meta = meta(&[4]);
        let before = meta.stages().to_vec();
        let children = [child(&[(0, 1), (0, 3)]), child(&[(0, 1), (1, 2)])];
        assert_eq!(meta.propagate_roles(children.iter().map(|child| (child, 0.5)), &children, ROLES), Ok(0.0));
        assert_eq!(meta.stages(), before);
    }

    #[test]
    fn refused_rounds_change_nothing() {
        let mut meta = meta(&[4]);
        let before = meta.clone();
        let (own, foreign) = (child(&[(0, 1), (0, 2)]), Child::new(Vec::new()));
        let both = |own, roles| Credit { own, roles };
        for credit in [both(1.0, 1.5), both(-0.1, 0.5), both(f64::NAN, 0.5), both(1.0, f64::NAN)] {
            let refused = meta.propagate_roles([(&own, 1.0)], [&own], credit);
            assert!(matches!(refused, Err(PropagateError::Credit { .. })));
        }
        assert!(matches!(meta.propagate_roles([(&own, 1.0)], [], ROLES), Err(PropagateError::Credit { .. })));
        assert!(matches!(meta.propagate_roles([(&own, 1.0)], [&foreign], ROLES), Err(PropagateError::Child(_))));
        assert!(matches!(meta.propagate_roles([(&own, 2.0)], [&own], ROLES), Err(PropagateError::Sum { .. })));
        assert_eq!(meta, before);
        assert!(meta.propagate_roles([(&own, 1.0)], [], both(1.0, 0.0)).is_ok());
    }
}
