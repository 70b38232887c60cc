//! Training steps (forward, backward, SGD) at batch 64: our engine, the same wrapped as one operation of candle (with candle's loss, tape and
//! SGD around it, and the gradient of the images, which it always gives), the slow operators on candle tensors, and stock candle-nn.
//!
//! On a small SwiftNet with criterion: each bench runs all four in turns and counts only one, so that whatever else the machine does hits
//! all; what may be quoted are ratios. On the complete net of eight separable nodes a stage, where candle-nn takes seconds a step, by hand: a
//! round of all, which is dropped, and three that count. Candle's figures there depend on the allocator much; with
//! `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=9999999999 MALLOC_TOP_PAD_=268435456` glibc's keeps its memory.
#![allow(clippy::print_stdout, reason = "a bench tells its figures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2dConfig, Module, ModuleT, Optimizer as _, SGD, VarBuilder, VarMap};
use criterion::Criterion;
use gram_ir::{
    Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Network, Node, Op, Shape, Stage,
    StemLayer,
};
use gram_train::{Model, NetworkOp, Optimizer, TrainConfig, Trainer};

const BATCH: usize = 64;
const CLASSES: usize = 10;
const LEARNING_RATE: f64 = 1e-3;
/// What candle-nn's rayon pool and ours use alike.
const THREADS: usize = 2;
const COMPLETE: &str = "train/step/complete-sep";
/// Rounds on the complete net; the first is dropped.
const ROUNDS: usize = 4;

/// `3 x side x side`, a stem of 16 channels, then a complete cell of separable convolutions for each of the `stages`' channels.
fn network(side: usize, n_nodes: u16, stages: &[usize]) -> Network {
    let mut cell = Cell::new();
    for n in 1..=n_nodes {
        cell.add_node(CellNodeId(n), CellOp::Sep3x3).expect("a fresh node");
        // Only the first node reads the cell's input.
        for from in (n > 1).into()..n {
            cell.add_edge(CellNodeId(from), CellNodeId(n)).expect("an edge upwards");
        }
    }
    let output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    let stage = |(i, &node_channels): (usize, &usize)| {
        let downsample = if i == 0 { Downsample::None } else { Downsample::Maxpool2 };
        Stage { cell: cell.clone(), repeats: 1, node_channels, downsample, output }
    };
    let architecture = Architecture {
        name: "bench".into(),
        input: Shape::chw(3, side, side),
        num_classes: CLASSES,
        activation: Activation::Relu,
        stem: vec![StemLayer::Conv { channels: 16, kernel: 3, stride: 1 }],
        stages: stages.iter().enumerate().map(stage).collect(),
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

/// Who takes steps, in the order of a round.
#[derive(Clone, Copy)]
enum Who {
    Engine,
    WrappedEngine,
    SlowOperators,
    Stock,
}

impl Who {
    const ALL: [Self; 4] = [Self::Engine, Self::WrappedEngine, Self::SlowOperators, Self::Stock];

    fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::WrappedEngine => "engine_as_candle_op",
            Self::SlowOperators => "slow_operators",
            Self::Stock => "stock_candle_nn",
        }
    }
}

struct Contenders {
    engine: Trainer,
    wrapped: NetworkOp,
    wrapped_sgd: SGD,
    slow: Model,
    stock: Stock,
    stock_sgd: SGD,
    pixels: Vec<f32>,
    images: Tensor,
    labels: Vec<u32>,
}

