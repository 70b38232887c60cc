//! Properties of domains, surrogates and readers of tables.

use gram_search::domain::{Decision, DecisionWeights, FunctionGraph, Point};
use gram_search::tabular::{Identity, enas_dag, nasbench_macro, nasbench201, paired_test};
use proptest::collection::vec;
use proptest::prelude::*;

/// Writes a file and reads it as every layout.
fn read_as_all(content: &[u8]) -> Vec<Option<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    std::fs::write(&path, content).unwrap();
    let error = |result: Result<_, gram_search::tabular::TabularError>| result.err().map(|e| e.to_string());
    vec![
        error(nasbench201::read(&path, "v", "t", Identity::Function)),
        error(nasbench_macro::read(&path, Identity::Function)),
        error(enas_dag::read(&path, Identity::Function)),
    ]
}

/// A cell in the layout of NAS-Bench-201 with random operators, and perhaps one wrong character.
fn cell() -> impl Strategy<Value = String> {
    let op = || prop::sample::select(vec!["none", "skip_connect", "conv", "pool"]);
    (vec(op(), 6), prop::option::of((0..60usize, "[|~+a0,\\PC]"))).prop_map(|(ops, wrong)| {
        let [a, b, c, d, e, f] = ops.as_slice() else { return String::new() };
        let mut cell = format!("|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|");
        if let Some((place, character)) = wrong.filter(|(place, _)| *place < cell.len()) {
            cell.replace_range(place..place + 1, &character);
        }
        cell
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No bytes make a reader panic, and its refusals are one line that names the file.
    #[test]
    fn readers_refuse_in_one_line(content in vec(any::<u8>(), 0..400)) {
        for error in read_as_all(&content).into_iter().flatten() {
            prop_assert!(error.contains("table"), "{}", error);
        }
    }

    /// A table of cells is read, or refused at a line that exists.
    #[test]
    fn cells_are_read_or_refused_by_line(cells in vec(cell(), 1..6)) {
        let rows: String = cells.iter().map(|cell| format!("{cell},1,2\n")).collect();
        if let Some(error) = &read_as_all(format!("arch,v,t\n{rows}").as_bytes())[0] {
            let line = error.split("table:").nth(1).and_then(|rest| rest.split(':').next()).and_then(|n| n.parse::<usize>().ok());
            prop_assert!(line.is_some_and(|line| (2..=cells.len() + 1).contains(&line)), "{}", error);
        }
    }

    /// Lines in the layout of enas-dag never panic, whatever numbers stand in them.
    #[test]
    fn enas_lines_are_read_or_refused(layers in vec(vec(0..8u8, 0..5), 0..5), score in any::<f64>()) {
        let line = format!("{layers:?}, {score}");
        let fits = !layers.is_empty()
            && layers.iter().enumerate().all(|(i, l)| l.len() == i + 1 && l[0] < 6 && l[1..].iter().all(|&b| b < 2));
        prop_assert_eq!(read_as_all(line.as_bytes())[2].is_none(), fits && score.is_finite());
    }

    /// Histograms do not depend on how nodes are numbered, as long as edges go upwards.
    #[test]
    fn histograms_are_isomorphism_invariant(labels in vec(0..3u32, 2..8), bits in vec(any::<bool>(), 28), swap in 0..7usize) {
        let n = labels.len();
        let pairs = (0..n).flat_map(|from| (from + 1..n).map(move |to| (from, to)));
        let edges: Vec<(usize, usize)> = pairs.zip(&bits).filter(|(_, bit)| **bit).map(|(edge, _)| edge).collect();
        let before = FunctionGraph::new(labels.clone(), &edges).unwrap().histogram();
        // Two neighbouring nodes without an edge between them may change places.
        let (a, b) = (swap % (n - 1), swap % (n - 1) + 1);
        prop_assume!(!edges.contains(&(a, b)));
        let renamed = |node: usize| if node == a { b } else if node == b { a } else { node };
        let mut swapped = labels;
        swapped.swap(a, b);
        let edges: Vec<(usize, usize)> = edges.into_iter().map(|(from, to)| (renamed(from), renamed(to))).collect();
        prop_assert_eq!(before, FunctionGraph::new(swapped, &edges).unwrap().histogram());
    }

    /// Weights stay distributions above the floor, a lesson's order does not matter, and more credit for a choice never lowers its weight (but along roles).
    #[test]
    fn propagation_keeps_distributions(
        points in vec(vec(0..3u8, 4), 1..10),
        shares in vec(0.0..1.0f64, 10),
        more in 0.0..1.0f64,
        roles in prop_oneof![Just(0.0), 0.0..1.0f64],
    ) {
        let decisions: Vec<Decision> = (0..4).map(|i| Decision::new(format!("{i}"), 3)).collect();
        let points: Vec<Point> = points.into_iter().map(Point::from).collect();
        let total: f64 = shares[..points.len()].iter().sum::<f64>().max(1e-9);
        let lessons: Vec<(&Point, f64)> = points.iter().zip(shares.iter().map(|share| share / total)).collect();
        let taught = |lessons: &[(&Point, f64)]| {
            let mut weights = DecisionWeights::uniform(&decisions);
            weights.propagate(lessons.iter().copied(), 0.2, 0.02, roles);
            weights
        };
        let weights = taught(&lessons);
        let backwards = taught(&lessons.iter().rev().copied().collect::<Vec<_>>());
        let moved: Vec<(&Point, f64)> = lessons
            .iter()
            .enumerate()
            .map(|(i, &(point, share))| (point, share * (1.0 - more) + if i == 0 { more } else { 0.0 }))
            .collect();
        let favoured = taught(&moved);
        for decision in 0..4 {
            let of = weights.of(decision);
            prop_assert!((of.iter().sum::<f64>() - 1.0).abs() < 1e-12 && of.iter().all(|&w| w >= 0.006));
            prop_assert!(of.iter().zip(backwards.of(decision)).all(|(a, b)| (a - b).abs() < 1e-12));
            let chosen = usize::from(points[0].values()[decision]);
            // What goes along roles may take from it: the point chose other values elsewhere.
            prop_assert!(roles > 0.0 || favoured.of(decision)[chosen] >= of[chosen] - 1e-12);
        }
    }

    /// Exchanging the strategies changes the sign of the difference and nothing else; p stays a probability.
    #[test]
    fn paired_tests_are_symmetric(differences in vec(-3..4i32, 0..80)) {
        let forth: Vec<f64> = differences.iter().map(|&d| f64::from(d)).collect();
        let back: Vec<f64> = forth.iter().map(|d| -d).collect();
        let (a, b) = (paired_test(&forth), paired_test(&back));
        prop_assert_eq!((a.wins, a.ties, a.losses), (b.losses, b.ties, b.wins));
        prop_assert!((a.p_wilcoxon - b.p_wilcoxon).abs() < 1e-9 && (a.p_sign - b.p_sign).abs() < 1e-9);
        prop_assert!((0.0..=1.0).contains(&a.p_wilcoxon) && (0.0..=1.0).contains(&a.p_sign));
        prop_assert!((a.mean_difference + b.mean_difference).abs() < 1e-12);
    }
}
