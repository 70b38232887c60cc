//! A study's limit on latency: predicted during the search, measured at its end.

use std::path::Path;
use std::sync::Arc;

use gram_ir::Network;
use gram_latency::{Prediction, Predictor};
use gram_search::{LatencyConfig, LatencyLimit, LatencyModel};

use crate::commands::latency::{measured_here, open_predictor, predict_failure};
use crate::failure::{Failure, Kind, Result};
use crate::model_dir::read_text;
use crate::output;
use crate::study::config::LatencySettings;

/// A limit, and the device that it is about.
pub(crate) struct Latency {
    pub(crate) limit: LatencyLimit,
    /// The limit as the journal has it.
    pub(crate) config: LatencyConfig,
    predictor: Arc<Predictor>,
}

struct UpperEnd(Arc<Predictor>);

impl LatencyModel for UpperEnd {
    fn upper_ms(&self, network: &Network) -> Option<f64> {
        self.0.predict(network).ok().map(|prediction| prediction.high)
    }
}

impl Latency {
    /// Opens the device file.
    ///
    /// # Errors
    /// Exit code 2 for a limit that is none, 4 for a file that is unusable or was not fitted.
    pub(crate) fn open(settings: &LatencySettings) -> Result<Self> {
        let LatencySettings { max_ms, device } = settings;
        if device.is_empty() {
            let message = "a limit on latency needs a device: --latency-device FILE, written by gram latency profile";
            return Err(Failure::new(Kind::Usage, message));
        }
        let path = Path::new(device);
        let (_, predictor) = open_predictor(path)?;
        let predictor = Arc::new(predictor);
        let model = blake3::hash(read_text(path)?.as_bytes()).to_hex().to_string();
        let config = LatencyConfig { max_ms: *max_ms, model };
        let limit = LatencyLimit { max_ms: *max_ms, model: Arc::new(UpperEnd(predictor.clone())) };
        Ok(Self { limit, config, predictor })
    }

    /// Refuses a table that lacks an operator of these networks, which are to stand for the space's.
    pub(crate) fn require(&self, networks: &[Network]) -> Result<()> {
        networks.iter().try_for_each(|network| self.predict(network).map(drop))
    }

    pub(crate) fn predict(&self, network: &Network) -> Result<Prediction> {
        self.predictor.predict(network).map_err(predict_failure)
    }

    /// Median milliseconds of each network on this machine; none, and a note, where this machine is not the limit's device.
    pub(crate) fn measure(&self, networks: Vec<(String, Network)>) -> Result<Option<Vec<f64>>> {
        let device = self.predictor.device();
        match measured_here(device, networks) {
            Ok(measured) => measured.map(Some),
            Err(why) => {
                output::note(format_args!("finalists are not measured: {why}; the limit rests on predictions"));
                Ok(None)
            }
        }
    }
}
