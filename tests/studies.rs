//! Whole studies on the built-in digits: deterministic, resumable, within limits; models that load, export and predict.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{gram, json, refused, run, text};
use gram_search::{Outcome, Record, read_journal};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMITS: [&str; 4] = ["--max-macs", "250k", "--max-params", "6k"];

/// A study that takes seconds.
fn small<'a>(dir: &'a Path, seed: &'a str) -> Vec<&'a str> {
    let study = [
        "search",
        "--data",
        "optdigits",
        "--seed",
        seed,
        "--children",
        "12",
        "--set",
        "search.children_per_round=4",
        "--set",
        "search.finalists=2",
        "--set",
        "proxy.images_per_class=20",
        "--set",
        "proxy.validation_images_per_class=10",
        "--set",
        "proxy.train.epochs=2",
        "--set",
        "final.epochs=3",
        "-o",
    ];
    study.into_iter().chain([text(dir)]).chain(LIMITS).collect()
}

/// A study in a folder of its own, and its summary as a later run without any training would print it.
fn study_in(folder: &TempDir, name: &str, more: &[&str]) -> (PathBuf, Value) {
    let dir = folder.path().join(name);
    let mut summary = json(&[small(&dir, "3").as_slice(), more].concat());
    let rate = std::mem::take(&mut summary["children_per_hour"]);
    assert!(rate.as_f64().is_some_and(|rate| rate > 0.0), "{rate}");
    (dir, summary)
}

fn journal(dir: &Path) -> String {
    fs::read_to_string(dir.join("journal.jsonl")).unwrap()
}

#[test]
fn a_study_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, summary) = study_in(&folder, "two-jobs", &["--jobs", "2"]);

    // Limits are hard, children are distinct.
    assert_eq!(summary["n_children"], json!(12));
    assert!(summary["macs"].as_u64().unwrap() <= 250_000 && summary["params"].as_u64().unwrap() <= 6_000);
    let records = read_journal(&dir.join("journal.jsonl")).unwrap();
    let children: Vec<_> =
        records.iter().filter_map(|r| if let Record::Child(c) = r { Some(c) } else { None }).collect();
    assert!(children.iter().all(|child| child.macs <= 250_000 && child.params <= 6_000));
    let keys: std::collections::BTreeSet<_> = children.iter().map(|child| child.key).collect();
    assert_eq!((children.len(), keys.len()), (12, 12));

    // One job, and the same seed, give the same journal and the same weights.
    let (other, again) = study_in(&folder, "one-job", &["--jobs", "1"]);
    assert_eq!(journal(&dir), journal(&other));
    assert_eq!(summary["weights_digest"], again["weights_digest"]);
    let metrics = |dir: &Path| fs::read_to_string(dir.join("best/metrics.json")).unwrap();
    assert_eq!(metrics(&dir), metrics(&other));
    let onnx = |dir: &Path| fs::read(dir.join("best/model.onnx")).unwrap();
    assert!(onnx(&dir) == onnx(&other));

    // The same command on a finished study says the same and trains nothing; no speed is made up for that.
    let finished = json(&[small(&dir, "3").as_slice(), &["--jobs", "2"]].concat());
    assert_eq!(finished, summary);
    assert_eq!(finished["children_per_hour"], Value::Null);

    // Another configuration does not go on in the same folder.
    let stderr = refused(&[small(&dir, "3").as_slice(), &["--set", "proxy.train.epochs=3"]].concat(), 2);
    assert!(stderr.contains("another configuration"), "{stderr}");
    let stderr = refused(&[small(&dir, "3").as_slice(), &["--set", "final.epochs=4"]].concat(), 2);
    assert!(stderr.contains("another model"), "{stderr}");

    notices_damage(&dir, &summary);
    resumes_after_a_cut(&folder, &dir);
    prunes_without_training(&dir);
    model_is_usable(&folder, &dir);
}

