//! What parts of a cell cost, read off small networks that are lowered for the purpose, so that lowering stays the one source of costs.

use std::collections::BTreeMap;

use gram_ir::{
    Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, LowerError, Network, Shape, Space, Stage,
    StageSpace,
};

/// MACs and params of a part of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) macs: u64,
    pub(super) params: u64,
}

/// Prices of nodes and cell outputs of a space, for any number of input channels.
pub(super) struct Prices<'a> {
    space: &'a Space,
    num_classes: usize,
    /// Shape of each stage's cell input; channels are the first stage's only.
    inputs: Vec<Shape>,
    stem: Price,
    nodes: BTreeMap<(usize, CellOp, usize), Option<Price>>,
    tails: BTreeMap<(usize, usize, usize), Option<Price>>,
}

const PLAIN: CellOutput = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };

impl<'a> Prices<'a> {
    /// Walks the stages with cells of a single node for their resolutions.
    pub(super) fn new(space: &'a Space, input: Shape, num_classes: usize) -> Result<Self, LowerError> {
        let cells: Vec<Cell> = space.stages.iter().map(|_| leaves(&[CellOp::Conv1x1])).collect();
        let network = space.assemble(input, num_classes, &cells).lower()?;
        let cell_input = |stage: usize| {
            let node = network.find(&format!("stages.{stage}.cells.0.n1.conv")).map(|id| network.node(id));
            node.map_or(input, |node| network.node(node.inputs[0]).shape)
        };
        Ok(Self {
            space,
            num_classes,
            inputs: (0..space.stages.len()).map(cell_input).collect(),
            stem: price_of(&network, "stem."),
            nodes: BTreeMap::new(),
            tails: BTreeMap::new(),
        })
    }

    pub(super) fn stem(&self) -> Price {
        self.stem
    }

    /// Channels that the first stage's cells get.
    pub(super) fn first_channels(&self) -> usize {
        self.inputs[0].c
    }

    pub(super) fn stage(&self, stage: usize) -> &StageSpace {
        &self.space.stages[stage]
    }

    pub(super) fn max_in_degree(&self) -> usize {
        self.space.max_in_degree
    }

    /// A node with `channels` input channels; none if that cannot be built.
    pub(super) fn node(&mut self, stage: usize, op: CellOp, channels: usize) -> Option<Price> {
        if let Some(&price) = self.nodes.get(&(stage, op, channels)) {
            return price;
        }
        let network = self.alone(stage, leaves(&[op]), PLAIN, channels);
        let price = network.map(|network| price_of(&network, "stages."));
        self.nodes.insert((stage, op, channels), price);
        price
    }

    /// What a cell makes of `n_leaves` leaves: projection, map of the cell's input. None if that cannot be built.
    pub(super) fn tail(&mut self, stage: usize, channels: usize, n_leaves: usize) -> Option<Price> {
        if let Some(&price) = self.tails.get(&(stage, channels, n_leaves)) {
            return price;
        }
        let cell = leaves(&vec![CellOp::Conv1x1; n_leaves]);
        let price = |output| {
            let network = self.alone(stage, cell.clone(), output, channels)?;
            Some(price_of(&network, "stages."))
        };
        let (whole, nodes) = (price(self.stage(stage).output), price(PLAIN));
        let tail = whole
            .zip(nodes)
            .map(|(whole, nodes)| Price { macs: whole.macs - nodes.macs, params: whole.params - nodes.params });
        self.tails.insert((stage, channels, n_leaves), tail);
        tail
    }

    /// The head behind a last stage that gives `channels`.
    pub(super) fn head(&self, channels: usize) -> Option<Price> {
        let last = self.space.stages.len() - 1;
        let architecture = Architecture {
            stages: Vec::new(),
            head: self.space.head,
            num_classes: self.num_classes,
            ..self.architecture(last, channels)
        };
        Some(price_of(&architecture.lower().ok()?, "head."))
    }

    fn alone(&self, stage: usize, cell: Cell, output: CellOutput, channels: usize) -> Option<Network> {
        let node_channels = self.space.stages[stage].channels;
        let stage_alone = Stage { cell, repeats: 1, node_channels, downsample: Downsample::None, output };
        Architecture { stages: vec![stage_alone], ..self.architecture(stage, channels) }.lower().ok()
    }

    fn architecture(&self, stage: usize, channels: usize) -> Architecture {
        Architecture {
            name: "part".into(),
            input: Shape { c: channels, ..self.inputs[stage] },
            num_classes: 1,
            activation: self.space.activation,
            stem: Vec::new(),
            stages: Vec::new(),
            head: Head::default(),
        }
    }
}

/// Nodes 1, 2, … with these operators, all fed by the input.
fn leaves(ops: &[CellOp]) -> Cell {
    cell(ops.iter().enumerate().map(|(index, &op)| (CellNodeId(index as u16 + 1), op, CellNodeId::INPUT)))
}

/// A cell in which every node has one input.
pub(super) fn cell(nodes: impl IntoIterator<Item = (CellNodeId, CellOp, CellNodeId)>) -> Cell {
    let mut cell = Cell::new();
    for (node, op, from) in nodes {
        cell.add_node(node, op).expect("nodes of a stage are distinct and below 256");
        cell.add_edge(from, node).expect("sources come before their nodes");
    }
    cell
}

fn price_of(network: &Network, prefix: &str) -> Price {
    let part = network.nodes().iter().filter(|node| node.name.starts_with(prefix));
    part.fold(Price::default(), |sum, node| Price {
        macs: sum.macs + node.op.macs(node.shape).0,
        params: sum.params + node.op.params().0,
    })
}
