//! Errors of f32 gradients beside those of the plain f32 reference, on the networks of the comparison with torch.

use candle_core::{DType, Device, Tensor};
use gram_ir::{
    Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Network, Shape, Stage, StemLayer,
};
use gram_kernels::{IsaKind, exact_kernels};

use super::{executor, images};
use crate::ops::values;
use crate::{Engine, Model};

const BATCH: usize = 8;
const SEEDS: u64 = 7;

/// A node: whether it is separable, and its predecessors; none is the cell's input.
type NetNode = (bool, &'static [u16]);

const ALL: [&[u16]; 8] =
    [&[], &[0], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3], &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4, 5], &[0, 1, 2, 3, 4, 5, 6]];

const SPARSE: [[NetNode; 8]; 3] = [
    [
        (true, &[]),
        (true, &[0]),
        (true, &[0]),
        (false, &[0, 2]),
        (true, &[0, 2]),
        (true, &[0, 1, 4]),
        (true, &[0, 4]),
        (true, &[0, 2, 3, 4, 5]),
    ],
    [
        (false, &[]),
        (false, &[]),
        (true, &[]),
        (true, &[2]),
        (false, &[0, 1, 3]),
        (false, &[0, 2]),
        (true, &[0, 2, 3]),
        (true, &[1, 5, 6]),
    ],
    [
        (true, &[]),
        (true, &[]),
        (true, &[0]),
        (true, &[]),
        (true, &[1, 3]),
        (true, &[2, 3]),
        (true, &[0, 3, 5]),
        (true, &[0, 6]),
    ],
];

fn cell(nodes: [NetNode; 8]) -> Cell {
    let mut cell = Cell::new();
    for (index, (separable, sources)) in (1u16..).zip(nodes) {
        cell.add_node(CellNodeId(index), if separable { CellOp::Sep3x3 } else { CellOp::Conv1x1 }).unwrap();
        let sources = if sources.is_empty() { vec![0] } else { sources.iter().map(|source| source + 1).collect() };
        sources.into_iter().for_each(|source| cell.add_edge(CellNodeId(source), CellNodeId(index)).unwrap());
    }
    cell
}

fn network(cells: [[NetNode; 8]; 3]) -> Network {
    let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    let stage = |(i, nodes): (usize, [NetNode; 8])| Stage {
        cell: cell(nodes),
        repeats: 1,
        node_channels: 16 << i,
        downsample: if i == 0 { Downsample::None } else { Downsample::Maxpool2 },
        output,
    };
    let architecture = Architecture {
        name: "bench".into(),
        input: Shape::chw(3, 32, 32),
        num_classes: 10,
        activation: Activation::HardSwish,
        stem: vec![StemLayer::Conv { channels: 16, kernel: 3, stride: 1 }],
        stages: cells.into_iter().enumerate().map(stage).collect(),
        head: Head::default(),
    };
    architecture.lower().unwrap()
}

/// E7 the error of f32 gradients against f64 is at most 1.5 times that of the plain f32 reference.
///
/// Medians over initial weights, with the smoothest activation and small batches: a rounding error that takes a number across a bend of an
/// activation or exchanges the largest of a pool's pixels changes a whole path, by a thousand times what rounding alone does and by luck.
fn check(network: &Network) {
    let isas: Vec<IsaKind> = IsaKind::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    let (mut of_reference, mut own) = (Vec::new(), vec![Vec::new(); isas.len()]);
    for seed in 1..=SEEDS {
        let model = Model::new(network, seed, DType::F32).unwrap();
        let pixels: Vec<f32> = images(network, BATCH, seed).data().iter().map(|&x| x as f32).collect();
        let labels: Vec<u32> = (0..BATCH as u32).map(|i| i % 10).collect();
        let exact = exact_gradient(network, &model, &pixels, &labels);
        let error = |got: &[f32]| {
            let squares = got.iter().zip(&exact).map(|(&got, expected)| (f64::from(got) - expected).powi(2));
            (squares.sum::<f64>() / exact.iter().map(|g| g * g).sum::<f64>()).sqrt()
        };
        of_reference.push(error(&reference_gradient(&model, &pixels, &labels)));
        for (isa, own) in isas.iter().zip(&mut own) {
            let mut engine = Engine::new(network, Some(*isa), false);
            let layout = engine.layout().clone();
            layout.load(&model.weights().unwrap(), engine.values_mut()).unwrap();
            engine.step(&pixels, &labels, 0.0).unwrap();
            own.push(error(engine.gradient()));
        }
    }
    let expected = median(of_reference);
    assert!(expected < 1e-4, "{expected:e} is no rounding error");
    for (isa, own) in isas.iter().zip(own) {
        let own = median(own);
        assert!(own <= 1.5 * expected, "{isa}: {own:.2e} against {expected:.2e} of the plain reference");
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// By the same plan in f64, from the same rounded numbers.
fn exact_gradient(network: &Network, model: &Model, pixels: &[f32], labels: &[u32]) -> Vec<f64> {
    let pixels: Vec<f64> = pixels.iter().map(|&x| f64::from(x)).collect();
    let mut exact = executor(exact_kernels(), network, model, false);
    let logits = exact.forward(&pixels, labels.len());
    let loss = crate::Targets::of(labels, 0.0);
    exact.backward(&loss.backward(&logits, 1.0));
    exact.gradient
}

fn reference_gradient(model: &Model, pixels: &[f32], labels: &[u32]) -> Vec<f32> {
    let images = Tensor::from_slice(pixels, (labels.len(), 3, 32, 32), &Device::Cpu).unwrap();
    let gradients = model.gradients(&images, labels, 0.0).unwrap();
    let mut flat = Vec::new();
    for (spec, gradient) in model.specs().iter().zip(&gradients.by_tensor) {
        match gradient {
            Some(gradient) => flat.extend_from_slice(&values::<f32>(gradient).unwrap()),
            None => flat.extend(std::iter::repeat_n(0.0, spec.elements())),
        }
    }
    flat
}

#[test]
fn gradients_of_complete_separable_cells_are_exact() {
    check(&network([ALL.map(|sources| (true, sources)); 3]));
}

#[test]
fn gradients_of_complete_mixed_cells_are_exact() {
    let mut nodes = ALL.map(|sources| (true, sources));
    nodes.iter_mut().step_by(2).for_each(|(separable, _)| *separable = false);
    check(&network([nodes; 3]));
}

#[test]
fn gradients_of_sparse_cells_are_exact() {
    check(&network(SPARSE));
}
