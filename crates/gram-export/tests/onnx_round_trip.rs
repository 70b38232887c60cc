//! Properties of ONNX files: what is written is read back, and computes what the trained network computes.

mod common;

use gram_export::{OnnxMetadata, check_onnx, from_onnx, to_onnx};
use gram_ir::strategies::arb_architecture;
use gram_ir::{Network, Tensor, Weights};
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
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

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
