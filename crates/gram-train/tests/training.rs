//! Training end to end on small made-up images.
//!
//! T1 the same seed gives the same bits, for any number of threads; T2 an interrupted training goes on to the same bits; T3 divergence is a
//! result; T4 what does not fit is an error that names it; T5 something is learnt; T6 also from a
//! teacher.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::DType;
use gram_data::{Augmentation, ImageSet, ImageShape, Normalisation};
use gram_ir::{
    Activation, Architecture, Cell, CellNodeId, CellOp, CellOutput, Downsample, Head, Network, Op, Shape, Stage,
    StemLayer, Weights,
};
use gram_train::{
    Control, Distillation, EpochReport, Model, Optimizer, Outcome, Teacher, TrainConfig, TrainData, TrainError,
    TrainOptions, Trained, evaluate, predict, train, weights_digest,
};

/// Configurations that together use every optimiser, the moving average, clipping, cutout, mixup and a teacher.
fn configs() -> [TrainConfig; 5] {
    let adamw = TrainConfig { optimizer: Optimizer::adamw(), ema_decay: None, learning_rate: 0.01, ..config() };
    let rmsprop =
        TrainConfig { optimizer: Optimizer::rmsprop(), clip_norm: Some(0.5), learning_rate: 0.01, ..config() };
    let augmentation = Augmentation { cutout: 3, ..config().augmentation };
    let mixed = TrainConfig { mixup: Some(0.4), augmentation, ..config() };
    let taught = TrainConfig { distillation: Some(Distillation::default()), ..mixed.clone() };
    [config(), adamw, rmsprop, mixed, taught]
}

/// A cell with every kind of operator, two stages, residual and projected.
fn network() -> Network {
    let mut cell = Cell::new();
    let ops = [CellOp::Sep3x3, CellOp::Conv1x1, CellOp::MaxPool3x3, CellOp::AvgPool3x3, CellOp::Conv3x3];
    for (i, op) in ops.into_iter().enumerate() {
        let id = CellNodeId(i as u16 + 1);
        cell.add_node(id, op).unwrap();
        for from in 0..=i {
            cell.add_edge(CellNodeId(from as u16), id).unwrap();
        }
    }
    let output = CellOutput { project: Some(6), residual: true, linear_leaves: false, activation: true };
    let stage = |downsample| Stage { cell: cell.clone(), repeats: 1, node_channels: 4, downsample, output };
    let architecture = Architecture {
        name: "small".into(),
        input: Shape::chw(1, 7, 7),
        num_classes: 3,
        activation: Activation::Relu,
        stem: vec![StemLayer::Conv { channels: 6, kernel: 3, stride: 1 }],
        stages: vec![stage(Downsample::None), stage(Downsample::Maxpool2)],
        head: Head { conv: None },
    };
    architecture.lower().unwrap()
}

/// Noisy images of three classes: bright rows on top, in the middle, below.
fn images(n: usize, seed: u64) -> ImageSet {
    let noise = gram_ir::Tensor::arbitrary(&[n, 7, 7], seed);
    let labels: Vec<u32> = (0..n).map(|i| i as u32 % 3).collect();
    let pixel = |(i, noise): (usize, &f64)| {
        let (image, row) = (i / 49, i % 49 / 7);
        let bright = row / 2 == labels[image] as usize;
        (100.0 + 60.0 * noise + if bright { 60.0 } else { 0.0 }) as u8
    };
    let pixels = noise.data().iter().enumerate().map(pixel).collect();
    ImageSet::new(ImageShape::new(1, 7, 7), pixels, labels).unwrap()
}

fn config() -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 16,
        augmentation: Augmentation { pad: 1, flip: true, cutout: 0 },
        ema_decay: Some(0.9),
        ..TrainConfig::default()
    }
}

/// A teacher: the network with random weights, used to other normalisation.
struct Taught {
    network: Network,
    weights: Weights,
    normalisation: Normalisation,
}

impl Taught {
    fn new(seed: u64) -> Self {
        let weights = Model::new(&network(), seed, DType::F32).unwrap().weights().unwrap();
        let normalisation = Normalisation { mean: vec![0.4], std: vec![0.2] };
        Self { network: network(), weights, normalisation }
    }

    fn teacher(&self) -> Teacher<'_> {
        Teacher { network: &self.network, weights: &self.weights, normalisation: &self.normalisation }
    }
}

struct Case {
    train: ImageSet,
    validation: ImageSet,
    normalisation: Normalisation,
    config: TrainConfig,
    seed: u64,
    /// Asked where the configuration says so.
    taught: Taught,
}

impl Case {
    fn new(config: TrainConfig) -> Self {
        let train = images(70, 1);
        let normalisation = Normalisation::of(&train);
        Self { train, validation: images(30, 2), normalisation, config, seed: 7, taught: Taught::new(99) }
    }

