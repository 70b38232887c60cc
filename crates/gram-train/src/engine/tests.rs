//! The engine against the slow reference, in f64.

use candle_core::{DType, Device, Tensor};
use gram_ir::strategies::arb_network;
use gram_ir::{Activation, Conv2d, Network, NodeId, Op, Pool, Shape};
use gram_kernels::{Element, IsaKind, Kernels, exact_kernels};
use proptest::prelude::*;

mod exactness;

use super::evaluator::Evaluator;
use super::executor::Executor;
use super::plan::{Kind, Plan};
use crate::ops::values;
use crate::{Engine, Mode, Model, NetworkOp};

fn executor<E: Element>(
    s: &'static dyn Kernels<E>,
    network: &Network,
    model: &Model,
    input_gradient: bool,
) -> Executor<E> {
    let mut executor = Executor::new(s, network, input_gradient);
    let mut at = 0;
    for var in model.vars() {
        for x in var.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap() {
            executor.values[at] = Element::from_f64(x);
            at += 1;
        }
    }
    executor
}

fn evaluator<E: Element>(executor: &Executor<E>) -> Evaluator<E> {
    Evaluator::new(executor.s, executor.plan.clone(), &executor.values, &executor.offsets)
}

fn images(network: &Network, n: usize, seed: u64) -> gram_ir::Tensor {
    let Shape { c, h, w } = network.input_shape();
    gram_ir::Tensor::arbitrary(&[n, c, h, w], seed)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap()
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    assert_close_beside(what, got, expected, tolerance, 1e-3);
}

/// As [`assert_close`], of numbers that are `least` or more where they do not cancel.
#[track_caller]
fn assert_close_beside(what: &str, got: &[f64], expected: &[f64], tolerance: f64, least: f64) {
    let largest = expected.iter().fold(least, |largest: f64, x| largest.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * largest, "{what} {i}: {got} instead of {expected}");
    }
}

