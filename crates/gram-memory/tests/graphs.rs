//! Random graphs: the search against all orders, bounds, allocations.

mod support;

use gram_memory::{Arena, BufferId, Fit, MemoryGraph, Step, StepId, fits_graph, schedule};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use support::{arb_graph, brute_force, random_order, relabelled};

const STATES: u64 = 1 << 16;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// The search finds what trying every order finds, and says so.
    #[test]
    fn equal_to_brute_force(graph in arb_graph(1..=9)) {
        let found = schedule(&graph, STATES);
        prop_assert_eq!(graph.peak_bytes(&found.order), Ok(found.peak_bytes));    // I1 an order of the graph, and its peak
        prop_assert_eq!(found.peak_bytes, brute_force(&graph));                   // I2 the least of all
        prop_assert!(found.is_exact());                                           // I3 proven
    }

    /// With any allowance, be it none, the bounds hold.
    #[test]
    fn bounds_hold_for_any_allowance(graph in arb_graph(1..=9), states in 0..40u64) {
        let found = schedule(&graph, states);
        let least = brute_force(&graph);
        prop_assert_eq!(graph.peak_bytes(&found.order), Ok(found.peak_bytes));
        prop_assert!(found.lower_bound_bytes <= least && least <= found.peak_bytes, "{:?}, least {}", found, least);
        prop_assert!(found.peak_bytes <= found.plain_peak_bytes);
        prop_assert_eq!(found.plain_peak_bytes, graph.plain_peak_bytes());
    }

    /// A hard limit is decided as the least peak decides it.
    #[test]
    fn limits_are_decided_exactly(graph in arb_graph(1..=9), states in 0..40u64) {
        let least = brute_force(&graph);
        for limit in [0, least.saturating_sub(1), least, least + 1, least * 2, u64::MAX] {
            match fits_graph(&graph, limit, STATES) {
                Fit::Fits { peak_bytes } => prop_assert!(least <= peak_bytes && peak_bytes <= limit),
                Fit::Exceeds { at_least_bytes } => prop_assert!(limit < at_least_bytes && at_least_bytes <= least),
                undecided => prop_assert!(false, "{:?}", undecided),
            }
            match fits_graph(&graph, limit, states) {
                Fit::Fits { peak_bytes } => prop_assert!(least <= peak_bytes && peak_bytes <= limit),
                Fit::Exceeds { at_least_bytes } => prop_assert!(limit < at_least_bytes && at_least_bytes <= least),
                Fit::Undecided { at_least_bytes, at_most_bytes } => {
                    prop_assert!(at_least_bytes <= least && least <= at_most_bytes && limit < at_most_bytes);
                }
            }
        }
    }

    /// Every buffer has a place of its own as long as it is alive, for the best order and for any other.
    #[test]
    fn allocations_do_not_overlap(graph in arb_graph(1..=24), seed: u64) {
        let random = random_order(&graph, &mut ChaCha8Rng::seed_from_u64(seed));
        for order in [schedule(&graph, STATES).order, random] {
            let arena = Arena::new(&graph, &order).unwrap();
            prop_assert_eq!(arena.verify(), Ok(()));                              // I1 no two share a byte
            prop_assert!(arena.bytes >= graph.peak_bytes(&order).unwrap());       // I2 the arena holds the peak
            let mut placed: Vec<u32> = arena.allocations.iter().map(|at| at.buffer).collect();
            placed.dedup();
            prop_assert_eq!(placed.len(), graph.n_buffers());                     // I3 every buffer has a place
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where brute force does not reach: never above any of 1,000 random orders, and the same for all labellings.
    #[test]
    fn never_above_random_orders(graph in arb_graph(10..=24), seed: u64) {
        let found = schedule(&graph, STATES);
        prop_assert!(found.is_exact());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..1000 {
            let order = random_order(&graph, &mut rng);
            prop_assert!(found.peak_bytes <= graph.peak_bytes(&order).unwrap());
        }
        prop_assert_eq!(schedule(&relabelled(&graph, seed), STATES).peak_bytes, found.peak_bytes);
        prop_assert_eq!(schedule(&graph, STATES), found);
    }
}

/// `n` maps of an input, of sizes that fall and rise, and a step that joins each with the one before.
fn ladder(n: u32) -> MemoryGraph {
    let step = |reads: &[u32], writes| Step {
        nodes: Vec::new(),
        fragment: None,
        reads: reads.iter().copied().map(BufferId).collect(),
        writes: BufferId(writes),
    };
    let mut steps: Vec<Step> = (1..=n).map(|i| step(&[0], i)).collect();
    steps.push(step(&[1], n + 1));
    steps.extend((2..=n).map(|i| step(&[i, n + i - 1], n + i)));
    let bytes = (0..=2 * n).map(|i| 1 + u64::from(i % 7) * u64::from(i % 11)).collect();
    MemoryGraph::new(bytes, steps, &[BufferId(2 * n)]).unwrap()
}

/// Sets of one, two and eight words, and parts that are only bounded.
#[test]
fn parts_of_any_size() {
    for n in [20, 60, 200, 1500, 3000] {
        let graph = ladder(n);
        let found = schedule(&graph, 2000);
        assert_eq!(graph.peak_bytes(&found.order), Ok(found.peak_bytes));
        assert!(found.lower_bound_bytes <= found.peak_bytes && found.peak_bytes <= found.plain_peak_bytes);
        // Six thousand steps are left as they are.
        assert_eq!(found.peak_bytes < found.plain_peak_bytes, n < 3000, "{n} steps");
        let arena = Arena::new(&graph, &found.order).unwrap();
        arena.verify().unwrap();
        assert!(arena.bytes >= found.peak_bytes);
    }
}

#[test]
fn a_graph_without_steps() {
    let graph = MemoryGraph::new(vec![7], Vec::new(), &[BufferId(0)]).unwrap();
    let found = schedule(&graph, STATES);
    assert_eq!((found.order, found.peak_bytes, found.plain_peak_bytes), (Vec::<StepId>::new(), 7, 7));
    assert_eq!(fits_graph(&graph, 7, STATES), Fit::Fits { peak_bytes: 7 });
    assert_eq!(fits_graph(&graph, 6, STATES), Fit::Exceeds { at_least_bytes: 7 });
    assert_eq!(Arena::new(&graph, &[]).unwrap().bytes, 7);
}
