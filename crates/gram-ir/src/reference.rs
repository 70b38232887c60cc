//! The slow obvious executor: runs a [`Network`] in f64, one operator after the other.
//!
//! It is what rewrites, exports and faster engines are compared with, so it does nothing clever: plain nested loops, one thread, no
//! fused operators, batch norm with its running statistics.

mod kernels;
#[cfg(test)]
mod tests;

use crate::{Network, Node, NodeId, Op, Shape, Tensor, TensorError, Weights};

/// The network's output for `input`.
///
/// Nodes that the output does not need are not run, and a tensor is freed after its last reader.
/// # Shapes
/// `input` is `[n, c, h, w]` with `[c, h, w]` the network's input shape; the result is `[n, c', h', w']` with `[c', h', w']` its output
/// shape, so class scores are `[n, classes, 1, 1]`.
/// # Errors
/// [`RunError`] where the weights are not exactly those of the network or the input does not fit.
/// # Complexity
/// Time `n` times the network's MACs; memory the tensors that are alive at one time.
/// # Example
/// ```
/// use gram_ir::{Conv2d, Network, Op, Shape, Tensor, Weights, reference};
/// let mut network = Network::new(Shape::chw(1, 1, 4));
/// let conv = network.add("conv", Op::Conv(Conv2d::new(1, 1, 1).stride(2)), &[network.input()])?;
/// network.set_output(conv)?;
/// let mut weights = Weights::new();
/// weights.insert("conv.weight", Tensor::new(vec![1, 1, 1, 1], vec![10.0])?);
/// let input = Tensor::new(vec![1, 1, 1, 4], vec![1.0, 2.0, 3.0, 4.0])?;
/// assert_eq!(reference::run(&network, &weights, &input)?.data(), [10.0, 30.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run(network: &Network, weights: &Weights, input: &Tensor) -> Result<Tensor, RunError> {
    check(network, weights, input)?;
    let last_readers = last_readers(network);
    let mut outputs: Vec<Option<Tensor>> = vec![None; network.nodes().len()];
    for (id, node) in network.iter() {
        if last_readers[id.index()].is_none() {
            continue;
        }
        outputs[id.index()] = Some(run_node(node, weights, input, |from| outputs[from.index()].as_ref())?);
        for from in &node.inputs {
            if last_readers[from.index()] == Some(id) {
                outputs[from.index()] = None;
            }
        }
    }
    Ok(outputs[network.output().index()].take().expect("invariant: the output is kept to the end"))
}

/// The output of every node, in execution order; for tests and for finding where two networks part.
///
/// # Shapes
/// As of [`run`], each with the node's shape.
/// # Errors
/// As [`run`].
pub fn run_all(network: &Network, weights: &Weights, input: &Tensor) -> Result<Vec<Tensor>, RunError> {
    check(network, weights, input)?;
    let mut outputs: Vec<Tensor> = Vec::with_capacity(network.nodes().len());
    for node in network.nodes() {
        let output = run_node(node, weights, input, |from| outputs.get(from.index()))?;
        outputs.push(output);
    }
    Ok(outputs)
}

/// Why a network cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The weights are not those of the network.
    #[error(transparent)]
    Weights(#[from] TensorError),
    /// The input is no batch of the network's images.
    #[error("expected an input [n, c, h, w] of {expected} images, got shape {got:?}")]
    Input {
        /// Shape of one image.
        expected: Shape,
        /// The input's shape.
        got: Vec<usize>,
    },
    /// Infinity or NaN in the input.
    #[error("element {index} of the input is not finite")]
    NotFinite {
        /// Position in [`Tensor::data`].
        index: usize,
    },
    /// A batch norm whose variance is negative.
    #[error("tensor `{name}`: the variance of channel {channel} is negative")]
    NegativeVariance {
        /// Name of the tensor.
        name: String,
        /// The first such channel.
        channel: usize,
    },
}

fn check(network: &Network, weights: &Weights, input: &Tensor) -> Result<(), RunError> {
    weights.check(network)?;
    let expected = network.input_shape();
    match *input.shape() {
        [_, c, h, w] if Shape::chw(c, h, w) == expected => {}
        _ => return Err(RunError::Input { expected, got: input.shape().to_vec() }),
    }
    match input.data().iter().position(|x| !x.is_finite()) {
        Some(index) => Err(RunError::NotFinite { index }),
        None => Ok(()),
    }
}

/// For each node that the output needs the last such node that reads it; the output itself is read last by itself.
fn last_readers(network: &Network) -> Vec<Option<NodeId>> {
    let mut last = vec![None; network.nodes().len()];
    last[network.output().index()] = Some(network.output());
    for (id, node) in network.iter().rev() {
        if last[id.index()].is_some() {
            for from in &node.inputs {
                last[from.index()].get_or_insert(id);
            }
        }
    }
    last
}

fn run_node<'a>(
    node: &Node,
    weights: &Weights,
    image: &Tensor,
    output_of: impl Fn(NodeId) -> Option<&'a Tensor>,
) -> Result<Tensor, RunError> {
    let inputs: Vec<&Tensor> = node.inputs.iter().filter_map(|&from| output_of(from)).collect();
    let tensor = |suffix: &str| weights.get(&format!("{}.{suffix}", node.name));
    let first = || *inputs.first().expect("invariant: inputs run before their readers");
    Ok(match node.op {
        Op::Input { .. } => image.clone(),
        Op::Conv(conv) => {
            let bias = if conv.bias { Some(tensor("bias")?) } else { None };
            kernels::conv2d(first(), &conv, tensor("weight")?, bias, node.shape)
        }
        Op::BatchNorm { .. } => {
            let affine = kernels::ChannelAffine::from_norm(node, weights)?;
            kernels::channel_affine(first(), &affine)
        }
        Op::Act { activation } => kernels::map(first(), |x| kernels::activate(activation, x)),
        Op::Concat => kernels::concat(&inputs, node.shape),
        Op::Add => kernels::sum(&inputs),
        Op::MaxPool(pool) => kernels::pool(first(), &pool, node.shape, kernels::max),
        Op::AvgPool(pool) => kernels::pool(first(), &pool, node.shape, kernels::mean),
        Op::GlobalAvgPool => kernels::global_mean(first(), node.shape),
        Op::Linear { bias, .. } => {
            let bias = if bias { Some(tensor("bias")?) } else { None };
            kernels::linear(first(), tensor("weight")?, bias, node.shape)
        }
        Op::Identity => first().clone(),
        Op::Zero => Tensor::zeros(first().shape()),
    })
}
