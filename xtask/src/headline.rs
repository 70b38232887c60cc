//! The headline comparison: searched networks beside MobileNet-V2 and other baselines, under one recipe, on two data sets.
//!
//! A list of jobs (`plan`), each a `gram` command that resumes where it was; each finished job leaves a small record (`record`) in
//! `docs/headline/`, which is never made twice; the report (`report`) is written from the records alone.

mod chart;
mod compare;
mod latency;
mod plan;
mod record;
mod report;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::pipeline::gram_binary;
use crate::shell::{self, root, usage};
use plan::{DATASETS, Dataset, Job};
use record::Record;

struct Options {
    /// Parent of the datasets' folders.
    data: PathBuf,
    /// Where models and studies are kept; nothing in it is needed once the records are there.
    output: PathBuf,
    /// Jobs whose name holds one of these words; empty: all.
    only: Vec<String>,
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
    shell::run("cargo", &["build", "--release", "-p", "gram-cli"])?;
    if !options.latency {
        for dataset in &DATASETS {
            run_dataset(&options, dataset)?;
        }
    }
    let mut records = Record::read_all()?;
    let is_left = DATASETS.iter().flat_map(Dataset::jobs).any(|job| !Record::is_there(&job));
    if options.latency || (!is_left && records.iter().any(|record| record.latency_ms.is_none())) {
        latency::measure(&gram_binary(), &mut records)?;
    }
    report::write(&records)
}

fn run_dataset(options: &Options, dataset: &Dataset) -> Result<()> {
    let jobs = dataset.jobs();
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    anyhow::ensure!(names.len() == jobs.len(), "invariant: names of jobs are distinct");
    let wanted =
        |job: &&Job| options.only.is_empty() || options.only.iter().any(|word| job.name.contains(word.as_str()));
    let open = || jobs.iter().filter(wanted).filter(|job| !Record::is_there(job));
    let n_open = open().count();
    for (n_done, job) in open().enumerate() {
        eprintln!("\n{}: job {} of {n_open} that are left: {}", dataset.name, n_done + 1, job.name);
        let data = options.data.join(dataset.folder);
        anyhow::ensure!(data.is_dir(), "{}: no such folder; say where the data is with --data DIR", data.display());
        job.run(&gram_binary(), &data, &options.output)?.save()?;
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let (mut data, mut output, mut only, mut report, mut latency) = (None, None, Vec::new(), false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| usage(format!("{argument} needs a value")));
        match argument.as_str() {
            "--data" => data = Some(PathBuf::from(value()?)),
            "--output" | "-o" => output = Some(PathBuf::from(value()?)),
            "--only" => only.push(value()?),
            "--report" => report = true,
            "--latency" => latency = true,
            other => return Err(usage(format!("`cargo xtask pipeline headline` does not know `{other}`"))),
        }
    }
    let data = data
        .or_else(|| std::env::var_os("GRAM_DATA").map(PathBuf::from))
        .unwrap_or_else(|| root().join("../shared/data"));
    let data = std::path::absolute(&data).with_context(|| format!("--data {}", data.display()))?;
    Ok(Options { data, output: output.unwrap_or_else(|| "runs/headline".into()), only, report, latency })
}
