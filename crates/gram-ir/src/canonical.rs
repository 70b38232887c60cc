//! Canonical forms and keys: one for all numberings of the same graph.
//!
//! Two cells have the same [`CanonicalKey`] iff their live parts are isomorphic as DAGs with operators on the nodes. That is exact, not a
//! hash of colours: the nodes are put into a canonical order (individualisation and refinement, as in McKay and Piperno, "Practical graph
//! isomorphism II", [arXiv:1301.1493](https://arxiv.org/abs/1301.1493), sections 2 and 3) and the graph is written down in that order.
//!
//! What a numbering decides beyond the graph is in which order inputs of a node and leaves are concatenated: a permutation of channels,
//! which weights absorb. In a residual cell without projection it also decides which channels of the cell's input are added to which
//! leaf; the key does not tell such cells apart \[ours\].

mod dag;
mod partition;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Shape, Stage, StemLayer};

/// The identity of a graph up to the numbering of its nodes: the key of every cache.
///
/// Comparison is exact: the key holds the whole graph. It displays as 16 hexadecimal digits, a digest for people; files hold the whole
/// key ([`CanonicalKey::to_hex`]). Keys of cells and keys of architectures are never equal.
///
/// # Example
/// ```
/// use gram_ir::{Cell, CellNodeId, CellOp};
/// let cell = |sep: u16, conv: u16| -> Result<Cell, gram_ir::CellError> {
///     let mut cell = Cell::new();
///     cell.add_node(CellNodeId(sep), CellOp::Sep3x3)?;
///     cell.add_node(CellNodeId(conv), CellOp::Conv1x1)?;
///     cell.add_edge(CellNodeId::INPUT, CellNodeId(sep))?;
///     cell.add_edge(CellNodeId::INPUT, CellNodeId(conv))?;
///     Ok(cell)
/// };
/// assert_ne!(cell(1, 2)?, cell(7, 3)?);
/// assert_eq!(cell(1, 2)?.canonical_key(), cell(7, 3)?.canonical_key());
/// # Ok::<(), gram_ir::CellError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CanonicalKey(Vec<u8>);

/// First byte of a cell's key. A change of the canonical order or of the encoding takes a new number, so that old caches miss.
const CELL_FORMAT: u8 = 1;
/// First byte of an architecture's key.
const ARCHITECTURE_FORMAT: u8 = 2;

impl CanonicalKey {
    /// The canonical encoding, for digests that take more than the key in.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole key in hexadecimal digits, as in files.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`CanonicalKey::to_hex`] wrote.
    ///
    /// # Errors
    /// [`KeyParseError`] if the text is not pairs of hexadecimal digits or no key begins like it.
    pub fn from_hex(text: &str) -> Result<Self, KeyParseError> {
        let fail = || KeyParseError(text.chars().take(40).collect());
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(fail)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        match bytes.first() {
            Some(&(CELL_FORMAT | ARCHITECTURE_FORMAT)) => Ok(Self(bytes)),
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for CanonicalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // FNV-1a and the finaliser of splitmix64.
        let fnv = self.0.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        write!(f, "{:016x}", partition::mix(fnv))
    }
}

impl TryFrom<String> for CanonicalKey {
    type Error = KeyParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_hex(&text)
    }
}

impl From<CanonicalKey> for String {
    fn from(key: CanonicalKey) -> Self {
        key.to_hex()
    }
}

/// A text that is no canonical key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a canonical key: expected an even number of hexadecimal digits that begin with 01 or 02")]
pub struct KeyParseError(pub String);

impl Cell {
    /// The key that all relabellings of this cell's live part share, and no other cell has.
    ///
    /// # Complexity
    /// Well under a millisecond for 30 nodes, symmetric ones too (bench `canonical`). No algorithm is known that is quick for all graphs;
    /// the hard families of the tests (projective spaces, Cai–Fürer–Immerman pairs, unions of cycles, 255 nodes at most) take fewer than
    /// `n²/2` refinements, each of which reads every edge a few times.
    pub fn canonical_key(&self) -> CanonicalKey {
        let mut bytes = vec![CELL_FORMAT];
        encode_cell(self, &mut bytes);
        CanonicalKey(bytes)
    }

    /// The live nodes, input first, in canonical order; every node comes after its predecessors.
    ///
    /// Nodes that an automorphism maps to each other may change places between relabelled cells.
    pub fn canonical_order(&self) -> Vec<CellNodeId> {
        let (dag, ids) = dag::Dag::of_live_part(self);
        search::canonical_order(&dag).into_iter().map(|node| ids[usize::from(node)]).collect()
    }

