//! Why nothing keeps the limits: which of them bind, and how low each cost goes.

use std::fmt;

use gram_ir::{Cost, Limits, Macs, Params, grouped};

use crate::choose::Pricing;
use crate::proposals::Proposal;
use crate::{PruneError, Setting};

/// A hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// On multiply–accumulates.
    Macs,
    /// On trainable scalars.
    Params,
    /// On bytes of feature maps that are alive at one time.
    PeakBytes,
    /// On the upper end of the predicted latency.
    Latency,
}

impl Limit {
    const ALL: [Self; 4] = [Self::Macs, Self::Params, Self::PeakBytes, Self::Latency];

    /// The field's name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Macs => "macs",
            Self::Params => "params",
            Self::PeakBytes => "peak_bytes",
            Self::Latency => "latency_ms",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Macs => "MACs",
            Self::Params => "params",
            Self::PeakBytes => "peak bytes",
            Self::Latency => "latency",
        })
    }
}

/// The least value of each cost, each of a network of its own perhaps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Least {
    /// Fewest MACs.
    pub macs: Macs,
    /// Fewest params.
    pub params: Params,
    /// Fewest peak bytes of the networks that were scheduled.
    pub peak_bytes: Option<u64>,
    /// Lowest upper end of a predicted latency; none without a device.
    pub latency_ms: Option<f64>,
}

/// Limits that no network of a study keeps.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "no network of the study keeps the limits{}: the smallest possible have {}; what binds: {}{}",
    describe(.limits, *.max_latency_ms),
    list(.least),
    join(.binding),
    if *.each_alone { " (each can be met alone, but not together)" } else { "" }
)]
pub struct Unmeetable {
    /// What was asked for.
    pub limits: Limits,
    /// What was asked for, in milliseconds.
    pub max_latency_ms: Option<f64>,
    /// How low each cost goes.
    pub least: Least,
    /// Limits that no network keeps even alone; where there is none, those without which a network would keep the others; where there is
    /// none again, those that most networks break. Sorted.
    pub binding: Vec<Limit>,
    /// Whether some network keeps each limit.
    pub each_alone: bool,
}

