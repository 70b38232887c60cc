//! A network as a list of steps on candle tensors.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};
use gram_ir::{Activation, Conv2d, Network, NodeId, Op, Pool, TensorRole};

/// What one step computes. Numbers are indices into [`Network::tensors`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Input,
    Conv { conv: Conv2d, weight: usize, bias: Option<usize> },
    Norm { norm: NormTensors, activation: Option<Activation> },
    Act(Activation),
    Concat,
    Add,
    MaxPool(Pool),
    AvgPool(Pool),
    GlobalAvgPool,
    Zero,
}

/// Where the tensors of a batch norm are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NormTensors {
    pub(crate) scale: usize,
    pub(crate) shift: usize,
    pub(crate) mean: usize,
    pub(crate) var: usize,
}

/// One step: reads slots, writes a slot, frees slots that nobody reads any more.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) inputs: Vec<usize>,
    pub(crate) output: usize,
    pub(crate) free: Vec<usize>,
}

/// The steps that the output of a network needs, in execution order.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) n_slots: usize,
    pub(crate) output: usize,
    /// Whether a slot depends on a trainable tensor.
    pub(crate) trainable: Vec<bool>,
}

impl Program {
    /// Nodes that the output does not need are left out; an activation that is the only reader of a batch norm joins it.
    pub(crate) fn compile(network: &Network) -> Self {
        let needed = needed(network);
        let compiler = Compiler {
            network,
            absorbed: absorbed_norms(network, &needed),
            sources: sources(network),
            tensors: network.tensors().iter().enumerate().map(|(i, spec)| ((spec.node, spec.role), i)).collect(),
        };
        let mut steps: Vec<Step> = network
            .iter()
            .filter(|(id, _)| needed[id.index()] && !compiler.absorbed[id.index()])
            .filter_map(|(id, _)| compiler.step(id))
            .collect();
        let output = compiler.sources[network.output().index()];
        let n_slots = network.nodes().len();
        free_after_last_reader(&mut steps, output, n_slots);
        let trainable = trainable_slots(&steps, n_slots);
        Self { steps, n_slots, output, trainable }
    }

    /// Runs all steps; `run` gets a step and its inputs.
    pub(crate) fn run(
        &self,
        input: &Tensor,
        mut run: impl FnMut(&Step, &[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut slots: Vec<Option<Tensor>> = vec![None; self.n_slots];
        for step in &self.steps {
            let read = |&slot: &usize| slots[slot].clone().expect("invariant: a step comes after what it reads");
            let inputs: Vec<Tensor> = step.inputs.iter().map(read).collect();
            let output = match step.action {
                Action::Input => input.clone(),
                _ => run(step, &inputs)?,
            };
            slots[step.output] = Some(output);
            for &slot in &step.free {
                slots[slot] = None;
            }
        }
        Ok(slots[self.output].take().expect("invariant: the output is never freed"))
    }
}

fn free_after_last_reader(steps: &mut [Step], output: usize, n_slots: usize) {
    let mut last_reader = vec![None; n_slots];
    for (i, step) in steps.iter().enumerate() {
        for &input in &step.inputs {
            last_reader[input] = Some(i);
        }
    }
    for (slot, reader) in last_reader.into_iter().enumerate() {
        if let Some(reader) = reader.filter(|_| slot != output) {
            steps[reader].free.push(slot);
        }
    }
}

/// Slots that depend on a trainable tensor, and so need a gradient.
fn trainable_slots(steps: &[Step], n_slots: usize) -> Vec<bool> {
    let mut trainable = vec![false; n_slots];
    for step in steps {
        trainable[step.output] = match step.action {
            Action::Conv { .. } | Action::Norm { .. } => true,
            Action::Zero => false,
            _ => step.inputs.iter().any(|&input| trainable[input]),
        };
    }
    trainable
}

/// For each node the one whose output it gives: itself but for identities.
fn sources(network: &Network) -> Vec<usize> {
    let mut sources: Vec<usize> = Vec::with_capacity(network.nodes().len());
    for (id, node) in network.iter() {
        let source = match (node.op, node.inputs.first()) {
            (Op::Identity, Some(input)) => sources[input.index()],
            _ => id.index(),
        };
        sources.push(source);
    }
    sources
}

fn needed(network: &Network) -> Vec<bool> {
    let mut needed = vec![false; network.nodes().len()];
    needed[network.output().index()] = true;
    for (id, node) in network.iter().rev() {
        if needed[id.index()] {
            node.inputs.iter().for_each(|input| needed[input.index()] = true);
        }
    }
    needed
}

/// Norms whose only needed reader is an activation.
fn absorbed_norms(network: &Network, needed: &[bool]) -> Vec<bool> {
    let consumers = network.consumers();
    let absorbed = |(id, node): (NodeId, &gram_ir::Node)| {
        let mut readers = consumers[id.index()].iter().filter(|reader| needed[reader.index()]);
        let only = readers.next().filter(|_| readers.next().is_none());
        let read_by_activation = only.is_some_and(|&reader| matches!(network.node(reader).op, Op::Act { .. }));
        matches!(node.op, Op::BatchNorm { .. }) && read_by_activation && id != network.output()
    };
    network.iter().map(absorbed).collect()
}

/// What steps are made from.
struct Compiler<'a> {
    network: &'a Network,
    absorbed: Vec<bool>,
    /// For each node the one whose output it gives.
    sources: Vec<usize>,
    /// Index of each tensor in [`Network::tensors`].
    tensors: BTreeMap<(NodeId, TensorRole), usize>,
}

impl Compiler<'_> {
    /// None for identities: whoever reads one reads its source.
    fn step(&self, id: NodeId) -> Option<Step> {
        let node = self.network.node(id);
        let (action, inputs) = match (node.op, node.inputs.first()) {
            (Op::Act { activation }, Some(&source)) if self.absorbed[source.index()] => {
                let action = Action::Norm { norm: self.norm(source), activation: Some(activation) };
                (action, &self.network.node(source).inputs)
            }
            _ => (self.action(id)?, &node.inputs),
        };
        let inputs = inputs.iter().map(|input| self.sources[input.index()]).collect();
        Some(Step { action, inputs, output: id.index(), free: Vec::new() })
    }

