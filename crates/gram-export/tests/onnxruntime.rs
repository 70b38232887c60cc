//! Exported files in the reference checker and in onnxruntime, through `python/check_onnx.py`.
//!
//! Runs if `GRAM_PYTHON` names a Python that has `onnx`, `onnxruntime` and `numpy`; with `GRAM_REQUIRE_ONNXRUNTIME=1` its absence is a
//! failure.

#![allow(clippy::print_stderr)] // a skipped test says why

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use gram_export::{OnnxMetadata, to_onnx, write_safetensors};
use gram_ir::strategies::arb_architecture;
use gram_ir::{Network, Shape, Tensor, Weights, preset, reference};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const BATCH: usize = 3;

/// A cell with every operator of NAS-Bench-201.
const NASBENCH201: &str =
    "nasbench201:|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|";

/// The Python to use; none: skip.
fn python() -> Option<String> {
    let required = std::env::var("GRAM_REQUIRE_ONNXRUNTIME").is_ok_and(|value| value == "1");
    let python = std::env::var("GRAM_PYTHON").ok().filter(|python| !python.is_empty());
    let has_packages = |python: &String| {
        Command::new(python)
            .args(["-c", "import onnx, onnxruntime, numpy"])
            .output()
            .is_ok_and(|out| out.status.success())
    };
    let found = python.clone().filter(has_packages);
    assert!(
        found.is_some() || !required,
        "GRAM_REQUIRE_ONNXRUNTIME is set, but GRAM_PYTHON = {python:?} is no Python with onnx, onnxruntime and numpy"
    );
    if found.is_none() {
        eprintln!("skipped: set GRAM_PYTHON to a Python with onnx, onnxruntime and numpy");
    }
    found
}

/// Writes `name.onnx` and `name.safetensors` with images and what the trained network gives for them.
fn write_case(folder: &Path, name: &str, network: &Network, seed: u64) -> [String; 2] {
    let weights = Weights::arbitrary(network, seed);
    let shape = network.input_shape();
    let images = Tensor::arbitrary(&[BATCH, shape.c, shape.h, shape.w], seed);
    // Engines get the images as f32, so the expected outputs must be of those.
    let data = images.to_f32().into_iter().map(f64::from).collect();
    let images = Tensor::new(images.shape().to_vec(), data).unwrap();
    let logits = reference::run(network, &weights, &images).unwrap();
    let mut cases = Weights::new();
    cases.insert("input", images);
    cases.insert("logits", logits);
    let mut meta = OnnxMetadata::new(name);
    meta.set_classes(&["a", "b"]);
    let paths = ["onnx", "safetensors"].map(|extension| folder.join(format!("{name}.{extension}")));
    fs::write(&paths[0], to_onnx(network, &weights, &meta).unwrap()).unwrap();
    fs::write(&paths[1], write_safetensors(&cases, &BTreeMap::new()).unwrap()).unwrap();
    paths.map(|path| path.into_os_string().into_string().unwrap())
}

fn run_script(python: &str, cases: &[[String; 2]]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/check_onnx.py");
    Command::new(python).arg(script).args(cases.as_flattened()).output().unwrap()
}

#[test]
fn engines_compute_what_the_trained_network_computes() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut cases: Vec<[String; 2]> = (0..60)
        .map(|seed| write_case(folder.path(), &format!("ops{seed}"), &common::random_network(seed, 24), seed))
        .collect();
    let mut runner = TestRunner::deterministic();
    for seed in 0..30 {
        let architecture = arb_architecture().new_tree(&mut runner).unwrap().current();
        if let Ok(network) = architecture.lower() {
            cases.push(write_case(folder.path(), &format!("arch{seed}"), &network, seed));
        }
    }
    for (seed, name) in ["swiftnet-vww", "shrinkcnn-a", "mobilenet-v2-0.35", NASBENCH201].into_iter().enumerate() {
        let network = preset(name, Some(Shape::chw(3, 64, 64)), Some(10)).unwrap().lower().unwrap();
        cases.push(write_case(folder.path(), &format!("preset{seed}"), &network, seed as u64));
    }
    let output = run_script(&python, &cases);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains(&format!("{0} of {0} models pass", cases.len())), "{out}");
}

#[test]
fn the_script_refuses_other_outputs() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let network = common::random_network(1, 8);
    let [model, _] = write_case(folder.path(), "one", &network, 1);
    let [_, other_cases] = write_case(folder.path(), "other", &network, 2);
    let output = run_script(&python, &[[model, other_cases]]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("outputs differ by") && out.contains("0 of 1 models pass"), "{out}");
}

#[test]
fn cases_may_be_json() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let network = common::random_network(3, 8);
    let [model, _] = write_case(folder.path(), "json", &network, 3);
    let shape = network.input_shape();
    let images = Tensor::zeros(&[1, shape.c, shape.h, shape.w]);
    let logits = reference::run(&network, &Weights::arbitrary(&network, 3), &images).unwrap();
    let input = vec![vec![vec![vec![0.0; shape.w]; shape.h]; shape.c]];
    let cases = folder.path().join("cases.json");
    fs::write(&cases, serde_json::json!({ "input": input, "logits": [logits.data()] }).to_string()).unwrap();
    let output = run_script(&python, &[[model, cases.into_os_string().into_string().unwrap()]]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
