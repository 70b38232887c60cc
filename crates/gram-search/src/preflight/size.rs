//! How many children a stage has.

use gram_ir::MIN_LIVE_NODES;

/// log10 of the number of sets of edges from live nodes on a complete DAG of `n_nodes` with at least two live operator nodes and no node
/// with more than `max_in_degree` inputs, times the ways in which live nodes choose one of `n_operators` operators.
///
/// Nodes are added one by one; what a node can do depends on the number `l` of live ones before it: stay dead (one way) or take 1 to
/// `max_in_degree` of them as inputs (`Σ C(l, k)` ways).
pub(super) fn log10_children(n_nodes: usize, max_in_degree: usize, n_operators: usize) -> f64 {
    let log10_operators = (n_operators as f64).log10();
    // ways[l]: log10 of the number of sets with l live nodes so far, the input among them.
    let mut ways = vec![f64::NEG_INFINITY; n_nodes + 1];
    ways[1] = 0.0;
    for _ in 1..n_nodes {
        let mut next = ways.clone();
        for live in 1..n_nodes {
            next[live + 1] = add(next[live + 1], ways[live] + log10_choices(live, max_in_degree) + log10_operators);
        }
        ways = next;
    }
    ways[MIN_LIVE_NODES + 1..].iter().copied().fold(f64::NEG_INFINITY, add)
}

/// log10 of `10^a + 10^b`.
fn add(a: f64, b: f64) -> f64 {
    let (low, high) = (a.min(b), a.max(b));
    if low == f64::NEG_INFINITY { high } else { high + (1.0 + 10_f64.powf(low - high)).log10() }
}

/// log10 of the number of ways to take 1 to `most` of `n`.
fn log10_choices(n: usize, most: usize) -> f64 {
    let mut binomial = 1.0;
    let mut sum = 0.0;
    for k in 1..=n.min(most) {
        binomial *= (n - k + 1) as f64 / k as f64;
        sum += binomial;
    }
    f64::log10(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By going through all sets of edges.
    fn brute_force(n_nodes: usize, max_in_degree: usize, n_operators: usize) -> f64 {
        let edges: Vec<(usize, usize)> = (1..n_nodes).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
        let ways = |bits: u32| {
            let kept = |e: usize| bits >> e & 1 == 1;
            let mut live = vec![false; n_nodes];
            live[0] = true;
            for (e, &(from, to)) in edges.iter().enumerate() {
                if kept(e) && live[from] {
                    live[to] = true;
                }
            }
            let in_degree = |node| edges.iter().enumerate().filter(|(e, edge)| kept(*e) && edge.1 == node).count();
            let canonical = edges.iter().enumerate().all(|(e, edge)| !kept(e) || live[edge.0]);
            let n_live_operators = live.iter().filter(|live| **live).count() - 1;
            let feasible =
                canonical && n_live_operators >= 2 && (1..n_nodes).all(|node| in_degree(node) <= max_in_degree);
            if feasible { n_operators.pow(n_live_operators as u32) } else { 0 }
        };
        f64::log10((0..1_u32 << edges.len()).map(ways).sum::<usize>() as f64)
    }

    #[test]
    fn small_stages_are_counted_by_brute_force() {
        assert!((log10_children(4, 4, 1) - 30_f64.log10()).abs() < 1e-12);
        for (n_nodes, max_in_degree) in [(3, 4), (4, 1), (4, 2), (5, 4), (5, 2), (6, 4), (6, 3)] {
            for n_operators in [1, 3] {
                let fast = log10_children(n_nodes, max_in_degree, n_operators);
                let slow = brute_force(n_nodes, max_in_degree, n_operators);
                assert!((fast - slow).abs() < 1e-9, "{n_nodes} nodes, {max_in_degree}, {n_operators}: {fast} {slow}");
            }
        }
    }

    #[test]
    fn the_largest_stage_does_not_overflow() {
        assert!(log10_children(128, 127, 8).is_finite() && log10_children(128, 4, 1) > 100.0);
    }
}
