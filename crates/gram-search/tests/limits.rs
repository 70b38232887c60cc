//! Hard limits and preflight: exact against brute force, and never broken.

mod toy;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gram_ir::{
    Cell, CellNodeId, CellOp, Concat, Cost, Downsample, Dtype, Layout, Limits, Macs, MemoryModel, Network,
    NodeOperators, Params, Shape, Space,
};
use gram_memory::plan;
use gram_meta::{Child, MetaConfig, MetaGraph, StageEdges};
use gram_search::{
    AskError, Context, Evaluator, EvaluatorError, Feasibility, Gate, Job, LatencyConfig, LatencyLimit, LocalExecutor,
    Outcome, PreflightError, Prior, Record, Run, StopReason, StrategyKind, Study, StudyConfig, StudyError,
    cheapest_child, preflight, probe_prior, read_journal,
};
use proptest::prelude::*;
use toy::{ByOperators, Toy, config, run, slow_cost, space, variants};

const INPUT: Shape = Shape::chw(3, 8, 8);
const SEED: u64 = 5;

/// Every feasible set of edges of a stage.
fn stage_structures(n_nodes: usize, max_in_degree: usize) -> Vec<StageEdges> {
    let id = |node: usize| CellNodeId(node as u16);
    let edges: Vec<_> = (1..n_nodes).flat_map(|to| (0..to).map(move |from| (id(from), id(to)))).collect();
    let structure = |bits: u32| {
        let kept = edges.iter().enumerate().filter(|(e, _)| bits >> e & 1 == 1).map(|(_, &edge)| edge);
        StageEdges::new(n_nodes, kept)
    };
    let mut all: Vec<StageEdges> = (0..1 << edges.len()).map(structure).collect();
    all.retain(|stage| stage.n_live_operators() >= 2 && stage.max_in_degree() <= max_in_degree);
    all.sort_unstable();
    all.dedup();
    all
}

/// Every way to give the live nodes operators.
fn with_all_operators(stage: &StageEdges, menu: &[CellOp]) -> Vec<StageEdges> {
    let node = |index: usize| CellNodeId(index as u16);
    let mut choices: Vec<Vec<CellOp>> = vec![Vec::new()];
    for _ in 1..stage.n_nodes() {
        let longer = |ops: &Vec<CellOp>| menu.iter().map(|&op| [&ops[..], &[op]].concat()).collect::<Vec<_>>();
        choices = choices.iter().flat_map(longer).collect();
    }
    let mut all: Vec<StageEdges> = choices.iter().map(|ops| stage.clone().with_ops(|at| ops[at.index() - 1])).collect();
    all.sort_unstable();
    all.dedup();
    assert!(
        all.iter().all(|chosen| (1..stage.n_nodes()).all(|i| chosen.op(node(i)).is_some() == stage.is_live(node(i))))
    );
    all
}

/// Costs of every child of the space, by lowering it.
fn all_costs(space: &Space) -> Vec<Cost> {
    let meta = MetaGraph::new(space, MetaConfig::default(), SEED).unwrap();
    let gate = Gate { space, input: INPUT, num_classes: 10, limits: &Limits::default(), latency: None };
    let choices = |stage: &gram_ir::StageSpace| {
        let structures = stage_structures(stage.nodes, space.max_in_degree);
        match space.node_operators {
            NodeOperators::Dealt => structures,
            NodeOperators::Searched => {
                structures.iter().flat_map(|edges| with_all_operators(edges, &space.operators)).collect()
            }
        }
    };
    let stages: Vec<Vec<StageEdges>> = space.stages.iter().map(choices).collect();
    let mut children: Vec<Vec<StageEdges>> = vec![vec![]];
    for stage in &stages {
        let longer = |child: &Vec<StageEdges>| {
            let child = child.clone();
            stage.iter().map(move |edges| child.iter().cloned().chain([edges.clone()]).collect())
        };
        children = children.iter().flat_map(longer).collect();
    }
    let layouts: Vec<Layout> = meta.likeliest_layouts(usize::MAX).into_iter().map(|(layout, _)| layout).collect();
    let in_layouts = children
        .into_iter()
        .flat_map(|stages| layouts.iter().map(move |layout| Child::new(stages.clone()).with_layout(layout.clone())));
    in_layouts.map(|child| gate.cost(&meta.blueprint(&child).unwrap()).unwrap()).collect()
}

