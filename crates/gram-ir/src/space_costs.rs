//! Exact costs of a space's networks, summed up over cells without lowering them.

use crate::{
    Cell, CellNodeId, CellOp, CellOutput, Conv2d, Cost, Downsample, Layout, LowerError, MAX_AXIS, MAX_NODES, Op,
    Params, Shape, Space, StageSpace,
};

/// A live operator node of a cell, as far as its costs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeInputs {
    /// What it computes.
    pub op: CellOp,
    /// Whether the cell's input is among its inputs.
    pub from_input: bool,
    /// How many live operator nodes are among its inputs.
    pub n_operators: usize,
    /// Whether no node reads it.
    pub is_leaf: bool,
}

/// Exact costs of all networks of a space for one shape of images: the same numbers as lowering gives, some thousand times quicker.
///
/// The cost of a cell depends on nothing but the operators, the widths of the concatenated inputs and the number of leaves; the cost of a
/// network is a sum over its parts. That the sums are those of [`Network::cost`](crate::Network::cost) is tested on random networks.
///
/// # Example
/// ```
/// use gram_ir::{Cell, CellNodeId, CellOp, SpaceCosts, space_preset, space_preset_io};
/// let (space, (input, num_classes)) = space_preset("swiftnet-small").zip(space_preset_io("swiftnet-small")).unwrap();
/// let costs = SpaceCosts::new(&space, input, num_classes)?;
/// let mut cell = Cell::new();
/// cell.add_node(CellNodeId(1), CellOp::Sep3x3)?;
/// cell.add_edge(CellNodeId::INPUT, CellNodeId(1))?;
/// let cells = [cell.clone(), cell];
/// let network = space.assemble(input, num_classes, &cells).lower()?;
/// assert_eq!(costs.of_cells(&cells), Some(network.cost()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SpaceCosts {
    /// Input, stem and pools.
    fixed: Tally,
    stem_channels: usize,
    stages: Vec<StageCosts>,
    head: HeadCosts,
}

#[derive(Clone, Debug)]
struct StageCosts {
    height: usize,
    width: usize,
    space: StageSpace,
}

#[derive(Clone, Copy, Debug)]
struct HeadCosts {
    conv: Option<usize>,
    num_classes: usize,
    height: usize,
    width: usize,
}

/// Costs and nodes of a part of a network.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    cost: Cost,
    n_nodes: usize,
}

impl Tally {
    /// A convolution with its norm, which folding turns into a bias.
    fn conv(&mut self, conv: Conv2d, height: usize, width: usize) {
        self.cost.macs += conv.macs(Shape::chw(conv.c_out, height, width));
        self.cost.params += conv.params() + Params(2 * conv.c_out as u64);
        self.cost.deployed_params += conv.params() + Params(conv.c_out as u64);
        self.n_nodes += 2;
    }

    fn add(&mut self, other: Self) {
        self.cost.macs += other.cost.macs;
        self.cost.params += other.cost.params;
        self.cost.deployed_params += other.cost.deployed_params;
        self.n_nodes += other.n_nodes;
    }
}

