//! The `gram` command for the tests beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    gram_cli::main()
}
