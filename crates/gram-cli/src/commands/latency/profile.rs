//! `gram latency profile`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use gram_latency::profile::{Prepared, ProfileConfig};
use gram_latency::{DeviceFile, Fit, fit};
use gram_latency_runner::{Device, Plan};
use serde::Serialize;

use super::engine::Bench;
use super::place::{EngineArgs, FamilyArgs, Place};
use super::{beside, file_failure, note_refused, profile_failure};
use crate::failure::{Kind, OrFail, Result};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct ProfileArgs {
    /// Device to measure on: host, ssh:USER@HOST, adb or adb:SERIAL
    #[arg(long, value_name = "DEVICE", default_value = "host")]
    device: Place,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    families: FamilyArgs,
    /// Whole networks of each space to measure, 8 or more
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u64).range(8..=10_000))]
    networks: u64,
    /// Further networks of each space whose kernels are measured
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    kernel_networks: u64,
    /// Seed of the networks
    #[arg(long, value_name = "N", default_value_t = 1_000_003)]
    seed: u64,
    /// Device file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    device: &'a Device,
    reference_us: f64,
    kernels: usize,
    networks: usize,
    refused: usize,
    fit: &'a Fit,
}

pub(crate) fn run(args: &ProfileArgs) -> Result<()> {
    args.engine.expect_kernel_times()?;
    let work = beside(&args.output, ".jobs");
    let bench = Bench::open(&args.device, &args.engine, &work)?;
    let config = ProfileConfig {
        networks: args.networks,
        kernel_networks: args.kernel_networks,
        seed: args.seed,
        plan: Plan { threads: args.engine.threads, ..Plan::default() },
        ..ProfileConfig::new(args.families.families()?)
    };
    let prepared = Prepared::new(&config, bench.layout()?).map_err(profile_failure)?;
    output::note(format_args!("{}: {} measurements", bench.device(), prepared.jobs.measurements().count()));
    let journal = beside(&args.output, ".journal");
    let records = bench.measure(&prepared, Some(&journal), &work)?;
    let mut file = prepared.device_file(bench.device(), &records).map_err(profile_failure)?;
    note_refused(&file.refused);
    file.fit = Some(fit(&file).or_fail(Kind::Data)?);
    file.write(&args.output).map_err(file_failure)?;
    // All that they hold is in the device file now; what cannot be removed does no harm.
    let _ = fs::remove_file(&journal);
    let _ = fs::remove_dir_all(&work);
    report(&file, args.json)
}

/// Prints what a device file holds.
pub(super) fn report(file: &DeviceFile, json: bool) -> Result<()> {
    let Some(fit) = &file.fit else { return Ok(()) };
    if json {
        return output::json(&Report {
            device: &file.device,
            reference_us: file.reference_us,
            kernels: file.kernels.len(),
            networks: file.networks.len(),
            refused: file.refused.len(),
            fit,
        });
    }
    output::line(&file.device);
    if let Some(owner) = &file.borrowed_from {
        output::line(format_args!("table borrowed from {owner}"));
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    output::table(&[
        row("kernels in the table", file.kernels.len().to_string()),
        row("networks fitted to", fit.n_networks.to_string()),
        row("microseconds of a pass", format!("{:.2}", fit.per_pass_us)),
        row("microseconds of a kernel", format!("{:.2}", fit.per_kernel_us)),
        row("microseconds of an evicted MB", format!("{:.1}", fit.eviction_us_per_mb)),
        row("residual", format!("{:.2} %", 100.0 * fit.residual_sd)),
        row("90 % interval", format!("± {:.1} %", 100.0 * fit.half_width())),
    ]);
    Ok(())
}
