//! Properties of drawings.

use gram_export::{LiveBytes, architecture_to_dot, architecture_to_svg, live_bytes_to_svg, network_to_dot};
use gram_ir::strategies::arb_architecture;
use gram_ir::{Cell, CellNodeId, CellOp, Design, preset};
use proptest::prelude::*;

/// Every element is closed, on one line, and quotes are paired.
fn is_well_formed(svg: &str) -> bool {
    let mut open = 0;
    let tags_pair = svg.lines().all(|line| {
        let (opened, closed) = (line.matches('<').count(), line.matches("</").count());
        let alone = line.matches("/>").count();
        open += opened as i32 - 2 * closed as i32 - alone as i32;
        line.starts_with('<') && line.ends_with('>') && line.matches('"').count().is_multiple_of(2)
    });
    tags_pair && open == 0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// D1 every live node is drawn, once; D2 the picture is well-formed; D3 all coordinates are numbers; D4 the same again.
    #[test]
    fn every_live_node_is_drawn_once(architecture in arb_architecture()) {
        let svg = architecture_to_svg(&architecture);
        let live: usize = architecture.stages.iter().map(|stage| stage.cell.live_inputs().len()).sum();
        prop_assert_eq!(svg.matches("class=\"id\"").count(), live);
        prop_assert!(is_well_formed(&svg), "{}", svg);
        prop_assert!(!svg.contains("NaN") && !svg.contains("inf\""));
        prop_assert_eq!(&svg, &architecture_to_svg(&architecture));
        let dot = architecture_to_dot(&architecture);
        prop_assert_eq!(dot.matches('{').count(), dot.matches('}').count());
        let n_operators: usize = CellOp::ALL.iter().map(|op| dot.matches(&format!("\"{op}\\n")).count()).sum();
        prop_assert_eq!(n_operators, live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Charts of any figures are well-formed, their coordinates are numbers within the picture, and both peaks are told.
    #[test]
    fn charts_of_live_bytes(plain in arb_live(), scheduled in arb_live()) {
        let chart = LiveBytes { title: "a<b", subtitle: "u8 & view", plain: &plain, scheduled: &scheduled };
        let svg = live_bytes_to_svg(&chart);
        prop_assert!(is_well_formed(&svg), "{}", svg);
        prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", svg);
        for live in [&plain, &scheduled] {
            let peak = gram_ir::grouped(live.iter().copied().max().unwrap_or(0));
            let told = format!("peak {peak} bytes</text>");
            prop_assert!(svg.contains(&told));
        }
        let numbers = svg.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
        let coordinates = numbers.filter(|word| word.contains('.')).filter_map(|word| word.parse::<f64>().ok());
        prop_assert!(coordinates.into_iter().all(|x| (-90.0..=960.0).contains(&x)), "{}", svg);
    }
}

/// Up to 40 steps of nothing, of some bytes, or of any number of them.
fn arb_live() -> impl Strategy<Value = Vec<u64>> {
    let bytes = prop_oneof![Just(0u64), 0..3000u64, any::<u64>()];
    proptest::collection::vec(bytes, 0..40)
}

fn swiftnet() -> gram_ir::Architecture {
    match preset("swiftnet-vww", None, None).unwrap() {
        Design::Architecture(architecture) => architecture,
        Design::Network { .. } => panic!("swiftnet-vww is an architecture"),
    }
}

#[test]
fn swiftnet_is_described() {
    let svg = architecture_to_svg(&swiftnet());
    for text in [
        "input 3x224x224, 2 classes · 56,156,504 MACs · 219,786 params",
        "stem: conv7x7 stride 4 to 16, sep3x3 to 32 · head: global average pool, linear · relu6",
        "stage 1 · 48 channels · gives 80x14x14",
        "maxpool2x2 before · 6 leaves, concatenated · 1x1 to 80 · input added",
    ] {
        assert!(svg.contains(&format!(">{text}</text>")), "{text}");
    }
    let dot = network_to_dot(&swiftnet().lower().unwrap());
    assert!(dot.contains("n0 -> n1;") && dot.contains("stem.0.conv\\nconv\\n16x56x56"), "{dot}");
}

#[test]
fn marks_in_names_do_not_break_the_picture() {
    let mut architecture = swiftnet();
    architecture.name = "a<b>&\"c\"".into();
    assert!(architecture_to_svg(&architecture).contains(">a&lt;b&gt;&amp;\"c\"</text>"));
    assert!(architecture_to_dot(&architecture).starts_with("digraph \"a<b>&\\\"c\\\"\" {"));
}

#[test]
fn cells_without_nodes_and_complete_cells_are_drawn() {
    let mut architecture = swiftnet();
    architecture.stages[0].cell = Cell::new();
    let mut complete = Cell::new();
    for to in 1..64 {
        complete.add_node(CellNodeId(to), CellOp::AvgPool3x3).unwrap();
        for from in 0..to {
            complete.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
        }
    }
    architecture.stages[1].cell = complete;
    assert!(is_well_formed(&architecture_to_svg(&architecture)));
    architecture.stages.clear();
    assert!(is_well_formed(&architecture_to_svg(&architecture)));
}
