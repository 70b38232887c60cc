//! Preflight: what a space costs at least, typically and at most, and which limits can be met, before anything is trained.

mod binding;
mod extremes;
mod latencies;
mod peaks;
mod prices;
mod seen;
mod size;

use std::collections::BTreeSet;

use gram_ir::{Blueprint, Cost, Limits, LowerError, Macs, Network, NodeOperators, Params, Shape, Space, grouped};
use gram_meta::{MetaConfig, MetaGraph, MetaGraphError, SampleError};
use serde::Serialize;

use crate::{Gate, LatencyModel};

pub use binding::{LimitKind, LimitUse};
use binding::{Typical, kept_by_all, tightest, uses};
use extremes::{Objective, most, smallest};
pub use latencies::LatencyRange;
pub use peaks::PeakRange;
use prices::Prices;
pub(crate) use seen::{LeastSeen, small};
use size::log10_children;

/// What a space can cost, and whether limits can be met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preflight {
    /// Multiply–accumulates of one forward pass at batch 1.
    pub macs: CostRange,
    /// Trainable scalars.
    pub params: CostRange,
    /// Bytes of feature maps that are alive at one time.
    pub peak_bytes: PeakRange,
    /// Milliseconds, upper ends of predictions; where a device is given that knows the space's operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<LatencyRange>,
    /// How many children each stage has.
    pub stages: Vec<StageSize>,
    /// log10 of the number of children: distinct sets of edges from live nodes that are feasible, in every layout, limits not considered. Isomorphic ones are
    /// counted apart.
    pub log10_children: f64,
    /// The limits that were asked about.
    pub limits: Limits,
    /// The limit on latency that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_latency_ms: Option<f64>,
    /// What each limit means for the prior's children.
    pub limit_uses: Vec<LimitUse>,
    /// The limit that refuses most of the prior's children, of equals the lowest one beside the median child; none without limits.
    pub binding: Option<LimitKind>,
    /// Share of the prior's children that keep all limits, `0..=1`.
    pub kept: f64,
    /// Whether a child keeps them.
    pub feasibility: Feasibility,
}

/// Range of one cost over a space's children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CostRange {
    /// The cost of the cheapest child; exact.
    pub min: u64,
    /// A tenth of the prior's children cost at most this; of 256 that the search's own sampler drew.
    pub p10: u64,
    /// The median of the prior's children.
    pub p50: u64,
    /// A tenth of the prior's children cost at least this.
    pub p90: u64,
    /// No child costs more; most spaces have one that costs exactly this.
    pub max: u64,
}

/// Size of one stage's space.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StageSize {
    /// Nodes of the complete DAG, the input among them.
    pub nodes: usize,
    /// log10 of the number of feasible sets of edges from live nodes.
    pub log10_children: f64,
}

/// Whether a child keeps the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feasibility {
    /// One is known that does.
    Met,
    /// Proved: none does.
    Unmeetable,
    /// Whether one child meets all limits was not decided: each can be met alone, as far as MACs and params go.
    Undecided,
}

/// Costs of the space's children and whether `limits` can be met. `seed` deals the operators, as it does in a study.
///
/// The least costs are exact: a cheapest child has, in each stage, at most one node that is no leaf (see the module `extremes`), so
/// that the search over stages and widths is small. Several limits at once are decided by the cheapest children under some weightings of
/// the costs: one of them may keep all limits, and a weighted sum that exceeds the limits' own proves that none can. A limit on peak bytes
/// is proved unmeetable only where the stem alone breaks it.
///
/// # Errors
/// [`PreflightError`] if the space is not usable or its network cannot be built for this input.
/// # Complexity
/// Milliseconds for three stages of 30 nodes.
pub fn preflight(
    space: &Space,
    input: Shape,
    num_classes: usize,
    limits: &Limits,
    seed: u64,
) -> Result<Preflight, PreflightError> {
    preflight_on(&Gate { space, input, num_classes, limits, latency: None }, None, seed)
}

