//! Layers out of which the presets that are networks are made.

use crate::verify::network_with_input;
use crate::{Activation, Conv2d, Network, NetworkError, NodeId, Op, Pool, Shape};

/// A network under construction.
pub(super) struct Layers {
    network: Network,
}

impl Layers {
    pub(super) fn new(input: Shape) -> Result<Self, NetworkError> {
        Ok(Self { network: network_with_input(input)? })
    }

    pub(super) fn input(&self) -> NodeId {
        self.network.input()
    }

    pub(super) fn channels(&self, id: NodeId) -> usize {
        self.network.node(id).shape.c
    }

    pub(super) fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, NetworkError> {
        self.network.add(name, op, inputs)
    }

    /// The sum of one or more nodes.
    pub(super) fn sum(&mut self, name: &str, inputs: &[NodeId]) -> Result<NodeId, NetworkError> {
        if let &[input] = inputs { Ok(input) } else { self.add(name, Op::Add, inputs) }
    }

    /// The concatenation of one or more nodes.
    pub(super) fn concat(&mut self, name: &str, inputs: &[NodeId]) -> Result<NodeId, NetworkError> {
        if let &[input] = inputs { Ok(input) } else { self.add(name, Op::Concat, inputs) }
    }

    /// Convolution under `name`, norm under `name_bn`.
    pub(super) fn conv_bn(&mut self, name: &str, conv: Conv2d, input: NodeId) -> Result<NodeId, NetworkError> {
        let id = self.add(name, Op::Conv(conv), &[input])?;
        self.add(&format!("{name}_bn"), Op::BatchNorm { channels: conv.c_out }, &[id])
    }

    /// Convolution under `name`, norm under `name_bn`, activation under `name_act`.
    pub(super) fn conv_bn_act(
        &mut self,
        name: &str,
        conv: Conv2d,
        activation: Activation,
        input: NodeId,
    ) -> Result<NodeId, NetworkError> {
        let id = self.conv_bn(name, conv, input)?;
        self.act(&format!("{name}_act"), activation, id)
    }

    pub(super) fn act(&mut self, name: &str, activation: Activation, input: NodeId) -> Result<NodeId, NetworkError> {
        self.add(name, Op::Act { activation }, &[input])
    }

    pub(super) fn max_pool(&mut self, name: &str, pool: Pool, input: NodeId) -> Result<NodeId, NetworkError> {
        self.add(name, Op::MaxPool(pool), &[input])
    }

    /// Global average pool and a linear layer with bias, which becomes the output.
    pub(super) fn classifier(mut self, num_classes: usize, input: NodeId) -> Result<Network, NetworkError> {
        let pool = self.add("head.pool", Op::GlobalAvgPool, &[input])?;
        let linear = Op::Linear { c_in: self.channels(pool), c_out: num_classes, bias: true };
        let output = self.add("head.classifier", linear, &[pool])?;
        self.finish(output)
    }

    pub(super) fn finish(mut self, output: NodeId) -> Result<Network, NetworkError> {
        self.network.set_output(output)?;
        Ok(self.network)
    }
}
