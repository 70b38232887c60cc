//! `gram bench`: the lines of `step`, net files, and how bad ones are refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{gram, json, refused, text};
use serde_json::json;

const TINY: &str = "cell\nc1\nsep 0\n";

fn put(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// What the contender prints for these lines of input.
#[track_caller]
fn answers(arguments: &[&str], input: &str) -> Vec<String> {
    let output = gram(&[&["bench", "step"], arguments].concat()).write_stdin(input).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

/// Times, memory and loss of a line `t MS... rss MIB loss L`.
#[track_caller]
fn parse(line: &str) -> (Vec<f64>, u64, f64) {
    let words: Vec<&str> = line.split(' ').collect();
    let Some((["t", times @ ..], ["rss", rss, "loss", loss])) = words.split_last_chunk::<4>() else {
        panic!("unexpected line {line:?}");
    };
    (times.iter().map(|ms| ms.parse().unwrap()).collect(), rss.parse().unwrap(), loss.parse().unwrap())
}

#[test]
fn steps_are_taken_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let net = put(folder.path(), "tiny.net", TINY);
    let lines = answers(&[text(&net), "--batch", "4"], "go 1\n  go 3\ngo 0\nenough\ngo 5\n");
    assert_eq!(lines.len(), 4, "{lines:?}");
    let ready: Vec<&str> = lines[0].split(' ').collect();
    // Stem 464, c1 288, sep 176 + 288, classifier 170.
    assert!(matches!(ready[..], ["ready", mode, "params", "1386"] if mode.starts_with("gram-")), "{}", lines[0]);
    let parsed: Vec<_> = lines[1..].iter().map(|line| parse(line)).collect();
    let counts: Vec<usize> = parsed.iter().map(|(times, _, _)| times.len()).collect();
    assert_eq!(counts, [1, 3, 0]);
    assert!(parsed.iter().flat_map(|(times, _, _)| times).all(|&ms| ms > 0.0));
    assert!(parsed[1].2 < parsed[0].2, "the same four images again and again: {lines:?}");
    assert!(!cfg!(target_os = "linux") || parsed.iter().all(|&(_, rss, _)| rss > 0), "{lines:?}");
}

#[test]
fn the_end_of_input_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let net = put(folder.path(), "tiny.net", TINY);
    assert_eq!(answers(&[text(&net), "--batch", "1", "--threads", "1"], "").len(), 1);
    assert_eq!(answers(&[text(&net), "--batch", "2"], "go 1").len(), 2, "a last line may lack its end");
}

#[test]
fn results_are_those_of_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let net = put(folder.path(), "tiny.net", TINY);
    let loss = |threads| parse(&answers(&[text(&net), "--batch", "7", "--threads", threads], "go 3\n")[1]).2;
    assert_eq!(loss("1"), loss("3"));
}

#[test]
fn instruction_sets_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let net = put(folder.path(), "tiny.net", TINY);
    let best = answers(&[text(&net), "--batch", "4"], "go 1\n");
    let plain = answers(&[text(&net), "--batch", "4", "--isa", "portable"], "go 1\n");
    assert_eq!(plain[0], "ready gram-portable params 1386");
    assert!((parse(&plain[1]).2 - parse(&best[1]).2).abs() < 1e-2, "{best:?} {plain:?}");
    refused(&["bench", "step", text(&net), "--isa", "mmx"], 2);
    if !cfg!(target_arch = "x86_64") {
        assert!(refused(&["bench", "step", text(&net), "--isa", "avx2"], 2).contains("portable"));
    }
}