impl SpaceCosts {
    /// Reads resolutions and the stem's cost off the smallest networks of the space. Of a space that leaves more open than its cells, the
    /// children with the first value of every menu are meant; see [`Space::fixed`].
    ///
    /// # Errors
    /// [`LowerError`] if not even those can be lowered: a pool larger than its image, say.
    pub fn new(space: &Space, input: Shape, num_classes: usize) -> Result<Self, LowerError> {
        let space = &space.fixed(&Layout::default());
        let network = space.assemble(input, num_classes, &vec![smallest_cell(); space.stages.len()]).lower()?;
        let mut fixed = Tally { n_nodes: 1, ..Tally::default() };
        for node in network.nodes().iter().filter(|node| node.name.starts_with("stem.")) {
            match node.op {
                // With its norm, which follows it.
                Op::Conv(conv) => fixed.conv(conv, node.shape.h, node.shape.w),
                Op::BatchNorm { .. } => {}
                _ => fixed.n_nodes += 1,
            }
        }
        fixed.n_nodes += space.stages.iter().filter(|stage| stage.downsample == Downsample::Maxpool2).count();
        let stem = network.nodes().iter().rfind(|node| node.name.starts_with("stem."));
        let stem_channels = stem.map_or(input.c, |node| node.shape.c);
        let first = |stage: usize| network.find(&format!("stages.{stage}.cells.0.n1.conv")).map(|id| network.node(id));
        let stage = |(index, stage): (usize, &StageSpace)| {
            let shape = first(index).map_or(input, |node| node.shape);
            StageCosts { height: shape.h, width: shape.w, space: stage.clone() }
        };
        let stages: Vec<StageCosts> = space.stages.iter().enumerate().map(stage).collect();
        let (height, width) = stages.last().map_or((input.h, input.w), |stage| (stage.height, stage.width));
        Ok(Self { fixed, stem_channels, stages, head: HeadCosts { conv: space.head.conv, num_classes, height, width } })
    }

    /// Cost of the network with these cells, one per stage, each given by its live operator nodes.
    ///
    /// None where there is no such network: a cell without nodes, more channels or nodes than are allowed, or not one cell per stage.
    ///
    /// # Complexity
    /// One step per live node; twice that where cells are repeated.
    pub fn of_nodes<C>(&self, cells: impl IntoIterator<Item = C>) -> Option<Cost>
    where
        C: Iterator<Item = NodeInputs> + Clone,
    {
        let mut tally = self.fixed;
        let mut channels = self.stem_channels;
        let mut cells = cells.into_iter();
        for stage in &self.stages {
            let cell = cells.next()?;
            let (first, output) = stage.cell(cell.clone(), channels)?;
            tally.add(first);
            if stage.space.repeats > 1 {
                // From the second on a cell reads what the same cell gave.
                let (other, _) = stage.cell(cell, output)?;
                (1..stage.space.repeats).for_each(|_| tally.add(other));
            }
            channels = output;
        }
        tally.add(self.head.tally(channels));
        (cells.next().is_none() && tally.n_nodes <= MAX_NODES).then_some(tally.cost)
    }

    /// Cost of the network with these cells, one per stage; none where there is no such network.
    pub fn of_cells(&self, cells: &[Cell]) -> Option<Cost> {
        let nodes: Vec<Vec<NodeInputs>> = cells.iter().map(nodes_of).collect();
        self.of_nodes(nodes.iter().map(|nodes| nodes.iter().copied()))
    }
}

impl StageCosts {
    /// One cell that reads `c_in` channels, and the channels that it gives.
    fn cell(&self, nodes: impl Iterator<Item = NodeInputs>, c_in: usize) -> Option<(Tally, usize)> {
        let mut tally = Tally::default();
        let mut n_leaves = 0;
        for node in nodes {
            let channels = usize::from(node.from_input) * c_in + node.n_operators * self.space.channels;
            if !(1..=MAX_AXIS).contains(&channels) {
                return None;
            }
            // A concatenation of several inputs is a node of its own.
            tally.n_nodes += usize::from(usize::from(node.from_input) + node.n_operators > 1);
            self.node(node.op, channels, node.is_leaf && self.space.output.linear_leaves, &mut tally);
            n_leaves += usize::from(node.is_leaf);
        }
        let output = self.output(n_leaves, c_in, &mut tally)?;
        Some((tally, output))
    }

