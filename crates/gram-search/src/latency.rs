//! Hard limits on latency: predicted, for nothing is measured during a search.

use std::fmt;
use std::sync::Arc;

use gram_ir::Network;
use serde::{Deserialize, Serialize};

/// Predicts the latency of networks on one device. A pure function of the network.
pub trait LatencyModel: Send + Sync {
    /// Upper end of the prediction's interval, in milliseconds; none for a network with an operator that the device's table lacks.
    fn upper_ms(&self, network: &Network) -> Option<f64>;
}

/// A limit as the journal has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyConfig {
    /// Most milliseconds that the upper end of a prediction may be.
    pub max_ms: f64,
    /// What predicts: a digest of the device's table and fit.
    pub model: String,
}

/// A limit with the model that it is checked by.
#[derive(Clone)]
pub struct LatencyLimit {
    /// Most milliseconds that the upper end of a prediction may be.
    pub max_ms: f64,
    /// What predicts.
    pub model: Arc<dyn LatencyModel>,
}

impl LatencyLimit {
    /// Whether the network keeps the limit. One that cannot be predicted does not.
    pub fn allows(&self, network: &Network) -> bool {
        self.model.upper_ms(network).is_some_and(|ms| ms <= self.max_ms)
    }
}

impl fmt::Debug for LatencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatencyLimit").field("max_ms", &self.max_ms).finish_non_exhaustive()
    }
}
