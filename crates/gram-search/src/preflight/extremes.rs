//! The cheapest child of a space, and a cost that none exceeds.
//!
//! **The cheapest cell with a given number of leaves has at most one node that is no leaf.** Take any cell. Leaves have no successors, so its
//! first live node that is no leaf, `a`, is fed by the input alone. Every leaf is fed either by the input alone or by at least one other
//! node, which comes no earlier than `a`; feed each leaf of the second kind by `a` alone and drop all other inner nodes. The leaves are
//! the same, so what follows them costs the same; dropped nodes cost nothing less; and an operator is never cheaper than when its input has
//! exactly the stage's channels F (a 1x1 convolution in front of pools and the like is then not even needed), so no leaf got dearer. This
//! holds for every repeat of the cell at once. Hence the cheapest child is found among: some leaves fed by the input, and others by one
//! inner node of lower index. With a projection the number of leaves changes nothing behind it and one or two leaves suffice: if
//! there is an inner node, one leaf behind it is a cheaper cell still, and else two leaves are.
//!
//! Where stages leave widths or repeats open, all this holds for each option of a stage, and the cheapest option is taken for every number of
//! channels that the stage may give. Image sizes are gone through one by one.
//!
//! Costs of stages add up, but without a projection the number of leaves decides the next stage's input channels: one state per number of
//! channels is carried from stage to stage.

use std::collections::BTreeMap;

use gram_ir::{Blueprint, Cell, CellNodeId, CellOp, Macs, Params};
use gram_meta::{MetaGraph, MetaStage};

use super::prices::{Price, Prices, cell};

/// A weighting of costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Objective {
    macs: f64,
    params: f64,
}

impl Objective {
    pub(super) const MACS: Self = Self { macs: 1.0, params: 0.0 };
    pub(super) const PARAMS: Self = Self { macs: 0.0, params: 1.0 };

    /// Weightings of two limits, each counted in units of itself.
    pub(super) fn between(max_macs: Macs, max_params: Params) -> impl Iterator<Item = Self> {
        let unit = |limit: u64| 1.0 / (limit.max(1) as f64);
        (1..16).map(move |step| {
            let share = f64::from(step) / 16.0;
            Self { macs: share * unit(max_macs.0), params: (1.0 - share) * unit(max_params.0) }
        })
    }

    pub(super) fn of(self, macs: u64, params: u64) -> f64 {
        self.macs * macs as f64 + self.params * params as f64
    }

    /// Of equal weighted costs the one with the smaller sum is preferred.
    fn value(self, price: Price, times: usize) -> Value {
        let (macs, params) = (price.macs * times as u64, price.params * times as u64);
        Value { weighted: self.of(macs, params), sum: (macs + params) as f64 }
    }
}

/// A weighted cost, and the plain sum to decide ties. Exact while costs are below 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Value {
    weighted: f64,
    sum: f64,
}

impl Value {
    fn plus(self, other: Self) -> Self {
        Self { weighted: self.weighted + other.weighted, sum: self.sum + other.sum }
    }

    fn minus(self, other: Self) -> Self {
        Self { weighted: self.weighted - other.weighted, sum: self.sum - other.sum }
    }

    fn below(&self, other: &Self) -> bool {
        self.order(other).is_lt()
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.weighted.total_cmp(&other.weighted).then(self.sum.total_cmp(&other.sum))
    }
}

/// The best way to give the next stage some number of channels.
struct State {
    value: Value,
    /// Each with the option of its stage.
    cells: Vec<(usize, Cell)>,
}

/// The cheapest child; none if no network can be built.
pub(super) fn smallest(meta: &MetaGraph, prices: &mut [Prices], objective: Objective) -> Option<Blueprint> {
    let sized = prices.iter_mut().filter_map(|prices| {
        let State { value, cells } = smallest_at(meta, prices, objective)?;
        let stem = objective.value(prices.stem(), 1);
        Some((value.plus(stem), prices.blueprint(cells)))
    });
    sized.reduce(|a, b| if b.0.below(&a.0) { b } else { a }).map(|(_, blueprint)| blueprint)
}

