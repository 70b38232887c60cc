//! Schedules of networks.

use gram_ir::{Limits, MemoryModel, Network, NodeId};

use crate::graph::Fragment;
use crate::schedule::{Fit, Part, schedule};
use crate::{Arena, DEFAULT_MAX_STATES, MemoryError, MemoryGraph, StepId};

/// In which order a network's operators are best executed, and what that takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All nodes of the network in scheduled order, for [`reorder`]; those that the output does not need come last.
    pub nodes: Vec<NodeId>,
    /// What is executed, in order.
    pub steps: Vec<PlannedStep>,
    /// For each step of the plain order the bytes that are alive while it runs.
    pub plain_live_bytes: Vec<u64>,
    /// The most bytes that are alive at one time, the network's input and output included, weights not.
    pub peak_bytes: u64,
    /// No order has a lower peak than this; equal to the peak where the plan is exact.
    pub lower_bound_bytes: u64,
    /// The most bytes that are alive at one time in the network's own order.
    pub plain_peak_bytes: u64,
    /// A place for every buffer.
    pub arena: Arena,
    /// Size of the arena for the network's own order.
    pub plain_arena_bytes: u64,
    /// The parts that were scheduled alone, in execution order.
    pub parts: Vec<Part>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// What it computes; see [`Step::nodes`](crate::Step::nodes).
    pub nodes: Vec<NodeId>,
    /// Set if the nodes are split over several steps.
    pub fragment: Option<Fragment>,
    /// Bytes that are alive while it runs.
    pub live_bytes: u64,
    /// Bytes of the buffer that it writes or accumulates into.
    pub output_bytes: u64,
}

impl Plan {
    /// Whether no order has a lower peak.
    pub fn is_exact(&self) -> bool {
        self.peak_bytes == self.lower_bound_bytes
    }

    /// Bytes by which the peak may be above the least one; 0 for an exact plan.
    pub fn gap_bytes(&self) -> u64 {
        self.peak_bytes - self.lower_bound_bytes
    }
}

/// The order of operators with the least peak of live bytes, and offsets for all buffers.
///
/// # Errors
/// [`MemoryError`] if the network is too large to be counted.
/// # Complexity
/// As of [`schedule`], and of [`Arena::new`].
/// # Example
/// ```
/// use gram_ir::preset;
/// use gram_memory::{Concat, Dtype, MemoryModel, plan};
/// let network = preset("swiftnet-vww", None, None)?.lower()?;
/// let engine = MemoryModel { dtype: Dtype::U8, concat: Concat::View, ..MemoryModel::default() };
/// let plan = plan(&network, &engine)?;
/// assert!(plan.is_exact());
/// assert_eq!((plan.peak_bytes, plan.plain_peak_bytes), (200_704, 250_880));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn plan(network: &Network, engine: &MemoryModel) -> Result<Plan, MemoryError> {
    let graph = MemoryGraph::from_network(network, engine)?;
    let scheduled = schedule(&graph, DEFAULT_MAX_STATES);
    let plain: Vec<StepId> = graph.plain_order().collect();
    let live = graph.live_bytes(&scheduled.order)?;
    let step = |(&id, live_bytes): (&StepId, u64)| {
        let step = &graph.steps()[id.index()];
        let (nodes, fragment) = (step.nodes.clone(), step.fragment);
        PlannedStep { nodes, fragment, live_bytes, output_bytes: graph.bytes(step.writes) }
    };
    let steps: Vec<PlannedStep> = scheduled.order.iter().zip(live).map(step).collect();
    Ok(Plan {
        nodes: node_order(network, &steps),
        steps,
        plain_live_bytes: graph.live_bytes(&plain)?,
        peak_bytes: scheduled.peak_bytes,
        lower_bound_bytes: scheduled.lower_bound_bytes,
        plain_peak_bytes: scheduled.plain_peak_bytes,
        arena: Arena::new(&graph, &scheduled.order)?,
        plain_arena_bytes: Arena::new(&graph, &plain)?.bytes,
        parts: scheduled.parts,
    })
}

