//! Teachers: `gram train --teacher`, and studies with a table `[teacher]`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{gram, json, refused, run, text};
use serde_json::{Value, json};

/// A network of one stage, whose nodes have so many channels.
fn architecture(folder: &Path, (side, classes): (usize, usize), channels: usize) -> PathBuf {
    let file = folder.join(format!("{side}-{classes}-{channels}.txt"));
    let text = format!(
        "architecture small\ninput 1x{side}x{side}\nclasses {classes}\nactivation relu\nstem conv3x3/8\n\n\
         stage channels={channels} downsample=maxpool2\n  n1 = sep3x3 n0\n  n2 = conv1x1 n0 n1\n  \
         output project=16 residual activation\n"
    );
    fs::write(&file, text).unwrap();
    file
}

const DIGITS: (usize, usize) = (8, 10);

fn train<'a>(architecture: &'a Path, output: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let command = ["train", text(architecture), "--data", "optdigits", "--set", "train.epochs=2", "-o", text(output)];
    [&command, more].concat()
}

/// 40 images of 8x8 pixels of two classes, as IDX files.
fn two_classes(folder: &Path) -> PathBuf {
    let dir = folder.join("two-classes");
    fs::create_dir_all(&dir).unwrap();
    let pixels: Vec<u8> = (0..40 * 64).map(|i| (i * 37 % 251) as u8).collect();
    let labels: Vec<u8> = (0..40).map(|i| i % 2).collect();
    let images = [&[0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 8, 0, 0, 0, 8], &pixels[..]].concat();
    fs::write(dir.join("train-images-idx3-ubyte"), images).unwrap();
    fs::write(dir.join("train-labels-idx1-ubyte"), [&[0, 0, 8, 1, 0, 0, 0, 40], &labels[..]].concat()).unwrap();
    dir
}

#[test]
fn networks_learn_from_trained_models() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (architecture(folder.path(), DIGITS, 4), architecture(folder.path(), DIGITS, 12));
    let (teacher, alone, taught) =
        (folder.path().join("teacher"), folder.path().join("alone"), folder.path().join("taught"));
    json(&train(&large, &teacher, &[]));
    let plain = json(&train(&small, &alone, &[]));
    let arguments = train(&small, &taught, &["--teacher", text(&teacher)]);
    let metrics = json(&arguments);
    assert_eq!(plain["macs"], metrics["macs"]);
    let weights = |metrics: &Value| metrics["digests"]["model.safetensors"].clone();
    assert_ne!(weights(&plain), weights(&metrics), "the teacher was listened to");
    assert_eq!(json(&arguments), metrics, "a finished training is not done again");

    // Mixed, cut and taught, killed in between: the same model.
    let all: &[&str] = &[
        "--set",
        "train.mixup=0.3",
        "--set",
        "train.augmentation.cutout=3",
        "--set",
        "train.distillation.temperature=4",
        "--teacher",
        text(&teacher),
    ];
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    let expected = json(&train(&small, &straight, all));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gram-for-tests"))
        .args(train(&small, &killed, all))
        .spawn()
        .unwrap();
    while !killed.join("checkpoint.safetensors").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(json(&train(&small, &killed, all)), expected, "an interruption changes nothing");

    // Another teacher makes another model, which does not take the place of this one.
    let other = train(&small, &taught, &["--teacher", text(&alone)]);
    assert!(refused(&other, 2).contains("another model"));
    run(&["eval", text(&taught), "--data", "optdigits"]);
}

