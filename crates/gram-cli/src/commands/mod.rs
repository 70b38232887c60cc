//! One file per command.

pub(crate) mod bench;
mod completions;
mod cost;
mod data;
mod eval;
mod export;
pub(crate) mod latency;
mod predict;
mod prune;
mod schedule;
mod search;
mod space;
mod train;

use crate::args::Command;
use crate::failure::Result;

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Search(args) => search::run(args),
        Command::Space(args) => space::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Schedule(args) => schedule::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Latency(command) => latency::run(&command),
        Command::Data(command) => data::run(&command),
        Command::Bench(command) => bench::run(&command),
        Command::Completions { shell } => completions::run(shell),
    }
}
