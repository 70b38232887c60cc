//! What a well-formed graph is, checked from the parts.
//!
//! A [`Cell`]:
//! - **C1** operator nodes have ids from 1 to [`MAX_CELL_NODE`];
//! - **C2** edges join nodes that exist;
//! - **C3** edges go from lower to higher ids, so there is no cycle.
//!
//! An [`Architecture`]:
//! - **A1** the name is not empty and has letters, digits, `.`, `_` and `-` only;
//! - **A2** every axis of the input and the number of classes are between 1 and [`MAX_AXIS`];
//! - **A3** stem layers have 1 to [`MAX_AXIS`] channels, odd kernels and strides between 1 and [`MAX_KERNEL`];
//! - **A4** stages have 1 to [`MAX_NODES`] repeats and 1 to [`MAX_AXIS`] channels, projections and the head's convolution too;
//! - **A5** cells are well-formed and have an operator node that is live;
//! - **A6** it lowers: every layer fits its input. Checked only where all else holds.
//!
//! A [`Network`]:
//! - **N1** node 0 is the input, without inputs of its own, and no other node is one; there are at most [`MAX_NODES`] nodes;
//! - **N2** names are unique, not empty, of letters, digits, `.`, `_` and `-`, and each finds its node;
//! - **N3** inputs of a node come before it, so there is no cycle;
//! - **N4** the shape of each node is the one that its operator makes of its inputs;
//! - **N5** the output exists.
//!
//! Nodes that the output does not need are allowed at both levels: dropping them is a transform, not a repair.
//! [`Cell`] and [`Network`] refuse edits that would break C1–C3 and N1–N5; a violation there is a bug in this crate.

use std::collections::BTreeMap;

use crate::{
    Architecture, Cell, CellNodeId, CellOp, MAX_AXIS, MAX_CELL_NODE, MAX_KERNEL, MAX_NODES, Network, NetworkError,
    Node, NodeId, Op, Shape, Stage, StemLayer, Verify, Violations,
};

impl Verify for Cell {
    fn verify(&self) -> Result<(), Violations> {
        cell_parts(&self.ops().collect::<Vec<_>>(), self.edges()).into_result()
    }
}

impl Verify for Architecture {
    fn verify(&self) -> Result<(), Violations> {
        verify_fields(self)?;
        let mut broken = Violations::default();
        if let Err(error) = self.lower() {
            broken.push(format!("A6: {error}"));
        }
        broken.into_result()
    }
}

impl Verify for Network {
    fn verify(&self) -> Result<(), Violations> {
        let mut broken = network_parts(self.nodes(), self.output());
        for (id, node) in self.iter() {
            if self.find(&node.name) != Some(id) {
                broken.push(format!("N2: {id}: the name `{}` does not find it", node.name));
            }
        }
        broken.into_result()
    }
}

/// A1 to A5: all but whether it lowers, which depends on the size of the input.
pub(crate) fn verify_fields(architecture: &Architecture) -> Result<(), Violations> {
    let mut broken = Violations::default();
    if !is_name(&architecture.name) {
        broken.push(format!("A1: {}", bad_name(&architecture.name)));
    }
    let Shape { c, h, w } = architecture.input;
    for (what, size) in [("channels", c), ("height", h), ("width", w)] {
        expect(&mut broken, in_axis(size), || format!("A2: input {what} {size} is not between 1 and {MAX_AXIS}"));
    }
    let classes = architecture.num_classes;
    expect(&mut broken, in_axis(classes), || format!("A2: {classes} classes are not between 1 and {MAX_AXIS}"));
    for (i, layer) in architecture.stem.iter().enumerate() {
        stem_layer(&mut broken, i, layer);
    }
    for (i, part) in architecture.stages.iter().enumerate() {
        stage(&mut broken, i, part);
    }
    if let Some(conv) = architecture.head.conv {
        expect(&mut broken, in_axis(conv), || format!("A4: head: {conv} channels are not between 1 and {MAX_AXIS}"));
    }
    broken.into_result()
}

/// Whether `text` may name an architecture or a node.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// [`Network::new`] for a shape that was read: every axis must be in range.
pub(crate) fn network_with_input(input: Shape) -> Result<Network, NetworkError> {
    let checked = Op::Input { shape: input }.output_shape(&[]);
    checked.map(Network::new).map_err(|source| NetworkError::Shape { name: "input".into(), source })
}

