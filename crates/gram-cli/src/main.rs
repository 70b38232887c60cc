//! The `gram` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gram_cli::main()
}
