//! Layered drawings of DAGs after Sugiyama, Tagawa and Toda, 1981: rows by longest path, few crossings, straight wires.
//!
//! A node that is read further down than the next row gets one wire down to its last reader, and all readers branch off it; so a
//! dense cell stays legible where a wire for each edge would not.

/// Where everything stands. Rows are counted from the top; `x` is in pixels, 0 at the left.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The graph's nodes in their order, then the wires.
    pub(super) vertices: Vec<Vertex>,
    /// Connections from a row to the next, `(upper, lower)` positions in `vertices`.
    pub(super) segments: Vec<(usize, usize)>,
    /// Number of rows.
    pub(super) n_rows: usize,
    /// Width in pixels.
    pub(super) width: f64,
}

/// A node, or a wire where it passes a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vertex {
    /// The node; of a wire the node that it comes from.
    pub(super) node: usize,
    /// Whether it is a wire.
    pub(super) is_wire: bool,
    pub(super) row: usize,
    /// Centre.
    pub(super) x: f64,
}

/// Sizes in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) box_width: f64,
    pub(super) wire_width: f64,
    /// Least distance between neighbours.
    pub(super) gap: f64,
}

/// Rounds of ordering.
const ORDER_ROUNDS: usize = 24;
/// Rounds of placing.
const PLACE_ROUNDS: usize = 60;

/// Lays out the DAG of `n_nodes` nodes and `edges` `(from, to)` with `from < to`; the last node stands alone in the last row.
///
/// # Complexity
/// A fixed number of passes over rows and segments, at most `n_nodes²` of them.
pub(super) fn layout(n_nodes: usize, edges: &[(usize, usize)], sizes: Sizes) -> Layout {
    let mut layout = with_wires(n_nodes, edges);
    let neighbours = Neighbours::new(&layout);
    let mut rows = vec![Vec::new(); layout.n_rows];
    for (vertex, at) in layout.vertices.iter().enumerate() {
        rows[at.row].push(vertex);
    }
    order(&layout.segments, &neighbours, &mut rows);
    layout.width = place(&mut layout.vertices, &neighbours, &rows, sizes);
    layout
}

/// Rows by longest path from node 0, and wires where a reader is further down than the next row.
fn with_wires(n_nodes: usize, edges: &[(usize, usize)]) -> Layout {
    let mut row_of = vec![0; n_nodes];
    let mut sorted = edges.to_vec();
    sorted.sort_unstable_by_key(|&(from, to)| (to, from));
    for &(from, to) in &sorted {
        row_of[to] = row_of[to].max(row_of[from] + 1);
    }
    let last = row_of.iter().max().copied().unwrap_or(0);
    if let Some(output) = row_of.last_mut() {
        *output = last;
    }
    let mut vertices: Vec<Vertex> =
        row_of.iter().enumerate().map(|(node, &row)| Vertex { node, is_wire: false, row, x: 0.0 }).collect();
    let mut segments = Vec::new();
    // For each node the vertices of its wire, the node itself first; one for each row.
    let mut wires: Vec<Vec<usize>> = (0..n_nodes).map(|node| vec![node]).collect();
    for (from, to) in sorted {
        while row_of[from] + wires[from].len() < row_of[to] {
            let row = row_of[from] + wires[from].len();
            segments.push((wires[from][wires[from].len() - 1], vertices.len()));
            wires[from].push(vertices.len());
            vertices.push(Vertex { node: from, is_wire: true, row, x: 0.0 });
        }
        segments.push((wires[from][row_of[to] - row_of[from] - 1], to));
    }
    Layout { vertices, segments, n_rows: last + 1, width: 0.0 }
}

/// Neighbours of each vertex in the row above and the row below.
struct Neighbours {
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
}

impl Neighbours {
    fn new(layout: &Layout) -> Self {
        let mut neighbours =
            Self { above: vec![Vec::new(); layout.vertices.len()], below: vec![Vec::new(); layout.vertices.len()] };
        for &(upper, lower) in &layout.segments {
            neighbours.above[lower].push(upper);
            neighbours.below[upper].push(lower);
        }
        neighbours
    }
}

