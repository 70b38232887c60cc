//! Models on candle's own operators against the CPU's: random networks, and every operator against finite differences.

use candle_core::{DType, Device, Tensor};
use gram_ir::strategies::arb_network;
use gram_ir::{Activation, Conv2d, Network, Op, Pool, Shape, Weights, reference};
use gram_train::{DeviceModel, Gradients, Mode, Model};
use proptest::prelude::*;

fn images(network: &Network, n: usize, seed: u64) -> gram_ir::Tensor {
    let Shape { c, h, w } = network.input_shape();
    gram_ir::Tensor::arbitrary(&[n, c, h, w], seed)
}

fn on_candle(tensor: &gram_ir::Tensor) -> Tensor {
    Tensor::from_slice(tensor.data(), tensor.shape(), &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn model(network: &Network, weights: &Weights) -> DeviceModel {
    DeviceModel::new(network, weights, DType::F64, &Device::Cpu).unwrap()
}

/// Both are equal but for `tolerance` of the largest of them.
fn near(got: &[f64], expected: &[f64], tolerance: f64, what: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), expected.len(), "{}", what);
    let largest = expected.iter().fold(1e-3, |largest: f64, x| largest.max(x.abs()));
    for (got, expected) in got.iter().zip(expected) {
        prop_assert!((got - expected).abs() <= tolerance * largest, "{}: {} instead of {}", what, got, expected);
    }
    Ok(())
}

