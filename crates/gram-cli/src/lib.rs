//! The `gram` command line: arguments, files, printing, exit codes, wiring. No algorithm lives here.
//!
//! Start at `commands/search.rs`, which wires the crates into a study. The exit codes are those of `failure.rs`.

mod args;
mod checked;
mod commands;
mod failure;
mod interrupt;
mod model_dir;
mod net;
mod onnx;
mod output;
mod progress;
mod source;
mod study;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use crate::failure::Kind;

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    let run = || commands::run(arguments.command).and_then(|()| output::finish());
    // A panic has said where it happened; what is left is to end with the exit code of a bug.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            output::error(&failure);
            failure.exit_code()
        }
        Err(_) => ExitCode::from(Kind::Internal as u8),
    }
}