/// Damage in what a finished study left is repaired, or refused with the file's name; it is never reported as a result.
fn notices_damage(dir: &Path, summary: &Value) {
    let best = dir.join("best");
    for file in ["model.onnx", "model.safetensors", "architecture.json"] {
        let whole = fs::read(best.join(file)).unwrap();
        fs::write(best.join(file), &whole[..whole.len() / 2]).unwrap();
        assert_eq!(&json(&small(dir, "3")), summary, "{file}");
        assert!(fs::read(best.join(file)).unwrap() == whole, "{file} is repaired");
    }
    for file in ["best/metrics.json", "finalists.json"] {
        let whole = fs::read_to_string(dir.join(file)).unwrap();
        fs::write(dir.join(file), whole.replacen("\"validation_top1\": 0.", "\"validation_top1\": 0.9", 1)).unwrap();
        let stderr = refused(&small(dir, "3"), 4);
        assert!(stderr.contains(Path::new(file).file_name().unwrap().to_str().unwrap()), "{stderr}");
        fs::write(dir.join(file), whole).unwrap();
    }
    assert_eq!(&json(&small(dir, "3")), summary);
}

/// A journal cut in the middle of a line, and later files gone, as a kill leaves them.
fn resumes_after_a_cut(folder: &TempDir, finished: &Path) {
    let dir = folder.path().join("cut");
    let whole = journal(finished);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("journal.jsonl"), &whole[..whole.len() / 2]).unwrap();
    run(&small(&dir, "3"));
    assert_eq!(journal(&dir), whole);
    let weights = |dir: &Path| fs::read(dir.join("best/model.safetensors")).unwrap();
    assert!(weights(&dir) == weights(finished));

    // A journal that was changed is no journal.
    let changed = whole.replacen("\"seq\":3", "\"seq\":4", 1);
    assert_ne!(changed, whole);
    fs::write(dir.join("journal.jsonl"), changed).unwrap();
    assert!(refused(&small(&dir, "3"), 4).contains("journal.jsonl"));
}

fn prunes_without_training(dir: &Path) {
    let file = dir.join("pruned.json");
    let pruned = json(&["prune", text(dir), "--max-macs", "200k", "--max-params", "5k", "-o", text(&file)]);
    assert!(pruned["best"]["macs"].as_u64().unwrap() <= 200_000 && pruned["best"]["params"].as_u64().unwrap() <= 5_000);
    let cost = json(&["cost", text(&file)]);
    assert_eq!(cost["macs"], pruned["best"]["macs"]);
    assert!(refused(&["prune", text(dir), "--max-macs", "1k"], 3).contains("smallest"));
}

fn model_is_usable(folder: &TempDir, dir: &Path) {
    let best = dir.join("best");
    let metrics: Value = serde_json::from_str(&fs::read_to_string(best.join("metrics.json")).unwrap()).unwrap();
    for (split, field) in [("validation", "validation_top1"), ("test", "test_top1")] {
        let found = json(&["eval", text(&best), "--data", "optdigits", "--split", split]);
        assert_eq!(found["top1"], metrics[field], "{split}");
    }
    for format in ["onnx", "safetensors", "dot", "svg", "text", "json"] {
        let file = folder.path().join(format!("model.{format}"));
        run(&["export", text(&best), "--format", format, "-o", text(&file)]);
        assert!(fs::metadata(&file).unwrap().len() > 100, "{format}");
    }
    assert!(fs::read(folder.path().join("model.onnx")).unwrap() == fs::read(best.join("model.onnx")).unwrap());

    // A study's folder stands for its winner.
    run(&["eval", text(dir), "--data", "optdigits"]);

    // Damaged weights are refused, and nothing is exported from them.
    let damaged = folder.path().join("damaged");
    fs::create_dir_all(&damaged).unwrap();
    for file in ["architecture.json", "preprocessing.json", "model.safetensors"] {
        fs::copy(best.join(file), damaged.join(file)).unwrap();
    }
    let weights = fs::read(damaged.join("model.safetensors")).unwrap();
    fs::write(damaged.join("model.safetensors"), &weights[..weights.len() - 10]).unwrap();
    let target = folder.path().join("never.onnx");
    let stderr = refused(&["export", text(&damaged), "--format", "onnx", "-o", text(&target)], 4);
    assert!(stderr.contains("model.safetensors") && !target.exists(), "{stderr}");
}