/// The cheapest child at one image size, its stem left out.
fn smallest_at(meta: &MetaGraph, prices: &mut Prices, objective: Objective) -> Option<State> {
    let start = State { value: Value::default(), cells: Vec::new() };
    let mut states = BTreeMap::from([(prices.first_channels(), start)]);
    for (stage, menus) in meta.stages().iter().map(menus).enumerate() {
        let mut next: BTreeMap<usize, State> = BTreeMap::new();
        for ((c_in, state), option) in
            states.iter().flat_map(|state| (0..prices.n_options(stage)).map(move |o| (state, o))).collect::<Vec<_>>()
        {
            prices.choose(stage, option);
            for n_leaves in 1..=most_useful_leaves(prices, stage) {
                let mut cells = CheapCells { prices, stage, objective, c_in: *c_in, n_leaves };
                let c_out = cells.c_out();
                let Some((value, cell)) = cells.cheapest(&menus) else { continue };
                let value = state.value.plus(value);
                if next.get(&c_out).is_none_or(|known| value.below(&known.value)) {
                    let cells = state.cells.iter().cloned().chain([(option, cell)]).collect();
                    next.insert(c_out, State { value, cells });
                }
            }
        }
        states = next;
    }
    let finished = states.into_iter().filter_map(|(channels, state)| {
        let head = prices.head(channels)?;
        Some(State { value: state.value.plus(objective.value(head, 1)), ..state })
    });
    finished.min_by(|a, b| a.value.order(&b.value))
}

/// The operators that each operator node may have.
fn menus(stage: &MetaStage) -> Vec<Vec<CellOp>> {
    match stage.op_weights() {
        Some(searched) => vec![searched.menu().to_vec(); stage.ops().len()],
        None => stage.ops().iter().map(|&op| vec![op]).collect(),
    }
}

fn most_useful_leaves(prices: &Prices, stage: usize) -> usize {
    let space = prices.stage(stage);
    if space.output.project.is_some() { 2 } else { space.nodes - 1 }
}

/// Cells of one stage with a given number of leaves.
struct CheapCells<'a> {
    prices: &'a mut Prices,
    stage: usize,
    objective: Objective,
    c_in: usize,
    n_leaves: usize,
}

/// A leaf: its node, from where it is fed, at what cost over all repeats.
#[derive(Clone, Copy)]
struct Leaf {
    node: usize,
    from: usize,
    value: Value,
}