/// The network with a global pool behind it, so that it gives class scores.
fn classifier(mut network: Network) -> Network {
    let pool = network.add("head", Op::GlobalAvgPool, &[network.output()]).unwrap();
    network.set_output(pool).unwrap();
    network
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// D1 evaluation equals the reference executor on any network; D2 weights survive the way in and out.
    #[test]
    fn evaluation_equals_the_reference(network in arb_network(12), seed in any::<u64>(), n in 1..=3usize) {
        let weights = Weights::arbitrary(&network, seed);
        let input = images(&network, n, seed);
        let expected = reference::run(&network, &weights, &input).unwrap();
        let mut model = model(&network, &weights);
        let got = model.forward(&on_candle(&input), Mode::Eval).unwrap();
        prop_assert_eq!(got.dims(), expected.shape());
        for (got, expected) in numbers(&got).iter().zip(expected.data()) {
            prop_assert!((got - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{} instead of {}", got, expected); // D1
        }
        prop_assert_eq!(model.weights().unwrap(), weights); // D2
    }

    /// D3 gradients, loss and scores of any network equal those of the CPU's model, for the same tensors; D4 so do running statistics and
    /// the outputs of training mode.
    #[test]
    fn gradients_equal_those_of_the_cpus_model(network in arb_network(12), seed in any::<u64>(), n in 1..=4usize) {
        let network = classifier(network);
        let classes = network.output_shape().c;
        let images = on_candle(&images(&network, n, seed));
        let labels: Vec<u32> = (0..n as u64).map(|i| (seed.wrapping_add(i) % classes as u64) as u32).collect();
        let weights = Weights::arbitrary(&network, seed);
        let reference = Model::with_weights(&network, &weights, DType::F64).unwrap();
        let mut model = model(&network, &weights);
        let expected = reference.gradients(&images, &labels, 0.1).unwrap();
        let tolerance = tolerance(&weights, &reference.weights().unwrap());
        let Gradients { loss, logits, by_tensor } = model.gradients(&images, &labels, 0.1).unwrap();
        near(&[loss], &[expected.loss], tolerance, "loss")?;
        near(&numbers(&logits), &numbers(&expected.logits), tolerance, "logits")?;
        for ((spec, got), expected) in reference.specs().iter().zip(&by_tensor).zip(&expected.by_tensor) {
            prop_assert_eq!(got.is_some(), expected.is_some(), "{}", spec.name);
            let (Some(got), Some(expected)) = (got, expected) else { continue };
            prop_assert_eq!(got.dims(), spec.shape.as_slice());
            near(&numbers(got), &numbers(expected), tolerance, &spec.name)?; // D3
        }
        let got = numbers(&model.forward(&images, Mode::Train).unwrap());
        near(&got, &numbers(&reference.forward(&images, Mode::Train).unwrap()), tolerance, "outputs")?;
        let (got, expected) = (model.weights().unwrap(), reference.weights().unwrap());
        for (name, expected) in expected.iter() {
            near(got.get(name).unwrap().data(), expected.data(), tolerance, name)?; // D4
        }
    }
}

/// 1e-8, unless a norm divides by next to nothing, which makes rounding errors up to 316 times larger each time.
///
/// The variances of the batch are what has moved running ones by a tenth.
fn tolerance(before: &Weights, after: &Weights) -> f64 {
    let variances = before.iter().filter(|(name, _)| name.ends_with("running_var")).flat_map(|(name, before)| {
        let after = after.get(name).unwrap().data();
        before.data().iter().zip(after).filter(|(before, after)| before != after).map(|(b, a)| (a - 0.9 * b) / 0.1)
    });
    if variances.fold(f64::INFINITY, f64::min) > 1e-2 { 1e-8 } else { 1e-2 }
}

/// `op` between two 1x1 convolutions, so that gradients go through it to weights on both sides.
fn around(op: Op, shape: Shape) -> Network {
    let mut network = Network::new(Shape::chw(2, shape.h, shape.w));
    let before = network.add("before", Op::Conv(Conv2d::new(2, shape.c, 1).bias(true)), &[network.input()]).unwrap();
    let inputs = if matches!(op, Op::Concat | Op::Add) { vec![before, before] } else { vec![before] };
    let middle = network.add("op", op, &inputs).unwrap();
    let c = network.node(middle).shape.c;
    let behind = network.add("behind", Op::Conv(Conv2d::new(c, 3, 1).bias(true)), &[middle]).unwrap();
    let pool = network.add("pool", Op::GlobalAvgPool, &[behind]).unwrap();
    network.set_output(pool).unwrap();
    network
}

/// D5 the gradient of every operator is that of finite differences in f64.
#[test]
fn gradients_are_those_of_finite_differences() {
    let conv = Conv2d::new(4, 6, 3);
    let act = |activation| Op::Act { activation };
    let ops = [
        Op::Conv(conv),
        Op::Conv(conv.stride(2).bias(true)),
        Op::Conv(Conv2d { dilation: 2, padding: 1, groups: 2, stride: 3, ..conv }),
        Op::Conv(Conv2d { kernel: 1, padding: 2, stride: 2, ..conv }),
        Op::Conv(Conv2d { groups: 4, c_out: 8, ..conv }),
        Op::Conv(Conv2d::depthwise(4, 5).stride(2).bias(true)),
        Op::Conv(Conv2d { dilation: 2, padding: 2, ..Conv2d::depthwise(4, 3) }),
        Op::BatchNorm { channels: 4 },
        act(Activation::Relu),
        act(Activation::Relu6),
        act(Activation::HardSwish),
        Op::Concat,
        Op::Add,
        Op::MaxPool(Pool::new(3, 1, 1)),
        Op::MaxPool(Pool::new(2, 2, 0)),
        Op::MaxPool(Pool::new(3, 2, 1)),
        Op::AvgPool(Pool::new(3, 1, 1)),
        Op::AvgPool(Pool::new(3, 2, 0)),
        Op::AvgPool(Pool::new(1, 2, 0)),
        Op::GlobalAvgPool,
        Op::Identity,
    ];
    for (i, op) in ops.into_iter().enumerate() {
        let network = around(op, Shape::chw(4, 7, 6));
        let mut weights = Weights::arbitrary(&network, i as u64);
        let images = on_candle(&images(&network, 3, 1));
        let labels = [0, 2, 1];
        let loss = |weights: &Weights| model(&network, weights).gradients(&images, &labels, 0.1).unwrap().loss;
        let gradients = model(&network, &weights).gradients(&images, &labels, 0.1).unwrap();
        for (spec, gradient) in network.tensors().iter().zip(gradients.by_tensor) {
            let Some(gradient) = gradient else { continue };
            let gradient = numbers(&gradient);
            for at in [0, spec.elements() / 2, spec.elements() - 1] {
                let at_step = |weights: &mut Weights, step: f64| {
                    let mut values = weights.get(&spec.name).unwrap().data().to_vec();
                    let before = values[at];
                    values[at] += step;
                    let tensor = gram_ir::Tensor::new(spec.shape.clone(), values.clone()).unwrap();
                    weights.insert(spec.name.clone(), tensor);
                    let found = loss(weights);
                    values[at] = before;
                    weights.insert(spec.name.clone(), gram_ir::Tensor::new(spec.shape.clone(), values).unwrap());
                    found
                };
                let difference = (at_step(&mut weights, 1e-6) - at_step(&mut weights, -1e-6)) / 2e-6;
                let error = (gradient[at] - difference).abs();
                assert!(
                    error < 1e-7 * (1.0 + difference.abs()),
                    "{op:?}: {} of {}: {} instead of {difference}",
                    at,
                    spec.name,
                    gradient[at]
                );
            }
        }
    }
}

/// One channel of pixels, one image.
fn row(pixels: &[f64]) -> Tensor {
    Tensor::from_slice(pixels, (1, 1, 1, pixels.len()), &Device::Cpu).unwrap()
}

/// The output of `op` on one row of pixels.
fn output(op: Op, pixels: &[f64]) -> Vec<f64> {
    let mut network = Network::new(Shape::chw(1, 1, pixels.len()));
    let node = network.add("op", op, &[network.input()]).unwrap();
    network.set_output(node).unwrap();
    numbers(&model(&network, &Weights::arbitrary(&network, 0)).forward(&row(pixels), Mode::Eval).unwrap())
}

/// D6 kinks and what lies beside them, NaN included, are as in the CPU's kernels.
#[test]
fn activations_by_hand() {
    let act = |activation| Op::Act { activation };
    assert_eq!(output(act(Activation::Relu), &[-2.0, 0.0, 1e-300, 7.0]), [0.0, 0.0, 1e-300, 7.0]);
    assert_eq!(output(act(Activation::Relu6), &[-2.0, 0.0, 1e-300, 6.0, 7.0]), [0.0, 0.0, 1e-300, 6.0, 6.0]);
    // At 1 it is 1·4/6.
    assert_eq!(output(act(Activation::HardSwish), &[-4.0, -3.0, 0.0, 3.0, 9.0]), [0.0, 0.0, 0.0, 3.0, 9.0]);
    assert!((output(act(Activation::HardSwish), &[1.0])[0] - 4.0 / 6.0).abs() < 1e-15);
    for activation in Activation::ALL {
        assert!(output(act(activation), &[f64::NAN])[0].is_nan(), "{activation}");
    }
}

/// D7 the gradient at a kink is that of the flat side, and of equal pixels the first one gets it all.
#[test]
fn gradients_at_kinks_and_ties_are_those_of_the_cpus_model() {
    let ops = [
        Op::Act { activation: Activation::Relu },
        Op::Act { activation: Activation::Relu6 },
        Op::Act { activation: Activation::HardSwish },
        Op::MaxPool(Pool::new(3, 2, 1)),
        Op::MaxPool(Pool::new(2, 1, 0)),
    ];
    for op in ops {
        let mut network = Network::new(Shape::chw(2, 3, 4));
        // Gives the first channel as it is; the gradient of the second one's weight, 0, tells which places count.
        let first = network.add("first", Op::Conv(Conv2d::new(2, 1, 1)), &[network.input()]).unwrap();
        let op = network.add("op", op, &[first]).unwrap();
        let classes = network.add("classes", Op::Conv(Conv2d::new(1, 2, 1)), &[op]).unwrap();
        let pool = network.add("pool", Op::GlobalAvgPool, &[classes]).unwrap();
        network.set_output(pool).unwrap();
        let mut weights = Weights::arbitrary(&network, 3);
        weights.insert("first.weight", gram_ir::Tensor::new(vec![1, 2, 1, 1], vec![1.0, 0.0]).unwrap());
        let pixels = [0.0, 6.0, 3.0, -3.0, 6.0, 6.0, 0.0, 0.0, -3.0, -3.0, 3.0, 1.0];
        let places = (0..12).map(|i| f64::from(i * i));
        let images: Vec<f64> = pixels.into_iter().chain(places).collect();
        let images = Tensor::from_vec(images, (1, 2, 3, 4), &Device::Cpu).unwrap();
        let expected =
            Model::with_weights(&network, &weights, DType::F64).unwrap().gradients(&images, &[1], 0.0).unwrap();
        let got = model(&network, &weights).gradients(&images, &[1], 0.0).unwrap();
        for (got, expected) in got.by_tensor.iter().zip(&expected.by_tensor) {
            let (got, expected) = (numbers(got.as_ref().unwrap()), numbers(expected.as_ref().unwrap()));
            near(&got, &expected, 1e-12, "gradient").unwrap();
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let network = Network::new(Shape::chw(1, 2, 2));
    assert!(DeviceModel::new(&network, &Weights::new(), DType::U8, &Device::Cpu).is_err());
    let mut model = model(&network, &Weights::new());
    for shape in [&[1, 1, 2, 3][..], &[0, 1, 2, 2], &[1, 2, 2], &[]] {
        let images = Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        assert!(model.forward(&images, Mode::Eval).is_err(), "{shape:?}");
    }
    let images = Tensor::zeros((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    assert!(model.forward(&images, Mode::Eval).unwrap_err().to_string().contains("F64"));
    let images = Tensor::zeros((1, 1, 2, 2), DType::F64, &Device::Cpu).unwrap();
    assert!(model.gradients(&images, &[0], 0.0).unwrap_err().to_string().contains("not one score per class"));
}

/// Another network's weights are refused, and a model's copies go their own ways.
#[test]
fn weights_are_replaced_and_copies_are_apart() {
    let network = around(Op::BatchNorm { channels: 4 }, Shape::chw(4, 5, 5));
    let (first, second) = (Weights::arbitrary(&network, 1), Weights::arbitrary(&network, 2));
    let mut model = model(&network, &first);
    let copy = model.clone();
    model.load(&second).unwrap();
    assert!(model.load(&Weights::new()).is_err());
    assert_eq!((copy.weights().unwrap(), model.weights().unwrap()), (first, second.clone()));
    model.forward(&on_candle(&images(&network, 2, 1)), Mode::Train).unwrap();
    assert_ne!(model.weights().unwrap(), second);
}

/// Thousands of nodes must not exhaust a stack.
#[test]
fn very_deep_networks_have_gradients() {
    let mut network = Network::new(Shape::chw(1, 1, 1));
    let mut tip = network.add("fc", Op::Linear { c_in: 1, c_out: 2, bias: true }, &[network.input()]).unwrap();
    for i in 0..10_000 {
        tip = network.add(format!("act{i}"), Op::Act { activation: Activation::Relu }, &[tip]).unwrap();
    }
    network.set_output(tip).unwrap();
    let mut weights = Weights::arbitrary(&network, 0);
    weights.insert("fc.bias", gram_ir::Tensor::new(vec![2], vec![5.0, 5.0]).unwrap());
    let gradients = model(&network, &weights).gradients(&row(&[1.0]), &[1], 0.0).unwrap();
    assert!(gradients.by_tensor.iter().all(|gradient| numbers(gradient.as_ref().unwrap())[0] != 0.0));
}
