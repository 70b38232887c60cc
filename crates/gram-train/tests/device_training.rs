//! Training on devices: what the CPU's engine does but for rounding.
//!
//! V1 the same history and weights as the CPU's engine, within a tolerance; V2 an interrupted training goes on to the same bits; V3
//! divergence is a result, with the same step; V4 checkpoints of another kind of device are refused; V5 what does not fit is an error.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use gram_data::{Augmentation, ImageSet, ImageShape, Normalisation};
use gram_ir::{Activation, Conv2d, Network, NodeId, Op, Pool, Shape, Weights};
use gram_train::{
    Control, Distillation, EpochReport, Model, Optimizer, Outcome, Teacher, TrainConfig, TrainData, TrainError,
    TrainOptions, Trained, train, train_on, train_on_device,
};

/// A convolution, then a separable one beside a pool, joined both ways; one convolution that no gradient reaches.
fn network() -> Network {
    let mut network = Network::new(Shape::chw(1, 7, 7));
    let block = |network: &mut Network, name: &str, conv: Conv2d, input: NodeId| {
        let node = network.add(format!("{name}.conv"), Op::Conv(conv), &[input]).unwrap();
        let norm = network.add(format!("{name}.bn"), Op::BatchNorm { channels: conv.c_out }, &[node]).unwrap();
        network.add(format!("{name}.act"), Op::Act { activation: Activation::Relu }, &[norm]).unwrap()
    };
    let input = network.input();
    let stem = block(&mut network, "stem", Conv2d::new(1, 6, 3).stride(2), input);
    let depthwise = block(&mut network, "depthwise", Conv2d::depthwise(6, 3), stem);
    let pointwise = block(&mut network, "pointwise", Conv2d::new(6, 6, 1), depthwise);
    let max = network.add("max", Op::MaxPool(Pool::new(3, 1, 1)), &[stem]).unwrap();
    let average = network.add("average", Op::AvgPool(Pool::new(3, 1, 1)), &[pointwise]).unwrap();
    let sum = network.add("sum", Op::Add, &[max, pointwise]).unwrap();
    let dead = network.add("dead", Op::Conv(Conv2d::new(6, 6, 1)), &[stem]).unwrap();
    let zero = network.add("zero", Op::Zero, &[dead]).unwrap();
    let concat = network.add("concat", Op::Concat, &[sum, average, zero]).unwrap();
    let pool = network.add("pool", Op::GlobalAvgPool, &[concat]).unwrap();
    let fc = network.add("fc", Op::Linear { c_in: 18, c_out: 3, bias: true }, &[pool]).unwrap();
    network.set_output(fc).unwrap();
    network
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
        epochs: 3,
        batch_size: 16,
        learning_rate: 0.05,
        augmentation: Augmentation { pad: 1, flip: true, cutout: 0 },
        ..TrainConfig::default()
    }
}

/// One for each way of making an update.
fn configs() -> Vec<TrainConfig> {
    let rate = |learning_rate, optimizer| TrainConfig { learning_rate, optimizer, ..config() };
    vec![
        config(),
        TrainConfig { ema_decay: Some(0.9), clip_norm: Some(0.5), ..config() },
        rate(0.05, Optimizer::Sgd { momentum: 0.9, nesterov: false }),
        TrainConfig { weight_decay: 0.0, ..rate(0.1, Optimizer::Sgd { momentum: 0.0, nesterov: false }) },
        TrainConfig {
            ema_decay: Some(0.5),
            ..rate(0.003, Optimizer::Adamw { beta1: 0.9, beta2: 0.99, epsilon: 1e-4 })
        },
        rate(0.002, Optimizer::rmsprop()),
        TrainConfig { mixup: Some(1.0), ..config() },
        TrainConfig {
            mixup: Some(0.4),
            distillation: Some(Distillation { weight: 0.7, temperature: 3.0 }),
            ..config()
        },
        rate(0.002, Optimizer::Rmsprop { alpha: 0.9, momentum: 0.0, epsilon: 1e-3 }),
    ]
}

