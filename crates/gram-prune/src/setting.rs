//! What networks are chosen from, by what, and within which limits.

use gram_ir::{Architecture, CellNodeId, EdgeMap, Limits, Network, Shape, Space};

use crate::{PrunableStage, PruneError};

/// A study as far as choosing needs it: one concrete space, a belief in every edge, and models of what only others know.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The space; its widths, repeats and resolution are fixed.
    pub space: &'a Space,
    /// Shape of one image.
    pub input: Shape,
    /// Number of classes.
    pub num_classes: usize,
    /// Operators and beliefs, one per stage of the space.
    pub stages: &'a [PrunableStage<'a>],
    /// Hard limits on exact costs.
    pub limits: &'a Limits,
    /// Most milliseconds that the upper end of a predicted latency may be. Without a model nothing keeps it.
    pub max_latency_ms: Option<f64>,
    /// Predicts latencies, if a device is given.
    pub latency: Option<&'a dyn LatencyModel>,
    /// Expects accuracies, if enough children were trained; else networks are ranked by retained weight.
    pub accuracy: Option<&'a dyn AccuracyModel>,
}

/// Predicts the latency of networks on one device. A pure function of the network.
pub trait LatencyModel {
    /// None for a network that cannot be predicted; it keeps no limit.
    fn latency(&self, network: &Network) -> Option<Latency>;
}

/// Expects the accuracy of networks. A pure function of the architecture.
pub trait AccuracyModel {
    /// For an architecture of the setting's space; its nodes are numbered as in the stages' complete DAGs.
    fn expected(&self, architecture: &Architecture) -> Expectation;
}

/// A predicted latency of one forward pass at batch 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Milliseconds.
    pub ms: f64,
    /// Lower end of the prediction's interval.
    pub low_ms: f64,
    /// Upper end: what a limit is about.
    pub high_ms: f64,
}

/// An expected validation top-1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// Expectation, in `0..=1`; finite.
    pub mean: f64,
    /// Standard deviation of one training around it.
    pub sd: f64,
    /// Lower end of an interval of one training.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Setting<'_> {
    /// Refuses stages, weights or a space that are not usable.
    pub(crate) fn check(&self) -> Result<(), PruneError> {
        crate::prune::check(self.space, self.stages)
    }
}

/// Sum of the log-odds `ln(w / (1 − w))` of a cell's edges; an edge without a weight adds nothing.
pub(crate) fn retained_weight(cell: &gram_ir::Cell, weights: &EdgeMap<f64>) -> f64 {
    let log_odds =
        |(from, to): (CellNodeId, CellNodeId)| weights.get(from, to).map(|weight| (weight / (1.0 - weight)).ln());
    cell.edges().into_iter().filter_map(log_odds).sum()
}
