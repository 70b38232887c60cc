//! A study's children as a search domain: one decision per candidate edge, one per node where operators are searched, and one per
//! dimension of the layout.

use gram_ir::{CellNodeId, Layout, Limits, LowerError, MIN_LIVE_NODES, Shape, Space};
use gram_meta::{Child, LayoutWeights, MetaGraph, MetaStage, StageEdges};
use rand_chacha::ChaCha8Rng;

use crate::cell_costs::CellCosts;
use crate::domain::{ClassKey, Decision, Domain, FunctionGraph, Histogram, Point};
use crate::strategy::Tilt;
use crate::{Gate, LatencyLimit};

/// Nodes of a [`FunctionGraph`] that are no operators: a stage's input.
const INPUT_LABEL: u32 = 0;
/// Labels of a stage's operators begin at this multiple of its number.
const STAGE_LABELS: u32 = 256;
/// Names of layouts in histograms; far from those of graphs, which are hashes.
const LAYOUT_NAMES: u64 = 1 << 32;
/// Names of costs in histograms.
const COST_NAMES: u64 = 1 << 48;
/// Steps from nothing to a limit.
const COST_STEPS: u64 = 32;
/// How much heavier a limit that is used up is than a child's operators; by evidence, `docs/headline-method.md`.
const COST_WEIGHT: f64 = 4.0;

/// Children of a meta-graph within hard limits.
///
/// Edges from dead nodes are decisions like all others, but mean nothing: points that differ in them only are one class, as are points whose
/// graphs are isomorphic.
///
/// # Departs from [`Domain`]'s contract
/// A class can have astronomically many members; only the point itself is listed. So edits start from the member that was evaluated, and
/// what a surrogate sees of positions, as opposed to the function, depends on it.
#[derive(Debug)]
pub struct CellDomain {
    meta: MetaGraph,
    tilt: Option<Tilt>,
    space: Space,
    input: Shape,
    num_classes: usize,
    limits: Limits,
    latency: Option<LatencyLimit>,
    costs: CellCosts,
    decisions: Vec<Decision>,
    /// Whether a decision is one about an edge.
    is_edge: Vec<bool>,
}

impl CellDomain {
    /// The children of `meta`, which also draws the random ones, leaning as `tilt` says, that pass the gate.
    ///
    /// # Errors
    /// [`LowerError`] if not even the space's smallest networks can be lowered.
    pub fn new(meta: MetaGraph, tilt: Option<Tilt>, gate: &Gate<'_>) -> Result<Self, LowerError> {
        let costs = CellCosts::new(gate.space, gate.input, gate.num_classes)?;
        let (mut decisions, mut is_edge) = (Vec::new(), Vec::new());
        for (index, stage) in meta.stages().iter().enumerate() {
            let edge = |(from, to, _): (CellNodeId, CellNodeId, &f64)| {
                Decision::new(format!("stage {index}: {} -> {}", from.0, to.0), 2)
            };
            decisions.extend(stage.weights().iter().map(edge));
            is_edge.resize(decisions.len(), true);
            if let Some(menu) = menu(stage) {
                let node = |node: usize| Decision::new(format!("stage {index}: operator {node}"), menu);
                decisions.extend((1..stage.n_nodes()).map(node));
                is_edge.resize(decisions.len(), false);
            }
        }
        for dimension in meta.layout() {
            let n_values = u8::try_from(dimension.weights().len()).unwrap_or(u8::MAX);
            decisions.push(Decision::new(dimension.dimension().what.to_string(), n_values));
        }
        is_edge.resize(decisions.len(), false);
        let (space, limits, latency) = (gate.space.clone(), *gate.limits, gate.latency.cloned());
        let (input, num_classes) = (gate.input, gate.num_classes);
        Ok(Self { meta, tilt, space, input, num_classes, limits, latency, costs, decisions, is_edge })
    }