fn bad_name(text: &str) -> String {
    let shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    format!("`{shown}` is no name: use letters, digits, `.`, `_` and `-`")
}

fn in_axis(size: usize) -> bool {
    (1..=MAX_AXIS).contains(&size)
}

fn expect(broken: &mut Violations, holds: bool, message: impl FnOnce() -> String) {
    if !holds {
        broken.push(message());
    }
}

fn stem_layer(broken: &mut Violations, i: usize, layer: &StemLayer) {
    let (StemLayer::Conv { channels, kernel, stride } | StemLayer::Sep { channels, kernel, stride }) = *layer else {
        return;
    };
    let window = |size| (1..=MAX_KERNEL).contains(&size);
    expect(broken, in_axis(channels), || format!("A3: stem {i}: {channels} channels are not between 1 and {MAX_AXIS}"));
    expect(broken, window(kernel), || format!("A3: stem {i}: kernel {kernel} is not between 1 and {MAX_KERNEL}"));
    expect(broken, !kernel.is_multiple_of(2), || format!("A3: stem {i}: kernel {kernel} is not odd"));
    expect(broken, window(stride), || format!("A3: stem {i}: stride {stride} is not between 1 and {MAX_KERNEL}"));
}

fn stage(broken: &mut Violations, i: usize, stage: &Stage) {
    let &Stage { repeats, node_channels, .. } = stage;
    let (repeats_fit, channels_fit) = ((1..=MAX_NODES).contains(&repeats), in_axis(node_channels));
    expect(broken, repeats_fit, || format!("A4: stage {i}: {repeats} repeats are not between 1 and {MAX_NODES}"));
    expect(broken, channels_fit, || {
        format!("A4: stage {i}: {node_channels} channels are not between 1 and {MAX_AXIS}")
    });
    if let Some(project) = stage.output.project {
        expect(broken, in_axis(project), || {
            format!("A4: stage {i}: projection to {project} channels is not between 1 and {MAX_AXIS}")
        });
    }
    if let Err(inner) = stage.cell.verify() {
        broken.extend_from(format!("A5: stage {i}"), inner);
    }
    expect(broken, !stage.cell.leaves().is_empty(), || {
        format!("A5: stage {i}: no node of the cell is reached from its input")
    });
}

fn cell_parts(ops: &[(CellNodeId, CellOp)], edges: impl IntoIterator<Item = (CellNodeId, CellNodeId)>) -> Violations {
    let mut broken = Violations::default();
    for (id, _) in ops {
        let in_range = (1..=MAX_CELL_NODE).contains(&id.0);
        expect(&mut broken, in_range, || format!("C1: {id} is not between n1 and n{MAX_CELL_NODE}"));
    }
    let exists = |id: CellNodeId| id == CellNodeId::INPUT || ops.iter().any(|&(other, _)| other == id);
    for (from, to) in edges {
        for id in [from, to] {
            expect(&mut broken, exists(id), || format!("C2: edge {from} -> {to}: {id} does not exist"));
        }
        expect(&mut broken, from < to, || format!("C3: edge {from} -> {to} does not go from a lower to a higher id"));
    }
    broken
}

fn network_parts(nodes: &[Node], output: NodeId) -> Violations {
    let mut broken = Violations::default();
    expect(&mut broken, nodes.len() <= MAX_NODES, || format!("N1: {} nodes are more than {MAX_NODES}", nodes.len()));
    let mut first_of_name: BTreeMap<&str, NodeId> = BTreeMap::new();
    for (i, node) in nodes.iter().enumerate() {
        let id = NodeId(u32::try_from(i).unwrap_or(u32::MAX));
        let is_input = matches!(node.op, Op::Input { .. });
        expect(&mut broken, is_input || i > 0, || format!("N1: {id} is the first node and not the input"));
        expect(&mut broken, !is_input || i == 0, || format!("N1: {id} is a second input"));
        expect(&mut broken, is_name(&node.name), || format!("N2: {id}: {}", bad_name(&node.name)));
        if let Some(first) = first_of_name.insert(&node.name, id) {
            broken.push(format!("N2: {id} and {first} are both named `{}`", node.name));
        }
        match node.inputs.iter().find(|input| input.index() >= i) {
            Some(input) => broken.push(format!("N3: {id} reads {input}, which does not come before it")),
            None => shape_of(&mut broken, id, node, nodes),
        }
    }
    let exists = output.index() < nodes.len();
    expect(&mut broken, exists, || format!("N5: the output {output} does not exist"));
    broken
}

