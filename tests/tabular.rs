//! `gram bench tabular`: its JSON, its drawing, and how wrong tables and wishes are refused.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use common::{gram, json};

const OPERATORS: [&str; 3] = ["none", "skip_connect", "nor_conv_3x3"];

/// A table in the layout of NAS-Bench-201 with all cells of three operators: the more convolutions near the output the better.
fn table(folder: &Path) -> PathBuf {
    let mut text = String::from("index,arch,signal,judge\n");
    for index in 0..729_usize {
        let op = |edge: u32| index / 3_usize.pow(edge) % 3;
        let name = |edge: u32| OPERATORS[op(edge)];
        let score: usize = (0..6).map(|edge| op(edge) * (edge as usize + 1)).sum();
        let cell = format!("|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|", name(0), name(1), name(2), name(3), name(4), name(5));
        writeln!(text, "{index},{cell},{}.5,{score}", score / 2).unwrap();
    }
    let path = folder.join("cells.csv");
    fs::write(&path, text).unwrap();
    path
}

fn arguments<'a>(path: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let columns = ["--validation-column", "signal", "--test-column", "judge"];
    [&["bench", "tabular", "--table", "nasbench201", "--path", path][..], &columns, more].concat()
}

#[test]
fn figures_do_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = table(folder.path());
    let path = path.to_str().unwrap();
    for strategy in ["gram", "random", "local", "evolution", "autoshrink"] {
        let report = |threads| {
            let more = ["--strategy", strategy, "--evaluations", "60", "--seeds", "6", "--threads", threads];
            let mut report = json(&arguments(path, &more));
            report["config"].as_object_mut().unwrap().remove("threads");
            report
        };
        let alone = report("1");
        assert_eq!(alone, report("3"), "{strategy}");
        for figure in ["evaluations_to_best", "evaluations_to_top_0_1_percent", "evaluations_to_top_1_percent"] {
            for quantile in ["median", "p75", "p95"] {
                let value = &alone[figure][quantile];
                assert!(value.is_null() || (1..=60).contains(&value.as_u64().unwrap()), "{strategy} {figure} {value}");
            }
        }
        assert_eq!(alone["table"]["n_rows"], 729);
        assert_eq!(alone["table"]["best_test"], 42.0);
        let means = alone["mean_test_at"].as_object().unwrap();
        assert_eq!(means.keys().collect::<Vec<_>>(), ["25", "50"], "{strategy}");
        assert_eq!(alone["regret"]["median"].as_array().unwrap().len(), 60);
    }
}

#[test]
fn strategies_are_compared_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = table(folder.path());
    let drawing = folder.path().join("regret.svg");
    let more = ["--versus", "random,local", "--evaluations", "30", "--seeds", "5", "--svg", drawing.to_str().unwrap()];
    let report = json(&arguments(path.to_str().unwrap(), &more));
    let comparisons = report["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 2);
    assert_eq!(comparisons[1]["versus"]["strategy"], "local");
    let test = &comparisons[0]["tests"]["25"];
    let count = |key: &str| test[key].as_u64().unwrap();
    assert_eq!(count("wins") + count("ties") + count("losses"), 5);
    let drawn = fs::read_to_string(&drawing).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n") && !drawn.contains("NaN"));
    assert_eq!((drawn.matches("<polyline").count(), drawn.matches("<polygon").count()), (3, 3));
}

#[test]
fn wrong_wishes_and_tables_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = table(folder.path());
    let good = path.to_str().unwrap();
    let columns = ["--validation-column", "signal", "--test-column", "loss"];
    let no_such = [&["bench", "tabular", "--table", "nasbench201", "--path", good][..], &columns].concat();
    refused(&no_such, 2, "no column \"loss\"; there are index, arch, signal, judge");
    refused(&arguments(good, &["--strategy", "hope"]), 2, "gram, random, local, evolution, autoshrink");
    refused(&arguments(good, &["--limit", good, "--limit-column", "judge", "--limit-share", "0"]), 2, "share");
    refused(&arguments("nowhere.csv", &[]), 4, "nowhere.csv");
    let broken = folder.path().join("broken.csv");
    fs::write(&broken, "index,arch,signal,judge\n0,|none~0|+|none~0|,1,2\n").unwrap();
    refused(&arguments(broken.to_str().unwrap(), &[]), 4, "broken.csv:2");
    fs::write(&broken, fs::read_to_string(&path).unwrap().replace("0.5,", "high,")).unwrap();
    refused(&arguments(broken.to_str().unwrap(), &[]), 4, "broken.csv:2");
    let other = ["bench", "tabular", "--table", "enas-dag", "--path", good];
    refused(&other, 4, "cells.csv:1");
    gram(&["bench", "tabular", "--table", "nasbench201"]).assert().code(2);
}

#[track_caller]
fn refused(arguments: &[&str], code: i32, expected: &str) {
    let error = common::refused(arguments, code);
    assert!(error.contains(expected), "{error}");
}