    /// The live part with nodes renumbered 0, 1, 2, … in canonical order: equal for cells with equal keys.
    pub fn canonical_form(&self) -> Self {
        let order = self.canonical_order();
        let renumbered: BTreeMap<CellNodeId, CellNodeId> =
            order.iter().enumerate().map(|(place, &id)| (id, CellNodeId(place as u16))).collect();
        let mut form = Self::new();
        for &id in &order {
            if let Some(op) = self.op(id) {
                form.add_node(renumbered[&id], op).expect("places are distinct and below 256");
            }
        }
        for (from, to) in self.edges() {
            if let (Some(&from), Some(&to)) = (renumbered.get(&from), renumbered.get(&to)) {
                form.add_edge(from, to).expect("the canonical order is topological");
            }
        }
        form
    }
}

impl Architecture {
    /// The key of all architectures that are this one up to the numbering of nodes inside its cells; the name does not matter.
    pub fn canonical_key(&self) -> CanonicalKey {
        let Self { name: _, input, num_classes, activation, stem, stages, head } = self;
        let mut bytes = vec![ARCHITECTURE_FORMAT];
        let Shape { c, h, w } = *input;
        [c, h, w, *num_classes].into_iter().for_each(|size| encode_size(size, &mut bytes));
        bytes.push(*activation as u8);
        encode_size(stem.len(), &mut bytes);
        stem.iter().for_each(|layer| encode_stem_layer(*layer, &mut bytes));
        encode_size(stages.len(), &mut bytes);
        stages.iter().for_each(|stage| encode_stage(stage, &mut bytes));
        let Head { conv } = *head;
        encode_option(conv, &mut bytes);
        CanonicalKey(bytes)
    }
}

/// Number of operators; then, in canonical order, the code of each and one bit for each earlier node, set for predecessors.
fn encode_cell(cell: &Cell, bytes: &mut Vec<u8>) {
    let form = cell.canonical_form();
    bytes.push(form.ops().len() as u8);
    for (id, op) in form.ops() {
        bytes.push(op_code(op));
        let row = bytes.len();
        bytes.resize(row + id.index().div_ceil(8), 0);
        for from in form.predecessors(id) {
            bytes[row + from.index() / 8] |= 1 << (from.index() % 8);
        }
    }
}

/// Codes are in files: an operator keeps its code for ever.
const fn op_code(op: CellOp) -> u8 {
    match op {
        CellOp::Conv1x1 => 0,
        CellOp::Conv3x3 => 1,
        CellOp::Conv5x5 => 2,
        CellOp::Sep3x3 => 3,
        CellOp::Sep5x5 => 4,
        CellOp::Sep7x7 => 5,
        CellOp::Dw3x3 => 6,
        CellOp::Dw5x5 => 7,
        CellOp::Dw7x7 => 8,
        CellOp::MaxPool3x3 => 9,
        CellOp::AvgPool3x3 => 10,
        CellOp::Identity => 11,
    }
}

fn encode_stem_layer(layer: StemLayer, bytes: &mut Vec<u8>) {
    match layer {
        StemLayer::Conv { channels, kernel, stride } => {
            bytes.push(0);
            [channels, kernel, stride].into_iter().for_each(|size| encode_size(size, bytes));
        }
        StemLayer::Sep { channels, kernel, stride } => {
            bytes.push(1);
            [channels, kernel, stride].into_iter().for_each(|size| encode_size(size, bytes));
        }
        StemLayer::Maxpool2 => bytes.push(2),
    }
}

fn encode_stage(stage: &Stage, bytes: &mut Vec<u8>) {
    let Stage { cell, repeats, node_channels, downsample, output } = stage;
    encode_cell(cell, bytes);
    encode_size(*repeats, bytes);
    encode_size(*node_channels, bytes);
    bytes.push(match downsample {
        Downsample::None => 0,
        Downsample::Maxpool2 => 1,
    });
    let CellOutput { project, residual, linear_leaves, activation } = *output;
    encode_option(project, bytes);
    bytes.extend([residual, linear_leaves, activation].map(u8::from));
}

fn encode_option(size: Option<usize>, bytes: &mut Vec<u8>) {
    bytes.push(u8::from(size.is_some()));
    if let Some(size) = size {
        encode_size(size, bytes);
    }
}

/// Seven bits a byte, lowest first, the eighth set on all but the last (LEB128): no size is the beginning of another.
fn encode_size(mut size: usize, bytes: &mut Vec<u8>) {
    while size >= 0x80 {
        bytes.push(size as u8 | 0x80);
        size >>= 7;
    }
    bytes.push(size as u8);
}
