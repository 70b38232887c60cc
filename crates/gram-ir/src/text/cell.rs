//! Text form of a cell.

use std::fmt;
use std::str::FromStr;

use super::line::{Line, TextError, check_length, lines, node_number};
use crate::{Cell, CellError, CellNodeId, CellOp};

impl fmt::Display for Cell {
    /// One line `n14 = conv1x1 n0` for each operator node, ascending; dead nodes too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_cell(f, self, "")
    }
}

impl FromStr for Cell {
    type Err = TextError;

    /// Reads what `Display` writes; lines may stand in any order.
    fn from_str(text: &str) -> Result<Self, TextError> {
        check_length(text)?;
        let mut cell = CellText::default();
        for line in lines(text) {
            cell.line(line)?;
        }
        cell.finish()
    }
}

pub(super) fn write_cell(f: &mut fmt::Formatter<'_>, cell: &Cell, indent: &str) -> fmt::Result {
    for (id, op) in cell.ops() {
        write!(f, "{indent}{id} = {op}")?;
        for from in cell.predecessors(id) {
            write!(f, " {from}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// A cell whose lines are being read: edges wait until all nodes are known.
#[derive(Debug, Default)]
pub(super) struct CellText {
    cell: Cell,
    edges: Vec<(usize, CellNodeId, CellNodeId)>,
}

impl CellText {
    /// Reads `n14 = conv1x1 n0 n3`.
    pub(super) fn line(&mut self, mut line: Line<'_>) -> Result<(), TextError> {
        let number = line.number;
        let id = CellNodeId(line.parse("a node such as n14", node_number)?);
        line.literal("=")?;
        let word = line.word("an operator")?;
        let op: CellOp = word.parse().map_err(|_| line.unexpected(word, &menu()))?;
        self.cell.add_node(id, op).map_err(|source| TextError::Cell { line: number, source })?;
        let first_edge = self.edges.len();
        while let Some(word) = line.peek() {
            let from = CellNodeId(line.parse("an input such as n0", node_number)?);
            if from >= id {
                return Err(TextError::Cell { line: number, source: CellError::Backward { from, to: id } });
            }
            if self.edges[first_edge..].iter().any(|&(_, other, _)| other == from) {
                return Err(line.unexpected(word, "an input that is not named already"));
            }
            self.edges.push((number, from, id));
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Cell, TextError> {
        for (line, from, to) in self.edges {
            self.cell.add_edge(from, to).map_err(|source| TextError::Cell { line, source })?;
        }
        Ok(self.cell)
    }
}

fn menu() -> String {
    let names: Vec<&str> = CellOp::ALL.into_iter().map(CellOp::name).collect();
    format!("an operator of the menu: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_any_order_and_prints_ascending() {
        let cell: Cell = "n9 = conv1x1 n0 n2 # last\nn2 = sep3x3 n0\nn5 = dw7x7".parse().unwrap();
        assert_eq!(cell.to_string(), "n2 = sep3x3 n0\nn5 = dw7x7\nn9 = conv1x1 n0 n2\n");
        assert_eq!(cell.to_string().parse(), Ok(cell));
        assert_eq!("".parse(), Ok(Cell::new()));
    }

    #[test]
    fn errors_name_line_word_and_expectation() {
        let message = |text: &str| text.parse::<Cell>().unwrap_err().to_string();
        assert_eq!(message("x1 = sep3x3"), "line 1: `x1`: expected a node such as n14");
        assert_eq!(message("\nn1 : sep3x3"), "line 2: `:`: expected `=`");
        assert_eq!(message("n1 ="), "line 1 ends where an operator is expected");
        assert!(message("n1 = pw1 n0").starts_with("line 1: `pw1`: expected an operator of the menu: conv1x1, "));
        assert_eq!(message("n1 = sep3x3 n0 n0"), "line 1: `n0`: expected an input that is not named already");
        assert_eq!(message("n1 = sep3x3 n0,"), "line 1: `n0,`: expected an input such as n0");
        assert_eq!(message("n9 = sep3x3 n7"), "line 1: n7 does not exist");
        assert_eq!(message("n1 = sep3x3\nn1 = sep3x3"), "line 2: n1 exists already");
        assert_eq!(message("n2 = sep3x3\nn1 = sep3x3 n2"), "line 2: edge n2 -> n1: edges go from lower to higher ids");
        assert_eq!(message("n0 = sep3x3"), "line 1: n0 exists already");
        assert_eq!(message("n999 = sep3x3"), "line 1: n999 is beyond n255, the largest node of a cell");
    }
}