    fn node(&self, op: CellOp, c_in: usize, linear: bool, tally: &mut Tally) {
        let channels = self.space.channels;
        let mut conv = |conv| {
            tally.conv(conv, self.height, self.width);
            tally.n_nodes += 1; // its activation
        };
        let mut fit = || {
            if c_in != channels {
                conv(Conv2d::new(c_in, channels, 1));
            }
        };
        let mut has_last_activation = true;
        match op {
            CellOp::Conv1x1 => conv(Conv2d::new(c_in, channels, 1)),
            CellOp::Conv3x3 => conv(Conv2d::new(c_in, channels, 3)),
            CellOp::Conv5x5 => conv(Conv2d::new(c_in, channels, 5)),
            CellOp::Sep3x3 | CellOp::Sep5x5 | CellOp::Sep7x7 => {
                conv(Conv2d::depthwise(c_in, kernel(op)));
                conv(Conv2d::new(c_in, channels, 1));
            }
            CellOp::Dw3x3 | CellOp::Dw5x5 | CellOp::Dw7x7 => {
                fit();
                conv(Conv2d::depthwise(channels, kernel(op)));
            }
            CellOp::MaxPool3x3 | CellOp::AvgPool3x3 | CellOp::Identity => {
                fit();
                tally.n_nodes += 1;
                has_last_activation = false;
            }
        }
        tally.n_nodes -= usize::from(linear && has_last_activation);
    }

    /// What follows the leaves; gives the channels.
    fn output(&self, n_leaves: usize, c_in: usize, tally: &mut Tally) -> Option<usize> {
        let CellOutput { project, residual, activation, .. } = self.space.output;
        let leaves = n_leaves * self.space.channels;
        if !(1..=MAX_AXIS).contains(&leaves) {
            return None;
        }
        let channels = project.unwrap_or(leaves);
        if channels > MAX_AXIS {
            return None;
        }
        tally.n_nodes += usize::from(n_leaves > 1) + usize::from(residual) + usize::from(activation);
        if project.is_some() {
            tally.conv(Conv2d::new(leaves, channels, 1), self.height, self.width);
        }
        if residual && c_in != channels {
            tally.conv(Conv2d::new(c_in, channels, 1), self.height, self.width);
        }
        Some(channels)
    }
}

impl HeadCosts {
    fn tally(&self, c_in: usize) -> Tally {
        let mut tally = Tally { n_nodes: 2, ..Tally::default() };
        let features = self.conv.unwrap_or(c_in);
        if self.conv.is_some() {
            tally.conv(Conv2d::new(c_in, features, 1), self.height, self.width);
            tally.n_nodes += 1;
        }
        let classifier = Op::Linear { c_in: features, c_out: self.num_classes, bias: true };
        tally.cost.macs += classifier.macs(Shape::chw(self.num_classes, 1, 1));
        tally.cost.params += classifier.params();
        tally.cost.deployed_params += classifier.params();
        tally
    }
}

/// Kernel of an operator with a depthwise part.
const fn kernel(op: CellOp) -> usize {
    match op {
        CellOp::Sep3x3 | CellOp::Dw3x3 => 3,
        CellOp::Sep5x5 | CellOp::Dw5x5 => 5,
        _ => 7,
    }
}

fn nodes_of(cell: &Cell) -> Vec<NodeInputs> {
    let leaves = cell.leaves();
    let node = |(id, op, inputs): (CellNodeId, CellOp, Vec<CellNodeId>)| {
        let from_input = inputs.contains(&CellNodeId::INPUT);
        let n_operators = inputs.len() - usize::from(from_input);
        NodeInputs { op, from_input, n_operators, is_leaf: leaves.contains(&id) }
    };
    cell.live_inputs().into_iter().map(node).collect()
}

