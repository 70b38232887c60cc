//! Invariant 5 of ALGORITHMS 1.5: single-site detailed balance on enumerated spaces, for the laws that the moves really draw from.

use super::conditional::Conditional;
use super::*;
use crate::MetaConfig;
use crate::StageEdges;
use crate::meta_graph::tests::{meta, searched, space};
use gram_ir::{CellNodeId, Layout};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// All points of the space of a meta-graph of one stage, by options of its sites.
fn points(meta: &MetaGraph) -> Vec<(Vec<usize>, ChainState)> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut state = ChainState::draw(meta, &mut rng, &|_| true).unwrap();
    let sites: Vec<Site> = (0..meta.n_sites()).map(|index| meta.site(index).unwrap()).collect();
    let n_points = 1 << sites.len(); // two options each: pairs, and a menu of two
    let point = |bits: usize| {
        let options: Vec<usize> = (0..sites.len()).map(|site| bits >> site & 1).collect();
        for (&site, &option) in sites.iter().zip(&options) {
            state.set(meta, site, option);
        }
        (options, state.clone())
    };
    (0..n_points).map(point).collect()
}

fn prior_probability(meta: &MetaGraph, options: &[usize]) -> f64 {
    let factor = |(index, &option): (usize, &usize)| match meta.site(index).unwrap() {
        Site::Edge { stage, from, to } => {
            let w = *meta.stages[stage].weights.get(from, to).unwrap();
            if option == 1 { w } else { 1.0 - w }
        }
        Site::Op { stage, node } => meta.stages[stage].op_weights.as_ref().unwrap().of(node).unwrap()[option],
        Site::Layout { dimension } => meta.layout[dimension].weights[option],
    };
    options.iter().enumerate().map(factor).product()
}

type Scores = BTreeMap<Child, f64>;

/// A score in 0..0.3 for every child.
fn random_scores(points: &[(Vec<usize>, ChainState)], rng: &mut ChaCha8Rng) -> Scores {
    let mut scores = Scores::new();
    for (_, state) in points {
        scores.entry(state.child().clone()).or_insert_with(|| rng.random_range(0.0..0.3));
    }
    scores
}

