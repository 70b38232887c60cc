//! Children: which candidate edges are kept, stage by stage, and which operators are chosen where those are searched.

use gram_ir::{CellNodeId, CellOp, Layout, Space};

/// A set of nodes of one stage, bit `i` for node `i`.
pub(crate) type NodeSet = u128;

const _: () = assert!(Space::MAX_STAGE_NODES <= NodeSet::BITS as usize);

/// The edges that a child keeps in one stage: a subset of the complete DAG, all from live sources.
///
/// A node is live iff a path of kept edges leads to it from node 0. Edges from dead nodes are never part of it, and neither are operators
/// of dead nodes, so two children are equal iff they are the same for the model: this is the canonical child `c(g)` of ALGORITHMS 1.5.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageEdges {
    /// For each node the sources of its in-edges.
    sources: Vec<NodeSet>,
    /// For each node the operator chosen for it, none for the input and dead nodes; empty where operators are dealt out.
    ops: Vec<Option<CellOp>>,
}

impl StageEdges {
    /// The kept edges among `edges`: pairs that do not ascend, name a node beyond `n_nodes`, or leave a dead node are dropped.
    pub fn new(n_nodes: usize, edges: impl IntoIterator<Item = (CellNodeId, CellNodeId)>) -> Self {
        let mut sources = vec![0; n_nodes.min(Space::MAX_STAGE_NODES)];
        for (from, to) in edges {
            if from < to && to.index() < sources.len() {
                sources[to.index()] |= 1 << from.index();
            }
        }
        Self::from_sources(sources)
    }

    /// From the sources of each node's in-edges, all of lower index; edges from dead nodes are dropped.
    pub(crate) fn from_sources(mut sources: Vec<NodeSet>) -> Self {
        let mut live: NodeSet = 1;
        for (node, from) in sources.iter_mut().enumerate().skip(1) {
            *from &= live;
            live |= NodeSet::from(*from != 0) << node;
        }
        Self { sources, ops: Vec::new() }
    }

    /// The same edges with an operator for every live operator node, for stages where operators are searched.
    pub fn with_ops(mut self, mut op: impl FnMut(CellNodeId) -> CellOp) -> Self {
        let chosen = |(node, &sources): (usize, &NodeSet)| (sources != 0).then(|| op(id(node)));
        self.ops = self.sources.iter().enumerate().map(chosen).collect();
        self
    }

    /// Whether operators are chosen by the child; else they are those that the meta-graph dealt out.
    pub fn has_ops(&self) -> bool {
        !self.ops.is_empty()
    }

    /// The operator chosen for a node; none for the input, a dead node, or where operators are dealt out.
    pub fn op(&self, node: CellNodeId) -> Option<CellOp> {
        self.ops.get(node.index()).copied().flatten()
    }

    /// Sources of the node's in-edges.
    pub(crate) fn sources(&self) -> &[NodeSet] {
        &self.sources
    }

    /// The set of live nodes, the input among them.
    pub(crate) fn live(&self) -> NodeSet {
        let live = |(node, &sources): (usize, &NodeSet)| NodeSet::from(sources != 0) << node;
        self.sources.iter().enumerate().map(live).fold(1, |all, node| all | node)
    }

    /// Takes the edges of a chain's state over from node `first` on; those before must be the same already.
    pub(crate) fn follow(&mut self, state: &[NodeSet], first: usize, op: Option<&dyn Fn(usize) -> CellOp>) {
        let below = (1 << first) - 1;
        let mut live = self.live() & below | 1;
        for (node, &sources) in state.iter().enumerate().skip(first.max(1)) {
            let kept = sources & live;
            self.sources[node] = kept;
            live |= NodeSet::from(kept != 0) << node;
            if let Some(op) = op {
                self.ops[node] = (kept != 0).then(|| op(node));
            }
        }
    }

    /// Nodes of the complete DAG, the input among them.
    pub fn n_nodes(&self) -> usize {
        self.sources.len()
    }

    /// Whether the edge is kept.
    pub fn contains(&self, from: CellNodeId, to: CellNodeId) -> bool {
        from < to && self.sources.get(to.index()).is_some_and(|sources| sources >> from.index() & 1 == 1)
    }