/// The peak of [`plan`], without the plan.
///
/// # Errors
/// As [`plan`].
pub fn peak_bytes(network: &Network, engine: &MemoryModel) -> Result<u64, MemoryError> {
    let graph = MemoryGraph::from_network(network, engine)?;
    Ok(schedule(&graph, DEFAULT_MAX_STATES).peak_bytes)
}

/// Whether some order of the network's operators keeps within `max_bytes`; quick enough for every child of a search.
///
/// # Errors
/// As [`plan`].
/// # Complexity
/// As of [`schedule::fits`](crate::fits_graph): mostly one pass over the network.
pub fn fits(network: &Network, engine: &MemoryModel, max_bytes: u64) -> Result<Fit, MemoryError> {
    let graph = MemoryGraph::from_network(network, engine)?;
    Ok(crate::schedule::fits(&graph, max_bytes, DEFAULT_MAX_STATES))
}

/// Whether it is certain that a network keeps [`Limits::max_peak_bytes`]; true where there is no such limit.
pub fn keeps_peak_limit(network: &Network, limits: &Limits) -> bool {
    let keeps = |max_bytes| fits(network, &limits.memory, max_bytes).is_ok_and(Fit::fits);
    limits.max_peak_bytes.is_none_or(keeps)
}

/// The same network with its nodes in the order of `plan`, so that whoever executes them one after the other follows the schedule.
///
/// A node that is split over several steps stands where its last step is: an engine that does not accumulate in place does not keep to
/// the peak of such a plan.
/// # Errors
/// [`MemoryError::OtherNetwork`] or [`MemoryError::OtherOrder`] if the plan is of another network.
pub fn reorder(network: &Network, plan: &Plan) -> Result<Network, MemoryError> {
    let n = network.nodes().len();
    let mut new_ids: Vec<Option<NodeId>> = vec![None; n];
    if plan.nodes.len() != n || plan.nodes.first() != Some(&network.input()) {
        return Err(MemoryError::OtherNetwork { plan: plan.nodes.len(), network: n });
    }
    let mut next = Network::new(network.input_shape());
    new_ids[0] = Some(next.input());
    // An id beyond all nodes, so that adding a node before its input is refused.
    let unknown = NodeId(u32::MAX);
    for &id in &plan.nodes[1..] {
        let Some(node) = network.nodes().get(id.index()) else {
            return Err(MemoryError::OtherNetwork { plan: plan.nodes.len(), network: n });
        };
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| new_ids[input.index()].unwrap_or(unknown)).collect();
        new_ids[id.index()] = Some(next.add(node.name.clone(), node.op, &inputs)?);
    }
    next.set_output(new_ids[network.output().index()].unwrap_or(unknown))?;
    Ok(next)
}

/// All nodes, each where the last step that computes it stands; views directly behind what they show, what nobody needs at the end.
fn node_order(network: &Network, steps: &[PlannedStep]) -> Vec<NodeId> {
    // Position of a node's last step; the input comes before all.
    let mut positions: Vec<Option<usize>> = vec![None; network.nodes().len()];
    for (position, step) in (1..).zip(steps) {
        step.nodes.iter().for_each(|node| positions[node.index()] = Some(position));
    }
    let needed = needed(network);
    for (id, node) in network.iter() {
        if positions[id.index()].is_none() {
            let inputs = node.inputs.iter().filter_map(|input| positions[input.index()]).max();
            let last = if needed[id.index()] { inputs.unwrap_or(0) } else { usize::MAX };
            positions[id.index()] = Some(last);
        }
    }
    let mut order: Vec<NodeId> = network.iter().map(|(id, _)| id).collect();
    order.sort_by_key(|id| (id.index() > 0, positions[id.index()], *id));
    order
}

/// Which nodes the output needs.
fn needed(network: &Network) -> Vec<bool> {
    let mut needed = vec![false; network.nodes().len()];
    needed[network.output().index()] = true;
    for (id, node) in network.iter().rev() {
        if needed[id.index()] {
            node.inputs.iter().for_each(|input| needed[input.index()] = true);
        }
    }
    needed
}
