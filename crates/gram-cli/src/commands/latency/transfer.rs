//! `gram latency transfer`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gram_latency::transfer::{LatencyTable, SampleChoice, TransferConfig, transfer};

use crate::args::parse_small;
use crate::failure::{Kind, OrFail, Result};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct TransferArgs {
    /// Layout of the table
    #[arg(long, value_enum)]
    table: TableArg,
    /// The table's file or folder; for nasbench201 the architectures are read from accuracy_cifar10.csv.gz beside it
    #[arg(long, value_name = "PATH")]
    path: PathBuf,
    /// Architectures measured on the new device
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = parse_samples)]
    samples: usize,
    /// Repetitions with other samples
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = parse_small)]
    draws: usize,
    /// Seed of the samples
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How samples are chosen
    #[arg(long, value_enum, default_value_t = ChoiceArg::Random)]
    choose: ChoiceArg,
    /// Most architectures to compare predictions on
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    evaluate: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TableArg {
    /// 15,625 cells, latency_ms.csv.gz
    Nasbench201,
    /// 5,000 networks of 22 blocks, latency_ms.csv.gz
    Fbnet,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChoiceArg {
    /// Uniformly, as in published comparisons
    Random,
    /// Far from each other as the known devices see them
    Spread,
}

/// At least two samples have a spread to learn from.
fn parse_samples(text: &str) -> std::result::Result<usize, String> {
    parse_small(text).and_then(|n| if n >= 2 { Ok(n) } else { Err("2 samples or more".into()) })
}

pub(crate) fn run(args: &TransferArgs) -> Result<()> {
    let file = |name: &str| if args.path.is_dir() { args.path.join(name) } else { args.path.clone() };
    let latencies = file("latency_ms.csv.gz");
    let table = match args.table {
        TableArg::Nasbench201 => {
            let folder = latencies.parent().unwrap_or(Path::new("."));
            LatencyTable::nasbench201(&latencies, &folder.join("accuracy_cifar10.csv.gz"))
        }
        TableArg::Fbnet => LatencyTable::fbnet(&latencies),
    };
    let table = table.or_fail(Kind::Data)?;
    let choice = match args.choose {
        ChoiceArg::Random => SampleChoice::Random,
        ChoiceArg::Spread => SampleChoice::Spread,
    };
    let (samples, draws, seed) = (args.samples, args.draws, args.seed);
    let report = transfer(&table, TransferConfig { samples, draws, seed, choice, evaluated: args.evaluate });
    if args.json {
        return output::json(&report);
    }
    let mut rows = vec![["device", "known", "Spearman", "worst draw", "MAPE", "MACs alone"].map(String::from).to_vec()];
    for device in &report.devices {
        rows.push(vec![
            device.device.clone(),
            device.known_devices.to_string(),
            format!("{:.3}", device.spearman),
            format!("{:.3}", device.worst_spearman),
            format!("{:.1} %", 100.0 * device.mape),
            format!("{:.3}", device.macs_spearman),
        ]);
    }
    output::table(&rows);
    output::line(format_args!(
        "mean Spearman {:.4}, MACs alone {:.4}; below MACs alone on {}",
        report.mean_spearman,
        report.mean_macs_spearman,
        if report.below_macs.is_empty() { "no device".into() } else { report.below_macs.join(", ") }
    ));
    Ok(())
}
