//! The convergence test.

use std::fmt;

use gram_ir::CellNodeId;
use serde::{Deserialize, Serialize};

use crate::{MetaConfig, MetaGraph, MetaStage};

/// Which test says that the search is done.
///
/// Low entropy proves commitment, not optimality: the weights feed their own prior.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Converged {
    /// The mean entropy of the edges has fallen to `entropy_stop_bits`.
    Entropy,
    /// The pruned child is unchanged for `stable_rounds` rounds and the weights hardly move.
    Stable,
    /// `max_rounds` are done.
    RoundsCap,
}

impl fmt::Display for Converged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entropy => "the edge weights are nearly decided (entropy)",
            Self::Stable => "pruned child and weights are stable",
            Self::RoundsCap => "the cap on rounds is reached",
        })
    }
}

/// State of the convergence test after a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Convergence {
    /// Mean entropy of an edge in bits, see [`MetaGraph::entropy_bits`].
    pub entropy_bits: f64,
    /// Moving average (0.9) of the largest change of a weight per round.
    pub change_average: f64,
    /// For how many rounds the pruned child has been the same; 0 if none was given.
    pub unchanged_rounds: usize,
    /// The test that fired, if any.
    pub converged: Option<Converged>,
}

/// Share of the old value in the moving average of changes (ALGORITHMS 1.5).
const KEEP: f64 = 0.9;

/// Watches the rounds of one search. `K` identifies a pruned child, its canonical key say.
///
/// The entropy test counts only once the entropy has been at least twice as far above its floor, the entropy of ε, as the threshold is. A
/// prior over many nodes, or one thinned for tight limits, may begin below the threshold, which proves no commitment.
///
/// # Source
/// ALGORITHMS 1.5, convergence test \[ours\]; the condition on the entropy's fall is ours as well.
#[derive(Clone, Debug)]
pub struct ConvergenceTest<K> {
    n_rounds: usize,
    /// Largest entropy so far, in bits.
    peak_bits: f64,
    change_average: Option<f64>,
    pruned: Option<K>,
    unchanged_rounds: usize,
}

impl<K: PartialEq> ConvergenceTest<K> {
    /// Starts watching a search that begins with `meta`.
    pub fn new(meta: &MetaGraph) -> Self {
        let peak_bits = meta.entropy_bits();
        Self { n_rounds: 0, peak_bits, change_average: None, pruned: None, unchanged_rounds: 0 }
    }

    /// Takes note of a round: the meta-graph after it, the largest change of a weight in it, and what pruning the meta-graph to the limits
    /// would give now (`None` where nothing is pruned; the stability test never fires then).
    pub fn observe(&mut self, meta: &MetaGraph, max_change: f64, pruned: Option<K>) -> Convergence {
        self.n_rounds += 1;
        let change_average = self.change_average.map_or(max_change, |old| KEEP * old + (1.0 - KEEP) * max_change);
        self.change_average = Some(change_average);
        let same = pruned.is_some() && pruned == self.pruned;
        self.unchanged_rounds = if same { self.unchanged_rounds + 1 } else { 0 };
        self.pruned = pruned;
        let entropy_bits = meta.entropy_bits();
        self.peak_bits = self.peak_bits.max(entropy_bits);
        let converged = self.fired(meta.config(), entropy_bits, change_average);
        Convergence { entropy_bits, change_average, unchanged_rounds: self.unchanged_rounds, converged }
    }

    fn fired(&self, config: &MetaConfig, entropy_bits: f64, change_average: f64) -> Option<Converged> {
        let floor = binary_entropy_bits(config.epsilon);
        let has_fallen = self.peak_bits - floor >= 2.0 * (config.entropy_stop_bits - floor);
        if entropy_bits <= config.entropy_stop_bits && has_fallen {
            Some(Converged::Entropy)
        } else if self.unchanged_rounds >= config.stable_rounds && change_average < config.stable_change {
            Some(Converged::Stable)
        } else {
            (self.n_rounds >= config.max_rounds).then_some(Converged::RoundsCap)
        }
    }
}

impl MetaGraph {
    /// Mean binary entropy of the edges, in bits, each weighted by how likely its source is live.
    ///
    /// Edges out of nodes that are hardly ever reached are hardly ever taught and would keep their prior's entropy for ever; the
    /// weighting leaves them out smoothly. That a node is live has probability `1 − Π (1 − P(i)·w_ij)`, sources taken as independent.
    /// Where operators are searched, a node's choice counts like an edge; its entropy is then relative to that of an even choice.
    /// So does the choice of every dimension of the layout.
    pub fn entropy_bits(&self) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for stage in &self.stages {
            let live = live_probabilities(stage);
            for (from, _, &weight) in stage.weights.iter() {
                sum += live[from.index()] * binary_entropy_bits(weight);
                total += live[from.index()];
            }
            let Some(op_weights) = stage.op_weights().filter(|weights| weights.menu().len() > 1) else { continue };
            let even = (op_weights.menu().len() as f64).log2();
            for (index, live) in live.iter().enumerate().skip(1) {
                let of_node = op_weights.of(CellNodeId(index as u16)).unwrap_or_default();
                sum += live * of_node.iter().map(|&p| entropy_term(p)).sum::<f64>() / even;
                total += live;
            }
        }
        for dimension in &self.layout {
            let even = (dimension.weights().len() as f64).log2();
            sum += dimension.weights().iter().map(|&p| entropy_term(p)).sum::<f64>() / even;
            total += 1.0;
        }
        sum / total
    }
}