    fn run(&self, with: With<'_>) -> Result<Outcome, TrainError> {
        self.observed(&mut |_| Control::Continue, with)
    }

    fn observed(&self, observer: &mut Observer<'_>, with: With<'_>) -> Result<Outcome, TrainError> {
        let data = TrainData {
            train: &self.train,
            validation: Some(&self.validation),
            normalisation: &self.normalisation,
            teacher: self.config.distillation.map(|_| self.taught.teacher()),
        };
        let options = TrainOptions {
            n_threads: with.n_threads,
            observer,
            interrupt: with.interrupt,
            checkpoint: with.checkpoint,
            evaluate_every: with.evaluate_every,
            pause_after: with.pause_after,
            initial: None,
        };
        train(&network(), &data, &self.config, self.seed, options)
    }

    #[track_caller]
    fn trained(&self, with: With<'_>) -> Trained {
        match self.run(with).unwrap() {
            Outcome::Trained(trained) => trained,
            other => panic!("{other:?}"),
        }
    }
}

type Observer<'a> = dyn FnMut(&EpochReport) -> Control + Send + 'a;

/// Options but for the observer.
#[derive(Clone, Copy)]
struct With<'a> {
    n_threads: Option<usize>,
    interrupt: Option<&'a AtomicBool>,
    checkpoint: Option<&'a Path>,
    evaluate_every: usize,
    pause_after: Option<usize>,
}

const PLAIN: With<'static> =
    With { n_threads: Some(1), interrupt: None, checkpoint: None, evaluate_every: 1, pause_after: None };

#[test]
fn threads_and_runs_do_not_change_a_bit() {
    for config in configs() {
        let case = Case::new(config);
        let first = case.trained(PLAIN);
        for n_threads in [1, 2, 5] {
            assert_eq!(case.trained(With { n_threads: Some(n_threads), ..PLAIN }), first); // T1
        }
        let other = Case { seed: 8, ..case }.trained(PLAIN);
        assert_ne!(weights_digest(&other.weights), weights_digest(&first.weights));
    }
}

#[test]
fn something_is_learnt() {
    let case = Case::new(TrainConfig { epochs: 12, ..config() });
    let trained = case.trained(PLAIN);
    let last = trained.history.last().unwrap();
    assert!(last.validation_top1.unwrap() > 0.9, "{last:?}"); // T5
    let evaluation = evaluate(&network(), &trained.weights, &case.validation, &case.normalisation, 7).unwrap();
    assert_eq!((evaluation.n, Some(evaluation.top1), evaluation.top5), (30, last.validation_top1, 1.0));
    assert!(evaluation.loss > 0.0 && evaluation.loss < 1.0, "{evaluation:?}");
    let mut pixels = vec![0.0; 2 * 49];
    for (i, pixels) in pixels.chunks_exact_mut(49).enumerate() {
        case.normalisation.apply(case.validation.image(i), pixels);
    }
    let scores = predict(&network(), &trained.weights, &pixels).unwrap();
    let reference = gram_ir::reference::run(
        &network(),
        &trained.weights,
        &gram_ir::Tensor::new(vec![2, 1, 7, 7], pixels.iter().map(|&p| f64::from(p)).collect()).unwrap(),
    );
    for (got, expected) in scores.concat().iter().zip(reference.unwrap().data()) {
        assert!((f64::from(*got) - expected).abs() < 1e-4, "{got} instead of {expected}");
    }
}

#[test]
fn interrupted_trainings_go_on_to_the_same_bits() {
    for config in configs() {
        let case = Case::new(config);
        let straight = case.trained(PLAIN);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let with = With { checkpoint: Some(&path), ..PLAIN };
        let run = |observer: &mut Observer<'_>| case.observed(observer, with).unwrap();
        // Stopped behind every epoch.
        for epoch in 1..4 {
            let mut seen = Vec::new();
            let outcome = run(&mut |report| {
                seen.push(report.epoch);
                Control::Stop
            });
            assert_eq!((outcome, seen), (Outcome::Interrupted { epoch }, vec![epoch]));
        }
        assert_eq!(run(&mut |_| Control::Continue), Outcome::Trained(straight.clone())); // T2
        // Once more: nothing is left to do.
        let outcome = run(&mut |report| panic!("{report:?}"));
        assert_eq!(outcome, Outcome::Trained(straight));
    }
}

#[test]
fn a_teacher_of_no_weight_changes_no_bit() {
    let plain = Case::new(config()).trained(PLAIN);
    let distillation = Some(Distillation { weight: 0.0, temperature: 4.0 });
    assert_eq!(Case::new(TrainConfig { distillation, ..config() }).trained(PLAIN), plain);
}

