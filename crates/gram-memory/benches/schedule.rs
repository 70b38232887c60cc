//! Least-peak schedules: the cells of the shipped SwiftNet, whole networks of 3 stages of 30 nodes, and hard limits for a search.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gram_ir::{Architecture, Cell, CellNodeId, CellOp, Design, Downsample, Network, Shape, Stage, preset};
use gram_memory::{Concat, Dtype, MemoryModel, fits, peak_bytes, plan};

/// Uniform in (0, 1), the same numbers every time.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

fn swiftnet() -> Architecture {
    match preset("swiftnet-vww", None, None) {
        Ok(Design::Architecture(architecture)) => architecture,
        other => panic!("invariant: the preset is an architecture, not {other:?}"),
    }
}

/// One cell with identity map, projection and addition.
fn swiftnet_cell(index: usize) -> Network {
    let architecture = swiftnet();
    let input = [Shape::chw(32, 28, 28), Shape::chw(48, 14, 14), Shape::chw(80, 7, 7)][index];
    let stages = vec![Stage { downsample: Downsample::None, ..architecture.stages[index].clone() }];
    Architecture { input, stem: Vec::new(), stages, ..architecture }.lower().expect("invariant: cells lower")
}

/// The shipped network's stem, tails and head around cells of 30 nodes with such a share of all edges.
fn wired(density: f64, seed: u64) -> Network {
    let mut uniform = Uniform(seed);
    let mut cell = || {
        let mut cell = Cell::new();
        for i in 1..=29u16 {
            let op = if uniform.next() < 0.5 { CellOp::Conv1x1 } else { CellOp::Sep3x3 };
            cell.add_node(CellNodeId(i), op).expect("invariant: ids ascend");
            let mut inputs: Vec<u16> = (0..i).filter(|_| uniform.next() < density).collect();
            if inputs.is_empty() {
                inputs.push((uniform.next() * f64::from(i)) as u16);
            }
            inputs.iter().for_each(|&from| {
                cell.add_edge(CellNodeId(from), CellNodeId(i)).expect("invariant: both exist");
            });
        }
        cell
    };
    let architecture = swiftnet();
    let stages = architecture.stages.iter().map(|stage| Stage { cell: cell(), ..stage.clone() }).collect();
    Architecture { stages, ..architecture }.lower().expect("invariant: cells lower")
}

const VIEW: MemoryModel =
    MemoryModel { dtype: Dtype::U8, concat: Concat::View, partial: false, separable: gram_memory::Separable::Fused };
const COPY: MemoryModel = MemoryModel { concat: Concat::Copy, ..VIEW };
const PARTIAL: MemoryModel = MemoryModel { partial: true, ..VIEW };
const MODELS: [(&str, MemoryModel); 3] = [("copy", COPY), ("view", VIEW), ("partial", PARTIAL)];

fn cells(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory/swiftnet_vww");
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        let network = swiftnet_cell(index);
        for (model, engine) in MODELS {
            group.bench_function(BenchmarkId::new(model, name), |b| b.iter(|| plan(black_box(&network), &engine)));
        }
    }
}

fn whole_networks(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory/3x30");
    group.sample_size(10);
    for density in [0.03, 0.06, 0.2, 1.0] {
        let network = wired(density, 5);
        for (model, engine) in MODELS {
            group.bench_function(BenchmarkId::new(model, density), |b| b.iter(|| plan(black_box(&network), &engine)));
        }
    }
}

/// What a search asks of every child.
fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory/limit");
    let network = wired(0.06, 5);
    let peak = peak_bytes(&network, &COPY).expect("invariant: the network is small");
    for (name, limit) in [("half", peak / 2), ("just_not", peak - 1), ("just", peak), ("twice", 2 * peak)] {
        group.bench_function(name, |b| b.iter(|| fits(black_box(&network), &COPY, limit)));
    }
}

criterion_group!(benches, cells, whole_networks, limits);
criterion_main!(benches);
