//! Random networks of primitive operators: every operator at every place where it fits, not only where architectures put it.

use gram_ir::{Activation, Conv2d, Network, NodeId, Op, Pool, Shape};
use rand::RngExt;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// A network with at most `n_nodes` operators of random kinds, all of which its output depends on; the same for the same seed.
pub(crate) fn random_network(seed: u64, n_nodes: usize) -> Network {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let axis = |rng: &mut ChaCha8Rng| rng.random_range(5..=9);
    let shape = Shape::chw(rng.random_range(1..=4), axis(&mut rng), axis(&mut rng));
    let mut network = Network::new(shape);
    for i in 0..n_nodes {
        let inputs = some_inputs(&network, &mut rng);
        let op = random_op(&network, &inputs, &mut rng);
        let arity = if matches!(op, Op::Concat | Op::Add) { inputs.len() } else { 1 };
        // What does not fit (a window larger than the map) is left out.
        let _ = network.add(format!("cells.{i}.{}", op.kind()), op, &inputs[..arity]);
    }
    finish(&mut network, &mut rng);
    network
}

/// One to three nodes of the same shape as the first, which may be the same node.
fn some_inputs(network: &Network, rng: &mut ChaCha8Rng) -> Vec<NodeId> {
    let ids: Vec<NodeId> = network.iter().map(|(id, _)| id).collect();
    let first = *ids.choose(rng).unwrap();
    let shape = network.node(first).shape;
    let alike: Vec<NodeId> = ids.into_iter().filter(|&id| network.node(id).shape == shape).collect();
    let more = rng.random_range(0..=2);
    std::iter::once(first).chain((0..more).map(|_| *alike.choose(rng).unwrap())).collect()
}

fn random_op(network: &Network, inputs: &[NodeId], rng: &mut ChaCha8Rng) -> Op {
    let channels = network.node(inputs[0]).shape.c;
    let pool = Pool::new(rng.random_range(1..=3), rng.random_range(1..=2), rng.random_range(0..=1));
    match rng.random_range(0..16) {
        0..=3 => Op::Conv(random_conv(channels, rng)),
        4..=5 => Op::BatchNorm { channels },
        6..=8 => Op::Act { activation: *Activation::ALL.choose(rng).unwrap() },
        9 if inputs.len() > 1 && channels * inputs.len() <= 24 => Op::Concat,
        10..=11 if inputs.len() > 1 => Op::Add,
        12 => Op::MaxPool(pool),
        13 => Op::AvgPool(pool),
        14 => [Op::GlobalAvgPool, Op::Linear { c_in: channels, c_out: 5, bias: rng.random() }][rng.random_range(0..2)],
        15 => Op::Zero,
        _ => Op::Identity,
    }
}

fn random_conv(c_in: usize, rng: &mut ChaCha8Rng) -> Conv2d {
    let kernel = rng.random_range(1..=4);
    let groups = *(1..=c_in).filter(|groups| c_in.is_multiple_of(*groups)).collect::<Vec<_>>().choose(rng).unwrap();
    Conv2d {
        c_in,
        c_out: groups * rng.random_range(1..=12usize.div_ceil(groups)),
        kernel,
        stride: rng.random_range(1..=2),
        padding: rng.random_range(0..=2),
        dilation: rng.random_range(1..=2),
        groups,
        bias: rng.random(),
    }
}

/// Joins all that nobody reads: pooled, concatenated, and in three of four networks a classifier.
fn finish(network: &mut Network, rng: &mut ChaCha8Rng) {
    let unread: Vec<NodeId> = network
        .iter()
        .map(|(id, _)| id)
        .zip(network.consumers())
        .filter(|(_, readers)| readers.is_empty())
        .map(|(id, _)| id)
        .collect();
    let pooled: Vec<NodeId> =
        unread.iter().map(|&id| network.add(format!("head.{id}"), Op::GlobalAvgPool, &[id]).unwrap()).collect();
    let mut tip = match pooled.as_slice() {
        &[only] => only,
        _ => network.add("head.join", Op::Concat, &pooled).unwrap(),
    };
    if rng.random_range(0..4) > 0 {
        let c_in = network.node(tip).shape.c;
        tip = network.add("head.classifier", Op::Linear { c_in, c_out: 7, bias: rng.random() }, &[tip]).unwrap();
    }
    network.set_output(tip).unwrap();
}
