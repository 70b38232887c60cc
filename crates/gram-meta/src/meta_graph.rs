//! The meta-graph: dealt operators and edge weights of every stage.

use gram_ir::{
    Blueprint, Cell, CellError, CellNodeId, CellOp, EdgeMap, Layout, MIN_LIVE_NODES, NodeOperators, Space, SpaceError,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{Child, LayoutWeights, MetaConfig, MetaConfigError, OpWeights, StageEdges};

/// Up to so many nodes the complete DAG starts with weight 0.5 everywhere (ALGORITHMS 1.5).
const DENSE_NODES: usize = 8;

/// Meta-knowledge about one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct MetaStage {
    pub(crate) ops: Vec<CellOp>,
    pub(crate) weights: EdgeMap<f64>,
    pub(crate) op_weights: Option<OpWeights>,
}

impl MetaStage {
    /// Nodes of the complete DAG, the input among them.
    pub fn n_nodes(&self) -> usize {
        self.weights.n_nodes()
    }

    /// The operator dealt to each node: `ops()[0]` is node 1's, for the input has none. Where operators are searched, each node's
    /// likeliest.
    pub fn ops(&self) -> &[CellOp] {
        &self.ops
    }

    /// The belief in each edge, in `[ε, 1 − ε]`: the probability that a child keeps it, given that its source is live.
    pub fn weights(&self) -> &EdgeMap<f64> {
        &self.weights
    }

    /// The belief in each operator of each node; none where operators are dealt out.
    pub fn op_weights(&self) -> Option<&OpWeights> {
        self.op_weights.as_ref()
    }

    /// The operator of a live node of a child of this stage.
    pub(crate) fn op(&self, kept: &StageEdges, node: CellNodeId) -> CellOp {
        kept.op(node).unwrap_or(self.ops[node.index() - 1])
    }
}

/// What the children so far taught about a space's edges.
///
/// # Source
/// Meta-graph: arXiv:1906.08305. Operators dealt by a shuffle: AutoShrink (sibling code). Initial weights: ALGORITHMS 1.5 \[ours\].
#[derive(Clone, Debug, PartialEq)]
pub struct MetaGraph {
    pub(crate) space_name: String,
    pub(crate) max_in_degree: usize,
    pub(crate) config: MetaConfig,
    pub(crate) n_rounds: usize,
    pub(crate) stages: Vec<MetaStage>,
    pub(crate) layout: Vec<LayoutWeights>,
}

impl MetaGraph {
    /// The meta-graph of a space before any child: operators dealt out by `seed`, every edge at its prior.
    ///
    /// The operators' list is repeated to the number of operator nodes and shuffled, stage by stage. Edge `i → j` starts at 0.5 where the
    /// stage has at most 8 nodes and at `min(0.5, 1/j)` otherwise, which gives an expected in-degree of at most 1; both clipped to
    /// `[ε, 1 − ε]`.
    ///
    /// Where operators are searched, each node begins with all of them alike; the deal merely says which to take of equally likely ones.
    /// What the space leaves open besides begins with all values alike.
    ///
    /// # Errors
    /// [`MetaGraphError`] if the space or the configuration is not usable.
    pub fn new(space: &Space, config: MetaConfig, seed: u64) -> Result<Self, MetaGraphError> {
        space.verify()?;
        config.verify()?;
        let stage = |(index, n_nodes): (usize, usize)| {
            let mut stage = MetaStage {
                ops: deal(&space.operators, n_nodes - 1, seed, index),
                weights: EdgeMap::from_fn(n_nodes, |_, to| prior_weight(n_nodes, to, &config)),
                op_weights: None,
            };
            if space.node_operators == NodeOperators::Searched {
                let op_weights = OpWeights::prior(&space.operators, n_nodes - 1);
                op_weights.keep_likeliest(&mut stage.ops);
                stage.op_weights = Some(op_weights);
            }
            stage
        };
        Ok(Self {
            space_name: space.name.clone(),
            max_in_degree: space.max_in_degree,
            config,
            n_rounds: 0,
            stages: space.stages.iter().map(|stage| stage.nodes).enumerate().map(stage).collect(),
            layout: LayoutWeights::prior(space),
        })
    }

    /// Hyper-parameters.
    pub fn config(&self) -> &MetaConfig {
        &self.config
    }

    /// Name of the space.
    pub fn space_name(&self) -> &str {
        &self.space_name
    }

    /// Largest in-degree of a node of a child.
    pub fn max_in_degree(&self) -> usize {
        self.max_in_degree
    }

    /// Rounds that were propagated.
    pub fn n_rounds(&self) -> usize {
        self.n_rounds
    }

    /// Meta-knowledge about each stage, in order.
    pub fn stages(&self) -> &[MetaStage] {
        &self.stages
    }

