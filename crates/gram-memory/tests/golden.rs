//! The three cells of the shipped SwiftNet, uint8, to the byte (ALGORITHMS 5.4).

use gram_ir::{Architecture, CellOutput, Design, Downsample, Network, Shape, Stage, preset};
use gram_memory::{Concat, Dtype, MemoryGraph, MemoryModel, Separable, StepId, plan};

/// Shapes that the cells read.
const INPUTS: [Shape; 3] = [Shape::chw(32, 28, 28), Shape::chw(48, 14, 14), Shape::chw(80, 7, 7)];
const COPY: MemoryModel =
    MemoryModel { dtype: Dtype::U8, concat: Concat::Copy, partial: false, separable: Separable::Fused };
const VIEW: MemoryModel = MemoryModel { concat: Concat::View, ..COPY };
const PARTIAL: MemoryModel = MemoryModel { partial: true, ..VIEW };

fn swiftnet() -> Architecture {
    match preset("swiftnet-vww", None, None) {
        Ok(Design::Architecture(architecture)) => architecture,
        other => panic!("{other:?}"),
    }
}

/// A cell on its own, with identity map, projection and addition or without; a pool and a classifier follow.
fn cell(index: usize, tail: bool) -> Network {
    let architecture = swiftnet();
    let stage = architecture.stages[index].clone();
    let bare = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    let output = if tail { stage.output } else { bare };
    let stages = vec![Stage { downsample: Downsample::None, output, ..stage }];
    Architecture { input: INPUTS[index], stem: Vec::new(), stages, ..architecture }.lower().unwrap()
}

#[track_caller]
fn least_peak(index: usize, tail: bool, engine: &MemoryModel, expected: u64, n_steps: usize, max_states: u64) {
    let plan = plan(&cell(index, tail), engine).unwrap();
    assert!(plan.is_exact());
    plan.arena.verify().unwrap();
    assert!(plan.arena.bytes >= plan.peak_bytes);
    // The pool and the classifier behind the cell are parts of their own.
    let (parts, _head) = plan.parts.split_last_chunk::<2>().unwrap();
    let peak = parts.iter().map(|part| part.peak_bytes).max();
    assert_eq!((peak, parts.iter().map(|part| part.steps).sum()), (Some(expected), n_steps));
    let states: u64 = parts.iter().map(|part| part.states).sum();
    assert!(states <= max_states, "{states} states");
}

#[test]
fn copied_concatenations_without_tail() {
    for (index, expected, n_steps) in [(0, 250_880, 21), (1, 112_896, 17), (2, 50_176, 14)] {
        least_peak(index, false, &COPY, expected, n_steps, 1_909);
    }
}

#[test]
fn copied_concatenations_with_tail() {
    for (index, expected, n_steps) in [(0, 275_968, 24), (1, 122_304, 20), (2, 53_900, 17)] {
        least_peak(index, true, &COPY, expected, n_steps, 1_909);
    }
}

#[test]
fn viewed_concatenations_with_tail() {
    for (index, expected, n_steps) in [(0, 200_704, 16), (1, 81_536, 15), (2, 32_536, 14)] {
        least_peak(index, true, &VIEW, expected, n_steps, 1_909);
    }
}

#[test]
fn partial_accumulation() {
    for (index, expected, n_steps) in [(0, 188_160, 31), (1, 53_312, 26), (2, 16_856, 23)] {
        least_peak(index, true, &PARTIAL, expected, n_steps, 67_714);
    }
}

/// Cells in the whole network are what they are alone, and other element types take in proportion.
#[test]
fn the_whole_network() {
    let network = swiftnet().lower().unwrap();
    for (engine, expected) in
        [(COPY, [275_968, 122_304, 53_900]), (VIEW, [200_704, 81_536, 32_536]), (PARTIAL, [188_160, 53_312, 16_856])]
    {
        let planned = plan(&network, &engine).unwrap();
        let cells: Vec<u64> = planned.parts.iter().filter(|part| part.steps > 1).map(|part| part.peak_bytes).collect();
        assert_eq!(cells, expected, "{engine:?}");
        // The first convolution takes 150,528 + 50,176.
        assert_eq!(planned.peak_bytes, expected[0].max(200_704));
        let wide = plan(&network, &MemoryModel { dtype: Dtype::F32, ..engine }).unwrap();
        assert_eq!((wide.peak_bytes, wide.arena.bytes), (4 * planned.peak_bytes, 4 * planned.arena.bytes));
    }
}

/// Positions of a cell's steps in our plain order, by the words that their names end in.
fn order_of(graph: &MemoryGraph, network: &Network, words: &[&str]) -> Vec<StepId> {
    let ends_in = |step: usize, word: &str| {
        let nodes = &graph.steps()[step].nodes;
        nodes.iter().any(|node| network.node(*node).name.strip_suffix(word).is_some_and(|rest| rest.ends_with('.')))
    };
    let find = |word: &str| (0..graph.steps().len()).find(|&step| ends_in(step, word));
    let words = words.iter().chain(&["pool", "classifier"]);
    words.filter_map(|word| find(word)).map(|step| StepId(step as u32)).collect()
}

/// The program orders of ALGORITHMS 5.4 are those of the original file, which is not ours; these orders have the stated peaks in all three columns.
#[test]
fn other_orders_have_the_stated_peaks() {
    const A: &str = "n14.conv n20.concat n19.conv n20.conv n21.concat n21.conv n23.concat n23.conv n18.conv n27.concat n28.concat n24.concat \
                     n17.conv n24.conv n29.concat n25.pw n26.pw n28.pw n27.pw n29.conv id_map leaves project add";
    const B: &str = "n20.conv n13.conv n17.pw id_map n15.pw n21.concat n18.conv n22.concat n22.conv n27.conv n19.conv n29.concat n29.pw \
                     n21.conv n24.concat n24.conv n25.conv leaves project add";
    const C: &str = "n7.conv n11.pw n15.conv n25.concat n20.concat n24.pw n27.pw n25.pw n21.pw n23.conv n20.conv id_map n22.pw n29.pw leaves \
                     project add";
    let stated = [[351_232, 351_232, 250_880], [122_304, 137_984, 109_760], [50_176, 53_900, 32_732]];
    for (index, words) in [A, B, C].into_iter().enumerate() {
        let words: Vec<&str> = words.split_whitespace().collect();
        for ((tail, engine), stated) in [(false, COPY), (true, COPY), (true, VIEW)].into_iter().zip(stated[index]) {
            let network = cell(index, tail);
            let graph = MemoryGraph::from_network(&network, &engine).unwrap();
            let order = order_of(&graph, &network, &words);
            assert_eq!(graph.peak_bytes(&order), Ok(stated), "cell {index}, {engine:?}, tail: {tail}");
        }
    }
}
