//! Pruning of whole meta-graphs: 3 stages of 30 nodes, up to 435³ combinations, in well under a second.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gram_ir::{CellNodeId, EdgeMap, Limits, Macs, Space, space_preset, space_preset_io};
use gram_prune::{PrunableStage, Pruned, prune};

/// Uniform in (0, 1), the same numbers every time.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

/// What the weights of a stage look like.
#[derive(Clone, Copy)]
enum Weights {
    /// Uniform in (0, 1): half of all edges are believed in.
    Uniform,
    /// The lighter the longer an edge is: more than ten thousand networks are undominated.
    Smooth,
    /// A tenth of the edges is believed in, all others have what is left of a prior of 1/j: a meta-graph after some hundred children.
    Learnt,
}

fn weights(kind: Weights, n_nodes: usize, uniform: &mut Uniform) -> EdgeMap<f64> {
    EdgeMap::from_fn(n_nodes, |from: CellNodeId, to: CellNodeId| match kind {
        Weights::Uniform => uniform.next(),
        Weights::Smooth => 0.97 / f64::from(to.0 - from.0) - 1e-4 * f64::from(to.0),
        Weights::Learnt if uniform.next() < 0.1 => 0.5 + 0.48 * uniform.next(),
        Weights::Learnt => (0.5 * uniform.next() / to.index() as f64).max(0.02) + 1e-6 * uniform.next(),
    })
}

/// A space of 3 stages with 30 nodes, for `max_in_degree` inputs a node.
fn swiftnet(max_in_degree: usize) -> Space {
    let space = space_preset("swiftnet-imagenet").expect("there is such a space");
    Space { max_in_degree, ..space }
}

fn run(space: &Space, weights: &[EdgeMap<f64>], limits: &Limits) -> Pruned {
    let (input, num_classes) = space_preset_io("swiftnet-imagenet").expect("there is such a space");
    let ops: Vec<_> = space.operators.iter().copied().cycle().take(29).collect();
    let stages: Vec<_> = weights.iter().map(|weights| PrunableStage { ops: &ops, weights }).collect();
    prune(space, input, num_classes, &stages, limits).expect("the limits can be met")
}

fn prune_3_stages_of_30_nodes(c: &mut Criterion) {
    let mut group = c.benchmark_group("prune/3_stages_30_nodes");
    group.sample_size(10);
    let without_projection = || {
        let mut space = swiftnet(4);
        for stage in &mut space.stages {
            stage.output.project = None;
            stage.channels /= 4;
        }
        space
    };
    let few = Limits { max_macs: Some(Macs(60_000_000)), max_params: None, ..Limits::default() };
    let cases = [
        ("learnt", swiftnet(4), Weights::Learnt, Limits::default()),
        ("learnt_60m_macs", swiftnet(4), Weights::Learnt, few),
        ("uniform", swiftnet(4), Weights::Uniform, Limits::default()),
        ("uniform_60m_macs", swiftnet(4), Weights::Uniform, few),
        ("learnt_any_in_degree", swiftnet(29), Weights::Learnt, Limits::default()),
        ("uniform_any_in_degree_60m_macs", swiftnet(29), Weights::Uniform, few),
        ("smooth", swiftnet(4), Weights::Smooth, Limits::default()),
        ("uniform_any_in_degree", swiftnet(29), Weights::Uniform, Limits::default()),
        ("learnt_without_projection", without_projection(), Weights::Learnt, Limits::default()),
        ("uniform_without_projection", without_projection(), Weights::Uniform, Limits::default()),
    ];
    for (name, space, kind, limits) in cases {
        let mut uniform = Uniform(1);
        let weights: Vec<_> = (0..3).map(|_| weights(kind, 30, &mut uniform)).collect();
        group.bench_function(name, |b| b.iter(|| run(black_box(&space), &weights, &limits)));
    }
    group.finish();
}

criterion_group!(benches, prune_3_stages_of_30_nodes);
criterion_main!(benches);