fn smallest_cell() -> Cell {
    let mut cell = Cell::new();
    let node = CellNodeId(1);
    cell.add_node(node, CellOp::Conv1x1).expect("invariant: a new cell has room for node 1");
    cell.add_edge(CellNodeId::INPUT, node).expect("invariant: the input comes before node 1");
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies::{arb_architecture, arb_cell};
    use crate::{Architecture, NodeOperators, space_preset, space_preset_io};
    use proptest::prelude::*;

    /// The space of which an architecture is a child.
    fn space_of(architecture: &Architecture) -> Space {
        let stage = |stage: &crate::Stage| StageSpace {
            repeats: stage.repeats,
            ..StageSpace::new(8, stage.node_channels, stage.downsample, stage.output)
        };
        Space {
            name: architecture.name.clone(),
            activation: architecture.activation,
            max_in_degree: 8,
            operators: CellOp::ALL.to_vec(),
            node_operators: NodeOperators::Dealt,
            image_sizes: Vec::new(),
            channel_multiple: 1,
            stem: architecture.stem.clone(),
            stages: architecture.stages.iter().map(stage).collect(),
            head: architecture.head,
        }
    }

    fn cells_of(architecture: &Architecture) -> Vec<Cell> {
        architecture.stages.iter().map(|stage| stage.cell.clone()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Equal to lowering the whole network: MACs, params and deployed params; all operators, stems, outputs, repeats and heads.
        #[test]
        fn costs_are_those_of_lowering(architecture in arb_architecture()) {
            let space = space_of(&architecture);
            let costs = SpaceCosts::new(&space, architecture.input, architecture.num_classes).unwrap();
            prop_assert_eq!(costs.of_cells(&cells_of(&architecture)), Some(architecture.lower().unwrap().cost()));
        }

        /// Cells in the place of others, dead ones among them.
        #[test]
        fn costs_exist_where_networks_do(architecture in arb_architecture(), cell in arb_cell(1..=8)) {
            let space = space_of(&architecture);
            let costs = SpaceCosts::new(&space, architecture.input, architecture.num_classes).unwrap();
            let cells = vec![cell; space.stages.len()];
            let network = space.assemble(architecture.input, architecture.num_classes, &cells).lower();
            prop_assert_eq!(costs.of_cells(&cells), network.ok().map(|network| network.cost()));
        }
    }

    /// `n` leaves of the input.
    fn fan(n: u16, op: CellOp) -> Cell {
        let mut cell = Cell::new();
        for id in (1..=n).map(CellNodeId) {
            cell.add_node(id, op).unwrap();
            cell.add_edge(CellNodeId::INPUT, id).unwrap();
        }
        cell
    }

    #[track_caller]
    fn agrees(space: &Space, cells: &[Cell], exists: bool) {
        let input = Shape::chw(3, 2, 2);
        let network = space.assemble(input, 2, cells).lower();
        let cost = SpaceCosts::new(space, input, 2).unwrap().of_cells(cells);
        assert_eq!((cost, exists), (network.ok().map(|network| network.cost()), cost.is_some()));
    }

    #[test]
    fn networks_that_are_too_large_have_no_cost() {
        let output = CellOutput { project: None, residual: false, linear_leaves: true, activation: true };
        let stage = StageSpace::new(128, 4096, Downsample::None, output);
        let mut space = Space { stages: vec![stage], stem: Vec::new(), ..space_preset("autoshrink").unwrap() };
        agrees(&space, &[fan(16, CellOp::Identity)], true);
        agrees(&space, &[fan(17, CellOp::Identity)], false);
        // 65,536 nodes are the most: 3·64 cells of 5 nodes per leaf (the last activation is left out) and 4 for their output, and 3.
        space.stages[0] = StageSpace { channels: 1, repeats: 64, ..space.stages[0].clone() };
        space.stages[0].output.project = Some(1);
        space.stages.extend([space.stages[0].clone(), space.stages[0].clone()]);
        for (n, exists) in [(66, true), (67, true), (68, false), (69, false)] {
            agrees(&space, &vec![fan(n, CellOp::Sep3x3); 3], exists);
        }
    }

    #[test]
    fn not_one_cell_per_stage() {
        let (space, (input, num_classes)) =
            space_preset("swiftnet-small").zip(space_preset_io("swiftnet-small")).unwrap();
        let costs = SpaceCosts::new(&space, input, num_classes).unwrap();
        let cell = fan(2, CellOp::Sep3x3);
        assert!(costs.of_cells(&vec![cell.clone(); 2]).is_some());
        assert_eq!((costs.of_cells(&vec![cell.clone(); 3]), costs.of_cells(&[cell])), (None, None));
    }
}
