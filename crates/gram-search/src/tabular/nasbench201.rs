//! Cells with operators on edges, in the layout of NAS-Bench-201 (Dong and Yang, [arXiv:2001.00326](https://arxiv.org/abs/2001.00326)).
//!
//! A file is comma-separated with a header; the column `arch` has strings like
//! `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|` (group `k` lists the edges into node `k`, `op~s` comes from node `s`, a node is the sum of its
//! edges), the other columns numbers. Two operators have a meaning: `none` is zero, and `skip_connect` is the identity.
//!
//! # Equal functions
//! Cells are the same function if they are the same expression after `none` is removed, `skip_connect` replaced by what it copies, and
//! sums are flattened and sorted. `x + x` is kept apart from `x`. An operator applied to zero is taken as zero. NAS-Bench-201's 15,625
//! cells are 4,930 expressions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::read::{Columns, Text, shortened};
use super::table::{Layout, Row};
use super::{Identity, Table, TabularError};
use crate::domain::{Decision, FunctionGraph, Histogram, Point};

/// The search signal of NAS-Bench-201.
pub const DEFAULT_VALIDATION_COLUMN: &str = "cifar10_valid_12ep";
/// What NAS-Bench-201 is judged by.
pub const DEFAULT_TEST_COLUMN: &str = "cifar10_test_200ep";

/// Nodes of a cell; an expression has a term for each path, so that it grows like 2^nodes.
const MAX_NODES: usize = 8;
/// Operators of a table.
const MAX_OPERATORS: usize = 32;
const ARCH_COLUMN: &str = "arch";
const NAME: &str = "nasbench201";
const NONE: &str = "none";
const SKIP: &str = "skip_connect";

/// Reads a table of cells with these columns as signal and judge.
///
/// # Errors
/// [`TabularError`] with file and line. A cell that occurs twice is refused.
pub fn read(path: &Path, validation: &str, test: &str, identity: Identity) -> Result<Table, TabularError> {
    let text = Text::read(path)?;
    let columns = Columns::split(&text)?;
    let cells = read_cells(&text, &columns)?;
    let operators: BTreeSet<&str> = cells.iter().flat_map(|(_, cell)| cell.iter().copied()).collect();
    if operators.len() > MAX_OPERATORS {
        return Err(text.whole(format!("{} operators, at most {MAX_OPERATORS} are read", operators.len())));
    }
    let operators: Vec<&str> = operators.into_iter().collect();
    let functions = Functions::new(&operators);
    let mut seen = BTreeMap::new();
    let mut rows = Vec::with_capacity(cells.len());
    let scores = columns.numbers(validation)?.into_iter().zip(columns.numbers(test)?);
    for ((line, cell), (validation, test)) in cells.iter().zip(scores) {
        let values: Vec<u8> =
            cell.iter().filter_map(|op| operators.binary_search(op).ok()).map(|op| op as u8).collect();
        let point = Point::from(values);
        if let Some(first) = seen.insert(point.clone(), *line) {
            return Err(text.at(*line, format!("the cell of line {first} again")));
        }
        rows.push(Row { function: functions.of(&point).into_key(), point, validation, test });
    }
    let layout = layout(&cells[0].1, &operators);
    Ok(Table::new(layout, rows, identity, |row| functions.of(&row.point).histogram()))
}

/// Reads a column of a file whose rows are those of the table, in its order: say, latencies of one device.
///
/// # Errors
/// [`TabularError`] with file and line.
pub fn read_costs(path: &Path, column: &str) -> Result<Vec<f64>, TabularError> {
    let text = Text::read(path)?;
    Columns::split(&text)?.numbers(column)
}

fn layout(cell: &[&str], operators: &[&str]) -> Layout {
    let none = operators.iter().position(|&op| op == NONE).map(|op| op as u8);
    let names = (1..).flat_map(|to| (0..to).map(move |from| format!("{from}->{to}")));
    let decisions: Vec<Decision> =
        names.take(cell.len()).map(|name| Decision::new(name, operators.len() as u8)).collect();
    Layout { name: NAME, removals: vec![none; decisions.len()], decisions, n_duplicates: 0 }
}

/// Operators of all edges of a cell, by target, then source.
type CellOps<'a> = Vec<&'a str>;

fn read_cells<'a>(text: &Text, columns: &Columns<'a>) -> Result<Vec<(usize, CellOps<'a>)>, TabularError> {
    let mut cells: Vec<(usize, CellOps<'a>)> = Vec::new();
    for (line, field) in columns.fields(ARCH_COLUMN)? {
        let cell = parse(field).map_err(|reason| text.at(line, reason))?;
        if let Some((_, first)) = cells.first()
            && first.len() != cell.len()
        {
            return Err(text.at(line, format!("a cell of {} edges, the first has {}", cell.len(), first.len())));
        }
        cells.push((line, cell));
    }
    Ok(cells)
}

fn parse(field: &str) -> Result<CellOps<'_>, String> {
    let mut cell = Vec::new();
    for (group, target) in field.split('+').zip(1usize..) {
        if target >= MAX_NODES {
            return Err(format!("more than {MAX_NODES} nodes"));
        }
        let Some(inner) = group.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) else {
            return Err(format!("node {target}: {:?} is not of the form |op~0|op~1|", shortened(group)));
        };
        let edges: Vec<&str> = inner.split('|').collect();
        if edges.len() != target {
            return Err(format!("node {target} has {} edges instead of {target}", edges.len()));
        }
        for (source, edge) in edges.into_iter().enumerate() {
            match edge.split_once('~') {
                Some((op, from)) if !op.is_empty() && from.parse() == Ok(source) => cell.push(op),
                _ => return Err(format!("node {target}: {:?} is not an operator from node {source}", shortened(edge))),
            }
        }
    }
    Ok(cell)
}