/// How likely each node is live, sources taken as independent.
pub(crate) fn live_probabilities(stage: &MetaStage) -> Vec<f64> {
    let mut dead = vec![1.0; stage.n_nodes()];
    dead[CellNodeId::INPUT.index()] = 0.0;
    // Ordered by target, so a source is done before its out-edges are met.
    for (from, to, &weight) in stage.weights.iter() {
        dead[to.index()] *= 1.0 - (1.0 - dead[from.index()]) * weight;
    }
    dead.into_iter().map(|dead| 1.0 - dead).collect()
}

fn binary_entropy_bits(p: f64) -> f64 {
    entropy_term(p) + entropy_term(1.0 - p)
}

fn entropy_term(p: f64) -> f64 {
    if p > 0.0 { -p * p.log2() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::{meta, searched};

    #[test]
    fn entropy_of_undecided_and_decided_weights() {
        let mut meta = meta(&[4]);
        assert_eq!(meta.entropy_bits(), 1.0);
        meta.stages[0].weights.values_mut().fill(0.98);
        let one_edge = -(0.98 * 0.98_f64.log2() + 0.02 * 0.02_f64.log2());
        assert!((meta.entropy_bits() - one_edge).abs() < 1e-12 && one_edge < 0.15);
    }

    #[test]
    fn edges_out_of_nodes_that_are_hardly_reached_hardly_count() {
        let mut meta = meta(&[3]);
        // (0,1) at the floor: node 1 is live with probability 0.02, so (1,2) at 0.5 counts 0.02.
        meta.stages[0].weights.values_mut().copy_from_slice(&[0.02, 0.98, 0.5]);
        let floor = binary_entropy_bits(0.02);
        assert!((meta.entropy_bits() - (2.0 * floor + 0.02) / 2.02).abs() < 1e-12);
    }

    #[test]
    fn operators_count_like_edges() {
        // Of all edges decided and all operators even (one bit of one), the mean is weighted by liveness alone.
        let mut meta = searched(&[3]);
        assert!((meta.entropy_bits() - 1.0).abs() < 1e-12);
        meta.stages[0].weights.values_mut().copy_from_slice(&[0.98, 0.02, 0.02]);
        let (one, two) = (0.98, 1.0 - 0.98 * (1.0 - 0.98 * 0.02));
        let edges = binary_entropy_bits(0.02) * (1.0 + 1.0 + one);
        let expected = (edges + one + two) / (2.0 + one + one + two);
        assert!((meta.entropy_bits() - expected).abs() < 1e-12);
    }

    #[test]
    fn entropy_fires_first() {
        let mut meta = meta(&[4]);
        let mut test = ConvergenceTest::<u8>::new(&meta);
        assert_eq!(test.observe(&meta, 0.1, None).converged, None);
        meta.stages[0].weights.values_mut().fill(0.02);
        assert_eq!(test.observe(&meta, 0.1, None).converged, Some(Converged::Entropy));
    }

    #[test]
    fn a_prior_below_the_threshold_proves_nothing() {
        // The prior of 128 nodes has less than 0.20 bits per edge already.
        let mut large = meta(&[128]);
        assert!(large.entropy_bits() < 0.20);
        let mut test = ConvergenceTest::<u8>::new(&large);
        assert_eq!(test.observe(&large, 0.1, None).converged, None);
        large.thin(0.0);
        assert_eq!(test.observe(&large, 0.1, None).converged, None);
        // Once it has learnt something it may commit.
        large.stages[0].weights.values_mut().fill(0.5);
        assert_eq!(test.observe(&large, 0.1, None).converged, None);
        large.stages[0].weights.values_mut().fill(0.02);
        assert_eq!(test.observe(&large, 0.1, None).converged, Some(Converged::Entropy));
        let usual = ConvergenceTest::<u8>::new(&meta(&[30]));
        assert!(usual.peak_bits > 0.3, "30 nodes begin far enough above");
    }

    #[test]
    fn stability_needs_both_the_pruned_child_and_small_changes() {
        let meta = meta(&[4]);
        let mut test = ConvergenceTest::new(&meta);
        test.observe(&meta, 0.001, Some(1));
        for round in 1..10 {
            let state = test.observe(&meta, 0.001, Some(1));
            assert_eq!((state.unchanged_rounds, state.converged), (round, None));
        }
        assert_eq!(test.observe(&meta, 0.001, Some(1)).converged, Some(Converged::Stable));
        assert_eq!(test.observe(&meta, 0.001, Some(2)).unchanged_rounds, 0);
        let mut restless = ConvergenceTest::new(&meta);
        let fired: Vec<_> = (0..30).filter_map(|_| restless.observe(&meta, 0.02, Some(1)).converged).collect();
        assert_eq!(fired, []);
        let mut unpruned = ConvergenceTest::<u8>::new(&meta);
        assert!((0..30).all(|_| unpruned.observe(&meta, 0.0, None).converged.is_none()));
    }

    #[test]
    fn the_cap_ends_every_search() {
        let meta = meta(&[4]);
        let mut test = ConvergenceTest::<u8>::new(&meta);
        let rounds = (1..).find(|_| test.observe(&meta, 0.5, None).converged.is_some());
        assert_eq!(rounds, Some(200));
        assert_eq!(test.observe(&meta, 0.5, None).converged, Some(Converged::RoundsCap));
    }
}