/// As [`preflight()`], with latencies: `device` predicts them, the gate's limit on them may be none.
///
/// That a limit on latency is met is proved by a child that keeps it; that it cannot be met is never proved.
///
/// # Errors
/// As for [`preflight()`].
/// # Complexity
/// That of [`preflight()`], and a prediction for each of some hundred children.
pub fn preflight_on(
    gate: &Gate<'_>,
    device: Option<&dyn LatencyModel>,
    seed: u64,
) -> Result<Preflight, PreflightError> {
    let Gate { space, input, num_classes, limits, latency } = *gate;
    let max_latency_ms = latency.map(|limit| limit.max_ms);
    let meta = MetaGraph::new(space, MetaConfig::default(), seed)?;
    let mut prices = Prices::of(space, input, num_classes)?;
    let Extremes { least_macs, least_params, peak_at_least, feasibility, cheapest, .. } =
        decide(&meta, gate, &mut prices)?;
    let most_macs = most(&meta, &mut prices, Objective::MACS);
    let most_params = most(&meta, &mut prices, Objective::PARAMS);
    let drawn = seen::typical(&meta, gate, device, seed)?;
    let least = seen::small(&meta, gate, device, &cheapest, seed)?;
    let dear = seen::dear(&meta, gate, device)?;
    let range = |min, max: f64, of: fn(&Cost) -> u64| {
        CostRange::new(min, drawn.iter().map(|drawn| of(&drawn.cost)).collect(), max as u64)
    };
    let (macs, params) = (
        range(least_macs.macs.0, most_macs, |cost| cost.macs.0),
        range(least_params.params.0, most_params, |cost| cost.params.0),
    );
    let peak_bytes = PeakRange::new(peak_at_least, &drawn, least.peak_bytes, &dear);
    let latency_ms = LatencyRange::new(&drawn, least.latency_ms, &dear);
    let typical = Typical {
        macs: macs.p50 as f64,
        params: params.p50 as f64,
        peak_bytes: peak_bytes.p50 as f64,
        latency_ms: latency_ms.map(|range| range.p50),
    };
    let kept = kept_by_all(limits, max_latency_ms, &drawn);
    let feasibility = match feasibility {
        Feasibility::Undecided if kept > 0.0 => Feasibility::Met,
        decided => decided,
    };
    let limit_uses = uses(limits, max_latency_ms, &drawn, &typical);
    let stages = stage_sizes(space);
    Ok(Preflight {
        macs,
        params,
        peak_bytes,
        latency_ms,
        log10_children: stages.iter().map(|stage| stage.log10_children).sum::<f64>() + log10_layouts(space),
        stages,
        limits: *limits,
        max_latency_ms,
        binding: tightest(&limit_uses),
        limit_uses,
        kept,
        feasibility,
    })
}

fn stage_sizes(space: &Space) -> Vec<StageSize> {
    let n_operators = match space.node_operators {
        NodeOperators::Dealt => 1,
        NodeOperators::Searched => space.operators.iter().collect::<BTreeSet<_>>().len(),
    };
    let size = |nodes| StageSize { nodes, log10_children: log10_children(nodes, space.max_in_degree, n_operators) };
    space.stages.iter().map(|stage| size(stage.nodes)).collect()
}

/// log10 of the number of layouts.
fn log10_layouts(space: &Space) -> f64 {
    space.dimensions().iter().map(|dimension| (dimension.values.len() as f64).log10()).sum()
}

/// The child with the fewest MACs, lowered; `seed` deals the operators, as it does in a study. What even this child cannot do, hardly any can.
///
/// # Errors
/// [`PreflightError`] if the space is not usable or its network cannot be built for this input.
pub fn cheapest_child(space: &Space, input: Shape, num_classes: usize, seed: u64) -> Result<Network, PreflightError> {
    let meta = MetaGraph::new(space, MetaConfig::default(), seed)?;
    let mut prices = Prices::of(space, input, num_classes)?;
    let cheapest = smallest(&meta, &mut prices, Objective::MACS).ok_or(PreflightError::TooLarge)?;
    Ok(space.build(input, num_classes, &cheapest).lower()?)
}

/// The cheapest children of a meta-graph's space, and what they say about the limits.
#[derive(Debug)]
pub(crate) struct Extremes {
    /// Costs of the child with the fewest MACs.
    pub(crate) least_macs: Cost,
    /// Costs of the child with the fewest params.
    pub(crate) least_params: Cost,
    /// Peak bytes that every child takes.
    pub(crate) peak_at_least: u64,
    /// Whether a child keeps the limits.
    pub(crate) feasibility: Feasibility,
    /// A child that keeps the limits, in the meta-graph's numbering: there iff `feasibility` says met.
    pub(crate) witness: Option<Blueprint>,
    /// The child with the fewest MACs and the one with the fewest params.
    pub(crate) cheapest: [Blueprint; 2],
}

impl Extremes {
    /// Looks for the cheapest children of the meta-graph that deals out the operators of the gate's space.
    pub(crate) fn find(meta: &MetaGraph, gate: &Gate<'_>) -> Result<Self, PreflightError> {
        decide(meta, gate, &mut Prices::of(gate.space, gate.input, gate.num_classes)?)
    }
}

