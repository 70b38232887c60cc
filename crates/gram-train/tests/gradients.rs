//! Property tests of the operators in f64.
//!
//! G1 forward passes equal the reference executor; G2 gradients equal central differences; G3 the layout of tensors does not matter;
//! G4 f32 is f64 up to rounding.

use candle_core::{DType, Device, Tensor, Var};
use gram_ir::{Activation, Conv2d, Network, Op, Pool, Shape, Weights, reference};
use gram_train::ops;
use proptest::prelude::*;

type Result<T> = candle_core::Result<T>;

/// Numbers in -1..1.
fn noise(seed: u64, shape: &[usize]) -> Tensor {
    let data = gram_ir::Tensor::arbitrary(shape, seed);
    Tensor::from_slice(data.data(), shape, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance * (1.0 + expected.abs()),
            "{what} {i}: {got} instead of {expected}"
        );
    }
}

/// G2: all gradients of `Σ f(inputs) · direction` for a fixed random direction.
#[track_caller]
fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let loss = |inputs: &[Tensor]| {
        let y = f(inputs)?;
        y.mul(&noise(99, y.dims()))?.sum_all()
    };
    let vars: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let gradients = loss(&tensors).unwrap().backward().unwrap();
    for (which, var) in vars.iter().enumerate() {
        let at = numbers(var);
        let moved = |i: usize, by: f64| {
            let mut at = at.clone();
            at[i] += by;
            let mut inputs = inputs.to_vec();
            inputs[which] = Tensor::from_vec(at, var.shape(), &Device::Cpu).unwrap();
            loss(&inputs).unwrap().to_scalar::<f64>().unwrap()
        };
        let numeric: Vec<f64> = (0..at.len()).map(|i| (moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5).collect();
        assert_close(&format!("gradient {which}"), &numbers(gradients.get(var).unwrap()), &numeric, 1e-6);
    }
}

/// G1 for one operator on one input.
#[track_caller]
fn check_forward(op: Op, x: &Tensor, weights: &Weights, got: &Tensor) {
    let dims = x.dims();
    let mut network = Network::new(Shape::chw(dims[1], dims[2], dims[3]));
    let node = network.add("op", op, &[network.input()]).unwrap();
    network.set_output(node).unwrap();
    let input = gram_ir::Tensor::new(dims.to_vec(), numbers(x)).unwrap();
    let expected = reference::run(&network, weights, &input).unwrap();
    assert_eq!(got.dims(), expected.shape());
    assert_close("output", &numbers(got), expected.data(), 1e-10);
}

fn named(tensors: &[(&str, &Tensor)]) -> Weights {
    let mut weights = Weights::new();
    for (name, tensor) in tensors {
        weights.insert(*name, gram_ir::Tensor::new(tensor.dims().to_vec(), numbers(tensor)).unwrap());
    }
    weights
}

/// The same elements behind other strides and offsets.
fn strided(x: &Tensor) -> Tensor {
    let last = x.rank() - 1;
    let swapped = x.transpose(0, last).unwrap().contiguous().unwrap();
    Tensor::cat(&[&swapped, &swapped], 0)
        .unwrap()
        .narrow(0, swapped.dims()[0], swapped.dims()[0])
        .unwrap()
        .transpose(0, last)
        .unwrap()
}

#[derive(Clone, Debug)]
struct ConvCase {
    n: usize,
    h: usize,
    w: usize,
    conv: Conv2d,
}

