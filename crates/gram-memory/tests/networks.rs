//! Random networks: what a plan keeps, and what the engine may do to it.

use gram_ir::strategies::{arb_architecture, arb_network};
use gram_ir::{
    Activation, Conv2d, Network, NodeId, Op, Shape, SplitConvOverConcat, Tensor, Verify, WeightedNetwork, Weights,
    apply_checked, reference,
};
use gram_memory::{
    Concat, Dtype, Fit, MemoryGraph, MemoryModel, Peaks, Plan, Separable, fits, fits_graph, peak_bytes, plan, reorder,
};
use proptest::prelude::*;

fn arb_engine() -> impl Strategy<Value = MemoryModel> {
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    let concat = prop::sample::select(Concat::ALL.to_vec());
    let separable = prop::sample::select(vec![Separable::Fused, Separable::Split]);
    (dtype, concat, any::<bool>(), separable).prop_map(|(dtype, concat, partial, separable)| MemoryModel {
        dtype,
        concat,
        partial,
        separable,
    })
}

fn arb_any_network() -> impl Strategy<Value = Network> {
    prop_oneof![
        arb_network(30),
        arb_architecture().prop_map(|architecture| architecture.lower().expect("these architectures lower")),
    ]
}

fn check(network: &Network, engine: &MemoryModel, plan: &Plan) -> Result<(), TestCaseError> {
    // I1 every node once, every live figure under the peak, which is reached
    let mut nodes = plan.nodes.clone();
    nodes.sort_unstable();
    prop_assert!(nodes.into_iter().eq(network.iter().map(|(id, _)| id)));
    let inputs = network.input_shape().elements() as u64 * engine.dtype.bytes();
    let highest = |live: &mut dyn Iterator<Item = u64>| live.max().unwrap_or(0).max(inputs);
    prop_assert_eq!(highest(&mut plan.steps.iter().map(|step| step.live_bytes)), plan.peak_bytes);
    prop_assert_eq!(highest(&mut plan.plain_live_bytes.iter().copied()), plan.plain_peak_bytes);
    // I2 bounds
    prop_assert!(plan.lower_bound_bytes <= plan.peak_bytes && plan.peak_bytes <= plan.plain_peak_bytes);
    prop_assert_eq!(plan.gap_bytes() == 0, plan.is_exact());
    // I3 allocations
    prop_assert_eq!(plan.arena.verify(), Ok(()));
    prop_assert!(plan.arena.bytes >= plan.peak_bytes && plan.plain_arena_bytes >= plan.plain_peak_bytes);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_keep_their_word(network in arb_any_network(), engine in arb_engine()) {
        let planned = plan(&network, &engine).unwrap();
        check(&network, &engine, &planned)?;
        // I4 the quick questions have the same answers
        prop_assert_eq!(peak_bytes(&network, &engine), Ok(planned.peak_bytes));
        let fits = |limit| fits(&network, &engine, limit).unwrap();
        prop_assert!(fits(planned.peak_bytes).fits());
        prop_assert!(!fits(planned.lower_bound_bytes - 1).fits());
        // I5 bytes are proportional to the element size
        let wide = MemoryModel { dtype: Dtype::F32, ..engine };
        prop_assert_eq!(peak_bytes(&network, &wide).unwrap() * engine.dtype.bytes(), planned.peak_bytes * 4);
    }

    #[test]
    fn a_reordered_network_is_the_same_in_the_planned_order(network in arb_any_network(), engine in arb_engine(), seed: u64) {
        let planned = plan(&network, &engine).unwrap();
        let reordered = reorder(&network, &planned).unwrap();
        prop_assert_eq!(reordered.verify(), Ok(()));                                  // I1 well-formed
        let shape = network.input_shape();
        let input = Tensor::arbitrary(&[1, shape.c, shape.h, shape.w], seed);
        let run = |network: &Network| reference::run(network, &Weights::arbitrary(network, seed), &input).unwrap();
        prop_assert_eq!(run(&network), run(&reordered));                              // I2 not one bit of the output changes
        if !engine.partial {
            let again = plan(&reordered, &engine).unwrap();
            prop_assert_eq!(again.plain_peak_bytes, planned.peak_bytes);              // I3 its own order is the planned one
            let live: Vec<u64> = planned.steps.iter().map(|step| step.live_bytes).collect();
            prop_assert_eq!(again.plain_live_bytes, live);
        }
    }

    /// Splitting convolutions and accumulating in place takes no memory that the whole convolution would not take.
    #[test]
    fn rewriting_never_raises_the_optimum(network in arb_any_network(), engine in arb_engine()) {
        let exact = |engine: &MemoryModel| plan(&network, engine).ok().filter(Plan::is_exact).map(|plan| plan.peak_bytes);
        let plain = MemoryModel { partial: false, ..engine };
        let partial = MemoryModel { partial: true, ..engine };
        if let (Some(plain), Some(partial)) = (exact(&plain), exact(&partial)) {
            prop_assert!(partial <= plain, "partial sums: {} > {}", partial, plain);
        }
    }

    /// The numbers behind partial accumulation: the network in which every part is a convolution of its own computes the same.
    #[test]
    fn partial_sums_compute_the_same(network in arb_any_network(), seed: u64) {
        let shape = network.input_shape();
        let input = Tensor::arbitrary(&[2, shape.c, shape.h, shape.w], seed);
        let mut graph = WeightedNetwork { weights: Weights::arbitrary(&network, seed), network };
        let before = graph.run(&input).unwrap();
        apply_checked(&SplitConvOverConcat, &mut graph).unwrap();
        let after = graph.run(&input).unwrap();
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * a.abs().max(1.0);
        prop_assert!(before.data().iter().zip(after.data()).all(close));
    }
}