fn shape_of(broken: &mut Violations, id: NodeId, node: &Node, nodes: &[Node]) {
    let inputs: Vec<Shape> = node.inputs.iter().map(|input| nodes[input.index()].shape).collect();
    match node.op.output_shape(&inputs) {
        Ok(shape) if shape == node.shape => {}
        Ok(shape) => broken.push(format!("N4: {id}: shape is {}, its operator gives {shape}", node.shape)),
        Err(error) => broken.push(format!("N4: {id}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, CellOutput, Conv2d, Downsample, Head};

    fn node(name: &str, op: Op, inputs: &[u32], shape: Shape) -> Node {
        Node { name: name.into(), op, inputs: inputs.iter().map(|&i| NodeId(i)).collect(), shape }
    }

    #[test]
    fn every_broken_invariant_of_a_network_is_listed() {
        let shape = Shape::chw(3, 8, 8);
        let nodes = [
            node("input", Op::Identity, &[], shape),
            node("a b", Op::Input { shape }, &[], shape),
            node("same", Op::Identity, &[1], Shape::chw(4, 8, 8)),
            node("same", Op::Identity, &[3], shape),
            node("conv", Op::Conv(Conv2d::new(5, 1, 1)), &[1], shape),
        ];
        let found = network_parts(&nodes, NodeId(9)).0;
        let expected = [
            "N1: n0 is the first node and not the input",
            "N4: n0: identity takes one input, got 0",
            "N1: n1 is a second input",
            "N2: n1: `a b` is no name: use letters, digits, `.`, `_` and `-`",
            "N4: n2: shape is 4x8x8, its operator gives 3x8x8",
            "N2: n3 and n2 are both named `same`",
            "N3: n3 reads n3, which does not come before it",
            "N4: n4: expected 5 input channels, got 3x8x8",
            "N5: the output n9 does not exist",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_broken_invariant_of_a_cell_is_listed() {
        let id = CellNodeId;
        let found =
            cell_parts(&[(id(0), CellOp::Identity), (id(300), CellOp::Identity)], [(id(300), id(0)), (id(0), id(7))]);
        let expected = [
            "C1: n0 is not between n1 and n255",
            "C1: n300 is not between n1 and n255",
            "C3: edge n300 -> n0 does not go from a lower to a higher id",
            "C2: edge n0 -> n7: n7 does not exist",
        ];
        assert_eq!(found.0, expected);
    }

    #[test]
    fn every_broken_invariant_of_an_architecture_is_listed() {
        let output = CellOutput { project: Some(0), residual: false, linear_leaves: false, activation: false };
        let stage = Stage { cell: Cell::new(), repeats: 0, node_channels: 0, downsample: Downsample::None, output };
        let mut architecture = Architecture {
            name: "two words".into(),
            input: Shape::chw(0, 8, 8),
            num_classes: 0,
            activation: Activation::Relu,
            stem: vec![StemLayer::Conv { channels: 0, kernel: 4, stride: 0 }],
            stages: vec![stage],
            head: Head { conv: Some(MAX_AXIS + 1) },
        };
        let broken = architecture.verify().unwrap_err();
        let ids: Vec<&str> = broken.0.iter().map(|line| &line[..2]).collect();
        assert_eq!(ids, ["A1", "A2", "A2", "A3", "A3", "A3", "A4", "A4", "A4", "A5", "A4"], "{broken}");

        architecture = Architecture {
            name: "x".into(),
            input: Shape::chw(1, 1, 1),
            num_classes: 2,
            stem: vec![StemLayer::Maxpool2],
            stages: Vec::new(),
            head: Head::default(),
            ..architecture
        };
        assert_eq!(
            architecture.verify().unwrap_err().0,
            ["A6: node `stem.0.pool`: a window of 2 pixels does not fit into 1x1x1 padded by 0"]
        );
        architecture.input = Shape::chw(1, 2, 2);
        assert_eq!(architecture.verify(), Ok(()));
    }
}