impl CheapCells<'_> {
    fn c_out(&self) -> usize {
        let space = self.prices.stage(self.stage);
        space.output.project.unwrap_or(space.channels * self.n_leaves)
    }

    /// A node's cost over all repeats, fed by the input (`None`) or by one node.
    fn node(&mut self, op: CellOp, from_input: bool) -> Option<Value> {
        let (repeats, f) = (self.prices.stage(self.stage).repeats, self.prices.stage(self.stage).channels);
        let (first, later) = if from_input { (self.c_in, self.c_out()) } else { (f, f) };
        let first = self.objective.value(self.prices.node(self.stage, op, first)?, 1);
        if repeats == 1 {
            return Some(first);
        }
        Some(first.plus(self.objective.value(self.prices.node(self.stage, op, later)?, repeats - 1)))
    }

    fn tail(&mut self) -> Option<Value> {
        let (repeats, c_out) = (self.prices.stage(self.stage).repeats, self.c_out());
        let first = self.objective.value(self.prices.tail(self.stage, self.c_in, self.n_leaves)?, 1);
        if repeats == 1 {
            return Some(first);
        }
        Some(first.plus(self.objective.value(self.prices.tail(self.stage, c_out, self.n_leaves)?, repeats - 1)))
    }

    fn cheapest(&mut self, menus: &[Vec<CellOp>]) -> Option<(Value, Cell)> {
        let tail = self.tail()?;
        let (direct_ops, direct) = self.cheapest_ops(menus, true);
        let (behind_ops, behind) = self.cheapest_ops(menus, false);
        let mut found = if self.n_leaves >= 2 { only_leaves(&direct, self.n_leaves) } else { None };
        // Of inner nodes with one menu the first is as good as any: whatever a later one feeds comes after the first as well.
        let inner = (0..menus.len()).filter(|&index| !menus[..index].contains(&menus[index]));
        for index in inner {
            let Some(own) = direct[index] else { continue };
            let Some((value, mut leaves)) = with_inner(&direct, &behind, index, self.n_leaves) else { continue };
            let value = value.plus(own);
            if found.as_ref().is_none_or(|(least, _)| value.below(least)) {
                leaves.push(Leaf { node: index + 1, from: 0, value: own });
                found = Some((value, leaves));
            }
        }
        let (value, mut nodes) = found?;
        nodes.sort_unstable_by_key(|leaf| leaf.node);
        let id = |node: usize| CellNodeId(node as u16);
        let op = |leaf: &Leaf| (if leaf.from == 0 { &direct_ops } else { &behind_ops })[leaf.node - 1];
        let cell = cell(nodes.iter().map(|leaf| (id(leaf.node), op(leaf), id(leaf.from))));
        Some((value.plus(tail), cell))
    }

    /// For each node the first of its cheapest operators when it is fed by the input, or by one node, and what it costs; no cost where no
    /// operator can be built.
    fn cheapest_ops(&mut self, menus: &[Vec<CellOp>], from_input: bool) -> (Vec<CellOp>, Vec<Option<Value>>) {
        let cheapest = |menu: &Vec<CellOp>| {
            let priced = menu.iter().map(|&op| (op, self.node(op, from_input)));
            let least = priced.reduce(|a, b| match (a.1, b.1) {
                (None, _) => b,
                (Some(old), Some(new)) if new.below(&old) => b,
                _ => a,
            });
            least.expect("a node has an operator")
        };
        menus.iter().map(cheapest).unzip()
    }
}

/// The cheapest `n` leaves fed by the input.
fn only_leaves(direct: &[Option<Value>], n: usize) -> Option<(Value, Vec<Leaf>)> {
    let leaf = |(index, value): (usize, &Option<Value>)| value.map(|value| Leaf { node: index + 1, from: 0, value });
    let mut leaves: Vec<Leaf> = direct.iter().enumerate().filter_map(leaf).collect();
    leaves.sort_by(|a, b| a.value.order(&b.value));
    leaves.truncate(n);
    (leaves.len() == n).then(|| (total(&leaves), leaves))
}

/// The cheapest `n` leaves beside the inner node `inner` (an index of operators), which must feed at least one of them.
fn with_inner(
    direct: &[Option<Value>],
    behind: &[Option<Value>],
    inner: usize,
    n: usize,
) -> Option<(Value, Vec<Leaf>)> {
    let fed = |index: usize| {
        let value = if index > inner { behind[index] } else { None };
        value.map(|value| Leaf { node: index + 1, from: inner + 1, value })
    };
    let cheaper = |index: usize| {
        let by_input = direct[index].map(|value| Leaf { node: index + 1, from: 0, value });
        match (fed(index), by_input) {
            (Some(a), Some(b)) => Some(if b.value.below(&a.value) { b } else { a }),
            (a, b) => a.or(b),
        }
    };
    let mut leaves: Vec<Leaf> = (0..direct.len()).filter(|&index| index != inner).filter_map(cheaper).collect();
    leaves.sort_by(|a, b| a.value.order(&b.value));
    leaves.truncate(n);
    if leaves.len() < n {
        return None;
    }
    if leaves.iter().any(|leaf| leaf.from != 0) {
        return Some((total(&leaves), leaves));
    }
    // All want the input: make the one change that costs least.
    let swap = |index: usize| {
        let new = fed(index)?;
        let place = leaves.iter().position(|leaf| leaf.node == new.node).unwrap_or(n - 1);
        Some((new.value.minus(leaves[place].value), place, new))
    };
    let (_, place, new) = (0..direct.len()).filter_map(swap).min_by(|(a, ..), (b, ..)| a.order(b))?;
    leaves[place] = new;
    Some((total(&leaves), leaves))
}

