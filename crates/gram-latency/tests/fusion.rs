//! The fusion and layout rules against the graphs that onnxruntime writes after optimisation.

#![cfg(feature = "onnxruntime")]

mod support;

use std::collections::BTreeMap;

use gram_export::{OnnxMetadata, to_onnx};
use gram_ir::{
    Activation, CellOp, Conv2d, Network, NodeId, Op, Pool, Shape, Weights, preset, space_preset, space_preset_io,
};
use gram_latency::family::{Family, FamilyKind, aligned_space, smaller_space};
use gram_latency::{Kernel, KernelOp, Layout, fused_kernels};
use prost::Message;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
}

/// What both sides can say about a node: operator, layout, window, activation, sum.
fn describe_engine(node: &Node) -> Option<String> {
    let blocked = if node.domain == "com.microsoft.nchwc" { " blocked" } else { "" };
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let act = attribute("activation").map_or(String::new(), |act| format!(" {}", String::from_utf8_lossy(&act.s)));
    // A batch norm that becomes a convolution of single pixels gets no kernel's shape.
    let default_window = if node.op_type == "Conv" { " k1" } else { "" };
    let window = attribute("kernel_shape").map_or(default_window.into(), |shape| format!(" k{}", shape.ints[0]));
    let sum = node.input.len() > 3 && !node.input[3].is_empty();
    let inputs = if node.op_type == "Concat" { format!(" n{}", node.input.len()) } else { String::new() };
    let op = match node.op_type.as_str() {
        "FusedConv" => "Conv",
        "Flatten" | "Reshape" => return None,
        op => op,
    };
    let sum = if sum && op == "Conv" { " sum" } else { "" };
    let blocked = if op.starts_with("Reorder") { "" } else { blocked };
    // Activations, sums and concatenations of blocked maps are the engine's plain operators on blocked data.
    let blocked = if op == "Conv" || op.ends_with("Pool") { blocked } else { "" };
    Some(format!("{op}{window}{act}{sum}{inputs}{blocked}"))
}

fn describe_ours(kernel: &Kernel) -> String {
    let act_name = |act| match act {
        Activation::Relu => "Relu",
        Activation::Relu6 => "Clip",
        Activation::HardSwish => "HardSwish",
    };
    let op = match kernel.op {
        KernelOp::Conv | KernelOp::DepthwiseConv => "Conv",
        KernelOp::MaxPool => "MaxPool",
        KernelOp::AvgPool => "AveragePool",
        KernelOp::GlobalAvgPool => "GlobalAveragePool",
        KernelOp::Concat => "Concat",
        KernelOp::Add if kernel.inputs == 2 => "Add",
        KernelOp::Add => "Sum",
        KernelOp::Act => act_name(kernel.act.expect("an activation says which")),
        KernelOp::BatchNorm => "BatchNormalization",
        KernelOp::Linear => "Gemm",
        KernelOp::ReorderInput => "ReorderInput",
        KernelOp::ReorderOutput => "ReorderOutput",
    };
    let is_conv = op == "Conv";
    let window =
        if is_conv || op.ends_with("Pool") && op.len() < 12 { format!(" k{}", kernel.kernel) } else { String::new() };
    let act = kernel.act.filter(|_| is_conv).map_or(String::new(), |act| format!(" {}", act_name(act)));
    let sum = if kernel.residual { " sum" } else { "" };
    let inputs = if op == "Concat" { format!(" n{}", kernel.inputs) } else { String::new() };
    let blocked = if kernel.blocked && (is_conv || op.ends_with("Pool")) { " blocked" } else { "" };
    format!("{op}{window}{act}{sum}{inputs}{blocked}")
}

fn counted(words: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    words.into_iter().for_each(|word| *counts.entry(word).or_insert(0) += 1);
    counts
}

fn check(engine: &gram_latency_runner::OnnxRuntime, what: &str, network: &Network, layout: Layout) {
    let bytes = to_onnx(network, &Weights::arbitrary(network, 1), &OnnxMetadata::new("fusion")).unwrap();
    let optimized = engine.optimized(&bytes).unwrap_or_else(|error| panic!("{what}: {error}\n{network}"));
    let graph = Model::decode(optimized.as_slice()).unwrap().graph.unwrap();
    let theirs = counted(graph.node.iter().filter_map(describe_engine));
    // The engine has no kernel for this one and multiplies.
    let two = |word: String| if word == "HardSwish" { vec!["HardSigmoid".into(), "Mul".into()] } else { vec![word] };
    let ours = fused_kernels(network, layout);
    let ours = counted(ours.iter().flat_map(|placed| two(describe_ours(&placed.kernel))));
    assert_eq!(ours, theirs, "{what}\n{network:#}");
}

