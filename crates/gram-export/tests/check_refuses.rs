//! The check of an exported file refuses what the trained network does not compute.

use gram_export::{DEFAULT_TOLERANCE, ExportError, OnnxMetadata, check_onnx, from_onnx, to_onnx};
use gram_ir::{Activation, Conv2d, Network, Op, Shape, Tensor, TensorError, Weights};

/// Convolutions with 4 in and 4 out channels, so that a transposed weight still fits.
fn network() -> Network {
    let mut network = Network::new(Shape::chw(4, 6, 6));
    let conv = network.add("conv", Op::Conv(Conv2d::new(4, 4, 3)), &[network.input()]).unwrap();
    let norm = network.add("norm", Op::BatchNorm { channels: 4 }, &[conv]).unwrap();
    let act = network.add("act", Op::Act { activation: Activation::HardSwish }, &[norm]).unwrap();
    let point = network.add("point", Op::Conv(Conv2d::new(4, 4, 1)), &[act]).unwrap();
    let pool = network.add("pool", Op::GlobalAvgPool, &[point]).unwrap();
    let linear = network.add("classifier", Op::Linear { c_in: 4, c_out: 4, bias: true }, &[pool]).unwrap();
    network.set_output(linear).unwrap();
    network
}

fn images() -> Tensor {
    Tensor::arbitrary(&[8, 4, 6, 6], 3)
}

fn exported() -> (Network, Weights, Vec<u8>) {
    let network = network();
    let weights = Weights::arbitrary(&network, 5);
    let bytes = to_onnx(&network, &weights, &OnnxMetadata::new("check")).unwrap();
    (network, weights, bytes)
}

/// The file with one of its tensors changed.
fn tampered(bytes: &[u8], name: &str, change: impl Fn(&mut Tensor)) -> Vec<u8> {
    let mut file = from_onnx(bytes).unwrap();
    let mut tensor = file.weights.remove(name).unwrap();
    change(&mut tensor);
    file.weights.insert(name, tensor);
    to_onnx(&file.network, &file.weights, &file.metadata).unwrap()
}

/// Swaps the first two axes, `[c_out, c_in, …]`, of a tensor with four channels in and out.
fn transpose(tensor: &mut Tensor) {
    let old = tensor.data().to_vec();
    let taps = old.len() / 16;
    for (i, x) in tensor.data_mut().iter_mut().enumerate() {
        let (row, column, tap) = (i / taps / 4, i / taps % 4, i % taps);
        *x = old[(column * 4 + row) * taps + tap];
    }
}

