//! Invariants of ALGORITHMS 1.5 on the public API; numbers are those of its list.

use std::collections::BTreeMap;

use gram_ir::{Activation, CellNodeId, CellOp, CellOutput, Downsample, Head, NodeOperators, Space, StageSpace};
use gram_meta::{Child, MetaConfig, MetaGraph, StageEdges, temper};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn space(nodes: &[usize], max_in_degree: usize) -> Space {
    let output = CellOutput { project: Some(8), residual: false, linear_leaves: false, activation: false };
    let stage = |&nodes: &usize| StageSpace::new(nodes, 4, Downsample::None, output);
    Space {
        name: "test".into(),
        activation: Activation::Relu,
        max_in_degree,
        operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
        node_operators: Default::default(),
        image_sizes: Vec::new(),
        channel_multiple: 1,
        stem: Vec::new(),
        stages: nodes.iter().map(stage).collect(),
        head: Head::default(),
    }
}

/// A meta-graph of one stage with weights drawn from `low..high`.
fn meta(n_nodes: usize, max_in_degree: usize, low: f64, high: f64, seed: u64) -> MetaGraph {
    let fresh = MetaGraph::new(&space(&[n_nodes], max_in_degree), MetaConfig::default(), seed).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&fresh.to_json().unwrap()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for weight in json["stages"][0]["weights"].as_array_mut().unwrap() {
        *weight = rng.random_range(low..high).into();
    }
    MetaGraph::from_json(&json.to_string()).unwrap()
}

fn weights(meta: &MetaGraph) -> Vec<f64> {
    meta.stages()[0].weights().values().to_vec()
}

fn draw(meta: &MetaGraph, n: usize, seed: u64) -> Vec<Child> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| meta.sample(&mut rng, &|_| true).unwrap()).collect()
}

/// The update for frozen scores and β, from the same weights.
fn updated(meta: &MetaGraph, children: &[Child], scores: &[f64], beta: f64) -> Vec<f64> {
    let mut next = meta.clone();
    next.propagate(children.iter().zip(softmax(scores, beta))).unwrap();
    weights(&next)
}

fn softmax(scores: &[f64], beta: f64) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = scores.iter().map(|score| (beta * (score - most)).exp()).collect();
    let total: f64 = raw.iter().sum();
    raw.iter().map(|weight| weight / total).collect()
}