/// The engine's block: what the output of a convolution to one channel is padded to.
fn layout(engine: &gram_latency_runner::OnnxRuntime) -> Layout {
    gram_latency::engine_layout(engine).unwrap()
}

#[test]
fn networks_of_the_spaces_are_fused_as_the_engine_fuses_them() {
    let Some(engine) = support::onnxruntime() else { return };
    let layout = layout(&engine);
    for name in ["swiftnet-vww", "swiftnet-imagenet", "swiftnet-cifar", "swiftnet-small", "autoshrink"] {
        let space = smaller_space(&space_preset(name).unwrap(), 12);
        let (input, num_classes) = space_preset_io(name).unwrap();
        let input = Shape::chw(input.c, input.h.min(64), input.w.min(64));
        for index in 0..6 {
            let mut space = if index % 2 == 0 { aligned_space(&space, 16) } else { space.clone() };
            space.activation = Activation::ALL[index % 3];
            if index >= 2 {
                space.operators = CellOp::ALL.to_vec();
            }
            let family = Family { name: name.into(), kind: FamilyKind::Space(space), input, num_classes };
            let network = family.network(7, index as u64).unwrap();
            check(&engine, &format!("{name} {index}"), &network, layout);
        }
    }
    let family =
        Family { name: "chain".into(), kind: FamilyKind::Chain, input: Shape::chw(3, 64, 64), num_classes: 10 };
    (0..6).for_each(|index| check(&engine, "chain", &family.network(7, index).unwrap(), layout));
    for name in ["swiftnet-vww", "shrinkcnn-a", "mobilenet-v2-1.0", "mobilenet-v2-0.35"] {
        let network = preset(name, Some(Shape::chw(3, 64, 64)), Some(10)).unwrap().lower().unwrap();
        check(&engine, name, &network, layout);
    }
}

#[test]
fn any_network_of_primitive_operators_is_fused_as_the_engine_fuses_it() {
    let Some(engine) = support::onnxruntime() else { return };
    let layout = layout(&engine);
    (0..300).for_each(|seed| check(&engine, &format!("seed {seed}"), &random_network(seed), layout));
}

/// Up to 14 operators at random places, with channels that fill blocks, do not, or are few.
fn random_network(seed: u64) -> Network {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut network = Network::new(Shape::chw(*[3, 8, 16, 20, 32].choose(&mut rng).unwrap(), 8, 8));
    for i in 0..rng.random_range(3..=14) {
        let ids: Vec<NodeId> = network.iter().map(|(id, _)| id).collect();
        let first = ids[rng.random_range(ids.len().saturating_sub(4)..ids.len())];
        let shape = network.node(first).shape;
        let alike: Vec<NodeId> =
            ids.iter().copied().filter(|&id| id != first && network.node(id).shape == shape).collect();
        let c = shape.c;
        let conv =
            Conv2d::new(c, *[8, 12, 16, 18, 32, 48].choose(&mut rng).unwrap(), *[1, 3].choose(&mut rng).unwrap());
        let act = Op::Act { activation: *Activation::ALL.choose(&mut rng).unwrap() };
        let (op, inputs) = match rng.random_range(0..12) {
            0..=2 => (Op::Conv(conv), vec![first]),
            3 => (Op::Conv(Conv2d::depthwise(c, 3)), vec![first]),
            4 if c.is_multiple_of(32) => (Op::Conv(Conv2d { groups: 2, ..Conv2d::new(c, c, 3) }), vec![first]),
            5..=7 => (act, vec![first]),
            8 => (Op::BatchNorm { channels: c }, vec![first]),
            9 => (
                [Op::MaxPool(Pool::new(3, 1, 1)), Op::AvgPool(Pool::new(3, 1, 1))][rng.random_range(0..2)],
                vec![first],
            ),
            _ if alike.is_empty() => (Op::Conv(Conv2d::new(c, c, 3)), vec![first]),
            10 => (Op::Add, vec![first, *alike.choose(&mut rng).unwrap()]),
            _ => (Op::Concat, vec![first, *alike.choose(&mut rng).unwrap()]),
        };
        network.add(format!("n.{i}"), op, &inputs).unwrap();
    }
    let last = NodeId(network.nodes().len() as u32 - 1);
    if rng.random() {
        let pool = network.add("pool", Op::GlobalAvgPool, &[last]).unwrap();
        let c_in = network.node(pool).shape.c;
        let linear = network.add("fc", Op::Linear { c_in, c_out: 5, bias: true }, &[pool]).unwrap();
        network.set_output(linear).unwrap();
    } else {
        network.set_output(last).unwrap();
    }
    network
}
