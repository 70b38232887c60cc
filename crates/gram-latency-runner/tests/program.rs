//! The runner's program on a job folder.

#![cfg(feature = "onnxruntime")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use gram_latency_runner::{Computed, Outputs};

fn runner(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gram-latency-runner")).args(arguments).output().unwrap()
}

#[track_caller]
fn ends_with(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
}

fn write_jobs(folder: &Path) {
    let job =
        |id: &str| serde_json::json!({"id": id, "model": "a.onnx", "input": [3, 8, 8], "profiled": false, "rounds": 1});
    let plan = serde_json::to_value(gram_latency_runner::Plan::default()).unwrap();
    let (reference, jobs) = (job("reference"), [job("a")]);
    let list = serde_json::json!(
        {"format_version": 2, "digest": "d", "plan": plan, "reference": reference, "jobs": jobs}
    );
    fs::write(folder.join("jobs.json"), list.to_string()).unwrap();
}

#[test]
fn wrong_arguments_folders_and_libraries_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    ends_with(&runner(&[]), 2, "usage:");
    ends_with(&runner(&["--what", path]), 2, "usage:");
    ends_with(&runner(&["--help"]), 0, "usage:");
    ends_with(&runner(&[path, "--library"]), 2, "usage:");
    ends_with(&runner(&[path, "--outputs", "a", "--outputs", "b"]), 2, "usage:");
    ends_with(&runner(&[path]), 4, "jobs.json");
    write_jobs(folder.path());
    ends_with(&runner(&[path, "--library", "/no/such/libonnxruntime.so"]), 2, "pip install onnxruntime");
    assert!(!folder.path().join("results.jsonl").exists());
}

#[test]
fn a_model_that_is_missing_or_none_is_named() {
    if gram_latency_runner::find_library(None).is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_jobs(folder.path());
    ends_with(&runner(&[folder.path().to_str().unwrap()]), 4, "a.onnx");
    fs::write(folder.path().join("a.onnx"), "no model").unwrap();
    ends_with(&runner(&[folder.path().to_str().unwrap()]), 5, "the engine refuses the model");
    // A model that is refused has no output, which is one.
    let outputs = folder.path().join("outputs.json");
    let arguments = [folder.path().to_str().unwrap(), "--outputs", outputs.to_str().unwrap()];
    ends_with(&runner(&arguments), 0, "");
    let outputs = Outputs::read(&outputs).unwrap().outputs;
    assert!(outputs.len() == 2 && outputs.iter().all(|output| matches!(output.computed, Computed::Refused(_))));
    assert_eq!(fs::read_to_string(folder.path().join("results.jsonl")).unwrap().lines().count(), 1);
}
