//! NAS-Bench-101, [arXiv:1902.09635](https://arxiv.org/abs/1902.09635): cells with an operator on each vertex.

mod module;

use std::fmt;
use std::str::FromStr;

use super::layers::Layers;
use crate::{Activation, Conv2d, Network, NetworkError, Pool, Shape};

/// The operator of an interior vertex of a [`NasBench101Cell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NasBench101Op {
    /// 1x1 convolution, batch norm, ReLU.
    Conv1x1,
    /// 3x3 convolution, batch norm, ReLU.
    Conv3x3,
    /// 3x3 maximum.
    MaxPool3x3,
}

impl NasBench101Op {
    /// All operators.
    pub const ALL: [Self; 3] = [Self::Conv1x1, Self::Conv3x3, Self::MaxPool3x3];

    /// The benchmark's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv1x1 => "conv1x1-bn-relu",
            Self::Conv3x3 => "conv3x3-bn-relu",
            Self::MaxPool3x3 => "maxpool3x3",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Conv1x1 => '1',
            Self::Conv3x3 => '3',
            Self::MaxPool3x3 => 'm',
        }
    }
}

/// A cell of NAS-Bench-101: an upper triangular adjacency matrix and an operator for each vertex between input and output.
///
/// Vertices that no path from input to output crosses are left out, as in the benchmark. Prints and parses as the rows of the matrix
/// joined by `/`, a colon, and the operators joined by `;`, with `input` and `output` or without them.
///
/// # Example
/// ```
/// use gram_ir::{NasBench101Cell, Shape};
/// let text = "011000/001110/000100/000010/000001/000000:input;maxpool3x3;conv1x1-bn-relu;maxpool3x3;conv3x3-bn-relu;output";
/// let cell: NasBench101Cell = text.parse()?;
/// assert_eq!(cell.to_string(), text);
/// assert_eq!(cell.network(Shape::chw(3, 32, 32), 10)?.params().0, 12_088_970); // as the benchmark counts
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NasBench101Cell {
    /// `matrix[i][j]`: whether there is an edge from vertex i to vertex j; square, upper triangular, without unused vertices.
    matrix: Vec<Vec<bool>>,
    /// Operators of the vertices between the first and the last.
    ops: Vec<NasBench101Op>,
}

/// Most vertices of a cell, input and output among them.
const MAX_VERTICES: usize = 7;
/// Most edges of a cell.
const MAX_EDGES: usize = 9;
/// Stacks of modules; the resolution halves and the channels double between them.
const STACKS: usize = 3;
/// Modules, i.e. copies of the cell, in a stack.
const MODULES: usize = 3;
/// Channels of the stem and the first stack.
const CHANNELS: usize = 128;

impl NasBench101Cell {
    /// The cell of a matrix and the operators of its interior vertices (two fewer than rows).
    ///
    /// # Errors
    /// [`NasBench101Error`] if the matrix is not square and upper triangular, is larger than the benchmark's cells (7 vertices, 9 edges
    /// after pruning), has not one interior vertex for each operator, or no path from input to output.
    pub fn new(matrix: &[Vec<bool>], ops: &[NasBench101Op]) -> Result<Self, NasBench101Error> {
        let n = matrix.len();
        if !(2..=MAX_VERTICES).contains(&n) {
            return Err(NasBench101Error::Vertices { n_vertices: n });
        }
        if let Some(row) = matrix.iter().position(|row| row.len() != n) {
            return Err(NasBench101Error::Row { row, got: matrix[row].len(), expected: n });
        }
        if ops.len() != n - 2 {
            return Err(NasBench101Error::Ops { got: ops.len(), expected: n - 2 });
        }
        for (from, row) in matrix.iter().enumerate() {
            if let Some(to) = row[..=from].iter().position(|&edge| edge) {
                return Err(NasBench101Error::Backward { from, to });
            }
        }
        let cell = pruned(matrix, ops).ok_or(NasBench101Error::Disconnected)?;
        let n_edges = cell.matrix.iter().flatten().filter(|&&edge| edge).count();
        if n_edges > MAX_EDGES { Err(NasBench101Error::Edges { n_edges }) } else { Ok(cell) }
    }