/// The target: 0 where a point is not feasible.
fn law(target: &Target<'_>, points: &[(Vec<usize>, ChainState)], scores: &Scores) -> Vec<f64> {
    let weight = |(options, state): &(Vec<usize>, ChainState)| {
        let tilted = prior_probability(target.meta, options) * (target.beta * scores[state.child()]).exp();
        if target.allows(state.child()) { tilted } else { 0.0 }
    };
    let weights: Vec<f64> = points.iter().map(weight).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

type Kernel = Vec<Vec<f64>>;

/// Probabilities of one random-scan move from every feasible point to every point.
fn move_kernel(target: &Target<'_>, points: &[(Vec<usize>, ChainState)], score_of: impl Fn(&Child) -> f64) -> Kernel {
    let mut kernel = vec![vec![0.0; points.len()]; points.len()];
    let n_sites = target.meta.n_sites();
    for (g, (options, state)) in points.iter().enumerate().filter(|(_, (_, state))| target.allows(state.child())) {
        for (index, &present) in options.iter().enumerate() {
            let (mut buffer, site) = (Conditional::default(), target.meta.site(index).unwrap());
            let score = score_of(state.child());
            buffer.compute(target, &mut state.clone(), site, score, &mut |child| score_of(child));
            for (option, probability) in buffer.probabilities.iter().enumerate() {
                let h = if option == present { g } else { g ^ 1 << index };
                kernel[g][h] += probability / n_sites as f64;
            }
        }
        assert!((kernel[g].iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
    kernel
}

/// `π(g)·P(g→h) = π(h)·P(h→g)` to 1e-12, which also says that nothing flows into the infeasible.
#[track_caller]
fn assert_balance(law: &[f64], kernel: &Kernel) {
    for (g, h) in (0..law.len()).flat_map(|g| (0..g).map(move |h| (g, h))) {
        let (forth, back) = (law[g] * kernel[g][h], law[h] * kernel[h][g]);
        assert!((forth - back).abs() <= 1e-12 * forth.max(back), "{g} {h}: {forth} {back}");
    }
}

/// Weights in 0.02..0.98, also of operators.
fn with_random_weights(mut meta: MetaGraph, rng: &mut ChaCha8Rng) -> MetaGraph {
    for stage in &mut meta.stages {
        stage.weights.values_mut().iter_mut().for_each(|weight| *weight = rng.random_range(0.02..0.98));
        for weights in stage.op_weights.iter_mut().flat_map(|weights| weights.nodes_mut()) {
            weights[0] = rng.random_range(0.02..0.98);
            weights[1] = 1.0 - weights[0];
        }
    }
    for dimension in &mut meta.layout {
        dimension.weights[0] = rng.random_range(0.02..0.98);
        dimension.weights[1] = 1.0 - dimension.weights[0];
    }
    meta
}

#[track_caller]
fn check_balance(meta: MetaGraph, beta: f64, accept: &dyn Fn(&Child) -> bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let meta = with_random_weights(meta, &mut rng);
    let target = Target::new(&meta, beta, accept).unwrap();
    let points = points(&meta);
    let scores = random_scores(&points, &mut rng);
    let law = law(&target, &points, &scores);
    assert!(law.contains(&0.0), "the feasible set is not all");
    assert_balance(&law, &move_kernel(&target, &points, |child| scores[child]));
}

/// Sampler D: inner moves against a surrogate and the acceptance are together in detailed balance with the target, exactly; the surrogate
/// has nothing to do with the scores.
#[test]
fn delayed_steps_are_in_detailed_balance() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let meta = with_random_weights(meta(&[4]), &mut rng);
    let accept = |child: &Child| child.stages()[0].n_edges() <= 4;
    let target = Target::new(&meta, 20.0, &accept).unwrap();
    let points = points(&meta);
    let (scores, surrogate) = (random_scores(&points, &mut rng), random_scores(&points, &mut rng));
    let once = move_kernel(&target, &points, |child| surrogate[child]);
    let inner = (1..6).fold(once.clone(), |walk, _| product(&walk, &once));
    let accepted = |g: usize, h: usize| {
        let gain = |table: &Scores| table[points[h].1.child()] - table[points[g].1.child()];
        inner[g][h] * super::delayed::log_acceptance(target.beta, gain(&scores), gain(&surrogate)).exp().min(1.0)
    };
    let steps = (0..points.len()).map(|g| (0..points.len()).map(|h| accepted(g, h)).collect()).collect();
    assert_balance(&law(&target, &points, &scores), &steps);
}

fn product(a: &Kernel, b: &Kernel) -> Kernel {
    let entry = |row: &[f64], column: usize| row.iter().zip(b).map(|(x, row)| x * row[column]).sum();
    a.iter().map(|row| (0..b.len()).map(|column| entry(row, column)).collect()).collect()
}

/// Moves do not change if all scores are shifted.
#[test]
fn moves_depend_on_differences_of_scores_only() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let meta = with_random_weights(searched(&[4]), &mut rng);
    let target = Target::new(&meta, 20.0, &|_| true).unwrap();
    let points = points(&meta);
    let scores = random_scores(&points, &mut rng);
    let kernel = |shift: f64| move_kernel(&target, &points, |child| scores[child] + shift).concat();
    assert!(kernel(0.0).iter().zip(kernel(0.7)).all(|(a, b)| (a - b).abs() < 1e-12));
}

/// The canonical child of a point, from its definition.
fn plain_child(meta: &MetaGraph, options: &[usize]) -> Child {
    let sites = || (0..meta.n_sites()).map(|index| (meta.site(index).unwrap(), options[index]));
    let edges = sites().filter_map(|(site, option)| match site {
        Site::Edge { from, to, .. } if option == 1 => Some((from, to)),
        _ => None,
    });
    let kept = StageEdges::new(meta.stages[0].n_nodes(), edges);
    let choices = sites().filter(|(site, _)| matches!(site, Site::Layout { .. })).map(|(_, option)| option as u8);
    let layout = Layout(choices.collect());
    let Some(weights) = &meta.stages[0].op_weights else { return Child::new(vec![kept]).with_layout(layout) };
    let op = |id: CellNodeId| {
        let option = sites().find_map(|(site, option)| (site == Site::Op { stage: 0, node: id }).then_some(option));
        weights.menu()[option.unwrap()]
    };
    Child::new(vec![kept.with_ops(op)]).with_layout(layout)
}

/// Two widths and two depths beside the wiring.
fn open() -> MetaGraph {
    let mut space = space(&[4]);
    space.stages[0].widths = vec![4, 8];
    space.stages[0].depths = vec![1, 2];
    MetaGraph::new(&space, MetaConfig::default(), 1).unwrap()
}

#[test]
fn layouts_are_in_detailed_balance() {
    check_balance(open(), 20.0, &|_| true);
    check_balance(open(), 5.0, &|child| child.layout().0 != [1, 1]);
}

#[test]
fn the_child_follows_every_move() {
    for meta in [meta(&[4]), searched(&[4]), open()] {
        for (options, state) in points(&meta) {
            assert_eq!(*state.child(), plain_child(&meta, &options));
        }
    }
}

/// Of the 64 points of four nodes those with two or more live operator nodes.
#[test]
fn feasible_points_by_hand() {
    let all = points(&meta(&[4]));
    let live = |n: usize| all.iter().filter(|(_, state)| state.child().stages()[0].n_live_operators() == n).count();
    // None live: no (0,j), the other three pairs free: 8. One: node 1 by (0,1) alone, (2,3) free: 2; node 2 by (0,2) without (2,3),
    // (1,2) and (1,3) free: 4; node 3 by (0,3), all pairs among operators free: 8. That leaves 42.
    assert_eq!([live(0), live(1), live(2) + live(3)], [8, 2 + 4 + 8, 42]);
}

#[test]
fn single_site_moves_are_in_detailed_balance() {
    for beta in [0.0, 5.0, 20.0, 200.0] {
        check_balance(meta(&[4]), beta, &|_| true);
    }
}

#[test]
fn restrictions_keep_detailed_balance() {
    let mut narrow = meta(&[4]);
    narrow.max_in_degree = 1;
    check_balance(narrow, 20.0, &|_| true);
    check_balance(meta(&[4]), 20.0, &|child| child.stages()[0].n_edges() <= 3);
}

#[test]
fn searched_operators_are_in_detailed_balance() {
    check_balance(searched(&[4]), 0.0, &|_| true);
    check_balance(searched(&[4]), 20.0, &|child| child.stages()[0].op(CellNodeId(3)).is_some());
}

/// The law of an edge is the formula of ALGORITHMS 1.5, and scores are asked for only where they count.
#[test]
fn the_law_of_an_edge_by_hand() {
    let meta = meta(&[4]);
    let rule = |child: &Child| child.stages()[0].n_edges() <= 3;
    let target = Target::new(&meta, 10.0, &rule).unwrap();
    let edges = |list: &[(u16, u16)]| {
        let edges = list.iter().map(|&(from, to)| (CellNodeId(from), CellNodeId(to)));
        Child::new(vec![StageEdges::new(4, edges)])
    };
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut law = |child: &Child, from: u16, to: u16| {
        let mut state = ChainState::around(&meta, child, &mut rng).unwrap();
        let (mut buffer, mut asked) = (Conditional::default(), 0);
        let site = Site::Edge { stage: 0, from: CellNodeId(from), to: CellNodeId(to) };
        buffer.compute(&target, &mut state, site, 0.3, &mut |_| {
            asked += 1;
            0.2
        });
        (buffer.probabilities[1], asked)
    };
    // All weights are 0.5. Present: ΔS = 0.3 − 0.2, absent: ΔS = 0.2 − 0.3.
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    let two = edges(&[(0, 1), (0, 2), (1, 2)]);
    let (present, asked) = law(&two, 1, 2);
    assert!((present - sigma(1.0)).abs() < 1e-15 && asked == 1, "{present}");
    let (absent, asked) = law(&edges(&[(0, 1), (0, 2)]), 1, 2);
    assert!((absent - sigma(-1.0)).abs() < 1e-15 && asked == 1, "{absent}");
    // A fourth edge breaks the rule; without (0,1) one live node is left; node 3 is dead.
    assert_eq!(law(&two, 0, 3), (0.0, 0));
    assert_eq!(law(&edges(&[(0, 1), (1, 2)]), 0, 1), (1.0, 0));
    let (dead, asked) = law(&edges(&[(0, 1), (1, 3)]), 2, 3);
    assert_eq!((dead, asked), (0.5, 0));
}

#[test]
fn chains_must_start_feasible_and_of_their_meta_graph() {
    let (meta, other) = (meta(&[4]), meta(&[5]));
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let state = ChainState::draw(&meta, &mut rng, &|_| true).unwrap();
    let nothing = |_: &Child| false;
    let target = Target::new(&meta, 1.0, &nothing).unwrap();
    assert_eq!(DelayedChain::new(&target, state.clone(), 0.5).unwrap_err(), ChainError::Infeasible);
    let foreign = Target::new(&other, 1.0, &|_| true).unwrap();
    assert!(matches!(DelayedChain::new(&foreign, state.clone(), 0.5), Err(ChainError::Foreign(_))));
    let own = Target::new(&meta, 1.0, &|_| true).unwrap();
    let scoreless = GibbsChain::new(&own, state.clone(), &mut |_| f64::NAN).unwrap_err();
    assert!(matches!(scoreless, ChainError::Score { .. }));
    let mut chain = GibbsChain::new(&own, state, &mut |_| 0.5).unwrap();
    assert!(matches!(chain.step(&foreign, &mut |_| 0.5, &mut rng), Err(ChainError::Foreign(_))));
    for beta in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(Target::new(&meta, beta, &nothing), Err(ChainError::Beta { .. })));
    }
}

