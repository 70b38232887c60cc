//! Lowering: an [`Architecture`] becomes a [`Network`] of primitive operators.

use crate::{
    Architecture, CellNodeId, CellOp, CellOutput, Conv2d, Downsample, Head, Network, NetworkError, NodeId, Op, Pool,
    Stage, StemLayer,
};

/// Why an architecture cannot be lowered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// A stage's cell has no live operator node.
    #[error("stage {stage}: no node of the cell is reached from its input")]
    EmptyCell {
        /// Index of the stage, from 0.
        stage: usize,
    },
    /// A layer does not fit where it stands.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl Architecture {
    /// The network of primitive operators, with a shape on every edge.
    ///
    /// Nodes are named `stem.0.conv`, `stages.0.cells.0.n14.dw`, `head.classifier`; `n14` is the id in the stage's cell.
    /// # Errors
    /// [`LowerError`] where a cell has no live node or a layer does not fit its input (a window larger than the image, say).
    /// # Source
    /// The shipped SwiftNet (ALGORITHMS 1.2 and 1.9, author model); the activation behind the residual addition is \[ours\].
    pub fn lower(&self) -> Result<Network, LowerError> {
        let network = Network::new(self.input);
        let mut lowering = Lowering { tip: network.input(), network, architecture: self };
        for (i, layer) in self.stem.iter().enumerate() {
            lowering.stem_layer(&format!("stem.{i}"), *layer)?;
        }
        for (i, stage) in self.stages.iter().enumerate() {
            lowering.stage(i, stage)?;
        }
        lowering.head(self.head)?;
        let tip = lowering.tip;
        lowering.network.set_output(tip)?;
        Ok(lowering.network)
    }
}

struct Lowering<'a> {
    architecture: &'a Architecture,
    network: Network,
    /// The node that the next layer reads.
    tip: NodeId,
}

