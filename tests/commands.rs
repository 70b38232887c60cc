//! Commands that need no training: costs, spaces, datasets, files, and how they refuse bad input.

mod common;

use std::fs;

use common::{gram, json, refused, run, text};
use serde_json::json;

#[test]
fn golden_costs() {
    let swiftnet = json(&["cost", "swiftnet-vww"]);
    assert_eq!(swiftnet["macs"], json!(56_156_504));
    assert_eq!(swiftnet["params"], json!(219_786));
    assert_eq!(swiftnet["deployed_params"], json!(216_722));
    let mobilenet = json(&["cost", "mobilenet-v2-1.0", "--input", "3x224x224"]);
    assert_eq!(mobilenet["params"], json!(3_504_872));
    let macs = mobilenet["macs"].as_f64().unwrap();
    assert!((macs - 300e6).abs() < 3e6, "{macs} is not within 1 % of the published 300 M");
    let nodes = mobilenet["nodes"].as_array().unwrap();
    let sum = |field: &str| nodes.iter().map(|node| node[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((json!(sum("macs")), json!(sum("params"))), (mobilenet["macs"].clone(), mobilenet["params"].clone()));
}

/// Peaks of the parts that are cells, in bytes.
fn cell_peaks(options: &[&str]) -> Vec<u64> {
    let report = json(&[&["schedule", "swiftnet-vww", "--dtype", "u8"], options].concat());
    let parts = report["parts"].as_array().unwrap();
    let is_cell = |part: &&serde_json::Value| part["name"].as_str().unwrap().ends_with(".cells.0");
    let cells: Vec<_> = parts.iter().filter(is_cell).collect();
    assert!(cells.iter().all(|part| part["exact"] == json!(true)), "{cells:?}");
    cells.iter().map(|part| part["peak_bytes"].as_u64().unwrap()).collect()
}

/// ALGORITHMS 5.4.
#[test]
fn golden_schedules() {
    assert_eq!(cell_peaks(&["--concat", "view"]), [200_704, 81_536, 32_536]);
    assert_eq!(cell_peaks(&["--concat", "view", "--partial"]), [188_160, 53_312, 16_856]);
    assert_eq!(cell_peaks(&[]), [275_968, 122_304, 53_900]);
}

#[test]
fn schedules_are_printed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("live.svg");
    let shown = run(&["schedule", "swiftnet-vww", "--dtype", "u8", "--concat", "view", "--svg", text(&svg)]);
    for line in ["peak_bytes     200,704    250,880  20.0 %", "no order has a lower peak", "stages.0.cells.0.n25.dw+pw"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(fs::read_to_string(&svg).unwrap().contains("least peak: peak 200,704 bytes"));
    let report = json(&["schedule", "mobilenet-v2-0.35", "--partial", "--split-separable"]);
    assert_eq!(report["peak_bytes"], json(&["schedule", "mobilenet-v2-0.35", "--split-separable"])["peak_bytes"]);
    assert!(report["arena_bytes"].as_u64() >= report["peak_bytes"].as_u64());
    let live = report["steps"].as_array().unwrap().iter().map(|step| step["live_bytes"].as_u64());
    assert_eq!(live.max().unwrap(), report["peak_bytes"].as_u64());
    assert_eq!(json(&["cost", "swiftnet-vww"])["peak_bytes"], json!(4 * 275_968));
    assert!(refused(&["schedule", "swiftnet-vww", "--dtype", "u7"], 2).contains("none of f32, f16, u8, i8"));
    refused(&["schedule", "swiftnet-vww", "--concat", "free"], 2);
    refused(&["schedule", "nowhere.json"], 4);
}

#[test]
fn every_kind_of_architecture_argument_works() {
    let folder = tempfile::tempdir().unwrap();
    for preset in [
        "swiftnet-vww",
        "mobilenet-v2-0.35",
        "shrinkcnn-a",
        "nasbench201:|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|",
    ] {
        let expected = json(&["cost", preset]);
        for format in ["json", "text"] {
            let file = folder.path().join(format!("architecture.{format}"));
            run(&["export", preset, "--format", format, "-o", text(&file)]);
            let got = json(&["cost", text(&file)]);
            assert_eq!(
                (&got["macs"], &got["params"]),
                (&expected["macs"], &expected["params"]),
                "{preset} as {format}"
            );
        }
    }
}

#[test]
fn bad_architectures_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(&["cost", "swiftnet-vvw"], 2).contains("swiftnet-vww"), "the error lists what there is");
    assert!(refused(&["cost", "nowhere/architecture.json"], 4).contains("no such file"));
    refused(&["cost", "nasbench201:|what~0|"], 2);
    refused(&["cost", "mobilenet-v2-1.0", "--input", "3x0x7"], 2);
    for (name, content) in
        [("cut.json", "{\"format_version\": 1"), ("words.txt", "hello"), ("new.json", "{\"format_version\": 99}")]
    {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        assert!(refused(&["cost", text(&file)], 4).contains(name), "the error names the file");
    }
}

