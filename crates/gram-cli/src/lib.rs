//! The `gram` command line: arguments, files, printing, exit codes, wiring. No algorithm lives here.
//!
//! Start at `commands/search.rs`, which wires the crates into a study. The exit codes are those of `failure.rs`.

mod args;
mod checked;
mod commands;
mod failure;
mod interrupt;
mod model_dir;
mod onnx;
mod output;
mod progress;
mod source;
mod study;

use std::process::ExitCode;

use clap::Parser;

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    match commands::run(arguments.command).and_then(|()| output::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            failure.exit_code()
        }
    }
}