fn total(leaves: &[Leaf]) -> Value {
    leaves.iter().fold(Value::default(), |sum, leaf| sum.plus(leaf.value))
}

/// A weighted cost that no child exceeds.
///
/// For each number of leaves all other nodes are inner ones, every node takes the dearest inputs that its position and the largest
/// in-degree allow, and every stage the number of leaves that costs most in the end. The bound is met unless inner nodes are then left without
/// successor.
pub(super) fn most(meta: &MetaGraph, prices: &mut [Prices], objective: Objective) -> f64 {
    prices.iter_mut().map(|prices| most_at(meta, prices, objective)).fold(0.0, f64::max)
}

fn most_at(meta: &MetaGraph, prices: &mut Prices, objective: Objective) -> f64 {
    let stem = objective.of(prices.stem().macs, prices.stem().params);
    let mut states = BTreeMap::from([(prices.first_channels(), stem)]);
    for (stage, menus) in meta.stages().iter().map(menus).enumerate() {
        let mut next: BTreeMap<usize, f64> = BTreeMap::new();
        let options: Vec<_> = (0..prices.n_options(stage)).collect();
        for ((&c_in, &so_far), option) in states.iter().flat_map(|state| options.iter().map(move |&o| (state, o))) {
            prices.choose(stage, option);
            for n_leaves in 1..=menus.len() {
                let Some((c_out, value)) = dearest_cell(&menus, prices, objective, (stage, c_in, n_leaves)) else {
                    continue;
                };
                let best = next.entry(c_out).or_insert(0.0);
                *best = best.max(so_far + value);
            }
        }
        states = next;
    }
    let finished = states.into_iter().filter_map(|(channels, value)| {
        let head = prices.head(channels)?;
        Some(value + objective.of(head.macs, head.params))
    });
    finished.fold(0.0, f64::max)
}

fn dearest_cell(
    menus: &[Vec<CellOp>],
    prices: &mut Prices,
    objective: Objective,
    (stage, c_in, n_leaves): (usize, usize, usize),
) -> Option<(usize, f64)> {
    let (f, repeats) = (prices.stage(stage).channels, prices.stage(stage).repeats as u64);
    let c_out = prices.stage(stage).output.project.unwrap_or(f * n_leaves);
    let over_repeats = |first: Price, later: Option<Price>| -> Option<f64> {
        let later = if repeats == 1 { Price::default() } else { later? };
        let times = repeats - 1;
        Some(objective.of(first.macs + times * later.macs, first.params + times * later.params))
    };
    let (first, later) = (prices.tail(stage, c_in, n_leaves)?, prices.tail(stage, c_out, n_leaves));
    let mut sum = over_repeats(first, later)?;
    let n_inner = menus.len() - n_leaves;
    for (index, menu) in menus.iter().enumerate() {
        let mut dearest: f64 = 0.0;
        for from_input in [0, 1] {
            let most_inner = n_inner.min(index).min(prices.max_in_degree() - from_input);
            for from_inner in (1 - from_input)..=most_inner {
                let channels = |input| from_input * input + from_inner * f;
                for &op in menu {
                    let Some(first) = prices.node(stage, op, channels(c_in)) else { continue };
                    let later = prices.node(stage, op, channels(c_out));
                    dearest = dearest.max(over_repeats(first, later).unwrap_or(0.0));
                }
            }
        }
        sum += dearest;
    }
    Some((c_out, sum))
}
