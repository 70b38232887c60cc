//! What parts of a cell cost, read off small networks that are lowered for the purpose, so that lowering stays the one source of costs.

use std::collections::BTreeMap;

use gram_ir::{
    Architecture, Blueprint, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Layout, LowerError, Network,
    Quantity, Shape, Space, Stage, StageSpace,
};

/// MACs and params of a part of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) macs: u64,
    pub(super) params: u64,
}

/// Prices of nodes and cell outputs of a space at one image size, for any number of input channels.
///
/// Where stages leave widths or repeats open, prices are those of the option that [`Prices::choose`] last chose for the stage.
pub(super) struct Prices {
    /// With the image size chosen.
    space: Space,
    /// The image size's place on its menu; none where there is no menu.
    image_choice: Option<u8>,
    /// For each stage its options.
    options: Vec<Vec<(Vec<u8>, StageSpace)>>,
    /// For each stage the chosen one.
    chosen: Vec<usize>,
    num_classes: usize,
    /// Shape of each stage's cell input; channels are the first stage's only.
    inputs: Vec<Shape>,
    stem: Price,
    nodes: BTreeMap<(usize, usize, CellOp, usize), Option<Price>>,
    tails: BTreeMap<(usize, usize, usize, usize), Option<Price>>,
}

const PLAIN: CellOutput = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };

impl Prices {
    /// The prices at each image size of the space.
    ///
    /// # Errors
    /// [`LowerError`] if at no size a network can be lowered.
    pub(super) fn of(space: &Space, input: Shape, num_classes: usize) -> Result<Vec<Self>, LowerError> {
        let has_menu = space.dimensions().iter().any(|dimension| dimension.what == Quantity::ImageSize);
        if !has_menu {
            return Ok(vec![Self::new(space, None, input, num_classes)?]);
        }
        let sized = |choice: usize| Self::new(space, Some(choice as u8), input, num_classes);
        let mut first_error = None;
        let mut prices = Vec::new();
        for result in (0..space.image_sizes.len()).map(sized) {
            match result {
                Ok(sized) => prices.push(sized),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) if prices.is_empty() => Err(error),
            _ => Ok(prices),
        }
    }

    /// Walks the stages with cells of a single node for their resolutions.
    fn new(space: &Space, image_choice: Option<u8>, input: Shape, num_classes: usize) -> Result<Self, LowerError> {
        let options: Vec<_> = (0..space.stages.len()).map(|stage| space.stage_options(stage)).collect();
        let space = space.fixed(&Layout(image_choice.into_iter().collect()));
        let input = space.resized(input);
        let cells: Vec<Cell> = space.stages.iter().map(|_| leaves(&[CellOp::Conv1x1])).collect();
        let network = space.assemble(input, num_classes, &cells).lower()?;
        let cell_input = |stage: usize| {
            let node = network.find(&format!("stages.{stage}.cells.0.n1.conv")).map(|id| network.node(id));
            node.map_or(input, |node| network.node(node.inputs[0]).shape)
        };
        Ok(Self {
            image_choice,
            chosen: vec![0; options.len()],
            num_classes,
            inputs: (0..space.stages.len()).map(cell_input).collect(),
            stem: price_of(&network, "stem."),
            space,
            options,
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
        &self.options[stage][self.chosen[stage]].1
    }

    /// How many options a stage has, 1 or more.
    pub(super) fn n_options(&self, stage: usize) -> usize {
        self.options[stage].len()
    }

    /// Prices of a stage are those of this option from now on.
    pub(super) fn choose(&mut self, stage: usize, option: usize) {
        self.chosen[stage] = option;
    }

    /// The child with these cells, each in an option of its stage.
    pub(super) fn blueprint(&self, cells: Vec<(usize, Cell)>) -> Blueprint {
        let mut layout: Vec<u8> = self.image_choice.into_iter().collect();
        for (stage, (option, _)) in cells.iter().enumerate() {
            layout.extend(&self.options[stage][*option].0);
        }
        Blueprint { layout: Layout(layout), cells: cells.into_iter().map(|(_, cell)| cell).collect() }
    }

    pub(super) fn max_in_degree(&self) -> usize {
        self.space.max_in_degree
    }

    /// A node with `channels` input channels; none if that cannot be built.
    pub(super) fn node(&mut self, stage: usize, op: CellOp, channels: usize) -> Option<Price> {
        let key = (stage, self.chosen[stage], op, channels);
        if let Some(&price) = self.nodes.get(&key) {
            return price;
        }
        let network = self.alone(stage, leaves(&[op]), PLAIN, channels);
        let price = network.map(|network| price_of(&network, "stages."));
        self.nodes.insert(key, price);
        price
    }

    /// What a cell makes of `n_leaves` leaves: projection, map of the cell's input. None if that cannot be built.
    pub(super) fn tail(&mut self, stage: usize, channels: usize, n_leaves: usize) -> Option<Price> {
        let key = (stage, self.chosen[stage], channels, n_leaves);
        if let Some(&price) = self.tails.get(&key) {
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
        self.tails.insert(key, tail);
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
        let node_channels = self.stage(stage).channels;
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
