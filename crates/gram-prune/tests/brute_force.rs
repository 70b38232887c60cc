//! The pruner against all threshold tuples, each lowered as a whole network.

use std::collections::BTreeSet;

use gram_ir::strategies::{arb_cell_output, arb_edge_weights};
use gram_ir::{
    Activation, Cell, CellNodeId, CellOp, CellOutput, Concat, Cost, Downsample, Dtype, EdgeMap, Head, Limits,
    MIN_LIVE_NODES, Macs, MemoryModel, Params, Separable, Shape, Space, StageSpace, StemLayer, Verify,
};
use gram_prune::{Candidate, MAX_FRONT, PrunableStage, PruneError, Pruned, prune};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const INPUT: Shape = Shape::chw(2, 9, 8);
const NUM_CLASSES: usize = 3;
/// An engine for which stages can be looked at one by one.
const MEMORY: MemoryModel =
    MemoryModel { dtype: Dtype::U8, concat: Concat::Copy, partial: false, separable: Separable::Split };

#[derive(Clone, Debug)]
struct Case {
    space: Space,
    stages: Vec<(Vec<CellOp>, EdgeMap<f64>)>,
}

impl Case {
    fn prune(&self, limits: &Limits) -> Result<Pruned, PruneError> {
        let stages: Vec<PrunableStage<'_>> =
            self.stages.iter().map(|(ops, weights)| PrunableStage { ops, weights }).collect();
        prune(&self.space, INPUT, NUM_CLASSES, &stages, limits)
    }

    /// Every feasible combination of thresholds.
    fn all(&self) -> Vec<Slow> {
        let mut tuples: Vec<Vec<(Cell, f64)>> = vec![Vec::new()];
        for (ops, weights) in &self.stages {
            let kept = kept_by_every_threshold(ops, weights, self.space.max_in_degree);
            let longer =
                |tuple: &Vec<(Cell, f64)>, next: &(Cell, f64)| [tuple.as_slice(), std::slice::from_ref(next)].concat();
            tuples = tuples
                .iter()
                .flat_map(|tuple| kept.iter().map(|next| longer(tuple, next)).collect::<Vec<_>>())
                .collect();
        }
        tuples.iter().map(|tuple| self.slow(tuple)).collect()
    }

    fn slow(&self, tuple: &[(Cell, f64)]) -> Slow {
        let cells: Vec<Cell> = tuple.iter().map(|(cell, _)| cell.clone()).collect();
        let network = self.space.assemble(INPUT, NUM_CLASSES, &cells).lower().unwrap();
        let peak_bytes = gram_memory::peak_bytes(&network, &MEMORY).unwrap();
        Slow { cost: network.cost(), peak_bytes, retained_weight: tuple.iter().map(|(_, weight)| weight).sum() }
    }
}

/// A network found the slow way.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Slow {
    cost: Cost,
    /// For [`MEMORY`].
    peak_bytes: u64,
    retained_weight: f64,
}

impl Slow {
    fn dominates(&self, other: &Self) -> bool {
        self.retained_weight >= other.retained_weight
            && self.cost.macs <= other.cost.macs
            && self.cost.params <= other.cost.params
            && self.point() != other.point()
    }

    fn point(&self) -> (u64, u64, u64) {
        (self.cost.macs.0, self.cost.params.0, self.retained_weight.to_bits())
    }
}

/// Straight from the definition: `w ≥ τ`, one of the heaviest in-edges, source live.
fn kept_by_every_threshold(ops: &[CellOp], weights: &EdgeMap<f64>, max_in_degree: usize) -> Vec<(Cell, f64)> {
    let by_threshold = |&threshold: &f64| {
        let mut cell = Cell::new();
        let mut live = BTreeSet::from([0]);
        for (to, &op) in (1..).zip(ops) {
            let weight = |from: u16| *weights.get(CellNodeId(from), CellNodeId(to)).unwrap();
            let is_heavier = |a: u16, b: u16| weight(a) > weight(b) || weight(a) == weight(b) && a < b;
            let rank = |from: u16| (0..to).filter(|&other| is_heavier(other, from)).count();
            let is_kept = |from: &u16| live.contains(from) && weight(*from) >= threshold && rank(*from) < max_in_degree;
            let sources: Vec<u16> = (0..to).filter(is_kept).collect();
            if sources.is_empty() {
                continue;
            }
            cell.add_node(CellNodeId(to), op).unwrap();
            live.insert(to);
            for from in sources {
                cell.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
            }
        }
        // Added up in the order of sources, as the pruner does, for equal last bits.
        let odds = |(from, to)| weights.get(from, to).map(|weight| weight / (1.0 - weight)).unwrap();
        let retained_weight = cell.edges().into_iter().map(|edge| odds(edge).ln()).sum();
        (live.len() > MIN_LIVE_NODES).then_some((cell, retained_weight))
    };
    weights.values().iter().filter_map(by_threshold).collect()
}

