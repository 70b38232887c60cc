//! The device that latencies are predicted for, and the limit on them.

use std::path::{Path, PathBuf};

use gram_ir::Network;
use gram_latency::{Prediction, Predictor};
use gram_prune::{Latency, LatencyModel};

use crate::args::PruneArgs;
use crate::commands::latency::{open_predictor, predict_failure};
use crate::commands::space::NO_DEVICE;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::read_text;
use crate::output;

use super::study::StudyOf;

/// A device, if one is known, and a limit, if there is one.
pub(super) struct Device {
    pub(super) clock: Option<Clock>,
    pub(super) max_ms: Option<f64>,
}

/// A device's predictor as the pruner wants it.
pub(super) struct Clock(Predictor);

impl LatencyModel for Clock {
    fn latency(&self, network: &Network) -> Option<Latency> {
        let Prediction { ms, low, high, .. } = self.0.predict(network).ok()?;
        Some(Latency { ms, low_ms: low, high_ms: high })
    }
}

impl Clock {
    /// Refuses a table that lacks an operator of all the study's children.
    pub(super) fn require(&self, study: &StudyOf) -> Result<()> {
        let networks = study.children.iter().filter_map(|child| child.architecture.lower().ok());
        let mut failed = None;
        for network in networks {
            match self.0.predict(&network) {
                Ok(_) => return Ok(()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error| Err(predict_failure(error)))
    }
}

/// Opens the device that is asked for, or else the one of the study's own limit; limits that are not given are the study's own, where they
/// are about the same device.
///
/// # Errors
/// Exit code 2 for a limit that is none or is about no device, 4 for a file that is unusable or was not fitted.
pub(super) fn open(args: &PruneArgs, study: &StudyOf) -> Result<Device> {
    if let Some(ms) = args.max_latency_ms.filter(|ms| !(*ms > 0.0 && ms.is_finite())) {
        return Err(Failure::new(Kind::Usage, format!("--max-latency-ms is {ms}, it must be above 0")));
    }
    let own = study.config.latency.as_ref();
    let digest = |path: &Path| read_text(path).map(|text| blake3::hash(text.as_bytes()).to_hex().to_string());
    let is_own = |path: &Path| own.is_some_and(|own| digest(path).is_ok_and(|digest| digest == own.model));
    if let Some(path) = &args.latency_device {
        let (_, predictor) = open_predictor(path)?;
        let own_ms = if is_own(path) { own.map(|own| own.max_ms) } else { None };
        return Ok(Device { clock: Some(Clock(predictor)), max_ms: args.max_latency_ms.or(own_ms) });
    }
    if let Some(own) = own {
        if let Some(path) = device_of(&study.dir)?.filter(|path| is_own(path)) {
            let (_, predictor) = open_predictor(&path)?;
            return Ok(Device { clock: Some(Clock(predictor)), max_ms: args.max_latency_ms.or(Some(own.max_ms)) });
        }
        if args.max_latency_ms.is_none() {
            output::note(format_args!(
                "the study's limit of {} ms is not kept: its device file is not where it was; name it with --latency-device",
                own.max_ms
            ));
        }
    }
    match args.max_latency_ms {
        Some(_) => Err(Failure::new(Kind::Usage, NO_DEVICE)),
        None => Ok(Device { clock: None, max_ms: None }),
    }
}

/// The device file that the study's configuration names.
fn device_of(dir: &Path) -> Result<Option<PathBuf>> {
    let file = dir.join("study.toml");
    if !file.is_file() {
        return Ok(None);
    }
    let table: toml::Table = toml::from_str(&read_text(&file)?).or_fail_with(Kind::Data, file.display())?;
    let path = table.get("latency").and_then(|latency| latency.get("device")).and_then(toml::Value::as_str);
    Ok(path.map(PathBuf::from))
}