/// Orders each row by the mean position of its neighbours, down and up in turn; keeps the order with fewest crossings.
fn order(segments: &[(usize, usize)], neighbours: &Neighbours, rows: &mut Vec<Vec<usize>>) {
    let n_vertices = neighbours.above.len();
    let mut position = vec![0.0; n_vertices];
    let mut best = (usize::MAX, rows.clone());
    for round in 0..ORDER_ROUNDS {
        for row in rows.iter() {
            note_positions(row, &mut position);
        }
        let n_crossings = crossings(segments, rows, &position);
        if n_crossings < best.0 {
            best = (n_crossings, rows.clone());
        }
        let down = round % 2 == 0;
        let side = if down { &neighbours.above } else { &neighbours.below };
        for step in 0..rows.len() {
            let row = if down { step } else { rows.len() - 1 - step };
            let key = |vertex: &usize| mean(&side[*vertex], &position).unwrap_or(position[*vertex]);
            rows[row].sort_by(|a, b| key(a).total_cmp(&key(b)));
            note_positions(&rows[row], &mut position);
        }
    }
    *rows = best.1;
}

/// Positions within a row, scaled to 0..1 so that rows of different lengths compare.
fn note_positions(row: &[usize], position: &mut [f64]) {
    for (i, &vertex) in row.iter().enumerate() {
        position[vertex] = (i as f64 + 0.5) / row.len() as f64;
    }
}

fn mean(vertices: &[usize], position: &[f64]) -> Option<f64> {
    let sum: f64 = vertices.iter().map(|&vertex| position[vertex]).sum();
    (!vertices.is_empty()).then(|| sum / vertices.len() as f64)
}

/// Pairs of segments that cross.
fn crossings(segments: &[(usize, usize)], rows: &[Vec<usize>], position: &[f64]) -> usize {
    let mut row_of = vec![0; position.len()];
    for (row, vertices) in rows.iter().enumerate() {
        vertices.iter().for_each(|&vertex| row_of[vertex] = row);
    }
    let mut by_row: Vec<Vec<(f64, f64)>> = vec![Vec::new(); rows.len()];
    for &(upper, lower) in segments {
        by_row[row_of[upper]].push((position[upper], position[lower]));
    }
    by_row.into_iter().map(inversions).sum()
}

/// Pairs with `a.0 < b.0` and `a.1 > b.1`.
fn inversions(mut ends: Vec<(f64, f64)>) -> usize {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut seen: Vec<f64> = Vec::with_capacity(ends.len());
    let mut count = 0;
    for (_, lower) in ends {
        let at = seen.partition_point(|&other| other <= lower);
        count += seen.len() - at;
        seen.insert(at, lower);
    }
    count
}

/// Moves every vertex as near to the mean of its neighbours as its row allows, again and again; gives the width.
fn place(vertices: &mut [Vertex], neighbours: &Neighbours, rows: &[Vec<usize>], sizes: Sizes) -> f64 {
    let half = |vertex: &Vertex| if vertex.is_wire { sizes.wire_width / 2.0 } else { sizes.box_width / 2.0 };
    let mut x = vec![0.0; vertices.len()];
    for round in 0..=PLACE_ROUNDS {
        for step in 0..rows.len() {
            let row = &rows[if round % 2 == 0 { step } else { rows.len() - 1 - step }];
            let offsets = offsets(row, vertices, half, sizes.gap);
            let wanted: Vec<(f64, f64)> = row
                .iter()
                .zip(&offsets)
                .map(|(&vertex, offset)| {
                    let (weight, target) = wish(vertex, round, vertices, neighbours, &x);
                    (weight, target - offset)
                })
                .collect();
            for ((&vertex, offset), start) in row.iter().zip(&offsets).zip(nearest_ascending(&wanted)) {
                x[vertex] = start + offset;
            }
        }
    }
    let reach = |sign: f64| {
        let ends = x.iter().zip(vertices.iter()).map(|(x, vertex)| sign * x + half(vertex));
        ends.reduce(f64::max).unwrap_or(0.0)
    };
    let (left, right) = (reach(-1.0), reach(1.0));
    for (vertex, x) in vertices.iter_mut().zip(&x) {
        vertex.x = x + left;
    }
    left + right
}

/// Least centres of a row's vertices, the first at 0.
fn offsets(row: &[usize], vertices: &[Vertex], half: impl Fn(&Vertex) -> f64, gap: f64) -> Vec<f64> {
    let mut offsets = vec![0.0; row.len()];
    for i in 1..row.len() {
        let (left, right) = (&vertices[row[i - 1]], &vertices[row[i]]);
        offsets[i] = offsets[i - 1] + half(left) + gap + half(right);
    }
    offsets
}

