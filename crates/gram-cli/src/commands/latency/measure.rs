//! `gram latency measure`.

use std::path::{Path, PathBuf};

use clap::Args;
use gram_export::from_onnx;
use gram_ir::{Network, Shape};
use gram_latency::profile::Prepared;
use gram_latency::{Layout, NetworkTime, Prediction, Predictor};
use gram_latency_runner::jobs::{MAX_MODEL_BYTES, read_bounded};
use gram_latency_runner::stats::median;
use gram_latency_runner::{Device, Outcome, Plan, Record, Times};
use serde::Serialize;

use super::engine::Bench;
use super::place::{EngineArgs, EngineKind, Place};
use super::{file_failure, predict_failure, profile_failure, read_device};
use crate::args::parse_small;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::{output, source};

#[derive(Args, Debug)]
pub(crate) struct MeasureArgs {
    /// Folder of a trained model, ONNX file, `architecture.json`, a text form, or a preset's name
    model: String,
    /// Device to measure on: host, ssh:USER@HOST, adb or adb:SERIAL
    #[arg(long, value_name = "DEVICE", default_value = "host")]
    device: Place,
    #[command(flatten)]
    engine: EngineArgs,
    /// Image shape
    #[arg(long, value_name = "CxHxW")]
    input: Option<Shape>,
    /// Number of classes
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Forward passes in each of five rounds
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = parse_small)]
    runs: usize,
    /// Device file whose prediction is shown beside; must be of the same device
    #[arg(long, value_name = "FILE")]
    predict: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    device: &'a Device,
    /// Median pass: median over rounds.
    latency_ms: f64,
    latency_ms_min: f64,
    latency_ms_p90: f64,
    passes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<Prediction>,
    /// What the network would have taken when the device was profiled, by the reference networks, is that much less.
    #[serde(skip_serializing_if = "Option::is_none")]
    slowdown: Option<f64>,
}

const ROUNDS: u32 = 5;

/// Only kernels, of which nothing is asked here, depend on the layout.
const ANY_LAYOUT: Layout = Layout::PLAIN;

pub(crate) fn run(args: &MeasureArgs) -> Result<()> {
    let (name, network) = network(args)?;
    let predictor = args.predict.as_deref().map(open_predictor).transpose()?;
    let work = std::env::temp_dir().join(format!("gram-latency-measure-{}", std::process::id()));
    let bench = Bench::open(&args.device, &args.engine, &work)?;
    if let (Some(path), Some((file, _))) = (&args.predict, &predictor) {
        file.expect_device(path, bench.device()).map_err(file_failure)?;
    }
    let plan = Plan { threads: args.engine.threads, runs: args.runs, block: 1, ..Plan::default() };
    let prepared = Prepared::of_networks(vec![(name.clone(), network.clone())], ROUNDS, &plan, ANY_LAYOUT);
    let prepared = prepared.map_err(profile_failure)?;
    let records = bench.measure(&prepared, None, &work);
    let _ = std::fs::remove_dir_all(&work);
    let records = records?;
    let times = times(&records)?;
    let median_us = |networks: Vec<NetworkTime>| networks.first().map(|network| network.p50_us);
    let slowdown = predictor.as_ref().and_then(|(file, _)| {
        let (_, now) = prepared.own_networks(&records);
        Some(median_us(now)? / median_us(prepared.networks(&records, file.references()))?)
    });
    let over_rounds = |of: fn(&Times) -> f64| median(&times.iter().map(|times| of(times)).collect::<Vec<f64>>()) / 1e3;
    let predicted = predictor.map(|(_, predictor)| predictor.predict(&network)).transpose().map_err(predict_failure)?;
    let report = Report {
        name: &name,
        device: bench.device(),
        latency_ms: over_rounds(|times| times.p50_us),
        latency_ms_min: over_rounds(|times| times.min_us),
        latency_ms_p90: over_rounds(|times| times.p90_us),
        passes: times.iter().map(|times| times.n).sum(),
        predicted,
        slowdown,
    };
    if args.json {
        return output::json(&report);
    }
    print(&report);
    Ok(())
}

