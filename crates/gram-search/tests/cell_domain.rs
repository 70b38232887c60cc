//! A study's children as a search domain.

mod toy;

use gram_ir::{Limits, Macs, NodeOperators, Shape, Space};
use gram_meta::{MetaConfig, MetaGraph};
use gram_search::domain::Domain;
use gram_search::strategies::{AutoShrink, DomainStrategy, EvolutionConfig, LocalSearch, RegularisedEvolution};
use gram_search::{CellDomain, Gate};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const INPUT: Shape = Shape::chw(3, 8, 8);

fn space(nodes: &[usize], searched: bool) -> Space {
    let node_operators = if searched { NodeOperators::Searched } else { NodeOperators::Dealt };
    Space { node_operators, ..toy::space(nodes) }
}

fn meta(space: &Space, seed: u64) -> MetaGraph {
    MetaGraph::new(space, MetaConfig::default(), seed).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Random points and their neighbours pass the gate; a point and its child say the same; classes are the gate's graphs.
    #[test]
    fn points_are_children(
        nodes in prop::collection::vec(4_usize..8, 1..3),
        searched: bool,
        open: bool,
        seed in 0_u64..1000,
        share in 0.4..1.0_f64,
    ) {
        let mut space = space(&nodes, searched);
        if open {
            space.image_sizes = vec![8, 6];
            space.stages[0].widths = vec![4, 8, 12];
            space.stages[0].depths = vec![1, 2];
        }
        let free = gram_search::preflight(&space, INPUT, 10, &Limits::default(), seed).unwrap();
        let limit = free.macs.min + (share * (free.macs.max - free.macs.min) as f64) as u64;
        let limits = Limits { max_macs: Some(Macs(limit)), max_params: None, ..Limits::default() };
        let gate = Gate { space: &space, input: INPUT, num_classes: 10, limits: &limits, latency: None };
        let domain = CellDomain::new(meta(&space, seed), None, &gate).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let point = domain.random(&mut rng).unwrap();
        let mut points = domain.neighbours(&point);
        points.push(point.clone());
        let mut classes = std::collections::BTreeMap::new();
        for point in &points {
            prop_assert!(domain.is_feasible(point));
            let child = domain.child(point);
            let again = domain.point(&child);
            prop_assert_eq!(&domain.child(&again), &child);
            prop_assert_eq!(domain.class_of(&again), domain.class_of(point));
            prop_assert_eq!(domain.histogram(&again), domain.histogram(point));
            let candidate = gate.admit(domain.meta().blueprint(&child).unwrap()).unwrap();
            prop_assert_eq!(classes.insert(domain.class_of(point), candidate.graph.clone()), None, "classes of neighbours differ");
        }
        let graphs: std::collections::BTreeSet<_> = classes.values().collect();
        prop_assert_eq!(graphs.len(), classes.len(), "a class is a graph");
    }
}

/// Children that are equal up to renaming are one class with one histogram.
#[test]
fn renamed_children_are_one_class() {
    let space = Space { operators: vec![gram_ir::CellOp::Conv1x1], ..space(&[5], false) };
    let gate = Gate { space: &space, input: INPUT, num_classes: 10, limits: &Limits::default(), latency: None };
    let domain = CellDomain::new(meta(&space, 1), None, &gate).unwrap();
    let child = |edges: &[(u16, u16)]| {
        let edges = edges.iter().map(|&(from, to)| (gram_ir::CellNodeId(from), gram_ir::CellNodeId(to)));
        domain.point(&gram_meta::Child::new(vec![gram_meta::StageEdges::new(5, edges)]))
    };
    let (a, b, other) =
        (child(&[(0, 1), (0, 2), (1, 3)]), child(&[(0, 1), (0, 3), (3, 4)]), child(&[(0, 1), (1, 2), (2, 3)]));
    assert_ne!(a, b);
    assert_eq!((domain.class_of(&a), domain.histogram(&a)), (domain.class_of(&b), domain.histogram(&b)));
    assert_ne!(domain.class_of(&a), domain.class_of(&other));
    assert_ne!(domain.histogram(&a), domain.histogram(&other));
}

/// Within limits histograms hold what is spent of them, in 32 steps each.
#[test]
fn histograms_tell_what_is_spent() {
    let space = space(&[6, 6], true);
    let costs = gram_search::preflight(&space, INPUT, 10, &Limits::default(), 3).unwrap();
    let (max_macs, max_params) = (Some(Macs(costs.macs.max)), Some(gram_ir::Params(2 * costs.params.max)));
    let limits = [Limits::default(), Limits { max_macs, max_params, ..Limits::default() }];
    let [free, limited] = limits.each_ref().map(|limits| {
        let gate = Gate { space: &space, input: INPUT, num_classes: 10, limits, latency: None };
        CellDomain::new(meta(&space, 3), None, &gate).unwrap()
    });
    let gate = Gate { space: &space, input: INPUT, num_classes: 10, limits: &limits[0], latency: None };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..20 {
        let point = free.random(&mut rng).unwrap();
        let cost = gate.admit(free.meta().blueprint(&free.child(&point)).unwrap()).unwrap().cost;
        let steps = 32 * cost.macs.0 / costs.macs.max + 32 * cost.params.0 / (2 * costs.params.max);
        let n_names = |domain: &CellDomain| domain.histogram(&point).counts().len() as u64;
        assert_eq!(n_names(&limited) - n_names(&free), steps);
    }
}

/// Every strategy asks for new classes only, and its points are feasible.
#[test]
fn strategies_search_children() {
    let space = space(&[6, 6], true);
    let gate = Gate { space: &space, input: INPUT, num_classes: 10, limits: &Limits::default(), latency: None };
    let domain = CellDomain::new(meta(&space, 3), None, &gate).unwrap();
    let strategies: [Box<dyn DomainStrategy>; 3] = [
        Box::new(AutoShrink::new(1)),
        Box::new(LocalSearch::new(1)),
        Box::new(RegularisedEvolution::new(1, EvolutionConfig::default())),
    ];
    for mut strategy in strategies {
        let mut classes = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let points = strategy.ask(4, &domain);
            assert!(!points.is_empty(), "{}", strategy.name());
            for point in &points {
                assert!(domain.is_feasible(point) && classes.insert(domain.class_of(point)), "{}", strategy.name());
            }
            let scores: Vec<Option<f64>> =
                points.iter().map(|point| Some(domain.child(point).stages()[0].n_edges() as f64)).collect();
            strategy.tell(&scores, &domain);
        }
    }
}