/// Where a vertex wants to be, and how much: at the mean of its neighbours, of which wires count most, so that they come out straight.
///
/// In the first round, downwards, only what stands above is placed already.
fn wish(vertex: usize, round: usize, vertices: &[Vertex], neighbours: &Neighbours, x: &[f64]) -> (f64, f64) {
    let is_wire = vertices[vertex].is_wire;
    let below = if round == 0 { &[][..] } else { &neighbours.below[vertex] };
    let (mut total, mut sum) = (0.0, 0.0);
    for &other in neighbours.above[vertex].iter().chain(below) {
        let weight = match (is_wire, vertices[other].is_wire) {
            (true, true) => 8.0,
            (false, false) => 1.0,
            _ => 2.0,
        };
        total += weight;
        sum += weight * x[other];
    }
    (if is_wire { 8.0 } else { 1.0 }, if total > 0.0 { sum / total } else { x[vertex] })
}

/// The ascending numbers with the least weighted square distance from `(weight, number)`: pooling of adjacent violators.
fn nearest_ascending(wanted: &[(f64, f64)]) -> Vec<f64> {
    // Weight, mean and length of each pool.
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for &(weight, number) in wanted {
        let mut pool = (weight, number, 1);
        while let Some(&(left_weight, left_mean, left_len)) = pools.last().filter(|left| left.1 > pool.1) {
            let sum = left_weight + pool.0;
            pool = (sum, (left_weight * left_mean + pool.0 * pool.1) / sum, left_len + pool.2);
            pools.pop();
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|(_, mean, len)| std::iter::repeat_n(mean, len)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { box_width: 100.0, wire_width: 10.0, gap: 20.0 };

    #[test]
    fn rows_are_longest_paths() {
        // 0 → 1 → 2 → 4, 0 → 3 → 4 and 0 → 2.
        let layout = layout(5, &[(0, 1), (1, 2), (0, 3), (0, 2), (2, 4), (3, 4)], SIZES);
        let rows: Vec<usize> = layout.vertices[..5].iter().map(|vertex| vertex.row).collect();
        assert_eq!((rows, layout.n_rows), (vec![0, 1, 2, 1, 3], 4));
        // One wire of 0 past row 1, and one of 3 past row 2.
        let wires: Vec<(usize, usize)> = layout.vertices[5..].iter().map(|vertex| (vertex.node, vertex.row)).collect();
        assert_eq!(wires, [(0, 1), (3, 2)]);
        assert!(layout.segments.iter().all(|&(a, b)| layout.vertices[a].row + 1 == layout.vertices[b].row));
    }

    #[test]
    fn nothing_overlaps_and_all_is_inside() {
        let edges: Vec<(usize, usize)> = (1..20)
            .flat_map(|to| {
                (0..to)
                    .filter(move |from| (from * 7 + to * 3) % 5 == 0 || from + 1 == to / 2 + 1)
                    .map(move |from| (from, to))
            })
            .collect();
        let layout = layout(20, &edges, SIZES);
        let half = |vertex: &Vertex| if vertex.is_wire { 5.0 } else { 50.0 };
        for (i, a) in layout.vertices.iter().enumerate() {
            assert!(a.x - half(a) >= -1e-6 && a.x + half(a) <= layout.width + 1e-6);
            for b in layout.vertices[..i].iter().filter(|b| b.row == a.row) {
                assert!((a.x - b.x).abs() >= half(a) + half(b) + SIZES.gap - 1e-6, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn a_chain_is_straight_and_crossings_go() {
        let chain = layout(4, &[(0, 1), (1, 2), (2, 3)], SIZES);
        assert!(chain.vertices.iter().all(|vertex| (vertex.x - 50.0).abs() < 1e-9));
        // 1 and 2 read by 4 and 3: drawn in the order given they would cross.
        let square = layout(6, &[(0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 5)], SIZES);
        let x = |node: usize| square.vertices[node].x;
        assert_eq!(x(1) < x(2), x(4) < x(3));
    }

    #[test]
    fn pooling_by_hand() {
        assert_eq!(nearest_ascending(&[(1.0, 3.0), (1.0, 1.0), (1.0, 5.0)]), [2.0, 2.0, 5.0]);
        assert_eq!(nearest_ascending(&[(3.0, 3.0), (1.0, 1.0)]), [2.5, 2.5]);
    }

    #[test]
    fn inversions_by_hand() {
        assert_eq!(inversions(vec![(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)]), 3);
        assert_eq!(inversions(vec![(0.0, 2.0), (0.0, 1.0), (1.0, 2.0)]), 0);
    }
}