    /// Multiplies every weight by `factor`, within `[ε, 1 − ε]`: a factor below 1 makes smaller children likelier.
    pub fn thin(&mut self, factor: f64) {
        let (low, high) = (self.config.epsilon, 1.0 - self.config.epsilon);
        for weight in self.stages.iter_mut().flat_map(|stage| stage.weights.values_mut()) {
            *weight = (*weight * factor).clamp(low, high);
        }
    }

    /// The cells of a child, one per stage: live nodes with their operators, edges from live sources. Ids are the meta-graph's.
    ///
    /// # Errors
    /// [`MetaGraphError::Foreign`] if the child is not of this meta-graph.
    pub fn cells(&self, child: &Child) -> Result<Vec<Cell>, MetaGraphError> {
        self.check_child(child)?;
        self.stages.iter().zip(child.stages()).map(|(meta, kept)| cell(meta, kept)).collect()
    }

    /// Layout and cells of a child; see [`MetaGraph::cells`].
    ///
    /// # Errors
    /// [`MetaGraphError::Foreign`] if the child is not of this meta-graph.
    pub fn blueprint(&self, child: &Child) -> Result<Blueprint, MetaGraphError> {
        Ok(Blueprint { layout: child.layout().clone(), cells: self.cells(child)? })
    }

    /// Whether each stage has two or more live operator nodes and no in-degree above the maximum.
    pub(crate) fn is_feasible(&self, child: &Child) -> bool {
        let fits =
            |kept: &StageEdges| kept.n_live_operators() >= MIN_LIVE_NODES && kept.max_in_degree() <= self.max_in_degree;
        child.stages().iter().all(fits)
    }

    pub(crate) fn check_child(&self, child: &Child) -> Result<(), MetaGraphError> {
        let own = self.stages.iter().map(MetaStage::n_nodes);
        if !own.eq(child.stages().iter().map(StageEdges::n_nodes)) {
            return Err(MetaGraphError::Foreign {
                expected: self.stages.iter().map(MetaStage::n_nodes).collect(),
                got: child.stages().iter().map(StageEdges::n_nodes).collect(),
            });
        }
        for (stage, (meta, kept)) in self.stages.iter().zip(child.stages()).enumerate() {
            meta.check_ops(stage, kept)?;
        }
        if self.allows(child.layout()) { Ok(()) } else { Err(self.foreign_layout(child.layout())) }
    }

    fn foreign_layout(&self, layout: &Layout) -> MetaGraphError {
        let values = self.layout.iter().map(|dimension| dimension.weights().len()).collect();
        MetaGraphError::Layout { values, got: layout.0.clone() }
    }
}

impl MetaStage {
    fn check_ops(&self, stage: usize, kept: &StageEdges) -> Result<(), MetaGraphError> {
        let Some(op_weights) = &self.op_weights else {
            return if kept.has_ops() { Err(MetaGraphError::Operators { stage, searched: false }) } else { Ok(()) };
        };
        if !kept.has_ops() {
            return Err(MetaGraphError::Operators { stage, searched: true });
        }
        let chosen = (1..self.n_nodes()).filter_map(|node| kept.op(CellNodeId(node as u16)));
        match chosen.into_iter().find(|&op| op_weights.index(op).is_none()) {
            Some(op) => Err(MetaGraphError::OffMenu { stage, op }),
            None => Ok(()),
        }
    }
}

fn cell(meta: &MetaStage, kept: &StageEdges) -> Result<Cell, MetaGraphError> {
    let mut cell = Cell::new();
    for node in (1..meta.n_nodes()).map(|node| CellNodeId(node as u16)) {
        if kept.is_live(node) {
            cell.add_node(node, meta.op(kept, node))?;
        }
    }
    for (from, to) in kept.edges() {
        cell.add_edge(from, to)?;
    }
    Ok(cell)
}

/// `operators` repeated to `n` and shuffled by stream `stage` of `seed`.
fn deal(operators: &[CellOp], n: usize, seed: u64, stage: usize) -> Vec<CellOp> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stage as u64);
    let mut dealt: Vec<CellOp> = operators.iter().copied().cycle().take(n).collect();
    dealt.shuffle(&mut rng);
    dealt
}

/// What an edge weighs before any child.
pub(crate) fn prior_weight(n_nodes: usize, to: CellNodeId, config: &MetaConfig) -> f64 {
    let weight: f64 = if n_nodes <= DENSE_NODES { 0.5 } else { (1.0 / to.index() as f64).min(0.5) };
    weight.clamp(config.epsilon, 1.0 - config.epsilon)
}

