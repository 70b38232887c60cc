//! Latencies of all networks, measured together: a shared machine is quicker at one hour than at another.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::plan::{DATASETS, number, read};
use super::record::Record;

/// Rounds in which every network is measured once; its latency is the least, since what else a shared machine does only ever adds to it.
const ROUNDS: usize = 4;

/// Most tries of one measurement: on a shared machine `gram` refuses one now and then because it is too noisy.
const TRIES: usize = 5;

/// A network as it is measured: the shape of its images and what `gram` knows it by.
type Timed = (&'static str, String);

/// Measures every network of `records` anew, in rounds, and writes the records.
pub(super) fn measure(gram: &str, records: &mut [Record]) -> Result<()> {
    let mut found: BTreeMap<Timed, (Vec<f64>, Value)> = BTreeMap::new();
    for record in records.iter() {
        found.entry(timed(record)?).or_default();
    }
    for round in 1..=ROUNDS {
        eprintln!("\nlatency, round {round} of {ROUNDS}: {} networks", found.len());
        for ((input, architecture), (times, device)) in &mut found {
            let report = steady(gram, &["latency", "measure", architecture, "--input", input, "--json"])?;
            times.push(number(&report, "latency_ms")?);
            *device = report["device"].clone();
        }
    }
    for record in records {
        let (times, device) = &mut found.get_mut(&timed(record)?).context("invariant: every record was measured")?;
        record.latency_ms = times.iter().copied().min_by(f64::total_cmp);
        record.device = device.clone();
        record.save()?;
    }
    Ok(())
}

fn steady(gram: &str, arguments: &[&str]) -> Result<Value> {
    let tries = (1..TRIES).find_map(|_| read(gram, arguments).ok());
    tries.map_or_else(|| read(gram, arguments), Ok)
}

fn timed(record: &Record) -> Result<Timed> {
    let dataset = DATASETS.iter().find(|dataset| dataset.name == record.dataset);
    let dataset = dataset.with_context(|| format!("{}: there is no dataset {}", record.name, record.dataset))?;
    Ok((dataset.input, record.architecture.clone()))
}