impl Lowering<'_> {
    fn channels(&self, id: NodeId) -> usize {
        self.network.node(id).shape.c
    }

    /// Convolution and norm under `name` and `name_bn`, then the activation under `act` if one is given.
    fn conv(&mut self, name: &str, conv: Conv2d, input: NodeId, act: Option<&str>) -> Result<NodeId, NetworkError> {
        let channels = conv.c_out;
        let id = self.network.add(name, Op::Conv(conv), &[input])?;
        let id = self.network.add(format!("{name}_bn"), Op::BatchNorm { channels }, &[id])?;
        match act {
            Some(act) => self.activation(act, id),
            None => Ok(id),
        }
    }

    fn activation(&mut self, name: &str, input: NodeId) -> Result<NodeId, NetworkError> {
        self.network.add(name, Op::Act { activation: self.architecture.activation }, &[input])
    }

    /// Depthwise and 1x1 convolution with norms; the last activation under `act` if one is given.
    fn sep(&mut self, name: &str, size: SepSize, input: NodeId, act: Option<&str>) -> Result<NodeId, NetworkError> {
        let c_in = self.channels(input);
        let dw = Conv2d::depthwise(c_in, size.kernel).stride(size.stride);
        let id = self.conv(&format!("{name}.dw"), dw, input, Some(&format!("{name}.dw_act")))?;
        self.conv(&format!("{name}.pw"), Conv2d::new(c_in, size.channels, 1), id, act)
    }

    fn stem_layer(&mut self, name: &str, layer: StemLayer) -> Result<(), NetworkError> {
        let act = format!("{name}.act");
        self.tip = match layer {
            StemLayer::Conv { channels, kernel, stride } => {
                let conv = Conv2d::new(self.channels(self.tip), channels, kernel).stride(stride);
                self.conv(&format!("{name}.conv"), conv, self.tip, Some(&act))?
            }
            StemLayer::Sep { channels, kernel, stride } => {
                self.sep(name, SepSize { channels, kernel, stride }, self.tip, Some(&act))?
            }
            StemLayer::Maxpool2 => self.network.add(format!("{name}.pool"), POOL2, &[self.tip])?,
        };
        Ok(())
    }

    fn stage(&mut self, index: usize, stage: &Stage) -> Result<(), LowerError> {
        if stage.downsample == Downsample::Maxpool2 {
            self.tip = self.network.add(format!("stages.{index}.pool"), POOL2, &[self.tip])?;
        }
        if stage.cell.leaves().is_empty() {
            return Err(LowerError::EmptyCell { stage: index });
        }
        for repeat in 0..stage.repeats {
            self.cell(&format!("stages.{index}.cells.{repeat}"), stage)?;
        }
        Ok(())
    }

    fn cell(&mut self, name: &str, stage: &Stage) -> Result<(), NetworkError> {
        let leaves = stage.cell.leaves();
        // Where the output of each cell node stands in the network.
        let mut outputs = vec![(CellNodeId::INPUT, self.tip)];
        for (id, op, inputs) in stage.cell.live_inputs() {
            let sources: Vec<NodeId> =
                outputs.iter().filter(|(from, _)| inputs.contains(from)).map(|&(_, node)| node).collect();
            let node_name = format!("{name}.{id}");
            let input = self.concat(&format!("{node_name}.concat"), &sources)?;
            let linear = stage.output.linear_leaves && leaves.contains(&id);
            let output = self.cell_node(&node_name, op, stage.node_channels, linear, input)?;
            outputs.push((id, output));
        }
        let leaf_outputs: Vec<NodeId> =
            outputs.iter().filter(|(id, _)| leaves.contains(id)).map(|&(_, node)| node).collect();
        self.tip = self.cell_output(name, stage.output, &leaf_outputs)?;
        Ok(())
    }

    fn concat(&mut self, name: &str, sources: &[NodeId]) -> Result<NodeId, NetworkError> {
        match sources {
            &[source] => Ok(source),
            _ => self.network.add(name, Op::Concat, sources),
        }
    }

    fn cell_node(
        &mut self,
        name: &str,
        op: CellOp,
        channels: usize,
        linear: bool,
        input: NodeId,
    ) -> Result<NodeId, NetworkError> {
        let act = format!("{name}.act");
        let act = (!linear).then_some(act.as_str());
        let conv = |kernel| Conv2d::new(self.channels(input), channels, kernel);
        let sep = |kernel| SepSize { channels, kernel, stride: 1 };
        match op {
            CellOp::Conv1x1 => self.conv(&format!("{name}.conv"), conv(1), input, act),
            CellOp::Conv3x3 => self.conv(&format!("{name}.conv"), conv(3), input, act),
            CellOp::Conv5x5 => self.conv(&format!("{name}.conv"), conv(5), input, act),
            CellOp::Sep3x3 => self.sep(name, sep(3), input, act),
            CellOp::Sep5x5 => self.sep(name, sep(5), input, act),
            CellOp::Sep7x7 => self.sep(name, sep(7), input, act),
            CellOp::Dw3x3 => self.depthwise(name, 3, channels, input, act),
            CellOp::Dw5x5 => self.depthwise(name, 5, channels, input, act),
            CellOp::Dw7x7 => self.depthwise(name, 7, channels, input, act),
            CellOp::MaxPool3x3 => self.keeping(name, Op::MaxPool(POOL3), channels, input),
            CellOp::AvgPool3x3 => self.keeping(name, Op::AvgPool(POOL3), channels, input),
            CellOp::Identity => self.keeping(name, Op::Identity, channels, input),
        }
    }

    /// `input` with `channels` channels: itself, or behind a 1x1 convolution.
    fn fit(&mut self, name: &str, channels: usize, input: NodeId) -> Result<NodeId, NetworkError> {
        let c_in = self.channels(input);
        if c_in == channels {
            return Ok(input);
        }
        self.conv(&format!("{name}.fit"), Conv2d::new(c_in, channels, 1), input, Some(&format!("{name}.fit_act")))
    }

    fn depthwise(
        &mut self,
        name: &str,
        kernel: usize,
        channels: usize,
        input: NodeId,
        act: Option<&str>,
    ) -> Result<NodeId, NetworkError> {
        let input = self.fit(name, channels, input)?;
        self.conv(&format!("{name}.dw"), Conv2d::depthwise(channels, kernel), input, act)
    }

    fn keeping(&mut self, name: &str, op: Op, channels: usize, input: NodeId) -> Result<NodeId, NetworkError> {
        let input = self.fit(name, channels, input)?;
        let suffix = if op == Op::Identity { "identity" } else { "pool" };
        self.network.add(format!("{name}.{suffix}"), op, &[input])
    }

    fn cell_output(&mut self, name: &str, output: CellOutput, leaves: &[NodeId]) -> Result<NodeId, NetworkError> {
        let cell_input = self.tip;
        let mut id = self.concat(&format!("{name}.leaves"), leaves)?;
        if let Some(channels) = output.project {
            let conv = Conv2d::new(self.channels(id), channels, 1);
            id = self.conv(&format!("{name}.project"), conv, id, None)?;
        }
        if output.residual {
            let (c_in, c_out) = (self.channels(cell_input), self.channels(id));
            let map = if c_in == c_out {
                cell_input
            } else {
                self.conv(&format!("{name}.id_map"), Conv2d::new(c_in, c_out, 1), cell_input, None)?
            };
            id = self.network.add(format!("{name}.add"), Op::Add, &[id, map])?;
        }
        if output.activation { self.activation(&format!("{name}.act"), id) } else { Ok(id) }
    }

    fn head(&mut self, head: Head) -> Result<(), NetworkError> {
        if let Some(channels) = head.conv {
            let conv = Conv2d::new(self.channels(self.tip), channels, 1);
            self.tip = self.conv("head.conv", conv, self.tip, Some("head.act"))?;
        }
        let pool = self.network.add("head.pool", Op::GlobalAvgPool, &[self.tip])?;
        let classifier = Op::Linear { c_in: self.channels(pool), c_out: self.architecture.num_classes, bias: true };
        self.tip = self.network.add("head.classifier", classifier, &[pool])?;
        Ok(())
    }
}

