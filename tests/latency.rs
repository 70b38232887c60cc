//! `gram latency`: device files, predictions, tables of latencies, and how they are refused; with onnxruntime, measuring too.

mod common;

use std::fs;
use std::path::Path;

use common::{gram, json, real_data, refused, run, text};
use gram_ir::{Shape, space_preset};
use gram_latency::family::{Family, FamilyKind, aligned_space, smaller_space};
use gram_latency::profile::{Prepared, ProfileConfig};
use gram_latency::{DeviceFile, FakeEngine, fit, measure_here};
use gram_latency_runner::{Engine, Plan};

/// A device file of a made-up device that knows small SwiftNets on 64x64 pixels.
fn device_file(folder: &Path, host: &str) -> DeviceFile {
    let space = smaller_space(&aligned_space(&space_preset("swiftnet-vww").unwrap(), 16), 8);
    let (kind, input) = (FamilyKind::Space(space), Shape::chw(3, 64, 64));
    device_file_of(Family { name: "small".into(), kind, input, num_classes: 2 }, folder, host)
}

fn device_file_of(family: Family, folder: &Path, host: &str) -> DeviceFile {
    let engine = FakeEngine::new(host, 1.0, 1);
    let config = ProfileConfig {
        networks: 10,
        kernel_networks: 0,
        random_kernels: 30,
        plan: Plan { runs: 3, warmups: 0, pause_ms: 0, ..Plan::default() },
        ..ProfileConfig::new(vec![family])
    };
    let prepared = Prepared::new(&config, engine.layout).unwrap();
    let records = measure_here(&engine, &prepared, None, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let mut file = prepared.device_file(engine.device(), &records).unwrap();
    file.fit = Some(fit(&file).unwrap());
    file.write(&folder.join("device.json")).unwrap();
    file
}

#[test]
fn a_device_file_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.json");
    device_file(folder.path(), "made-up");
    let predicted = json(&["latency", "predict", "swiftnet-vww", "--input", "3x64x64", "--device", text(&path)]);
    let number = |field: &str| predicted[field].as_f64().unwrap();
    let (low, ms, high) = (number("latency_ms_low"), number("latency_ms"), number("latency_ms_high"));
    assert!(0.0 < low && low < ms && ms < high && high < 2.0 * ms, "{predicted}");
    assert_eq!(predicted["device"]["host"], "made-up");
    let said = run(&["latency", "predict", "swiftnet-vww", "--input", "3x64x64", "--device", text(&path)]);
    assert!(said.contains("90 % interval") && said.contains("made-up"), "{said}");
    // Fitting anew changes nothing.
    let before = fs::read(&path).unwrap();
    let fitted = json(&["latency", "fit", text(&path)]);
    assert_eq!((fitted["networks"].as_u64(), fs::read(&path).unwrap() == before), (Some(10), true));
}

#[test]
fn device_files_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.json");
    let mut file = device_file(folder.path(), "made-up");
    let predict = |arch: &str, code| refused(&["latency", "predict", arch, "--device", text(&path)], code);
    // A 1x1 convolution of 22 channels stays in plain layout, of which the made-up device has nothing.
    let network = folder.path().join("plain.txt");
    fs::write(&network, "network plain\nn0 = input 22x8x8\nn1 = conv1x1/32 n0\noutput n1\n").unwrap();
    let said = predict(text(&network), 4);
    assert!(said.contains("`conv 22x8x8>32 k1 s1 p0`") && said.contains("gram latency profile --space"), "{said}");

    file.fit = None;
    file.write(&path).unwrap();
    assert!(predict("swiftnet-vww", 2).contains("gram latency fit"));
    file.networks.truncate(2);
    file.write(&path).unwrap();
    assert!(refused(&["latency", "fit", text(&path)], 4).contains("8 or more"));
    let text_form = fs::read_to_string(&path).unwrap();
    fs::write(&path, text_form.replacen("\"format_version\": 2", "\"format_version\": 9", 1)).unwrap();
    assert!(predict("swiftnet-vww", 4).contains("format version 9; this program reads version 2"));
    fs::write(&path, "{}").unwrap();
    assert!(predict("swiftnet-vww", 4).contains("device.json"));
    fs::remove_file(&path).unwrap();
    assert!(predict("swiftnet-vww", 4).contains("device.json"));
}

