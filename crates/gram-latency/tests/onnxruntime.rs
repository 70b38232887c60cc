//! Measuring with the real engine: every kernel is found again under the name that it gets there.

#![cfg(feature = "onnxruntime")]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use gram_export::{OnnxMetadata, to_onnx};
use gram_ir::{Network, Op, Shape, Weights, space_preset};
use gram_latency::family::{Family, FamilyKind};
use gram_latency::profile::{Prepared, ProfileConfig};
use gram_latency::{MeasureError, engine_layout, measure_here};
use gram_latency_runner::{Engine, Plan, Profiling, RunError};

#[test]
fn every_kernel_of_a_space_is_found_in_the_engines_profile() {
    let Some(engine) = support::onnxruntime() else { return };
    let layout = engine_layout(&engine).unwrap();
    let space = space_preset("swiftnet-small").unwrap();
    let kind = FamilyKind::Mixed(space);
    let family = Family { name: "small".into(), kind, input: Shape::chw(3, 16, 16), num_classes: 10 };
    // Accuracy does not matter here, so a busy machine is good enough.
    let plan = Plan { runs: 3, warmups: 0, max_drift: 1e3, max_spread: 1e3, pause_ms: 0, ..Plan::default() };
    let config = ProfileConfig {
        networks: 2,
        kernel_networks: 6,
        random_kernels: 30,
        kernel_rounds: 1,
        network_rounds: 1,
        plan,
        ..ProfileConfig::new(vec![family])
    };
    let prepared = Prepared::new(&config, layout).unwrap();
    let records = match measure_here(&engine, &prepared, None, &mut |_| ControlFlow::Continue(())) {
        Err(MeasureError::Run(RunError::Noisy { .. })) => return,
        records => records.unwrap(),
    };
    let file = prepared.device_file(engine.device(), &records).unwrap();
    let asked: Vec<&str> = prepared.jobs.jobs.iter().filter_map(|job| job.id.strip_prefix("kernel ")).collect();
    let found: Vec<String> = file.kernels.keys().map(ToString::to_string).collect();
    let missing: Vec<&&str> = asked.iter().filter(|kernel| !found.contains(&(**kernel).to_string())).collect();
    assert!(asked.len() > 60 && missing.is_empty(), "{missing:?}");
    assert_eq!(file.device.engine, "onnxruntime");
    assert!(file.device.engine_version.starts_with("1."), "{}", file.device);
    assert_eq!(file.refused.len(), 0);
}

#[test]
fn an_output_is_that_of_the_model_for_the_same_image_every_time() {
    let Some(engine) = support::onnxruntime() else { return };
    // A mean over each channel of the image: what comes out tells what went in.
    let mut network = Network::new(Shape::chw(3, 16, 16));
    let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()]).unwrap();
    network.set_output(pool).unwrap();
    let model = to_onnx(&network, &Weights::arbitrary(&network, 1), &OnnxMetadata::new("mean")).unwrap();
    let output = || {
        let mut session = engine.load(&model, [3, 16, 16], Profiling::Off).unwrap();
        let first = session.output().unwrap();
        session.run().unwrap();
        assert_eq!(session.output().unwrap(), first);
        first
    };
    let means = output();
    // Means of 256 numbers between -1 and 1: 0.15 is four standard deviations.
    assert!(means.len() == 3 && means.iter().all(|mean| mean.abs() < 0.15 && *mean != 0.0), "{means:?}");
    assert_eq!(output(), means);
}

#[test]
fn an_engine_refuses_what_is_no_model() {
    let Some(engine) = support::onnxruntime() else { return };
    let error = engine.load(b"no model", [3, 8, 8], Profiling::Off).err().unwrap();
    assert!(error.to_string().starts_with("the engine refuses the model"), "{error}");
    assert!(engine.optimized(b"no model").is_err());
    let missing = gram_latency_runner::OnnxRuntime::open(Some(Path::new("/no/such/library.so")), 1);
    assert!(missing.unwrap_err().to_string().contains("pip install onnxruntime"));
    assert!(fs::metadata("optimized.onnx").is_err(), "no file is left behind");
}
