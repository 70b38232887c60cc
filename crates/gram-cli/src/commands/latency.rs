//! `gram latency …`.

mod adapt;
mod check;
mod engine;
mod fit;
mod measure;
mod place;
mod profile;
mod transfer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use gram_latency::profile::ProfileError;
use gram_latency::remote::RemoteError;
use gram_latency::{AdaptError, DeviceFile, DeviceFileError, MeasureError, PredictError};
use gram_latency_runner::{EngineError, RunError};

pub(crate) use measure::{measured_here, open_predictor};

use crate::failure::{Failure, Kind, Result};
use crate::{interrupt, output};

#[derive(Debug, Subcommand)]
pub(crate) enum LatencyCommand {
    /// Measure kernels and whole networks of a device and fit what predicts others; run the same command again to continue
    Profile(profile::ProfileArgs),
    /// Fit a device file anew
    Fit(fit::FitArgs),
    /// Predict the latency of an architecture, with a 90 % interval
    Predict(fit::PredictArgs),
    /// Measure the latency of a model or an architecture
    Measure(measure::MeasureArgs),
    /// Make a device file for a new device out of those of known ones and a few measurements
    Adapt(adapt::AdaptArgs),
    /// Hold a device file's predictions against measurements of networks that it has not seen
    Check(check::CheckArgs),
    /// Few-shot transfer to each device of a table of latencies, the others being known
    Transfer(transfer::TransferArgs),
}

pub(crate) fn run(command: &LatencyCommand) -> Result<()> {
    match command {
        LatencyCommand::Profile(args) => profile::run(args),
        LatencyCommand::Fit(args) => fit::run(args),
        LatencyCommand::Predict(args) => fit::predict(args),
        LatencyCommand::Measure(args) => measure::run(args),
        LatencyCommand::Adapt(args) => adapt::run(args),
        LatencyCommand::Check(args) => check::run(args),
        LatencyCommand::Transfer(args) => transfer::run(args),
    }
}

fn read_device(path: &Path) -> Result<DeviceFile> {
    DeviceFile::read(path).map_err(file_failure)
}

fn file_failure(error: DeviceFileError) -> Failure {
    Failure { kind: Kind::Data, error: error.into() }
}

pub(crate) fn predict_failure(error: PredictError) -> Failure {
    let kind = if matches!(error, PredictError::NotFitted) { Kind::Usage } else { Kind::Data };
    Failure { kind, error: error.into() }
}

fn profile_failure(error: ProfileError) -> Failure {
    let kind = match &error {
        ProfileError::Family { .. } => Kind::Usage,
        ProfileError::Nothing { .. } => Kind::Data,
        _ => Kind::Internal,
    };
    Failure { kind, error: error.into() }
}

fn adapt_failure(error: AdaptError) -> Failure {
    let kind = match &error {
        AdaptError::NoKnownDevice | AdaptError::Family(_) => Kind::Usage,
        _ => Kind::Data,
    };
    Failure { kind, error: error.into() }
}

fn engine_failure(error: EngineError) -> Failure {
    let kind = if matches!(error, EngineError::NotFound(_)) { Kind::Usage } else { Kind::Data };
    Failure { kind, error: error.into() }
}

/// What stopped a measurement; where going on is all that is left to do, the exit code says so.
fn measure_failure(error: MeasureError) -> Failure {
    let kind = match error {
        MeasureError::Stopped => return interrupt::failure("what was measured is kept"),
        MeasureError::Profile(error) => return profile_failure(error),
        MeasureError::Run(RunError::Host(inner)) => return measure_failure(*inner),
        MeasureError::Run(RunError::Noisy { .. }) => Kind::Interrupted,
        _ => Kind::Data,
    };
    Failure { kind, error: error.into() }
}

fn remote_failure(error: RemoteError) -> Failure {
    let kind = match &error {
        RemoteError::Gone { .. } | RemoteError::Incomplete { .. } => Kind::Interrupted,
        _ => Kind::Data,
    };
    Failure { kind, error: error.into() }
}

/// `file` with `suffix` behind its name.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    file.with_file_name(name)
}

/// Says which models the engine did not take.
fn note_refused(refused: &BTreeMap<String, String>) {
    for (what, why) in refused {
        output::note(format_args!("refused: {what}: {why}"));
    }
}