    /// Kept edges, ordered by target, then source.
    pub fn edges(&self) -> impl Iterator<Item = (CellNodeId, CellNodeId)> + '_ {
        self.sources.iter().enumerate().flat_map(|(to, &sources)| members(sources).map(move |from| (id(from), id(to))))
    }

    /// Number of kept edges.
    pub fn n_edges(&self) -> usize {
        self.sources.iter().map(|sources| sources.count_ones() as usize).sum()
    }

    /// Whether a path of kept edges leads to the node from node 0, which itself is live.
    pub fn is_live(&self, node: CellNodeId) -> bool {
        node == CellNodeId::INPUT || self.sources.get(node.index()).is_some_and(|&sources| sources != 0)
    }

    /// Live operator nodes; the input is not counted.
    pub fn n_live_operators(&self) -> usize {
        self.sources.iter().filter(|&&sources| sources != 0).count()
    }

    /// The largest number of in-edges of a node.
    pub fn max_in_degree(&self) -> usize {
        self.sources.iter().map(|sources| sources.count_ones() as usize).max().unwrap_or(0)
    }
}

/// One child of the meta-graph: the kept edges (and operators, where searched) of every stage, in order, and the layout that it chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Child {
    stages: Vec<StageEdges>,
    layout: Layout,
}

impl Child {
    /// A child of these stages, of a space that leaves nothing else open.
    pub fn new(stages: Vec<StageEdges>) -> Self {
        Self { stages, layout: Layout::default() }
    }

    /// The same cells in another layout.
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// What it chose besides its cells; empty where the space leaves nothing else open.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Another value for one dimension of the layout.
    pub(crate) fn choose(&mut self, dimension: usize, choice: u8) {
        self.layout.0[dimension] = choice;
    }

    /// The kept edges of each stage.
    pub fn stages(&self) -> &[StageEdges] {
        &self.stages
    }

    /// The kept edges of one stage, to change.
    pub(crate) fn stage_mut(&mut self, stage: usize) -> &mut StageEdges {
        &mut self.stages[stage]
    }
}

fn id(node: usize) -> CellNodeId {
    CellNodeId(node as u16)
}

/// Members of a set, ascending.
pub(crate) fn members(mut set: NodeSet) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(n_nodes: usize, edges: &[(u16, u16)]) -> StageEdges {
        StageEdges::new(n_nodes, edges.iter().map(|&(from, to)| (CellNodeId(from), CellNodeId(to))))
    }

    #[test]
    fn edges_from_dead_nodes_do_not_exist() {
        // 2 has no in-edge, so 2 → 3 goes and with it 3 → 4.
        let kept = stage(5, &[(0, 1), (2, 3), (3, 4), (1, 4)]);
        assert_eq!(kept, stage(5, &[(0, 1), (1, 4)]));
        assert!(!kept.is_live(CellNodeId(3)) && kept.is_live(CellNodeId(4)));
        assert_eq!((kept.n_edges(), kept.n_live_operators(), kept.max_in_degree()), (2, 2, 1));
    }

    #[test]
    fn only_live_nodes_have_operators() {
        let kept = stage(4, &[(0, 1), (2, 3), (0, 3)]);
        let with = |dead| {
            kept.clone().with_ops(|node| match node.0 {
                1 => CellOp::Conv1x1,
                2 => dead,
                _ => CellOp::Sep3x3,
            })
        };
        assert_eq!(with(CellOp::Dw3x3), with(CellOp::Identity));
        assert_eq!(
            (0..5).map(|n| with(CellOp::Dw3x3).op(CellNodeId(n))).collect::<Vec<_>>(),
            [None, Some(CellOp::Conv1x1), None, Some(CellOp::Sep3x3), None]
        );
        assert!(!kept.has_ops() && with(CellOp::Dw3x3).has_ops() && kept != with(CellOp::Dw3x3));
    }

    #[test]
    fn impossible_edges_are_dropped() {
        let kept = stage(3, &[(0, 1), (2, 1), (1, 1), (0, 9)]);
        assert_eq!(kept.edges().collect::<Vec<_>>(), [(CellNodeId(0), CellNodeId(1))]);
        assert!(!kept.contains(CellNodeId(0), CellNodeId(9)));
    }

    #[test]
    fn the_largest_stage_fits() {
        let last = Space::MAX_STAGE_NODES - 1;
        let complete = stage(last + 1, &(0..last as u16).map(|from| (from, last as u16)).collect::<Vec<_>>());
        assert_eq!(complete.n_edges(), 1, "only the input is live");
        let star = stage(last + 1, &(1..=last as u16).map(|to| (0, to)).collect::<Vec<_>>());
        assert_eq!(star.n_live_operators(), last);
    }
}
