//! tract computes what onnxruntime does, on networks of the spaces and presets.

#![cfg(all(feature = "onnxruntime", feature = "tract"))]

mod support;

use gram_export::{OnnxMetadata, to_onnx};
use gram_ir::{Network, Shape, Weights, preset, space_preset};
use gram_latency::family::{Family, FamilyKind};
use gram_latency_runner::{Computed, Engine, Output, Profiling, Tract};

/// Largest difference beside the largest value.
const TOLERANCE: f64 = 1e-4;

#[test]
fn it_agrees_with_onnxruntime() {
    let Some(onnxruntime) = support::onnxruntime() else { return };
    let tract = Tract::open(1).unwrap();
    for (name, network) in networks() {
        let model = to_onnx(&network, &Weights::arbitrary(&network, 1), &OnnxMetadata::new(&name)).unwrap();
        let [ours, theirs] = [&tract as &dyn Engine, &onnxruntime].map(|engine| {
            let mut session = engine.load(&model, network.input_shape().into(), Profiling::Off).unwrap();
            assert!(session.run().unwrap() > 0.0);
            let values = session.output().unwrap();
            assert!(values.iter().any(|value| *value != 0.0), "{name}");
            Output { id: name.clone(), computed: Computed::Values(values) }
        });
        let difference = ours.difference(&theirs).unwrap_or(f64::INFINITY);
        println!("{name}: {difference:.1e}");
        assert!(difference < TOLERANCE, "{name}: {difference}");
    }
}

fn networks() -> Vec<(String, Network)> {
    let input = Shape::chw(3, 32, 32);
    let kinds = ["swiftnet-vww", "swiftnet-small"].map(|name| (name, FamilyKind::Mixed(space_preset(name).unwrap())));
    let families = kinds.into_iter().chain([("chain", FamilyKind::Chain)]);
    let drawn = families.flat_map(|(name, kind)| {
        let family = Family { name: name.into(), kind, input, num_classes: 10 };
        [0, 1].map(|index| (format!("{name} {index}"), family.network(5, index).unwrap()))
    });
    let presets = ["mobilenet-v2-0.25-32", "mobilenet-v3-small-minimalistic-0.25-32"];
    let presets = presets.map(|name| (name.to_owned(), preset(name, None, None).unwrap().lower().unwrap()));
    drawn.chain(presets).collect()
}
