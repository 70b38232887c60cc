//! Spaces and an evaluator for tests: a score that is a function of the graph, deterministic and quick.
#![allow(dead_code, reason = "each test crate uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use gram_ir::{
    Activation, Cell, CellOp, CellOutput, Downsample, Head, Limits, Network, NodeOperators, Op, Shape, Space,
    StageSpace, StemLayer,
};
use gram_meta::MetaConfig;
use gram_search::{
    Evaluator, EvaluatorError, Job, LatencyModel, LocalExecutor, Outcome, Run, Sampler, StrategyKind, Study,
    StudyConfig, StudyError, StudyReport,
};
use serde_json::Value;

pub(crate) fn space(nodes: &[usize]) -> Space {
    let output = CellOutput { project: Some(12), residual: true, linear_leaves: false, activation: false };
    let stage = |(index, &nodes): (usize, &usize)| {
        let downsample = if index == 0 { Downsample::None } else { Downsample::Maxpool2 };
        StageSpace::new(nodes, 8, downsample, output)
    };
    Space {
        name: "toy".into(),
        activation: Activation::Relu,
        max_in_degree: 4,
        operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
        node_operators: Default::default(),
        image_sizes: Vec::new(),
        channel_multiple: 1,
        stem: vec![StemLayer::Conv { channels: 8, kernel: 3, stride: 1 }],
        stages: nodes.iter().enumerate().map(stage).collect(),
        head: Head::default(),
    }
}

/// Spaces that differ in all that the least cost depends on.
pub(crate) fn variants() -> Vec<Space> {
    let mut spaces = Vec::new();
    let outputs = [(Some(12), true), (Some(5), false), (None, true), (None, false)];
    for (project, residual) in outputs {
        for (nodes, repeats, channels) in [(vec![4, 4], 1, 8), (vec![5], 2, 6), (vec![4, 3], 2, 3)] {
            for operators in [
                vec![CellOp::Conv1x1, CellOp::Sep3x3],
                vec![CellOp::Identity, CellOp::Sep3x3],
                vec![CellOp::Dw3x3, CellOp::MaxPool3x3, CellOp::Conv3x3],
            ] {
                let mut space = space(&nodes);
                space.operators = operators;
                // The second stage of the residual spaces gets as many channels as two leaves have.
                space.stem = vec![StemLayer::Conv { channels: 2 * channels, kernel: 3, stride: 1 }];
                for stage in &mut space.stages {
                    stage.channels = channels;
                    stage.repeats = repeats;
                    stage.output = CellOutput { project, residual, linear_leaves: false, activation: false };
                }
                spaces.push(space);
            }
        }
    }
    // Searched operators multiply the children: one stage of few nodes is enough.
    let mut searched: Vec<Space> = spaces.iter().filter(|space| space.stages.len() == 2).cloned().collect();
    for space in &mut searched {
        space.node_operators = NodeOperators::Searched;
        space.stages.truncate(1);
        space.stages[0].nodes = 4;
    }
    spaces.extend(searched);
    // Layouts multiply them as well; menus not in ascending order, and more than one stage, whose widths depend on each other.
    for index in [0, 4, 9] {
        let mut open = Space { image_sizes: vec![8, 6], ..spaces[index].clone() };
        open.stages.iter_mut().for_each(|stage| stage.nodes = 3);
        open.stages[0].widths = vec![12, 4, 8];
        if open.stages[0].output.project.is_some() {
            open.stages[0].output_widths = vec![7, 3];
        }
        open.stages.last_mut().unwrap().depths = vec![2, 1];
        spaces.push(open.clone());
        spaces.push(Space { channel_multiple: 8, stages: open.stages[1..].to_vec(), ..open });
    }
    spaces.retain(|space| !space.stages.is_empty());
    spaces
}

/// Time by operators and work; knows nothing of networks with more than six concatenations.
pub(crate) struct ByOperators;

impl LatencyModel for ByOperators {
    fn upper_ms(&self, network: &Network) -> Option<f64> {
        let count = |kind: &str| network.nodes().iter().filter(|node| node.op.kind() == kind).count();
        (count("concat") <= 6).then(|| 0.1 * count("conv") as f64 + network.cost().macs.0 as f64 / 1e6)
    }
}

/// Multiply-accumulates and trainable scalars, counted pixel by pixel and channel by channel.
pub(crate) fn slow_cost(network: &Network) -> (u64, u64) {
    let (mut macs, mut params) = (0, 0);
    for node in network.nodes() {
        match node.op {
            Op::Conv(conv) => {
                let taps = (conv.c_in / conv.groups * conv.kernel * conv.kernel) as u64;
                for _channel in 0..conv.c_out {
                    params += taps + u64::from(conv.bias);
                    for _pixel in 0..node.shape.h * node.shape.w {
                        macs += taps;
                    }
                }
            }
            Op::Linear { c_in, c_out, bias } => {
                for _feature in 0..c_out {
                    macs += c_in as u64;
                    params += c_in as u64 + u64::from(bias);
                }
            }
            Op::BatchNorm { channels } => params += 2 * channels as u64,
            _ => {}
        }
    }
    (macs, params)
}