/// Spaces of 1 to 3 stages with 3 to 6 nodes, every kind of output, 1 or 2 repeats, the first two stages down-sampled or not.
fn arb_case() -> impl Strategy<Value = Case> {
    let stem = prop_oneof![Just(vec![]), Just(vec![StemLayer::Conv { channels: 3, kernel: 3, stride: 1 }])];
    let head = option::of(1..=4usize).prop_map(|conv| Head { conv });
    // Three stages of 6 nodes have 3,375 combinations.
    let stages = vec(arb_stage(6), 1..=2).boxed().prop_union(vec(arb_stage(5), 3).boxed());
    (stem, head, 1..=4usize, stages).prop_map(|(stem, head, max_in_degree, stages)| {
        let (stage_spaces, stages) = stages.into_iter().unzip();
        let space = Space {
            name: "small".into(),
            activation: Activation::Relu,
            max_in_degree,
            operators: CellOp::ALL.to_vec(),
            node_operators: Default::default(),
            image_sizes: Vec::new(),
            channel_multiple: 1,
            stem,
            stages: stage_spaces,
            head,
        };
        Case { space, stages }
    })
}

fn arb_stage(most_nodes: usize) -> impl Strategy<Value = (StageSpace, (Vec<CellOp>, EdgeMap<f64>))> {
    let downsample = select(vec![Downsample::None, Downsample::Maxpool2]);
    // Half of the outputs pass the leaves on as they are, so that channels vary.
    let output = (arb_cell_output(), any::<bool>())
        .prop_map(|(output, plain)| if plain { CellOutput { project: None, ..output } } else { output });
    (3..=most_nodes, 1..=4usize, 1..=2usize, downsample, output).prop_flat_map(
        |(nodes, channels, repeats, downsample, output)| {
            let space = StageSpace { repeats, ..StageSpace::new(nodes, channels, downsample, output) };
            let weights = arb_edge_weights(nodes).prop_map(within_unit_interval);
            (Just(space), (vec(select(CellOp::ALL.to_vec()), nodes - 1), weights))
        },
    )
}

fn within_unit_interval(mut weights: EdgeMap<f64>) -> EdgeMap<f64> {
    weights.values_mut().iter_mut().for_each(|weight| *weight = weight.clamp(0.02, 0.98));
    weights
}

/// Limits at, below or above the costs that occur, or none.
fn limits(all: &[Slow], macs: Option<(usize, u64)>, params: Option<(usize, u64)>) -> Limits {
    let of = |(pick, slack): (usize, u64), cost: fn(&Cost) -> u64| cost(&all[pick % all.len()].cost) + slack - 1;
    Limits {
        max_macs: macs.map(|choice| Macs(of(choice, |cost| cost.macs.0))),
        max_params: params.map(|choice| Params(of(choice, |cost| cost.params.0))),
        ..Limits::default()
    }
}

fn point(candidate: &Candidate) -> Slow {
    let network = candidate.architecture.lower().unwrap();
    let peak_bytes = gram_memory::peak_bytes(&network, &MEMORY).unwrap();
    Slow { cost: candidate.cost, peak_bytes, retained_weight: candidate.retained_weight }
}