    /// The child of a point.
    pub fn child(&self, point: &Point) -> Child {
        let mut values = point.values();
        let mut next = |n: usize| {
            let (own, rest) = values.split_at(n.min(values.len()));
            values = rest;
            own
        };
        let stage = |stage: &MetaStage| {
            let edges = next(stage.weights().values().len());
            let kept = stage.weights().iter().zip(edges).filter(|(_, value)| **value == 1);
            let kept = StageEdges::new(stage.n_nodes(), kept.map(|((from, to, _), _)| (from, to)));
            match stage.op_weights() {
                None => kept,
                Some(searched) => {
                    let ops = next(stage.n_nodes() - 1);
                    kept.with_ops(|node| searched.menu()[usize::from(ops[node.index() - 1])])
                }
            }
        };
        let stages = self.meta.stages().iter().map(stage).collect();
        Child::new(stages).with_layout(Layout(values.to_vec()))
    }

    /// A point of a child. Operators of dead nodes are the menu's first.
    pub fn point(&self, child: &Child) -> Point {
        let mut values = Vec::with_capacity(self.decisions.len());
        for (stage, kept) in self.meta.stages().iter().zip(child.stages()) {
            values.extend(stage.weights().iter().map(|(from, to, _)| u8::from(kept.contains(from, to))));
            if let Some(searched) = stage.op_weights() {
                let place = |node: usize| {
                    let op = kept.op(CellNodeId(node as u16));
                    searched.menu().iter().position(|&on_menu| Some(on_menu) == op).unwrap_or(0) as u8
                };
                values.extend((1..stage.n_nodes()).map(place));
            }
        }
        values.extend(&child.layout().0);
        Point::from(values)
    }

    /// The space, with all that it leaves open.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// The meta-graph that draws the random children.
    pub fn meta(&self) -> &MetaGraph {
        &self.meta
    }

    /// Goes on with what the meta-graph was taught: draws change, points and classes do not.
    ///
    /// # Panics
    /// If the meta-graph is not one of the same space and deal.
    pub fn teach(&mut self, meta: MetaGraph) {
        let nodes = |meta: &MetaGraph| -> Vec<_> { meta.stages().iter().map(MetaStage::n_nodes).collect() };
        assert_eq!(nodes(&self.meta), nodes(&meta), "a meta-graph of another space");
        self.meta = meta;
    }

    fn keeps_limits(&self, child: &Child) -> bool {
        self.costs.of(&self.meta, child).is_some_and(|cost| self.limits.allow(&cost))
            && self.keeps_network_limits(child)
    }

    /// Those that take a lowered network, which is why they are asked last.
    fn keeps_network_limits(&self, child: &Child) -> bool {
        let Self { space, input, num_classes, limits, latency, .. } = self;
        let gate = Gate { space, input: *input, num_classes: *num_classes, limits, latency: latency.as_ref() };
        (limits.max_peak_bytes.is_none() && latency.is_none())
            || self.meta.blueprint(child).is_ok_and(|blueprint| gate.check(&blueprint).is_ok())
    }
}

impl CellDomain {
    /// A layout as counts: for every dimension one name for each step that its value stands above the smallest one, so that near values have
    /// much in common; each as heavy as the operators that it changes.
    fn thermometers(&self, child: &Child) -> impl Iterator<Item = (u64, f64)> {
        let n_operators: usize = child.stages().iter().map(StageEdges::n_live_operators).sum();
        let steps = |(index, (dimension, &choice)): (usize, (&LayoutWeights, &u8))| {
            let values = &dimension.dimension().values;
            let own = values.get(usize::from(choice)).copied().unwrap_or(0);
            let below: Vec<usize> = values.iter().copied().filter(|&value| value < own).collect();
            let weight = n_operators as f64 / (values.len() * self.meta.stages().len()) as f64;
            below
                .into_iter()
                .map(move |value| (LAYOUT_NAMES * (index as u64 + 1) + value as u64, weight))
                .collect::<Vec<_>>()
        };
        self.meta.layout().iter().zip(&child.layout().0).enumerate().flat_map(steps).collect::<Vec<_>>().into_iter()
    }

