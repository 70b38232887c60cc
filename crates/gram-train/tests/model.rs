//! Models of random networks against the reference executor and finite differences.

use candle_core::{DType, Device, Tensor};
use gram_data::{ImageSet, ImageShape, Normalisation};
use gram_ir::strategies::arb_network;
use gram_ir::{Activation, Network, NodeId, Op, Shape, Weights, reference};
use gram_train::{Control, Mode, Model, Outcome, TrainConfig, TrainData, TrainOptions, ops, train};
use proptest::prelude::*;

fn images(network: &Network, n: usize, seed: u64) -> gram_ir::Tensor {
    let Shape { c, h, w } = network.input_shape();
    gram_ir::Tensor::arbitrary(&[n, c, h, w], seed)
}

fn on_candle(tensor: &gram_ir::Tensor) -> Tensor {
    Tensor::from_slice(tensor.data(), tensor.shape(), &Device::Cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// M1 evaluation equals the reference executor on any network; M2 weights survive the way in and out.
    #[test]
    fn evaluation_equals_the_reference(network in arb_network(12), seed in any::<u64>(), n in 1..=3usize) {
        let weights = Weights::arbitrary(&network, seed);
        let input = images(&network, n, seed);
        let expected = reference::run(&network, &weights, &input).unwrap();
        let model = Model::new(&network, seed, DType::F64).unwrap();
        model.load(&weights).unwrap();
        let got = model.forward(&on_candle(&input), Mode::Eval).unwrap();
        prop_assert_eq!(got.dims(), expected.shape());
        for (got, expected) in got.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().zip(expected.data()) {
            prop_assert!((got - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{} instead of {}", got, expected); // M1
        }
        prop_assert_eq!(model.weights().unwrap(), weights); // M2
    }

    /// M3 gradients of any network equal those of candle's tape; M4 they have the tensors' shapes, running statistics get none; M5 both
    /// ways leave the same running statistics.
    #[test]
    fn gradients_equal_those_of_candles_tape(network in arb_network(10), seed in any::<u64>()) {
        let mut network = network;
        let pool = network.add("head", Op::GlobalAvgPool, &[network.output()]).unwrap();
        network.set_output(pool).unwrap();
        let classes = network.output_shape().c;
        let images = on_candle(&images(&network, 3, seed));
        let labels: Vec<u32> = (0..3).map(|i| (seed.wrapping_add(i) % classes as u64) as u32).collect();
        let model = |seed| Model::new(&network, seed, DType::F64).unwrap();
        let (own, taped) = (model(seed), model(seed));
        let gradients = own.gradients(&images, &labels, 0.1).unwrap();
        let logits = taped.forward(&images, Mode::Train).unwrap().flatten_from(1).unwrap();
        let loss = ops::cross_entropy(&logits, &labels, 0.1).unwrap();
        prop_assert_eq!(loss.to_scalar::<f64>().unwrap(), gradients.loss);
        let expected = loss.backward().unwrap();
        for ((spec, var), own) in taped.specs().iter().zip(taped.vars()).zip(&gradients.by_tensor) {
            prop_assert_eq!(own.is_some(), expected.get(var).is_some(), "{}", spec.name);
            let (Some(own), Some(expected)) = (own, expected.get(var)) else { continue };
            prop_assert!(spec.role.is_trainable()); // M4
            prop_assert_eq!(own.dims(), spec.shape.as_slice());
            let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let (own, expected) = (numbers(own), numbers(expected));
            let largest = expected.iter().fold(1e-3, |largest: f64, x| largest.max(x.abs()));
            for (own, expected) in own.iter().zip(&expected) {
                prop_assert!((own - expected).abs() <= 1e-8 * largest, "{}: {} and {}", spec.name, own, expected); // M3
            }
        }
        prop_assert_eq!(own.weights().unwrap(), taped.weights().unwrap()); // M5
    }
}

#[test]
fn running_statistics_move_by_a_tenth() {
    let mut network = Network::new(Shape::chw(1, 1, 2));
    let norm = network.add("bn", Op::BatchNorm { channels: 1 }, &[NodeId(0)]).unwrap();
    network.set_output(norm).unwrap();
    let model = Model::new(&network, 0, DType::F32).unwrap();
    let images = Tensor::new(&[[[[1.0f32, 2.0]]], [[[3.0, 6.0]]]], &Device::Cpu).unwrap();
    let of = |name: &str| model.weights().unwrap().get(name).unwrap().data()[0];
    model.forward(&images, Mode::Eval).unwrap();
    assert_eq!((of("bn.running_mean"), of("bn.running_var")), (0.0, 1.0));
    model.forward(&images, Mode::Train).unwrap();
    // Mean 3; unbiased variance (4 + 1 + 0 + 9) / 3.
    assert!((of("bn.running_mean") - 0.3).abs() < 1e-6);
    assert!((of("bn.running_var") - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-6);
}

#[test]
fn initial_weights_depend_on_the_seed_and_keep_their_bounds() {
    let mut network = Network::new(Shape::chw(8, 4, 4));
    let conv = network.add("conv", Op::Conv(gram_ir::Conv2d::new(8, 16, 3)), &[NodeId(0)]).unwrap();
    let pool = network.add("pool", Op::GlobalAvgPool, &[conv]).unwrap();
    let fc = network.add("fc", Op::Linear { c_in: 16, c_out: 3, bias: true }, &[pool]).unwrap();
    network.set_output(fc).unwrap();
    let weights = |seed| Model::new(&network, seed, DType::F32).unwrap().weights().unwrap();
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
    let spread = |name: &str| {
        let weights = weights(1);
        let data = weights.get(name).unwrap().data().to_vec();
        data.iter().fold(0.0f64, |largest, x| largest.max(x.abs()))
    };
    let bound = (6.0f64 / 144.0).sqrt();
    assert!(spread("conv.weight") <= bound + 1e-7 && spread("conv.weight") > 0.95 * bound);
    assert!(spread("fc.weight") <= 0.25 && spread("fc.weight") > 0.2);
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let network = Network::new(Shape::chw(1, 2, 2));
    assert!(Model::new(&network, 0, DType::U8).is_err());
    let model = Model::new(&network, 0, DType::F32).unwrap();
    for shape in [&[1, 1, 2, 3][..], &[0, 1, 2, 2], &[1, 2, 2], &[]] {
        let images = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert!(model.forward(&images, Mode::Eval).is_err(), "{shape:?}");
    }
}

/// Thousands of nodes must not exhaust a stack.
#[test]
fn very_deep_networks_train() {
    let mut network = Network::new(Shape::chw(1, 1, 1));
    let fc = Op::Linear { c_in: 1, c_out: 1, bias: true };
    let mut tip = network.add("fc", fc, &[NodeId(0)]).unwrap();
    for i in 0..10_000 {
        let activation = Activation::HardSwish;
        tip = network.add(format!("act{i}"), Op::Act { activation }, &[tip]).unwrap();
    }
    network.set_output(tip).unwrap();
    let images = ImageSet::new(ImageShape::new(1, 1, 1), vec![1, 2], vec![0, 0]).unwrap();
    let data =
        TrainData { train: &images, validation: None, normalisation: &Normalisation::of(&images), teacher: None };
    let config = TrainConfig { epochs: 1, warmup_epochs: 0, ..TrainConfig::default() };
    let outcome = train(&network, &data, &config, 0, TrainOptions::new(&mut |_| Control::Continue)).unwrap();
    assert!(matches!(outcome, Outcome::Trained(_)), "{outcome:?}");
}