type Observer<'a> = dyn FnMut(&EpochReport) -> Control + Send + 'a;

/// A training on some images.
struct Case {
    train: ImageSet,
    validation: ImageSet,
    normalisation: Normalisation,
    config: TrainConfig,
    /// Of a teacher that is asked where the configuration says so, and its normalisation.
    taught: (Network, Weights, Normalisation),
}

impl Case {
    fn new(config: TrainConfig) -> Self {
        let train = images(70, 1);
        let normalisation = Normalisation::of(&train);
        let weights = Model::new(&network(), 99, DType::F32).unwrap().weights().unwrap();
        let taught = (network(), weights, Normalisation { mean: vec![0.4], std: vec![0.2] });
        Self { train, validation: images(30, 2), normalisation, config, taught }
    }

    fn data(&self) -> TrainData<'_> {
        let (network, weights, normalisation) = &self.taught;
        let teacher = self.config.distillation.map(|_| Teacher { network, weights, normalisation });
        TrainData {
            train: &self.train,
            validation: Some(&self.validation),
            normalisation: &self.normalisation,
            teacher,
        }
    }

    fn on_cpu(&self) -> Outcome {
        train(&network(), &self.data(), &self.config, 7, TrainOptions::new(&mut |_| Control::Continue)).unwrap()
    }

    fn on(&self, device: &Device) -> Outcome {
        self.observed(device, &mut |_| Control::Continue, None).unwrap()
    }

    fn observed(
        &self,
        device: &Device,
        observer: &mut Observer<'_>,
        checkpoint: Option<&Path>,
    ) -> Result<Outcome, TrainError> {
        let options = TrainOptions { checkpoint, ..TrainOptions::new(observer) };
        train_on_device(&network(), &self.data(), &self.config, 7, device, options)
    }
}

#[track_caller]
fn trained(outcome: Outcome) -> Trained {
    match outcome {
        Outcome::Trained(trained) => trained,
        other => panic!("{other:?}"),
    }
}

/// The largest difference of any element, relative to the largest element of its tensor.
fn distance(a: &Weights, b: &Weights) -> f64 {
    let of = |(name, a): (&str, &gram_ir::Tensor)| {
        let b = b.get(name).unwrap().data();
        let largest = b.iter().fold(1e-2, |largest: f64, x| largest.max(x.abs()));
        a.data().iter().zip(b).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs() / largest))
    };
    a.iter().map(of).fold(0.0, f64::max)
}

/// V1
fn equals_the_cpus_engine(device: &Device) {
    for config in configs() {
        let case = Case::new(config);
        let (got, expected) = (trained(case.on(device)), trained(case.on_cpu()));
        assert_eq!(got.history.len(), expected.history.len());
        for (got, expected) in got.history.iter().zip(&expected.history) {
            let report = format!("{:?}: {got:?} instead of {expected:?}", case.config.optimizer);
            assert_eq!((got.epoch, got.learning_rate), (expected.epoch, expected.learning_rate));
            assert!((got.train_loss - expected.train_loss).abs() < 1e-4, "{report}");
            // One image more or less may be on the other side of a border.
            assert!((got.train_top1 - expected.train_top1).abs() < 0.02, "{report}");
            let top1 = |report: &EpochReport| report.validation_top1.unwrap();
            assert!((top1(got) - top1(expected)).abs() < 0.04, "{report}");
        }
        let distance = distance(&got.weights, &expected.weights);
        assert!(distance < 1e-3, "{:?}: weights are {distance} apart", case.config.optimizer);
        // What no gradient reaches does not decay either; only the moving average of the CPU's engine rounds it.
        let dead = |weights: &Weights| weights.get("dead.weight").unwrap().data().to_vec();
        let moved = dead(&got.weights).iter().zip(dead(&expected.weights)).any(|(a, b)| (a - b).abs() > 1e-6);
        assert!(!moved, "a tensor without a gradient moved");
    }
}