    fn action(&self, id: NodeId) -> Option<Action> {
        Some(match self.network.node(id).op {
            Op::Input { .. } => Action::Input,
            Op::Conv(conv) => self.weighted(id, conv),
            // A linear layer works on single pixels, as a 1x1 convolution does.
            Op::Linear { c_in, c_out, bias } => self.weighted(id, Conv2d::new(c_in, c_out, 1).bias(bias)),
            Op::BatchNorm { .. } => Action::Norm { norm: self.norm(id), activation: None },
            Op::Act { activation } => Action::Act(activation),
            Op::Concat => Action::Concat,
            Op::Add => Action::Add,
            Op::MaxPool(pool) => Action::MaxPool(pool),
            Op::AvgPool(pool) => Action::AvgPool(pool),
            Op::GlobalAvgPool => Action::GlobalAvgPool,
            Op::Zero => Action::Zero,
            Op::Identity => return None,
        })
    }

    fn weighted(&self, id: NodeId, conv: Conv2d) -> Action {
        let bias = conv.bias.then(|| self.tensors[&(id, TensorRole::Bias)]);
        Action::Conv { conv, weight: self.tensors[&(id, TensorRole::Weight)], bias }
    }

    fn norm(&self, id: NodeId) -> NormTensors {
        NormTensors {
            scale: self.tensors[&(id, TensorRole::NormScale)],
            shift: self.tensors[&(id, TensorRole::NormShift)],
            mean: self.tensors[&(id, TensorRole::RunningMean)],
            var: self.tensors[&(id, TensorRole::RunningVar)],
        }
    }
}

#[cfg(test)]
mod tests {
    use gram_ir::Shape;

    use super::*;

    /// conv, norm and relu twice; the first norm is read by relu and by the second convolution.
    fn network() -> Network {
        let mut network = Network::new(Shape::chw(2, 4, 4));
        let conv = |network: &mut Network, name: &str, input| {
            let conv = network.add(format!("{name}.conv"), Op::Conv(Conv2d::new(2, 2, 3)), &[input]).unwrap();
            let norm = network.add(format!("{name}.bn"), Op::BatchNorm { channels: 2 }, &[conv]).unwrap();
            (norm, network.add(format!("{name}.act"), Op::Act { activation: Activation::Relu }, &[norm]).unwrap())
        };
        let (norm, act) = conv(&mut network, "a", NodeId(0));
        let (_, second) = conv(&mut network, "b", norm);
        let sum = network.add("sum", Op::Add, &[act, second]).unwrap();
        network.add("unused", Op::GlobalAvgPool, &[sum]).unwrap();
        network.set_output(sum).unwrap();
        network
    }

    #[test]
    fn activations_join_norms_that_nobody_else_reads() {
        let program = Program::compile(&network());
        let kinds: Vec<String> = program
            .steps
            .iter()
            .map(|step| match step.action {
                Action::Input => "input".into(),
                Action::Conv { weight, .. } => format!("conv {weight}"),
                Action::Norm { activation, .. } => format!("norm {activation:?}"),
                Action::Act(activation) => activation.to_string(),
                Action::Add => "add".into(),
                other => format!("{other:?}"),
            })
            .collect();
        let expected = ["input", "conv 0", "norm None", "relu", "conv 5", "norm Some(Relu)", "add"];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn slots_are_freed_behind_their_last_reader() {
        let program = Program::compile(&network());
        let freed: Vec<&[usize]> = program.steps.iter().map(|step| step.free.as_slice()).collect();
        // Nodes: 0 input, 1 conv, 2 norm, 3 relu, 4 conv, 5 norm (joined), 6 relu, 7 sum.
        assert_eq!(freed, [&[][..], &[0], &[1], &[], &[2], &[4], &[3, 6]]);
    }
}