/// Output, gradients of tensors and images, and running statistics of one training step; output in evaluation mode.
fn check(network: &Network, seed: u64, n: usize) {
    let model = Model::new(network, seed, DType::F64).unwrap();
    model.load(&gram_ir::Weights::arbitrary(network, seed)).unwrap();
    let input = images(network, n, seed);
    let mut engine = executor(exact_kernels(), network, &model, true);
    let on_candle = Tensor::from_slice(input.data(), input.shape(), &Device::Cpu).unwrap();
    let evaluated = model.forward(&on_candle, Mode::Eval).unwrap();
    assert_close("evaluation", &evaluator(&engine).run(input.data(), n), &numbers(&evaluated), 1e-9);

    let on_tape = candle_core::Var::from_tensor(&on_candle).unwrap();
    let output = model.forward(&on_tape, Mode::Train).unwrap();
    assert_close("output", &engine.forward(input.data(), n), &numbers(&output), 1e-8);
    let factors = gram_ir::Tensor::arbitrary(output.dims(), seed ^ 1);
    let factors_on_candle = Tensor::from_slice(factors.data(), factors.shape(), &Device::Cpu).unwrap();
    let gradients = (&output * &factors_on_candle).unwrap().sum_all().unwrap().backward().unwrap();
    engine.backward(factors.data());
    let plan = Plan::compile(network, true);
    // Gradients that norms take away, of a shift in front of another norm say, are rounding errors beside the others.
    let all = model.vars().iter().filter_map(|var| gradients.get(var)).flat_map(numbers);
    let least = all.fold(0.1, |largest: f64, g| largest.max(g.abs()));
    for (i, (spec, var)) in model.specs().iter().zip(model.vars()).enumerate() {
        let range = engine.offsets[i]..engine.offsets[i] + spec.elements();
        let expected = gradients.get(var).map(numbers);
        assert_eq!(plan.differentiated[i], expected.is_some(), "{}", spec.name);
        let expected = expected.unwrap_or_else(|| vec![0.0; spec.elements()]);
        if spec.role == gram_ir::TensorRole::Bias && engine.gradient[range.clone()].iter().all(|&g| g == 0.0) {
            // A bias in front of a norm has no effect; the reference finds rounding errors instead of nothing.
            assert!(expected.iter().all(|g| g.abs() < 1e-7 * least.max(10.0)), "{}: {expected:?}", spec.name);
        } else {
            assert_close_beside(&spec.name, &engine.gradient[range.clone()], &expected, 1e-7, least);
        }
        let now = values::<f64>(var).unwrap();
        assert_close(&format!("{} behind the step", spec.name), &engine.values[range], &now, 1e-9);
    }
    let expected = gradients.get(&on_tape).map(numbers);
    if let (Some(got), Some(expected)) = (engine.input_gradient(), expected) {
        assert_close_beside("images", &got, &expected, 1e-7, least);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// E1 evaluation, E2 training output, E3 gradients of tensors and images, E4 running statistics equal those of the reference for any
    /// network, whatever its channel counts.
    #[test]
    fn any_network_equals_the_reference(network in arb_network(12), seed in any::<u64>(), n in 1..=5usize) {
        check(&network, seed, n);
    }

    #[test]
    fn any_classifier_equals_the_reference(network in arb_network(12), seed in any::<u64>(), n in 2..=40usize) {
        let mut network = network;
        let pool = network.add("head", Op::GlobalAvgPool, &[network.output()]).unwrap();
        let c_in = network.output_shape().c;
        let fc = network.add("fc", Op::Linear { c_in, c_out: 3, bias: true }, &[pool]).unwrap();
        network.set_output(fc).unwrap();
        check(&network, seed, n);
    }
}

/// Separable convolutions of every kernel, sums of terms whose blocks differ, pools, and maps that are read in several ways.
#[test]
fn a_network_with_everything_equals_the_reference() {
    let mut network = Network::new(Shape::chw(3, 9, 10));
    let mut count = 0;
    let mut add = |network: &mut Network, op: Op, inputs: &[NodeId]| {
        count += 1;
        network.add(format!("n{count}"), op, inputs).unwrap()
    };
    let norm_act =
        |network: &mut Network, add: &mut dyn FnMut(&mut Network, Op, &[NodeId]) -> NodeId, x, activation| {
            let norm = add(network, Op::BatchNorm { channels: network.node(x).shape.c }, &[x]);
            add(network, Op::Act { activation }, &[norm])
        };
    let stem = add(&mut network, Op::Conv(Conv2d::new(3, 20, 3)), &[NodeId(0)]);
    let mut tip = norm_act(&mut network, &mut add, stem, Activation::HardSwish);
    let mut outs = vec![tip];
    for (kernel, activation) in [(3, Activation::Relu), (5, Activation::Relu6), (7, Activation::HardSwish)] {
        let input = if outs.len() > 1 { add(&mut network, Op::Concat, &outs.clone()) } else { tip };
        let c = network.node(input).shape.c;
        let dw = add(&mut network, Op::Conv(Conv2d::depthwise(c, kernel)), &[input]);
        let dw = norm_act(&mut network, &mut add, dw, activation);
        let pw = add(&mut network, Op::Conv(Conv2d::new(c, 18, 1)), &[dw]);
        tip = norm_act(&mut network, &mut add, pw, activation);
        outs.push(tip);
    }
    let leaves = add(&mut network, Op::Concat, &[outs[1], outs[2]]);
    let map = add(&mut network, Op::Conv(Conv2d::new(18, 36, 1)), &[outs[3]]);
    let map = add(&mut network, Op::BatchNorm { channels: 36 }, &[map]);
    let sum = add(&mut network, Op::Add, &[map, leaves, map]);
    let again = add(&mut network, Op::Add, &[leaves, sum]);
    let act = add(&mut network, Op::Act { activation: Activation::Relu6 }, &[again]);
    let max = add(&mut network, Op::MaxPool(Pool::new(2, 2, 0)), &[act]);
    let average = add(&mut network, Op::AvgPool(Pool::new(3, 2, 1)), &[act]);
    let pooled = add(&mut network, Op::AvgPool(Pool::new(2, 2, 0)), &[act]);
    let strided = add(&mut network, Op::Conv(Conv2d::depthwise(36, 3).stride(2).bias(true)), &[again]);
    let joined = add(&mut network, Op::Concat, &[average, strided]);
    let grouped = Conv2d { groups: 4, ..Conv2d::new(72, 24, 3) }.bias(true);
    let grouped = add(&mut network, Op::Conv(grouped), &[joined]);
    let both = add(&mut network, Op::Concat, &[max, pooled, max]);
    let heads: Vec<NodeId> = [grouped, both].map(|x| add(&mut network, Op::GlobalAvgPool, &[x])).to_vec();
    let all = add(&mut network, Op::Concat, &heads);
    let c_in = network.node(all).shape.c;
    let fc = add(&mut network, Op::Linear { c_in, c_out: 7, bias: true }, &[all]);
    network.set_output(fc).unwrap();
    let separables =
        Plan::compile(&network, false).maps.iter().filter(|map| matches!(map.kind, Kind::Sep { .. })).count();
    assert_eq!(separables, 3);
    for n in [1, 2, 17, 33] {
        check(&network, 5, n);
    }
}

fn f32_model(network: &Network) -> Model {
    Model::new(network, 3, DType::F32).unwrap()
}

/// E5 every instruction set gives what f64 gives, within f32; E6 the same bits for any number of threads.
#[test]
fn instruction_sets_and_threads() {
    let network = cell();
    let n = 24;
    let input = images(&network, n, 1);
    let pixels: Vec<f32> = input.data().iter().map(|&x| x as f32).collect();
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 10).collect();
    let exact = {
        let rounded: Vec<f64> = pixels.iter().map(|&x| f64::from(x)).collect();
        let mut engine = executor(exact_kernels(), &network, &f32_model(&network), false);
        let logits = engine.forward(&rounded, n);
        let loss = crate::Targets::of(&labels, 0.1);
        engine.backward(&loss.backward(&logits, 1.0));
        engine.gradient
    };
    let weights = f32_model(&network).weights().unwrap();
    for isa in IsaKind::ALL.into_iter().filter(|isa| isa.is_available()) {
        let gradient = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            let mut engine = Engine::new(&network, Some(isa), false);
            let layout = engine.layout().clone();
            layout.load(&weights, engine.values_mut()).unwrap();
            pool.install(|| engine.step(&pixels, &labels, 0.1)).unwrap();
            (engine.gradient().to_vec(), engine.values().to_vec())
        };
        let one = gradient(1);
        for n_threads in [2, 3, 7] {
            assert_eq!(gradient(n_threads), one, "{isa}"); // E6
        }
        let (mut error, mut norm) = (0.0, 0.0);
        for (got, expected) in one.0.iter().zip(&exact) {
            error += (f64::from(*got) - expected).powi(2);
            norm += expected.powi(2);
        }
        assert!((error / norm).sqrt() < 1e-4, "{isa}: {}", (error / norm).sqrt()); // E5
    }
}

