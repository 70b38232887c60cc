//! Invariants of the rewrites of networks, on random networks with random weights, by the reference executor.
//!
//! - I1 well-formed: `apply_checked` verifies graph and weights
//! - I2 same input and output shapes
//! - I3 never more MACs, params or deployed params (what splitting does to deployed params is said there)
//! - I4 idempotent
//! - I6 a refused rewrite changes nothing
//! - I7 same outputs, within 1e-9 of the largest

use std::collections::BTreeMap;

use gram_ir::strategies::{arb_architecture, arb_network};
use gram_ir::{
    Cost, DropUnusedNodes, FoldBatchNorm, MergeEqualNodes, Network, Op, RemoveIdentities, Shape, SplitConvOverConcat,
    Tensor, Transform, TransformError, WeightedNetwork, Weights, apply_checked, preset,
};
use proptest::prelude::*;

/// Networks as architectures lower to, and odder ones; weights are of their own or shared by all tensors of one kind and shape, so
/// that there is something to merge.
fn arb_weighted() -> impl Strategy<Value = WeightedNetwork> {
    let lowered = arb_architecture().prop_map(|architecture| architecture.lower().expect("it lowers"));
    let network = prop_oneof![1 => lowered, 3 => arb_network(14)];
    (network, any::<u64>(), any::<bool>()).prop_map(|(network, seed, shared)| {
        let mut weights = Weights::arbitrary(&network, seed);
        if shared {
            share(&network, &mut weights);
        }
        WeightedNetwork { network, weights }
    })
}

fn share(network: &Network, weights: &mut Weights) {
    let mut firsts: BTreeMap<_, Tensor> = BTreeMap::new();
    for spec in network.tensors() {
        let own = weights.remove(&spec.name).expect("every tensor is there");
        weights.insert(spec.name, firsts.entry((spec.role, spec.shape)).or_insert(own).clone());
    }
}

const ALL: [&dyn Transform<WeightedNetwork>; 5] =
    [&RemoveIdentities, &FoldBatchNorm, &MergeEqualNodes, &DropUnusedNodes, &SplitConvOverConcat];

fn input_of(network: &Network) -> Tensor {
    let shape = network.input_shape();
    Tensor::arbitrary(&[2, shape.c, shape.h, shape.w], 11)
}

fn same_output(before: &WeightedNetwork, after: &WeightedNetwork) -> Result<(), TestCaseError> {
    let input = input_of(&before.network);
    let (a, b) = (before.run(&input).expect("it runs"), after.run(&input).expect("it runs"));
    let largest = a.data().iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let difference = a.data().iter().zip(b.data()).fold(0.0f64, |most, (x, y)| most.max((x - y).abs()));
    prop_assert!(difference <= 1e-9 * largest, "difference {difference:e} at outputs up to {largest:e}");
    Ok(())
}

/// Applies `pass` and checks what holds of every rewrite that keeps the function; gives the result.
fn keeps_function<T>(pass: &T, before: &WeightedNetwork) -> Result<WeightedNetwork, TestCaseError>
where
    T: Transform<WeightedNetwork> + Transform<Network>,
{
    let mut after = before.clone();
    let changed = apply_checked(pass, &mut after)?; // I1
    prop_assert_eq!(changed, after != *before);
    prop_assert_eq!(after.network.input_shape(), before.network.input_shape()); // I2
    prop_assert_eq!(after.network.output_shape(), before.network.output_shape());
    let (cost, cost_before) = (after.network.cost(), before.network.cost());
    prop_assert!(cost.macs <= cost_before.macs && cost.params <= cost_before.params); // I3
    same_output(before, &after)?; // I7
    let mut again = after.clone();
    prop_assert!(!apply_checked(pass, &mut again)?); // I4
    Ok(after)
}