#[test]
fn proposals_are_answered_once_and_diverged_ones_refused() {
    let meta = meta(&[5]);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let target = Target::new(&meta, 10.0, &|_| true).unwrap();
    let mut chain = DelayedChain::new(&target, ChainState::draw(&meta, &mut rng, &|_| true).unwrap(), 0.5).unwrap();
    assert_eq!(chain.resolve(0.5), Err(ChainError::NoProposal));
    for diverged in [f64::NAN, f64::NEG_INFINITY, f64::INFINITY] {
        let before = chain.child().clone();
        chain.propose(&target, 20, &mut |_| 0.0, &mut rng).unwrap();
        assert_eq!((chain.resolve(diverged), chain.child()), (Ok(false), &before));
    }
    let proposed = chain.propose(&target, 20, &mut |_| 0.0, &mut rng).unwrap().clone();
    assert_eq!(chain.proposal(), Some(&proposed));
    // A much better score than the surrogate thought is always accepted.
    assert_eq!((chain.resolve(0.9), chain.child(), chain.score()), (Ok(true), &proposed, 0.9));
    assert_eq!(chain.resolve(0.9), Err(ChainError::NoProposal));
    assert!(matches!(chain.propose(&target, 1, &mut |_| f64::NAN, &mut rng), Err(ChainError::Score { .. })));
}