    /// The network that the benchmark trains: 3x3 stem of 128 channels, three stacks of three modules, 2x2 max-pool and twice the channels
    /// before the second and third, global pool and classifier. Its `params` are the benchmark's.
    ///
    /// # Differs from the paper
    /// The benchmark drops the last channel where a vertex with one channel more feeds one with fewer. There is no such operator
    /// here: a vertex that must be read both ways is computed in two parts, all channels but the last and the last, and
    /// concatenated for whoever reads it whole. Values, MACs and params are the same. \[ours\]
    /// # Errors
    /// [`NetworkError`] where a layer does not fit the input.
    pub fn network(&self, input: Shape, num_classes: usize) -> Result<Network, NetworkError> {
        let mut layers = Layers::new(input)?;
        let stem = Conv2d::new(input.c, CHANNELS, 3);
        let mut tip = layers.conv_bn_act("stem.conv", stem, Activation::Relu, layers.input())?;
        for stack in 0..STACKS {
            if stack > 0 {
                tip = layers.max_pool(&format!("stacks.{stack}.pool"), Pool::new(2, 2, 0), tip)?;
            }
            for i in 0..MODULES {
                tip = module::build(&mut layers, &format!("stacks.{stack}.modules.{i}"), self, CHANNELS << stack, tip)?;
            }
        }
        layers.classifier(num_classes, tip)
    }

    /// Vertices, input and output among them.
    fn n_vertices(&self) -> usize {
        self.matrix.len()
    }

    fn has_edge(&self, from: usize, to: usize) -> bool {
        self.matrix[from][to]
    }

    /// The operator of an interior vertex.
    fn op(&self, vertex: usize) -> NasBench101Op {
        self.ops[vertex - 1]
    }

    /// A short name: the matrix above its diagonal, row by row, and the operators, e.g. `nasbench101-110.01.1-3m`.
    pub(super) fn short_name(&self) -> String {
        let row = |(i, row): (usize, &Vec<bool>)| row[i + 1..].iter().map(bit).collect::<String>();
        let rows: Vec<String> = self.matrix.iter().enumerate().map(row).take(self.n_vertices() - 1).collect();
        let ops: String = self.ops.iter().map(|op| op.letter()).collect();
        format!("nasbench101-{}-{ops}", rows.join("."))
    }
}

fn bit(edge: &bool) -> char {
    if *edge { '1' } else { '0' }
}

/// Only the vertices on paths from input to output; none if there is no such path.
fn pruned(matrix: &[Vec<bool>], ops: &[NasBench101Op]) -> Option<NasBench101Cell> {
    let n = matrix.len();
    let (mut reached, mut needed) = (vec![false; n], vec![false; n]);
    reached[0] = true;
    needed[n - 1] = true;
    for to in 1..n {
        reached[to] = (0..to).any(|from| reached[from] && matrix[from][to]);
    }
    for from in (0..n - 1).rev() {
        needed[from] = (from + 1..n).any(|to| needed[to] && matrix[from][to]);
    }
    if !reached[n - 1] {
        return None;
    }
    let kept: Vec<usize> = (0..n).filter(|&vertex| reached[vertex] && needed[vertex]).collect();
    let row = |&from: &usize| kept.iter().map(|&to| matrix[from][to]).collect();
    Some(NasBench101Cell {
        matrix: kept.iter().map(row).collect(),
        ops: kept[1..kept.len() - 1].iter().map(|&vertex| ops[vertex - 1]).collect(),
    })
}