proptest! {
    /// Every limit gets one of three answers, all of them true.
    #[test]
    fn limits(network in arb_any_network(), engine in arb_engine(), share in 0.0..1.5f64, states in 0..200u64) {
        let planned = plan(&network, &engine).unwrap();
        let limit = (planned.peak_bytes as f64 * share) as u64;
        match fits_graph(&MemoryGraph::from_network(&network, &engine).unwrap(), limit, states) {
            Fit::Fits { peak_bytes } => prop_assert!(planned.lower_bound_bytes <= peak_bytes && peak_bytes <= limit),
            Fit::Exceeds { at_least_bytes } => prop_assert!(limit < at_least_bytes && at_least_bytes <= planned.peak_bytes),
            Fit::Undecided { at_least_bytes, at_most_bytes } => {
                prop_assert!(at_least_bytes <= planned.peak_bytes && planned.lower_bound_bytes <= at_most_bytes);
            }
        }
    }
}

/// A part of each convolution that is split is a step, and the other way round.
#[test]
fn steps_are_the_convolutions_of_the_rewritten_network() {
    let mut network = gram_ir::preset("swiftnet-vww", None, None).unwrap().lower().unwrap();
    let engine =
        MemoryModel { concat: Concat::View, partial: true, separable: Separable::Split, ..MemoryModel::default() };
    let steps = MemoryGraph::from_network(&network, &engine).unwrap().steps().len();
    apply_checked(&SplitConvOverConcat, &mut network).unwrap();
    let kinds = ["conv", "dwconv", "maxpool", "global-avgpool", "linear"];
    let n_steps = network.nodes().iter().filter(|node| kinds.contains(&node.op.kind())).count();
    // Three additions of identity maps; other additions are the partial sums themselves. Four separable convolutions read two maps, and the
    // rewrite of networks leaves their 1x1 halves whole, since a norm and an activation are in between.
    assert_eq!(steps, n_steps + 3 + 4);
}

fn add(network: &mut Network, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
    let id = network.add(name, op, inputs).unwrap();
    network.set_output(id).unwrap();
    id
}