/// V2
fn goes_on_to_the_same_bits(device: &Device) {
    for config in configs() {
        let case = Case::new(config);
        let straight = trained(case.on(device));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let run = |observer: &mut Observer<'_>| case.observed(device, observer, Some(&path)).unwrap();
        let outcome = run(&mut |report| if report.epoch == 2 { Control::Stop } else { Control::Continue });
        assert_eq!(outcome, Outcome::Interrupted { epoch: 2 });
        assert_eq!(trained(run(&mut |_| Control::Continue)), straight);
        // Once more: nothing is left to do.
        assert_eq!(trained(run(&mut |report| panic!("{report:?}"))), straight);
    }
}

#[test]
fn candles_operators_on_the_cpu_train_as_its_engine_does() {
    equals_the_cpus_engine(&Device::Cpu);
}

#[test]
fn interrupted_trainings_go_on_to_the_same_bits() {
    goes_on_to_the_same_bits(&Device::Cpu);
}

#[test]
fn divergence_is_reported_for_its_own_step() {
    let case = Case::new(TrainConfig { learning_rate: 1e30, warmup_epochs: 0, ..config() });
    let outcome = case.on(&Device::Cpu);
    assert!(matches!(outcome, Outcome::Diverged { epoch: 1, .. }), "{outcome:?}");
    assert_eq!(outcome, case.on_cpu()); // V3
}

#[test]
fn the_interrupt_flag_stops_before_the_next_step() {
    let (case, raised) = (Case::new(config()), AtomicBool::new(true));
    let mut observer = |_: &EpochReport| Control::Continue;
    let options = TrainOptions { interrupt: Some(&raised), ..TrainOptions::new(&mut observer) };
    let outcome = train_on_device(&network(), &case.data(), &case.config, 7, &Device::Cpu, options).unwrap();
    assert_eq!(outcome, Outcome::Interrupted { epoch: 0 });
}

#[test]
fn checkpoints_of_the_cpus_engine_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let case = Case::new(TrainConfig { epochs: 1, ..config() });
    let on_cpu = |checkpoint| {
        let mut observer = |_: &EpochReport| Control::Continue;
        let options = TrainOptions { checkpoint, ..TrainOptions::new(&mut observer) };
        train_on(&Device::Cpu, &network(), &case.data(), &case.config, 7, options).unwrap()
    };
    on_cpu(Some(&path));
    let error = case.observed(&Device::Cpu, &mut |_| Control::Continue, Some(&path)).unwrap_err();
    assert!(error.to_string().contains("another version of the program"), "{error}"); // V4
    assert_eq!(on_cpu(None), case.on_cpu(), "the CPU's engine is the one that trains on the CPU");
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new(TrainConfig { epochs: 0, ..config() });
    let refused = |case: &Case, network: &Network| {
        let mut observer = |_: &EpochReport| Control::Continue;
        let options = TrainOptions::new(&mut observer);
        train_on_device(network, &case.data(), &case.config, 7, &Device::Cpu, options).unwrap_err().to_string()
    };
    assert!(refused(&case, &network()).contains("epochs is 0")); // V5
    let case = Case::new(config());
    assert!(refused(&case, &Network::new(Shape::chw(1, 7, 7))).contains("not one score per class"));
    let mut other = Network::new(Shape::chw(1, 8, 7));
    let pool = other.add("pool", Op::GlobalAvgPool, &[NodeId(0)]).unwrap();
    other.set_output(pool).unwrap();
    assert!(refused(&case, &other).contains("the training images are 1x7x7"));
}

