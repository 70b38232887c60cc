//! Cells made to be hard: many symmetries, or none that colours of neighbours can see.

use super::dag::Dag;
use super::search::canonical_vertices;
use crate::{CanonicalKey, Cell, CellNodeId, CellOp};

/// A cell of equal operators; nodes without predecessor among `edges` read the input.
fn cell(n_ops: u16, edges: &[(u16, u16)]) -> Cell {
    let mut cell = Cell::new();
    for n in 1..=n_ops {
        cell.add_node(CellNodeId(n), CellOp::Sep3x3).unwrap();
    }
    for &(from, to) in edges {
        cell.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
    }
    for n in 1..=n_ops {
        if cell.predecessors(CellNodeId(n)).is_empty() {
            cell.add_edge(CellNodeId::INPUT, CellNodeId(n)).unwrap();
        }
    }
    cell
}

/// `n_chains` paths of `len` operators.
fn chains(n_chains: u16, len: u16) -> Cell {
    let links = (0..n_chains).flat_map(|chain| (1..len).map(move |i| (chain * len + i, chain * len + i + 1)));
    cell(n_chains * len, &links.collect::<Vec<_>>())
}

/// Every node reads all of the layer before.
fn complete_layers(sizes: &[u16]) -> Cell {
    let mut edges = Vec::new();
    let mut start = 1;
    for pair in sizes.windows(2) {
        let next = start + pair[0];
        edges.extend((start..next).flat_map(|from| (next..next + pair[1]).map(move |to| (from, to))));
        start = next;
    }
    cell(sizes.iter().sum(), &edges)
}

fn complete_dag(n_ops: u16) -> Cell {
    cell(n_ops, &(0..=n_ops).flat_map(|to| (0..to).map(move |from| (from, to))).collect::<Vec<_>>())
}

/// A tree in which node `i` reads node `(i − 1) / arity`.
fn tree(n_ops: u16, arity: u16) -> Cell {
    cell(n_ops, &(1..=n_ops).map(|n| ((n - 1) / arity, n)).collect::<Vec<_>>())
}

/// Two layers; for each part `n` points and `n` lines, line `i` reads the points `i + d mod n` of the part.
fn cyclic_configurations(parts: &[(u16, &[u16])]) -> Cell {
    let n_points: u16 = parts.iter().map(|(n, _)| n).sum();
    let mut edges = Vec::new();
    let mut start = 1;
    for &(n, differences) in parts {
        let line = |i: u16| differences.iter().map(move |d| (start + (i + d) % n, n_points + start + i));
        edges.extend((0..n).flat_map(line));
        start += n;
    }
    cell(2 * n_points, &edges)
}

/// The graph of Cai, Fürer and Immerman over a graph with these edges: twisted and plain one differ, but no refinement shows it.
///
/// Two points for each edge; for each vertex one line for each even subset of its edges (odd ones at vertex 0 if twisted), which reads one
/// point of each of its edges.
fn cai_fuerer_immerman(n_vertices: u16, graph: &[(u16, u16)], twisted: bool) -> Cell {
    let n_points = 2 * graph.len() as u16;
    let mut edges = Vec::new();
    let mut line = n_points;
    for vertex in 0..n_vertices {
        let incident: Vec<u16> = (0..graph.len() as u16)
            .filter(|&e| graph[usize::from(e)].0 == vertex || graph[usize::from(e)].1 == vertex)
            .collect();
        let parity = u32::from(twisted && vertex == 0);
        for subset in (0..1u16 << incident.len()).filter(|subset| subset.count_ones() % 2 == parity) {
            line += 1;
            edges.extend(incident.iter().enumerate().map(|(i, e)| (1 + 2 * e + (subset >> i & 1), line)));
        }
    }
    cell(line, &edges)
}

/// A ring with every vertex joined to the one opposite: degree 3.
fn moebius_ladder(n_vertices: u16) -> Vec<(u16, u16)> {
    let rim = (0..n_vertices).map(|i| (i, (i + 1) % n_vertices));
    rim.chain((0..n_vertices / 2).map(|i| (i, i + n_vertices / 2))).collect()
}

/// Relabels by a fixed permutation that mixes nodes of one depth.
fn shuffled(cell: &Cell, seed: u64) -> Cell {
    let depth = |id: CellNodeId| -> usize {
        let mut depth = vec![0; usize::from(crate::MAX_CELL_NODE) + 1];
        for (node, _, inputs) in cell.live_inputs() {
            depth[node.index()] = 1 + inputs.iter().map(|from| depth[from.index()]).max().unwrap_or(0);
        }
        depth[id.index()]
    };
    let mut order: Vec<CellNodeId> = cell.ops().map(|(id, _)| id).collect();
    order.sort_by_cached_key(|&id| (depth(id), super::partition::mix(seed ^ u64::from(id.0))));
    let place = |id: CellNodeId| CellNodeId(order.iter().position(|&other| other == id).map_or(0, |i| i as u16 + 1));
    let mut relabelled = Cell::new();
    for &id in &order {
        relabelled.add_node(place(id), cell.op(id).unwrap()).unwrap();
    }
    for (from, to) in cell.edges() {
        relabelled.add_edge(place(from), place(to)).unwrap();
    }
    relabelled
}

/// Points and hyperplanes of a projective space over two elements, `2^dimension − 1` of each; hyperplanes read their points.
fn projective_space(dimension: u32) -> Cell {
    let n = (1u16 << dimension) - 1;
    let points = |plane: u16| (1..=n).filter(move |point| (point & plane).count_ones().is_multiple_of(2));
    let edges = (1..=n).flat_map(|plane| points(plane).map(move |point| (point, n + plane)));
    cell(2 * n, &edges.collect::<Vec<_>>())
}

