//! The headline comparison: searched networks beside MobileNet-V2 and other baselines, under one recipe, on two data sets.
//!
//! A list of jobs (`plan`), each a `gram` command that resumes where it was and which `queue` runs; each finished job leaves a small record
//! (`record`) in `docs/headline/`, which is never made twice; the report (`report`) is written from the records alone.

mod chart;
mod compare;
mod latency;
mod plan;
mod queue;
mod record;
mod report;

use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use crate::pipeline::gram_binary;
use crate::shell::{self, root, usage};
use plan::{DATASETS, Dataset};
use record::Record;

struct Options {
    /// Parent of the datasets' folders.
    data: PathBuf,
    /// Where models and studies are kept; nothing in it is needed once the records are there.
    output: PathBuf,
    /// Jobs whose name holds one of these words; empty: all.
    only: Vec<String>,
    /// The job of exactly this name and nothing else, no build and no report either.
    job: Option<String>,
    /// Trainings at a time.
    jobs: usize,
    /// Commit each record when it is there.
    commit: bool,
    /// Write the report from the records that are there, without running anything.
    report: bool,
    /// Measure the latency of every network anew, as is done by itself when all jobs are done.
    latency: bool,
}

/// Runs all jobs that have no record yet, then writes the report.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    if options.report {
        return report::write(&Record::read_all()?);
    }
    if let Some(name) = &options.job {
        return queue::run_one(&options, name);
    }
    shell::run("cargo", &["build", "--release", "-p", "gram-cli"])?;
    if !options.latency {
        for dataset in &DATASETS {
            queue::run(&options, dataset)?;
        }
    }
    let mut records = Record::read_all()?;
    let is_left = DATASETS.iter().flat_map(Dataset::jobs).any(|job| !Record::is_there(&job));
    if options.latency || (!is_left && records.iter().any(|record| record.latency_ms.is_none())) {
        latency::measure(&gram_binary(), &mut records)?;
    }
    report::write(&records)
}

fn parse(arguments: &[String]) -> Result<Options> {
    let (mut data, mut output, mut only, mut job, mut jobs) = (None, None, Vec::new(), None, None);
    let (mut commit, mut report, mut latency) = (false, false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| usage(format!("{argument} needs a value")));
        match argument.as_str() {
            "--data" => data = Some(PathBuf::from(value()?)),
            "--output" | "-o" => output = Some(PathBuf::from(value()?)),
            "--only" => only.push(value()?),
            "--job" => job = Some(value()?),
            "--jobs" | "-j" => {
                let given = value()?;
                let n: Option<usize> = given.parse().ok().filter(|n| (1..=256).contains(n));
                jobs = Some(n.ok_or_else(|| usage(format!("--jobs is {given}; expected a number from 1 to 256")))?);
            }
            "--commit" => commit = true,
            "--report" => report = true,
            "--latency" => latency = true,
            other => return Err(usage(format!("`cargo xtask pipeline headline` does not know `{other}`"))),
        }
    }
    let data = data
        .or_else(|| std::env::var_os("GRAM_DATA").map(PathBuf::from))
        .unwrap_or_else(|| root().join("../shared/data"));
    let data = std::path::absolute(&data).with_context(|| format!("--data {}", data.display()))?;
    let jobs = jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let output = output.unwrap_or_else(|| "runs/headline".into());
    Ok(Options { data, output, only, job, jobs, commit, report, latency })
}