/// Two stages of separable and 1x1 convolutions, as a search draws them.
fn cell() -> Network {
    cell_at(16)
}

fn cell_at(side: usize) -> Network {
    let mut network = Network::new(Shape::chw(3, side, side));
    let mut count = 0;
    let mut block = |network: &mut Network, conv: Conv2d, x: NodeId| {
        count += 1;
        let x = network.add(format!("conv{count}"), Op::Conv(conv), &[x]).unwrap();
        let x = network.add(format!("bn{count}"), Op::BatchNorm { channels: conv.c_out }, &[x]).unwrap();
        network.add(format!("act{count}"), Op::Act { activation: Activation::Relu }, &[x]).unwrap()
    };
    let mut tip = block(&mut network, Conv2d::new(3, 12, 3), NodeId(0));
    for stage in 0..2 {
        let mut outs = vec![tip];
        for node in 0..3 {
            let mut x = outs[0];
            if outs.len() > 1 {
                x = network.add(format!("cat{stage}.{node}"), Op::Concat, &outs).unwrap();
            }
            let c = network.node(x).shape.c;
            let x = block(&mut network, Conv2d::depthwise(c, 3), x);
            outs.push(block(&mut network, Conv2d::new(c, 12, 1), x));
        }
        tip = network.add(format!("pool{stage}"), Op::MaxPool(Pool::new(2, 2, 0)), &[outs[3]]).unwrap();
    }
    let pool = network.add("gap", Op::GlobalAvgPool, &[tip]).unwrap();
    let fc = network.add("fc", Op::Linear { c_in: 12, c_out: 10, bias: true }, &[pool]).unwrap();
    network.set_output(fc).unwrap();
    network
}

/// From the smallest to the largest images, and from one to 512 in a batch.
#[test]
fn any_size_and_batch_equals_the_reference() {
    for (side, n) in [(8, 512), (33, 17), (224, 1)] {
        check(&cell_at(side), 7, n);
    }
}

/// Losses of candle around a whole network on its tape, and a second forward pass before the gradient of the first.
#[test]
fn a_network_is_one_operation_on_candles_tape() {
    let network = cell();
    let op = NetworkOp::new(&network, 3).unwrap();
    let model = f32_model(&network);
    assert_eq!(op.weights().unwrap(), model.weights().unwrap());
    let pixels: Vec<f32> = images(&network, 4, 1).data().iter().map(|&x| x as f32).collect();
    let input = Tensor::from_vec(pixels, (4, 3, 16, 16), &Device::Cpu).unwrap();
    let loss = |output: Tensor| output.sqr().unwrap().sum_all().unwrap();
    let (own, expected) = (loss(op.forward(&input).unwrap()), loss(model.forward(&input, Mode::Train).unwrap()));
    let (own, expected) = (own.backward().unwrap(), expected.backward().unwrap());
    for ((spec, mine), other) in model.specs().iter().zip(op.vars()).zip(model.vars()) {
        let Some(expected) = expected.get(other) else { continue };
        let as_f64 = |t: &Tensor| numbers(&t.to_dtype(DType::F64).unwrap());
        assert_close(&spec.name, &as_f64(own.get(mine).unwrap()), &as_f64(expected), 1e-3);
    }
    let running = |weights: gram_ir::Weights| weights.get("bn1.running_var").unwrap().data().to_vec();
    assert_close("running", &running(op.weights().unwrap()), &running(model.weights().unwrap()), 1e-5);
    let first = loss(op.forward(&input).unwrap());
    op.forward(&input).unwrap();
    let error = first.backward().unwrap_err().to_string();
    assert!(error.contains("another forward pass"), "{error}");
    assert!(op.forward(&Tensor::zeros((1, 3, 8, 8), DType::F32, &Device::Cpu).unwrap()).is_err());
}
