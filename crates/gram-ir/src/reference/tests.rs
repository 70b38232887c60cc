//! Every operator by hand, and convolutions with groups and dilation against plain ones.

use super::*;
use crate::{Activation, BATCH_NORM_EPS, Conv2d, Pool};

fn tensor(shape: &[usize], data: &[f64]) -> Tensor {
    Tensor::new(shape.to_vec(), data.to_vec()).unwrap()
}

/// 1, 2, 3, … in `shape`.
fn counting(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    tensor(shape, &(1..=n).map(|i| i as f64).collect::<Vec<_>>())
}

/// A network of one node named `op` that reads the input, `n_inputs` times.
fn network_of(op: Op, input: Shape, n_inputs: usize) -> Network {
    let mut network = Network::new(input);
    let id = network.add("op", op, &vec![network.input(); n_inputs]).unwrap();
    network.set_output(id).unwrap();
    network
}

/// What one node gives for `input` with `weights` named by their suffixes.
#[track_caller]
fn one(op: Op, n_inputs: usize, weights: &[(&str, Tensor)], input: &Tensor) -> Tensor {
    let network = network_of(op, kernels::image_shape(input), n_inputs);
    let mut named = Weights::new();
    for (suffix, tensor) in weights {
        named.insert(format!("op.{suffix}"), tensor.clone());
    }
    run(&network, &named, input).unwrap()
}

fn conv(conv: Conv2d, weight: Tensor, input: &Tensor) -> Tensor {
    one(Op::Conv(conv), 1, &[("weight", weight)], input)
}

#[test]
fn convolution_with_padding_by_hand() {
    // 1 2 3    kernel of ones: each pixel becomes the sum of its neighbourhood, zeros outside:
    // 4 5 6    corner 1+2+4+5 = 12, edge 1+2+3+4+5+6 = 21, …
    // 7 8 9
    let output = conv(Conv2d::new(1, 1, 3), tensor(&[1, 1, 3, 3], &[1.0; 9]), &counting(&[1, 1, 3, 3]));
    assert_eq!(output, tensor(&[1, 1, 3, 3], &[12.0, 21.0, 16.0, 27.0, 45.0, 33.0, 24.0, 39.0, 28.0]));
}

#[test]
fn convolution_is_not_flipped() {
    // Only the tap right of the centre: a correlation gives the right neighbour.
    let mut weight = Tensor::zeros(&[1, 1, 3, 3]);
    weight.data_mut()[5] = 1.0;
    let output = conv(Conv2d::new(1, 1, 3), weight, &counting(&[1, 1, 2, 3]));
    assert_eq!(output.data(), [2.0, 3.0, 0.0, 5.0, 6.0, 0.0]);
}

#[test]
fn strided_convolution_by_hand() {
    // 4x4 counting, 2x2 kernel (1, 10, 100, 1000), padding 1, stride 2: windows start at rows and columns -1, 1, 3.
    let spec = Conv2d { kernel: 2, padding: 1, stride: 2, ..Conv2d::new(1, 1, 1) };
    let output = conv(spec, tensor(&[1, 1, 2, 2], &[1.0, 10.0, 100.0, 1000.0]), &counting(&[1, 1, 4, 4]));
    let expected = [
        1000.0, // only pixel 1
        2.0 * 100.0 + 3.0 * 1000.0,
        4.0 * 100.0,
        5.0 * 10.0 + 9.0 * 1000.0,
        6.0 + 7.0 * 10.0 + 10.0 * 100.0 + 11.0 * 1000.0,
        8.0 + 12.0 * 100.0,
        13.0 * 10.0,
        14.0 + 15.0 * 10.0,
        16.0,
    ];
    assert_eq!(output, tensor(&[1, 1, 3, 3], &expected));
}