#[test]
fn least_costs_are_those_of_brute_force() {
    let mut n_exact_most = 0;
    let spaces = variants();
    for space in &spaces {
        let costs = all_costs(space);
        let found = preflight(space, INPUT, 10, &Limits::default(), SEED).unwrap();
        let macs = |cost: &Cost| cost.macs.0;
        let params = |cost: &Cost| cost.params.0;
        assert_eq!(Some(found.macs.min), costs.iter().map(macs).min(), "{space:?}");
        assert_eq!(Some(found.params.min), costs.iter().map(params).min(), "{space:?}");
        assert_eq!(cheapest_child(space, INPUT, 10, SEED).unwrap().cost().macs.0, found.macs.min);
        let (most_macs, most_params) = (costs.iter().map(macs).max().unwrap(), costs.iter().map(params).max().unwrap());
        assert!(found.macs.max >= most_macs && found.params.max >= most_params, "{found:?} {most_macs} {most_params}");
        n_exact_most += usize::from(found.macs.max == most_macs);
        assert!((found.log10_children - (costs.len() as f64).log10()).abs() < 1e-9);
        for range in [found.macs, found.params] {
            assert!([range.min, range.p10, range.p50, range.p90, range.max].is_sorted(), "{range:?}");
        }
    }
    assert!(n_exact_most * 4 >= spaces.len() * 3, "the upper bound is met in {n_exact_most} of {}", spaces.len());
}

#[test]
fn a_limit_is_met_or_refused_exactly_at_the_least_cost() {
    for space in variants() {
        let check = |limits: Limits| preflight(&space, INPUT, 10, &limits, SEED).unwrap();
        let free = check(Limits::default());
        assert_eq!(free.feasibility, Feasibility::Met);
        let at = |macs: Option<u64>, params: Option<u64>| Limits {
            max_macs: macs.map(Macs),
            max_params: params.map(Params),
            ..Limits::default()
        };
        assert_eq!(check(at(Some(free.macs.min), None)).feasibility, Feasibility::Met);
        assert_eq!(check(at(None, Some(free.params.min))).feasibility, Feasibility::Met);
        let below = check(at(Some(free.macs.min - 1), None));
        let error = below.require().unwrap_err();
        assert!(matches!(error, PreflightError::Unmeetable { least_macs, .. } if least_macs.0 == free.macs.min));
        assert!(error.to_string().contains(&Macs(free.macs.min).to_string()), "{error}");
        assert!(check(at(None, Some(free.params.min - 1))).require().is_err());
    }
}

#[test]
fn two_limits_at_once_are_never_decided_wrongly() {
    let mut n_undecided = 0;
    let mut n = 0;
    for space in variants().iter().step_by(2) {
        let costs = all_costs(space);
        let (macs, params): (Vec<u64>, Vec<u64>) = costs.iter().map(|cost| (cost.macs.0, cost.params.0)).unzip();
        let (least_macs, least_params) = (*macs.iter().min().unwrap(), *params.iter().min().unwrap());
        for (over_macs, over_params) in [(1.0, 1.0), (1.05, 1.0), (1.0, 1.05), (1.1, 1.1), (1.3, 1.02)] {
            let limits = Limits {
                max_macs: Some(Macs((least_macs as f64 * over_macs) as u64)),
                max_params: Some(Params((least_params as f64 * over_params) as u64)),
                ..Limits::default()
            };
            let truth = costs.iter().any(|cost| limits.allow(cost));
            match preflight(space, INPUT, 10, &limits, SEED).unwrap().feasibility {
                Feasibility::Met => assert!(truth, "{limits:?}"),
                Feasibility::Unmeetable => assert!(!truth, "{limits:?}"),
                Feasibility::Undecided => n_undecided += 1,
            }
            n += 1;
        }
    }
    assert!(n_undecided * 10 <= n, "{n_undecided} of {n} undecided");
}

