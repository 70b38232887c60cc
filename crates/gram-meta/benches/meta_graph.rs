//! Sampling and propagation of three stages. One proposal should cost no more per edge as the graph grows, and all of it should be far
//! below the milliseconds that lowering and naming a child takes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gram_ir::{
    Activation, CellOp, CellOutput, Downsample, Head, Limits, NodeOperators, Shape, Space, SpaceCosts, StageSpace,
    StemLayer,
};
use gram_meta::{ChainState, Child, DelayedChain, GibbsChain, MetaConfig, MetaGraph, Target};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const SIZES: [usize; 4] = [8, 30, 64, 128];

struct Study {
    meta: MetaGraph,
    costs: SpaceCosts,
    limits: Limits,
}

impl Study {
    /// The layout of the shipped SwiftNet with that many nodes per stage, and limits that a good half of the prior's children keep.
    fn new(n_nodes: usize) -> Self {
        let stage = |(channels, project): (usize, usize)| {
            let output = CellOutput { project: Some(project), residual: true, linear_leaves: false, activation: true };
            StageSpace::new(n_nodes, channels, Downsample::Maxpool2, output)
        };
        let space = Space {
            name: "bench".into(),
            activation: Activation::Relu6,
            max_in_degree: 4,
            operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
            node_operators: NodeOperators::Dealt,
            image_sizes: Vec::new(),
            channel_multiple: 1,
            stem: vec![StemLayer::Conv { channels: 16, kernel: 7, stride: 4 }],
            stages: [(32, 48), (48, 80), (64, 76)].map(stage).to_vec(),
            head: Head::default(),
        };
        let meta = MetaGraph::new(&space, MetaConfig::default(), 1).expect("the space is usable");
        let costs = SpaceCosts::new(&space, Shape::chw(3, 224, 224), 2).expect("the space lowers");
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut drawn: Vec<_> = (0..101)
            .map(|_| meta.sample(&mut rng, &|_| true).expect("the prior is feasible"))
            .map(|child| meta.cost(&costs, &child).expect("children lower"))
            .collect();
        drawn.sort_by_key(|cost| cost.macs);
        let limits = Limits { max_macs: Some(drawn[60].macs), max_params: Some(drawn[80].params), ..Limits::default() };
        Self { meta, costs, limits }
    }

    fn allows(&self, child: &Child) -> bool {
        self.meta.cost(&self.costs, child).is_some_and(|cost| self.limits.allow(&cost))
    }
}

/// A cheap function of the child.
fn score(child: &Child) -> f64 {
    let sum: usize = child.stages().iter().map(|kept| kept.n_live_operators()).sum();
    (sum % 17) as f64 / 100.0
}

/// Sampler A: one feasible child within limits on exact MACs and params.
fn ancestral(c: &mut Criterion) {
    let mut group = c.benchmark_group("meta_graph/ancestral");
    for n_nodes in SIZES {
        let study = Study::new(n_nodes);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(n_nodes), |b| {
            b.iter(|| black_box(&study).meta.sample(&mut rng, &|child| study.allows(child)));
        });
    }
    group.finish();
}

/// One move of sampler G, limits checked.
fn gibbs(c: &mut Criterion) {
    let mut group = c.benchmark_group("meta_graph/gibbs_move");
    for n_nodes in SIZES {
        let study = Study::new(n_nodes);
        let accept = |child: &Child| study.allows(child);
        let target = Target::new(&study.meta, 20.0, &accept).expect("beta is finite");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let state = ChainState::draw(&study.meta, &mut rng, &accept).expect("feasible children are common");
        let mut chain = GibbsChain::new(&target, state, &mut score).expect("the state is feasible");
        group.bench_function(BenchmarkId::from_parameter(n_nodes), |b| {
            b.iter(|| chain.step(&target, &mut score, &mut rng));
        });
    }
    group.finish();
}

/// One proposal of sampler D with its default number of inner moves, limits checked; the surrogate is nearly free.
fn delayed(c: &mut Criterion) {
    let mut group = c.benchmark_group("meta_graph/delayed_proposal");
    for n_nodes in SIZES {
        let study = Study::new(n_nodes);
        let accept = |child: &Child| study.allows(child);
        let target = Target::new(&study.meta, 20.0, &accept).expect("beta is finite");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let state = ChainState::draw(&study.meta, &mut rng, &accept).expect("feasible children are common");
        let first = score(state.child());
        let mut chain = DelayedChain::new(&target, state, first).expect("the state is feasible");
        group.throughput(Throughput::Elements(study.meta.inner_moves() as u64));
        group.bench_function(BenchmarkId::from_parameter(n_nodes), |b| {
            b.iter(|| {
                let proposed = chain.propose(&target, study.meta.inner_moves(), &mut score, &mut rng).map(score);
                proposed.and_then(|score| chain.resolve(score))
            });
        });
    }
    group.finish();
}

/// One round of 16 children.
fn propagate(c: &mut Criterion) {
    let mut group = c.benchmark_group("meta_graph/propagate");
    for n_nodes in SIZES {
        let mut meta = Study::new(n_nodes).meta;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let draw = |_| meta.sample(&mut rng, &|_| true).expect("the prior is feasible");
        let children: Vec<Child> = (0..16).map(draw).collect();
        let n_edges: usize = meta.stages().iter().map(|stage| stage.weights().len()).sum();
        group.throughput(Throughput::Elements(n_edges as u64));
        group.bench_function(BenchmarkId::from_parameter(n_nodes), |b| {
            b.iter(|| meta.propagate(children.iter().map(|child| (child, 1.0 / 16.0))));
        });
    }
    group.finish();
}

criterion_group!(benches, ancestral, gibbs, delayed, propagate);
criterion_main!(benches);