#[test]
fn networks_without_tensors_are_evaluated() {
    let mut network = Network::new(Shape::chw(3, 1, 1));
    let pool = network.add("pool", Op::GlobalAvgPool, &[NodeId(0)]).unwrap();
    network.set_output(pool).unwrap();
    let pixels = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 100, 0]].concat();
    let set = ImageSet::new(ImageShape::new(3, 1, 1), pixels, vec![0, 1, 2, 1]).unwrap();
    let data =
        TrainData { train: &set, validation: Some(&set), normalisation: &Normalisation::of(&set), teacher: None };
    let config = TrainConfig { epochs: 1, batch_size: 4, ..TrainConfig::default() };
    let mut observer = |_: &EpochReport| Control::Continue;
    let options = TrainOptions::new(&mut observer);
    let got = trained(train_on_device(&network, &data, &config, 1, &Device::Cpu, options).unwrap());
    let expected = train(&network, &data, &config, 1, TrainOptions::new(&mut observer)).unwrap();
    let expected = trained(expected);
    assert_eq!((got.weights, got.history.len()), (expected.weights, 1));
    let (got, expected) = (&got.history[0], &expected.history[0]);
    assert_eq!((got.train_top1, got.validation_top1), (expected.train_top1, expected.validation_top1));
    assert!((got.train_loss - expected.train_loss).abs() < 1e-6, "{} and {}", got.train_loss, expected.train_loss);
}

/// The same on a GPU, where there is one.
#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::{DType, Tensor};
    use gram_train::{DeviceChoice, DeviceModel, Mode, Model};

    use super::*;

    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn gpu() -> Option<Device> {
        match DeviceChoice::Cuda(0).open() {
            Ok(device) => Some(device),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    #[test]
    fn a_gpu_trains_as_the_cpu_does() {
        let Some(gpu) = gpu() else { return };
        equals_the_cpus_engine(&gpu);
    }

    #[test]
    fn interrupted_trainings_go_on_to_the_same_bits() {
        let Some(gpu) = gpu() else { return };
        goes_on_to_the_same_bits(&gpu);
    }

    #[test]
    fn gradients_and_outputs_are_those_of_the_cpu() {
        let Some(gpu) = gpu() else { return };
        let (network, labels) = (network(), [0, 2, 1, 1]);
        let images = gram_ir::Tensor::arbitrary(&[4, 1, 7, 7], 1);
        for (dtype, tolerance) in [(DType::F32, 1e-3), (DType::F64, 1e-9)] {
            let weights = Weights::arbitrary(&network, 5);
            let cpu = Model::with_weights(&network, &weights, dtype).unwrap();
            let mut model = DeviceModel::new(&network, &weights, dtype, &gpu).unwrap();
            let images = |device: &Device| {
                let images = Tensor::from_slice(images.data(), images.shape(), &Device::Cpu).unwrap();
                images.to_dtype(dtype).unwrap().to_device(device).unwrap()
            };
            let numbers = |x: &Tensor| {
                let x = x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
                x.flatten_all().unwrap().to_vec1::<f64>().unwrap()
            };
            let near = |got: &Tensor, expected: &Tensor, what: &str| {
                let expected = numbers(expected);
                let largest = expected.iter().fold(1e-3, |largest: f64, x| largest.max(x.abs()));
                for (got, expected) in numbers(got).iter().zip(&expected) {
                    assert!((got - expected).abs() <= tolerance * largest, "{what}: {got} instead of {expected}");
                }
            };
            let expected = cpu.gradients(&images(&Device::Cpu), &labels, 0.1).unwrap();
            let got = model.gradients(&images(&gpu), &labels, 0.1).unwrap();
            near(&got.logits, &expected.logits, "logits");
            for ((spec, got), expected) in cpu.specs().iter().zip(&got.by_tensor).zip(&expected.by_tensor) {
                if let (Some(got), Some(expected)) = (got, expected) {
                    near(got, expected, &spec.name);
                }
            }
            let expected = cpu.forward(&images(&Device::Cpu), Mode::Eval).unwrap();
            near(&model.forward(&images(&gpu), Mode::Eval).unwrap(), &expected, "outputs");
        }
    }
}
