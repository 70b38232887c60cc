//! Trainings that start from weights of another one.
//!
//! T1 equal networks start where the other one ended; T2 what has another name or shape stays random; T3 the same bits for any number of threads
//! and over interruptions; T4 a checkpoint goes on only with the same initial weights.

use gram_data::{ImageSet, ImageShape, Normalisation};
use gram_ir::{Activation, Conv2d, Network, NodeId, Op, Shape, Weights};
use gram_train::{
    Control, Device, Outcome, TrainConfig, TrainData, TrainOptions, Trained, Trainer, evaluate, train, train_on_device,
};

/// A convolution of `channels` channels with norm and activation, another one, a classifier.
fn network(channels: usize) -> Network {
    let mut network = Network::new(Shape::chw(1, 4, 4));
    let conv = network.add("conv", Op::Conv(Conv2d::new(1, channels, 3)), &[NodeId(0)]).unwrap();
    let norm = network.add("bn", Op::BatchNorm { channels }, &[conv]).unwrap();
    let act = network.add("act", Op::Act { activation: Activation::Relu }, &[norm]).unwrap();
    let last = network.add("last", Op::Conv(Conv2d::new(channels, 4, 1)), &[act]).unwrap();
    let norm = network.add("last.bn", Op::BatchNorm { channels: 4 }, &[last]).unwrap();
    let pool = network.add("pool", Op::GlobalAvgPool, &[norm]).unwrap();
    let fc = network.add("fc", Op::Linear { c_in: 4, c_out: 2, bias: true }, &[pool]).unwrap();
    network.set_output(fc).unwrap();
    network
}

/// Noise, brighter above or below.
fn images(n: usize, seed: u64) -> ImageSet {
    let noise = gram_ir::Tensor::arbitrary(&[n, 16], seed);
    let pixel = |(i, noise): (usize, &f64)| {
        let (image, is_below) = (i / 16, i % 16 / 8 == 1);
        (100.0 + 60.0 * noise + if is_below == (image % 2 == 1) { 30.0 } else { 0.0 }) as u8
    };
    let pixels = noise.data().iter().enumerate().map(pixel).collect();
    ImageSet::new(ImageShape::new(1, 4, 4), pixels, (0..n).map(|i| i as u32 % 2).collect()).unwrap()
}

struct Case {
    train: ImageSet,
    validation: ImageSet,
    normalisation: Normalisation,
    config: TrainConfig,
}

impl Case {
    fn new() -> Self {
        let train = images(64, 1);
        let normalisation = Normalisation::of(&train);
        let config = TrainConfig {
            epochs: 3,
            batch_size: 16,
            learning_rate: 0.05,
            ema_decay: Some(0.9),
            ..TrainConfig::default()
        };
        Self { validation: images(40, 2), normalisation, config, train }
    }

    fn data(&self) -> TrainData<'_> {
        let (train, validation) = (&self.train, Some(&self.validation));
        TrainData { train, validation, normalisation: &self.normalisation, teacher: None }
    }

    fn trained(&self, network: &Network, seed: u64, initial: Option<&Weights>, n_threads: usize) -> Trained {
        let mut observer = |_: &_| Control::Continue;
        let options = TrainOptions { initial, n_threads: Some(n_threads), ..TrainOptions::new(&mut observer) };
        match train(network, &self.data(), &self.config, seed, options).unwrap() {
            Outcome::Trained(trained) => trained,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn equal_networks_start_where_the_other_one_ended() {
    let (case, network) = (Case::new(), network(3));
    let source = case.trained(&network, 1, None, 1);
    let mut heir = Trainer::new(&network, &case.config, 2, Some(1), 16).unwrap();
    assert_ne!(heir.weights(), source.weights);
    assert_eq!(heir.inherit(&source.weights), network.tensors().len());
    assert_eq!(heir.weights(), source.weights); // T1, the moving average too
    let top1 = evaluate(&network, &heir.weights(), &case.validation, &case.normalisation, 8).unwrap().top1;
    assert_eq!(Some(top1), source.history.last().unwrap().validation_top1);
    // And from there on it is another training.
    let [random, inherited] = [None, Some(&source.weights)].map(|initial| case.trained(&network, 2, initial, 1));
    assert_ne!(random.weights, inherited.weights);
    assert!(inherited.history[0].train_loss < random.history[0].train_loss, "it knows something already");
    assert_eq!(case.trained(&network, 2, Some(&source.weights), 3), inherited); // T3
}

#[test]
fn what_does_not_fit_stays_random() {
    let (case, wide) = (Case::new(), network(5));
    let source = case.trained(&network(3), 1, None, 1).weights;
    let mut heir = Trainer::new(&wide, &case.config, 2, Some(1), 16).unwrap();
    let random = heir.weights();
    // T2: the second norm's four tensors and the classifier's two; the norm of the convolutions has another width.
    assert_eq!(heir.inherit(&source), 6);
    for spec in wide.tensors() {
        let of = if spec.name.starts_with("last.bn") || spec.name.starts_with("fc") { &source } else { &random };
        assert_eq!(heir.weights().get(&spec.name), of.get(&spec.name), "{}", spec.name);
    }
    assert_eq!(heir.inherit(&Weights::new()), 0);
}

#[test]
fn a_checkpoint_goes_on_only_from_the_same_weights() {
    let (case, network) = (Case::new(), network(3));
    let source = case.trained(&network, 1, None, 1).weights;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let run = |initial, pause_after| {
        let mut observer = |_: &_| Control::Continue;
        let options =
            TrainOptions { initial, pause_after, checkpoint: Some(&path), ..TrainOptions::new(&mut observer) };
        train(&network, &case.data(), &case.config, 2, options)
    };
    assert!(matches!(run(Some(&source), Some(1)), Ok(Outcome::Paused { .. })));
    let none = Weights::new();
    for initial in [None, Some(&none)] {
        let error = run(initial, None).unwrap_err().to_string();
        assert!(error.contains("other initial weights"), "{error}"); // T4
    }
    let Ok(Outcome::Trained(resumed)) = run(Some(&source), None) else { panic!() };
    assert_eq!(resumed, case.trained(&network, 2, Some(&source), 1)); // T3
}

#[test]
fn devices_start_from_the_same_weights() {
    let (mut case, network) = (Case::new(), network(3));
    case.config.epochs = 1;
    let source = case.trained(&network, 1, None, 1).weights;
    let run = |initial| {
        let mut observer = |_: &_| Control::Continue;
        let options = TrainOptions { initial, ..TrainOptions::new(&mut observer) };
        let outcome = train_on_device(&network, &case.data(), &case.config, 2, &Device::Cpu, options).unwrap();
        let Outcome::Trained(trained) = outcome else { panic!("{outcome:?}") };
        trained.history[0].train_loss
    };
    let [random, inherited] = [None, Some(&source)].map(run);
    let ours = [None, Some(&source)].map(|initial| case.trained(&network, 2, initial, 1).history[0].train_loss);
    assert!((random - ours[0]).abs() < 1e-3 && (inherited - ours[1]).abs() < 1e-3, "{random} {inherited} {ours:?}");
    assert!(inherited < random);
}
