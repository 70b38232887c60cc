//! Which limit binds: what each of them refuses of what a search draws.

use std::fmt;

use serde::Serialize;

use gram_ir::Limits;

use super::seen::Drawn;

/// A hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// On multiply–accumulates.
    Macs,
    /// On trainable scalars.
    Params,
    /// On bytes of feature maps that are alive at one time.
    PeakBytes,
    /// On the upper end of the predicted latency, in milliseconds.
    LatencyMs,
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Macs => "MACs",
            Self::Params => "params",
            Self::PeakBytes => "peak bytes",
            Self::LatencyMs => "latency",
        })
    }
}

/// What one limit means for the children that are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LimitUse {
    /// Which limit.
    pub limit: LimitKind,
    /// Its value, in the unit of the cost.
    pub most: f64,
    /// Share of the prior's children that break it, `0..=1`.
    pub refused: f64,
    /// The limit over the cost of the median child; none where that is not known.
    pub of_typical: Option<f64>,
}

/// Every limit that is set.
pub(super) fn uses(limits: &Limits, max_ms: Option<f64>, drawn: &[Drawn], typical: &Typical) -> Vec<LimitUse> {
    let of = |limit, most: Option<f64>, typical: Option<f64>, cost: &dyn Fn(&Drawn) -> Option<f64>| {
        most.map(|most| {
            // What cannot be told keeps no limit.
            let n_refused = drawn.iter().filter(|drawn| cost(drawn).is_none_or(|cost| cost > most)).count();
            let refused = n_refused as f64 / drawn.len().max(1) as f64;
            LimitUse { limit, most, refused, of_typical: typical.map(|typical| most / typical) }
        })
    };
    let (max_macs, max_params) =
        (limits.max_macs.map(|most| most.0 as f64), limits.max_params.map(|most| most.0 as f64));
    let max_peak = limits.max_peak_bytes.map(|most| most as f64);
    let Typical { macs, params, peak_bytes, latency_ms } = *typical;
    [
        of(LimitKind::Macs, max_macs, Some(macs), &|drawn| Some(drawn.cost.macs.0 as f64)),
        of(LimitKind::Params, max_params, Some(params), &|drawn| Some(drawn.cost.params.0 as f64)),
        of(LimitKind::PeakBytes, max_peak, Some(peak_bytes), &|drawn| drawn.peak_bytes.map(|bytes| bytes as f64)),
        of(LimitKind::LatencyMs, max_ms, latency_ms, &|drawn| drawn.latency_ms),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Median costs of the prior's children.
#[derive(Clone, Copy, Debug)]
pub(super) struct Typical {
    pub(super) macs: f64,
    pub(super) params: f64,
    pub(super) peak_bytes: f64,
    pub(super) latency_ms: Option<f64>,
}

/// The limit that refuses most draws; of equals the one that is lowest beside a typical child.
pub(super) fn tightest(uses: &[LimitUse]) -> Option<LimitKind> {
    let share = |limit: &LimitUse| limit.of_typical.unwrap_or(f64::INFINITY);
    let tighter = |a: &&LimitUse, b: &&LimitUse| {
        a.refused.total_cmp(&b.refused).then(share(b).total_cmp(&share(a))).then(b.limit.cmp(&a.limit))
    };
    uses.iter().max_by(tighter).map(|tightest| tightest.limit)
}

/// Share of the prior's children that keep all limits.
pub(super) fn kept_by_all(limits: &Limits, max_ms: Option<f64>, drawn: &[Drawn]) -> f64 {
    let keeps = |drawn: &&Drawn| {
        limits.allow(&drawn.cost)
            && limits.max_peak_bytes.is_none_or(|most| drawn.peak_bytes.is_some_and(|bytes| bytes <= most))
            && max_ms.is_none_or(|most| drawn.latency_ms.is_some_and(|ms| ms <= most))
    };
    drawn.iter().filter(keeps).count() as f64 / drawn.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::{Cost, Macs, Params};

    fn drawn(macs: u64, params: u64, peak: u64, ms: Option<f64>) -> Drawn {
        let cost = Cost { macs: Macs(macs), params: Params(params), ..Cost::default() };
        Drawn { cost, peak_bytes: Some(peak), latency_ms: ms }
    }

    #[test]
    fn uses_by_hand() {
        let children =
            [drawn(10, 4, 7, Some(1.0)), drawn(20, 3, 8, Some(2.0)), drawn(30, 2, 9, None), drawn(40, 1, 9, Some(0.5))];
        let limits = Limits {
            max_macs: Some(Macs(25)),
            max_params: Some(Params(2)),
            max_peak_bytes: Some(9),
            ..Limits::default()
        };
        let typical = Typical { macs: 20.0, params: 2.0, peak_bytes: 8.0, latency_ms: Some(1.0) };
        let found = uses(&limits, Some(1.0), &children, &typical);
        let shares: Vec<_> = found.iter().map(|u| (u.limit, u.refused, u.of_typical.unwrap())).collect();
        assert_eq!(
            shares,
            [
                (LimitKind::Macs, 0.5, 1.25),
                (LimitKind::Params, 0.5, 1.0),
                (LimitKind::PeakBytes, 0.0, 9.0 / 8.0),
                (LimitKind::LatencyMs, 0.5, 1.0)
            ]
        );
        assert_eq!(
            tightest(&found),
            Some(LimitKind::Params),
            "of equals the lowest beside the typical, then the first"
        );
        assert_eq!(kept_by_all(&limits, Some(1.0), &children), 0.0);
        assert_eq!(kept_by_all(&limits, None, &children), 0.0);
        assert_eq!(kept_by_all(&Limits { max_params: None, ..limits }, None, &children), 0.5);
        assert_eq!(tightest(&[]), None);
    }
}
