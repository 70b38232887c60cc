//! Cells: the DAG of one stage, node by node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use petgraph::Direction;
use petgraph::graphmap::DiGraphMap;
use serde::{Deserialize, Serialize};

/// A node of one [`Cell`]; prints as `n14`. Stays valid while other nodes are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CellNodeId(pub u16);

impl CellNodeId {
    /// The cell's input, node 0.
    pub const INPUT: Self = Self(0);

    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CellNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// What a node of a cell computes; every operator has stride 1 and gives the stage's node channels.
///
/// Every convolution is followed by batch norm and the architecture's activation. Operators that cannot change the number of channels
/// (`dw*`, pools, identity) get a 1x1 convolution in front where their concatenated inputs have other channels than the stage's \[ours\].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellOp {
    /// 1x1 convolution (`pw1` of the shipped SwiftNet).
    Conv1x1,
    /// 3x3 convolution.
    Conv3x3,
    /// 5x5 convolution.
    Conv5x5,
    /// Depthwise 3x3 and 1x1 convolution, each with norm and activation (`sep3` of the shipped SwiftNet).
    Sep3x3,
    /// Depthwise 5x5 and 1x1 convolution.
    Sep5x5,
    /// Depthwise 7x7 and 1x1 convolution.
    Sep7x7,
    /// Depthwise 3x3 convolution alone.
    Dw3x3,
    /// Depthwise 5x5 convolution alone.
    Dw5x5,
    /// Depthwise 7x7 convolution alone.
    Dw7x7,
    /// 3x3 maximum.
    MaxPool3x3,
    /// 3x3 mean over the pixels inside the image.
    AvgPool3x3,
    /// The node's input as it is.
    Identity,
}

impl CellOp {
    /// The whole menu.
    pub const ALL: [Self; 12] = [
        Self::Conv1x1,
        Self::Conv3x3,
        Self::Conv5x5,
        Self::Sep3x3,
        Self::Sep5x5,
        Self::Sep7x7,
        Self::Dw3x3,
        Self::Dw5x5,
        Self::Dw7x7,
        Self::MaxPool3x3,
        Self::AvgPool3x3,
        Self::Identity,
    ];

    /// The name in text, files and spaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv1x1 => "conv1x1",
            Self::Conv3x3 => "conv3x3",
            Self::Conv5x5 => "conv5x5",
            Self::Sep3x3 => "sep3x3",
            Self::Sep5x5 => "sep5x5",
            Self::Sep7x7 => "sep7x7",
            Self::Dw3x3 => "dw3x3",
            Self::Dw5x5 => "dw5x5",
            Self::Dw7x7 => "dw7x7",
            Self::MaxPool3x3 => "maxpool3x3",
            Self::AvgPool3x3 => "avgpool3x3",
            Self::Identity => "identity",
        }
    }
}

impl fmt::Display for CellOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An operator that is not on the menu.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an operator; the menu is conv1x1, conv3x3, conv5x5, sep3x3, sep5x5, sep7x7, dw3x3, dw5x5, dw7x7, maxpool3x3, avgpool3x3, identity"
)]
pub struct UnknownOp(pub String);

impl FromStr for CellOp {
    type Err = UnknownOp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|op| op.name() == text);
        found.ok_or_else(|| UnknownOp(text.chars().take(40).collect()))
    }
}

/// The DAG of one stage.
///
/// Node 0 is the cell's input; every other node carries an operator; edges go from lower to higher ids. The inputs of a node are
/// concatenated in ascending order of ids. A node is *live* iff a path leads to it from node 0; edges out of dead nodes do not exist for
/// the model. *Leaves* are live operator nodes without successor; the stage's output is made of them (ALGORITHMS 1.2, sibling code).
///
/// Ids may have gaps, so that a pruned cell keeps the names that its meta-graph knows.
///
/// # Example
/// ```
/// use gram_ir::{Cell, CellNodeId, CellOp};
/// let mut cell = Cell::new();
/// let (n1, n2) = (CellNodeId(1), CellNodeId(2));
/// cell.add_node(n1, CellOp::Sep3x3)?;
/// cell.add_node(n2, CellOp::Conv1x1)?;
/// cell.add_edge(CellNodeId::INPUT, n1)?;
/// assert_eq!(cell.leaves(), [n1]);
/// assert!(!cell.live().contains(&n2));
/// # Ok::<(), gram_ir::CellError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cell {
    ops: BTreeMap<CellNodeId, CellOp>,
    edges: DiGraphMap<CellNodeId, ()>,
}

