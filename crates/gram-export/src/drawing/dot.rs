//! Graphs as DOT text, for Graphviz and everything that reads it.

use std::fmt::Write;

use gram_ir::{Architecture, Cell, CellNodeId, Network};

use super::palette::{TERMINAL, colours};

const STYLE: &str =
    "  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", fillcolor=\"#f4f6f8\"];\n";

/// The network of primitive operators: one node each, with its kind and shape.
///
/// # Example
/// ```
/// use gram_ir::{Network, Op, Shape};
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()])?;
/// network.set_output(pool)?;
/// let dot = gram_export::network_to_dot(&network);
/// assert!(dot.contains(r#"n1 [label="pool\nglobal-avgpool\n3x1x1", penwidth=3];"#));
/// assert!(dot.contains("n0 -> n1;"));
/// # Ok::<(), gram_ir::NetworkError>(())
/// ```
pub fn network_to_dot(network: &Network) -> String {
    let mut dot = format!("digraph network {{\n{STYLE}");
    for (id, node) in network.iter() {
        let output = if id == network.output() { ", penwidth=3" } else { "" };
        let label = format!("{}\\n{}\\n{}", node.name, node.op.kind(), node.shape);
        line(&mut dot, format_args!("  {id} [label=\"{label}\"{output}];"));
    }
    for (id, node) in network.iter() {
        for from in &node.inputs {
            line(&mut dot, format_args!("  {from} -> {id};"));
        }
    }
    dot.push_str("}\n");
    dot
}

/// A cell: its live nodes in their operators' colours, leaves with a double outline.
pub fn cell_to_dot(cell: &Cell) -> String {
    let mut dot = format!("digraph cell {{\n{STYLE}");
    cell_body(&mut dot, cell, "", "input");
    dot.push_str("}\n");
    dot
}

/// An architecture: one cluster for each stage, its cell as by [`cell_to_dot`].
pub fn architecture_to_dot(architecture: &Architecture) -> String {
    let mut dot = format!("digraph \"{}\" {{\n{STYLE}", escape(&architecture.name));
    let mut previous = String::from("input");
    line(&mut dot, format_args!("  input [label=\"input\\n{}\"];", architecture.input));
    if !architecture.stem.is_empty() {
        line(&mut dot, format_args!("  stem [label=\"stem\\n{} layers\"];\n  input -> stem;", architecture.stem.len()));
        previous = "stem".into();
    }
    for (i, stage) in architecture.stages.iter().enumerate() {
        line(
            &mut dot,
            format_args!(
                "  subgraph cluster_{i} {{\n  label=\"stage {i}, {} channels, x{}\";",
                stage.node_channels, stage.repeats
            ),
        );
        let prefix = format!("s{i}_");
        cell_body(&mut dot, &stage.cell, &prefix, "input");
        line(
            &mut dot,
            format_args!("  {prefix}out [label=\"output\", fillcolor=\"{}\", fontcolor=white];", TERMINAL.fill),
        );
        for leaf in stage.cell.leaves() {
            line(&mut dot, format_args!("  {prefix}{leaf} -> {prefix}out;"));
        }
        line(&mut dot, format_args!("  }}\n  {previous} -> {prefix}n0;"));
        previous = format!("{prefix}out");
    }
    line(
        &mut dot,
        format_args!("  head [label=\"head\\n{} classes\"];\n  {previous} -> head;\n}}", architecture.num_classes),
    );
    dot
}

fn cell_body(dot: &mut String, cell: &Cell, prefix: &str, input: &str) {
    let leaves = cell.leaves();
    let zero = CellNodeId::INPUT;
    line(dot, format_args!("  {prefix}{zero} [label=\"{input}\", fillcolor=\"{}\", fontcolor=white];", TERMINAL.fill));
    for (id, op, inputs) in cell.live_inputs() {
        let colours = colours(op);
        let leaf = if leaves.contains(&id) { ", peripheries=2" } else { "" };
        let (fill, outline) = (colours.fill, colours.line);
        line(
            dot,
            format_args!("  {prefix}{id} [label=\"{op}\\n{id}\", fillcolor=\"{fill}\", color=\"{outline}\"{leaf}];"),
        );
        for from in inputs {
            line(dot, format_args!("  {prefix}{from} -> {prefix}{id};"));
        }
    }
}

fn line(dot: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(dot, "{text}");
}

/// Text inside a quoted DOT string.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use gram_ir::CellOp;

    use super::*;

    #[test]
    fn dead_nodes_are_not_drawn() {
        let mut cell = Cell::new();
        for (n, op) in [(1, CellOp::Sep3x3), (2, CellOp::Conv1x1), (3, CellOp::Identity)] {
            cell.add_node(CellNodeId(n), op).unwrap();
        }
        for (from, to) in [(0, 1), (2, 3), (1, 3)] {
            cell.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
        }
        let dot = cell_to_dot(&cell);
        let expected = "  n0 [label=\"input\", fillcolor=\"#34404d\", fontcolor=white];
  n1 [label=\"sep3x3\\nn1\", fillcolor=\"#d5f0e2\", color=\"#1f8a5b\"];
  n0 -> n1;
  n3 [label=\"identity\\nn3\", fillcolor=\"#eceff2\", color=\"#77818c\", peripheries=2];
  n1 -> n3;
}
";
        assert_eq!(dot, format!("digraph cell {{\n{STYLE}{expected}"));
    }

    #[test]
    fn quotes_are_escaped() {
        assert_eq!(escape(r#"a"b\"#), r#"a\"b\\"#);
    }
}