#[test]
fn jobs_threads_and_memory_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (reference, summary) = study_in(&folder, "reference", &["--jobs", "1"]);
    // Room for two children beside the program and the images.
    let narrow = ["--jobs", "4", "--threads", "1", "--max-memory", "38M"];
    let ways: [&[&str]; 3] = [&narrow, &["--jobs", "3", "--threads", "2"], &["--jobs", "4", "--max-memory", "38M"]];
    for (i, way) in ways.into_iter().enumerate() {
        let (dir, other) = study_in(&folder, &i.to_string(), way);
        assert_eq!(journal(&dir), journal(&reference), "{way:?}");
        for digest in ["journal_digest", "weights_digest"] {
            assert_eq!(other[digest], summary[digest], "{way:?}");
        }
    }
}

#[test]
fn cores_are_shared_out_by_measurement_and_within_memory() {
    let folder = tempfile::tempdir().unwrap();
    let said = |name: &str, more: &[&str]| {
        let dir = folder.path().join(name);
        let output = gram(&[small(&dir, "3").as_slice(), more].concat()).output().unwrap();
        let rows = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && rows.contains("children per hour"), "{rows}{stderr}");
        stderr.lines().find(|line| line.contains("at a time on")).map(str::to_owned)
    };
    let measured = said("measured", &["--jobs", "2"]).unwrap();
    let ways = ["training 2 children at a time on 1 thread each", "training 1 child at a time on 2 threads each"];
    assert!(ways.contains(&measured.as_str()), "{measured}");
    let tight = said("tight", &["--jobs", "16", "--max-memory", "38M"]).unwrap();
    assert!(tight.ends_with("--max-memory leaves no room for more"), "{tight}");
    assert_eq!(said("given", &["--jobs", "2", "--threads", "1"]), None, "there is nothing to choose");
}

#[test]
fn a_child_that_does_not_fit_is_exit_code_3_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("study");
    let large = [small(&dir, "3").as_slice(), &["--set", "proxy.train.batch_size=1024"]].concat();
    fn with<'a>(command: &[&'a str], limit: &'a str) -> Vec<&'a str> {
        [command, &["--max-memory", limit]].concat()
    }
    let stderr = refused(&with(&large, "25M"), 3);
    assert!(stderr.contains("fewest MACs") && stderr.contains("--max-memory"), "{stderr}");
    assert!(!dir.exists(), "nothing was begun");
    // Just enough for the cheapest child; the others are larger.
    let takes = stderr.split_once("takes ").unwrap().1.split_once(" MiB").unwrap().0.parse::<f64>().unwrap();
    let stderr = refused(&with(&large, &format!("{}k", ((takes + 24.5) * 1024.0) as u64)), 3);
    assert!(stderr.contains("child ") && stderr.contains("it takes") && stderr.contains("--max-memory"), "{stderr}");
    let begun = journal(&dir);
    run(&with(&large, "1G"));
    assert!(journal(&dir).starts_with(&begun));
    let straight = folder.path().join("straight");
    let large = [small(&straight, "3").as_slice(), &["--set", "proxy.train.batch_size=1024"]].concat();
    run(&large);
    assert_eq!(journal(&dir), journal(&straight));
}

#[test]
fn a_final_training_that_diverges_does_not_cost_the_search() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("study");
    let diverging = [small(&dir, "3").as_slice(), &["--set", "final.learning_rate=1e30"]].concat();
    assert!(refused(&diverging, 2).contains("learning_rate"));
    let searched = journal(&dir);
    run(&small(&dir, "3"));
    assert_eq!(journal(&dir), searched);
    let pad = [small(&dir, "4").as_slice(), &["--set", "final.augmentation.pad=9"]].concat();
    assert!(refused(&pad, 2).contains("pad"), "noticed before anything is trained");
}

#[test]
fn children_that_diverge_are_results() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("study");
    let diverging = [small(&dir, "3").as_slice(), &["--set", "proxy.train.learning_rate=1e30"]].concat();
    assert!(refused(&diverging, 2).contains("diverged"));
    let records = read_journal(&dir.join("journal.jsonl")).unwrap();
    assert_eq!(records.iter().filter(|record| matches!(record, Record::Child(_))).count(), 12);
}

#[test]
fn random_search_is_a_strategy() {
    let folder = tempfile::tempdir().unwrap();
    let (_, summary) = study_in(&folder, "random", &["--strategy", "random"]);
    assert_eq!((&summary["strategy"], &summary["n_children"]), (&json!("random"), &json!(12)));
    assert!(summary["winner"].as_str().unwrap().starts_with("child"), "random search keeps no meta-graph to prune");
}