/// A separable convolution of `c_in` channels with norms and activations up to the second norm.
fn separable(network: &mut Network, suffix: &str, c_in: usize, input: NodeId) -> NodeId {
    let relu = Op::Act { activation: Activation::Relu6 };
    let dw = add(network, &format!("dw{suffix}"), Op::Conv(Conv2d::depthwise(c_in, 3)), &[input]);
    let norm = add(network, &format!("norm{suffix}"), Op::BatchNorm { channels: c_in }, &[dw]);
    let act = add(network, &format!("act{suffix}"), relu, &[norm]);
    add(network, &format!("pw{suffix}"), Op::Conv(Conv2d::new(c_in, 4, 1)), &[act])
}

/// Channels `first..first + count` of a tensor whose channels are the axis `axis`.
fn channels(tensor: &Tensor, axis: usize, first: usize, count: usize) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let blocks = tensor.data().chunks_exact(shape[axis] * inner);
    let data = blocks.flat_map(|block| &block[first * inner..(first + count) * inner]).copied().collect();
    shape[axis] = count;
    Tensor::new(shape, data).unwrap()
}

/// Both halves of a separable convolution of a concatenation in parts: the step that is repeated for each input.
#[test]
fn separable_convolutions_are_sums_of_their_parts() {
    let shape = Shape::chw(2, 6, 5);
    let (mut whole, mut parts) = (Network::new(shape), Network::new(shape));
    let sources = |network: &mut Network| {
        let input = network.input();
        [("x", 3), ("y", 2)].map(|(name, c)| add(network, name, Op::Conv(Conv2d::new(2, c, 3)), &[input]))
    };
    let inputs = sources(&mut whole);
    let concat = add(&mut whole, "concat", Op::Concat, &inputs);
    separable(&mut whole, "", 5, concat);
    let [x, y] = sources(&mut parts);
    let halves = [separable(&mut parts, "0", 3, x), separable(&mut parts, "1", 2, y)];
    add(&mut parts, "sum", Op::Add, &halves);

    let weights = Weights::arbitrary(&whole, 5);
    let mut split = Weights::new();
    for name in ["x.weight", "y.weight"] {
        split.insert(name, weights.get(name).unwrap().clone());
    }
    for (suffix, first, count) in [("0", 0, 3), ("1", 3, 2)] {
        for (node, tensor, axis) in [
            ("dw", "weight", 0),
            ("norm", "weight", 0),
            ("norm", "bias", 0),
            ("norm", "running_mean", 0),
            ("norm", "running_var", 0),
            ("pw", "weight", 1),
        ] {
            let slice = channels(weights.get(&format!("{node}.{tensor}")).unwrap(), axis, first, count);
            split.insert(format!("{node}{suffix}.{tensor}"), slice);
        }
    }
    let input = Tensor::arbitrary(&[2, 2, 6, 5], 6);
    let before = reference::run(&whole, &weights, &input).unwrap();
    let after = reference::run(&parts, &split, &input).unwrap();
    assert!(before.data().iter().zip(after.data()).all(|(a, b)| (a - b).abs() < 1e-5));

    let engine = MemoryModel { partial: true, ..MemoryModel::default() };
    let steps = plan(&whole, &engine).unwrap().steps;
    assert_eq!(steps.iter().filter(|step| step.fragment.is_some()).count(), 2);
}

#[test]
fn plans_of_other_networks_are_refused() {
    let lower = |name: &str| gram_ir::preset(name, None, None).unwrap().lower().unwrap();
    let (swiftnet, mobilenet) = (lower("swiftnet-vww"), lower("mobilenet-v2-0.5"));
    let planned = plan(&swiftnet, &MemoryModel::default()).unwrap();
    assert!(reorder(&mobilenet, &planned).unwrap_err().to_string().contains("another network"));
    let mut backwards = planned.clone();
    backwards.nodes[1..].reverse();
    assert!(reorder(&swiftnet, &backwards).unwrap_err().to_string().contains("another network"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever was looked at before, a peak is that of the network alone.
    #[test]
    fn remembered_parts_change_no_peak(networks in prop::collection::vec(arb_any_network(), 1..4), engine in arb_engine()) {
        let mut peaks = Peaks::default();
        for network in networks.iter().chain(&networks) {
            prop_assert_eq!(peaks.peak_bytes(network, &engine).unwrap(), peak_bytes(network, &engine).unwrap());
        }
    }
}