/// Any groups, kernels, strides, padding and dilation that fit images of 1 to 9 pixels along an axis.
fn conv_case() -> impl Strategy<Value = ConvCase> {
    let channels = prop_oneof![
        (1..=5usize, 1..=6usize).prop_map(|(c_in, c_out)| (c_in, c_out, 1)),
        (2..=5usize).prop_map(|c| (c, c, c)),
        (2..=3usize, 1..=2usize, 1..=3usize).prop_map(|(groups, a, b)| (groups * a, groups * b, groups)),
    ];
    let windows =
        (prop_oneof![2 => Just(1usize), 3 => Just(3), 1 => Just(2), 1 => Just(5)], 1..=3usize, 0..=3usize, 1..=2usize);
    (1..=3usize, 1..=9usize, 1..=9usize, channels, windows, any::<bool>())
        .prop_map(|(n, h, w, (c_in, c_out, groups), (kernel, stride, padding, dilation), bias)| {
            let conv = Conv2d { c_in, c_out, kernel, stride, padding, dilation, groups, bias };
            ConvCase { n, h, w, conv }
        })
        .prop_filter("the kernel must fit", |case| {
            case.conv.output_shape(Shape::chw(case.conv.c_in, case.h, case.w)).is_ok()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_equal_the_reference(case in conv_case(), seed in any::<u64>()) {
        let ConvCase { n, h, w, conv } = case;
        let (x, weight) = (noise(seed, &[n, conv.c_in, h, w]), noise(!seed, &conv.weight_shape()));
        let bias = conv.bias.then(|| noise(seed ^ 1, &[conv.c_out]));
        let y = ops::conv2d(&x, &weight, bias.as_ref(), &conv).unwrap();
        let mut tensors = vec![("op.weight", &weight)];
        tensors.extend(bias.as_ref().map(|bias| ("op.bias", bias)));
        check_forward(Op::Conv(conv), &x, &named(&tensors), &y); // G1
        let again = ops::conv2d(&strided(&x), &strided(&weight), bias.as_ref(), &conv).unwrap();
        prop_assert_eq!(numbers(&again), numbers(&y)); // G3
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let in_f32 = ops::conv2d(&single(&x), &single(&weight), bias.as_ref().map(single).as_ref(), &conv).unwrap();
        assert_close("in f32", &numbers(&in_f32), &numbers(&y), 1e-4); // G4
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn gradients_of_convolutions(case in conv_case(), seed in any::<u64>()) {
        let ConvCase { n, h, w, conv } = case;
        let mut inputs = vec![noise(seed, &[n, conv.c_in, h, w]), noise(!seed, &conv.weight_shape())];
        if conv.bias {
            inputs.push(noise(seed ^ 1, &[conv.c_out]));
        }
        check_gradients(&inputs, |t| ops::conv2d(&t[0], &t[1], t.get(2), &conv)); // G2
    }
}

#[test]
fn gradients_over_many_chunks_and_panels() {
    // 19 images make chunks of two; 5x7 pixels and 3 channels leave every panel ragged.
    for conv in [Conv2d::new(3, 5, 1), Conv2d::new(3, 2, 3).stride(2), Conv2d::depthwise(3, 3)] {
        check_gradients(&[noise(1, &[19, 3, 5, 7]), noise(2, &conv.weight_shape())], |t| {
            ops::conv2d(&t[0], &t[1], None, &conv)
        });
    }
}

#[test]
fn gradients_of_linear_layers() {
    let inputs = [noise(1, &[5, 7]), noise(2, &[3, 7]), noise(3, &[3])];
    check_gradients(&inputs, |t| ops::linear(&t[0], &t[1], Some(&t[2])));
    check_gradients(&inputs[..2], |t| ops::linear(&t[0], &t[1], None));
}

const ACTIVATIONS: [Option<Activation>; 4] =
    [None, Some(Activation::Relu), Some(Activation::Relu6), Some(Activation::HardSwish)];

#[test]
fn batch_norm_in_evaluation_equals_the_reference() {
    let x = noise(1, &[3, 4, 5, 3]);
    let [scale, shift, mean] = [2, 3, 4].map(|seed| noise(seed, &[4]));
    let var = noise(5, &[4]).abs().unwrap().affine(1.0, 0.1).unwrap();
    let y = ops::batch_norm_fixed(&x, [&mean, &var], &scale, &shift, None).unwrap();
    let weights =
        named(&[("op.weight", &scale), ("op.bias", &shift), ("op.running_mean", &mean), ("op.running_var", &var)]);
    check_forward(Op::BatchNorm { channels: 4 }, &x, &weights, &y);
    for activation in ACTIVATIONS.into_iter().flatten() {
        let joined = ops::batch_norm_fixed(&x, [&mean, &var], &scale, &shift, Some(activation)).unwrap();
        assert_eq!(numbers(&joined), numbers(&ops::activation(&y, activation).unwrap()));
    }
}

#[test]
fn batch_norm_in_training_uses_the_batch() {
    // 33 images make 11 chunks of 3; the offset would ruin a naive sum of squares in f32.
    let x = noise(1, &[33, 2, 3, 5]).affine(0.5, 1000.0).unwrap();
    let (one, zero) = (Tensor::ones(2, DType::F64, &Device::Cpu).unwrap(), noise(2, &[2]).affine(0.0, 0.0).unwrap());
    let (y, moments) = ops::batch_norm(&x, &one, &zero, None).unwrap();
    let channels = x.transpose(0, 1).unwrap().flatten_from(1).unwrap().to_vec2::<f64>().unwrap();
    for (c, values) in channels.iter().enumerate() {
        let m = values.len() as f64;
        let mean = values.iter().sum::<f64>() / m;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (m - 1.0);
        assert_close("moments", &[moments.mean[c], moments.unbiased_var[c]], &[mean, var], 1e-12);
        let f32 = ops::batch_norm(
            &x.to_dtype(DType::F32).unwrap(),
            &one.to_dtype(DType::F32).unwrap(),
            &zero.to_dtype(DType::F32).unwrap(),
            None,
        );
        assert!((f32.unwrap().1.unbiased_var[c] / var - 1.0).abs() < 1e-3);
    }
    let normalised = y.transpose(0, 1).unwrap().flatten_from(1).unwrap();
    assert_close("mean", &numbers(&normalised.mean(1).unwrap()), &[0.0; 2], 1e-9);
    let squares = numbers(&normalised.sqr().unwrap().mean(1).unwrap());
    assert_close("variance", &squares, &[1.0; 2], 1e-3);
}

#[test]
fn gradients_of_batch_norm() {
    let [scale, shift, mean] = [2, 3, 4].map(|seed| noise(seed, &[3]));
    let var = noise(5, &[3]).abs().unwrap().affine(1.0, 0.1).unwrap();
    let shift = shift.affine(3.0, 0.0).unwrap();
    let scale = scale.affine(3.0, 0.5).unwrap();
    for activation in ACTIVATIONS {
        let x = noise(1, &[5, 3, 3, 2]);
        check_gradients(&[x.clone(), scale.clone(), shift.clone()], |t| {
            Ok(ops::batch_norm(&t[0], &t[1], &t[2], activation)?.0)
        });
        check_gradients(&[x, scale.clone(), shift.clone()], |t| {
            ops::batch_norm_fixed(&t[0], [&mean, &var], &t[1], &t[2], activation)
        });
    }
}

#[test]
fn one_element_per_channel_has_variance_zero() {
    let (x, one) = (noise(1, &[1, 2, 1, 1]), Tensor::ones(2, DType::F64, &Device::Cpu).unwrap());
    let (y, moments) = ops::batch_norm(&x, &one, &one, None).unwrap();
    assert_eq!(numbers(&y), [1.0, 1.0]);
    assert_eq!(moments.unbiased_var, [0.0, 0.0]);
}

#[test]
fn activations_equal_the_reference_and_have_its_slopes() {
    let x = noise(1, &[3, 2, 5, 7]).affine(8.0, 0.0).unwrap();
    for activation in Activation::ALL {
        let y = ops::activation(&x, activation).unwrap();
        check_forward(Op::Act { activation }, &x, &Weights::new(), &y);
        check_gradients(std::slice::from_ref(&x), |t| ops::activation(&t[0], activation));
    }
}

#[test]
fn slopes_at_kinks_are_those_of_the_flat_side() {
    let at = |activation, x: f64| {
        let var = Var::from_vec(vec![x], (1, 1, 1, 1), &Device::Cpu).unwrap();
        let gradients = ops::activation(&var, activation).unwrap().backward().unwrap();
        numbers(gradients.get(&var).unwrap())[0]
    };
    assert_eq!([at(Activation::Relu, 0.0), at(Activation::Relu6, 0.0), at(Activation::Relu6, 6.0)], [0.0; 3]);
    assert_eq!([at(Activation::HardSwish, -3.0), at(Activation::HardSwish, 3.0)], [0.0, 1.0]);
}

#[test]
fn what_is_no_number_stays_none() {
    let x = Tensor::new(&[[[[f64::NAN, 1.0], [2.0, 3.0]]]], &Device::Cpu).unwrap();
    for activation in Activation::ALL {
        assert!(numbers(&ops::activation(&x, activation).unwrap())[0].is_nan());
    }
    assert!(numbers(&ops::max_pool(&x, &Pool::new(2, 2, 0)).unwrap())[0].is_nan());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn pools(
        (n, c, h, w) in (1..=3usize, 1..=3usize, 3..=7usize, 3..=7usize),
        (kernel, stride, padding) in (1..=3usize, 1..=3usize, 0..=1usize),
        seed in any::<u64>(),
    ) {
        let pool = Pool::new(kernel, stride, padding.min(kernel / 2));
        let x = noise(seed, &[n, c, h, w]);
        check_forward(Op::MaxPool(pool), &x, &Weights::new(), &ops::max_pool(&x, &pool).unwrap()); // G1
        check_forward(Op::AvgPool(pool), &x, &Weights::new(), &ops::avg_pool(&x, &pool).unwrap());
        check_forward(Op::GlobalAvgPool, &x, &Weights::new(), &ops::global_avg_pool(&x).unwrap());
        check_gradients(std::slice::from_ref(&x), |t| ops::max_pool(&t[0], &pool)); // G2
        check_gradients(std::slice::from_ref(&x), |t| ops::avg_pool(&t[0], &pool));
        check_gradients(std::slice::from_ref(&x), |t| ops::global_avg_pool(&t[0]));
        prop_assert_eq!(numbers(&ops::max_pool(&strided(&x), &pool).unwrap()), numbers(&ops::max_pool(&x, &pool).unwrap())); // G3
    }
}

#[test]
fn the_first_of_equal_maxima_gets_the_gradient() {
    let x = Var::from_vec(vec![1.0f64, 2.0, 2.0, 2.0], (1, 1, 2, 2), &Device::Cpu).unwrap();
    let gradients = ops::max_pool(&x, &Pool::new(2, 2, 0)).unwrap().backward().unwrap();
    assert_eq!(numbers(gradients.get(&x).unwrap()), [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn concatenations_of_any_number_of_maps() {
    for n_maps in [1, 2, 3, 4, 7, 10] {
        let maps: Vec<Tensor> = (0..n_maps).map(|i| noise(i as u64, &[2, 1 + i % 3, 2, 3])).collect();
        let expected = Tensor::cat(&maps, 1).unwrap();
        assert_eq!(numbers(&ops::concat(&maps).unwrap()), numbers(&expected));
        let views: Vec<Tensor> = maps.iter().map(strided).collect();
        assert_eq!(numbers(&ops::concat(&views).unwrap()), numbers(&expected));
        check_gradients(&maps, ops::concat);
    }
}

#[test]
fn sums_of_any_number_of_terms() {
    for n_terms in [1, 2, 3, 4, 7] {
        let terms: Vec<Tensor> = (0..n_terms).map(|i| noise(i as u64, &[2, 3, 2, 3])).collect();
        let expected = terms[1..].iter().fold(terms[0].clone(), |sum, term| sum.add(term).unwrap());
        assert_close("sum", &numbers(&ops::add(&terms).unwrap()), &numbers(&expected), 1e-14);
        check_gradients(&terms, ops::add);
    }
}

#[test]
fn cross_entropy_by_hand_and_by_differences() {
    let logits = Tensor::new(&[[0.0f64, 0.0, 0.0, 0.0]], &Device::Cpu).unwrap();
    let loss = ops::cross_entropy(&logits, &[2], 0.1).unwrap().to_scalar::<f64>().unwrap();
    assert!((loss - 4.0f64.ln()).abs() < 1e-12, "uniform scores cost ln 4 whatever the target");
    let logits = Tensor::new(&[[2.0f64, 0.0]], &Device::Cpu).unwrap();
    // -ln softmax: ln(1 + e⁻²) = 0.126928 and 2 more; targets 0.9 and 0.1 after smoothing with 0.2.
    let loss = ops::cross_entropy(&logits, &[0], 0.2).unwrap().to_scalar::<f64>().unwrap();
    assert!((loss - 0.326_928_011_042_972_6).abs() < 1e-12, "{loss}");
    let extreme = Tensor::new(&[[1e4f32, -1e4]], &Device::Cpu).unwrap();
    assert_eq!(ops::cross_entropy(&extreme, &[1], 0.0).unwrap().to_scalar::<f32>().unwrap(), 2e4);
    let logits = noise(1, &[5, 4]).affine(3.0, 0.0).unwrap();
    for smoothing in [0.0, 0.1, 0.7] {
        check_gradients(std::slice::from_ref(&logits), |t| ops::cross_entropy(&t[0], &[0, 3, 1, 1, 2], smoothing));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = noise(1, &[2, 3, 4, 4]);
    let conv = Conv2d::new(3, 4, 3);
    assert!(ops::conv2d(&x, &noise(1, &[4, 3, 3, 2]), None, &conv).is_err());
    assert!(ops::conv2d(&x, &noise(1, &[4, 3, 3, 3]), Some(&noise(1, &[3])), &conv).is_err());
    assert!(ops::conv2d(&x, &noise(1, &[4, 3, 3, 3]).to_dtype(DType::F32).unwrap(), None, &conv).is_err());
    assert!(ops::conv2d(&x, &noise(1, &[4, 2, 3, 3]), None, &Conv2d::new(2, 4, 3)).is_err());
    assert!(ops::max_pool(&x, &Pool::new(5, 1, 0)).is_err());
    assert!(ops::batch_norm(&x, &noise(1, &[4]), &noise(1, &[3]), None).is_err());
    assert!(ops::concat(&[]).is_err() && ops::add(&[]).is_err());
    assert!(ops::add(&[x.clone(), noise(1, &[2, 3, 4, 5])]).is_err());
    assert!(ops::concat(&[x.clone(), noise(1, &[2, 3, 4, 5])]).is_err());
    assert!(ops::activation(&x.to_dtype(DType::U8).unwrap(), Activation::Relu).is_err());
    let logits = noise(1, &[2, 3]);
    assert!(ops::cross_entropy(&logits, &[0], 0.0).is_err());
    assert!(ops::cross_entropy(&logits, &[0, 3], 0.0).is_err());
    assert!(ops::cross_entropy(&logits, &[0, 1], 1.0).is_err());
}
