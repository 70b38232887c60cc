//! Costs that have no formula, peak bytes and latency: of typical children, and of children that are cheap or dear.

use gram_ir::{Blueprint, Cell, CellNodeId, CellOp, Cost, Layout, Network};
use gram_meta::{Child, LayoutWeights, MetaGraph, MetaStage, StageEdges};

use super::{PreflightError, peaks};
use crate::streams::probe_stream;
use crate::{Gate, LatencyModel};

/// Children drawn from the prior for the quantiles.
const SAMPLES: usize = 256;
/// Children drawn from the thinnest prior, most of which are small.
const SMALL_SAMPLES: usize = 64;
/// The first of the streams that small children are drawn with; behind those of the typical ones.
const SMALL_STREAMS: usize = 1 << 20;

/// Costs of one child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    pub(super) cost: Cost,
    /// Of an order that was found quickly; none for a network that is too large to be scheduled.
    pub(super) peak_bytes: Option<u64>,
    /// Upper end of the prediction; none without a device, or where it cannot tell.
    pub(super) latency_ms: Option<f64>,
}

/// Costs of children of the prior, as the search's own sampler draws them.
pub(super) fn typical(
    meta: &MetaGraph,
    gate: &Gate<'_>,
    device: Option<&dyn LatencyModel>,
    seed: u64,
) -> Result<Vec<Drawn>, PreflightError> {
    draw(meta, gate, device, (0..SAMPLES).map(|attempt| (seed, attempt)))
}

/// Costs of the cheapest children and of small ones that are drawn, among which low peaks and latencies are likely.
pub(crate) fn small(
    meta: &MetaGraph,
    gate: &Gate<'_>,
    device: Option<&dyn LatencyModel>,
    cheapest: &[Blueprint],
    seed: u64,
) -> Result<LeastSeen, PreflightError> {
    let mut thinnest = meta.clone();
    thinnest.thin(0.0);
    let attempts = (0..SMALL_SAMPLES).map(|attempt| (seed, SMALL_STREAMS + attempt));
    let mut drawn = draw(&thinnest, gate, device, attempts)?;
    drawn.extend(cheapest.iter().filter_map(|child| costs(gate, device, child)));
    Ok(LeastSeen::of(&drawn))
}

/// Costs of children with as many edges as may be, wired in ways that are likely to cost much, in the largest layout.
pub(super) fn dear(
    meta: &MetaGraph,
    gate: &Gate<'_>,
    device: Option<&dyn LatencyModel>,
) -> Result<Vec<Drawn>, PreflightError> {
    let most = meta.max_in_degree();
    // All inputs of node `to`: only the cell's input, so that all nodes are leaves; the nodes before it; the first nodes.
    let wirings: [&dyn Fn(usize) -> Vec<usize>; 3] =
        [&|_| vec![0], &|to| (to.saturating_sub(most)..to).collect(), &|to| (0..to.min(most)).collect()];
    let mut drawn = Vec::new();
    let layout = largest_layout(meta);
    for sources in wirings {
        for place in 0..meta.stages().iter().map(menu_len).max().unwrap_or(1) {
            let child = Child::new(meta.stages().iter().map(|stage| full(stage, sources, place)).collect());
            drawn.extend(costs(gate, device, &meta.blueprint(&child.with_layout(layout.clone()))?));
        }
    }
    Ok(drawn)
}

/// The least of what was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LeastSeen {
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) latency_ms: Option<f64>,
}

impl LeastSeen {
    pub(super) fn of(drawn: &[Drawn]) -> Self {
        Self {
            peak_bytes: drawn.iter().filter_map(|drawn| drawn.peak_bytes).min(),
            latency_ms: drawn.iter().filter_map(|drawn| drawn.latency_ms).reduce(f64::min),
        }
    }
}

fn draw(
    meta: &MetaGraph,
    gate: &Gate<'_>,
    device: Option<&dyn LatencyModel>,
    attempts: impl Iterator<Item = (u64, usize)>,
) -> Result<Vec<Drawn>, PreflightError> {
    let mut drawn = Vec::new();
    for (seed, attempt) in attempts {
        let child = meta.sample(&mut probe_stream(seed, attempt), &|_| true)?;
        // A child whose maps are too wide to build is none.
        drawn.extend(costs(gate, device, &meta.blueprint(&child)?));
    }
    Ok(drawn)
}

/// None where there is no such network.
fn costs(gate: &Gate<'_>, device: Option<&dyn LatencyModel>, child: &Blueprint) -> Option<Drawn> {
    let network = gate.space.build(gate.input, gate.num_classes, child).lower().ok()?;
    let peak_bytes = peaks::quick_peak(&network, gate.limits);
    let latency_ms = device.and_then(|device| device.upper_ms(&as_trained(gate, child)?));
    Some(Drawn { cost: network.cost(), peak_bytes, latency_ms })
}

/// In canonical form: what fuses may depend on the numbering.
fn as_trained(gate: &Gate<'_>, child: &Blueprint) -> Option<Network> {
    let cells = child.cells.iter().map(Cell::canonical_form).collect();
    let canonical = Blueprint { layout: child.layout.clone(), cells };
    gate.space.build(gate.input, gate.num_classes, &canonical).lower().ok()
}

/// The largest value of every dimension.
fn largest_layout(meta: &MetaGraph) -> Layout {
    let largest = |dimension: &LayoutWeights| {
        let values = dimension.dimension().values.iter().enumerate();
        values.max_by_key(|(_, value)| **value).map_or(0, |(index, _)| index as u8)
    };
    Layout(meta.layout().iter().map(largest).collect())
}

fn menu_len(stage: &MetaStage) -> usize {
    stage.op_weights().map_or(1, |searched| searched.menu().len())
}

/// All nodes with these sources; where operators are searched, those at one place of the menu.
fn full(stage: &MetaStage, sources: &dyn Fn(usize) -> Vec<usize>, place: usize) -> StageEdges {
    let id = |node: usize| CellNodeId(node as u16);
    let edges = (1..stage.n_nodes()).flat_map(|to| sources(to).into_iter().map(move |from| (id(from), id(to))));
    let edges = StageEdges::new(stage.n_nodes(), edges);
    match stage.op_weights() {
        None => edges,
        Some(searched) => {
            let op: CellOp = searched.menu()[place % searched.menu().len()];
            edges.with_ops(|_| op)
        }
    }
}
