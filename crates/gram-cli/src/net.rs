//! Net files: child networks in the few words that other frameworks' benchmarks read too.
//!
//! `cell` starts a stage; each further line is a node of it: `sep P…` (depthwise 3x3 and 1x1 convolution) or `c1 P…` (1x1 convolution), each
//! convolution with norm and ReLU; P are the numbers of its predecessors in the cell, counted from 0, none: the cell's input. A 3x3 stem with
//! 16 channels stands in front, stages have 16, 32, 64, … channels with a 2x2 max-pool between them, and global average pool and a
//! linear layer for 10 classes follow. Images are 3x32x32.

use std::collections::BTreeSet;
use std::path::Path;

use gram_ir::{
    Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Shape, Stage, StemLayer,
};

const INPUT: Shape = Shape::chw(3, 32, 32);
const NUM_CLASSES: usize = 10;
/// Channels of the stem and of the first stage's nodes.
const CHANNELS: usize = 16;
/// 32 pixels can be halved five times.
const MAX_STAGES: usize = 6;
const MAX_CELL_NODES: usize = 64;
const MAX_BYTES: usize = 1 << 20;

/// Whether a file is a net file: by its extension, or because its first word is `cell`.
pub(crate) fn is_net(path: &Path, text: &str) -> bool {
    has_extension(path) || text.split_whitespace().next() == Some("cell")
}

/// Whether a file says by its name that it is a net file.
pub(crate) fn has_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "net")
}

/// The architecture that a net file describes, under the file's name.
///
/// # Errors
/// Which line is wrong, and what was expected there.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Architecture, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("{} bytes are more than the {MAX_BYTES} of the largest net file", text.len()));
    }
    let mut cells: Vec<Cell> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        add_line(&mut cells, line).map_err(|problem| format!("line {}: {problem}", i + 1))?;
        check_nodes(&cells, i)?;
    }
    if cells.is_empty() {
        return Err("there is no `cell`".into());
    }
    if let Some(i) = cells.iter().position(|cell| cell.ops().len() == 0) {
        return Err(format!("cell {i} has no nodes"));
    }
    Ok(architecture(name(path), cells))
}

fn check_nodes(cells: &[Cell], line: usize) -> Result<(), String> {
    if cells.last().is_some_and(|cell| cell.ops().len() > MAX_CELL_NODES) {
        return Err(format!("line {}: a cell may have {MAX_CELL_NODES} nodes at most", line + 1));
    }
    Ok(())
}

/// Reads one line into the last cell.
fn add_line(cells: &mut Vec<Cell>, line: &str) -> Result<(), String> {
    let mut words = line.split_whitespace();
    let op = match words.next() {
        None => return Ok(()),
        Some("cell") => return start_cell(cells, words.next()),
        Some("sep") => CellOp::Sep3x3,
        Some("c1") => CellOp::Conv1x1,
        Some(other) => return Err(format!("`{}` is none of cell, sep, c1", cut(other))),
    };
    let cell = cells.last_mut().ok_or("a node without a cell: the first line must be `cell`")?;
    let node = cell.ops().len();
    let mut inputs = BTreeSet::new();
    for word in words {
        let input = word.parse().ok().filter(|&input: &usize| input < node);
        let input = input.ok_or_else(|| format!("`{}` is no earlier node of node {node}", cut(word)))?;
        if !inputs.insert(id(input)) {
            return Err(format!("node {node} names node {input} twice"));
        }
    }
    if inputs.is_empty() {
        inputs.insert(CellNodeId::INPUT);
    }
    cell.add_node(id(node), op).map_err(|error| error.to_string())?;
    inputs.into_iter().try_for_each(|input| cell.add_edge(input, id(node))).map_err(|error| error.to_string())
}

fn start_cell(cells: &mut Vec<Cell>, next: Option<&str>) -> Result<(), String> {
    if let Some(word) = next {
        return Err(format!("`{}` behind `cell`, where nothing is expected", cut(word)));
    }
    if cells.len() == MAX_STAGES {
        return Err(format!("images of {INPUT} have room for {MAX_STAGES} cells at most"));
    }
    cells.push(Cell::new());
    Ok(())
}

/// Node 0 of the file is behind the cell's input.
fn id(node: usize) -> CellNodeId {
    CellNodeId(u16::try_from(node + 1).unwrap_or(u16::MAX))
}

/// The beginning of a word that is quoted in a message.
fn cut(word: &str) -> String {
    word.chars().take(40).collect()
}

/// The file's name without what names of architectures may not have.
fn name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).take(64).collect();
    if name.is_empty() { "net".into() } else { name }
}

