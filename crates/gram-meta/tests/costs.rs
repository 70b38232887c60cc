//! Costs of children are those of their lowered networks.

use gram_ir::{NodeOperators, SPACE_PRESET_NAMES, Space, SpaceCosts, space_preset, space_preset_io};
use gram_meta::{MetaConfig, MetaGraph};
use proptest::prelude::*;
use proptest::sample::select;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// F4 of ALGORITHMS: computed, never predicted.
    #[test]
    fn costs_of_children_are_exact(name in select(SPACE_PRESET_NAMES.to_vec()), searched: bool, seed: u64) {
        let node_operators = if searched { NodeOperators::Searched } else { NodeOperators::Dealt };
        let space = Space { node_operators, ..space_preset(name).unwrap() };
        let (input, num_classes) = space_preset_io(name).unwrap();
        let costs = SpaceCosts::new(&space, input, num_classes).unwrap();
        let meta = MetaGraph::new(&space, MetaConfig::default(), seed).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..10 {
            let child = meta.sample(&mut rng, &|_| true).unwrap();
            let network = space.assemble(input, num_classes, &meta.cells(&child).unwrap()).lower().unwrap();
            prop_assert_eq!(meta.cost(&costs, &child), Some(network.cost()));
        }
    }
}

#[test]
fn children_of_other_spaces_have_no_cost() {
    let space = space_preset("swiftnet-small").unwrap();
    let (input, num_classes) = space_preset_io("swiftnet-small").unwrap();
    let costs = SpaceCosts::new(&space, input, num_classes).unwrap();
    let other = MetaGraph::new(&space_preset("autoshrink").unwrap(), MetaConfig::default(), 0).unwrap();
    let child = other.sample(&mut ChaCha8Rng::seed_from_u64(0), &|_| true).unwrap();
    let meta = MetaGraph::new(&space, MetaConfig::default(), 0).unwrap();
    assert_eq!((meta.cost(&costs, &child), other.cost(&costs, &child)), (None, None));
}