/// Why nothing was chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// Nothing keeps the limits.
    #[error(transparent)]
    Unmeetable(#[from] Box<Unmeetable>),
    /// The setting is not usable, or no network fits the input.
    #[error(transparent)]
    Prune(#[from] PruneError),
}

/// So many candidates, evenly spread, are scheduled to say how low peak bytes and latency go.
const MAX_SCHEDULED: usize = 512;

impl Unmeetable {
    /// Looks at candidates of which none keeps the limits. `least` are MACs and params as low as is known already.
    pub(crate) fn new(
        setting: &Setting<'_>,
        least: Option<(Macs, Params)>,
        candidates: &[(Proposal, Cost)],
        pricing: &Pricing<'_>,
    ) -> Box<Self> {
        let (limits, max_latency_ms) = (*setting.limits, setting.max_latency_ms);
        let costs = || candidates.iter().map(|(_, cost)| cost);
        let (macs, params) = least.unzip();
        let mut least = Least {
            macs: costs().map(|cost| cost.macs).chain(macs).min().unwrap_or_default(),
            params: costs().map(|cost| cost.params).chain(params).min().unwrap_or_default(),
            peak_bytes: None,
            latency_ms: None,
        };
        let mut broken: Vec<Vec<Limit>> = Vec::new();
        for (proposal, cost) in crate::prune::spread(candidates, MAX_SCHEDULED) {
            let Some(network) = pricing.network_costs(proposal) else { continue };
            least.peak_bytes = least.peak_bytes.into_iter().chain(network.peak_bytes).min();
            let ms = network.latency.map(|latency| latency.high_ms);
            least.latency_ms = least.latency_ms.into_iter().chain(ms).reduce(f64::min);
            let breaks = |limit: &Limit| match limit {
                Limit::Macs => limits.max_macs.is_some_and(|most| cost.macs > most),
                Limit::Params => limits.max_params.is_some_and(|most| cost.params > most),
                Limit::PeakBytes => {
                    limits.max_peak_bytes.is_some_and(|most| network.peak_bytes.is_none_or(|bytes| bytes > most))
                }
                Limit::Latency => !pricing.is_quick(network.latency),
            };
            broken.push(Limit::ALL.into_iter().filter(breaks).collect());
        }
        let (binding, each_alone) = binding(&limits, max_latency_ms, &least, &broken);
        Box::new(Self { limits, max_latency_ms, least, binding, each_alone })
    }
}

/// Limits that bind, and whether each can be met alone; `broken` are the limits that each network breaks.
fn binding(limits: &Limits, max_ms: Option<f64>, least: &Least, broken: &[Vec<Limit>]) -> (Vec<Limit>, bool) {
    let is_beyond = |limit: &Limit| match limit {
        Limit::Macs => limits.max_macs.is_some_and(|most| least.macs > most),
        Limit::Params => limits.max_params.is_some_and(|most| least.params > most),
        Limit::PeakBytes => limits.max_peak_bytes.is_some_and(|most| least.peak_bytes.is_none_or(|bytes| bytes > most)),
        Limit::Latency => max_ms.is_some_and(|most| least.latency_ms.is_none_or(|ms| ms > most)),
    };
    let pick = |holds: &dyn Fn(&Limit) -> bool| Limit::ALL.into_iter().filter(|limit| holds(limit)).collect::<Vec<_>>();
    let beyond = pick(&is_beyond);
    if !beyond.is_empty() {
        return (beyond, false);
    }
    let alone = pick(&|limit| broken.iter().any(|all| all.as_slice() == [*limit]));
    if !alone.is_empty() {
        return (alone, true);
    }
    let count = |limit: &Limit| broken.iter().filter(|all| all.contains(limit)).count();
    let most = Limit::ALL.iter().map(count).max().unwrap_or(0);
    (pick(&|limit| most > 0 && count(limit) == most), true)
}

/// ` (at most 9 MACs, at most 5 params)`
fn describe(limits: &Limits, max_ms: Option<f64>) -> String {
    let macs = limits.max_macs.map(|most| most.to_string());
    let params = limits.max_params.map(|most| most.to_string());
    let peak = limits.max_peak_bytes.map(|most| format!("{} peak bytes", grouped(most)));
    let ms = max_ms.map(|most| format!("{most} ms"));
    let parts: Vec<String> =
        [macs, params, peak, ms].into_iter().flatten().map(|most| format!("at most {most}")).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// `9 MACs, 5 params, 64 peak bytes and 0.1 ms`
fn list(least: &Least) -> String {
    let peak = least.peak_bytes.map(|bytes| format!("{} peak bytes", grouped(bytes)));
    let ms = least.latency_ms.map(|ms| format!("{ms:.4} ms"));
    let parts: Vec<String> =
        [Some(least.macs.to_string()), Some(least.params.to_string()), peak, ms].into_iter().flatten().collect();
    let (last, others) = parts.split_last().expect("invariant: there are MACs");
    format!("{} and {last}", others.join(", "))
}

fn join(binding: &[Limit]) -> String {
    binding.iter().map(Limit::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_macs: Some(Macs(1000)),
        max_params: Some(Params(70)),
        max_peak_bytes: Some(4096),
        memory: gram_ir::MemoryModel {
            dtype: gram_ir::Dtype::F32,
            concat: gram_ir::Concat::Copy,
            partial: false,
            separable: gram_ir::Separable::Fused,
        },
    };

    fn least(macs: u64, params: u64, peak: u64, ms: Option<f64>) -> Least {
        Least { macs: Macs(macs), params: Params(params), peak_bytes: Some(peak), latency_ms: ms }
    }

    #[test]
    fn what_binds() {
        use Limit::{Latency, Macs, Params, PeakBytes};
        let of = |max_ms, least: Least, broken: &[&[Limit]]| {
            binding(&LIMITS, max_ms, &least, &broken.iter().map(|all| all.to_vec()).collect::<Vec<_>>())
        };
        // Beyond what any network has.
        assert_eq!(of(None, least(1001, 70, 4097, None), &[&[Macs, PeakBytes]]), (vec![Macs, PeakBytes], false));
        assert_eq!(of(Some(1.0), least(1, 1, 1, None), &[]), (vec![Latency], false), "nothing is predicted");
        // One network would do without the limit on params, another without that on latency.
        let broken: [&[Limit]; 4] = [&[Params], &[Macs, PeakBytes], &[Latency], &[Macs, Latency]];
        assert_eq!(of(Some(1.0), least(1, 1, 1, Some(0.5)), &broken), (vec![Params, Latency], true));
        // All break two.
        assert_eq!(of(None, least(1, 1, 1, None), &[&[Macs, Params], &[Macs, PeakBytes]]), (vec![Macs], true));
    }

    #[test]
    fn the_message_says_all_of_it() {
        let error = Unmeetable {
            limits: LIMITS,
            max_latency_ms: Some(0.5),
            least: least(1200, 60, 2048, Some(0.25)),
            binding: vec![Limit::Macs],
            each_alone: false,
        };
        assert_eq!(
            error.to_string(),
            "no network of the study keeps the limits (at most 1,000 MACs, at most 70 params, at most 4,096 peak bytes, at most 0.5 ms): \
             the smallest possible have 1,200 MACs, 60 params, 2,048 peak bytes and 0.2500 ms; what binds: MACs"
        );
        let together = Unmeetable { binding: vec![Limit::Macs, Limit::Latency], each_alone: true, ..error };
        assert!(together.to_string().ends_with("MACs, latency (each can be met alone, but not together)"));
    }
}