#[test]
fn spaces_that_cannot_be_built_are_refused() {
    let mut deep = space(&[4, 4, 4, 4, 4, 4]);
    deep.stages.iter_mut().for_each(|stage| stage.downsample = Downsample::Maxpool2);
    let error = preflight(&deep, INPUT, 10, &Limits::default(), SEED).unwrap_err();
    assert!(matches!(error, PreflightError::Lower(_)), "{error}");
    let mut empty = space(&[4]);
    empty.operators.clear();
    assert!(matches!(preflight(&empty, INPUT, 10, &Limits::default(), SEED), Err(PreflightError::Meta(_))));
}

#[test]
fn preflight_of_the_shipped_size_is_quick_and_large() {
    let mut large = space(&[30, 30, 30]);
    large.stages[2].output.project = None;
    let found = preflight(&large, Shape::chw(3, 32, 32), 10, &Limits::default(), SEED).unwrap();
    assert!(found.log10_children > 200.0, "{found:?}");
    assert!(found.macs.min < found.macs.p50 && found.macs.p50 < found.macs.max);
}

/// The cheapest children that preflight speaks of pass the gate at exactly that limit.
#[test]
fn tight_limits_thin_the_prior() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&[16, 16], StrategyKind::Gram, 16, 3);
    let free = preflight(&config.space, config.input, 10, &Limits::default(), config.seed).unwrap();
    config.limits.max_macs = Some(Macs(free.macs.min + (free.macs.p10 - free.macs.min) / 8));
    let report = run(folder.path(), &config, &Toy::default(), 1).unwrap();
    assert_eq!((report.n_children, report.stop), (16, StopReason::BudgetSpent));
    let prior = recorded_prior(folder.path());
    assert!(prior.factor < 1.0 && prior.acceptance > 0.0 && prior.tilt.is_none(), "{prior:?}");
    let journal = std::fs::read_to_string(folder.path().join("journal.jsonl")).unwrap();
    assert!(!journal.contains("tilt"), "journals of thinned priors stay as they were");
}

fn recorded_prior(directory: &Path) -> Prior {
    let records = read_journal(&directory.join("journal.jsonl")).unwrap();
    let prior = records.iter().find_map(|record| match record {
        Record::Prior(prior) => Some(*prior),
        _ => None,
    });
    prior.expect("a study with limits records its prior")
}

/// Three stages of 30 nodes.
fn cifar(kind: StrategyKind, n_children: usize, seed: u64) -> StudyConfig {
    let space = gram_ir::space_preset("swiftnet-cifar").unwrap();
    let (input, num_classes) = gram_ir::space_preset_io("swiftnet-cifar").unwrap();
    StudyConfig { space, input, num_classes, children_per_round: 4, ..config(&[4], kind, n_children, seed) }
}

/// What preflight calls met a study keeps, in every round.
#[test]
fn limits_close_to_the_least_costs_are_searched() {
    for (seed, kind, on_macs) in [
        (0, StrategyKind::Gram, true),
        (1, StrategyKind::Gram, true),
        (2, StrategyKind::Gram, true),
        (3, StrategyKind::Gram, true),
        (0, StrategyKind::Random, false),
    ] {
        let mut config = cifar(kind, 8, seed);
        let free = preflight(&config.space, config.input, 10, &Limits::default(), seed).unwrap();
        let (max_macs, max_params) = (Macs(free.macs.min + free.macs.min / 100), Params(free.params.min + 100));
        config.limits = if on_macs {
            Limits { max_macs: Some(max_macs), max_params: None, ..Limits::default() }
        } else {
            Limits { max_macs: None, max_params: Some(max_params), ..Limits::default() }
        };
        let folder = tempfile::tempdir().unwrap();
        let report = run(folder.path(), &config, &Toy::default(), 1).unwrap();
        let prior = recorded_prior(folder.path());
        let found = format!("seed {seed} {kind:?}: {prior:?}, {} children, {:?}", report.n_children, report.stop);
        assert!(report.n_children >= 1 && report.best.iter().all(|child| config.limits.allow(&child.cost)), "{found}");
        assert!(matches!(report.stop, StopReason::BudgetSpent | StopReason::SpaceExhausted), "{found}");
        assert!(prior.acceptance >= 0.01, "{found}");
        if let Some(meta) = report.meta_graph {
            assert_eq!(MetaGraph::from_json(&meta.to_json().unwrap()).unwrap(), meta, "weights stay in range");
        }
    }
}