#[test]
fn channels_and_bias_by_hand() {
    // Two images of two channels and one pixel: y = W x + b.
    let weight = tensor(&[3, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let bias = tensor(&[3], &[0.5, 0.0, -0.5]);
    let input = tensor(&[2, 2, 1, 1], &[1.0, 1.0, 10.0, 100.0]);
    let expected = tensor(&[2, 3, 1, 1], &[3.5, 7.0, 10.5, 210.5, 430.0, 649.5]);
    let weights = [("weight", weight), ("bias", bias.clone())];
    assert_eq!(one(Op::Conv(Conv2d::new(2, 3, 1).bias(true)), 1, &weights, &input), expected);
    let weights = [("weight", tensor(&[3, 2], weights[0].1.data())), ("bias", bias)];
    assert_eq!(one(Op::Linear { c_in: 2, c_out: 3, bias: true }, 1, &weights, &input), expected);
}

#[test]
fn linear_without_bias() {
    let weights = [("weight", tensor(&[1, 3], &[1.0, -2.0, 3.0]))];
    let output = one(Op::Linear { c_in: 3, c_out: 1, bias: false }, 1, &weights, &counting(&[1, 3, 1, 1]));
    assert_eq!(output, tensor(&[1, 1, 1, 1], &[1.0 - 4.0 + 9.0]));
}

/// The channels `first..first + count` of a tensor with channels on axis `axis`.
fn channels(tensor: &Tensor, axis: usize, first: usize, count: usize) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let rows = tensor.data().chunks_exact(shape[axis] * inner);
    let data: Vec<f64> = rows.flat_map(|row| &row[first * inner..(first + count) * inner]).copied().collect();
    shape[axis] = count;
    Tensor::new(shape, data).unwrap()
}

#[test]
fn groups_are_separate_convolutions() {
    let input = Tensor::arbitrary(&[2, 6, 7, 5], 1);
    let grouped = Conv2d { groups: 3, stride: 2, ..Conv2d::new(6, 9, 3) };
    let weight = Tensor::arbitrary(&grouped.weight_shape(), 2);
    let whole = conv(grouped, weight.clone(), &input);
    for group in 0..3 {
        let alone = Conv2d { groups: 1, c_in: 2, c_out: 3, ..grouped };
        let part = conv(alone, channels(&weight, 0, 3 * group, 3), &channels(&input, 1, 2 * group, 2));
        assert_eq!(part, channels(&whole, 1, 3 * group, 3), "group {group}");
    }
}

#[test]
fn depthwise_convolution_by_hand() {
    let output = conv(Conv2d::depthwise(2, 1), tensor(&[2, 1, 1, 1], &[10.0, 100.0]), &counting(&[1, 2, 1, 2]));
    assert_eq!(output.data(), [10.0, 20.0, 300.0, 400.0]);
}

#[test]
fn dilation_is_a_kernel_with_holes() {
    let input = Tensor::arbitrary(&[1, 2, 9, 8], 3);
    for (padding, stride) in [(0, 1), (2, 1), (3, 2), (5, 3)] {
        let dilated = Conv2d { dilation: 2, padding, stride, ..Conv2d::new(2, 3, 3) };
        let weight = Tensor::arbitrary(&dilated.weight_shape(), 4);
        let dense = Conv2d { kernel: 5, dilation: 1, ..dilated };
        let mut holes = Tensor::zeros(&dense.weight_shape());
        for (i, &w) in weight.data().iter().enumerate() {
            let (plane, y, x) = (i / 9, i / 3 % 3, i % 3);
            holes.data_mut()[plane * 25 + 2 * y * 5 + 2 * x] = w;
        }
        let (a, b) = (conv(dilated, weight, &input), conv(dense, holes, &input));
        assert_eq!(a.shape(), b.shape());
        assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-14), "padding {padding} stride {stride}");
    }
}

