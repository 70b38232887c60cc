//! `gram latency check`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use gram_latency::profile::Prepared;
use gram_latency::{Accuracy, FamilyReport, NetworkTime, check};
use gram_latency_runner::{Device, Outcome, Plan};
use serde::Serialize;

use super::engine::Bench;
use super::place::{EngineArgs, FamilyArgs, Place};
use super::{beside, file_failure, note_refused, predict_failure, profile_failure, read_device};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Device file
    #[arg(long, value_name = "FILE")]
    device: PathBuf,
    /// Where to measure: host, ssh:USER@HOST, adb or adb:SERIAL; must be the device file's device
    #[arg(long, value_name = "DEVICE", default_value = "host")]
    on: Place,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    families: FamilyArgs,
    /// Held-out networks of each space and seed
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    networks: u64,
    /// Seeds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// First seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    first_seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    device: Device,
    networks: u64,
    seeds: Vec<SeedReport>,
    /// All seeds together.
    all: Vec<FamilyReport>,
}

#[derive(Serialize)]
struct SeedReport {
    seed: u64,
    /// Reference's time over that of the device file: what measured times are divided by.
    slowdown: f64,
    /// The same of the large reference, where large networks were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    large_slowdown: Option<f64>,
    families: Vec<FamilyReport>,
}

/// Rounds of each network.
const ROUNDS: u32 = 6;

pub(crate) fn run(args: &CheckArgs) -> Result<()> {
    args.engine.expect_kernel_times()?;
    let file = read_device(&args.device)?;
    let own = args.families.spaces.is_empty() && args.families.nodes.is_none() && args.families.input.is_none();
    let families = if own { file.families.clone() } else { args.families.families()? };
    let work = beside(&args.device, ".check.jobs");
    let bench = Bench::open(&args.on, &args.engine, &work)?;
    file.expect_device(&args.device, bench.device()).map_err(file_failure)?;
    let plan = Plan { threads: args.engine.threads, ..file.plan.clone() };
    let (mut seeds, mut all) = (Vec::new(), Vec::new());
    let mut journals = Vec::new();
    for seed in args.first_seed..args.first_seed.saturating_add(args.seeds) {
        let mut networks = Vec::new();
        for family in &families {
            for index in 0..args.networks {
                let network = family.network(seed, index).or_fail_with(Kind::Usage, &family.name)?;
                networks.push((format!("{}/{seed}/{index}", family.name), network));
            }
        }
        let prepared = Prepared::of_networks(networks, ROUNDS, &plan, file.layout).map_err(profile_failure)?;
        let journal = beside(&args.device, &format!(".check-{}.journal", &prepared.jobs.digest[..12]));
        output::note(format_args!("seed {seed}: {} measurements", prepared.jobs.measurements().count()));
        let records = bench.measure(&prepared, Some(&journal), &work)?;
        journals.push(journal);
        let refused = records.iter().filter_map(|record| match &record.outcome {
            Outcome::Refused(reason) => Some((record.id.clone(), reason.clone())),
            Outcome::Measured(_) => None,
        });
        note_refused(&refused.collect());
        let (now, _) = prepared.own_networks(&records);
        let then = file.references();
        let times = prepared.networks(&records, then);
        if times.is_empty() {
            return Err(Failure::new(Kind::Data, "the engine refused every network"));
        }
        let families = check(&file, &times).map_err(predict_failure)?;
        let large_slowdown = now.large_us.zip(then.large_us).map(|(now, then)| now / then);
        seeds.push(SeedReport { seed, slowdown: now.us / then.us, large_slowdown, families });
        all.extend(times);
    }
    finish(args, &file, seeds, &all, journals)
}

fn finish(
    args: &CheckArgs,
    file: &gram_latency::DeviceFile,
    seeds: Vec<SeedReport>,
    times: &[NetworkTime],
    journals: Vec<PathBuf>,
) -> Result<()> {
    let all = check(file, times).map_err(predict_failure)?;
    let report = Report { device: file.device.clone(), networks: args.networks, seeds, all };
    if args.json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    // The journals have served; what cannot be removed does no harm.
    journals.iter().for_each(|journal| {
        let _ = fs::remove_file(journal);
    });
    Ok(())
}

fn print(report: &Report) {
    output::line(&report.device);
    let mut rows = vec![
        ["seed", "family", "predictor", "n", "MAPE", "in 5 %", "in 10 %", "worst", "bias", "Spearman", "in 90 %"]
            .map(String::from)
            .to_vec(),
    ];
    for seed in &report.seeds {
        seed.families.iter().for_each(|family| rows.extend(family_rows(&seed.seed.to_string(), family)));
    }
    report.all.iter().for_each(|family| rows.extend(family_rows("all", family)));
    output::table(&rows);
    for seed in &report.seeds {
        let large = seed.large_slowdown.map(|slowdown| format!(" ({slowdown:.3} times for large networks)"));
        output::line(format_args!(
            "seed {}: the machine took {:.3} times as long{} as when it was profiled; times above are divided by that",
            seed.seed,
            seed.slowdown,
            large.unwrap_or_default()
        ));
    }
}

fn family_rows(seed: &str, family: &FamilyReport) -> Vec<Vec<String>> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let row = |name: &str, accuracy: &Accuracy, coverage: Option<f64>| {
        vec![
            seed.to_owned(),
            family.family.clone(),
            name.to_owned(),
            accuracy.n.to_string(),
            format!("{:.2} %", 100.0 * accuracy.mape),
            percent(accuracy.within_5_percent),
            percent(accuracy.within_10_percent),
            percent(accuracy.worst),
            format!("{:+.2} %", 100.0 * accuracy.bias),
            format!("{:.3}", accuracy.spearman),
            coverage.map_or_else(String::new, percent),
        ]
    };
    vec![
        row("kernels", &family.accuracy, Some(family.coverage)),
        row("MACs × constant", &family.macs_times_constant, None),
        row("flat", &family.flat, None),
        row("mean read-out", &family.mean_readout, None),
    ]
}