pub(crate) fn config(nodes: &[usize], strategy: StrategyKind, n_children: usize, seed: u64) -> StudyConfig {
    StudyConfig {
        space: space(nodes),
        input: Shape::chw(1, 8, 8),
        num_classes: 10,
        limits: Limits::default(),
        latency: None,
        strategy,
        sampler: Sampler::default(),
        warm_start: None,
        n_children,
        children_per_round: 8,
        seed,
        meta: MetaConfig::default(),
    }
}

/// Scores a graph by its depth, its sep3x3 operators and some noise of the job's seed.
pub(crate) struct Toy {
    /// Every so many-th graph (by its noise) diverges; 0: none does.
    pub(crate) diverge_every: u64,
    /// Longest pause of an evaluation; how long it is depends on the job.
    pub(crate) pause: Duration,
    /// Evaluations done.
    pub(crate) n_calls: AtomicUsize,
    /// Sets the interrupt after so many evaluations.
    pub(crate) stop_after: usize,
    pub(crate) interrupt: AtomicBool,
    /// Bytes of the evaluations that run, and the most that there ever were; an evaluation takes as many bytes as the child has params.
    pub(crate) bytes: AtomicU64,
    pub(crate) most_bytes: AtomicU64,
}

impl Default for Toy {
    fn default() -> Self {
        Self {
            diverge_every: 0,
            pause: Duration::ZERO,
            n_calls: AtomicUsize::new(0),
            stop_after: usize::MAX,
            interrupt: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            most_bytes: AtomicU64::new(0),
        }
    }
}

/// In 0 to 1: mean over stages of half the relative depth, and half the share of sep3x3 among live nodes.
pub(crate) fn quality(cells: &[Cell]) -> f64 {
    let stage = |cell: &Cell| {
        let mut depth = BTreeMap::new();
        for (node, _, inputs) in cell.live_inputs() {
            let longest = inputs.iter().filter_map(|from| depth.get(from)).max().copied().unwrap_or(0);
            depth.insert(node, longest + 1);
        }
        let deepest = depth.values().max().copied().unwrap_or(0);
        let seps = cell.live_inputs().iter().filter(|(_, op, _)| *op == CellOp::Sep3x3).count();
        0.5 * (f64::from(deepest) / 6.0).min(1.0) + 0.5 * seps as f64 / depth.len().max(1) as f64
    };
    cells.iter().map(stage).sum::<f64>() / cells.len() as f64
}

impl Evaluator for Toy {
    fn identity(&self) -> String {
        format!("toy, diverge_every {}", self.diverge_every)
    }

    fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
        let bytes = self.bytes(job);
        self.most_bytes.fetch_max(self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
        std::thread::sleep(self.pause.mul_f64((job.seed % 97) as f64 / 97.0));
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        let calls = self.n_calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls > self.stop_after {
            return Err(EvaluatorError::Interrupted);
        }
        if calls == self.stop_after {
            self.interrupt.store(true, Ordering::Relaxed);
        }
        if self.diverge_every > 0 && job.seed.is_multiple_of(self.diverge_every) {
            return Ok(Outcome::Diverged { step: job.seed % 100 });
        }
        let cells: Vec<Cell> = job.architecture.stages.iter().map(|stage| stage.cell.clone()).collect();
        let noise = (job.seed % 1000) as f64 / 1000.0;
        let metrics = BTreeMap::from([("noise".to_owned(), noise)]);
        Ok(Outcome::Scored { validation_top1: 0.95 * quality(&cells) + 0.05 * noise, score: None, metrics })
    }

    fn bytes(&self, job: &Job) -> u64 {
        job.network.params().0
    }
}

pub(crate) fn run(directory: &Path, config: &StudyConfig, toy: &Toy, jobs: usize) -> Result<StudyReport, StudyError> {
    run_on(directory, config, toy, &LocalExecutor::new(NonZeroUsize::new(jobs).unwrap()))
}

pub(crate) fn run_on(
    directory: &Path,
    config: &StudyConfig,
    toy: &Toy,
    executor: &LocalExecutor,
) -> Result<StudyReport, StudyError> {
    let mut study = Study::open(directory, config.clone(), &toy.identity(), &Value::Null)?;
    study.run(Run {
        evaluator: toy,
        executor,
        observer: &mut (),
        interrupt: &toy.interrupt,
        pruned: &|_| None,
        warm_source: None,
        latency: None,
    })
}

/// The files of a study that must be reproducible, by name.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in ["journal.jsonl", "meta-graph.json", "pareto.json"] {
        if let Ok(bytes) = fs::read(directory.join(name)) {
            found.insert(name.to_owned(), bytes);
        }
    }
    for entry in fs::read_dir(directory.join("results")).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap());
    }
    found
}