/// Why a meta-graph cannot be made or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetaGraphError {
    /// The space is not usable.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] MetaConfigError),
    /// A child of another meta-graph.
    #[error("the child has {got:?} nodes per stage, the meta-graph {expected:?}")]
    Foreign {
        /// Nodes per stage of the meta-graph.
        expected: Vec<usize>,
        /// Nodes per stage of the child.
        got: Vec<usize>,
    },
    /// A child with operators for a stage where they are dealt out, or without where they are searched.
    #[error(
        "stage {stage}: the child {} operators, which are {} there",
        if *.searched { "has no" } else { "chooses" },
        if *.searched { "searched" } else { "dealt out" }
    )]
    Operators {
        /// Index of the stage, from 0.
        stage: usize,
        /// Whether the meta-graph's operators are searched.
        searched: bool,
    },
    /// A child with an operator that is not on the menu.
    #[error("stage {stage}: the child chooses `{op}`, which is not on the menu")]
    OffMenu {
        /// Index of the stage, from 0.
        stage: usize,
        /// The operator.
        op: CellOp,
    },
    /// A child with a layout of another space.
    #[error("the child has layout {got:?}, the meta-graph's dimensions have {values:?} values")]
    Layout {
        /// Number of values of each dimension of the meta-graph.
        values: Vec<usize>,
        /// Choices of the child.
        got: Vec<u8>,
    },
    /// A cell that cannot be built.
    #[error(transparent)]
    Cell(#[from] CellError),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gram_ir::{Activation, CellOutput, Downsample, Head, StageSpace};

    /// One stage per entry of `nodes`, two operators.
    pub(crate) fn space(nodes: &[usize]) -> Space {
        let output = CellOutput { project: Some(8), residual: false, linear_leaves: false, activation: false };
        let stage = |&nodes: &usize| StageSpace::new(nodes, 4, Downsample::None, output);
        Space {
            name: "test".into(),
            activation: Activation::Relu,
            max_in_degree: 4,
            operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
            node_operators: Default::default(),
            image_sizes: Vec::new(),
            channel_multiple: 1,
            stem: Vec::new(),
            stages: nodes.iter().map(stage).collect(),
            head: Head::default(),
        }
    }

    pub(crate) fn meta(nodes: &[usize]) -> MetaGraph {
        MetaGraph::new(&space(nodes), MetaConfig::default(), 1).unwrap()
    }

    /// The same with searched operators.
    pub(crate) fn searched(nodes: &[usize]) -> MetaGraph {
        let space = Space { node_operators: NodeOperators::Searched, ..space(nodes) };
        MetaGraph::new(&space, MetaConfig::default(), 1).unwrap()
    }

    #[test]
    fn priors_follow_the_number_of_nodes() {
        let meta = meta(&[8, 30]);
        assert!(meta.stages()[0].weights().values().iter().all(|&weight| weight == 0.5));
        let sparse = meta.stages()[1].weights();
        let get = |from, to| *sparse.get(CellNodeId(from), CellNodeId(to)).unwrap();
        assert_eq!((get(0, 1), get(0, 2), get(3, 4), get(0, 29)), (0.5, 0.5, 0.25, 1.0 / 29.0));
    }

    #[test]
    fn operators_are_dealt_evenly_and_by_seed() {
        let meta = meta(&[30, 30]);
        let (first, second) = (meta.stages()[0].ops(), meta.stages()[1].ops());
        assert_eq!(first.len(), 29);
        assert_eq!(first.iter().filter(|op| **op == CellOp::Conv1x1).count(), 15);
        assert_ne!(first, second, "stages are shuffled apart");
        let again = MetaGraph::new(&space(&[30, 30]), MetaConfig::default(), 1).unwrap();
        assert_eq!(again, meta);
        let other = MetaGraph::new(&space(&[30, 30]), MetaConfig::default(), 2).unwrap();
        assert_ne!(other.stages()[0].ops(), first);
    }

    #[test]
    fn cells_hold_live_nodes_only() {
        let meta = meta(&[5]);
        let kept = StageEdges::new(5, [(0, 2), (2, 4), (1, 3)].map(|(i, j)| (CellNodeId(i), CellNodeId(j))));
        let cells = meta.cells(&Child::new(vec![kept])).unwrap();
        let nodes: Vec<u16> = cells[0].ops().map(|(id, _)| id.0).collect();
        assert_eq!(nodes, [2, 4]);
        assert_eq!(cells[0].op(CellNodeId(4)), Some(meta.stages()[0].ops()[3]));
        assert_eq!(cells[0].edges().len(), 2);
    }

    #[test]
    fn foreign_children_and_bad_spaces_are_refused() {
        let child = Child::new(vec![StageEdges::new(6, [])]);
        assert!(matches!(meta(&[5]).cells(&child), Err(MetaGraphError::Foreign { .. })));
        let mut bad = space(&[5]);
        bad.operators.clear();
        assert!(matches!(MetaGraph::new(&bad, MetaConfig::default(), 0), Err(MetaGraphError::Space(_))));
        let config = MetaConfig { eta: 2.0, ..MetaConfig::default() };
        assert!(matches!(MetaGraph::new(&space(&[5]), config, 0), Err(MetaGraphError::Config(_))));
    }
}
