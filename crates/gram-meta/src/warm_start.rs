//! Warm start: what an earlier study learnt becomes a bolder prior.

use std::collections::BTreeMap;

use gram_ir::{CellNodeId, CellOp};

use crate::converge::live_probabilities;
use crate::meta_graph::prior_weight;
use crate::op_weights::raise_to_floor;
use crate::{LayoutWeights, MetaConfig, MetaGraph, MetaStage};

/// Share of the evidence, in logits, that is taken over by default (ALGORITHMS F3).
pub const WARM_START_RHO: f64 = 0.5;

impl MetaGraph {
    /// This meta-graph with an earlier one's evidence added to its weights: `logit w + ρ·(logit w_src − logit w_src⁰)`.
    ///
    /// `w_src⁰` is the prior that a study of the source's size starts with; what the source's children taught is the difference to it. With
    /// a stage of the same nodes and operators the evidence is taken edge by edge. With other nodes or another deal it is shared by roles:
    /// every edge from an operator to an operator (or from the input to an operator) gets the mean evidence of the source's edges between
    /// the same two, each counted by how likely its source was live; pairs that the source does not have stay as they are. Searched
    /// operators get theirs node by node, or the mean over nodes. Dimensions of the layout get it where the source has the same values.
    ///
    /// Against bad sources: ρ below 1 takes over a part; no weight leaves `[ε, 1 − ε]`; and where the in-edges of a node would be expected to
    /// be more than half of the largest in-degree (or than this meta-graph expects, if that is more), they are scaled back to that, so that
    /// a source which believes in everything cannot make children infeasible. A source that believes the opposite of what is true still
    /// misleads the search for long: put it on trial, see [`WarmTrial`](crate::WarmTrial).
    ///
    /// # Errors
    /// [`WarmStartError`] if ρ is not in `0..=1` or the numbers of stages differ.
    /// # Source
    /// ALGORITHMS F3 and F6 \[ours\]: `logit w_new = ρ·logit w_src`, which this is where the prior is 0.5, as it is up to 8 nodes. Larger stages start
    /// with `1/j`; there that formula would make even a source that learnt nothing add edges.
    pub fn warm_start(&self, source: &Self, rho: f64) -> Result<Self, WarmStartError> {
        if !(0.0..=1.0).contains(&rho) {
            return Err(WarmStartError::Rho { rho });
        }
        if self.stages.len() != source.stages.len() {
            return Err(WarmStartError::Stages { expected: self.stages.len(), got: source.stages.len() });
        }
        let mut warm = self.clone();
        let epsilon = self.config.epsilon;
        for ((stage, from), cold) in warm.stages.iter_mut().zip(&source.stages).zip(&self.stages) {
            warm_edges(stage, from, &source.config, rho, epsilon);
            warm_ops(stage, from, rho, epsilon);
            stage.bound_in_degrees(cold.weights.values(), self.max_in_degree, epsilon);
        }
        for dimension in &mut warm.layout {
            if let Some(same) = source.layout.iter().find(|other| other.dimension() == dimension.dimension()) {
                warm_layout(dimension, same, rho, epsilon);
            }
        }
        Ok(warm)
    }
}

/// The operators that a node may have, with their probabilities; the input's is none.
type Role = Vec<(Option<CellOp>, f64)>;

/// Whether nodes of both are the same nodes: as many, with the same operators or all choices.
fn same_nodes(stage: &MetaStage, source: &MetaStage) -> bool {
    let same_ops = match (&stage.op_weights, &source.op_weights) {
        (None, None) => stage.ops == source.ops,
        (Some(own), Some(other)) => own.menu() == other.menu(),
        _ => false,
    };
    stage.n_nodes() == source.n_nodes() && same_ops
}

/// Adds the evidence about edges.
fn warm_edges(stage: &mut MetaStage, source: &MetaStage, source_config: &MetaConfig, rho: f64, epsilon: f64) {
    let n_source = source.n_nodes();
    let evidence =
        source.weights.iter().map(|(_, to, &weight)| logit(weight) - logit(prior_weight(n_source, to, source_config)));
    let evidence: Vec<f64> = if same_nodes(stage, source) {
        evidence.collect()
    } else {
        let by_role = mean_by_role(source, &evidence.collect::<Vec<_>>());
        let roles = stage.roles();
        let shared = |from: CellNodeId, to: CellNodeId| -> f64 {
            let pairs = pairs(&roles[from.index()], &roles[to.index()]);
            pairs.map(|(pair, share)| share * by_role.get(&pair).copied().unwrap_or(0.0)).sum()
        };
        stage.weights.iter().map(|(from, to, _)| shared(from, to)).collect()
    };
    for (weight, evidence) in stage.weights.values_mut().iter_mut().zip(evidence) {
        *weight = sigmoid(logit(*weight) + rho * evidence).clamp(epsilon, 1.0 - epsilon);
    }
}