fn n_refinements(cell: &Cell) -> usize {
    canonical_vertices(&Dag::of_live_part(cell).0).1
}

/// Checks that relabelled cells have one key and that the search takes at most `most` refinements.
#[track_caller]
fn check_within(cell: &Cell, most: usize) {
    let key = cell.canonical_key();
    for seed in 0..3 {
        let relabelled = shuffled(cell, seed);
        assert_eq!(relabelled.canonical_key(), key, "seed {seed}");
        let taken = n_refinements(&relabelled);
        assert!(taken <= most, "seed {seed}: {taken} refinements, more than {most}");
    }
}

/// [`check_within`] a number of refinements that is quadratic in the number of operators.
#[track_caller]
fn check(cell: &Cell) {
    check_within(cell, cell.ops().len().pow(2) / 2);
}

#[test]
fn twins_and_different_depths_need_no_search() {
    check_within(&complete_layers(&[29]), 1);
    check_within(&complete_layers(&[10, 10, 9]), 1);
    check_within(&complete_layers(&[2; 14]), 1);
    check_within(&complete_layers(&[255]), 1);
    check_within(&complete_dag(29), 1);
    check_within(&complete_dag(255), 1);
    check_within(&chains(1, 255), 1);
}

#[test]
fn equal_parts_are_searched_once() {
    check(&chains(14, 2));
    check(&chains(10, 3));
    check(&chains(2, 14));
    check(&chains(127, 2));
    check(&chains(85, 3));
    check(&tree(29, 2));
    check(&tree(29, 3));
    check(&tree(255, 2));
}

#[test]
fn cycles_that_colours_do_not_tell_apart() {
    const CYCLE: &[u16] = &[0, 1];
    let cycles = |sizes: &[u16]| cyclic_configurations(&sizes.iter().map(|&n| (n, CYCLE)).collect::<Vec<_>>());
    for sizes in [&[14][..], &[7, 7], &[3, 4, 7], &[3, 4, 3, 4], &[3, 3, 3, 3]] {
        check(&cycles(sizes));
    }
    check(&cycles(&[3; 42]));
    check(&cycles(&[3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5, 6]));
    assert_ne!(cycles(&[6]).canonical_key(), cycles(&[3, 3]).canonical_key());
    assert_eq!(cycles(&[3, 4, 7]).canonical_key(), cycles(&[7, 3, 4]).canonical_key());
}

#[test]
fn planes_and_spaces() {
    const FANO: &[u16] = &[0, 1, 3];
    check(&cyclic_configurations(&[(7, FANO)]));
    check(&cyclic_configurations(&[(7, FANO); 2]));
    check(&cyclic_configurations(&[(7, FANO); 18]));
    check(&cyclic_configurations(&[(8, FANO)]));
    check(&cyclic_configurations(&[(14, FANO)]));
    check(&cyclic_configurations(&[(13, &[0, 1, 3, 9])]));
    check(&cyclic_configurations(&[(11, &[1, 3, 4, 5, 9])]));
    // The plane of order 7: choosing the smallest block as target takes 8 million refinements here.
    check(&cyclic_configurations(&[(57, &[0, 1, 3, 13, 32, 36, 43, 52])]));
    for dimension in 3..=6 {
        check(&projective_space(dimension));
    }
}

#[test]
fn cai_fuerer_immerman_pairs_are_told_apart() {
    // With 4 vertices these are cells of 29 nodes.
    for n_vertices in [4, 6, 10, 24] {
        let graph = moebius_ladder(n_vertices);
        let [plain, twisted] = [false, true].map(|twisted| cai_fuerer_immerman(n_vertices, &graph, twisted));
        check(&plain);
        check(&twisted);
        assert_ne!(plain.canonical_key(), twisted.canonical_key());
    }
}

#[test]
fn keys_in_files_stay_what_they_are() {
    // 0 → 1, 0 → 3, 1 → 3, with the dead node 2. Canonical: 1 = sep3x3 (code 3) of {0}, 2 = dw3x3 (code 6) of {0, 1}.
    let mut cell = Cell::new();
    for (n, op) in [(1, CellOp::Sep3x3), (2, CellOp::Identity), (3, CellOp::Dw3x3)] {
        cell.add_node(CellNodeId(n), op).unwrap();
    }
    for (from, to) in [(0, 1), (0, 3), (1, 3), (2, 3)] {
        cell.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
    }
    assert_eq!(cell.canonical_key().to_hex(), "010203010603");
    assert_eq!(Cell::new().canonical_key().to_hex(), "0100");
    // These depend on the order of the search: if they change, so must the format's number.
    assert_eq!(shuffled(&tree(29, 3), 0).canonical_key().to_string(), "fa1049054c24af92");
    let pairs = cyclic_configurations(&[(3, &[0, 1]), (4, &[0, 1]), (7, &[0, 1, 3])]);
    assert_eq!(pairs.canonical_key().to_string(), "1d39e7b2b856e546");
}

#[test]
fn keys_are_read_back_and_others_refused() {
    let key = chains(10, 3).canonical_key();
    assert_eq!(CanonicalKey::from_hex(&key.to_hex()), Ok(key.clone()));
    let json = serde_json::to_string(&key).unwrap();
    assert_eq!(serde_json::from_str::<CanonicalKey>(&json).unwrap(), key);
    for text in ["", "0", "01020", "0g", "ff00", "é1"] {
        let error = CanonicalKey::from_hex(text).unwrap_err();
        assert!(error.to_string().starts_with(&format!("`{text}` is not a canonical key")), "{error}");
        assert!(serde_json::from_str::<CanonicalKey>(&format!("\"{text}\"")).is_err());
    }
}