#[test]
fn without_an_engine_it_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("device.json");
    let missing = folder.path().join("libonnxruntime.so");
    let commands: [&[&str]; 2] =
        [&["latency", "profile", "-o", text(&output)], &["latency", "measure", "swiftnet-vww", "--input", "3x32x32"]];
    for command in commands {
        let said = refused(&[command, &["--library", text(&missing)]].concat(), 2);
        assert!(said.contains("pip install onnxruntime") && said.contains("ORT_DYLIB_PATH"), "{said}");
        fs::write(&missing, "this is no library").unwrap();
        let said = refused(&[command, &["--library", text(&missing)]].concat(), 2);
        assert!(said.contains("cannot be loaded") && said.contains("pip install onnxruntime"), "{said}");
        fs::remove_file(&missing).unwrap();
        // A search path without Python and no variable: nothing is found.
        let nothing = gram(command).env("PATH", folder.path()).env_remove("ORT_DYLIB_PATH").output().unwrap();
        assert_eq!(nothing.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&nothing.stderr).contains("no onnxruntime was found"));
    }
    assert!(!output.exists());
}

#[cfg(not(feature = "tract"))]
#[test]
fn an_engine_that_was_not_built_says_how_to_build_it() {
    let said = refused(&["latency", "measure", "swiftnet-vww", "--input", "3x32x32", "--engine", "tract"], 2);
    assert!(said.contains("`--features tract`"), "{said}");
}

#[cfg(feature = "tract")]
#[test]
fn tract_measures_whole_networks_only() {
    let measure = ["latency", "measure", "swiftnet-vww", "--input", "3x32x32", "--engine", "tract", "--runs", "3"];
    let measured = json(&measure);
    assert_eq!(measured["device"]["engine"], "tract");
    assert!(measured["latency_ms"].as_f64().unwrap() > 0.0, "{measured}");
    assert!(refused(&[&measure[..], &["--threads", "2"]].concat(), 2).contains("one thread, not on 2"));
    // A table of another engine is no table of this one.
    let folder = tempfile::tempdir().unwrap();
    device_file(folder.path(), "made-up");
    let path = folder.path().join("device.json");
    refused(&[&measure[..], &["--predict", text(&path)]].concat(), 4);
}

#[test]
fn without_times_of_kernels_there_is_no_table() {
    let folder = tempfile::tempdir().unwrap();
    device_file(folder.path(), "made-up");
    let (path, output) = (folder.path().join("device.json"), folder.path().join("new.json"));
    let commands: [&[&str]; 3] = [
        &["profile", "-o", text(&output)],
        &["adapt", "--device", text(&path), "-o", text(&output)],
        &["check", "--device", text(&path)],
    ];
    for command in commands {
        let said = refused(&[&["latency"], command, &["--engine", "tract"]].concat(), 2);
        assert!(said.contains("whole networks only"), "{said}");
    }
    assert!(!output.exists());
    let elsewhere = ["latency", "measure", "swiftnet-vww", "--engine", "tract", "--device", "ssh:pi@board"];
    assert!(refused(&elsewhere, 2).contains("onnxruntime only"));
}

#[test]
fn bad_arguments_are_refused() {
    for arguments in [
        &["latency", "profile", "--device", "phone", "-o", "x.json"][..],
        &["latency", "profile", "--device", "ssh:board", "-o", "x.json"],
        &["latency", "profile", "--device", "adb", "--runner", "no-such-file", "-o", "x.json"],
        &["latency", "profile", "--networks", "3", "-o", "x.json"],
        &["latency", "adapt", "-o", "x.json"],
        &["latency", "transfer", "--table", "fbnet", "--path", "x.csv", "--samples", "1"],
    ] {
        refused(arguments, 2);
    }
    refused(&["latency", "transfer", "--table", "fbnet", "--path", "no-such-table.csv"], 4);
}

#[test]
fn transfer_reports_every_device() {
    let Some(folder) = real_data("nas/fbnet") else { return };
    let report = json(&[
        "latency",
        "transfer",
        "--table",
        "fbnet",
        "--path",
        text(&folder),
        "--draws",
        "1",
        "--evaluate",
        "200",
    ]);
    assert_eq!(report["devices"].as_array().unwrap().len(), 22);
    assert!(report["mean_spearman"].as_f64() > report["mean_macs_spearman"].as_f64(), "{report}");
}

