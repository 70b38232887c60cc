//! Latencies of a space's children on one device.

use serde::Serialize;

use super::seen::Drawn;

/// Milliseconds over a space's children: upper ends of predictions, which a limit binds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyRange {
    /// The least of a few hundred children, the cheapest and many small ones among them.
    pub least_seen: f64,
    /// A tenth of the prior's children take at most this.
    pub p10: f64,
    /// The median of the prior's children.
    pub p50: f64,
    /// A tenth of the prior's children take at least this.
    pub p90: f64,
    /// The most of a few hundred children, some with as many edges as may be among them.
    pub most_seen: f64,
}

impl LatencyRange {
    /// None if nothing could be predicted of typical children.
    pub(super) fn new(typical: &[Drawn], least_seen: Option<f64>, dear: &[Drawn]) -> Option<Self> {
        let latencies = |drawn: &[Drawn]| drawn.iter().filter_map(|drawn| drawn.latency_ms).collect::<Vec<_>>();
        let mut drawn = latencies(typical);
        drawn.sort_by(f64::total_cmp);
        let last = drawn.len().checked_sub(1)?;
        let quantile = |tenths: usize| drawn[last * tenths / 10];
        let all = || drawn.iter().copied().chain(least_seen).chain(latencies(dear));
        let (least_seen, most_seen) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        Some(Self { least_seen, p10: quantile(1), p50: quantile(5), p90: quantile(9), most_seen })
    }
}
