//! The pruner against all threshold tuples, each lowered as a whole network.

mod support;

use std::collections::BTreeSet;

use gram_ir::{Cell, CellNodeId, Concat, Cost, Dtype, Limits, Macs, MemoryModel, Params, Separable, Verify};
use gram_prune::{Candidate, MAX_FRONT, PruneError, Pruned, prune};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use support::{Case, INPUT, NUM_CLASSES, arb_case};

/// An engine for which stages can be looked at one by one.
const MEMORY: MemoryModel =
    MemoryModel { dtype: Dtype::U8, concat: Concat::Copy, partial: false, separable: Separable::Split };

fn prune_case(case: &Case, limits: &Limits) -> Result<Pruned, PruneError> {
    prune(&case.space, INPUT, NUM_CLASSES, &case.prunable(), limits)
}

/// Every feasible combination of thresholds.
fn all(case: &Case) -> Vec<Slow> {
    case.tuples().iter().map(|tuple| slow(case, tuple)).collect()
}

fn slow(case: &Case, tuple: &[(Cell, f64)]) -> Slow {
    let cells: Vec<Cell> = tuple.iter().map(|(cell, _)| cell.clone()).collect();
    let network = case.space.assemble(INPUT, NUM_CLASSES, &cells).lower().unwrap();
    let peak_bytes = gram_memory::peak_bytes(&network, &MEMORY).unwrap();
    Slow { cost: network.cost(), peak_bytes, retained_weight: tuple.iter().map(|(_, weight)| weight).sum() }
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
    let pruned = match prune_case(case, limits) {
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
    prop_assert_eq!(prune_case(case, limits).unwrap(), pruned);
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
        let all = all(&case);
        check(&case, &Limits::default(), &all)?;
        check(&case, &limits(&all, macs, params), &all)?;
        // Peak bytes on top, as low as some network has them.
        let most = all[peak.index(all.len())].peak_bytes;
        let max_peak_bytes = Some(most);
        check(&case, &Limits { max_peak_bytes, memory: MEMORY, ..limits(&all, macs, params) }, &all)?;
        // Other engines: stages may run into each other, and the limit is kept all the same.
        let memory = MemoryModel { concat: Concat::View, partial: true, separable: Separable::Fused, ..MEMORY };
        let limits_of_others = Limits { max_peak_bytes, memory, ..Limits::default() };
        if let Ok(pruned) = prune_case(&case, &limits_of_others) {
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