/// The very least cost is met by the witness and its like: a study finds them, stops, and does so again with the same bytes.
#[test]
fn the_least_cost_itself_is_searched() {
    for seed in 0..2 {
        let mut config = cifar(StrategyKind::Gram, 8, seed);
        let free = preflight(&config.space, config.input, 10, &Limits::default(), seed).unwrap();
        config.limits.max_macs = Some(Macs(free.macs.min));
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let reports = folders.each_ref().map(|folder| run(folder.path(), &config, &Toy::default(), 1).unwrap());
        assert!(reports[0].best.iter().all(|child| child.cost.macs.0 == free.macs.min));
        let prior = recorded_prior(folders[0].path());
        assert!(prior.tilt.is_some_and(|share| share > 0.0 && share <= 1.0), "{prior:?}");
        let [first, second] = folders.each_ref().map(|folder| toy::files(folder.path()));
        assert_eq!(first, second);
    }
}

/// A strategy that is asked without preflight names the least costs.
#[test]
fn limits_below_the_least_cost_are_refused_with_it() {
    let config = config(&[6, 6], StrategyKind::Gram, 4, 1);
    let free = preflight(&config.space, config.input, 10, &Limits::default(), 1).unwrap();
    let limits = Limits { max_macs: Some(Macs(free.macs.min - 1)), ..Limits::default() };
    let gate = Gate { space: &config.space, input: config.input, num_classes: 10, limits: &limits, latency: None };
    let interrupt = AtomicBool::new(false);
    let context = Context { gate, seed: 1, round: 0, is_seen: &|_| false, interrupt: &interrupt };
    let meta = MetaGraph::new(&config.space, MetaConfig::default(), 1).unwrap();
    let error = probe_prior(&meta, &context).unwrap_err();
    assert!(matches!(error, AskError::Prior { least_macs, .. } if least_macs.0 == free.macs.min), "{error}");
    let least = [Macs(free.macs.min).to_string(), Params(free.params.min).to_string()];
    assert!(least.iter().all(|cost| error.to_string().contains(cost)), "{error}");
}

/// Trains nothing that the model finds too slow.
struct InTime {
    limit: LatencyLimit,
    toy: Toy,
}

impl Evaluator for InTime {
    fn identity(&self) -> String {
        "in time".into()
    }

    fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
        assert!(self.limit.allows(&job.network), "{:?} ms", self.limit.model.upper_ms(&job.network));
        self.toy.evaluate(job)
    }
}

/// No child whose predicted latency exceeds the limit, or cannot be predicted, reaches the evaluator, whoever proposes it.
#[test]
fn latency_limits_are_never_broken() {
    for (kind, max_ms) in StrategyKind::ALL.into_iter().flat_map(|kind| [1.4, 2.0].map(|max_ms| (kind, max_ms))) {
        let latency = Some(LatencyConfig { max_ms, model: "by operators".into() });
        let config = StudyConfig { latency, ..config(&[8, 8], kind, 24, 3) };
        let limit = LatencyLimit { max_ms, model: Arc::new(ByOperators) };
        let guard = InTime { limit: limit.clone(), toy: Toy::default() };
        let folder = tempfile::tempdir().unwrap();
        let mut study = Study::open(folder.path(), config, "in time", &serde_json::Value::Null).unwrap();
        let report = study.run(Run {
            evaluator: &guard,
            executor: &LocalExecutor::new(NonZeroUsize::MIN),
            observer: &mut (),
            interrupt: &guard.toy.interrupt,
            pruned: &|_| None,
            warm_source: None,
            latency: Some(limit),
        });
        assert!(report.unwrap().n_children >= 8, "{kind} within {max_ms} ms");
    }
}