fn print(report: &Report<'_>) {
    let Report { name, device, latency_ms, latency_ms_min, latency_ms_p90, passes, predicted, slowdown } = report;
    output::line(format_args!("{name} on {device}"));
    output::line(format_args!(
        "median {latency_ms:.3} ms, fastest {latency_ms_min:.3}, slowest tenth from {latency_ms_p90:.3} ({passes} passes at batch 1)"
    ));
    if let Some(Prediction { ms, low, high, .. }) = predicted {
        let off = 100.0 * (ms / latency_ms - 1.0);
        output::line(format_args!("predicted {ms:.3} ms ({off:+.1} %), 90 % interval {low:.3} to {high:.3} ms"));
    }
    if let Some(slowdown) = slowdown {
        output::line(format_args!("the machine takes {slowdown:.3} times as long as when it was profiled"));
    }
}

pub(crate) fn open_predictor(path: &Path) -> Result<(gram_latency::DeviceFile, Predictor)> {
    let file = read_device(path)?;
    let predictor = Predictor::new(&file).map_err(predict_failure)?;
    Ok((file, predictor))
}

/// Median milliseconds of networks on this machine, which must be the device; else says why not. The inner error is the measurement's.
pub(crate) fn measured_here(
    device: &Device,
    networks: Vec<(String, Network)>,
) -> std::result::Result<Result<Vec<f64>>, String> {
    let args = EngineArgs {
        engine: EngineKind::Onnxruntime,
        library: None,
        threads: device.threads,
        runner: None,
        remote_folder: None,
        cores: None,
    };
    let work = std::env::temp_dir();
    let bench = Bench::open(&Place::Host, &args, &work).map_err(|failure| format!("{:#}", failure.error))?;
    let differences = bench.device().differences(device);
    if !differences.is_empty() {
        return Err(format!("this machine is not the device of the limit ({})", differences.join("; ")));
    }
    Ok(measure_all(&bench, &args, &work, networks))
}

fn measure_all(bench: &Bench, args: &EngineArgs, work: &Path, networks: Vec<(String, Network)>) -> Result<Vec<f64>> {
    let names: Vec<String> = networks.iter().map(|(name, _)| name.clone()).collect();
    let plan = Plan { threads: args.threads, ..Plan::default() };
    let prepared = Prepared::of_networks(networks, ROUNDS, &plan, ANY_LAYOUT).map_err(profile_failure)?;
    let records = bench.measure(&prepared, None, work)?;
    let (_, times) = prepared.own_networks(&records);
    let of = |name: &String| times.iter().find(|time| time.name == *name).map(|time| time.p50_us / 1e3);
    let missing = || Failure::new(Kind::Data, "the engine refuses a finalist");
    names.iter().map(|name| of(name).ok_or_else(missing)).collect()
}

/// The network and its name.
fn network(args: &MeasureArgs) -> Result<(String, Network)> {
    let path = Path::new(&args.model);
    if path.extension().is_some_and(|extension| extension == "onnx") {
        let bytes = read_bounded(path, MAX_MODEL_BYTES).or_fail(Kind::Data)?;
        let model = from_onnx(&bytes).or_fail_with(Kind::Data, path.display())?;
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("model").to_owned();
        return Ok((name, model.network));
    }
    let design = source::load(&args.model, args.input, args.classes)?;
    let network = design.lower().or_fail_with(Kind::Data, &args.model)?;
    Ok((design.name().to_owned(), network))
}

fn times(records: &[Record]) -> Result<Vec<&Times>> {
    let each = records.iter().map(|record| match &record.outcome {
        Outcome::Measured(times) => Ok(times),
        Outcome::Refused(reason) => Err(Failure::new(Kind::Data, format!("the engine refuses the model: {reason}"))),
    });
    each.collect()
}