/// Why a matrix and operators are no cell of NAS-Bench-101. Vertices are counted from 0, the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NasBench101Error {
    /// A text that is not `rows:operators`.
    #[error("`{found}` is not {expected}")]
    Syntax {
        /// The part that does not belong; long ones are cut.
        found: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// Too few or too many vertices.
    #[error("{n_vertices} vertices: a cell has 2 to 7, input and output among them")]
    Vertices {
        /// Rows of the matrix.
        n_vertices: usize,
    },
    /// Too many edges.
    #[error("{n_edges} edges on paths from input to output: a cell has at most 9")]
    Edges {
        /// Edges after pruning.
        n_edges: usize,
    },
    /// A matrix that is not square.
    #[error("row {row} of the matrix has {got} columns, expected {expected}")]
    Row {
        /// The row, from 0.
        row: usize,
        /// Its columns.
        got: usize,
        /// Rows of the matrix.
        expected: usize,
    },
    /// Not one operator for each interior vertex.
    #[error("{got} operators for {expected} vertices between input and output")]
    Ops {
        /// Operators given.
        got: usize,
        /// Interior vertices.
        expected: usize,
    },
    /// An edge on or below the diagonal.
    #[error("edge {from} -> {to}: the matrix must be upper triangular")]
    Backward {
        /// Source.
        from: usize,
        /// Target.
        to: usize,
    },
    /// No path from input to output.
    #[error("no path leads from the input to the output")]
    Disconnected,
}

impl fmt::Display for NasBench101Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<String> = self.matrix.iter().map(|row| row.iter().map(bit).collect()).collect();
        write!(f, "{}:input;", rows.join("/"))?;
        self.ops.iter().try_for_each(|op| write!(f, "{};", op.name()))?;
        f.write_str("output")
    }
}

impl FromStr for NasBench101Cell {
    type Err = NasBench101Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |found: &str, expected| NasBench101Error::Syntax {
            found: found.chars().take(80).flat_map(char::escape_debug).collect(),
            expected,
        };
        let (rows, ops) = text.split_once(':').ok_or_else(|| fail(text, "rows and operators joined by `:`"))?;
        let bits =
            |row: &str| row.chars().map(|c| ['0', '1'].iter().position(|bit| *bit == c).map(|i| i == 1)).collect();
        let matrix: Option<Vec<Vec<bool>>> = rows.split('/').map(bits).collect();
        let matrix = matrix.ok_or_else(|| fail(rows, "rows of 0 and 1 joined by `/`"))?;
        let ops = ops.strip_prefix("input").unwrap_or(ops);
        let ops = ops.strip_suffix("output").unwrap_or(ops).trim_matches(';');
        let parse = |word: &str| {
            let op = NasBench101Op::ALL.into_iter().find(|op| op.name() == word);
            op.ok_or_else(|| fail(word, "one of conv1x1-bn-relu, conv3x3-bn-relu and maxpool3x3"))
        };
        let ops = ops.split(';').filter(|word| !word.is_empty()).map(parse).collect::<Result<Vec<_>, _>>()?;
        Self::new(&matrix, &ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NasBench101Cell, NasBench101Error> {
        text.parse()
    }

    #[test]
    fn unused_vertices_are_left_out() {
        // 1 leads nowhere, 3 comes from nowhere.
        let cell = parse("01101/00000/00001/00001/00000:maxpool3x3;conv1x1-bn-relu;conv3x3-bn-relu").unwrap();
        assert_eq!(cell.to_string(), "011/001/000:input;conv1x1-bn-relu;output");
        assert_eq!(cell.short_name(), "nasbench101-11.1-1");
        assert_eq!(parse("01/00:input;output").unwrap().short_name(), "nasbench101-1-");
    }

    #[test]
    fn bad_cells_are_refused() {
        let message = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(message("01/00"), "`01/00` is not rows and operators joined by `:`");
        assert_eq!(message("02/00:"), "`02/00` is not rows of 0 and 1 joined by `/`");
        assert_eq!(message("0:"), "1 vertices: a cell has 2 to 7, input and output among them");
        assert_eq!(message("010/001/00:maxpool3x3"), "row 2 of the matrix has 2 columns, expected 3");
        assert_eq!(message("010/001/000:"), "0 operators for 1 vertices between input and output");
        assert_eq!(message("010/101/000:maxpool3x3"), "edge 1 -> 0: the matrix must be upper triangular");
        assert_eq!(message("010/000/000:maxpool3x3"), "no path leads from the input to the output");
        assert_eq!(
            message("010/001/000:maxpool5x5"),
            "`maxpool5x5` is not one of conv1x1-bn-relu, conv3x3-bn-relu and maxpool3x3"
        );
        assert_eq!(
            message("01111/00111/00011/00001/00000:maxpool3x3;maxpool3x3;maxpool3x3"),
            "10 edges on paths from input to output: a cell has at most 9"
        );
    }
}
