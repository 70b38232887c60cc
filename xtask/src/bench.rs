//! Benches: criterion's, or ours beside torch's.

use anyhow::Result;

use crate::{peers, shell};

/// `peers …`, or all criterion benches whose names contain the given words.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments.split_first() {
        Some((first, rest)) if first == "peers" => peers::run(rest),
        _ => criterion(arguments),
    }
}

fn criterion(filters: &[String]) -> Result<()> {
    let mut arguments = vec!["bench", "--workspace", "--benches", "--"];
    arguments.extend(filters.iter().map(String::as_str));
    shell::run("cargo", &arguments)
}