#[track_caller]
fn assert_differs(bytes: &[u8]) {
    let (network, weights, _) = exported();
    match check_onnx(bytes, &network, &weights, &images(), DEFAULT_TOLERANCE) {
        Err(ExportError::Differs { report, .. }) => {
            assert!(report.max_relative_difference > DEFAULT_TOLERANCE, "{report:?}");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn the_right_file_passes() {
    let (network, weights, bytes) = exported();
    let report = check_onnx(&bytes, &network, &weights, &images(), DEFAULT_TOLERANCE).unwrap();
    assert_eq!((report.n_images, report.n_argmax_equal), (8, 8));
    assert!(report.max_relative_difference < 1e-6, "{report:?}");
}

#[test]
fn transposed_weights_are_refused() {
    let (_, _, bytes) = exported();
    for name in ["conv.weight", "point.weight", "classifier.weight"] {
        assert_differs(&tampered(&bytes, name, transpose));
    }
}

#[test]
fn a_single_wrong_number_is_refused() {
    let (_, _, bytes) = exported();
    for name in ["conv.bias", "point.weight", "classifier.weight", "classifier.bias"] {
        assert_differs(&tampered(&bytes, name, |tensor| tensor.data_mut()[0] += 0.01));
    }
}

#[test]
fn a_forgotten_norm_is_refused() {
    let (_, weights, _) = exported();
    let mut plain = network();
    // The same graph without its norm, with the unfolded weights.
    let mut unfolded = Network::new(plain.input_shape());
    for (_, node) in plain.iter().skip(1) {
        let op = if matches!(node.op, Op::BatchNorm { .. }) { Op::Identity } else { node.op };
        unfolded.add(&node.name, op, &node.inputs).unwrap();
    }
    unfolded.set_output(plain.output()).unwrap();
    plain = unfolded;
    let mut kept = Weights::new();
    for spec in plain.tensors() {
        kept.insert(spec.name.clone(), weights.get(&spec.name).unwrap().clone());
    }
    assert_differs(&to_onnx(&plain, &kept, &OnnxMetadata::new("no norm")).unwrap());
}

#[test]
fn another_class_is_refused_even_if_outputs_are_close() {
    let mut network = Network::new(Shape::chw(1, 1, 1));
    let linear = network.add("fc", Op::Linear { c_in: 1, c_out: 2, bias: true }, &[network.input()]).unwrap();
    network.set_output(linear).unwrap();
    let weights = |margin: f64| {
        let mut weights = Weights::new();
        weights.insert("fc.weight", Tensor::zeros(&[2, 1]));
        weights.insert("fc.bias", Tensor::new(vec![2], vec![1.0, 1.0 + margin]).unwrap());
        weights
    };
    let bytes = to_onnx(&network, &weights(3e-5), &OnnxMetadata::new("close")).unwrap();
    let image = Tensor::zeros(&[1, 1, 1, 1]);
    let error = check_onnx(&bytes, &network, &weights(-3e-5), &image, DEFAULT_TOLERANCE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the exported model differs from the trained one: by up to 6.00e-5 of the largest output (limit 1e-4), \
         same class for 0 of 1 images"
    );
}

#[test]
fn other_shapes_no_images_and_wrong_weights_are_refused() {
    let (network, weights, bytes) = exported();
    let check = |bytes: &[u8], weights: &Weights, images: &Tensor| {
        check_onnx(bytes, &network, weights, images, DEFAULT_TOLERANCE).unwrap_err()
    };
    assert_eq!(check(&bytes, &weights, &Tensor::zeros(&[0, 4, 6, 6])), ExportError::NoImages);
    assert!(matches!(check(&bytes, &weights, &Tensor::zeros(&[1, 4, 6, 5])), ExportError::Run(_)));
    assert!(matches!(check(&bytes, &Weights::new(), &images()), ExportError::Run(_)));
    assert!(matches!(check(b"PK\x03\x04 a zip", &weights, &images()), ExportError::Read(_)));
    let mut short = Network::new(network.input_shape());
    let pool = short.add("pool", Op::GlobalAvgPool, &[short.input()]).unwrap();
    let linear = short.add("fc", Op::Linear { c_in: 4, c_out: 3, bias: false }, &[pool]).unwrap();
    short.set_output(linear).unwrap();
    let other = to_onnx(&short, &Weights::arbitrary(&short, 0), &OnnxMetadata::new("short")).unwrap();
    assert_eq!(
        check(&other, &weights, &images()).to_string(),
        "the exported model maps 4x6x6 to 3x1x1, the trained one 4x6x6 to 4x1x1"
    );
}

#[test]
fn weights_that_do_not_fit_are_not_exported() {
    let network = network();
    let mut weights = Weights::arbitrary(&network, 1);
    let meta = OnnxMetadata::new("refused");
    weights.insert("classifier.bias", Tensor::new(vec![4], vec![1e300; 4]).unwrap());
    let message = to_onnx(&network, &weights, &meta).unwrap_err().to_string();
    assert_eq!(message, "tensor `classifier.bias`: element 0 is 1e300, beyond the range of f32");
    weights.remove("classifier.bias");
    let missing = TensorError::Missing { name: "classifier.bias".into() };
    assert_eq!(to_onnx(&network, &weights, &meta), Err(ExportError::Weights(missing)));
}
