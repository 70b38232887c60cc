//! Peak bytes of a space's children: what all of them take, and what is typical.

use gram_ir::{Blueprint, Limits, LowerError, Network};
use gram_memory::{MemoryGraph, Schedule, schedule};
use serde::Serialize;

use super::seen::Drawn;
use crate::Gate;

/// Sets of steps that are visited for a typical child: few, for there are many children and a little above the least peak tells as much.
const FEW_STATES: u64 = 1 << 10;

/// Peak bytes over a space's children, for the engine that the limits describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PeakRange {
    /// Every child takes so much; proven, but there may be no child that takes no more.
    pub at_least: u64,
    /// The least of a few hundred children, the cheapest and many small ones among them, in an order that was found quickly.
    pub least_seen: u64,
    /// A tenth of the prior's children take at most this, in an order that was found quickly.
    pub p10: u64,
    /// The median of the prior's children.
    pub p50: u64,
    /// A tenth of the prior's children take at least this.
    pub p90: u64,
    /// The most of a few hundred children, some with as many edges as may be among them.
    pub most_seen: u64,
}

impl PeakRange {
    pub(super) fn new(at_least: u64, typical: &[Drawn], least_seen: Option<u64>, dear: &[Drawn]) -> Self {
        let peaks = |drawn: &[Drawn]| drawn.iter().filter_map(|drawn| drawn.peak_bytes).collect::<Vec<_>>();
        let mut drawn = peaks(typical);
        drawn.sort_unstable();
        let last = drawn.len().saturating_sub(1);
        let quantile = |tenths: usize| drawn.get(last * tenths / 10).copied().unwrap_or(at_least);
        let all = || drawn.iter().copied().chain(least_seen).chain(peaks(dear));
        let (least_seen, most_seen) = (all().min().unwrap_or(at_least), all().max().unwrap_or(at_least));
        Self { at_least, least_seen, p10: quantile(1), p50: quantile(5), p90: quantile(9), most_seen }
    }
}

/// The peak of an order that is found quickly; none if the network is too large to be scheduled.
pub(super) fn quick_peak(network: &Network, limits: &Limits) -> Option<u64> {
    let graph = MemoryGraph::from_network(network, &limits.memory).ok()?;
    Some(schedule(&graph, FEW_STATES).peak_bytes)
}

/// Bytes that the stem takes in every child: at the smallest image size, with the cells of `child`, which may be any.
///
/// Layers of the stem are executed one after the other, in front of all else.
pub(super) fn of_every_child(gate: &Gate<'_>, child: &Blueprint) -> Result<u64, LowerError> {
    let mut space = gate.space.clone();
    space.image_sizes = gate.space.image_sizes.iter().copied().min().into_iter().collect();
    let network = space.assemble(gate.input, gate.num_classes, &child.cells).lower()?;
    let Ok(graph) = MemoryGraph::from_network(&network, &gate.limits.memory) else { return Ok(0) };
    let Schedule { order, parts, .. } = schedule(&graph, FEW_STATES);
    let is_stem = |step: &gram_memory::StepId| {
        graph.steps()[step.index()].nodes.iter().all(|&node| network.node(node).name.starts_with("stem."))
    };
    let stem = parts.iter().take_while(|part| order[part.first_step..][..part.steps].iter().all(is_stem));
    Ok(stem.map(|part| part.lower_bound_bytes).fold(graph.input_bytes(), u64::max))
}