#[test]
fn an_interrupted_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("model");
    let arguments =
        ["train", "swiftnet-small-fixture", "--data", "optdigits", "--set", "train.epochs=4", "-o", text(&dir)];
    // A small architecture, as `gram export --format text` writes it.
    let architecture = folder.path().join("architecture.txt");
    fs::write(&architecture, ARCHITECTURE).unwrap();
    let arguments: Vec<&str> = arguments
        .into_iter()
        .map(|word| if word == "swiftnet-small-fixture" { text(&architecture) } else { word })
        .collect();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gram-for-tests")).args(&arguments).spawn().unwrap();
    // Kill it as soon as there is a checkpoint.
    let checkpoint = dir.join("checkpoint.safetensors");
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = json(&arguments);
    let straight = folder.path().join("straight");
    let mut arguments = arguments.clone();
    *arguments.last_mut().unwrap() = text(&straight);
    assert_eq!(json(&arguments), resumed, "an interruption changes nothing");
    assert_eq!(json(&arguments), resumed, "a finished training is not done again");
    let other: Vec<&str> =
        arguments.iter().map(|&word| if word == "train.epochs=4" { "train.epochs=5" } else { word }).collect();
    assert!(refused(&other, 2).contains("another model"), "a finished model is not overwritten");
}

const ARCHITECTURE: &str = "\
architecture small
input 1x8x8
classes 10
activation relu
stem conv3x3/8

stage channels=8 downsample=maxpool2
  n1 = sep3x3 n0
  n2 = conv1x1 n0 n1
  output project=16 residual activation
";

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_study_that_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("study");
    let mut child =
        std::process::Command::new(env!("CARGO_BIN_EXE_gram-for-tests")).args(small(&dir, "3")).spawn().unwrap();
    while !dir.join("results").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    run(&small(&dir, "3"));
    let (straight, _) = study_in(&folder, "straight", &[]);
    assert_eq!(journal(&dir), journal(&straight));
    gram(&["eval", text(&dir.join("best")), "--data", "optdigits"]).assert().success();
}

/// Children that are behind at a milestone are not trained to the end; neither jobs nor a kill in the middle of a round changes a byte.
#[test]
fn children_can_be_ranked_by_their_training_loss() {
    let folder = tempfile::tempdir().unwrap();
    let by_loss = ["--strategy", "random", "--set", "proxy.score=\"train-loss\""];
    let (dir, _) = study_in(&folder, "loss", &by_loss);
    let mut scores = Vec::new();
    for record in read_journal(&dir.join("journal.jsonl")).unwrap() {
        let Record::Child(child) = record else { continue };
        let Outcome::Scored { validation_top1, score: Some(score), metrics } = child.outcome else {
            panic!("{child:?}")
        };
        assert_eq!(score, (-metrics["train_loss"]).exp());
        scores.push((score, validation_top1, child.child));
    }
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert!(!scores.is_sorted_by(|a, b| a.1 >= b.1), "top-1 would have ranked them the same: {scores:?}");
    let finalists: Value = serde_json::from_str(&fs::read_to_string(dir.join("finalists.json")).unwrap()).unwrap();
    let mut origins: Vec<&str> = finalists["finalists"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finalist| finalist["origin"].as_str().unwrap())
        .collect();
    origins.sort_unstable();
    let mut best: Vec<String> = scores[..2].iter().map(|(.., child)| format!("child {child}")).collect();
    best.sort_unstable();
    assert_eq!(origins, best);
    let stderr = refused(&small(&dir, "3"), 2);
    assert!(stderr.contains("another configuration"), "{stderr}");
}

