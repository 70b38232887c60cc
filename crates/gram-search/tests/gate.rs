//! The gate before the evaluator, held against costs that are counted anew.

mod toy;

use std::sync::Arc;

use gram_ir::{Concat, Limits, Macs, MemoryModel, Params, Shape};
use gram_memory::plan;
use gram_meta::{MetaConfig, MetaGraph};
use gram_search::{Gate, LatencyLimit, LatencyModel, Refusal, try_stream};
use rand::{Rng, RngExt};
use toy::{ByOperators, slow_cost, space, variants};

const INPUT: Shape = Shape::chw(3, 8, 8);
const SEED: u64 = 5;

/// Whether a cost keeps a limit that was drawn around it, and what it is.
struct Drawn<T> {
    limit: Option<T>,
    keeps: bool,
}

/// Unlimited, exactly equal, one above, one below, or anywhere up to twice the cost. Limits that the cost keeps are more likely: four are to be kept at once.
fn draw_limit(cost: u64, rng: &mut impl Rng) -> Drawn<u64> {
    let limit = match rng.random_range(0..20) {
        0..6 => None,
        6..11 => Some(cost),
        11..15 => Some(cost + 1),
        15..17 => Some(cost - 1),
        _ => Some(rng.random_range(1..=2 * cost)),
    };
    Drawn { limit, keeps: limit.is_none_or(|limit| cost <= limit) }
}

/// As [`draw_limit`], for milliseconds: the neighbours are the next floats.
fn draw_latency(ms: Option<f64>, rng: &mut impl Rng) -> Drawn<f64> {
    let around = ms.unwrap_or(1.0);
    let limit = match rng.random_range(0..20) {
        0..6 => None,
        6..11 => Some(around),
        11..15 => Some(around.next_up()),
        15..17 => Some(around.next_down()),
        _ => Some(around * rng.random_range(0.5..2.0)),
    };
    Drawn { limit, keeps: limit.is_none_or(|limit| ms.is_some_and(|ms| ms <= limit)) }
}

/// A million pairs of a random child and limits around its true costs: the gate before the evaluator lets through exactly those that keep
/// all limits. The truth is counted anew from the lowered network, its peak by a schedule that is proven to be the best.
#[test]
fn a_million_children_and_limits_are_told_apart() {
    const N_PAIRS: usize = 1_000_000;
    const LIMITS_PER_CHILD: usize = 250;
    let mut spaces = variants();
    // What studies look like: a dozen nodes.
    spaces.extend([space(&[10, 8]), space(&[12])]);
    let metas: Vec<MetaGraph> =
        spaces.iter().map(|space| MetaGraph::new(space, MetaConfig::default(), SEED).unwrap()).collect();
    let (mut n_allowed, mut n_pairs, mut n_layouts, mut n_inexact) = (0, 0, 0, 0);
    let mut refused = [0; 3];
    for index in 0..N_PAIRS / LIMITS_PER_CHILD {
        let (space, meta) = (&spaces[index % spaces.len()], &metas[index % spaces.len()]);
        let mut rng = try_stream(SEED, 0, index);
        let child = meta.sample(&mut rng, &|_| true).unwrap();
        let blueprint = meta.blueprint(&child).unwrap();
        n_layouts += usize::from(!blueprint.layout.is_empty());
        let free = Gate { space, input: INPUT, num_classes: 10, limits: &Limits::default(), latency: None };
        let network = free.admit(blueprint.clone()).unwrap().network;
        let (macs, params) = slow_cost(&network);
        let memory = MemoryModel { concat: Concat::ALL[index % Concat::ALL.len()], ..MemoryModel::default() };
        let plan = plan(&network, &memory).unwrap();
        n_inexact += usize::from(!plan.is_exact());
        let ms = ByOperators.upper_ms(&network);
        for pair in 0..LIMITS_PER_CHILD {
            let drawn = [macs, params, plan.peak_bytes].map(|cost| draw_limit(cost, &mut rng));
            let time = draw_latency(ms, &mut rng);
            let limits = Limits {
                max_macs: drawn[0].limit.map(Macs),
                max_params: drawn[1].limit.map(Params),
                max_peak_bytes: drawn[2].limit,
                memory,
            };
            let latency = time.limit.map(|max_ms| LatencyLimit { max_ms, model: Arc::new(ByOperators) });
            let gate = Gate { limits: &limits, latency: latency.as_ref(), ..free };
            let truth = time.keeps && drawn.iter().all(|drawn| drawn.keeps);
            let found = gate.check_lowered(&network);
            // A plan that is not proven may be beaten, and a limit that is not proven to be kept is not.
            assert!(
                found.is_ok() == truth || !plan.is_exact(),
                "{found:?}, truly {truth}: {limits:?} {ms:?} {blueprint:?}"
            );
            match &found {
                Ok(cost) => assert_eq!((cost.macs.0, cost.params.0), (macs, params)),
                Err(Refusal::Limits { .. }) => refused[0] += 1,
                Err(Refusal::Peak { .. }) => refused[1] += 1,
                Err(Refusal::Latency { .. }) => refused[2] += 1,
                Err(other) => panic!("{other}"),
            }
            // The whole way of a proposal says the same.
            if pair % 50 == 0 {
                assert_eq!(gate.admit(blueprint.clone()).is_ok(), found.is_ok());
                assert_eq!(gate.check(&blueprint).is_ok(), found.is_ok());
            }
            n_allowed += usize::from(found.is_ok());
            n_pairs += 1;
        }
    }
    let counts =
        format!("{n_allowed} of {n_pairs} allowed, {refused:?} refused, {n_layouts} layouts, {n_inexact} inexact");
    assert_eq!(n_pairs, N_PAIRS, "{counts}");
    assert!(n_allowed * 10 >= n_pairs && (n_pairs - n_allowed) * 10 >= n_pairs, "{counts}");
    assert!(refused.iter().all(|&n| n * 50 >= n_pairs), "{counts}");
    assert!(n_layouts > 100 && n_inexact == 0, "{counts}");
}