fn architecture(name: String, cells: Vec<Cell>) -> Architecture {
    let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    let stage = |(i, cell)| Stage {
        cell,
        repeats: 1,
        node_channels: CHANNELS << i,
        downsample: if i == 0 { Downsample::None } else { Downsample::Maxpool2 },
        output,
    };
    Architecture {
        name,
        input: INPUT,
        num_classes: NUM_CLASSES,
        activation: Activation::Relu,
        stem: vec![StemLayer::Conv { channels: CHANNELS, kernel: 3, stride: 1 }],
        stages: cells.into_iter().enumerate().map(stage).collect(),
        head: Head::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Architecture, String> {
        parse(Path::new("nets/some.net"), text)
    }

    /// All edges between 8 nodes, in three cells.
    fn complete(op: impl Fn(usize) -> &'static str) -> String {
        let node = |i: usize| {
            let inputs: Vec<String> = (0..i).map(|j| j.to_string()).collect();
            format!("{} {}\n", op(i), inputs.join(" "))
        };
        format!("cell\n{}", (0..8).map(node).collect::<String>()).repeat(3)
    }

    #[test]
    fn params_are_those_that_torch_counts() {
        let params = |text: &str| read(text).unwrap().lower().unwrap().cost().params.0;
        // Counted by torch for the same nets.
        assert_eq!(params(&complete(|_| "sep")), 191_450);
        assert_eq!(params(&complete(|i| if i % 2 == 0 { "c1" } else { "sep" })), 175_962);
        let sparse = "cell\nsep\nsep 0\nsep 0\nc1 0 2\nsep 0 2\nsep 0 1 4\nsep 0 4\nsep 0 2 3 4 5\n\
                      cell\nc1\nc1\nsep\nsep 2\nc1 0 1 3\nc1 0 2\nsep 0 2 3\nsep 1 5 6\n\
                      cell\nsep\nsep\nsep 0\nsep\nsep 1 3\nsep 2 3\nsep 0 3 5\nsep 0 6\n";
        assert_eq!(params(sparse), 91_114);
        // Stem 27·16 + 32, node 16·16 + 32, classifier 160 + 10.
        assert_eq!(params("cell\nc1\n"), 464 + 288 + 170);
        // Depthwise of 16 (144 + 32) in front; leaves 0 and 1 side by side make 320 weights of the classifier.
        assert_eq!(params("cell\nc1\nsep\n"), 464 + 288 + 288 + 176 + 330);
    }

    #[test]
    fn structure_and_names() {
        let net = read("\n  cell \r\nsep\r\n\nc1 0\nsep 1 0\ncell\nc1\nc1").unwrap();
        assert_eq!((net.name.as_str(), net.stages.len()), ("some", 2));
        let network = net.lower().unwrap();
        let cell = &net.stages[0].cell;
        assert_eq!(cell.predecessors(CellNodeId(3)), [CellNodeId(1), CellNodeId(2)]);
        assert_eq!(cell.predecessors(CellNodeId(1)), [CellNodeId::INPUT]);
        let last = network.find("stages.1.cells.0.leaves").unwrap();
        assert_eq!(network.node(last).shape, Shape::chw(64, 16, 16));
        assert_eq!(name(Path::new("a b/ü.net")), "net");
    }

    #[test]
    fn net_files_are_told_by_extension_or_first_word() {
        assert!(is_net(Path::new("a.net"), "anything"));
        assert!(is_net(Path::new("a"), "\n cell\nsep"));
        assert!(!is_net(Path::new("a.txt"), "architecture x"));
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let message = read(text).unwrap_err();
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        assert!(message.len() < 200, "{message:?}");
    }

    #[test]
    fn bad_lines_are_named() {
        refused("", "there is no `cell`");
        refused("sep\n", "line 1: a node without a cell");
        refused("cell\nsep\nconv 0\n", "line 3: `conv` is none of cell, sep, c1");
        refused("cell\nsep\nsep 1\n", "line 3: `1` is no earlier node of node 1");
        refused("cell\nsep 0\n", "line 2: `0` is no earlier node of node 0");
        refused("cell\nsep\nsep -1\n", "line 3: `-1` is no earlier node");
        refused("cell\nsep\nsep 0 0\n", "line 3: node 1 names node 0 twice");
        refused("cell 3\nsep\n", "line 1: `3` behind `cell`");
        refused("cell\nsep\ncell\n", "cell 1 has no nodes");
    }

    #[test]
    fn hostile_sizes_are_refused() {
        refused(&format!("cell\n{}", "sep\n".repeat(65)), "line 66: a cell may have 64 nodes at most");
        refused(&"cell\nsep\n".repeat(7), "line 13: images of 3x32x32 have room for 6 cells at most");
        refused(&format!("cell\nsep\nsep {}\n", "9".repeat(500)), "is no earlier node of node 1");
        refused(&format!("cell\n{}\n", "x".repeat(10_000)), "is none of cell, sep, c1");
        refused(&"cell\n".repeat(1 << 20), "are more than the 1048576");
        read(&format!("cell\n{}", "sep\n".repeat(64)).repeat(6)).unwrap().lower().unwrap();
    }
}