/// Labels that say nothing and a teacher that was trained: what it knows is learnt from it alone.
#[test]
fn a_teacher_is_learnt_from() {
    let good = Case::new(TrainConfig { epochs: 12, ..config() });
    let distillation = Some(Distillation { weight: 1.0, temperature: 2.0 });
    let mut case = Case::new(TrainConfig { epochs: 12, distillation, ..config() });
    case.taught.weights = good.trained(PLAIN).weights;
    case.taught.normalisation = good.normalisation.clone();
    let pixels = (0..case.train.len()).flat_map(|i| case.train.image(i).to_vec()).collect();
    case.train = ImageSet::new(case.train.shape(), pixels, vec![0; case.train.len()]).unwrap();
    let last = case.trained(PLAIN).history.pop().unwrap();
    assert!(last.validation_top1.unwrap() > 0.9, "{last:?}"); // T6
}

#[test]
fn the_interrupt_flag_stops_before_the_next_step() {
    let raised = AtomicBool::new(true);
    let outcome = Case::new(config()).run(With { interrupt: Some(&raised), ..PLAIN }).unwrap();
    assert_eq!(outcome, Outcome::Interrupted { epoch: 0 });
}

#[test]
fn trainings_stop_in_the_middle_of_an_epoch_and_go_on() {
    let case = Case::new(config());
    let straight = case.trained(PLAIN);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let raised = AtomicBool::new(false);
    let with = With { checkpoint: Some(&path), interrupt: Some(&raised), ..PLAIN };
    // Raised behind the checkpoint of epoch 3, seen when batches of epoch 4 are already prepared.
    let raise = &mut |report: &EpochReport| {
        raised.store(report.epoch == 3, Ordering::Relaxed);
        Control::Continue
    };
    assert_eq!(case.observed(raise, with).unwrap(), Outcome::Interrupted { epoch: 3 });
    raised.store(false, Ordering::Relaxed);
    assert_eq!(case.run(with).unwrap(), Outcome::Trained(straight)); // T2
}

#[test]
fn checkpoints_of_other_trainings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let case = Case::new(TrainConfig { epochs: 1, ..config() });
    let with = With { checkpoint: Some(&path), ..PLAIN };
    case.trained(with);
    let refused = |case: &Case, reason: &str| {
        let error = case.run(with).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("checkpoint.safetensors"), "{error}");
    };
    refused(&Case { seed: 8, ..Case::new(case.config.clone()) }, "another seed");
    refused(&Case::new(TrainConfig { epochs: 2, ..case.config.clone() }), "another configuration");
    refused(&Case { train: images(60, 1), ..Case::new(case.config.clone()) }, "other images");
    let taught = TrainConfig { distillation: Some(Distillation::default()), ..case.config.clone() };
    let path = folder.path().join("taught.checkpoint.safetensors");
    Case::new(taught.clone()).trained(With { checkpoint: Some(&path), ..PLAIN });
    let other = Case { taught: Taught::new(98), ..Case::new(taught) };
    let error = other.run(With { checkpoint: Some(&path), ..PLAIN }).unwrap_err().to_string();
    assert!(error.contains("another teacher"), "{error}");
    let path = folder.path().join("checkpoint.safetensors");
    std::fs::write(&path, b"{}").unwrap();
    refused(&case, "no intact safetensors file"); // T4
}

#[test]
fn paused_trainings_go_on_to_the_same_bits() {
    for config in configs() {
        let case = Case::new(config);
        let straight = case.trained(With { evaluate_every: 0, ..PLAIN });
        let every = case.trained(PLAIN).history;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let mut seen = Vec::new();
        let mut run = |pause_after| {
            let with = With { checkpoint: Some(&path), evaluate_every: 0, pause_after, ..PLAIN };
            let mut observer = |report: &EpochReport| {
                seen.push(report.epoch);
                Control::Continue
            };
            case.observed(&mut observer, with).unwrap()
        };
        let top1 = |history: &[EpochReport]| history.iter().map(|report| report.validation_top1).collect::<Vec<_>>();
        let Outcome::Paused { history } = run(Some(1)) else { panic!() };
        assert_eq!(top1(&history), [every[0].validation_top1]);
        let Outcome::Paused { history } = run(Some(3)) else { panic!() };
        assert_eq!(top1(&history), [every[0].validation_top1, None, every[2].validation_top1]);
        // Once more, and where it has come further: nothing is left to do.
        assert_eq!(run(Some(3)), Outcome::Paused { history: history.clone() });
        assert_eq!(run(Some(1)), Outcome::Paused { history });
        let Outcome::Trained(trained) = run(None) else { panic!() };
        assert_eq!(trained.weights, straight.weights); // T2
        assert!(matches!(run(Some(1)), Outcome::Paused { history } if history.len() == 4));
        assert!(matches!(run(Some(4)), Outcome::Trained(_)), "all epochs are no pause");
        assert_eq!(seen, [1, 2, 3, 4]);
    }
}

