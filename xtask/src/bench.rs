//! All criterion benches, or those whose name contains the given words.

use anyhow::Result;

use crate::shell;

pub(crate) fn run(filters: &[String]) -> Result<()> {
    let mut arguments = vec!["bench", "--workspace", "--benches", "--"];
    arguments.extend(filters.iter().map(String::as_str));
    shell::run("cargo", &arguments)
}
