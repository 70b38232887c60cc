//! Printing: results to stdout, everything else to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one place of the binary that prints")]

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use serde::Serialize;

use crate::failure::{Failure, Kind, OrFail, Result};

/// The first failed write to stdout; kept until the end, so that what a command does is done all the same.
static FAILED: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line of results.
pub(crate) fn line(text: impl std::fmt::Display) {
    keep(writeln!(std::io::stdout(), "{text}"));
}

/// Fails if results could not be written. A reader that went away (`gram … | head`) is no error.
pub(crate) fn finish() -> Result<()> {
    keep(std::io::stdout().flush());
    match FAILED.get() {
        Some(error) => Err(Failure::new(Kind::Data, format!("writing to standard output: {error}"))),
        None => Ok(()),
    }
}

fn keep(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        // Only the first is told.
        let _ = FAILED.set(error);
    }
}

/// Prints one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value).or_fail_with(Kind::Internal, "writing JSON")?);
    Ok(())
}

/// Prints a line for people who wait: progress, notes.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether progress may be drawn over itself.
pub(crate) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Prints why a command failed, in one line.
pub(crate) fn error(failure: &Failure) {
    let chain: Vec<String> = failure.error.chain().map(ToString::to_string).collect();
    // A source that its wrapper quotes already is not said twice.
    let mut text = String::new();
    for part in &chain {
        if !text.contains(part.as_str()) {
            text = if text.is_empty() { part.clone() } else { format!("{text}: {part}") };
        }
    }
    let color = is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let label = if color { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    note(format!("{label} {text}"));
    if failure.kind == Kind::Internal {
        note("this is a bug of gram; please report it with the command that led here");
    }
}

/// Columns of text, the first left-aligned, the others right-aligned, two spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
