//! Small meta-graphs whose costs are worked out by hand, and what is refused.

use gram_ir::{
    Activation, CellOp, CellOutput, Downsample, EdgeMap, Head, Limits, LowerError, Macs, Params, Shape, Space,
    StageSpace, space_preset, space_preset_io,
};
use gram_prune::{MAX_FRONT, PrunableStage, PruneError, Pruned, prune};

const INPUT: Shape = Shape::chw(4, 5, 5);

/// One stage of the input and two 1x1 convolutions to 4 channels, projected to 8.
fn triangle() -> Space {
    let output = CellOutput { project: Some(8), residual: false, linear_leaves: false, activation: false };
    Space {
        name: "triangle".into(),
        activation: Activation::Relu,
        max_in_degree: 4,
        operators: vec![CellOp::Conv1x1],
        node_operators: Default::default(),
        image_sizes: Vec::new(),
        channel_multiple: 1,
        stem: Vec::new(),
        stages: vec![StageSpace::new(3, 4, Downsample::None, output)],
        head: Head::default(),
    }
}

/// Weights of 0 → 1, 0 → 2, 1 → 2.
fn prune_triangle(weights: [f64; 3], limits: Limits) -> Result<Pruned, PruneError> {
    let weights = EdgeMap::try_from(weights.to_vec()).unwrap();
    let stage = PrunableStage { ops: &[CellOp::Conv1x1; 2], weights: &weights };
    prune(&triangle(), INPUT, 2, &[stage], &limits)
}

fn at_most(macs: u64) -> Limits {
    Limits { max_macs: Some(Macs(macs)), max_params: None, ..Limits::default() }
}

/// All three edges, 25 pixels: 4·4 at node 1, 8·4 at node 2, 4·8 in the projection of one leaf; 8·2 in the classifier.
const WHOLE_MACS: u64 = 25 * (16 + 32 + 32) + 16;
/// The same weights once, scale and shift of 4 + 4 + 8 channels, two biases.
const WHOLE_PARAMS: u64 = 80 + 32 + 16 + 2;
/// Without 1 → 2: F·F = 16 less at node 2, F·C = 32 more in the projection, as node 1 is a leaf now.
const SPARSER_MACS: u64 = WHOLE_MACS + 25 * 16;

/// The counter-example of ALGORITHMS 1.6: the higher threshold costs more.
#[test]
fn deleting_an_edge_can_raise_the_cost() {
    // ln 1/1.5 is negative, so the sparser network is the heavier one.
    let pruned = prune_triangle([0.9, 0.8, 0.4], Limits::default()).unwrap();
    let macs: Vec<u64> = pruned.front.iter().map(|candidate| candidate.cost.macs.0).collect();
    assert_eq!(macs, [SPARSER_MACS, WHOLE_MACS]);
    assert_eq!(pruned.front[0].thresholds, [0.8]);
    assert_eq!(pruned.front[1].thresholds, [0.4]);
    // 0.9 leaves a single node and is no candidate.
    assert_eq!(pruned.n_candidates, [2]);

    let cheaper = prune_triangle([0.9, 0.8, 0.4], at_most(SPARSER_MACS - 1)).unwrap();
    assert_eq!(cheaper.best, pruned.front[1]);
    assert_eq!(cheaper.best.cost.params, Params(WHOLE_PARAMS));
}

#[test]
fn a_network_that_is_cheaper_and_heavier_is_alone_on_the_front() {
    let pruned = prune_triangle([0.9, 0.8, 0.6], Limits::default()).unwrap();
    assert_eq!((pruned.front.len(), pruned.best.thresholds.as_slice()), (1, [0.6].as_slice()));
    let log_odds = (9.0f64 * 4.0 * 1.5).ln();
    assert!((pruned.best.retained_weight - log_odds).abs() < 1e-12);
}

#[test]
fn limits_that_nothing_meets_come_with_the_smallest_costs() {
    let limits = at_most(WHOLE_MACS - 1);
    let error = prune_triangle([0.9, 0.8, 0.6], limits).unwrap_err();
    let (smallest_macs, smallest_params) = (Macs(WHOLE_MACS), Params(WHOLE_PARAMS));
    assert_eq!(error, PruneError::LimitsUnmeetable { limits, smallest_macs, smallest_params });
    assert_eq!(
        error.to_string(),
        "no pruned network keeps the limits (at most 2,015 MACs): the smallest possible have 2,016 MACs and 130 params"
    );
    assert!(prune_triangle([0.9, 0.8, 0.6], at_most(WHOLE_MACS)).is_ok());
}