fn round() -> impl Strategy<Value = (u64, usize, Vec<f64>)> {
    (any::<u64>(), 3_usize..=10, prop::collection::vec(0.0..1.0_f64, 1..12))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// 1: weights stay in [ε, 1 − ε], however long and one-sided the search is.
    #[test]
    fn weights_stay_in_range((seed, n_nodes, scores) in round()) {
        let mut meta = meta(n_nodes, 4, 0.02, 0.98, seed);
        let children = draw(&meta, scores.len(), seed);
        let scores: Vec<Option<f64>> = scores.into_iter().map(Some).collect();
        for _ in 0..40 {
            let before = weights(&meta);
            let tempered = temper(&scores, None, meta.config());
            let largest = meta.propagate(children.iter().zip(tempered.weights)).unwrap();
            let after = weights(&meta);
            prop_assert!(after.iter().all(|w| (0.02..=0.98).contains(w)));
            let moved = before.iter().zip(&after).map(|(b, a)| (a - b).abs()).fold(0.0, f64::max);
            prop_assert_eq!(moved, largest);
        }
    }

    /// 2: the derivative by a child's score is the formula, so it is ≥ 0 for edges that the child keeps and ≤ 0 for edges that it omits.
    #[test]
    fn update_is_monotone_in_reward((seed, n_nodes, scores) in round(), beta in 0.1..20.0_f64) {
        // Weights in 0.3..0.7 cannot be clipped in one round.
        let meta = meta(n_nodes, 4, 0.3, 0.7, seed);
        let children = draw(&meta, scores.len(), seed);
        let (eta, u) = (meta.config().eta, softmax(&scores, beta));
        let shifted = |k: usize, by: f64| {
            let mut scores = scores.clone();
            scores[k] += by;
            updated(&meta, &children, &scores, beta)
        };
        for k in 0..children.len() {
            let step = 1e-5;
            let (up, down) = (shifted(k, step), shifted(k, -step));
            for (e, (from, to, &w)) in meta.stages()[0].weights().iter().enumerate() {
                let pull = |child: &Child| {
                    let kept = &child.stages()[0];
                    let g = if kept.contains(from, to) { 1.0 } else { 0.0 };
                    if kept.is_live(from) { g - w } else { 0.0 }
                };
                let mean: f64 = children.iter().zip(&u).map(|(child, u)| u * pull(child)).sum();
                let formula = eta * beta * u[k] * (pull(&children[k]) - mean);
                let measured = (up[e] - down[e]) / (2.0 * step);
                prop_assert!((formula - measured).abs() < 1e-6 * (1.0 + beta * beta), "{formula} {measured}");
                let kept = &children[k].stages()[0];
                if kept.contains(from, to) {
                    prop_assert!(measured >= -1e-9);
                } else if kept.is_live(from) {
                    prop_assert!(measured <= 1e-9);
                }
            }
        }
    }

    /// 3: only differences of scores count.
    #[test]
    fn update_is_shift_invariant((seed, n_nodes, scores) in round(), shift in -1.0..1.0_f64) {
        let meta = meta(n_nodes, 4, 0.02, 0.98, seed);
        let children = draw(&meta, scores.len(), seed);
        let update = |shift: f64| {
            let scores: Vec<Option<f64>> = scores.iter().map(|score| Some(score + shift)).collect();
            let mut next = meta.clone();
            next.propagate(children.iter().zip(temper(&scores, None, meta.config()).weights)).unwrap();
            weights(&next)
        };
        for (a, b) in update(0.0).iter().zip(update(shift)) {
            prop_assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }

    /// 4: the order of children does not count, and edges with a dead source in all children are untouched.
    #[test]
    fn update_is_permutation_invariant((seed, n_nodes, scores) in round()) {
        let meta = meta(n_nodes, 4, 0.02, 0.98, seed);
        let children = draw(&meta, scores.len(), seed);
        let forward = updated(&meta, &children, &scores, 5.0);
        let reversed: Vec<Child> = children.iter().rev().cloned().collect();
        let backward = updated(&meta, &reversed, &scores.iter().rev().copied().collect::<Vec<_>>(), 5.0);
        for (a, b) in forward.iter().zip(&backward) {
            prop_assert!((a - b).abs() < 1e-14);
        }
        for ((from, _, before), after) in meta.stages()[0].weights().iter().zip(&forward) {
            if children.iter().all(|child| !child.stages()[0].is_live(from)) {
                prop_assert_eq!(before, after);
            }
        }
    }

    /// 1 to 4 for searched operators: weights stay a distribution above the floor, move towards a better child's choice, depend on
    /// differences of scores only and not on the order of children, and stay where the node is dead in all children.
    #[test]
    fn operator_weights_follow_the_same_rule((seed, n_nodes, scores) in round(), shift in -1.0..1.0_f64) {
        let space = Space { node_operators: NodeOperators::Searched, ..space(&[n_nodes], 4) };
        let meta = MetaGraph::new(&space, MetaConfig::default(), seed).unwrap();
        let children = draw(&meta, scores.len(), seed);
        let of = |meta: &MetaGraph| meta.stages()[0].op_weights().unwrap().values().to_vec();
        let update = |children: &[Child], scores: &[f64]| {
            let mut next = meta.clone();
            next.propagate(children.iter().zip(softmax(scores, 5.0))).unwrap();
            of(&next)
        };
        let (before, after) = (of(&meta), update(&children, &scores));
        let shifted = update(&children, &scores.iter().map(|score| score + shift).collect::<Vec<_>>());
        let reversed: Vec<Child> = children.iter().rev().cloned().collect();
        let backward = update(&reversed, &scores.iter().rev().copied().collect::<Vec<_>>());
        for other in [shifted, backward] {
            prop_assert!(after.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-12));
        }
        for node in 1..n_nodes {
            let options = 2 * (node - 1)..2 * node;
            prop_assert!((after[options.clone()].iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(after[options.clone()].iter().all(|&weight| weight >= 0.02 - 1e-15));
            if children.iter().all(|child| !child.stages()[0].is_live(CellNodeId(node as u16))) {
                prop_assert_eq!(&before[options.clone()], &after[options]);
            }
        }
        let mut better = scores.clone();
        better[0] += 0.1;
        for (node, (low, high)) in after.chunks(2).zip(update(&children, &better).chunks(2)).enumerate() {
            if let Some(op) = children[0].stages()[0].op(CellNodeId(node as u16 + 1)) {
                let chosen = usize::from(op == CellOp::Sep3x3);
                prop_assert!(high[chosen] >= low[chosen] - 1e-12);
            }
        }
    }

    /// 8: the same seed gives the same meta-graph, bit for bit.
    #[test]
    fn same_seed_same_meta_graph(seed: u64, searched: bool) {
        let node_operators = if searched { NodeOperators::Searched } else { NodeOperators::Dealt };
        let space = Space { node_operators, ..space(&[6, 12], 4) };
        let learn = || {
            let mut meta = MetaGraph::new(&space, MetaConfig::default(), seed).unwrap();
            for round in 0..3 {
                let children = draw(&meta, 8, seed ^ round);
                let score = |child: &Child| Some(child.stages()[0].n_edges() as f64 / 20.0);
                let tempered = temper(&children.iter().map(score).collect::<Vec<_>>(), None, meta.config());
                meta.propagate(children.iter().zip(tempered.weights)).unwrap();
            }
            meta.to_json().unwrap()
        };
        prop_assert_eq!(learn(), learn());
    }

    /// Cells show exactly the child's live nodes and edges.
    #[test]
    fn cells_and_children_agree(seed: u64, n_nodes in 3_usize..=30) {
        let meta = MetaGraph::new(&space(&[n_nodes], 4), MetaConfig::default(), seed).unwrap();
        for child in draw(&meta, 4, seed) {
            let cell = meta.cells(&child).unwrap().remove(0);
            let kept = &child.stages()[0];
            prop_assert_eq!(cell.edges().len(), kept.n_edges());
            prop_assert!(kept.edges().all(|edge| cell.edges().contains(&edge)));
            prop_assert_eq!(cell.live().len(), kept.n_live_operators() + 1);
            prop_assert_eq!(cell.ops().len(), kept.n_live_operators());
        }
    }
}

/// The prior's law on canonical graphs given the feasible set, from all 64 edge sets of four nodes.
fn push_forward(meta: &MetaGraph, feasible: impl Fn(&Child) -> bool) -> BTreeMap<Child, f64> {
    let edges: Vec<(CellNodeId, CellNodeId, f64)> =
        meta.stages()[0].weights().iter().map(|(from, to, &weight)| (from, to, weight)).collect();
    let mut law = BTreeMap::new();
    for bits in 0..1_u32 << edges.len() {
        let kept = |e: usize| bits >> e & 1 == 1;
        let p: f64 = edges.iter().enumerate().map(|(e, &(.., w))| if kept(e) { w } else { 1.0 - w }).product();
        let chosen = edges.iter().enumerate().filter(|(e, _)| kept(*e)).map(|(_, &(from, to, _))| (from, to));
        let child = Child::new(vec![StageEdges::new(4, chosen)]);
        if feasible(&child) {
            *law.entry(child).or_insert(0.0) += p;
        }
    }
    let total: f64 = law.values().sum();
    law.values_mut().for_each(|p| *p /= total);
    law
}

/// The value that chi-square with `df` degrees of freedom exceeds with probability 0.001 (Wilson and Hilferty's approximation).
fn chi_square_critical(df: f64) -> f64 {
    let z = 3.0902;
    let spread = 2.0 / (9.0 * df);
    df * (1.0 - spread + z * spread.sqrt()).powi(3)
}

#[track_caller]
fn check_law(meta: &MetaGraph, accept: &dyn Fn(&Child) -> bool, graphs: usize) {
    let structure = |child: &Child| {
        child.stages()[0].n_live_operators() >= 2 && child.stages()[0].max_in_degree() <= meta.max_in_degree()
    };
    let law = push_forward(meta, |child| structure(child) && accept(child));
    assert_eq!(law.len(), graphs);
    let n = 100_000;
    let mut counts: BTreeMap<Child, f64> = BTreeMap::new();
    let mut rng = ChaCha8Rng::seed_from_u64(2024);
    for _ in 0..n {
        *counts.entry(meta.sample(&mut rng, accept).unwrap()).or_insert(0.0) += 1.0;
    }
    assert!(counts.keys().all(|child| law.contains_key(child)), "a child outside the feasible set");
    let chi_square: f64 = law
        .iter()
        .map(|(child, p)| (counts.get(child).copied().unwrap_or(0.0) - n as f64 * p).powi(2) / (n as f64 * p))
        .sum();
    let critical = chi_square_critical(law.len() as f64 - 1.0);
    assert!(chi_square < critical, "chi-square {chi_square}, critical value {critical} at p = 0.001");
}

/// 7, sampler A: canonical graphs are as frequent as the push-forward of the prior onto them, given the feasible set.
/// A correct sampler fails each case with probability 0.001 over seeds; the seeds are fixed.
///
/// Four nodes have 34 canonical graphs, 30 of which have two or more live operator nodes.
#[test]
fn sampler_a_has_the_exact_law() {
    check_law(&meta(4, 4, 0.2, 0.8, 11), &|_| true, 30);
    check_law(&meta(4, 4, 0.02, 0.98, 12), &|_| true, 30);
}

/// The same where the in-degree and the caller's rule restrict the set.
#[test]
fn sampler_a_is_exact_under_restrictions() {
    check_law(&meta(4, 1, 0.3, 0.9, 13), &|_| true, 12);
    check_law(&meta(4, 2, 0.4, 0.9, 14), &|child| child.stages()[0].n_edges() <= 3, 15);
}