#[test]
fn batch_norm_by_hand() {
    let weights = [
        ("weight", tensor(&[2], &[2.0, 1.0])),
        ("bias", tensor(&[2], &[1.0, 0.0])),
        ("running_mean", tensor(&[2], &[3.0, 0.0])),
        // Roots of variance plus epsilon are 2 and √ε.
        ("running_var", tensor(&[2], &[4.0 - BATCH_NORM_EPS, 0.0])),
    ];
    let output = one(Op::BatchNorm { channels: 2 }, 1, &weights, &tensor(&[1, 2, 1, 2], &[3.0, 5.0, 1.0, 0.0]));
    let expected = [1.0, 3.0, 1.0 / 1e-5f64.sqrt(), 0.0];
    assert!(output.data().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{output:?}");
}

#[test]
fn activations_by_hand() {
    let input = tensor(&[1, 1, 1, 5], &[-4.0, -1.5, 0.0, 2.0, 7.0]);
    let act = |activation| one(Op::Act { activation }, 1, &[], &input).data().to_vec();
    assert_eq!(act(Activation::Relu), [0.0, 0.0, 0.0, 2.0, 7.0]);
    assert_eq!(act(Activation::Relu6), [0.0, 0.0, 0.0, 2.0, 6.0]);
    // -1.5 · 1.5 / 6 and 2 · 5 / 6; above 3 the identity.
    assert_eq!(act(Activation::HardSwish), [0.0, -0.375, 0.0, 10.0 / 6.0, 7.0]);
}

#[test]
fn padding_never_wins_a_maximum_and_never_counts_in_a_mean() {
    // -1 -2 -3     windows of 3x3 around every pixel, padding 1
    // -4 -5 -6
    let mut input = counting(&[1, 1, 2, 3]);
    input.data_mut().iter_mut().for_each(|x| *x = -*x);
    let window = Pool::new(3, 1, 1);
    assert_eq!(one(Op::MaxPool(window), 1, &[], &input).data(), [-1.0, -1.0, -2.0, -1.0, -1.0, -2.0]);
    assert_eq!(one(Op::AvgPool(window), 1, &[], &input).data(), [-3.0, -3.5, -4.0, -3.0, -3.5, -4.0]);
}

#[test]
fn strided_pools_by_hand() {
    let input = counting(&[1, 2, 3, 4]);
    // Rows 0-1 only (the third row is left over), columns 0-1 and 2-3.
    assert_eq!(one(Op::MaxPool(Pool::new(2, 2, 0)), 1, &[], &input).data(), [6.0, 8.0, 18.0, 20.0]);
    assert_eq!(one(Op::AvgPool(Pool::new(2, 2, 0)), 1, &[], &input).data(), [3.5, 5.5, 15.5, 17.5]);
    // Kernel 2, padding 1: the first window of an axis holds one pixel, so does the last of the columns.
    let padded = one(Op::AvgPool(Pool::new(2, 2, 1)), 1, &[], &input);
    assert_eq!(padded.shape(), [1, 2, 2, 3]);
    assert_eq!(padded.data()[..6], [1.0, 2.5, 4.0, 7.0, 8.5, 10.0]);
}

#[test]
fn concat_add_global_mean_identity_and_zero_by_hand() {
    let input = counting(&[2, 1, 1, 2]);
    assert_eq!(one(Op::Concat, 2, &[], &input), tensor(&[2, 2, 1, 2], &[1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]));
    assert_eq!(one(Op::Add, 3, &[], &input).data(), [3.0, 6.0, 9.0, 12.0]);
    assert_eq!(one(Op::GlobalAvgPool, 1, &[], &input), tensor(&[2, 1, 1, 1], &[1.5, 3.5]));
    assert_eq!(one(Op::Identity, 1, &[], &input), input);
    assert_eq!(one(Op::Zero, 1, &[], &input), Tensor::zeros(input.shape()));
}

/// input → twice (conv) → sum(twice, input) is the output; `unused` reads `twice`.
fn diamond() -> (Network, Weights) {
    let mut network = Network::new(Shape::chw(1, 1, 2));
    let twice = network.add("twice", Op::Conv(Conv2d::new(1, 1, 1)), &[network.input()]).unwrap();
    let sum = network.add("sum", Op::Add, &[twice, network.input()]).unwrap();
    network.add("unused", Op::Concat, &[sum, twice]).unwrap();
    network.set_output(sum).unwrap();
    let mut weights = Weights::new();
    weights.insert("twice.weight", tensor(&[1, 1, 1, 1], &[2.0]));
    (network, weights)
}

#[test]
fn all_outputs_and_the_output() {
    let (network, weights) = diamond();
    let input = counting(&[1, 1, 1, 2]);
    let all = run_all(&network, &weights, &input).unwrap();
    let data: Vec<&[f64]> = all.iter().map(Tensor::data).collect();
    assert_eq!(data, [&[1.0, 2.0][..], &[2.0, 4.0], &[3.0, 6.0], &[3.0, 6.0, 2.0, 4.0]]);
    assert_eq!(run(&network, &weights, &input).unwrap(), all[2]);
    let mut empty = Network::new(Shape::chw(1, 1, 2));
    assert_eq!(run(&empty, &Weights::new(), &input).unwrap(), input);
    empty.add("late", Op::Zero, &[empty.input()]).unwrap();
    assert_eq!(run(&empty, &Weights::new(), &input).unwrap(), input);
}

#[test]
fn tensors_are_kept_until_their_last_reader() {
    let (network, _) = diamond();
    let id = |n| Some(NodeId(n));
    assert_eq!(last_readers(&network), [id(2), id(2), id(2), None]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (network, weights) = diamond();
    let refused = |weights: &Weights, input: &Tensor| run(&network, weights, input).unwrap_err().to_string();
    let input = counting(&[1, 1, 1, 2]);
    assert_eq!(refused(&Weights::new(), &input), "tensor `twice.weight` is missing");
    let message = "expected an input [n, c, h, w] of 1x1x2 images, got shape [1, 1, 2, 1]";
    assert_eq!(refused(&weights, &counting(&[1, 1, 2, 1])), message);
    assert!(matches!(run(&network, &weights, &counting(&[1, 1, 2])), Err(RunError::Input { .. })));
    assert_eq!(refused(&weights, &tensor(&[1, 1, 1, 2], &[0.0, f64::NAN])), "element 1 of the input is not finite");
    let norm = network_of(Op::BatchNorm { channels: 1 }, Shape::chw(1, 1, 1), 1);
    let mut weights = Weights::arbitrary(&norm, 0);
    weights.insert("op.running_var", tensor(&[1], &[-1e-6]));
    let error = run(&norm, &weights, &counting(&[1, 1, 1, 1])).unwrap_err();
    assert_eq!(error.to_string(), "tensor `op.running_var`: the variance of channel 0 is negative");
    let empty = tensor(&[0, 1, 1, 2], &[]);
    assert_eq!(run(&network, &Weights::arbitrary(&network, 0), &empty).unwrap(), empty);
}
