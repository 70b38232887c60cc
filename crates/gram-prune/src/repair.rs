//! Single-edge swaps that raise the expected accuracy and keep the limits.

use std::fmt;

use gram_ir::{Cell, CellNodeId, DropDeadNodes, MIN_LIVE_NODES, apply_checked};

use crate::choose::Pricing;
use crate::proposals::Proposal;
use crate::{Choice, ChooseError, Origin, PrunableStage, Setting};

/// One edge of a stage that goes, comes, or does both: a move keeps one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Swap {
    /// Index of the stage, from 0.
    pub stage: usize,
    /// The edge that goes; what only it kept alive goes with it.
    pub removed: Option<(CellNodeId, CellNodeId)>,
    /// The edge that comes; a dead node comes to life with the operator of its place.
    pub added: Option<(CellNodeId, CellNodeId)>,
}

impl fmt::Display for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {}:", self.stage)?;
        self.removed.map_or(Ok(()), |(from, to)| write!(f, " without {from} -> {to}"))?;
        self.added.map_or(Ok(()), |(from, to)| write!(f, " with {from} -> {to}"))
    }
}

/// A swap, and the network that it leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What was changed.
    pub swap: Swap,
    /// The network; within the limits, and of a higher merit than the one before.
    pub choice: Choice,
}

/// Improves a network by at most `most_steps` single-edge swaps: each step takes the swap with the highest expected accuracy among those
/// that keep every limit, as long as it is higher than before.
///
/// Deterministic: of equal swaps the first is taken, by stage, then removals, then by edge. Without a model of accuracy nothing is changed,
/// for more edges would always retain more weight.
///
/// The more swaps are compared, the more of the winner's expectation is luck of the model: steps do raise what is expected, and less what
/// is measured.
///
/// # Errors
/// [`ChooseError`] if the setting is not usable.
/// # Panics
/// If `start` is not a network of the setting's space.
/// # Source
/// ALGORITHMS 1.6, step 4 \[ours\].
/// # Complexity
/// Per step, an expected accuracy for every swap within the limits on MACs and params: nodes × edges of each stage.
pub fn repair(setting: &Setting<'_>, start: &Choice, most_steps: usize) -> Result<Vec<Step>, ChooseError> {
    setting.check()?;
    let pricing = Pricing::new(setting).map_err(crate::PruneError::from)?;
    let mut steps: Vec<Step> = Vec::new();
    while steps.len() < most_steps {
        let last = steps.last().map_or(start, |step| &step.choice);
        match step(&pricing, last, steps.len() + 1) {
            Some(step) => steps.push(step),
            None => break,
        }
    }
    Ok(steps)
}

/// The best swap that keeps the limits and raises the expected accuracy.
fn step(pricing: &Pricing<'_>, last: &Choice, number: usize) -> Option<Step> {
    let model = pricing.setting.accuracy?;
    let cells: Vec<Cell> = last.architecture.stages.iter().map(|stage| stage.cell.clone()).collect();
    let mut swapped: Vec<(f64, Swap, Vec<Cell>)> = Vec::new();
    for swap in swaps(pricing.setting, &cells) {
        let Some(cell) = apply(&swap, &cells[swap.stage], &pricing.setting.stages[swap.stage]) else { continue };
        let mut after = cells.clone();
        after[swap.stage] = cell;
        if pricing.quick(&after).is_some_and(|cost| pricing.setting.limits.allow(&cost)) {
            let mean = model.expected(&pricing.assemble(&after)).mean;
            if mean > last.merit() {
                swapped.push((mean, swap, after));
            }
        }
    }
    swapped.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let priced = |(_, swap, cells): (f64, Swap, Vec<Cell>)| {
        let choice = pricing.price(&Proposal::new(&cells, Origin::Repaired(number), pricing.setting))?;
        (choice.merit() > last.merit()).then_some(Step { swap, choice })
    };
    swapped.into_iter().find_map(priced)
}

/// Every swap of one edge that respects the largest in-degree.
fn swaps(setting: &Setting<'_>, cells: &[Cell]) -> Vec<Swap> {
    let mut all = Vec::new();
    for (stage, cell) in cells.iter().enumerate() {
        let live = cell.live();
        let n_nodes = setting.stages[stage].weights.n_nodes();
        let ids = || (0..n_nodes as u16).map(CellNodeId);
        let n_inputs = |to: CellNodeId| cell.predecessors(to).len();
        let edges = cell.edges();
        let swap = |removed, added| Swap { stage, removed, added };
        let comes =
            |from: CellNodeId, to: CellNodeId| from < to && live.contains(&from) && !edges.contains(&(from, to));
        let has_room = |to: CellNodeId| n_inputs(to) < setting.space.max_in_degree;
        all.extend(edges.iter().map(|&edge| swap(Some(edge), None)));
        for from in ids() {
            all.extend(ids().filter(|&to| comes(from, to) && has_room(to)).map(|to| swap(None, Some((from, to)))));
        }
        for &(from, to) in &edges {
            let by_source = ids().filter(|&other| comes(other, to)).map(|other| (other, to));
            let by_target = ids().filter(|&other| comes(from, other) && has_room(other)).map(|other| (from, other));
            all.extend(by_source.chain(by_target).map(|edge| swap(Some((from, to)), Some(edge))));
        }
    }
    all
}

/// The cell after a swap, live nodes only; none if too few are left, or the edge that came has lost its source.
fn apply(swap: &Swap, cell: &Cell, stage: &PrunableStage<'_>) -> Option<Cell> {
    let mut cell = cell.clone();
    if let Some((from, to)) = swap.removed {
        cell.remove_edge(from, to);
    }
    if let Some((from, to)) = swap.added {
        if !cell.contains(to) {
            cell.add_node(to, *stage.ops.get(to.index().checked_sub(1)?)?).ok()?;
        }
        cell.add_edge(from, to).ok()?;
    }
    apply_checked(&DropDeadNodes, &mut cell).ok()?;
    let has_come = swap.added.is_none_or(|edge| cell.edges().contains(&edge));
    (has_come && cell.ops().len() >= MIN_LIVE_NODES).then_some(cell)
}
