//! All checks, cheapest first.

use anyhow::{Context, Result, bail};

use crate::shell::{capture, run, run_with};

/// Crate and what it must never depend on (ARCHITECTURE.md, "Arrows").
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("gram-kernels", &["candle-core", "gram-ir", "rayon"]),
    ("gram-ir", &["candle-core", "rayon", "rand", "gram-train", "gram-data"]),
    (
        "gram-memory",
        &["candle-core", "rayon", "rand", "gram-meta", "gram-search", "gram-prune", "gram-export", "gram-train"],
    ),
    ("gram-meta", &["candle-core", "gram-data", "gram-search", "gram-train"]),
    ("gram-search", &["candle-core", "gram-data", "gram-train", "gram-prune", "gram-export"]),
    ("gram-prune", &["candle-core", "gram-meta", "gram-search", "gram-train"]),
    ("gram-export", &["candle-core", "gram-train", "gram-data"]),
    ("gram-latency", &["candle-core", "gram-train", "gram-data", "gram-search", "gram-meta"]),
    ("gram-latency-runner", &["candle-core", "gram-ir", "rayon"]),
    ("gram-data", &["candle-core", "gram-train"]),
    ("gram-train", &["gram-search", "gram-meta", "gram-export"]),
    ("xtask", &["candle-core", "gram-ir", "clap"]),
];

/// Formatting, lints, documentation, arrows.
pub(crate) fn lint() -> Result<()> {
    run("cargo", &["fmt", "--all", "--check"])?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    run_with("cargo", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    arrows()
}

/// [`lint`], the tests, and the licences where cargo-deny is installed.
pub(crate) fn check() -> Result<()> {
    lint()?;
    run("cargo", &["test", "--workspace"])?;
    match capture("cargo", &["deny", "--version"]) {
        Ok(_) => run("cargo", &["deny", "check"]),
        Err(_) => {
            eprintln!("cargo-deny is not installed: licences and advisories were not checked");
            Ok(())
        }
    }
}

/// Fails if a crate depends on one that it must not know.
fn arrows() -> Result<()> {
    for (package, forbidden) in FORBIDDEN {
        let tree = capture("cargo", &["tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"])?;
        let names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        names.first().filter(|name| *name == package).with_context(|| format!("no tree of {package}"))?;
        if let Some(name) = forbidden.iter().find(|name| names.contains(name)) {
            bail!("{package} depends on {name}, which it must not know; see ARCHITECTURE.md, \"Arrows\"");
        }
    }
    eprintln!("arrows between crates hold");
    Ok(())
}
