//! One training step (forward, backward, SGD) of a small SwiftNet cell at batch 64: our operators against stock candle-nn.
//!
//! Both benchmarks run the two alternately and count only their own time, so that whatever else the machine does hits both:
//! the ratio of the two figures is what may be quoted.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2dConfig, Module, ModuleT, Optimizer, SGD, VarBuilder, VarMap};
use criterion::{Criterion, criterion_group, criterion_main};
use gram_ir::{
    Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Network, Node, Op, Shape, Stage,
    StemLayer,
};
use gram_train::Model;

const BATCH: usize = 64;
const CLASSES: usize = 10;
const LEARNING_RATE: f64 = 1e-3;

/// 3x16x16, a complete cell of four separable convolutions at 16x16 and at 8x8.
fn network() -> Network {
    let mut cell = Cell::new();
    for n in 1..=4 {
        cell.add_node(CellNodeId(n), CellOp::Sep3x3).expect("a fresh node");
        for from in 0..n {
            cell.add_edge(CellNodeId(from), CellNodeId(n)).expect("an edge upwards");
        }
    }
    let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    let stage = |downsample| Stage { cell: cell.clone(), repeats: 1, node_channels: 16, downsample, output };
    let architecture = Architecture {
        name: "bench".into(),
        input: Shape::chw(3, 16, 16),
        num_classes: CLASSES,
        activation: Activation::Relu,
        stem: vec![StemLayer::Conv { channels: 16, kernel: 3, stride: 1 }],
        stages: vec![stage(Downsample::None), stage(Downsample::Maxpool2)],
        head: Head::default(),
    };
    architecture.lower().expect("the architecture fits its input")
}

/// The same network from candle-nn's layers.
struct Stock {
    layers: Vec<(Layer, Vec<usize>)>,
}

enum Layer {
    Input,
    Conv(candle_nn::Conv2d),
    Norm(candle_nn::BatchNorm),
    Relu,
    Concat,
    MaxPool(usize, usize),
    GlobalAvgPool,
    Linear(candle_nn::Linear),
}

impl Stock {
    fn new(network: &Network, vars: &VarBuilder<'_>) -> Result<Self> {
        let layer = |node: &Node| {
            let inputs = node.inputs.iter().map(|input| input.index()).collect();
            Ok((stock_layer(node, &vars.pp(&node.name))?, inputs))
        };
        Ok(Self { layers: network.nodes().iter().map(layer).collect::<Result<_>>()? })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.layers.len());
        for (layer, inputs) in &self.layers {
            let x = inputs.first().map(|&input| &outputs[input]);
            let y = match (layer, x) {
                (Layer::Conv(conv), Some(x)) => conv.forward(x)?,
                (Layer::Norm(norm), Some(x)) => norm.forward_t(x, true)?,
                (Layer::Relu, Some(x)) => x.relu()?,
                (Layer::Concat, _) => Tensor::cat(&inputs.iter().map(|&i| &outputs[i]).collect::<Vec<_>>(), 1)?,
                (&Layer::MaxPool(kernel, stride), Some(x)) => x.max_pool2d_with_stride(kernel, stride)?,
                (Layer::GlobalAvgPool, Some(x)) => x.mean((2, 3))?,
                (Layer::Linear(linear), Some(x)) => linear.forward(x)?,
                _ => images.clone(),
            };
            outputs.push(y);
        }
        outputs.pop().ok_or_else(|| candle_core::Error::msg("a network without nodes"))
    }
}

fn stock_layer(node: &Node, vars: &VarBuilder<'_>) -> Result<Layer> {
    Ok(match node.op {
        Op::Input { .. } => Layer::Input,
        Op::Conv(conv) => {
            let config = Conv2dConfig {
                padding: conv.padding,
                stride: conv.stride,
                dilation: conv.dilation,
                groups: conv.groups,
                ..Conv2dConfig::default()
            };
            Layer::Conv(candle_nn::conv2d_no_bias(conv.c_in, conv.c_out, conv.kernel, config, vars.clone())?)
        }
        Op::BatchNorm { channels } => Layer::Norm(candle_nn::batch_norm(channels, 1e-5, vars.clone())?),
        Op::Act { .. } => Layer::Relu,
        Op::Concat => Layer::Concat,
        Op::MaxPool(pool) => Layer::MaxPool(pool.kernel, pool.stride),
        Op::GlobalAvgPool => Layer::GlobalAvgPool,
        Op::Linear { c_in, c_out, .. } => Layer::Linear(candle_nn::linear(c_in, c_out, vars.clone())?),
        _ => return Err(candle_core::Error::msg(format!("no stock layer for {}", node.op.kind()))),
    })
}

struct Contenders {
    own: Model,
    stock: Stock,
    stock_sgd: SGD,
    images: Tensor,
    labels: Vec<u32>,
}

impl Contenders {
    fn new() -> Self {
        let network = network();
        let own = Model::new(&network, 1, DType::F32).expect("f32 is supported");
        let map = VarMap::new();
        let vars = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let stock = Stock::new(&network, &vars).expect("every operator has a stock layer");
        let images = gram_ir::Tensor::arbitrary(&[BATCH, 3, 16, 16], 1).to_f32();
        Self {
            own,
            stock,
            stock_sgd: SGD::new(map.all_vars(), LEARNING_RATE).expect("variables"),
            images: Tensor::from_vec(images, (BATCH, 3, 16, 16), &Device::Cpu).expect("one batch"),
            labels: (0..BATCH as u32).map(|i| i % CLASSES as u32).collect(),
        }
    }

    fn own_step(&mut self) -> Result<()> {
        let gradients = self.own.gradients(&self.images, &self.labels, 0.0).map_err(candle_core::Error::wrap)?;
        for (var, gradient) in self.own.vars().iter().zip(&gradients.by_tensor) {
            if let Some(gradient) = gradient {
                var.set(&var.sub(&gradient.affine(LEARNING_RATE, 0.0)?)?)?;
            }
        }
        Ok(())
    }

    fn stock_step(&mut self) -> Result<()> {
        let logits = self.stock.forward(&self.images)?;
        let labels = Tensor::from_slice(&self.labels, BATCH, &Device::Cpu)?;
        self.stock_sgd.backward_step(&candle_nn::loss::cross_entropy(&logits, &labels)?)
    }

    /// Time of `n` steps of each, taken alternately.
    fn alternate(&mut self, n: u64) -> (Duration, Duration) {
        let (mut own, mut stock) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..n {
            let start = Instant::now();
            black_box(self.own_step()).expect("a step");
            own += start.elapsed();
            let start = Instant::now();
            black_box(self.stock_step()).expect("a step");
            stock += start.elapsed();
        }
        (own, stock)
    }
}

fn step(c: &mut Criterion) {
    let mut contenders = Contenders::new();
    let mut group = c.benchmark_group("train/step");
    group.sample_size(10);
    group.bench_function("own", |b| b.iter_custom(|n| contenders.alternate(n).0));
    group.bench_function("stock_candle_nn", |b| b.iter_custom(|n| contenders.alternate(n).1));
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