/// The rewrite of the graph alone is that of the graph with weights.
fn same_without_weights<T>(pass: &T, before: &WeightedNetwork, after: &WeightedNetwork) -> Result<(), TestCaseError>
where
    T: Transform<Network>,
{
    let mut network = before.network.clone();
    prop_assert_eq!(apply_checked(pass, &mut network)?, before.network != after.network);
    prop_assert_eq!(&network, &after.network);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn remove_identities(before in arb_weighted()) {
        let after = keeps_function(&RemoveIdentities, &before)?;
        same_without_weights(&RemoveIdentities, &before, &after)?;
        prop_assert!(after.network.nodes().iter().all(|node| node.op != Op::Identity));
        // All other nodes keep names, operators and tensors.
        let kept = before.network.nodes().iter().filter(|node| node.op != Op::Identity);
        let names: Vec<_> = kept.map(|node| (&node.name, node.op)).collect();
        prop_assert_eq!(after.network.nodes().iter().map(|node| (&node.name, node.op)).collect::<Vec<_>>(), names);
        prop_assert_eq!(&after.weights, &before.weights);
    }

    #[test]
    fn drop_unused_nodes(before in arb_weighted()) {
        let after = keeps_function(&DropUnusedNodes, &before)?;
        same_without_weights(&DropUnusedNodes, &before, &after)?;
        let consumers = after.network.consumers();
        let unused = |id: gram_ir::NodeId| consumers[id.index()].is_empty() && id != after.network.output();
        prop_assert!(after.network.iter().skip(1).all(|(id, _)| !unused(id)));
        prop_assert_eq!(after.network.output().index(), after.network.nodes().len() - 1);
    }

    #[test]
    fn merge_equal_nodes(before in arb_weighted()) {
        let after = keeps_function(&MergeEqualNodes, &before)?;
        let input = input_of(&before.network);
        prop_assert_eq!(after.run(&input), before.run(&input), "merging changes no bit");
        // Without weights: only nodes without tensors are merged, so the tensors stay.
        let mut structure = before.clone();
        let changed = apply_checked(&MergeEqualNodes, &mut structure.network)?;
        prop_assert_eq!(structure.run(&input), before.run(&input));
        prop_assert!(!changed || after.network.nodes().len() < before.network.nodes().len());
        prop_assert!(after.network.nodes().len() <= structure.network.nodes().len());
    }

    #[test]
    fn fold_batch_norm(before in arb_weighted()) {
        let after = keeps_function(&FoldBatchNorm, &before)?;
        same_without_weights(&FoldBatchNorm, &before, &after)?;
        let (cost, cost_before) = (after.network.cost(), before.network.cost());
        prop_assert_eq!(cost, Cost { params: cost_before.deployed_params, ..cost_before });
    }

    #[test]
    fn split_conv_over_concat(before in arb_weighted()) {
        let after = keeps_function(&SplitConvOverConcat, &before)?;
        same_without_weights(&SplitConvOverConcat, &before, &after)?;
        let (cost, cost_before) = (after.network.cost(), before.network.cost());
        prop_assert_eq!((cost.macs, cost.params), (cost_before.macs, cost_before.params));
        // Only concatenations vanish, and the convolutions with groups that became some.
        let stays = |op: Op| !matches!(op, Op::Concat) && !matches!(op, Op::Conv(conv) if conv.groups > 1);
        for node in before.network.nodes().iter().filter(|node| stays(node.op)) {
            let found = after.network.find(&node.name).map(|id| after.network.node(id).shape);
            prop_assert_eq!(found, Some(node.shape), "{}", &node.name);
        }
    }

    #[test]
    fn split_after_folding_keeps_deployed_params(before in arb_weighted()) {
        let mut folded = before.clone();
        apply_checked(&FoldBatchNorm, &mut folded)?;
        let after = keeps_function(&SplitConvOverConcat, &folded)?;
        prop_assert_eq!(after.network.params(), before.network.cost().deployed_params);
    }

    #[test]
    fn all_in_a_row(before in arb_weighted()) {
        let mut after = before.clone();
        for pass in ALL {
            apply_checked(pass, &mut after)?;
        }
        same_output(&before, &after)?;
        prop_assert!(after.network.cost().macs <= before.network.cost().macs);
    }

    #[test]
    fn a_refused_fold_changes_nothing(mut before in arb_weighted()) {
        // I6: every variance is negative, so any norm that can be folded is refused.
        let variances: Vec<_> = before.network.tensors().into_iter().filter(|spec| spec.name.ends_with("running_var")).collect();
        for spec in variances {
            let mut tensor = Tensor::zeros(&spec.shape);
            tensor.data_mut().fill(-0.5);
            before.weights.insert(spec.name, tensor);
        }
        let mut structure = before.network.clone();
        let foldable = apply_checked(&FoldBatchNorm, &mut structure)?;
        let mut after = before.clone();
        let result = apply_checked(&FoldBatchNorm, &mut after);
        prop_assert_eq!(matches!(result, Err(TransformError::Failed { .. })), foldable, "{:?}", result);
        prop_assert_eq!(&after, &before);
    }
}

/// The networks that people name: all rewrites in a row at a real size.
#[test]
fn presets_keep_their_function() {
    const NASBENCH: &str =
        "nasbench201:|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|";
    // NAS-Bench-201 has one norm behind a sum, in front of its pool.
    for (name, side, norms_left) in [("swiftnet-vww", 224, 0), ("mobilenet-v2-0.35", 96, 0), (NASBENCH, 32, 1)] {
        let design = preset(name, Some(Shape::chw(3, side, side)), None).expect("the preset takes such images");
        let network = design.lower().expect("presets lower");
        let before = WeightedNetwork { weights: Weights::arbitrary(&network, 1), network };
        let mut after = before.clone();
        for pass in ALL {
            apply_checked(pass, &mut after).expect("the rewrite is checked");
        }
        same_output(&before, &after).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (cost, cost_before) = (after.network.cost(), before.network.cost());
        assert!(cost.macs <= cost_before.macs && cost.params <= cost_before.deployed_params, "{name}: {cost:?}");
        let count = |op: fn(&Op) -> bool| after.network.nodes().iter().filter(|node| op(&node.op)).count();
        assert_eq!(count(|op| matches!(op, Op::BatchNorm { .. })), norms_left, "{name}");
        assert_eq!(count(|op| *op == Op::Identity), 0, "{name}");
    }
}