/// Whether a child keeps the limits, from the children with the fewest MACs and params and the cheapest ones under other weightings.
fn decide(meta: &MetaGraph, gate: &Gate<'_>, prices: &mut [Prices]) -> Result<Extremes, PreflightError> {
    let mut cheapest = |objective| -> Result<(Blueprint, Cost), PreflightError> {
        let child = smallest(meta, prices, objective).ok_or(PreflightError::TooLarge)?;
        let cost = gate.cost(&child)?;
        Ok((child, cost))
    };
    let limits = gate.limits;
    let (by_macs, least_macs) = cheapest(Objective::MACS)?;
    let (by_params, least_params) = cheapest(Objective::PARAMS)?;
    let peak_at_least = peaks::of_every_child(gate, &by_macs)?;
    let two = [by_macs.clone(), by_params.clone()];
    let ended = |feasibility, witness| {
        let cheapest = two.clone();
        Ok(Extremes { least_macs, least_params, peak_at_least, feasibility, witness, cheapest })
    };
    if limits.max_macs.is_some_and(|most| least_macs.macs > most)
        || limits.max_params.is_some_and(|most| least_params.params > most)
        || limits.max_peak_bytes.is_some_and(|most| peak_at_least > most)
    {
        return ended(Feasibility::Unmeetable, None);
    }
    for child in [by_macs, by_params] {
        if gate.check(&child).is_ok() {
            return ended(Feasibility::Met, Some(child));
        }
    }
    let (Some(max_macs), Some(max_params)) = (limits.max_macs, limits.max_params) else {
        return ended(Feasibility::Undecided, None);
    };
    for objective in Objective::between(max_macs, max_params) {
        let (child, cost) = cheapest(objective)?;
        if gate.check(&child).is_ok() {
            return ended(Feasibility::Met, Some(child));
        }
        // Rounding of the weights must not refuse anything.
        let bound = objective.of(max_macs.0, max_params.0) * (1.0 + 1e-9);
        if objective.of(cost.macs.0, cost.params.0) > bound {
            return ended(Feasibility::Unmeetable, None);
        }
    }
    ended(Feasibility::Undecided, None)
}

impl Preflight {
    /// Refuses limits that no child keeps.
    ///
    /// # Errors
    /// [`PreflightError::Unmeetable`] with the smallest possible costs.
    pub fn require(&self) -> Result<(), PreflightError> {
        if self.feasibility == Feasibility::Unmeetable {
            let (least_macs, least_params) = (Macs(self.macs.min), Params(self.params.min));
            let peak_at_least_bytes = self.peak_bytes.at_least;
            return Err(PreflightError::Unmeetable {
                limits: self.limits,
                least_macs,
                least_params,
                peak_at_least_bytes,
            });
        }
        Ok(())
    }
}

impl CostRange {
    fn new(min: u64, mut drawn: Vec<u64>, max: u64) -> Self {
        drawn.sort_unstable();
        let quantile = |tenths: usize| drawn.get(drawn.len().saturating_sub(1) * tenths / 10).copied().unwrap_or(min);
        Self { min, p10: quantile(1), p50: quantile(5), p90: quantile(9), max: max.max(min) }
    }
}

/// Why there is no preflight, or what it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
    /// The space is not usable.
    #[error(transparent)]
    Meta(#[from] MetaGraphError),
    /// No network of the space can be built for this input.
    #[error("the space cannot be built for this input: {0}")]
    Lower(#[from] LowerError),
    /// Every network has a layer that is too large.
    #[error("the space cannot be built: each of its networks has a layer of more than 65536 channels")]
    TooLarge,
    /// No structure can be drawn.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// No child keeps the limits.
    #[error(
        "no child keeps the limits{}: the smallest possible cost is {least_macs} and {least_params}{}",
        describe(.limits),
        describe_peak(.limits, *.peak_at_least_bytes)
    )]
    Unmeetable {
        /// The limits.
        limits: Limits,
        /// The least MACs of a child.
        least_macs: Macs,
        /// The least params of a child; perhaps another one.
        least_params: Params,
        /// Peak bytes that every child takes.
        peak_at_least_bytes: u64,
    },
}

fn describe_peak(limits: &Limits, at_least: u64) -> String {
    let describe = |_| format!(", and every child takes {} peak bytes or more", grouped(at_least));
    limits.max_peak_bytes.map(describe).unwrap_or_default()
}

fn describe(limits: &Limits) -> String {
    let macs = limits.max_macs.map(|most| most.to_string());
    let params = limits.max_params.map(|most| most.to_string());
    let peak = limits.max_peak_bytes.map(|most| format!("{} peak bytes", grouped(most)));
    let all: Vec<String> = macs.into_iter().chain(params).chain(peak).collect();
    if all.is_empty() { String::new() } else { format!(" of {}", all.join(" and ")) }
}
