use candle_core::DType;
use gram_ir::{Activation, Conv2d, NodeId, Op, Shape};

use super::*;
use crate::{Model, Optimizer};

/// A convolution with norm and activation, a linear layer; one convolution that nobody reads, one that only zeros read.
fn network() -> Network {
    let mut network = Network::new(Shape::chw(1, 4, 4));
    let conv = network.add("conv", Op::Conv(Conv2d::new(1, 3, 3)), &[NodeId(0)]).unwrap();
    let norm = network.add("bn", Op::BatchNorm { channels: 3 }, &[conv]).unwrap();
    let act = network.add("act", Op::Act { activation: Activation::Relu }, &[norm]).unwrap();
    network.add("unread", Op::Conv(Conv2d::new(3, 2, 1)), &[act]).unwrap();
    let hidden = network.add("hidden", Op::Conv(Conv2d::new(3, 3, 1)), &[act]).unwrap();
    let zero = network.add("zero", Op::Zero, &[hidden]).unwrap();
    let sum = network.add("sum", Op::Add, &[act, zero]).unwrap();
    let pool = network.add("pool", Op::GlobalAvgPool, &[sum]).unwrap();
    let fc = network.add("fc", Op::Linear { c_in: 3, c_out: 2, bias: true }, &[pool]).unwrap();
    network.set_output(fc).unwrap();
    network
}

fn pixels(n: usize) -> Vec<f32> {
    gram_ir::Tensor::arbitrary(&[n, 16], 3).data().iter().map(|&x| x as f32).collect()
}

fn trainer(config: &TrainConfig) -> Trainer {
    Trainer::new(&network(), config, 5, Some(1), 4).unwrap()
}

/// Names of the tensors whose elements differ.
fn moved(before: &Weights, after: &Weights) -> Vec<String> {
    let differs = |(name, old): &(&str, &gram_ir::Tensor)| after.get(name).unwrap() != *old;
    before.iter().filter(differs).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn it_starts_with_the_weights_of_a_model() {
    let model = Model::new(&network(), derived_seed(5, Purpose::Weights), DType::F32).unwrap();
    assert_eq!(trainer(&TrainConfig::default()).weights(), model.weights().unwrap());
}

#[test]
fn tensors_that_the_output_does_not_depend_on_stay() {
    for optimizer in [Optimizer::sgd(), Optimizer::adamw(), Optimizer::rmsprop()] {
        let mut trainer = trainer(&TrainConfig { optimizer, weight_decay: 0.1, ..TrainConfig::default() });
        let before = trainer.weights();
        trainer.step(&pixels(4), &[0, 1, 1, 0], 0.01).unwrap();
        let expected =
            ["bn.bias", "bn.running_mean", "bn.running_var", "bn.weight", "conv.weight", "fc.bias", "fc.weight"];
        assert_eq!(moved(&before, &trainer.weights()), expected);
    }
}

#[test]
fn a_short_clip_norm_makes_short_steps() {
    let config = |clip_norm| TrainConfig {
        optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false },
        weight_decay: 0.0,
        clip_norm,
        ..TrainConfig::default()
    };
    let distance = |clip_norm| {
        let mut trainer = trainer(&config(clip_norm));
        let before = trainer.state()[0].to_vec();
        let report = trainer.step(&pixels(4), &[0, 1, 1, 0], 1.0).unwrap();
        let trained = trainer.optimizer.segments().iter().flat_map(|segment| segment.range.clone());
        let squares = trained.map(|i| f64::from(trainer.state()[0][i] - before[i]).powi(2));
        (report, squares.sum::<f64>().sqrt())
    };
    let (free, long) = distance(None);
    let (clipped, short) = distance(Some(0.01));
    assert_eq!(free, clipped);
    assert!(long > 0.02 && (short - 0.01).abs() < 1e-5, "{long} {short}");
    assert_eq!(distance(Some(1e6)).1, long);
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_optimiser_alone() {
    let mut trainer = trainer(&TrainConfig { ema_decay: Some(0.9), ..TrainConfig::default() });
    let before = trainer.weights();
    let report = trainer.step(&[f32::NAN; 32], &[0, 1], 0.1).unwrap();
    assert!(!report.loss.is_finite() && !trainer.is_finite());
    assert_eq!((trainer.optimizer.n_steps, trainer.weights()), (0, before));
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |n_threads, max_batch, config: TrainConfig| {
        Trainer::new(&network(), &config, 0, n_threads, max_batch).unwrap_err().to_string()
    };
    let d = TrainConfig::default;
    assert!(refused(Some(0), 4, d()).contains("n_threads is 0"));
    assert!(refused(None, 0, d()).contains("max_batch is 0"));
    assert!(refused(None, 4, TrainConfig { clip_norm: Some(-1.0), ..d() }).contains("clip_norm is -1"));
    let mut trainer = trainer(&d());
    assert!(trainer.step(&pixels(5), &[0; 5], 0.1).is_err(), "more than max_batch");
    assert!(trainer.step(&pixels(2), &[0; 3], 0.1).is_err(), "labels and images differ in number");
    assert!(trainer.step(&pixels(2), &[0, 2], 0.1).is_err(), "no such class");
    assert!(trainer.step(&[], &[], 0.1).is_err(), "no images");
}