impl PartialEq for Cell {
    /// Equal ids, operators and edges; in whatever order they were added.
    fn eq(&self, other: &Self) -> bool {
        self.ops == other.ops && self.edges() == other.edges()
    }
}

impl Eq for Cell {}

/// Largest id of a cell's node.
pub const MAX_CELL_NODE: u16 = 255;

impl Cell {
    /// A cell with its input and nothing else.
    pub fn new() -> Self {
        let mut edges = DiGraphMap::new();
        edges.add_node(CellNodeId::INPUT);
        Self { ops: BTreeMap::new(), edges }
    }

    /// Adds an operator node.
    ///
    /// # Errors
    /// [`CellError`] if `id` is 0, taken, or above [`MAX_CELL_NODE`].
    pub fn add_node(&mut self, id: CellNodeId, op: CellOp) -> Result<(), CellError> {
        if id == CellNodeId::INPUT || self.ops.contains_key(&id) {
            return Err(CellError::Taken { id });
        }
        if id.0 > MAX_CELL_NODE {
            return Err(CellError::TooLarge { id });
        }
        self.ops.insert(id, op);
        self.edges.add_node(id);
        Ok(())
    }

    /// Adds the edge `from → to`; adding it twice changes nothing.
    ///
    /// # Errors
    /// [`CellError`] if a node does not exist or `from` is not below `to`.
    pub fn add_edge(&mut self, from: CellNodeId, to: CellNodeId) -> Result<(), CellError> {
        if let Some(id) = [from, to].into_iter().find(|&id| !self.contains(id)) {
            return Err(CellError::NoSuchNode { id });
        }
        if from >= to {
            return Err(CellError::Backward { from, to });
        }
        self.edges.add_edge(from, to, ());
        Ok(())
    }

    /// Removes the edge `from → to`; false if there was none.
    pub fn remove_edge(&mut self, from: CellNodeId, to: CellNodeId) -> bool {
        self.edges.remove_edge(from, to).is_some()
    }

    /// Removes an operator node with its edges; false if there was none.
    pub fn remove_node(&mut self, id: CellNodeId) -> bool {
        self.ops.remove(&id).is_some() && self.edges.remove_node(id)
    }

    /// Whether the node exists; the input always does.
    pub fn contains(&self, id: CellNodeId) -> bool {
        id == CellNodeId::INPUT || self.ops.contains_key(&id)
    }

    /// Operator of a node; none for the input or a node that does not exist.
    pub fn op(&self, id: CellNodeId) -> Option<CellOp> {
        self.ops.get(&id).copied()
    }

    /// Operator nodes in ascending order of ids.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = (CellNodeId, CellOp)> + '_ {
        self.ops.iter().map(|(&id, &op)| (id, op))
    }

    /// All edges, sorted by source and target.
    pub fn edges(&self) -> BTreeSet<(CellNodeId, CellNodeId)> {
        self.edges.all_edges().map(|(from, to, ())| (from, to)).collect()
    }

    /// Nodes with an edge to `id`, ascending; dead ones too.
    pub fn predecessors(&self, id: CellNodeId) -> Vec<CellNodeId> {
        self.neighbours(id, Direction::Incoming)
    }

    /// Nodes with an edge from `id`, ascending.
    pub fn successors(&self, id: CellNodeId) -> Vec<CellNodeId> {
        self.neighbours(id, Direction::Outgoing)
    }

    fn neighbours(&self, id: CellNodeId, direction: Direction) -> Vec<CellNodeId> {
        let mut found: Vec<_> = self.edges.neighbors_directed(id, direction).collect();
        found.sort_unstable();
        found
    }

    /// Nodes to which a path leads from the input, which is one of them.
    pub fn live(&self) -> BTreeSet<CellNodeId> {
        let mut live = BTreeSet::from([CellNodeId::INPUT]);
        for &id in self.ops.keys() {
            // Edges ascend, so all predecessors are decided already.
            if self.edges.neighbors_directed(id, Direction::Incoming).any(|from| live.contains(&from)) {
                live.insert(id);
            }
        }
        live
    }

    /// Live predecessors of each live operator node, both ascending: the graph as the model sees it.
    pub fn live_inputs(&self) -> Vec<(CellNodeId, CellOp, Vec<CellNodeId>)> {
        let live = self.live();
        let inputs = |id| self.predecessors(id).into_iter().filter(|from| live.contains(from)).collect();
        self.ops().filter(|(id, _)| live.contains(id)).map(|(id, op)| (id, op, inputs(id))).collect()
    }

    /// Live operator nodes without successor, ascending.
    pub fn leaves(&self) -> Vec<CellNodeId> {
        let live = self.live();
        let is_leaf = |id: &CellNodeId| live.contains(id) && self.edges.neighbors(*id).next().is_none();
        self.ops.keys().copied().filter(is_leaf).collect()
    }
}