/// The best of the slow networks and their undominated points are the pruner's; see the comments for the invariants.
fn check(case: &Case, limits: &Limits, all: &[Slow]) -> Result<(), TestCaseError> {
    let allows =
        |slow: &Slow| limits.allow(&slow.cost) && limits.max_peak_bytes.is_none_or(|most| slow.peak_bytes <= most);
    let within: Vec<&Slow> = all.iter().filter(|slow| allows(slow)).collect();
    let pruned = match case.prune(limits) {
        Ok(pruned) => pruned,
        Err(error) => {
            // P1 what cannot be met is refused, with the exact least costs.
            prop_assert!(within.is_empty(), "{error}");
            let smallest_macs = all.iter().map(|slow| slow.cost.macs).min().unwrap();
            let smallest_params = all.iter().map(|slow| slow.cost.params).min().unwrap();
            let expected = PruneError::LimitsUnmeetable { limits: *limits, smallest_macs, smallest_params };
            prop_assert_eq!(error, expected);
            return Ok(());
        }
    };
    // P2 the best is the heaviest within the limits.
    let heaviest = within.iter().map(|slow| slow.retained_weight).max_by(f64::total_cmp).unwrap();
    prop_assert_eq!(pruned.best.retained_weight, heaviest);
    prop_assert_eq!(&pruned.best, &pruned.front[0]);
    // P3 the front is what no other dominates: all of it, or as many as there may be.
    let undominated = |slow: &&&Slow| !within.iter().any(|other| other.dominates(slow));
    let expected: BTreeSet<_> = within.iter().filter(undominated).map(|slow| slow.point()).collect();
    let found: BTreeSet<_> = pruned.front.iter().map(|candidate| point(candidate).point()).collect();
    prop_assert_eq!(found.len(), pruned.front.len());
    prop_assert_eq!(pruned.n_undominated, expected.len());
    match expected.len() {
        ..=MAX_FRONT => prop_assert_eq!(found, expected),
        _ => prop_assert!(found.len() == MAX_FRONT && found.is_subset(&expected)),
    }
    for candidate in &pruned.front {
        // P4 no limit is broken, and the cost is that of the network.
        prop_assert!(allows(&point(candidate)));
        prop_assert_eq!(candidate.architecture.lower().unwrap().cost(), candidate.cost);
        // P5 the architecture is well-formed.
        prop_assert_eq!(candidate.architecture.verify(), Ok(()));
        // P6 the thresholds leave these cells.
        let per_stage = candidate.thresholds.iter().zip(&candidate.architecture.stages).zip(&case.stages);
        for ((&threshold, stage), (_, weights)) in per_stage {
            let weight = |&(from, to): &(CellNodeId, CellNodeId)| *weights.get(from, to).unwrap();
            prop_assert!(stage.cell.edges().iter().map(weight).all(|weight| weight >= threshold));
        }
    }
    // P7 best first, and no two networks are the same but for the numbering of nodes.
    prop_assert!(pruned.front.is_sorted_by(|a, b| a.retained_weight >= b.retained_weight));
    let keys: BTreeSet<_> = pruned.front.iter().map(|candidate| candidate.architecture.canonical_key()).collect();
    prop_assert_eq!(keys.len(), pruned.front.len());
    // P8 the same again.
    prop_assert_eq!(case.prune(limits).unwrap(), pruned);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn equals_brute_force(
        case in arb_case(),
        macs in option::of((any::<usize>(), 0..=2u64)),
        params in option::of((any::<usize>(), 0..=2u64)),
        peak: Index,
    ) {
        let all = case.all();
        check(&case, &Limits::default(), &all)?;
        check(&case, &limits(&all, macs, params), &all)?;
        // Peak bytes on top, as low as some network has them.
        let most = all[peak.index(all.len())].peak_bytes;
        let max_peak_bytes = Some(most);
        check(&case, &Limits { max_peak_bytes, memory: MEMORY, ..limits(&all, macs, params) }, &all)?;
        // Other engines: stages may run into each other, and the limit is kept all the same.
        let memory = MemoryModel { concat: Concat::View, partial: true, separable: Separable::Fused, ..MEMORY };
        let limits_of_others = Limits { max_peak_bytes, memory, ..Limits::default() };
        if let Ok(pruned) = case.prune(&limits_of_others) {
            let keeps = |candidate: &Candidate| {
                gram_memory::peak_bytes(&candidate.architecture.lower().unwrap(), &memory).unwrap() <= most
            };
            prop_assert!(pruned.front.iter().all(keeps));
            prop_assert_eq!(&pruned.best, &pruned.front[0]);
        }
        // Just below the smallest.
        let least = all.iter().map(|slow| slow.cost.macs.0).min().unwrap();
        check(&case, &Limits { max_macs: Some(Macs(least - 1)), max_params: None, ..Limits::default() }, &all)?;
    }
}