#[test]
fn teachers_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (small, out) = (architecture(folder.path(), DIGITS, 4), folder.path().join("out"));
    let missing = folder.path().join("missing");
    let stderr = refused(&train(&small, &out, &["--teacher", text(&missing)]), 4);
    assert!(stderr.contains("missing") && stderr.contains("no such folder"), "{stderr}");
    let stderr = refused(&train(&small, &out, &["--set", "train.distillation.weight=0.3"]), 2);
    assert!(stderr.contains("--teacher MODELDIR"), "{stderr}");

    let (data, teacher) = (two_classes(folder.path()), folder.path().join("of-two-classes"));
    let file = architecture(folder.path(), (8, 2), 4);
    let of_two = ["train", text(&file), "--data", text(&data), "--set", "train.epochs=1", "-o", text(&teacher)];
    run(&of_two);
    let stderr = refused(&train(&small, &out, &["--teacher", text(&teacher)]), 2);
    assert!(stderr.contains("the teacher's classes are 0, 1; the data's are 0, 1, 2"), "{stderr}");

    let model = folder.path().join("model");
    run(&train(&small, &model, &[]));
    let sized = ["--set", "data.image_size=[12, 12]", "--teacher", text(&model)];
    let large = architecture(folder.path(), (12, 10), 4);
    let stderr = refused(&train(&large, &out, &sized), 2);
    assert!(stderr.contains("the teacher takes images of 1x8x8, these are 1x12x12"), "{stderr}");
    let stderr = refused(&train(&small, &out, &["--teacher", text(&model), "--set", "train.distillation.weight=2"]), 2);
    assert!(stderr.contains("distillation.weight is 2"), "{stderr}");
    fs::write(model.join("model.safetensors"), b"cut").unwrap();
    let stderr = refused(&train(&small, &out, &["--teacher", text(&model)]), 4);
    assert!(stderr.contains("model.safetensors"), "{stderr}");
    assert!(!out.join("metrics.json").exists());
}

/// A study that takes seconds.
fn study<'a>(dir: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let study = [
        "search",
        "--data",
        "optdigits",
        "--max-macs",
        "100k",
        "--children",
        "4",
        "--set",
        "search.children_per_round=4",
        "--set",
        "search.finalists=1",
        "--set",
        "proxy.images_per_class=10",
        "--set",
        "proxy.train.epochs=1",
        "--set",
        "final.epochs=2",
        "-o",
        text(dir),
    ];
    [&study, more].concat()
}

#[test]
fn winners_learn_from_larger_networks_of_their_study() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, taught, again] = ["plain", "taught", "again"].map(|name| folder.path().join(name));
    let alone = json(&study(&plain, &[]));
    assert_eq!(alone["teacher"], Value::Null);
    assert!(!plain.join("teacher").exists());

    let with: &[&str] = &["--set", "teacher.growth=3.0", "--set", "teacher.epochs=1"];
    let mut summary = json(&study(&taught, with));
    assert_eq!((&summary["winner"], &summary["macs"]), (&alone["winner"], &alone["macs"]), "the search is the same");
    assert_ne!(summary["weights_digest"], alone["weights_digest"]);
    let teacher = &summary["teacher"];
    let macs = teacher["macs"].as_u64().unwrap();
    assert!(macs > summary["macs"].as_u64().unwrap() && macs <= 300_000, "{macs}");
    assert_eq!((&teacher["epochs"], &teacher["test_top1"]), (&json!(1), &Value::Null), "the test split is not its own");
    run(&["eval", text(&taught.join("teacher")), "--data", "optdigits"]);

    // Run again, nothing is trained; without its winner, only that is.
    summary["children_per_hour"] = Value::Null;
    assert_eq!(json(&study(&taught, with)), summary);
    fs::remove_dir_all(taught.join("best")).unwrap();
    let before = fs::metadata(taught.join("teacher/model.safetensors")).unwrap().modified().unwrap();
    assert_eq!(json(&study(&taught, with)), summary);
    assert_eq!(fs::metadata(taught.join("teacher/model.safetensors")).unwrap().modified().unwrap(), before);
    // A study in another folder, and on one thread, ends with the same model.
    let other = json(&study(&again, &[with, &["--jobs", "1"]].concat()));
    assert_eq!(other["weights_digest"], summary["weights_digest"]);
    // Without the teacher the winner would be another model.
    assert!(refused(&study(&taught, &[]), 2).contains("another model"));
}

#[test]
fn studies_that_cannot_have_a_teacher_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("study");
    let refusals: [(&[&str], &str); 3] = [
        (&["--strategy", "random", "--set", "teacher.growth=4.0"], "strategy random keeps none"),
        (&["--set", "teacher.growth=0.5"], "teacher.growth is 0.5"),
        (&["--set", "final.distillation.weight=0.5"], "[teacher]"),
    ];
    for (more, reason) in refusals {
        let stderr = refused(&study(&dir, more), 2);
        assert!(stderr.contains(reason), "{stderr}");
    }
    gram(&["search", "--data", "optdigits", "-o", text(&dir), "--set", "teacher.growth=4.0"]).assert().code(2);
    assert!(!dir.exists());
}
