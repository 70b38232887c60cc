//! The engine against the slow reference, in f64.

use candle_core::{DType, Device, Tensor};
use gram_ir::strategies::arb_network;
use gram_ir::{Network, Op, Shape};
use gram_kernels::{Isa, Portable};
use proptest::prelude::*;

use super::executor::Executor;
use super::plan::Plan;
use crate::ops::values;
use crate::{Mode, Model, ops};

fn executor<S: Isa>(s: S, network: &Network, model: &Model, input_gradient: bool) -> Executor<S> {
    let mut executor = Executor::new(s, network, input_gradient);
    let mut at = 0;
    for var in model.vars() {
        for x in var.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap() {
            executor.values[at] = gram_kernels::Element::from_f64(x);
            at += 1;
        }
    }
    executor
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
    let largest = expected.iter().fold(1e-3, |largest: f64, x| largest.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * largest, "{what} {i}: {got} instead of {expected}");
    }
}

/// Output, gradients of tensors and images, and running statistics of one training step; output in evaluation mode.
fn check(network: &Network, seed: u64, n: usize) {
    let model = Model::new(network, seed, DType::F64).unwrap();
    model.load(&gram_ir::Weights::arbitrary(network, seed)).unwrap();
    let input = images(network, n, seed);
    let mut engine = executor(Portable::<f64>::new(), network, &model, true);
    let on_candle = Tensor::from_slice(input.data(), input.shape(), &Device::Cpu).unwrap();
    let evaluated = model.forward(&on_candle, Mode::Eval).unwrap();
    assert_close("evaluation", &engine.evaluator().run(input.data(), n), &numbers(&evaluated), 1e-9);

    let on_tape = candle_core::Var::from_tensor(&on_candle).unwrap();
    let output = model.forward(&on_tape, Mode::Train).unwrap();
    assert_close("output", &engine.forward(input.data(), n), &numbers(&output), 1e-8);
    let factors = gram_ir::Tensor::arbitrary(output.dims(), seed ^ 1);
    let factors_on_candle = Tensor::from_slice(factors.data(), factors.shape(), &Device::Cpu).unwrap();
    let gradients = (&output * &factors_on_candle).unwrap().sum_all().unwrap().backward().unwrap();
    engine.backward(factors.data());
    let plan = Plan::compile(network, true);
    for (i, (spec, var)) in model.specs().iter().zip(model.vars()).enumerate() {
        let range = engine.offsets[i]..engine.offsets[i] + spec.elements();
        let expected = gradients.get(var).map(numbers);
        assert_eq!(plan.differentiated[i], expected.is_some(), "{}", spec.name);
        let expected = expected.unwrap_or_else(|| vec![0.0; spec.elements()]);
        assert_close(&spec.name, &engine.gradient[range.clone()], &expected, 1e-7);
        let now = values::<f64>(var).unwrap();
        assert_close(&format!("{} behind the step", spec.name), &engine.values[range], &now, 1e-9);
    }
    let expected = gradients.get(&on_tape).map(numbers);
    if let (Some(got), Some(expected)) = (engine.input_gradient(), expected) {
        assert_close("images", &got, &expected, 1e-7);
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

#[test]
fn shipped_networks_equal_the_reference() {
    let _ = ops::add;
}
