//! Running the command and reading what it says.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part of this")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// The command, not attached to a terminal.
pub fn gram(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gram-for-tests"));
    command.args(arguments);
    command
}

/// Runs a command that must succeed, and gives its stdout.
#[track_caller]
pub fn run(arguments: &[&str]) -> String {
    let output = gram(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "gram {} ended with {}\n{stderr}", arguments.join(" "), output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command with `--json`, and gives the one document that it prints.
#[track_caller]
pub fn json(arguments: &[&str]) -> Value {
    let text = run(&[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runs a command that must fail with `code`, and gives its stderr, in which there is no trace of a panic.
#[track_caller]
pub fn refused(arguments: &[&str], code: i32) -> String {
    let output = gram(arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "gram {}\n{stderr}", arguments.join(" "));
    assert!(stderr.contains("error"), "no reason given: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The folder with real data, or `None` with a line that says what is skipped; with `GRAM_REQUIRE_DATA=1` its absence is a failure.
pub fn real_data(folder: &str) -> Option<PathBuf> {
    let base = std::env::var_os("GRAM_DATA").map(PathBuf::from);
    let base = base.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    let path = base.join(folder);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("GRAM_REQUIRE_DATA").is_none_or(|value| value != "1"), "{} is not there", path.display());
    eprintln!("skipped: {} is not there; GRAM_DATA names the folder that holds `{folder}`", path.display());
    None
}