#[test]
fn children_that_are_behind_are_stopped() {
    const HALVING: [&str; 4] =
        ["--set", "proxy.train.epochs=4", "--set", "proxy.halving={epochs=[1,2],keep=0.5,keep_by=\"top1\"}"];
    let folder = tempfile::tempdir().unwrap();
    let (dir, _) = study_in(&folder, "one-job", &[&HALVING, &["--jobs", "1"][..]].concat());
    let (two, _) = study_in(&folder, "two-jobs", &[&HALVING, &["--jobs", "2", "--threads", "1"][..]].concat());
    assert_eq!(journal(&dir), journal(&two));
    let waiting = |dir: &Path| dir.join("ckpt/halving");
    assert!(!waiting(&dir).exists(), "nothing is left behind");

    // Three rounds of four: two are stopped behind epoch 1, one behind epoch 2.
    let records = read_journal(&dir.join("journal.jsonl")).unwrap();
    let children: Vec<_> =
        records.iter().filter_map(|r| if let Record::Child(c) = r { Some(c) } else { None }).collect();
    let epochs = |outcome: &Outcome| match outcome {
        Outcome::Stopped { epochs, .. } => *epochs,
        Outcome::Scored { .. } | Outcome::Diverged { .. } => 4,
    };
    for round in children.chunks(4) {
        let mut trained: Vec<_> = round.iter().map(|child| epochs(&child.outcome)).collect();
        trained.sort_unstable();
        assert_eq!(trained, [1, 1, 2, 4], "instead of 16 epochs");
        let best = round.iter().max_by(|a, b| {
            let top1 = |outcome: &Outcome| outcome.score().unwrap();
            top1(&a.outcome).total_cmp(&top1(&b.outcome))
        });
        assert_eq!(best.map(|child| epochs(&child.outcome)), Some(4));
    }

    // The child that went on all the way is the one of a training in one go: the same score in a study without halving.
    let (plain, _) = study_in(&folder, "plain", &[&HALVING[..2], &["--jobs", "2"]].concat());
    let plain = read_journal(&plain.join("journal.jsonl")).unwrap();
    let straight: Vec<_> = plain.iter().filter_map(|r| if let Record::Child(c) = r { Some(c) } else { None }).collect();
    let whole = children[..4].iter().find(|child| epochs(&child.outcome) == 4).unwrap();
    let same = straight.iter().find(|child| child.graph == whole.graph).unwrap();
    assert_eq!(whole.outcome, same.outcome);

    // Killed as soon as a child of the second round waits for the others.
    let killed = folder.path().join("killed");
    let arguments = [small(&killed, "3").as_slice(), &HALVING, &["--jobs", "1"]].concat();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gram-for-tests")).args(&arguments).spawn().unwrap();
    let n_files = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
    let in_second = || n_files(&killed.join("results")) >= 4 && n_files(&waiting(&killed)) > 0;
    while !in_second() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(journal(&dir).starts_with(journal(&killed).rsplit_once('\n').unwrap().0));
    assert_ne!(journal(&dir), journal(&killed));
    run(&arguments);
    assert_eq!(journal(&dir), journal(&killed));
    assert!(!waiting(&killed).exists());

    // Settings out of range, and other ones in the same folder, are refused with their names.
    let never = folder.path().join("never");
    for (set, field) in [
        ("proxy.halving={epochs=[2,1]}", "halving.epochs"),
        ("proxy.halving={epochs=[1,2]}", "halving.epochs"),
        ("proxy.halving={epochs=[1],keep=0.0}", "halving.keep"),
        ("proxy.halving={epochs=[1],keep=1.5}", "halving.keep"),
    ] {
        let stderr = refused(&[small(&never, "3").as_slice(), &["--set", set]].concat(), 2);
        assert!(stderr.contains(field) && !never.exists(), "{set}: {stderr}");
    }
    let stderr = refused(&[arguments.as_slice(), &["--set", "proxy.halving.keep=0.75"]].concat(), 2);
    assert!(stderr.contains("another configuration"), "{stderr}");
}

