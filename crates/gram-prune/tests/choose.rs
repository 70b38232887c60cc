//! Choosing against brute force, and what repair keeps.

mod support;

use std::collections::BTreeSet;

use gram_ir::{
    Architecture, Cell, CellNodeId, Concat, Cost, Dtype, Limits, MIN_LIVE_NODES, Macs, MemoryModel, Network, Params,
    Separable, Verify,
};
use gram_prune::{
    AccuracyModel, Choice, ChooseError, Expectation, Latency, LatencyModel, Limit, Origin, Setting, Step, choose,
    pareto, repair,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use support::{Case, INPUT, NUM_CLASSES, arb_case};

const MEMORY: MemoryModel =
    MemoryModel { dtype: Dtype::U8, concat: Concat::Copy, partial: false, separable: Separable::Fused };

/// Milliseconds by operators and work; knows nothing of networks with five concatenations.
struct ByOperators;

impl LatencyModel for ByOperators {
    fn latency(&self, network: &Network) -> Option<Latency> {
        let count = |kind: &str| network.nodes().iter().filter(|node| node.op.kind() == kind).count();
        let ms = 0.1 * count("conv") as f64 + network.cost().macs.0 as f64 / 1e5;
        (count("concat") != 5).then_some(Latency { ms, low_ms: 0.9 * ms, high_ms: 1.2 * ms })
    }
}

/// A rugged function of the graph that does not depend on its numbering.
struct Rugged;

fn rugged(architecture: &Architecture) -> f64 {
    let stage = |(place, cell): (usize, &Cell)| {
        let leaves = cell.leaves();
        let node = |(id, op, inputs): (CellNodeId, gram_ir::CellOp, Vec<CellNodeId>)| {
            let is_leaf = u8::from(leaves.contains(&id));
            let from_input = u8::from(inputs.contains(&CellNodeId::INPUT));
            (7 * (op as usize) + 5 * inputs.len() + 3 * usize::from(is_leaf) + 11 * usize::from(from_input))
                * (place + 2)
        };
        cell.live_inputs().into_iter().map(node).sum::<usize>()
    };
    let sum: usize = architecture.stages.iter().map(|stage| &stage.cell).enumerate().map(stage).sum();
    0.5 + (sum % 97) as f64 / 200.0
}

impl AccuracyModel for Rugged {
    fn expected(&self, architecture: &Architecture) -> Expectation {
        let mean = rugged(architecture);
        Expectation { mean, sd: 0.01, low: mean - 0.02, high: mean + 0.02 }
    }
}

/// All that is known of a network, found without the pruner.
#[derive(Clone, Debug)]
struct Slow {
    cost: Cost,
    peak_bytes: u64,
    high_ms: f64,
    mean: f64,
}

impl Slow {
    fn of(case: &Case, cells: &[Cell]) -> Self {
        let canonical: Vec<Cell> = cells.iter().map(Cell::canonical_form).collect();
        let architecture = case.space.assemble(INPUT, NUM_CLASSES, &canonical);
        let network = architecture.lower().unwrap();
        Self {
            cost: network.cost(),
            peak_bytes: gram_memory::peak_bytes(&network, &MEMORY).unwrap(),
            high_ms: ByOperators.latency(&network).map_or(f64::INFINITY, |latency| latency.high_ms),
            mean: rugged(&architecture),
        }
    }

    fn keeps(&self, limits: &Limits, max_ms: Option<f64>) -> bool {
        limits.allow(&self.cost)
            && limits.max_peak_bytes.is_none_or(|most| self.peak_bytes <= most)
            && max_ms.is_none_or(|most| self.high_ms <= most)
    }

    fn point(&self) -> [u64; 5] {
        [self.cost.macs.0, self.cost.params.0, self.peak_bytes, self.high_ms.to_bits(), self.mean.to_bits()]
    }

    fn beats(&self, other: &Self) -> bool {
        let costs = |slow: &Self| [slow.cost.macs.0, slow.cost.params.0, slow.peak_bytes];
        costs(self).iter().zip(costs(other)).all(|(own, theirs)| *own <= theirs)
            && self.high_ms <= other.high_ms
            && self.mean >= other.mean
            && self.point() != other.point()
    }
}

fn point(choice: &Choice) -> [u64; 5] {
    let high_ms = choice.latency.map_or(f64::INFINITY, |latency| latency.high_ms);
    let mean = choice.expected.unwrap().mean;
    [choice.cost.macs.0, choice.cost.params.0, choice.peak_bytes, high_ms.to_bits(), mean.to_bits()]
}

/// Which of the four limits there are, each at what a network costs.
type Choose = [Option<Index>; 4];

fn limits_at(all: &[Slow], [macs, params, peak, ms]: Choose) -> (Limits, Option<f64>) {
    let at = |index: Option<Index>| index.map(|index| &all[index.index(all.len())]);
    let limits = Limits {
        max_macs: at(macs).map(|slow| Macs(slow.cost.macs.0)),
        max_params: at(params).map(|slow| Params(slow.cost.params.0)),
        max_peak_bytes: at(peak).map(|slow| slow.peak_bytes),
        memory: MEMORY,
    };
    (limits, at(ms).map(|slow| slow.high_ms).filter(|ms| ms.is_finite()))
}

fn setting<'a>(
    case: &'a Case,
    stages: &'a [gram_prune::PrunableStage<'a>],
    limits: &'a Limits,
    max_latency_ms: Option<f64>,
) -> Setting<'a> {
    Setting {
        space: &case.space,
        input: INPUT,
        num_classes: NUM_CLASSES,
        stages,
        limits,
        max_latency_ms,
        latency: Some(&ByOperators),
        accuracy: Some(&Rugged),
    }
}

