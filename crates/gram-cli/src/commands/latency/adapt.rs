//! `gram latency adapt`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use gram_latency::profile::Prepared;
use gram_latency::{NewDevice, adapt, adaptation_networks};
use gram_latency_runner::Plan;

use super::engine::Bench;
use super::place::{EngineArgs, Place};
use super::{adapt_failure, beside, file_failure, profile, profile_failure, read_device};
use crate::failure::{Failure, Kind, Result};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct AdaptArgs {
    /// Device file of a known device; may be given several times, the one that fits best is used
    #[arg(long = "device", value_name = "FILE", required = true)]
    known: Vec<PathBuf>,
    /// New device to measure on: host, ssh:USER@HOST, adb or adb:SERIAL
    #[arg(long, value_name = "DEVICE", default_value = "host")]
    on: Place,
    #[command(flatten)]
    engine: EngineArgs,
    /// Networks to measure on the new device, 8 or more; they are spread over the known device's range of latencies
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(8..=1000))]
    samples: u64,
    /// Seed of the networks
    #[arg(long, value_name = "N", default_value_t = 2_000_003)]
    seed: u64,
    /// Device file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Rounds of each network.
const ROUNDS: u32 = 5;

pub(crate) fn run(args: &AdaptArgs) -> Result<()> {
    args.engine.expect_kernel_times()?;
    let known = args.known.iter().map(|path| read_device(path)).collect::<Result<Vec<_>>>()?;
    let first = known.first().ok_or_else(|| Failure::new(Kind::Usage, "adapting needs a known device"))?;
    let networks = adaptation_networks(first, &first.families, args.samples as usize, args.seed);
    let networks = networks.map_err(adapt_failure)?;
    let work = beside(&args.output, ".jobs");
    let bench = Bench::open(&args.on, &args.engine, &work)?;
    let plan = Plan { threads: args.engine.threads, ..Plan::default() };
    let prepared = Prepared::of_networks(networks.clone(), ROUNDS, &plan, bench.layout()?).map_err(profile_failure)?;
    output::note(format_args!("{}: {} networks", bench.device(), networks.len()));
    let journal = beside(&args.output, ".journal");
    let records = bench.measure(&prepared, Some(&journal), &work)?;
    let (references, times) = prepared.own_networks(&records);
    let measured = times.into_iter().filter_map(|time| {
        let (name, network) = networks.iter().find(|(name, _)| *name == time.name)?;
        Some((name.clone(), network.clone(), [time.p50_us, time.min_us]))
    });
    let new = NewDevice { device: bench.device().clone(), plan, references, networks: measured.collect() };
    let file = adapt(&known, &new).map_err(adapt_failure)?;
    file.write(&args.output).map_err(file_failure)?;
    // All that they hold is in the device file now; what cannot be removed does no harm.
    let _ = fs::remove_file(&journal);
    let _ = fs::remove_dir_all(&work);
    profile::report(&file, args.json)
}
