//! Canonical keys: under 1 ms for cells of 30 nodes, however symmetric.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gram_ir::{Cell, CellNodeId, CellOp, Design, preset};

/// Node `n` of `n_nodes` reads the nodes of `inputs(n)`; operators alternate if `two_ops`.
fn cell(n_nodes: u16, two_ops: bool, inputs: impl Fn(u16) -> Vec<u16>) -> Cell {
    let mut cell = Cell::new();
    for n in 1..n_nodes {
        let op = if two_ops && n % 2 == 0 { CellOp::Conv1x1 } else { CellOp::Sep3x3 };
        cell.add_node(CellNodeId(n), op).expect("ids ascend");
        for from in inputs(n) {
            cell.add_edge(CellNodeId(from), CellNodeId(n)).expect("edges ascend");
        }
    }
    cell
}

/// 64 cells of 30 nodes, all live, with 1 to 3 inputs each.
fn sparse() -> Vec<Cell> {
    let mut state = 1u64;
    let mut below = |bound: u16| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(bound)) as u16
    };
    let mut draw = || -> Vec<Vec<u16>> { (0..30).map(|n| (0..=below(3)).map(|_| below(n.max(1))).collect()).collect() };
    let mut one = || {
        let inputs = draw();
        cell(30, true, |n| inputs[usize::from(n)].clone())
    };
    (0..64).map(|_| one()).collect()
}

/// Points 1 to 14 read the input, lines 15 to 28 three points each: two copies of the Fano plane.
fn two_planes() -> Cell {
    cell(29, false, |n| match n.checked_sub(15) {
        None => vec![0],
        Some(line) => [0, 1, 3].iter().map(|d| 1 + line / 7 * 7 + (line + d) % 7).collect(),
    })
}

/// Equal chains of `len` operators.
fn chains(n_nodes: u16, len: u16) -> Cell {
    cell(n_nodes, false, |n| vec![if (n - 1) % len == 0 { 0 } else { n - 1 }])
}

/// One key per iteration; graphs are built outside of it.
fn canonical_key(c: &mut Criterion) {
    let mut group = c.benchmark_group("canonical_key");
    let sparse = sparse();
    let mut next = (0..sparse.len()).cycle();
    group.bench_function("sparse_30_nodes", |b| {
        b.iter_batched(
            || &sparse[next.next().expect("it cycles")],
            |cell| black_box(cell).canonical_key(),
            BatchSize::SmallInput,
        );
    });
    let Ok(Design::Architecture(swiftnet)) = preset("swiftnet-vww", None, None) else {
        panic!("swiftnet-vww is an architecture");
    };
    for (name, stage) in ["a", "b", "c"].into_iter().zip(&swiftnet.stages) {
        group.bench_function(format!("swiftnet_cell_{name}"), |b| b.iter(|| black_box(&stage.cell).canonical_key()));
    }
    group.bench_function("swiftnet_architecture", |b| b.iter(|| black_box(&swiftnet).canonical_key()));
    let symmetric = [
        ("complete_dag_30_nodes", cell(30, false, |n| (0..n).collect())),
        ("29_leaves", cell(30, false, |_| vec![0])),
        ("14_chains_of_2", chains(29, 2)),
        ("10_chains_of_3", chains(31, 3)),
        (
            "layers_of_10_10_9",
            cell(30, false, |n| if n <= 10 { vec![0] } else { ((n - 1) / 10 * 10 - 9..=(n - 1) / 10 * 10).collect() }),
        ),
        ("two_fano_planes", two_planes()),
    ];
    for (name, cell) in &symmetric {
        group.bench_function(*name, |b| b.iter(|| black_box(cell).canonical_key()));
    }
    group.finish();
}

criterion_group!(benches, canonical_key);
criterion_main!(benches);
