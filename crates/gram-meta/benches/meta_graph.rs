//! Sampling and propagation of a stage: both should be far below the milliseconds that lowering and naming a child takes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gram_ir::{Activation, CellOp, CellOutput, Downsample, Head, Space, StageSpace};
use gram_meta::{Child, MetaConfig, MetaGraph};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn meta(n_nodes: usize) -> MetaGraph {
    let output = CellOutput { project: Some(48), residual: true, linear_leaves: false, activation: false };
    let stage = StageSpace { nodes: n_nodes, channels: 32, repeats: 1, downsample: Downsample::None, output };
    let space = Space {
        name: "bench".into(),
        activation: Activation::Relu6,
        max_in_degree: 4,
        operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
        node_operators: Default::default(),
        stem: Vec::new(),
        stages: vec![stage],
        head: Head::default(),
    };
    MetaGraph::new(&space, MetaConfig::default(), 1).expect("the space is usable")
}

fn draw(meta: &MetaGraph, rng: &mut ChaCha8Rng) -> Child {
    meta.sample(rng, &|_| true).expect("the prior is feasible")
}

/// One feasible child of one stage from the initial weights.
fn sample(c: &mut Criterion) {
    let mut group = c.benchmark_group("meta_graph/sample");
    for n_nodes in [8, 30, 128] {
        let meta = meta(n_nodes);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        group.bench_function(BenchmarkId::from_parameter(n_nodes), |b| b.iter(|| draw(black_box(&meta), &mut rng)));
    }
    group.finish();
}

/// One round of 16 children; the cost per edge should stay flat as the graph grows.
fn propagate(c: &mut Criterion) {
    let mut group = c.benchmark_group("meta_graph/propagate");
    for n_nodes in [8, 30, 128] {
        let mut meta = meta(n_nodes);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let children: Vec<Child> = (0..16).map(|_| draw(&meta, &mut rng)).collect();
        group.throughput(Throughput::Elements(meta.stages()[0].weights().len() as u64));
        group.bench_function(BenchmarkId::from_parameter(n_nodes), |b| {
            b.iter(|| meta.propagate(children.iter().map(|child| (child, 1.0 / 16.0))));
        });
    }
    group.finish();
}

criterion_group!(benches, sample, propagate);
criterion_main!(benches);