    /// What is spent of the limits on MACs and params as counts: one name for each step, so that children that spend alike have much in common.
    /// Within limits what a child spends says more of its score than what it chose.
    fn spent(&self, child: &Child) -> impl Iterator<Item = (u64, f64)> {
        let n_operators: usize = child.stages().iter().map(StageEdges::n_live_operators).sum();
        let weight = COST_WEIGHT * n_operators as f64 / COST_STEPS as f64;
        let cost = self.costs.of(&self.meta, child);
        let limits = [self.limits.max_macs.map(|most| most.0), self.limits.max_params.map(|most| most.0)];
        let spent = cost.map(|cost| [cost.macs.0, cost.params.0]).into_iter().flatten().zip(limits);
        let steps = move |(index, (spent, most)): (u64, (u64, Option<u64>))| {
            let share = most.map_or(0.0, |most| (spent as f64 / most.max(1) as f64).min(1.0));
            (0..(share * COST_STEPS as f64) as u64).map(move |step| (COST_NAMES * (index + 1) + step, weight))
        };
        (0..).zip(spent).flat_map(steps)
    }
}

/// Operators to choose from; none where they are dealt out.
fn menu(stage: &MetaStage) -> Option<u8> {
    stage.op_weights().map(|searched| u8::try_from(searched.menu().len()).unwrap_or(u8::MAX))
}

impl Domain for CellDomain {
    fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    fn is_feasible(&self, point: &Point) -> bool {
        let child = self.child(point);
        let is_structured = |stage: &StageEdges| {
            stage.n_live_operators() >= MIN_LIVE_NODES && stage.max_in_degree() <= self.meta.max_in_degree()
        };
        child.stages().iter().all(is_structured) && self.keeps_limits(&child)
    }

    fn class_of(&self, point: &Point) -> ClassKey {
        let child = self.meta.blueprint(&self.child(point)).expect("invariant: a point's child is of this meta-graph");
        ClassKey::of_bytes(self.space.build(self.input, self.num_classes, &child).canonical_key().as_bytes())
    }

    fn histogram(&self, point: &Point) -> Histogram {
        let child = self.child(point);
        let (mut labels, mut edges) = (vec![INPUT_LABEL], Vec::new());
        for (index, (stage, kept)) in self.meta.stages().iter().zip(child.stages()).enumerate() {
            let input = labels.len() - 1;
            let mut place = vec![input; stage.n_nodes()];
            let mut is_leaf = vec![false; stage.n_nodes()];
            let live = (1..stage.n_nodes()).filter(|&node| kept.is_live(CellNodeId(node as u16)));
            for node in live {
                let op = kept.op(CellNodeId(node as u16)).unwrap_or(stage.ops()[node - 1]);
                place[node] = labels.len();
                is_leaf[node] = true;
                labels.push(STAGE_LABELS * (index as u32 + 1) + op as u32);
            }
            for (from, to) in kept.edges() {
                is_leaf[from.index()] = false;
                edges.push((place[from.index()], place[to.index()]));
            }
            // The next stage's input, or the head's.
            let output = labels.len();
            labels.push(STAGE_LABELS * (index as u32 + 2) - 1);
            edges.extend((1..stage.n_nodes()).filter(|&node| is_leaf[node]).map(|node| (place[node], output)));
        }
        let graph = FunctionGraph::new(labels, &edges).expect("invariant: edges lead upwards").histogram();
        graph.counts().iter().copied().chain(self.thermometers(&child)).chain(self.spent(&child)).collect()
    }

    fn removal(&self, decision: usize) -> Option<u8> {
        self.is_edge.get(decision)?.then_some(0)
    }

    fn random(&self, rng: &mut ChaCha8Rng) -> Option<Point> {
        let accept = |child: &Child| self.keeps_limits(child);
        let child = match &self.tilt {
            None => self.meta.sample(rng, &accept),
            Some(tilt) => self.meta.tilted(&tilt.witness, tilt.share).ok()?.sample(rng, &accept),
        };
        child.ok().map(|child| self.point(&child))
    }
}