#[test]
fn space_tells_what_can_be_met() {
    let space = json(&["space", "--space", "swiftnet-small", "--input", "1x8x8", "--classes", "10"]);
    let least = space["macs"]["min"].as_u64().unwrap();
    assert!(least <= space["macs"]["p50"].as_u64().unwrap());
    let arguments =
        |most: &str| ["space", "--space", "swiftnet-small", "--input", "1x8x8", "--max-macs", most].map(String::from);
    let call = |most: u64, code: Option<i32>| {
        let arguments = arguments(&most.to_string());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match code {
            Some(code) => refused(&arguments, code),
            None => run(&arguments),
        }
    };
    assert!(call(least - 1, Some(3)).contains("smallest possible"), "what can be met is said");
    call(least, None);
}

#[test]
fn the_built_in_dataset() {
    let info = json(&["data", "info", "optdigits"]);
    assert_eq!(info["shape"], json!([1, 8, 8]));
    assert_eq!(info["n_train"], json!(1797));
    assert_eq!(info["classes"].as_array().unwrap().len(), 10);
    assert!(run(&["data", "list"]).contains("optdigits"));
}

#[test]
fn bad_data_is_exit_code_4_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put("text/train/cat/a.jpg", b"this is no image");
    put("text/train/dog/b.jpg", b"nor this");
    // An IDX header that claims 2^31 images of 2^16 x 2^16 pixels.
    let header = [0, 0, 8, 3, 0x7f, 255, 255, 255, 0, 1, 0, 0, 0, 1, 0, 0];
    put("huge/train-images-idx3-ubyte", &header);
    put("huge/train-labels-idx1-ubyte", &[0, 0, 8, 1, 0x7f, 255, 255, 255]);
    put("empty/notes.md", b"nothing here");
    for (name, file) in [("text", "a.jpg"), ("huge", "idx3-ubyte"), ("empty", "empty"), ("missing", "missing")] {
        let stderr = refused(&["data", "info", text(&folder.path().join(name))], 4);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(file), "{stderr} does not name {file}");
    }
}

#[test]
fn bad_configuration_is_exit_code_2_and_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("study.toml");
    fs::write(&file, "seed = 1\n\n[search]\nchilderen = 5\n").unwrap();
    let out = folder.path().join("out");
    let stderr = refused(&["search", "-c", text(&file), "--data", "optdigits", "-o", text(&out)], 2);
    assert!(stderr.contains("line 4") && stderr.contains("childeren") && stderr.contains("study.toml"), "{stderr}");
    assert!(!out.exists(), "nothing is written before the configuration is known to be good");
    refused(&["search", "--data", "optdigits", "-o", text(&out), "--set", "proxy.train.epochs=0"], 2);
    refused(&["search", "-o", text(&out)], 2);
    for (option, value) in [("--jobs", "0"), ("--threads", "0"), ("--max-memory", "0"), ("--max-memory", "4X")] {
        let stderr = refused(&["search", "--data", "optdigits", "-o", text(&out), option, value], 2);
        assert!(stderr.contains(option), "{stderr}");
    }
    let on_gpu = ["search", "--data", "optdigits", "-o", text(&out), "--device", "cuda", "--max-memory", "4G"];
    assert!(refused(&on_gpu, 2).contains("--max-memory"));
    let stderr = refused(&["search", "--data", "optdigits", "-o", text(&out), "--max-memory", "1M"], 3);
    assert!(stderr.contains("1.0 MiB"), "{stderr}");
    refused(&["search", "--data", "optdigits", "-o", text(&out), "--max-macs", "100"], 3);
    assert!(!out.exists());
}

