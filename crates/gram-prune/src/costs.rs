//! Exact costs of the parts of a network: stem, every candidate of every stage, head.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

use gram_ir::{Architecture, Cell, Head, Limits, LowerError, Macs, Network, Params, Shape, Space};
use gram_memory::keeps_peak_limit;

use crate::candidates::StageCandidate;

/// What a part adds to the cost of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartCost {
    pub(crate) macs: Macs,
    pub(crate) params: Params,
}

impl PartCost {
    /// What the network's nodes with such names cost.
    fn of(network: &Network, counted: impl Fn(&str) -> bool) -> Self {
        let nodes = || network.nodes().iter().filter(|node| counted(&node.name));
        Self {
            macs: nodes().map(|node| node.op.macs(node.shape)).sum(),
            params: nodes().map(|node| node.op.params()).sum(),
        }
    }

    fn least_of_each(self, other: Self) -> Self {
        Self { macs: self.macs.min(other.macs), params: self.params.min(other.params) }
    }

    pub(crate) fn is_within(self, limits: &Limits) -> bool {
        limits.max_macs.is_none_or(|most| self.macs <= most) && limits.max_params.is_none_or(|most| self.params <= most)
    }
}

impl Add for PartCost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { macs: self.macs + other.macs, params: self.params + other.params }
    }
}

/// A part with the shape that the next one reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) cost: PartCost,
    pub(crate) output: Shape,
    /// Whether the part alone keeps the limit on peak bytes.
    pub(crate) keeps_peak: bool,
}

/// The candidates of one stage for one input: none where a candidate does not lower, its maps being too large, say.
pub(crate) type PricedStage = Vec<Option<Part>>;

/// Costs of all parts. They add up to the network's: a part's cost depends on nothing but the shape that it reads.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    pub(crate) stem: Part,
    /// For each stage and each shape that the stages before can give: its candidates, in order.
    pub(crate) stages: Vec<BTreeMap<Shape, PricedStage>>,
    /// For each shape that the last stage can give.
    heads: BTreeMap<Shape, PartCost>,
    /// Shapes whose head breaks the limit on peak bytes.
    heads_beyond_peak: BTreeSet<Shape>,
}

impl Costs {
    /// Lowers stem, head and each candidate alone, for every shape that can reach it.
    ///
    /// Without projections the channels that a stage reads vary with the leaves of the stage before; there are as many shapes as there are
    /// numbers of leaves.
    ///
    /// # Errors
    /// [`LowerError`] if not one combination of candidates lowers.
    /// # Complexity
    /// One lowering per candidate and reachable shape, and one schedule where peak bytes are limited.
    pub(crate) fn new(
        space: &Space,
        input: Shape,
        num_classes: usize,
        candidates: &[Vec<StageCandidate>],
        limits: &Limits,
    ) -> Result<Self, LowerError> {
        let stem = lower_alone(&Architecture { stem: space.stem.clone(), ..blank(space, input) }, limits)?;
        let (heads, heads_beyond_peak) = Default::default();
        let mut costs = Self { stem, stages: Vec::new(), heads, heads_beyond_peak };
        let mut shapes = BTreeSet::from([stem.output]);
        for (index, cells) in candidates.iter().enumerate() {
            let priced: BTreeMap<Shape, PricedStage> =
                shapes.iter().map(|&shape| (shape, price(space, index, shape, cells, limits))).collect();
            shapes = priced.values().flatten().flatten().map(|part| part.output).collect();
            costs.stages.push(priced);
            if shapes.is_empty() {
                return Err(costs.in_place(space, input, num_classes, candidates));
            }
        }
        for shape in shapes {
            let head = Architecture { num_classes, head: space.head, ..blank(space, shape) }.lower()?;
            costs.heads.insert(shape, PartCost::of(&head, |_| true));
            if !keeps_peak_limit(&head, limits) {
                costs.heads_beyond_peak.insert(shape);
            }
        }
        Ok(costs)
    }