#[test]
fn any_architecture_can_be_measured() {
    let folder = tempfile::tempdir().unwrap();
    // A net file is known by its first word, too.
    let net = put(folder.path(), "tiny", TINY);
    let ready = |lines: Vec<String>| lines[0].split_once(" params ").unwrap().1.to_owned();
    assert_eq!(ready(answers(&[text(&net), "--batch", "1"], "")), "1386");
    let network = "network small\nn0 = input 1x8x8\nn1 = conv3x3/8 n0 stride=2\nn2 = batchnorm n1\nn3 = hard-swish n2\n\
                   n4 = global-avgpool n3\nn5 = linear/3 n4 bias\noutput n5\n";
    let small = put(folder.path(), "small.txt", network);
    let lines = answers(&[text(&small), "--batch", "5"], "go 2\n");
    assert_eq!(parse(&lines[1]).0.len(), 2);
    assert_eq!(ready(lines), (72 + 16 + 27).to_string());
}

#[test]
fn net_files_have_costs_like_any_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| format!("sep {}\n", (0..i).map(|j| j.to_string()).collect::<Vec<_>>().join(" "));
    let cell = format!("cell\n{}", (0..8).map(row).collect::<String>());
    let net = put(folder.path(), "complete-sep.net", &cell.repeat(3));
    let cost = json(&["cost", text(&net)]);
    // What torch counts for this net.
    assert_eq!((&cost["params"], &cost["name"]), (&json!(191_450), &json!("complete-sep")));
    let macs = cost["macs"].as_f64().unwrap();
    assert!((macs - 30.4e6).abs() < 0.1e6, "{macs}");
}

#[test]
fn bad_net_files_are_refused_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let too_many = format!("cell\n{}", "sep\n".repeat(100_000));
    for (name, content, line, word) in [
        ("operator.net", "cell\nsep\n\nconv 0\n", "line 4", "`conv`"),
        ("later.net", "cell\nsep 1\nsep\n", "line 2", "`1`"),
        ("number.net", "cell\nsep\nsep 99999999999999999999\n", "line 3", "no earlier node"),
        ("start.net", "sep\n", "line 1", "`cell`"),
        ("many.net", too_many.as_str(), "line 66", "64 nodes"),
        ("deep.net", &"cell\nsep\n".repeat(7), "line 13", "6 cells"),
        ("empty.net", "\n\n", "empty.net", "`cell`"),
    ] {
        let path = put(folder.path(), name, content);
        let stderr = refused(&["bench", "step", text(&path)], 4);
        assert!([name, line, word].iter().all(|part| stderr.contains(part)), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let binary = folder.path().join("binary.net");
    fs::write(&binary, [0xff, 0xfe, 0]).unwrap();
    assert!(refused(&["bench", "step", text(&binary)], 4).contains("binary.net"));
    assert!(refused(&["bench", "step", "missing.net"], 4).contains("missing.net"));
    assert!(refused(&["bench", "step", text(folder.path())], 4).contains("no such file"));
    refused(&["bench", "step", "no-such-preset"], 2);
}

#[test]
fn networks_that_would_take_all_memory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| format!("c1 {}\n", (0..i).map(|j| j.to_string()).collect::<Vec<_>>().join(" "));
    let cell = format!("cell\n{}", (0..64).map(row).collect::<String>());
    let net = put(folder.path(), "huge.net", &cell.repeat(6));
    assert!(refused(&["bench", "step", text(&net)], 4).contains("parameters"));
}

#[test]
fn bad_requests_and_arguments_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let net = put(folder.path(), "tiny.net", TINY);
    for request in ["go\n", "go x\n", "go -1\n"] {
        let output = gram(&["bench", "step", text(&net), "--batch", "1"]).write_stdin(request).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(String::from_utf8_lossy(&output.stderr).contains(request.trim()));
    }
    for (option, value) in [("--batch", "0"), ("--batch", "x"), ("--threads", "0"), ("--threads", "1000000")] {
        refused(&["bench", "step", text(&net), option, value], 2);
    }
}

#[test]
fn the_peak_is_a_number() {
    let peak = json(&["bench", "peak", "--threads", "1"]);
    assert!(peak["gflops"].as_f64().unwrap() > 0.1, "{peak}");
    assert_eq!(peak["threads"], json!(1));
}