struct SepSize {
    channels: usize,
    kernel: usize,
    stride: usize,
}

const POOL2: Op = Op::MaxPool(Pool::new(2, 2, 0));
const POOL3: Pool = Pool::new(3, 1, 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Cell, Shape};

    /// sep3x3 and identity of a 3-channel image, concatenated.
    fn two_leaves(output: CellOutput) -> Architecture {
        let mut cell = Cell::new();
        for (n, op) in [(1, CellOp::Sep3x3), (2, CellOp::Identity)] {
            cell.add_node(CellNodeId(n), op).unwrap();
            cell.add_edge(CellNodeId::INPUT, CellNodeId(n)).unwrap();
        }
        let stage = Stage { cell, repeats: 1, node_channels: 4, downsample: Downsample::None, output };
        Architecture {
            name: "two-leaves".into(),
            input: Shape::chw(3, 8, 8),
            num_classes: 2,
            activation: Activation::Relu,
            stem: Vec::new(),
            stages: vec![stage],
            head: Head::default(),
        }
    }

    const PLAIN: CellOutput = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };

    #[test]
    fn nodes_and_costs_by_hand() {
        let network = two_leaves(PLAIN).lower().unwrap();
        let names: Vec<&str> =
            network.nodes().iter().map(|node| node.name.trim_start_matches("stages.0.cells.0.")).collect();
        let expected = [
            "input",
            "n1.dw",
            "n1.dw_bn",
            "n1.dw_act",
            "n1.pw",
            "n1.pw_bn",
            "n1.act",
            "n2.fit",
            "n2.fit_bn",
            "n2.fit_act",
            "n2.identity",
            "leaves",
            "head.pool",
            "head.classifier",
        ];
        assert_eq!(names, expected);
        let cost = network.cost();
        // 64 pixels: depthwise 3·9, 1x1 3·4, fit 3·4; classifier 8·2.
        assert_eq!(cost.macs.0, 64 * (27 + 12 + 12) + 16);
        let weights = 27 + 12 + 12 + 16 + 2;
        assert_eq!(cost.params.0, weights + 2 * (3 + 4 + 4));
        assert_eq!(cost.deployed_params.0, weights + (3 + 4 + 4));
    }

    #[test]
    fn output_variants() {
        let residual = CellOutput { residual: true, linear_leaves: true, activation: true, project: Some(3) };
        let network = two_leaves(residual).lower().unwrap();
        assert!(network.find("stages.0.cells.0.n1.act").is_none(), "leaves are linear");
        assert!(network.find("stages.0.cells.0.id_map").is_none(), "3 and 3 channels add up as they are");
        let mapped = two_leaves(CellOutput { project: Some(5), ..residual }).lower().unwrap();
        assert!(mapped.find("stages.0.cells.0.id_map").is_some());
    }

    #[test]
    fn a_cell_without_live_nodes_is_refused() {
        let mut architecture = two_leaves(PLAIN);
        for n in [1, 2] {
            architecture.stages[0].cell.remove_edge(CellNodeId::INPUT, CellNodeId(n));
        }
        assert_eq!(
            architecture.lower().unwrap_err().to_string(),
            "stage 0: no node of the cell is reached from its input"
        );
    }
}