/// Turns cells into expressions.
struct Functions {
    none: Option<u8>,
    skip: Option<u8>,
}

/// A sum of terms, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Sum(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Term {
    Input,
    Operator(u8, Sum),
}

impl Functions {
    fn new(operators: &[&str]) -> Self {
        let find = |name| operators.iter().position(|&op| op == name).map(|op| op as u8);
        Self { none: find(NONE), skip: find(SKIP) }
    }

    fn of(&self, point: &Point) -> Sum {
        let mut nodes = vec![Sum(vec![Term::Input])];
        let mut ops = point.values().iter();
        while ops.len() > 0 {
            let mut terms = Vec::new();
            for (source, &op) in nodes.iter().zip(ops.by_ref().take(nodes.len())) {
                if Some(op) == self.none || source.0.is_empty() {
                    continue;
                }
                if Some(op) == self.skip {
                    terms.extend(source.0.iter().cloned());
                } else {
                    terms.push(Term::Operator(op, source.clone()));
                }
            }
            terms.sort_unstable();
            nodes.push(Sum(terms));
        }
        nodes.pop().unwrap_or_default()
    }
}

/// Words of [`Sum::into_key`] and labels of its graph: operator `op` is `FIRST_OPERATOR + op`.
const INPUT: u32 = 0;
const OUTPUT: u32 = 1;
const CLOSE: u32 = 2;
const FIRST_OPERATOR: u32 = 3;

impl Sum {
    /// The expression in prefix order.
    fn into_key(self) -> Vec<u32> {
        let mut key = Vec::new();
        self.write(&mut key);
        key
    }

    fn write(&self, key: &mut Vec<u32>) {
        for term in &self.0 {
            match term {
                Term::Input => key.push(INPUT),
                Term::Operator(op, sum) => {
                    key.push(FIRST_OPERATOR + u32::from(*op));
                    sum.write(key);
                    key.push(CLOSE);
                }
            }
        }
    }

    /// Counts of what occurs in the expression as a tree: operators are the nodes, the output is the root.
    fn histogram(&self) -> Histogram {
        let (mut labels, mut edges) = (Vec::new(), Vec::new());
        let sources = self.add_to(&mut labels, &mut edges);
        edges.extend(sources.into_iter().map(|source| (source, labels.len())));
        labels.push(OUTPUT);
        FunctionGraph::new(labels, &edges).map(|graph| graph.histogram()).unwrap_or_default()
    }

    /// Adds the terms' trees, sources first, and gives the terms' nodes.
    fn add_to(&self, labels: &mut Vec<u32>, edges: &mut Vec<(usize, usize)>) -> Vec<usize> {
        let mut roots = Vec::with_capacity(self.0.len());
        for term in &self.0 {
            let sources = match term {
                Term::Input => Vec::new(),
                Term::Operator(_, sum) => sum.add_to(labels, edges),
            };
            edges.extend(sources.into_iter().map(|source| (source, labels.len())));
            roots.push(labels.len());
            labels.push(match term {
                Term::Input => INPUT,
                Term::Operator(op, _) => FIRST_OPERATOR + u32::from(*op),
            });
        }
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPS: [&str; 4] = ["avg", "conv", "none", "skip_connect"];

    fn function(arch: &str) -> Sum {
        let values: Vec<u8> = parse(arch).unwrap().iter().map(|op| OPS.binary_search(op).unwrap() as u8).collect();
        Functions::new(&OPS).of(&values.into())
    }

    #[test]
    fn none_goes_skip_contracts_and_sums_are_sorted() {
        let direct = function("|none~0|+|none~0|none~1|+|conv~0|none~1|none~2|");
        let over_skip = function("|skip_connect~0|+|none~0|none~1|+|none~0|conv~1|none~2|");
        assert_eq!(direct, over_skip);
        let a = function("|conv~0|+|avg~0|none~1|+|none~0|skip_connect~1|skip_connect~2|");
        let b = function("|avg~0|+|conv~0|none~1|+|none~0|skip_connect~1|skip_connect~2|");
        assert_eq!(a, b);
        assert_eq!(a.histogram(), b.histogram());
        // conv of zero is zero; twice the input is not the input.
        let zero = function("|none~0|+|none~0|conv~1|+|none~0|none~1|conv~2|");
        assert_eq!(zero, Sum::default());
        let twice = function("|skip_connect~0|+|none~0|none~1|+|skip_connect~0|skip_connect~1|none~2|");
        assert_eq!(twice, Sum(vec![Term::Input, Term::Input]));
    }

    #[test]
    fn bad_cells_are_refused() {
        for (field, expected) in [
            ("", "node 1: \"\" is not of the form |op~0|op~1|"),
            ("|conv~0|conv~1|", "node 1 has 2 edges instead of 1"),
            ("|conv~0|+|conv~1|conv~0|", "node 2: \"conv~1\" is not an operator from node 0"),
            ("|~0|", "node 1: \"~0\" is not an operator from node 0"),
        ] {
            assert_eq!(parse(field).unwrap_err(), expected);
        }
        assert!(parse(&["|a~0|"; 9].join("+")).is_err());
    }
}