/// Why an edit of a cell was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// The id is in use.
    #[error("{id} exists already")]
    Taken {
        /// The id.
        id: CellNodeId,
    },
    /// The id is too large.
    #[error("{id} is beyond n255, the largest node of a cell")]
    TooLarge {
        /// The id.
        id: CellNodeId,
    },
    /// The node does not exist.
    #[error("{id} does not exist")]
    NoSuchNode {
        /// The id.
        id: CellNodeId,
    },
    /// An edge that does not ascend.
    #[error("edge {from} -> {to}: edges go from lower to higher ids")]
    Backward {
        /// Source.
        from: CellNodeId,
        /// Target.
        to: CellNodeId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> CellNodeId {
        CellNodeId(n)
    }

    /// 0 → 1 → 3, 2 dead, 2 → 3, 1 → 4.
    fn with_dead_node() -> Cell {
        let mut cell = Cell::new();
        for n in 1..=4 {
            cell.add_node(id(n), CellOp::Conv1x1).unwrap();
        }
        for (from, to) in [(0, 1), (1, 3), (2, 3), (1, 4)] {
            cell.add_edge(id(from), id(to)).unwrap();
        }
        cell
    }

    #[test]
    fn dead_nodes_do_not_exist_for_the_model() {
        let cell = with_dead_node();
        assert_eq!(cell.live(), BTreeSet::from([0, 1, 3, 4].map(id)));
        assert_eq!(cell.leaves(), [id(3), id(4)]);
        assert_eq!(cell.predecessors(id(3)), [id(1), id(2)]);
        assert_eq!(cell.live_inputs()[1], (id(3), CellOp::Conv1x1, vec![id(1)]));
    }

    #[test]
    fn refused_edits_name_the_nodes() {
        let mut cell = with_dead_node();
        assert_eq!(
            cell.add_edge(id(3), id(1)).unwrap_err().to_string(),
            "edge n3 -> n1: edges go from lower to higher ids"
        );
        assert_eq!(cell.add_edge(id(3), id(9)), Err(CellError::NoSuchNode { id: id(9) }));
        assert_eq!(cell.add_node(id(1), CellOp::Dw3x3), Err(CellError::Taken { id: id(1) }));
        assert_eq!(cell.add_node(id(256), CellOp::Dw3x3), Err(CellError::TooLarge { id: id(256) }));
        assert_eq!(cell, with_dead_node());
    }

    #[test]
    fn equality_ignores_insertion_order() {
        let mut other = Cell::new();
        for n in (1..=4).rev() {
            other.add_node(id(n), CellOp::Conv1x1).unwrap();
        }
        for (from, to) in [(1, 4), (2, 3), (1, 3), (0, 1)] {
            other.add_edge(id(from), id(to)).unwrap();
        }
        assert_eq!(other, with_dead_node());
        assert!(other.remove_edge(id(1), id(4)) && !other.remove_edge(id(1), id(4)));
        assert!(other.remove_node(id(4)) && !other.remove_node(id(4)));
        assert_ne!(other, with_dead_node());
    }

    #[test]
    fn every_operator_parses_back() {
        for op in CellOp::ALL {
            assert_eq!(op.to_string().parse(), Ok(op));
        }
        assert!("pw1".parse::<CellOp>().is_err());
    }
}