#[test]
fn weights_are_beliefs() {
    for bad in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
        let error = prune_triangle([0.5, 0.5, bad], Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("stage 0: edge n1 -> n2 weighs {bad}, which is not between 0 and 1"));
    }
    let extreme = prune_triangle([f64::MIN_POSITIVE, 0.5, 1.0 - f64::EPSILON / 2.0], Limits::default()).unwrap();
    assert!(extreme.front.iter().all(|candidate| candidate.retained_weight.is_finite()));
}

#[test]
fn stages_that_are_not_the_spaces_are_refused() {
    let weights = EdgeMap::from_fn(3, |_, _| 0.5);
    let prune = |space: &Space, stages: &[PrunableStage<'_>]| {
        prune(space, INPUT, 2, stages, &Limits::default()).unwrap_err().to_string()
    };
    let good = PrunableStage { ops: &[CellOp::Conv1x1; 2], weights: &weights };
    assert_eq!(prune(&triangle(), &[good, good]), "there are weights for 2 stages, the space has 1");
    let with_input = PrunableStage { ops: &[CellOp::Conv1x1; 3], weights: &weights };
    assert_eq!(
        prune(&triangle(), &[with_input]),
        "stage 0: the space has 3 nodes, there are operators for 4 and weights for 3"
    );
    let empty = Space { operators: Vec::new(), ..triangle() };
    assert_eq!(prune(&empty, &[good]), "the space is not usable: operators: name at least one");
}

/// Every edge of every stage weighs less the longer it is.
fn prune_preset(name: &str, input: Shape, limits: &Limits) -> Result<Pruned, PruneError> {
    let space = space_preset(name).unwrap();
    let (_, num_classes) = space_preset_io(name).unwrap();
    let weights: Vec<EdgeMap<f64>> = (space.stages.iter())
        .map(|stage| EdgeMap::from_fn(stage.nodes, |from, to| 0.97 / f64::from(to.0 - from.0) - 1e-4 * f64::from(to.0)))
        .collect();
    let ops: Vec<Vec<CellOp>> = space
        .stages
        .iter()
        .map(|stage| space.operators.iter().copied().cycle().take(stage.nodes - 1).collect())
        .collect();
    let stages: Vec<PrunableStage<'_>> =
        ops.iter().zip(&weights).map(|(ops, weights)| PrunableStage { ops, weights }).collect();
    prune(&space, input, num_classes, &stages, limits)
}

#[test]
fn images_too_small_for_a_stage_are_an_error_that_names_it() {
    // 8 pixels: 2 behind the stem, 1 in the first stage.
    let error = prune_preset("swiftnet-vww", Shape::chw(3, 8, 8), &Limits::default()).unwrap_err();
    assert!(matches!(error, PruneError::Lower(LowerError::Network(_))), "{error:?}");
    assert!(error.to_string().contains("stages.1.pool"), "{error}");
    let error = prune_preset("swiftnet-vww", Shape::chw(0, 8, 8), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("stem.0.conv"), "{error}");
}

#[test]
fn three_stages_of_thirty_nodes_within_limits() {
    let (input, _) = space_preset_io("swiftnet-vww").unwrap();
    let whole = prune_preset("swiftnet-vww", input, &Limits::default()).unwrap();
    assert!(whole.n_candidates.iter().all(|&n| n > 100), "{:?}", whole.n_candidates);
    assert!(whole.front.len() == MAX_FRONT && whole.n_undominated > MAX_FRONT);
    assert_eq!(whole.front[0], whole.best);

    let smallest = whole.front.iter().map(|candidate| candidate.cost.macs.0).min().unwrap();
    let limits = at_most(smallest.midpoint(whole.best.cost.macs.0));
    let pruned = prune_preset("swiftnet-vww", input, &limits).unwrap();
    assert!(pruned.front.iter().all(|candidate| limits.allow(&candidate.cost)));
    assert!(!limits.allow(&whole.best.cost));
    // No network of the whole front that keeps the limits weighs more than the best within them.
    let within = || whole.front.iter().filter(|candidate| limits.allow(&candidate.cost));
    assert!(within().count() > 1);
    assert!(within().all(|candidate| candidate.retained_weight <= pruned.best.retained_weight));
}