/// Mean evidence of the edges between each two operators, each edge counted by how likely its source is live.
fn mean_by_role(source: &MetaStage, evidence: &[f64]) -> BTreeMap<(Option<CellOp>, Option<CellOp>), f64> {
    let (live, roles) = (live_probabilities(source), source.roles());
    let mut sums: BTreeMap<_, (f64, f64)> = BTreeMap::new();
    for ((from, to, _), evidence) in source.weights.iter().zip(evidence) {
        for (pair, share) in pairs(&roles[from.index()], &roles[to.index()]) {
            let (sum, total) = sums.entry(pair).or_default();
            *sum += live[from.index()] * share * evidence;
            *total += live[from.index()] * share;
        }
    }
    sums.into_iter().map(|(pair, (sum, total))| (pair, sum / total)).collect()
}

/// Every pair of operators with the probability that the two nodes have them.
fn pairs<'a>(from: &'a Role, to: &'a Role) -> impl Iterator<Item = ((Option<CellOp>, Option<CellOp>), f64)> + 'a {
    from.iter().flat_map(move |&(a, p)| to.iter().map(move |&(b, q)| ((a, b), p * q)))
}

/// Adds the evidence about operators, where both search them.
fn warm_ops(stage: &mut MetaStage, source: &MetaStage, rho: f64, epsilon: f64) {
    let node_by_node = same_nodes(stage, source);
    let (Some(own), Some(other)) = (&mut stage.op_weights, &source.op_weights) else { return };
    let live = live_probabilities(source);
    let evidence = |node: usize, op: CellOp| -> f64 {
        let index = other.index(op);
        let weight = other.of(CellNodeId(node as u16)).zip(index).map(|(weights, index)| weights[index]);
        weight.map_or(0.0, |weight| (weight * other.menu().len() as f64).ln())
    };
    let mean = |op: CellOp| {
        let total: f64 = live.iter().skip(1).sum();
        live.iter().enumerate().skip(1).map(|(node, live)| live * evidence(node, op)).sum::<f64>() / total
    };
    let menu = own.menu().to_vec();
    let means: Vec<f64> = menu.iter().map(|&op| mean(op)).collect();
    for (node, weights) in (1..).zip(own.nodes_mut()) {
        for ((weight, &op), mean) in weights.iter_mut().zip(&menu).zip(&means) {
            *weight *= (rho * if node_by_node { evidence(node, op) } else { *mean }).exp();
        }
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        raise_to_floor(weights, epsilon);
    }
    own.keep_likeliest(&mut stage.ops);
}

/// Adds the evidence about one dimension of the layout.
fn warm_layout(own: &mut LayoutWeights, source: &LayoutWeights, rho: f64, epsilon: f64) {
    let n = own.weights.len() as f64;
    for (weight, other) in own.weights.iter_mut().zip(source.weights()) {
        *weight *= (other * n).powf(rho);
    }
    let total: f64 = own.weights.iter().sum();
    own.weights.iter_mut().for_each(|weight| *weight /= total);
    raise_to_floor(&mut own.weights, epsilon);
}

fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Why a meta-graph cannot be warm-started from another.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WarmStartError {
    /// No share.
    #[error("rho is {rho}; it must be between 0 and 1")]
    Rho {
        /// What was given.
        rho: f64,
    },
    /// Evidence is shared stage by stage.
    #[error("the source has {got} stages, the meta-graph {expected}")]
    Stages {
        /// Stages of the meta-graph.
        expected: usize,
        /// Stages of the source.
        got: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OpWeights;
    use crate::meta_graph::tests::{meta, searched};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn set(meta: &mut MetaGraph, weights: &[f64]) {
        meta.stages[0].weights.values_mut().copy_from_slice(weights);
    }

    fn weights(meta: &MetaGraph) -> Vec<f64> {
        meta.stages()[0].weights().values().to_vec()
    }

    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        let far = got.iter().zip(expected).find(|(a, b)| (**a - **b).abs() >= 1e-12);
        assert_eq!(far, None);
    }

    #[test]
    fn the_same_nodes_get_half_the_logit() {
        let (cold, mut source) = (meta(&[4]), meta(&[4]));
        set(&mut source, &[0.9, 0.1, 0.5, 0.8, 0.02, 0.2]);
        // logit 0.9 = ln 9, halved ln 3: 3/4; logit 0.8 = ln 4, halved ln 2: 2/3; 0.02 = 1/50: ln 49 halved ln 7: 1/8.
        let warm = cold.warm_start(&source, WARM_START_RHO).unwrap();
        close(&weights(&warm), &[0.75, 0.25, 0.5, 2.0 / 3.0, 0.125, 1.0 / 3.0]);
        close(&weights(&cold.warm_start(&source, 1.0).unwrap()), &weights(&source));
        assert_eq!(warm.n_rounds(), 0);
    }

    #[test]
    fn another_deal_is_taught_by_roles() {
        let (mut cold, mut source) = (meta(&[3]), meta(&[3]));
        source.stages[0].ops = vec![CellOp::Conv1x1, CellOp::Sep3x3];
        cold.stages[0].ops = vec![CellOp::Sep3x3, CellOp::Conv1x1];
        set(&mut source, &[0.9, 0.2, 0.5]);
        // Input to conv1x1 0.9 and to sep3x3 0.2, each once; conv1x1 to sep3x3 says nothing, sep3x3 to conv1x1 is unknown.
        close(&weights(&cold.warm_start(&source, 1.0).unwrap()), &[0.2, 0.9, 0.5]);
    }

    #[test]
    fn evidence_counts_by_how_likely_its_source_was_live() {
        let (mut cold, mut source) = (meta(&[3]), meta(&[4]));
        source.stages[0].ops = vec![CellOp::Conv1x1; 3];
        cold.stages[0].ops = vec![CellOp::Conv1x1; 2];
        set(&mut source, &[0.5, 0.02, 0.5, 0.02, 0.9, 0.1]);
        // Among operators: 1 → 2 nothing, 1 → 3 ln 9, both live with 0.5; 2 → 3 −ln 9, live with p = 1 − 0.98·0.75.
        let p = 1.0 - 0.98 * 0.75;
        let mean = (0.5 * 9f64.ln() - p * 9f64.ln()) / (0.5 + 0.5 + p);
        let warm = cold.warm_start(&source, 1.0).unwrap();
        assert!((weights(&warm)[2] - sigmoid(mean)).abs() < 1e-12);
        // From the input: 0, −ln 49, −ln 49.
        assert!((weights(&warm)[0] - sigmoid(-2.0 / 3.0 * 49f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn operators_are_taken_over_node_by_node_or_in_the_mean() {
        let (cold, mut source) = (searched(&[3]), searched(&[3]));
        let menu = source.stages[0].op_weights.as_ref().unwrap().menu().to_vec();
        source.stages[0].op_weights = Some(OpWeights::from_parts(menu, vec![0.9, 0.1, 0.2, 0.8]));
        let ops = |meta: &MetaGraph| meta.stages()[0].op_weights().unwrap().values().to_vec();
        let warm = cold.warm_start(&source, 0.5).unwrap();
        close(&ops(&warm), &[0.75, 0.25, 1.0 / 3.0, 2.0 / 3.0]);
        assert_eq!(warm.stages()[0].ops(), [CellOp::Conv1x1, CellOp::Sep3x3]);
        // Node 1 is live with 0.5, node 2 with 0.625: log-odds of conv1x1 in the mean.
        let odds = (0.5 * 9f64.ln() - 0.625 * 4f64.ln()) / 1.125;
        let larger = ops(&searched(&[4]).warm_start(&source, 1.0).unwrap());
        close(&larger, &[sigmoid(odds), sigmoid(-odds)].repeat(3));
    }

    #[test]
    fn a_source_that_learnt_nothing_changes_nothing() {
        for cold in [meta(&[4]), meta(&[8]), meta(&[30]), meta(&[128]), searched(&[30])] {
            for source in [meta(&[4]), meta(&[30]), searched(&[9]), searched(&[30])] {
                close(&weights(&cold.warm_start(&source, 0.5).unwrap()), &weights(&cold));
            }
            close(&weights(&cold.warm_start(&meta(&[5]), 0.0).unwrap()), &weights(&cold));
        }
    }

    #[test]
    fn a_source_that_believes_in_everything_leaves_children_feasible() {
        for n_nodes in [8, 30, 128] {
            let (cold, mut source) = (meta(&[n_nodes]), meta(&[n_nodes]));
            source.stages[0].weights.values_mut().iter_mut().for_each(|weight| *weight = 1.0 - weight.max(0.02));
            let warm = cold.warm_start(&source, 1.0).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            assert!((0..20).all(|_| warm.sample(&mut rng, &|_| true).is_ok()), "{n_nodes} nodes");
            assert!(weights(&warm).iter().all(|weight| (0.02..=0.98).contains(weight)));
        }
    }

    #[test]
    fn other_stages_and_shares_are_refused() {
        let cold = meta(&[4, 4]);
        let refused = |source: &MetaGraph, rho| cold.warm_start(source, rho).unwrap_err().to_string();
        assert_eq!(refused(&meta(&[4]), 0.5), "the source has 1 stages, the meta-graph 2");
        assert_eq!(refused(&cold, 1.5), "rho is 1.5; it must be between 0 and 1");
        assert!(cold.warm_start(&cold, f64::NAN).is_err());
    }
}
