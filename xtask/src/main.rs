//! Chores of the project: `cargo xtask pipeline`, `lint`, `check`, `bench`. Everything is a list of commands, printed as they run.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "xtask talks to a person")]

mod bench;
mod check;
mod headline;
mod peers;
mod pipeline;
mod shell;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask <command>

  pipeline [quickstart|fashion-mnist|cifar-10] [--data DIR] [--output DIR] [--jobs N]
             search, prune, train and export on real data; ends with a table and summary.json
  pipeline headline [--data DIR] [--output DIR] [--only WORD]... [--job NAME] [--jobs N] [--commit] [--report|--latency]
             searched networks beside MobileNet-V2 and other baselines: hours, resumable; records and report go to docs/.
             --only takes the jobs whose names hold a word, --job exactly one and writes no report; N trainings go side by
             side [default: one on each core]; --commit commits each record when it is there;
             --report writes the report alone, --latency measures all networks anew
  lint       fmt, clippy, docs, arrows between crates
  check      lint, then every test; licences too where cargo-deny is installed
  bench [NAME...]
             all criterion benches, or those whose names contain the words
  bench peers [--python PATH] [--peer FILE] [--nets DIR] [--rounds 7] [--steps 3] [--batch 64] [--threads 2] [--output FILE]
             our training step beside torch's on the same networks, in turns; the report goes to docs/benchmarks.md";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((command, rest)) => match command.as_str() {
            "pipeline" if rest.first().is_some_and(|name| name == "headline") => headline::run(&rest[1..]),
            "pipeline" => pipeline::run(rest),
            "lint" => check::lint(),
            "check" => check::check(),
            "bench" => bench::run(rest),
            "help" | "--help" | "-h" => {
                println!("{HELP}");
                Ok(())
            }
            other => Err(shell::usage(format!("there is no command `{other}`\n{HELP}"))),
        },
        None => Err(shell::usage(HELP)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(shell::exit_code(&error))
        }
    }
}
