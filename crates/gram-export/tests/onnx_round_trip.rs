//! Properties of ONNX files: what is written is read back, and computes what the trained network computes.

mod common;

use gram_export::{DEFAULT_TOLERANCE, OnnxMetadata, check_onnx, from_onnx, to_onnx};
use gram_ir::strategies::arb_architecture;
use gram_ir::{Network, Shape, Tensor, Weights, preset};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

fn images(network: &Network, n: usize, seed: u64) -> Tensor {
    let shape = network.input_shape();
    Tensor::arbitrary(&[n, shape.c, shape.h, shape.w], seed)
}

/// R1 the same arguments give the same bytes; R2 the file, run by the reference executor, computes what the network computes unfolded;
/// R3 a network that is read back and written again gives the same file.
fn check(network: &Network, seed: u64) -> Result<(), TestCaseError> {
    let weights = Weights::arbitrary(network, seed);
    let mut meta = OnnxMetadata::new("property");
    meta.set("seed", seed.to_string());
    let bytes = to_onnx(network, &weights, &meta).unwrap();
    prop_assert_eq!(&bytes, &to_onnx(network, &weights, &meta).unwrap()); // R1
    let report = check_onnx(&bytes, network, &weights, &images(network, 2, seed), 1e-5);
    prop_assert!(report.is_ok(), "R2: {}", report.unwrap_err());
    let back = from_onnx(&bytes).unwrap();
    prop_assert_eq!(&back.metadata, &meta);
    prop_assert_eq!(bytes, to_onnx(&back.network, &back.weights, &meta).unwrap()); // R3
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn networks_of_all_operators_survive(seed in any::<u64>(), n_nodes in 0..24usize) {
        check(&common::random_network(seed, n_nodes), seed)?;
    }

    #[test]
    fn architectures_survive(architecture in arb_architecture(), seed in any::<u64>()) {
        if let Ok(network) = architecture.lower() {
            check(&network, seed)?;
        }
    }

    /// R4 a damaged file is refused or read, never a panic, and memory stays bounded.
    #[test]
    fn damaged_files_do_not_panic(seed in any::<u64>(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let network = common::random_network(seed % 64, 10);
        let weights = Weights::arbitrary(&network, seed);
        let mut bytes = to_onnx(&network, &weights, &OnnxMetadata::new("damaged")).unwrap();
        for (index, byte) in damage {
            let position = index.index(bytes.len());
            bytes[position] = byte;
        }
        let _ = from_onnx(&bytes);
        let _ = from_onnx(&bytes[..bytes.len() / 2]);
    }
}

/// The file of a preset has as many f32 weights as the preset costs after folding.
#[test]
fn presets_are_exported_with_their_deployed_params() {
    for (name, side) in [("swiftnet-vww", 64), ("shrinkcnn-a", 32), ("mobilenet-v2-0.35", 32)] {
        let network = preset(name, Some(Shape::chw(3, side, side)), Some(10)).unwrap().lower().unwrap();
        let weights = Weights::arbitrary(&network, 1);
        let bytes = to_onnx(&network, &weights, &OnnxMetadata::new(name)).unwrap();
        assert_eq!(from_onnx(&bytes).unwrap().network.params(), network.cost().deployed_params, "{name}");
        let report = check_onnx(&bytes, &network, &weights, &images(&network, 1, 2), DEFAULT_TOLERANCE).unwrap();
        assert_eq!(report.n_argmax_equal, 1);
    }
}

/// The random networks above would prove little if an operator never occurred in them.
#[test]
fn random_networks_have_every_operator() {
    let mut files = Vec::new();
    for seed in 0..60 {
        let network = common::random_network(seed, 24);
        files.extend(to_onnx(&network, &Weights::arbitrary(&network, seed), &OnnxMetadata::new("all")).unwrap());
    }
    let operators = [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "HardSwish",
        "MaxPool",
        "Relu",
        "Reshape",
        "Sum",
    ];
    for operator in operators {
        // Field 4 of a node, its length, the name.
        let field = [&[0x22, operator.len() as u8], operator.as_bytes()].concat();
        assert!(files.windows(field.len()).any(|window| window == field), "{operator}");
    }
}

#[test]
fn a_network_that_gives_its_input_is_exported() {
    let network = Network::new(Shape::chw(2, 3, 4));
    let bytes = to_onnx(&network, &Weights::new(), &OnnxMetadata::new("nothing")).unwrap();
    let report = check_onnx(&bytes, &network, &Weights::new(), &images(&network, 2, 0), 0.0).unwrap();
    assert_eq!(report.n_argmax_equal, 2);
}