#[test]
fn a_search_keeps_its_limit_on_latency() {
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("device.json");
    let kind = FamilyKind::Space(space_preset("swiftnet-small").unwrap());
    let family = Family { name: "digits".into(), kind, input: Shape::chw(1, 8, 8), num_classes: 10 };
    device_file_of(family, folder.path(), "made-up");
    let study = |name: &str| folder.path().join(name);
    let quick = ["--set", "proxy.train.epochs=1", "--set", "final.epochs=1", "--set", "search.finalists=2"];
    let search = |output: &Path, max_ms: &str| {
        let limit = ["--max-latency-ms", max_ms, "--latency-device", text(&device), "-o", text(output)];
        let plain = ["search", "--data", "optdigits", "--children", "6", "--seed", "4"];
        [&plain[..], &quick[..], &limit[..]].concat().iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>()
    };
    let upper = |architecture: &Path| {
        let predicted = json(&["latency", "predict", text(architecture), "--device", text(&device)]);
        predicted["latency_ms_high"].as_f64().unwrap()
    };

    let free = search(&study("free"), "1000");
    json(&free.iter().map(String::as_str).collect::<Vec<_>>());
    let limit = 0.8 * upper(&study("free/best/architecture.json"));
    let bound = search(&study("bound"), &limit.to_string());
    let report = json(&bound.iter().map(String::as_str).collect::<Vec<_>>());
    let latency = &report["latency"];
    assert!(latency["high_ms"].as_f64().unwrap() <= limit && latency["measured_ms"].is_null(), "{report}");
    assert_eq!(latency["high_ms"].as_f64().unwrap(), upper(&study("bound/best/architecture.json")));

    let tight = search(&study("tight"), "0.000001");
    refused(&tight.iter().map(String::as_str).collect::<Vec<_>>(), 3);
    refused(&["search", "--data", "optdigits", "--max-latency-ms", "1", "-o", text(&study("none"))], 2);
}

/// Whether the command finds onnxruntime; with `GRAM_REQUIRE_ONNXRUNTIME=1` its absence is a failure.
fn has_onnxruntime() -> bool {
    let found = gram_latency_runner::find_library(None);
    let required = std::env::var("GRAM_REQUIRE_ONNXRUNTIME").is_ok_and(|value| value == "1");
    assert!(found.is_ok() || !required, "GRAM_REQUIRE_ONNXRUNTIME is set, but {found:?}");
    found.is_ok()
}

/// How a measuring command ended: a machine that is too busy says so, which is no failure of the command.
fn measured(arguments: &[&str]) -> bool {
    let output = gram(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let noisy = output.status.code() == Some(5) && said.contains("too noisy to measure");
    assert!(output.status.success() || noisy, "gram {}\n{said}", arguments.join(" "));
    output.status.success()
}

#[test]
fn this_machine_is_profiled_measured_and_adapted_to() {
    if !has_onnxruntime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [device, adapted] = ["device.json", "adapted.json"].map(|name| folder.path().join(name));
    let small =
        ["--space", "autoshrink", "--align", "16", "--input", "3x32x32", "--networks", "8", "--kernel-networks", "0"];
    if !measured(&[&["latency", "profile", "-o", text(&device)], &small[..]].concat()) {
        return;
    }
    assert!(!folder.path().join("device.json.journal").exists());
    let predicted = json(&["latency", "predict", "mobilenet-v2-0.5", "--input", "3x32x32", "--device", text(&device)]);
    assert!(predicted["latency_ms"].as_f64().unwrap() > 0.0);
    let model = folder.path().join("architecture.json");
    run(&["export", "swiftnet-vww", "--format", "json", "-o", text(&model)]);
    measured(&["latency", "measure", text(&model), "--input", "3x64x64"]);
    measured(&["latency", "measure", "mobilenet-v2-0.5", "--input", "3x32x32", "--predict", text(&device)]);
    measured(&["latency", "check", "--device", text(&device), "--networks", "3", "--seeds", "1"]);
    measured(&["latency", "adapt", "--device", text(&device), "--samples", "8", "-o", text(&adapted)]);
    // Another number of threads is another device.
    let said = refused(&["latency", "check", "--device", text(&device), "--threads", "2"], 4);
    assert!(said.contains("threads: 1, not 2"), "{said}");
}