#[test]
fn devices_that_cannot_be_had_are_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let commands = [&["search"][..], &["train", "swiftnet-small-fixture"]];
    for command in commands {
        let with = |device: &str| {
            let arguments = [command, &["--data", "optdigits", "-o", text(&out), "--device", device]].concat();
            refused(&arguments, 2)
        };
        // This binary is built without the feature.
        let stderr = with("cuda:0");
        assert!(stderr.contains("no CUDA") && stderr.contains("--features cuda"), "{stderr}");
        for device in ["gpu", "cuda:", "cuda:first"] {
            let stderr = with(device);
            assert!(stderr.contains("is no device") && stderr.contains("cuda:N"), "{stderr}");
        }
        assert!(!out.exists());
    }
    let stderr = refused(&["search", "--data", "optdigits", "-o", text(&out), "--device", "cuda", "--jobs", "2"], 2);
    assert!(stderr.contains("one at a time"), "{stderr}");
}

#[test]
fn benchmark_cells_are_no_paths() {
    let cost = json(&["cost", "nasbench101:011/001/000:input;conv3x3-bn-relu;output"]);
    assert!(cost["params"].as_u64().unwrap() > 0);
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_written_are_no_success() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status =
        std::process::Command::new(env!("CARGO_BIN_EXE_gram-for-tests")).args(["data", "list"]).stdout(full).status();
    assert_eq!(status.unwrap().code(), Some(4));
}

#[test]
fn usage_and_completions() {
    gram(&["frobnicate"]).assert().code(2);
    gram(&["search"]).assert().code(2);
    gram(&["--version"]).assert().success();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(run(&["completions", shell]).contains("gram"));
    }
}

/// Where nothing was trained, the network that makes the most of the limits; 53 M MACs and 2.07 M params are the paper's.
#[test]
fn pruning_from_limits_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pruned.json");
    let limits = ["--max-macs", "53M", "--max-params", "2.07M"];
    let pruned = json(&[&["prune", "--space", "swiftnet-imagenet", "-o", text(&file)], &limits[..]].concat());
    let cost = json(&["cost", text(&file)]);
    for (name, most) in [("macs", 53e6), ("params", 2.07e6)] {
        let share = cost[name].as_f64().unwrap() / most;
        assert!((0.97..=1.0).contains(&share), "{name}: {share}");
        assert_eq!(pruned["best"][name], cost[name]);
    }
    assert!(pruned["best"].get("expected_validation_top1").is_none(), "nothing was trained");
    let cells = |name: &str| {
        let form = folder.path().join("form.txt");
        run(&["export", name, "--format", "text", "-o", text(&form)]);
        let lines = fs::read_to_string(form).unwrap();
        lines.lines().filter(|line| !line.starts_with("architecture")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(cells(text(&file)), cells("swiftnet-imagenet"), "the preset is what pruning gives");
    refused(&["prune", "--space", "swiftnet-small", "--max-macs", "1k"], 3);
    assert!(refused(&["prune", "--space", "nowhere"], 2).contains("swiftnet-small"));
    refused(&["prune", "study", "--space", "swiftnet-small"], 2);
    refused(&["prune"], 2);
}
