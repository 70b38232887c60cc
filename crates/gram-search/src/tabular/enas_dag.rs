//! ENAS macro architectures of a fixed number of layers with weight-sharing accuracies (the data of D-VAE, Zhang et al.,
//! [arXiv:1904.11088](https://arxiv.org/abs/1904.11088)).
//!
//! One architecture a line: `[[op], [op, b0], [op, b0, b1], ...], accuracy`. Layer `k` (from 1) has `k − 1` bits: bit `j` is an edge from
//! vertex `j` (0 is the input); the edge from the layer before is always there, and the last layer is the output. The accuracy, a
//! fraction, is both what the search sees and what it is judged by.
//!
//! The rows are a small sample of the space (14,089 of 1.5 billion), with hardly two of them one edit apart. What has no line is infeasible,
//! and neighbours are nearest rows, see [`Table`]. An architecture that has several lines gets the mean of their accuracies and the place
//! of the first; [`Table::n_duplicates`] counts the others. No line is left out.
//!
//! # Equal functions
//! None: the chain through all layers tells every layer from the others.

use std::collections::BTreeMap;
use std::path::Path;

use super::read::{Text, shortened};
use super::table::{Layout, Row};
use super::{Identity, Table, TabularError};
use crate::domain::{Decision, FunctionGraph, Histogram, Point};

const NAME: &str = "enas-dag";
/// Operators of ENAS: conv 3x3, separable 3x3, conv 5x5, separable 5x5, average pooling, max pooling.
const N_OPERATORS: u8 = 6;
const MAX_LAYERS: usize = 16;

/// Reads the table.
///
/// # Errors
/// [`TabularError`] with file and line.
pub fn read(path: &Path, identity: Identity) -> Result<Table, TabularError> {
    let text = Text::read(path)?;
    let lines = text.lines()?;
    let mut merged: BTreeMap<Point, usize> = BTreeMap::new();
    let mut rows: Vec<(Point, f64, f64)> = Vec::new();
    let mut n_layers = None;
    for &(line, content) in &lines {
        let (layers, point, score) = parse(content).map_err(|reason| text.at(line, reason))?;
        if *n_layers.get_or_insert(layers) != layers {
            return Err(text.at(line, format!("{layers} layers, the first line has {}", n_layers.unwrap_or(0))));
        }
        match merged.get(&point) {
            Some(&row) => {
                rows[row].1 += score;
                rows[row].2 += 1.0;
            }
            None => {
                merged.insert(point.clone(), rows.len());
                rows.push((point, score, 1.0));
            }
        }
    }
    let Some(n_layers) = n_layers else { return Err(text.whole("the file is empty")) };
    let layout = layout(n_layers, lines.len() - rows.len());
    let as_row = |(point, sum, n): (Point, f64, f64)| {
        let function = point.values().iter().map(|&value| u32::from(value)).collect();
        Row { point, function, validation: sum / n, test: sum / n }
    };
    Ok(Table::new(layout, rows.into_iter().map(as_row).collect(), identity, move |row| histogram(n_layers, &row.point)))
}

/// Operators first, then the bits of layer 2, 3, and so on.
fn layout(n_layers: usize, n_duplicates: usize) -> Layout {
    let operators = (1..=n_layers).map(|layer| Decision::new(format!("op{layer}"), N_OPERATORS));
    let bits = (2..=n_layers).flat_map(|to| (0..to - 1).map(move |from| Decision::new(format!("{from}->{to}"), 2)));
    let decisions: Vec<Decision> = operators.chain(bits).collect();
    let removals = (0..decisions.len()).map(|index| (index >= n_layers).then_some(0)).collect();
    Layout { name: NAME, decisions, removals, n_duplicates }
}

fn parse(line: &str) -> Result<(usize, Point, f64), String> {
    let (layers, score): (Vec<Vec<u8>>, f64) = serde_json::from_str(&format!("[{line}]"))
        .map_err(|_| format!("{:?} is not [[op], [op, bit], ...], accuracy", shortened(line)))?;
    if layers.is_empty() || layers.len() > MAX_LAYERS {
        return Err(format!("{} layers; 1 to {MAX_LAYERS} are read", layers.len()));
    }
    let (mut operators, mut edges) = (Vec::new(), Vec::new());
    for (index, layer) in layers.iter().enumerate() {
        match layer.as_slice() {
            [op, bits @ ..] if *op < N_OPERATORS && bits.len() == index && bits.iter().all(|&bit| bit < 2) => {
                operators.push(*op);
                edges.extend_from_slice(bits);
            }
            _ => return Err(format!("layer {} is not an operator below {N_OPERATORS} and {index} bits", index + 1)),
        }
    }
    operators.extend(edges);
    Ok((layers.len(), operators.into(), score))
}

fn histogram(n_layers: usize, point: &Point) -> Histogram {
    let (operators, bits) = point.values().split_at(n_layers);
    let mut labels = vec![0];
    labels.extend(operators.iter().map(|&op| 2 + u32::from(op)));
    labels.push(1);
    let mut edges: Vec<(usize, usize)> = (1..labels.len()).map(|to| (to - 1, to)).collect();
    let skips = (2..=n_layers).flat_map(|to| (0..to - 1).map(move |from| (from, to)));
    edges.extend(skips.zip(bits).filter(|(_, bit)| **bit == 1).map(|(edge, _)| edge));
    FunctionGraph::new(labels, &edges).map(|graph| graph.histogram()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Domain;

    fn table(content: &str) -> Result<Table, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.txt");
        std::fs::write(&path, content).unwrap();
        read(&path, Identity::Function).map_err(|e| e.to_string().rsplit_once("e.txt").unwrap().1.to_owned())
    }

    #[test]
    fn repeated_lines_are_averaged_and_counted() {
        let table = table("[[1], [2, 0]], 0.5\n[[1], [2, 1]], 0.9\n[[1], [2, 0]], 0.75\n").unwrap();
        assert_eq!((table.n_rows(), table.n_duplicates(), table.decisions().len()), (2, 1, 3));
        assert_eq!((table.validation(0), table.test(1)), (0.625, 0.9));
        assert_eq!(table.neighbours(&Point::from([1, 2, 0])), [Point::from([1, 2, 1])]);
    }

    #[test]
    fn bad_lines_are_refused() {
        let refusal = |content: &str| table(content).unwrap_err();
        assert_eq!(refusal(""), ": the file is empty");
        assert_eq!(refusal("[[1], [2, 0]], 0.5\n\n[[6]], 1"), ":3: layer 1 is not an operator below 6 and 0 bits");
        assert_eq!(refusal("[[1], [2]], 1"), ":1: layer 2 is not an operator below 6 and 1 bits");
        assert_eq!(refusal("[[1]], 1\n[[1], [2, 0]], 1"), ":2: 2 layers, the first line has 1");
        assert_eq!(refusal("[[1]], NaN"), ":1: \"[[1]], NaN\" is not [[op], [op, bit], ...], accuracy");
        assert_eq!(refusal("[], 1"), ":1: 0 layers; 1 to 16 are read");
    }
}