/// One edge differs, or one went and one came.
fn is_single_swap(before: &Architecture, after: &Architecture, step: &Step) -> bool {
    let changed: Vec<usize> =
        (0..before.stages.len()).filter(|&i| before.stages[i].cell != after.stages[i].cell).collect();
    let (old, new) = (before.stages[step.swap.stage].cell.edges(), after.stages[step.swap.stage].cell.edges());
    let came: Vec<_> = new.difference(&old).copied().collect();
    // What an edge alone kept alive goes with it.
    let went: Vec<_> = old.difference(&new).copied().collect();
    changed == [step.swap.stage]
        && came.len() <= 1
        && came.first().copied() == step.swap.added
        && step.swap.removed.is_none_or(|edge| went.contains(&edge))
        && (step.swap.removed.is_some() || went.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chosen_are_what_brute_force_finds(
        case in arb_case(),
        picks: Choose,
        given in prop::collection::vec(any::<Index>(), 0..3),
        tighter in select(vec![0_u64, 1]),
    ) {
        let tuples: Vec<Vec<Cell>> =
            case.tuples().into_iter().map(|tuple| tuple.into_iter().map(|(cell, _)| cell).collect()).collect();
        let all: Vec<Slow> = tuples.iter().map(|cells| Slow::of(&case, cells)).collect();
        let (mut limits, max_ms) = limits_at(&all, picks);
        limits.max_macs = limits.max_macs.map(|most| Macs(most.0 - tighter));
        let given: Vec<(usize, Vec<Cell>)> =
            given.iter().enumerate().map(|(number, index)| (number, index.get(&tuples).clone())).collect();
        let stages = case.prunable();
        let setting = setting(&case, &stages, &limits, max_ms);
        let within: Vec<&Slow> = all.iter().filter(|slow| slow.keeps(&limits, max_ms)).collect();
        match choose(&setting, &given) {
            Ok(chosen) => {
                // C1 the front is what no other beats in four costs and expected accuracy, best first.
                let expected: BTreeSet<_> =
                    within.iter().filter(|slow| !within.iter().any(|other| other.beats(slow))).map(|slow| slow.point()).collect();
                prop_assert_eq!(chosen.front.iter().map(point).collect::<BTreeSet<_>>(), expected.clone());
                prop_assert_eq!(chosen.front.len(), expected.len());
                prop_assert!(chosen.front.is_sorted_by(|a, b| a.merit() >= b.merit()));
                for choice in &chosen.front {
                    // C2 no limit is broken, by a lowering of its own.
                    let cells: Vec<Cell> = choice.architecture.stages.iter().map(|stage| stage.cell.clone()).collect();
                    prop_assert!(Slow::of(&case, &cells).keeps(&limits, max_ms));
                    prop_assert_eq!(choice.architecture.verify(), Ok(()));
                    // C3 what was given is named.
                    if let Origin::Given(number) = choice.origin {
                        prop_assert_eq!(&given[number].1, &cells);
                    }
                }
                // C4 the same again; and a front of fronts is the front.
                prop_assert_eq!(&choose(&setting, &given).unwrap(), &chosen);
                prop_assert_eq!(pareto(chosen.front.iter().chain(&chosen.front).cloned().collect()), chosen.front);
            }
            Err(ChooseError::Unmeetable(error)) => {
                // C5 what cannot be met is refused, with the least of each cost and a limit that binds.
                prop_assert!(within.is_empty(), "{error}");
                prop_assert_eq!(Some(error.least.macs), all.iter().map(|slow| slow.cost.macs).min());
                prop_assert_eq!(Some(error.least.params), all.iter().map(|slow| slow.cost.params).min());
                let distinct: BTreeSet<Vec<_>> =
                    tuples.iter().map(|cells| cells.iter().map(Cell::canonical_key).collect()).collect();
                if distinct.len() <= 512 {
                    prop_assert_eq!(error.least.peak_bytes, all.iter().map(|slow| slow.peak_bytes).min());
                    let least_ms = all.iter().map(|slow| slow.high_ms).fold(f64::INFINITY, f64::min);
                    prop_assert_eq!(error.least.latency_ms.unwrap_or(f64::INFINITY), least_ms);
                }
                prop_assert!(!error.binding.is_empty());
                let is_set = |limit: &Limit| match limit {
                    Limit::Macs => limits.max_macs.is_some(),
                    Limit::Params => limits.max_params.is_some(),
                    Limit::PeakBytes => limits.max_peak_bytes.is_some(),
                    Limit::Latency => max_ms.is_some(),
                };
                prop_assert!(error.binding.iter().all(is_set), "{error}");
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn repair_keeps_limits_and_raises_what_is_expected(case in arb_case(), picks: Choose, most_steps in 1..=4_usize) {
        let all: Vec<Slow> = case
            .tuples()
            .iter()
            .map(|tuple| Slow::of(&case, &tuple.iter().map(|(cell, _)| cell.clone()).collect::<Vec<_>>()))
            .collect();
        let (limits, max_ms) = limits_at(&all, picks);
        let stages = case.prunable();
        let setting = setting(&case, &stages, &limits, max_ms);
        let Ok(chosen) = choose(&setting, &[]) else { return Ok(()) };
        for start in [&chosen.front[0], &chosen.front[chosen.front.len() - 1]] {
            let steps = repair(&setting, start, most_steps).unwrap();
            // R1 no more steps than asked for, and the same again.
            prop_assert!(steps.len() <= most_steps);
            prop_assert_eq!(&repair(&setting, start, most_steps).unwrap(), &steps);
            let mut before = start;
            for (number, step) in steps.iter().enumerate() {
                let after = &step.choice;
                // R2 no limit is ever broken, by a lowering of its own; its costs are its own.
                let cells: Vec<Cell> = after.architecture.stages.iter().map(|stage| stage.cell.clone()).collect();
                let slow = Slow::of(&case, &cells);
                prop_assert!(slow.keeps(&limits, max_ms), "{}", step.swap);
                prop_assert_eq!(slow.point(), point(after));
                // R3 the expected accuracy rises with every step.
                prop_assert!(after.merit() > before.merit());
                // R4 one edge is swapped; what is left is a child of the space.
                prop_assert!(is_single_swap(&before.architecture, &after.architecture, step), "{}", step.swap);
                prop_assert_eq!(after.architecture.verify(), Ok(()));
                prop_assert_eq!(&after.origin, &Origin::Repaired(number + 1));
                for (cell, (ops, _)) in cells.iter().zip(&case.stages) {
                    prop_assert!(cell.ops().len() >= MIN_LIVE_NODES && cell.live().len() == cell.ops().len() + 1);
                    prop_assert!(cell.ops().all(|(id, op)| ops[id.index() - 1] == op));
                    prop_assert!(cell.ops().all(|(id, _)| cell.predecessors(id).len() <= case.space.max_in_degree));
                }
                before = after;
            }
            // R5 where it stops early, no neighbour is expected to be better.
            if steps.len() < most_steps {
                prop_assert!(repair(&setting, before, 1).unwrap().is_empty());
            }
        }
    }
}

/// Without a model of accuracy the front is ranked by retained weight, and nothing is repaired.
#[test]
fn without_expectations_weights_decide() {
    let space = gram_ir::space_preset("swiftnet-small").unwrap();
    let weights = gram_ir::EdgeMap::from_fn(8, |from, to| 0.9 / f64::from(to.0 - from.0));
    let ops = [gram_ir::CellOp::Sep3x3; 7];
    let stages = [gram_prune::PrunableStage { ops: &ops, weights: &weights }; 2];
    let limits = Limits { max_macs: Some(Macs(300_000)), ..Limits::default() };
    let setting = Setting {
        space: &space,
        input: gram_ir::Shape::chw(1, 8, 8),
        num_classes: 10,
        stages: &stages,
        limits: &limits,
        max_latency_ms: None,
        latency: None,
        accuracy: None,
    };
    let chosen = choose(&setting, &[]).unwrap();
    let best = &chosen.front[0];
    assert!(best.expected.is_none() && best.latency.is_none());
    assert!(chosen.front.iter().all(|choice| choice.retained_weight <= best.retained_weight));
    let pruned = gram_prune::prune(&space, setting.input, 10, &stages, &limits).unwrap();
    assert_eq!((best.retained_weight, &best.architecture), (pruned.best.retained_weight, &pruned.best.architecture));
    assert!(repair(&setting, best, 3).unwrap().is_empty());
    // A limit on latency without a device is kept by nothing.
    let error = choose(&Setting { max_latency_ms: Some(9.0), ..setting }, &[]).unwrap_err().to_string();
    assert!(error.contains("at most 9 ms") && error.contains("what binds: latency"), "{error}");
}