impl Contenders {
    fn new(network: &Network) -> Self {
        let config = TrainConfig {
            optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false },
            weight_decay: 0.0,
            label_smoothing: 0.0,
            ..TrainConfig::default()
        };
        let map = VarMap::new();
        let vars = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let stock = Stock::new(network, &vars).expect("every operator has a stock layer");
        let wrapped = NetworkOp::new(network, 1).expect("the network can be wrapped");
        let Shape { c, h, w } = network.input_shape();
        let pixels = gram_ir::Tensor::arbitrary(&[BATCH, c, h, w], 1).to_f32();
        Self {
            engine: Trainer::new(network, &config, 1, Some(THREADS), BATCH).expect("the network can be trained"),
            wrapped_sgd: SGD::new(wrapped.vars().to_vec(), LEARNING_RATE).expect("variables"),
            wrapped,
            slow: Model::new(network, 1, DType::F32).expect("f32 is supported"),
            stock,
            stock_sgd: SGD::new(map.all_vars(), LEARNING_RATE).expect("variables"),
            images: Tensor::from_slice(&pixels, (BATCH, c, h, w), &Device::Cpu).expect("one batch"),
            pixels,
            labels: (0..BATCH as u32).map(|i| i % CLASSES as u32).collect(),
        }
    }

    fn slow_step(&mut self) -> Result<()> {
        let gradients = self.slow.gradients(&self.images, &self.labels, 0.0).map_err(candle_core::Error::wrap)?;
        for (var, gradient) in self.slow.vars().iter().zip(&gradients.by_tensor) {
            if let Some(gradient) = gradient {
                var.set(&var.sub(&gradient.affine(LEARNING_RATE, 0.0)?)?)?;
            }
        }
        Ok(())
    }

    fn wrapped_step(&mut self) -> Result<()> {
        let logits = self.wrapped.forward(&self.images)?.flatten_from(1)?;
        let labels = Tensor::from_slice(&self.labels, BATCH, &Device::Cpu)?;
        self.wrapped_sgd.backward_step(&candle_nn::loss::cross_entropy(&logits, &labels)?)
    }

    fn stock_step(&mut self) -> Result<()> {
        let logits = self.stock.forward(&self.images)?;
        let labels = Tensor::from_slice(&self.labels, BATCH, &Device::Cpu)?;
        self.stock_sgd.backward_step(&candle_nn::loss::cross_entropy(&logits, &labels)?)
    }

    /// Time of one step.
    fn step(&mut self, who: Who) -> Duration {
        let start = Instant::now();
        match who {
            Who::Engine => {
                black_box(self.engine.step(&self.pixels, &self.labels, LEARNING_RATE)).expect("a step");
            }
            Who::WrappedEngine => black_box(self.wrapped_step()).expect("a step"),
            Who::SlowOperators => black_box(self.slow_step()).expect("a step"),
            Who::Stock => black_box(self.stock_step()).expect("a step"),
        }
        start.elapsed()
    }

    /// Time of one step of each.
    fn round(&mut self) -> [Duration; Who::ALL.len()] {
        Who::ALL.map(|who| self.step(who))
    }
}

fn small(c: &mut Criterion) {
    let mut contenders = Contenders::new(&network(16, 4, &[16, 16]));
    let mut group = c.benchmark_group("train/step");
    group.sample_size(10);
    for who in Who::ALL {
        group.bench_function(who.name(), |b| {
            b.iter_custom(|n| (0..n).map(|_| contenders.round()[who as usize]).sum());
        });
    }
    group.finish();
}

/// Median steps on the net `complete-sep` of the comparison with torch, and medians of ratios of the same round.
fn complete() {
    let mut contenders = Contenders::new(&network(32, 8, &[16, 32, 64]));
    let rounds: Vec<_> = (0..ROUNDS).map(|_| contenders.round().map(|time| time.as_secs_f64() * 1e3)).skip(1).collect();
    let median = |figure: &dyn Fn(&[f64; Who::ALL.len()]) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    println!("{COMPLETE}, batch {BATCH}, median of {} rounds:", rounds.len());
    for who in Who::ALL {
        let (ms, ratio) =
            (median(&|round| round[who as usize]), median(&|round| round[who as usize] / round[Who::Engine as usize]));
        println!("  {:<20} {ms:>10.1} ms  {ratio:>7.1} times the engine's", who.name());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` says so; `cargo test` runs benches once, without measuring.
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let mut filters = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    // Candle's operators run on the global pool.
    rayon::ThreadPoolBuilder::new().num_threads(THREADS).build_global().expect("no pool yet");
    small(&mut Criterion::default().configure_from_args());
    if is_bench && (filters.peek().is_none() || filters.any(|filter| COMPLETE.contains(filter.as_str()))) {
        complete();
    }
}