/// Children start from weights of earlier ones, also where others of their round stop them; neither jobs nor a kill change a byte, and weights
/// that are gone are missed by name.
#[test]
fn children_start_from_the_weights_of_earlier_ones() {
    const HEIRS: [&str; 6] = [
        "--set",
        "proxy.train.epochs=3",
        "--set",
        "proxy.halving={epochs=[1],keep=0.5}",
        "--set",
        "proxy.inherit=true",
    ];
    let folder = tempfile::tempdir().unwrap();
    let (dir, _) = study_in(&folder, "one-job", &[&HEIRS, &["--jobs", "1"][..]].concat());
    let (two, _) = study_in(&folder, "two-jobs", &[&HEIRS, &["--jobs", "2", "--threads", "1"][..]].concat());
    assert_eq!(journal(&dir), journal(&two));
    let kept = |dir: &Path| dir.join("ckpt/weights");
    assert!(!kept(&dir).exists() && !dir.join("ckpt/halving").exists(), "nothing is left behind");
    let records = read_journal(&dir.join("journal.jsonl")).unwrap();
    let children: Vec<_> =
        records.iter().filter_map(|r| if let Record::Child(c) = r { Some(c) } else { None }).collect();
    for child in &children {
        let source = child.source.map(|source| children[source - 1]);
        assert_eq!(source.is_some(), child.round > 0);
        assert!(source.is_none_or(|source| matches!(source.outcome, Outcome::Scored { .. })));
    }

    // Killed in the second round, with the weights of the first one.
    let killed = folder.path().join("killed");
    let arguments = [small(&killed, "3").as_slice(), &HEIRS, &["--jobs", "1"]].concat();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gram-for-tests")).args(&arguments).spawn().unwrap();
    let n_files = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
    // One file more than the first round leaves; its fourth may still be a temporary one.
    while n_files(&killed.join("results")) < 5 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(journal(&dir), journal(&killed));
    // Damaged or missing weights are no other start.
    let files: Vec<_> = fs::read_dir(kept(&killed)).unwrap().map(|entry| entry.unwrap().path()).collect();
    let whole: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for file in &files {
        fs::write(file, "half").unwrap();
    }
    assert!(refused(&arguments, 4).contains("starts from the weights of child"));
    for file in &files {
        fs::remove_file(file).unwrap();
    }
    let stderr = refused(&arguments, 4);
    assert!(stderr.contains("starts from the weights of child") && stderr.contains(text(&killed)), "{stderr}");
    for (file, bytes) in files.iter().zip(whole) {
        fs::write(file, bytes).unwrap();
    }
    run(&arguments);
    assert_eq!(journal(&dir), journal(&killed));
    assert!(!kept(&killed).exists());
    // A finished study needs none of them.
    run(&arguments);

    // From random weights it is another study.
    let stderr = refused(&[arguments.as_slice(), &["--set", "proxy.inherit=false"]].concat(), 2);
    assert!(stderr.contains("another configuration"), "{stderr}");
}

/// Peak bytes are a hard limit of searches and of pruning; what is left behind is scheduled.
#[test]
fn peak_bytes_are_limited() {
    const MOST: u64 = 12 << 10;
    let folder = tempfile::tempdir().unwrap();
    let (dir, _) = study_in(&folder, "peak", &["--jobs", "2", "--max-peak-bytes", "12k"]);
    let config = fs::read_to_string(dir.join("study.toml")).unwrap();
    assert!(config.contains("max_peak_bytes = 12288"), "{config}");
    let peak = |arch: &Path| json(&["schedule", text(arch)])["peak_bytes"].as_u64().unwrap();
    assert!(peak(&dir.join("best")) <= MOST);
    let finalists: Value = serde_json::from_str(&fs::read_to_string(dir.join("finalists.json")).unwrap()).unwrap();
    let file = folder.path().join("finalist.json");
    for finalist in finalists["finalists"].as_array().unwrap() {
        fs::write(&file, finalist["architecture"].to_string()).unwrap();
        assert!(peak(&file) <= MOST, "{finalist}");
    }
    let pruned = json(&["prune", text(&dir)]);
    let front = pruned["front"].as_array().unwrap();
    assert!(!front.is_empty() && front.iter().all(|line| line["peak_bytes"].as_u64().unwrap() <= MOST), "{pruned}");
    assert!(refused(&["prune", text(&dir), "--max-peak-bytes", "1k"], 3).contains("at most 1,024 peak bytes"));
    // As u8 the same networks take a quarter.
    json(&["prune", text(&dir), "--max-peak-bytes", "3k", "--peak-dtype", "u8"]);
    let out = folder.path().join("none");
    let tight = ["search", "--data", "optdigits", "-o", text(&out), "--max-peak-bytes", "2k"];
    assert!(refused(&tight, 3).contains("every child takes 2,304 peak bytes or more"));
}