    /// Cost of the head that reads `shape`.
    pub(crate) fn head(&self, shape: Shape) -> PartCost {
        self.heads[&shape]
    }

    /// Whether the head that reads `shape` keeps the limit on peak bytes.
    pub(crate) fn head_keeps_peak(&self, shape: Shape) -> bool {
        !self.heads_beyond_peak.contains(&shape)
    }

    /// The fewest MACs and, on their own, the fewest params of all networks.
    ///
    /// # Panics
    /// If no combination lowers, of which [`Costs::new`] would have been the error.
    pub(crate) fn least(&self) -> PartCost {
        self.stem.cost + self.least_behind()[0][&self.stem.output]
    }

    /// Element `i`: for each shape that stage `i` can read, the fewest MACs and, on their own, the fewest params of all that follows.
    /// The last element is the head. Shapes from which no combination lowers are missing.
    pub(crate) fn least_behind(&self) -> Vec<BTreeMap<Shape, PartCost>> {
        let mut least = vec![self.heads.clone()];
        for stage in self.stages.iter().rev() {
            let behind = &least[least.len() - 1];
            let total = |part: &Part| behind.get(&part.output).map(|&rest| part.cost + rest);
            let of_shape =
                |priced: &PricedStage| priced.iter().flatten().filter_map(total).reduce(PartCost::least_of_each);
            let here = stage.iter().filter_map(|(&shape, priced)| Some((shape, of_shape(priced)?))).collect();
            least.push(here);
        }
        least.reverse();
        least
    }

    /// Why the last of `self.stages` does not lower, in the words of a whole network: layers lowered alone bear the names of a first stage.
    fn in_place(
        &self,
        space: &Space,
        input: Shape,
        num_classes: usize,
        candidates: &[Vec<StageCandidate>],
    ) -> LowerError {
        let mut cells: Vec<Cell> = Vec::new();
        let mut shape = self.stem.output;
        for (priced, stage) in self.stages.iter().zip(candidates) {
            let first = priced[&shape].iter().zip(stage).find_map(|(part, candidate)| Some(((*part)?, candidate)));
            cells.push(first.map_or(&stage[0], |(_, candidate)| candidate).cell.clone());
            match first {
                Some((part, _)) => shape = part.output,
                None => break,
            }
        }
        let stages = space.stages[..cells.len()].to_vec();
        let part = Space { stages, ..space.clone() }.assemble(input, num_classes, &cells);
        part.lower().expect_err("invariant: the last of these cells does not lower")
    }
}

/// Costs of one stage's candidates for the input `shape`.
fn price(space: &Space, index: usize, shape: Shape, candidates: &[StageCandidate], limits: &Limits) -> PricedStage {
    let alone =
        Space { stages: vec![space.stages[index].clone()], stem: Vec::new(), head: Head::default(), ..space.clone() };
    let part = |candidate: &StageCandidate| {
        lower_alone(&alone.assemble(shape, 1, std::slice::from_ref(&candidate.cell)), limits).ok()
    };
    candidates.iter().map(part).collect()
}

/// Nothing but a classifier of one class, to be filled with the part that is lowered.
fn blank(space: &Space, input: Shape) -> Architecture {
    Architecture {
        name: space.name.clone(),
        input,
        num_classes: 1,
        activation: space.activation,
        stem: Vec::new(),
        stages: Vec::new(),
        head: Head::default(),
    }
}

/// The part in front of a plain head.
fn lower_alone(architecture: &Architecture, limits: &Limits) -> Result<Part, LowerError> {
    let network = architecture.lower()?;
    let pool = network.find("head.pool").expect("invariant: every head pools");
    let output = network.node(network.node(pool).inputs[0]).shape;
    let cost = PartCost::of(&network, |name| !name.starts_with("head."));
    Ok(Part { cost, output, keeps_peak: keeps_peak_limit(&network, limits) })
}