#[test]
fn divergence_is_a_result() {
    let case = Case::new(TrainConfig { learning_rate: 1e30, warmup_epochs: 0, ..config() });
    let outcome = case.run(PLAIN).unwrap();
    assert!(matches!(outcome, Outcome::Diverged { epoch: 1, .. }), "{outcome:?}"); // T3
}

/// Squares of gradients that overflow: AdamW would go on, but not from a checkpoint.
#[test]
fn memories_that_overflow_are_divergence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let optimizer = Optimizer::Adamw { beta1: 0.9, beta2: 0.5, epsilon: 1e-8 };
    let mut case = Case::new(TrainConfig { optimizer, learning_rate: 1e-3, ema_decay: None, ..config() });
    case.normalisation.std = vec![1e-25];
    let mut network = Network::new(Shape::chw(1, 7, 7));
    let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()]).unwrap();
    let fc = network.add("fc", Op::Linear { c_in: 1, c_out: 3, bias: false }, &[pool]).unwrap();
    network.set_output(fc).unwrap();
    let data = TrainData { train: &case.train, validation: None, normalisation: &case.normalisation, teacher: None };
    let observer = &mut |_: &EpochReport| Control::Continue;
    let options = TrainOptions { checkpoint: Some(&path), ..TrainOptions::new(observer) };
    let outcome = train(&network, &data, &case.config, 1, options).unwrap();
    assert!(matches!(outcome, Outcome::Diverged { epoch: 1, .. }), "{outcome:?}"); // T3
    assert!(!path.exists());
}

#[test]
fn validation_is_taken_when_it_is_due() {
    let case = Case::new(config());
    let taken = |every: usize| -> Vec<bool> {
        let history = case.trained(With { evaluate_every: every, ..PLAIN }).history;
        history.iter().map(|report| report.validation_top1.is_some()).collect()
    };
    assert_eq!(taken(1), [true; 4]);
    assert_eq!(taken(3), [false, false, true, true]);
    assert_eq!(taken(0), [false, false, false, true]);
}

#[track_caller]
fn refused(case: &Case, with: With<'_>, reason: &str) {
    let error = case.run(with).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}"); // T4
}

#[test]
fn what_does_not_fit_is_named() {
    let case = || Case::new(config());
    refused(&case(), With { n_threads: Some(0), ..PLAIN }, "n_threads is 0");
    refused(&Case { config: TrainConfig { epochs: 0, ..config() }, ..case() }, PLAIN, "epochs is 0");
    let wide = ImageSet::new(ImageShape::new(1, 7, 8), vec![0; 56], vec![0]).unwrap();
    refused(&Case { train: wide, ..case() }, PLAIN, "the network takes images of 1x7x7, the training images are 1x7x8");
    refused(&Case { validation: images(3, 1).select(&[]), ..case() }, PLAIN, "no validation images");
    let labelled = ImageSet::new(ImageShape::new(1, 7, 7), vec![0; 49], vec![3]).unwrap();
    refused(&Case { train: labelled, ..case() }, PLAIN, "label 3, the network has 3 classes");
    let padded = TrainConfig { augmentation: Augmentation { pad: 9, flip: false, cutout: 0 }, ..config() };
    refused(&Case { config: padded, ..case() }, PLAIN, "pad");
    let cut = TrainConfig { augmentation: Augmentation { cutout: 7, ..Augmentation::default() }, ..config() };
    refused(&Case { config: cut, ..case() }, PLAIN, "cutout");
    refused(&Case { config: TrainConfig { mixup: Some(-1.0), ..config() }, ..case() }, PLAIN, "mixup is -1");
    let taught = TrainConfig { distillation: Some(Distillation::default()), ..config() };
    let mut other = Case::new(taught.clone());
    other.taught.network = Network::new(Shape::chw(1, 9, 9));
    refused(&other, PLAIN, "the teacher takes 1x9x9");
    let case = case();
    let data =
        |teacher| TrainData { train: &case.train, validation: None, normalisation: &case.normalisation, teacher };
    let refused = |data: &TrainData<'_>, config: &TrainConfig, reason: &str| {
        let options = &mut |_: &EpochReport| Control::Continue;
        let error = train(&network(), data, config, 1, TrainOptions::new(options)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(&data(None), &taught, "distillation is given");
    refused(&data(Some(case.taught.teacher())), &config(), "distillation is none");
    let error = predict(&network(), &gram_ir::Weights::new(), &[0.0; 48]).unwrap_err();
    assert!(error.to_string().contains("48 values"), "{error}");
    let error = predict(&network(), &gram_ir::Weights::new(), &[0.0; 49]).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}
