//! What stands in a file, and how it becomes what is in memory.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, JsonError, clip};
use crate::verify::{is_name, network_with_input};
use crate::{
    Activation, Architecture, Cell, CellError, CellNodeId, CellOp, CellOutput, Conv2d, Downsample, Head, Network,
    NetworkError, NodeId, Op, Pool, Shape, Stage, StemLayer,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArchitectureFile {
    format_version: u32,
    kind: Cow<'static, str>,
    name: String,
    input: Shape,
    num_classes: usize,
    activation: Activation,
    stem: Vec<StemLayer>,
    stages: Vec<StageFile>,
    #[serde(default)]
    head: Head,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageFile {
    #[serde(default)]
    downsample: Downsample,
    repeats: usize,
    node_channels: usize,
    cell: Vec<CellNodeFile>,
    output: CellOutput,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CellNodeFile {
    id: CellNodeId,
    op: CellOp,
    inputs: Vec<CellNodeId>,
}

impl From<&Architecture> for ArchitectureFile {
    fn from(architecture: &Architecture) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            kind: "architecture".into(),
            name: architecture.name.clone(),
            input: architecture.input,
            num_classes: architecture.num_classes,
            activation: architecture.activation,
            stem: architecture.stem.clone(),
            stages: architecture.stages.iter().map(StageFile::from).collect(),
            head: architecture.head,
        }
    }
}

impl From<&Stage> for StageFile {
    fn from(stage: &Stage) -> Self {
        let node = |(id, op)| CellNodeFile { id, op, inputs: stage.cell.predecessors(id) };
        Self {
            downsample: stage.downsample,
            repeats: stage.repeats,
            node_channels: stage.node_channels,
            cell: stage.cell.ops().map(node).collect(),
            output: stage.output,
        }
    }
}

impl ArchitectureFile {
    pub(super) fn into_memory(self) -> Result<Architecture, JsonError> {
        let stage = |(i, file): (usize, StageFile)| {
            let cell = into_cell(&file.cell).map_err(|source| JsonError::Cell { stage: i, source })?;
            let StageFile { downsample, repeats, node_channels, output, .. } = file;
            Ok(Stage { cell, repeats, node_channels, downsample, output })
        };
        Ok(Architecture {
            name: self.name,
            input: self.input,
            num_classes: self.num_classes,
            activation: self.activation,
            stem: self.stem,
            stages: self.stages.into_iter().enumerate().map(stage).collect::<Result<_, JsonError>>()?,
            head: self.head,
        })
    }
}

fn into_cell(nodes: &[CellNodeFile]) -> Result<Cell, CellError> {
    let mut cell = Cell::new();
    for node in nodes {
        cell.add_node(node.id, node.op)?;
    }
    for node in nodes {
        for &from in &node.inputs {
            cell.add_edge(from, node.id)?;
        }
    }
    Ok(cell)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkFile {
    format_version: u32,
    kind: Cow<'static, str>,
    name: String,
    input: Shape,
    /// All nodes but the input, which is named `input`, in execution order.
    nodes: Vec<NodeFile>,
    output: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    name: String,
    inputs: Vec<String>,
    op: OpFile,
}

/// [`Op`] without the input, under the field `kind`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum OpFile {
    Conv(Conv2d),
    BatchNorm { channels: usize },
    Act { activation: Activation },
    Concat,
    Add,
    MaxPool(Pool),
    AvgPool(Pool),
    GlobalAvgPool,
    Linear { c_in: usize, c_out: usize, bias: bool },
    Identity,
    Zero,
}

impl OpFile {
    fn new(op: Op) -> Option<Self> {
        Some(match op {
            Op::Input { .. } => return None,
            Op::Conv(conv) => Self::Conv(conv),
            Op::BatchNorm { channels } => Self::BatchNorm { channels },
            Op::Act { activation } => Self::Act { activation },
            Op::Concat => Self::Concat,
            Op::Add => Self::Add,
            Op::MaxPool(pool) => Self::MaxPool(pool),
            Op::AvgPool(pool) => Self::AvgPool(pool),
            Op::GlobalAvgPool => Self::GlobalAvgPool,
            Op::Linear { c_in, c_out, bias } => Self::Linear { c_in, c_out, bias },
            Op::Identity => Self::Identity,
            Op::Zero => Self::Zero,
        })
    }

    fn into_memory(self) -> Op {
        match self {
            Self::Conv(conv) => Op::Conv(conv),
            Self::BatchNorm { channels } => Op::BatchNorm { channels },
            Self::Act { activation } => Op::Act { activation },
            Self::Concat => Op::Concat,
            Self::Add => Op::Add,
            Self::MaxPool(pool) => Op::MaxPool(pool),
            Self::AvgPool(pool) => Op::AvgPool(pool),
            Self::GlobalAvgPool => Op::GlobalAvgPool,
            Self::Linear { c_in, c_out, bias } => Op::Linear { c_in, c_out, bias },
            Self::Identity => Op::Identity,
            Self::Zero => Op::Zero,
        }
    }
}

impl NetworkFile {
    pub(super) fn new(name: &str, network: &Network) -> Self {
        let name_of = |id: NodeId| network.node(id).name.clone();
        let node = |node: &crate::Node| {
            let inputs = node.inputs.iter().copied().map(name_of).collect();
            Some(NodeFile { name: node.name.clone(), inputs, op: OpFile::new(node.op)? })
        };
        Self {
            format_version: FORMAT_VERSION,
            kind: "network".into(),
            name: name.into(),
            input: network.input_shape(),
            nodes: network.nodes().iter().filter_map(node).collect(),
            output: name_of(network.output()),
        }
    }

    pub(super) fn into_memory(self) -> Result<(String, Network), JsonError> {
        let mut network = network_with_input(self.input).map_err(|source| JsonError::Input { source })?;
        for (index, NodeFile { name, inputs, op }) in self.nodes.into_iter().enumerate() {
            let find = |input: &String| {
                let missing =
                    || JsonError::NoSuchNode { reader: format!("nodes[{index}] ({})", clip(&name)), name: clip(input) };
                network.find(input).ok_or_else(missing)
            };
            let inputs: Vec<NodeId> = inputs.iter().map(find).collect::<Result<_, _>>()?;
            let added = match is_name(&name) {
                true => network.add(name, op.into_memory(), &inputs),
                false => Err(NetworkError::BadName { name: clip(&name) }),
            };
            added.map_err(|source| JsonError::Node { index, source })?;
        }
        let missing = || JsonError::NoSuchNode { reader: "output".into(), name: clip(&self.output) };
        let output = network.find(&self.output).ok_or_else(missing)?;
        network.set_output(output).map_err(|source| JsonError::Node { index: output.index(), source })?;
        Ok((self.name, network))
    }
}
