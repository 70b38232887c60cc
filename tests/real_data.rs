//! Small studies on real images of every format; skipped with a line where the data is not there.

mod common;

use std::fs;

use common::{json, real_data, run, text};
use serde_json::json;

/// A study of four children on a sliver of the data, to the end.
#[track_caller]
fn search_to_the_end(folder: &str, settings: &[&str]) -> Option<(tempfile::TempDir, serde_json::Value)> {
    let data = real_data(folder)?;
    let dir = tempfile::tempdir().unwrap();
    let study = dir.path().join("study");
    let fixed = [
        "search",
        "--data",
        text(&data),
        "--children",
        "4",
        "-o",
        text(&study),
        "--set",
        "search.children_per_round=2",
        "--set",
        "search.finalists=2",
        "--set",
        "proxy.train.epochs=1",
        "--set",
        "proxy.train.warmup_epochs=0",
        "--set",
        "final.epochs=2",
    ];
    let summary = json(&[&fixed, settings].concat());
    assert_eq!(summary["n_children"], json!(4));
    let best = study.join("best");
    assert!(fs::metadata(best.join("model.onnx")).unwrap().len() > 1000);
    let found = json(&["eval", text(&best), "--data", text(&data), "--split", "validation"]);
    assert_eq!(found["top1"], summary["validation_top1"], "the model that was left is the one that was measured");
    Some((dir, summary))
}

#[test]
fn fashion_mnist() {
    let sliver = [
        "--max-macs",
        "1M",
        "--max-params",
        "8k",
        "--set",
        "proxy.images_per_class=12",
        "--set",
        "proxy.validation_images_per_class=10",
        "--set",
        "data.train_per_class=60",
        "--set",
        "data.validation_per_class=20",
    ];
    let Some((_dir, summary)) = search_to_the_end("fashion-mnist", &sliver) else { return };
    assert!(summary["test_top1"].as_f64().unwrap() > 0.15, "better than chance: {summary}");
    assert_eq!(summary["n_test"], json!(10_000));
}

#[test]
fn cifar_10() {
    let sliver = [
        "--max-macs",
        "7M",
        "--max-params",
        "100k",
        "--set",
        "proxy.images_per_class=6",
        "--set",
        "proxy.validation_images_per_class=4",
        "--set",
        "data.train_per_class=12",
        "--set",
        "data.validation_per_class=10",
    ];
    let Some((_dir, summary)) = search_to_the_end("cifar-10-batches-bin", &sliver) else { return };
    assert_eq!(summary["n_test"], json!(1_000));
    assert!(summary["macs"].as_u64().unwrap() <= 7_000_000);
}

#[test]
fn cats_and_dogs() {
    let sliver = ["--max-macs", "3M", "--max-params", "150k"];
    let Some((dir, summary)) = search_to_the_end("cats-dogs", &sliver) else { return };
    assert_eq!(summary["n_test"], json!(50));
    let image = real_data("cats-dogs/val/dog/dog.5.jpg").unwrap();
    let best = dir.path().join("study/best");
    let found = json(&["predict", text(&best), text(&image)]);
    let classes: Vec<&str> =
        found[0]["classes"].as_array().unwrap().iter().filter_map(|c| c["class"].as_str()).collect();
    assert!(classes.len() == 2 && classes.contains(&"cat") && classes.contains(&"dog"), "{found}");
    assert!(run(&["predict", text(&best), text(&image)]).contains('%'));
}
