//! `gram latency fit` and `gram latency predict`.

use std::path::PathBuf;

use clap::Args;
use gram_ir::Shape;
use gram_latency::{Prediction, Predictor, fit};
use gram_latency_runner::Device;
use serde::Serialize;

use super::{file_failure, predict_failure, profile, read_device};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::{output, source};

#[derive(Args, Debug)]
pub(crate) struct FitArgs {
    /// Device file to fit, in place
    device: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PredictArgs {
    /// `architecture.json`, a text form, a preset's name, or a folder of a trained model
    architecture: String,
    /// Device file
    #[arg(long, value_name = "FILE")]
    device: PathBuf,
    /// Image shape
    #[arg(long, value_name = "CxHxW")]
    input: Option<Shape>,
    /// Number of classes
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    device: &'a Device,
    latency_ms: f64,
    latency_ms_low: f64,
    latency_ms_high: f64,
    kernels: u32,
    estimated_kernels: u32,
}

pub(crate) fn run(args: &FitArgs) -> Result<()> {
    let mut file = read_device(&args.device)?;
    if file.borrowed_from.is_some() {
        let message = "its table is borrowed, so it was fitted by `gram latency adapt`; run that again";
        return Err(Failure::new(Kind::Usage, format!("{}: {message}", args.device.display())));
    }
    file.fit = Some(fit(&file).or_fail_with(Kind::Data, args.device.display())?);
    file.write(&args.device).map_err(file_failure)?;
    profile::report(&file, args.json)
}

pub(crate) fn predict(args: &PredictArgs) -> Result<()> {
    let predictor = Predictor::new(&read_device(&args.device)?).map_err(predict_failure)?;
    let design = source::load(&args.architecture, args.input, args.classes)?;
    let network = design.lower().or_fail_with(Kind::Data, &args.architecture)?;
    let Prediction { ms, low, high, n_kernels, n_estimated } = predictor.predict(&network).map_err(predict_failure)?;
    let (name, device) = (design.name(), predictor.device());
    if args.json {
        return output::json(&Report {
            name,
            device,
            latency_ms: ms,
            latency_ms_low: low,
            latency_ms_high: high,
            kernels: n_kernels,
            estimated_kernels: n_estimated,
        });
    }
    output::line(format_args!("{name} on {device}"));
    output::line(format_args!("{ms:.3} ms, 90 % interval {low:.3} to {high:.3} ms (median at batch 1)"));
    if n_estimated > 0 {
        output::line(format_args!("{n_estimated} of {n_kernels} kernels are not in the table and were estimated"));
    }
    Ok(())
}