/// A study that was opened with a limit is not run without it.
#[test]
fn a_latency_limit_cannot_be_left_out() {
    let latency = Some(LatencyConfig { max_ms: 1.0, model: "by operators".into() });
    let config = StudyConfig { latency, ..config(&[6], StrategyKind::Gram, 4, 3) };
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(run(folder.path(), &config, &Toy::default(), 1), Err(StudyError::Latency)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// No child that breaks a limit reaches the evaluator, whatever the limits are; limits that nothing meets reach no evaluator at all.
    #[test]
    fn limits_are_never_broken(
        seed in 0_u64..1000,
        nodes in prop::collection::vec(4_usize..12, 1..3),
        share_macs in prop::option::of(0.0..1.2_f64),
        share_params in prop::option::of(0.0..1.2_f64),
        kind in prop::sample::select(StrategyKind::ALL.to_vec()),
        searched: bool,
        open: bool,
    ) {
        let mut config = config(&nodes, kind, 24, seed);
        if searched {
            config.space.node_operators = NodeOperators::Searched;
        }
        if open {
            config.space.stages[0].widths = vec![6, 8, 12];
            config.space.stages[0].depths = vec![1, 2];
        }
        let free = preflight(&config.space, config.input, 10, &Limits::default(), seed).unwrap();
        let limit = |share: f64, min: u64, typical: u64| (min as f64 + share * (typical - min) as f64) as u64;
        config.limits = Limits {
            max_macs: share_macs.map(|share| Macs(limit(share - 0.1, free.macs.min, free.macs.p90))),
            max_params: share_params.map(|share| Params(limit(share - 0.1, free.params.min, free.params.p90))),
        ..Limits::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard { limits: config.limits, toy: Toy::default() };
        let mut study = gram_search::Study::open(folder.path(), config.clone(), "guard", &serde_json::Value::Null).unwrap();
        let ended = study.run(gram_search::Run {
            evaluator: &guard,
            executor: &gram_search::LocalExecutor::new(std::num::NonZeroUsize::MIN),
            observer: &mut (),
            interrupt: &guard.toy.interrupt,
            pruned: &|_| None,
            warm_source: None, latency: None,
        });
        match ended {
            Ok(report) => prop_assert!(report.best.iter().all(|child| config.limits.allow(&child.cost))),
            Err(StudyError::Preflight(PreflightError::Unmeetable { least_macs, least_params, .. })) => {
                let least = Cost { macs: least_macs, params: least_params, ..Cost::default() };
                prop_assert!(!config.limits.allow(&least));
                prop_assert_eq!(guard.toy.n_calls.into_inner(), 0);
            }
            Err(StudyError::Ask(_)) => {
                let checked = preflight(&config.space, config.input, 10, &config.limits, seed).unwrap();
                prop_assert!(checked.feasibility != Feasibility::Unmeetable && checked.kept < 0.01, "{checked:?}");
                prop_assert_eq!(guard.toy.n_calls.into_inner(), 0);
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// The same for peak bytes, for every strategy, and whatever the engine is assumed to do.
    #[test]
    fn peak_limits_are_never_broken(
        seed in 0_u64..1000,
        nodes in prop::collection::vec(4_usize..12, 1..3),
        share in -0.1..1.2_f64,
        share_macs in prop::option::of(0.3..1.2_f64),
        kind in prop::sample::select(StrategyKind::ALL.to_vec()),
        concat in prop::sample::select(Concat::ALL.to_vec()),
        partial: bool,
    ) {
        let mut config = config(&nodes, kind, 16, seed);
        let memory = MemoryModel { dtype: Dtype::U8, concat, partial, ..MemoryModel::default() };
        let free = preflight(&config.space, config.input, 10, &Limits { memory, ..Limits::default() }, seed).unwrap();
        let limit = |share: f64, min: u64, typical: u64| (min as f64 + share * (typical as f64 - min as f64)) as u64;
        let peak = free.peak_bytes;
        config.limits = Limits {
            max_macs: share_macs.map(|share| Macs(limit(share, free.macs.min, free.macs.p90))),
            max_peak_bytes: Some(limit(share, peak.at_least, peak.p90)),
            memory,
            ..Limits::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let guard = Guard { limits: config.limits, toy: Toy::default() };
        let mut study = gram_search::Study::open(folder.path(), config.clone(), "guard", &serde_json::Value::Null).unwrap();
        let ended = study.run(gram_search::Run {
            evaluator: &guard,
            executor: &gram_search::LocalExecutor::new(std::num::NonZeroUsize::MIN),
            observer: &mut (),
            interrupt: &guard.toy.interrupt,
            pruned: &|_| None,
            warm_source: None,
            latency: None,
        });
        let checked = || preflight(&config.space, config.input, 10, &config.limits, seed).unwrap();
        match ended {
            Ok(report) => {
                prop_assert!(report.n_children >= 1);
                prop_assert!(report.best.iter().all(|child| keeps(&config.limits, &child.architecture.lower().unwrap())));
                prop_assert_ne!(checked().feasibility, Feasibility::Unmeetable);
            }
            Err(StudyError::Preflight(error @ PreflightError::Unmeetable { .. })) => {
                prop_assert!(error.to_string().contains("peak bytes"), "{error}");
                prop_assert_eq!(checked().feasibility, Feasibility::Unmeetable);
                prop_assert_eq!(guard.toy.n_calls.into_inner(), 0);
            }
            Err(StudyError::Ask(_)) => {
                let checked = checked();
                prop_assert!(checked.feasibility != Feasibility::Unmeetable && checked.kept < 0.01, "{checked:?}");
                prop_assert_eq!(guard.toy.n_calls.into_inner(), 0);
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// A candidate is its graph, whatever its numbering: same key, same architecture to train, same cost.
    #[test]
    fn candidates_do_not_depend_on_numbering(cell in gram_ir::strategies::arb_live_cell(4..=9)) {
        let space = space(&[20]);
        let gate = Gate { space: &space, input: INPUT, num_classes: 10, limits: &Limits::default(), latency: None };
        let spread = renumbered(&cell);
        let (a, b) = (gate.admit(vec![cell]).unwrap(), gate.admit(vec![spread]).unwrap());
        prop_assert_eq!(&a.graph, &b.graph);
        prop_assert_eq!(a.architecture, b.architecture);
        prop_assert_eq!(a.cost, b.cost);
        prop_assert_eq!(a.cost, gate.cost(&a.blueprint).unwrap());
    }
}

/// The live part with another topological numbering, with gaps: nodes by depth, the last of a depth first.
fn renumbered(cell: &Cell) -> Cell {
    let mut depth = std::collections::BTreeMap::from([(CellNodeId::INPUT, 0)]);
    for (node, _, inputs) in cell.live_inputs() {
        let deepest = inputs.iter().filter_map(|from| depth.get(from)).max().copied().unwrap_or(0);
        depth.insert(node, deepest + 1);
    }
    let mut order: Vec<_> =
        cell.live_inputs().iter().map(|&(node, op, _)| (depth[&node], std::cmp::Reverse(node), op)).collect();
    order.sort_unstable();
    let mut place = std::collections::BTreeMap::from([(CellNodeId::INPUT, CellNodeId::INPUT)]);
    let mut renumbered = Cell::new();
    for (index, (_, node, op)) in order.into_iter().enumerate() {
        let id = CellNodeId(2 * index as u16 + 1);
        place.insert(node.0, id);
        renumbered.add_node(id, op).unwrap();
    }
    for (node, _, inputs) in cell.live_inputs() {
        inputs.iter().for_each(|from| renumbered.add_edge(place[from], place[&node]).unwrap());
    }
    renumbered
}

/// Whether the least peak, by a schedule of its own, is within the limit.
fn keeps(limits: &Limits, network: &Network) -> bool {
    limits.max_peak_bytes.is_none_or(|most| plan(network, &limits.memory).unwrap().peak_bytes <= most)
}

struct Guard {
    limits: Limits,
    toy: Toy,
}

impl gram_search::Evaluator for Guard {
    fn identity(&self) -> String {
        "guard".into()
    }

    fn evaluate(&self, job: &gram_search::Job) -> Result<gram_search::Outcome, gram_search::EvaluatorError> {
        let (macs, params) = slow_cost(&job.network);
        let counted = Cost { macs: Macs(macs), params: Params(params), ..job.network.cost() };
        assert!(self.limits.allow(&counted), "a child beyond the limits is evaluated");
        assert!(keeps(&self.limits, &job.network), "a child beyond the limit on peak bytes is evaluated");
        self.toy.evaluate(job)
    }
}
