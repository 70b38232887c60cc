//! Sampler A: ancestral sampling from the prior, restricted to the feasible set.

use gram_ir::MIN_LIVE_NODES;
use rand::{Rng, RngExt};

use crate::child::{NodeSet, members};
use crate::{Child, MetaGraph, MetaStage, StageEdges};

/// So many structures of one stage are drawn before [`SampleError::NoStructure`].
pub const MAX_STRUCTURE_TRIES: usize = 1_000_000;

/// So many whole children may be refused by the caller before [`SampleError::Refused`].
pub const MAX_REFUSED: usize = 20_000;

impl MetaGraph {
    /// Draws a child from the prior restricted to the feasible set: sampler A at β = 0.
    ///
    /// Feasible: each stage has two or more live operator nodes, no live node has more in-edges from live nodes than the space's maximum,
    /// and `accept` (limits on exact costs, say) holds. The restriction is by rejection, which is exact: stages are independent under the
    /// prior and the structural rules are about one stage's edges each, so those are rejected stage by stage, before operators are drawn
    /// for its live nodes where they are searched; `accept` rejects whole children, layouts included.
    ///
    /// # Errors
    /// [`SampleError`] where the feasible set is so rare under the prior that the bounded number of tries does not meet it.
    /// # Source
    /// The *adaptive* sampler of the sibling code (ALGORITHMS 1.4) and sampler A of ALGORITHMS 1.5 \[ours\].
    /// # Complexity
    /// One Bernoulli draw per edge from a live source and try, and one draw per live node where operators are searched.
    pub fn sample(&self, rng: &mut impl Rng, accept: &dyn Fn(&Child) -> bool) -> Result<Child, SampleError> {
        for _ in 0..MAX_REFUSED {
            let child = self.sample_structure(rng)?;
            if accept(&child) {
                return Ok(child);
            }
        }
        Err(SampleError::Refused { tries: MAX_REFUSED })
    }

    fn sample_structure(&self, rng: &mut impl Rng) -> Result<Child, SampleError> {
        let stage = |(index, meta): (usize, &MetaStage)| {
            let mut tries = (0..MAX_STRUCTURE_TRIES).map(|_| draw_stage(meta, self.max_in_degree, rng));
            let kept = tries.find_map(|edges| edges).ok_or(SampleError::NoStructure {
                stage: index,
                tries: MAX_STRUCTURE_TRIES,
                max_in_degree: self.max_in_degree,
            })?;
            Ok(draw_ops(meta, kept, rng))
        };
        let stages = self.stages.iter().enumerate().map(stage).collect::<Result<_, _>>()?;
        Ok(Child::new(stages).with_layout(self.draw_layout(rng)))
    }
}

/// The same edges with an operator from the prior for every live node, where operators are searched.
fn draw_ops(meta: &MetaStage, kept: StageEdges, rng: &mut impl Rng) -> StageEdges {
    match &meta.op_weights {
        None => kept,
        Some(weights) => kept.with_ops(|node| {
            let of_node = weights.of(node).unwrap_or_default();
            weights.menu()[draw_index(of_node, rng)]
        }),
    }
}

/// An index with these probabilities, which sum to 1 but for rounding; never one of probability 0.
pub(crate) fn draw_index(probabilities: &[f64], rng: &mut impl Rng) -> usize {
    let mut left = rng.random::<f64>();
    let mut last = 0;
    for (index, &probability) in probabilities.iter().enumerate().filter(|(_, probability)| **probability > 0.0) {
        last = index;
        left -= probability;
        if left < 0.0 {
            break;
        }
    }
    last
}

/// One draw from the stage's prior; none if it is not feasible.
///
/// Nodes ascend, so whether a source is live is known when its out-edges are drawn. A try ends at the first node with too many in-edges.
fn draw_stage(meta: &MetaStage, max_in_degree: usize, rng: &mut impl Rng) -> Option<StageEdges> {
    let n_nodes = meta.n_nodes();
    let mut sources: Vec<NodeSet> = vec![0; n_nodes];
    let mut live: NodeSet = 1;
    let mut weights = meta.weights.values();
    for (node, kept) in sources.iter_mut().enumerate().skip(1) {
        let (in_weights, rest) = weights.split_at(node);
        weights = rest;
        for from in members(live) {
            if rng.random::<f64>() < in_weights[from] {
                *kept |= 1 << from;
            }
        }
        if kept.count_ones() as usize > max_in_degree {
            return None;
        }
        live |= NodeSet::from(*kept != 0) << node;
    }
    let n_live_operators = live.count_ones() as usize - 1;
    (n_live_operators >= MIN_LIVE_NODES).then(|| StageEdges::from_sources(sources))
}

/// Why no child could be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The weights of a stage hardly ever give a feasible structure.
    #[error(
        "stage {stage}: none of {tries} drawn structures has 2 or more live nodes and no more than {max_in_degree} inputs per node; raise max_in_degree or use fewer nodes"
    )]
    NoStructure {
        /// Index of the stage, from 0.
        stage: usize,
        /// Structures drawn.
        tries: usize,
        /// Largest in-degree.
        max_in_degree: usize,
    },
    /// The caller's rule refuses (nearly) all children.
    #[error("none of {tries} drawn children keeps the limits")]
    Refused {
        /// Children drawn.
        tries: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::meta;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn children_are_feasible_and_by_seed() {
        let meta = meta(&[8, 30, 3]);
        let draw = || {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            (0..100).map(|_| meta.sample(&mut rng, &|_| true).unwrap()).collect::<Vec<_>>()
        };
        let children = draw();
        assert_eq!(children, draw());
        for stage in children.iter().flat_map(Child::stages) {
            assert!(stage.n_live_operators() >= 2 && stage.max_in_degree() <= 4);
        }
    }

    #[test]
    fn the_callers_rule_is_part_of_the_feasible_set() {
        let meta = meta(&[6]);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let few = |child: &Child| child.stages()[0].n_edges() <= 2;
        assert!((0..100).all(|_| few(&meta.sample(&mut rng, &few).unwrap())));
        assert_eq!(meta.sample(&mut rng, &|_| false), Err(SampleError::Refused { tries: MAX_REFUSED }));
    }

    /// The acceptance that the initial weights must have for plain rejection to be cheap.
    #[test]
    fn initial_weights_are_mostly_feasible() {
        for (n_nodes, least) in [(4, 0.5), (8, 0.3), (9, 0.5), (30, 0.5), (128, 0.3)] {
            let meta = meta(&[n_nodes]);
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let accepted = (0..2000).filter(|_| draw_stage(&meta.stages[0], 4, &mut rng).is_some()).count();
            let rate = accepted as f64 / 2000.0;
            assert!(rate >= least, "{n_nodes} nodes: {rate}");
        }
    }

    #[test]
    fn weights_that_overfill_every_node_are_an_error_with_the_stage() {
        let mut meta = meta(&[3, 128]);
        meta.stages[1].weights.values_mut().fill(0.98);
        let error = meta.sample(&mut ChaCha8Rng::seed_from_u64(0), &|_| true).unwrap_err();
        assert!(matches!(error, SampleError::NoStructure { stage: 1, .. }), "{error}");
    }
}
