//! Where a chain stands: all pairs of nodes, those out of dead nodes included.

use gram_ir::{CellNodeId, EdgeMap};
use rand::{Rng, RngExt};

use super::Site;
use crate::child::NodeSet;
use crate::sample::draw_index;
use crate::{Child, MetaGraph, MetaGraphError, MetaStage, SampleError, StageEdges};

/// A point `g` of a chain's space, with its canonical child `c(g)`.
///
/// Edges out of dead nodes and operators of dead nodes are part of it; they enter neither scores nor feasibility, and wait for their
/// node to come to life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainState {
    stages: Vec<StageState>,
    child: Child,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StageState {
    /// For each node the sources of its in-edges, dead ones included.
    sources: Vec<NodeSet>,
    /// For each node the place of its operator on the menu (0 for the input); empty where operators are dealt out.
    ops: Vec<usize>,
}

impl ChainState {
    /// A point of the prior restricted to the feasible set: where chains start that know nothing.
    ///
    /// # Errors
    /// [`SampleError`] where the feasible set is so rare that the bounded number of tries does not meet it.
    pub fn draw(meta: &MetaGraph, rng: &mut impl Rng, accept: &dyn Fn(&Child) -> bool) -> Result<Self, SampleError> {
        let child = meta.sample(rng, accept)?;
        Ok(Self::fill(meta, child, rng))
    }

    /// A point whose canonical child is `child`; what the child leaves open is drawn from the prior, which is its exact law given the
    /// child.
    ///
    /// # Errors
    /// [`MetaGraphError`] if the child is not of this meta-graph.
    pub fn around(meta: &MetaGraph, child: &Child, rng: &mut impl Rng) -> Result<Self, MetaGraphError> {
        meta.check_child(child)?;
        Ok(Self::fill(meta, child.clone(), rng))
    }

    fn fill(meta: &MetaGraph, child: Child, rng: &mut impl Rng) -> Self {
        let stages = meta.stages.iter().zip(child.stages());
        Self { stages: stages.map(|(meta, kept)| StageState::fill(meta, kept, rng)).collect(), child }
    }

    /// The canonical child.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Which option the site has: for an edge 1 where it is there, else 0; for an operator its place on the menu; for a dimension of the layout
    /// the place of its value.
    pub(super) fn option(&self, site: Site) -> usize {
        match site {
            Site::Edge { stage, from, to } => {
                usize::from(self.stages[stage].sources[to.index()] >> from.index() & 1 == 1)
            }
            Site::Op { stage, node } => self.stages[stage].ops[node.index()],
            Site::Layout { dimension } => usize::from(self.child.layout().0[dimension]),
        }
    }

    /// Whether the site enters the canonical child: its source, or the node itself, is live.
    pub(super) fn is_live(&self, site: Site) -> bool {
        match site {
            Site::Edge { stage, from, .. } => self.child.stages()[stage].is_live(from),
            Site::Op { stage, node } => self.child.stages()[stage].is_live(node),
            Site::Layout { .. } => true,
        }
    }

    /// Gives the site an option.
    ///
    /// # Complexity
    /// One step per node of the stage from the site's on.
    pub(super) fn set(&mut self, meta: &MetaGraph, site: Site, option: usize) {
        match site {
            Site::Edge { stage, from, to } => {
                let sources = &mut self.stages[stage].sources[to.index()];
                *sources = *sources & !(1 << from.index()) | (option as NodeSet) << from.index();
                self.follow(meta, stage, to);
            }
            Site::Op { stage, node } => {
                self.stages[stage].ops[node.index()] = option;
                self.follow(meta, stage, node);
            }
            Site::Layout { dimension } => self.child.choose(dimension, option as u8),
        }
    }

    fn follow(&mut self, meta: &MetaGraph, stage: usize, first: CellNodeId) {
        let state = &self.stages[stage];
        let kept = self.child.stage_mut(stage);
        match &meta.stages[stage].op_weights {
            None => kept.follow(&state.sources, first.index(), None),
            Some(weights) => {
                kept.follow(&state.sources, first.index(), Some(&|node| weights.menu()[state.ops[node]]));
            }
        }
    }
}

impl StageState {
    fn fill(meta: &MetaStage, kept: &StageEdges, rng: &mut impl Rng) -> Self {
        let live = kept.live();
        let mut sources = kept.sources().to_vec();
        let mut weights = meta.weights.values();
        for (to, sources) in sources.iter_mut().enumerate().skip(1) {
            let (in_weights, rest) = weights.split_at(to);
            weights = rest;
            for (from, &weight) in in_weights.iter().enumerate() {
                if live >> from & 1 == 0 && rng.random::<f64>() < weight {
                    *sources |= 1 << from;
                }
            }
        }
        let ops = meta.op_weights.as_ref().map(|weights| {
            let op = |node: usize| {
                let node = CellNodeId(node as u16);
                let chosen = kept.op(node).and_then(|op| weights.index(op));
                chosen.unwrap_or_else(|| weights.of(node).map_or(0, |of_node| draw_index(of_node, rng)))
            };
            (0..meta.n_nodes()).map(op).collect()
        });
        Self { sources, ops: ops.unwrap_or_default() }
    }
}

/// Position of an edge in its stage's weights.
pub(super) fn position(from: CellNodeId, to: CellNodeId) -> usize {
    EdgeMap::<f64>::position(from, to)
}
