//! The graph that a point computes, and what a surrogate sees of it.

use super::Histogram;

/// Rounds of Weisfeiler-Lehman refinement in [`FunctionGraph::histogram`].
pub const WL_DEPTH: usize = 2;

/// A labelled DAG: operators as nodes, numbered so that edges go from lower to higher numbers. Edges may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionGraph {
    labels: Vec<u32>,
    sources: Vec<Vec<usize>>,
}

/// Why a graph is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the edge {from} -> {to} does not lead from a lower to a higher one of {n_nodes} nodes")]
pub struct GraphError {
    /// Source.
    pub from: usize,
    /// Target.
    pub to: usize,
    /// Nodes.
    pub n_nodes: usize,
}

impl FunctionGraph {
    /// A graph with these labels of nodes.
    ///
    /// # Errors
    /// [`GraphError`] if an edge does not lead from a lower to a higher node.
    pub fn new(labels: Vec<u32>, edges: &[(usize, usize)]) -> Result<Self, GraphError> {
        let mut sources = vec![Vec::new(); labels.len()];
        for &(from, to) in edges {
            if from >= to || to >= labels.len() {
                return Err(GraphError { from, to, n_nodes: labels.len() });
            }
            sources[to].push(from);
        }
        Ok(Self { labels, sources })
    }

    /// The Weisfeiler-Lehman histogram up to [`WL_DEPTH`] steps along and against the edges.
    ///
    /// A name at depth `d` stands for a node with everything up to `d` edges before it (or after it); isomorphic graphs have equal histograms.
    /// # Source
    /// Shervashidze et al., Weisfeiler-Lehman Graph Kernels, JMLR 2011; its use for architectures: Ru et al., arXiv:2006.07556.
    /// # Complexity
    /// `O(WL_DEPTH · edges · log edges)`.
    pub fn histogram(&self) -> Histogram {
        let mut targets = vec![Vec::new(); self.labels.len()];
        for (to, sources) in self.sources.iter().enumerate() {
            for &from in sources {
                targets[from].push(to);
            }
        }
        let plain: Vec<u64> = self.labels.iter().map(|&label| mix(0, u64::from(label))).collect();
        let mut names = plain.clone();
        for (direction, neighbours) in [(1, &self.sources), (2, &targets)] {
            let mut current = plain.clone();
            for depth in 1..=WL_DEPTH {
                current = refine(&plain, &current, neighbours, direction * 16 + depth as u64);
                names.extend(&current);
            }
        }
        names.into_iter().map(|name| (name, 1.0)).collect()
    }
}

fn refine(plain: &[u64], current: &[u64], neighbours: &[Vec<usize>], salt: u64) -> Vec<u64> {
    plain
        .iter()
        .zip(neighbours)
        .map(|(&own, around)| {
            let mut names: Vec<u64> = around.iter().map(|&node| current[node]).collect();
            names.sort_unstable();
            names.into_iter().fold(mix(salt, own), mix)
        })
        .collect()
}

/// A 64-bit mixer (the finaliser of SplitMix64) over a running state.
fn mix(state: u64, value: u64) -> u64 {
    let mut z = state.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbering_does_not_matter() {
        let a = FunctionGraph::new(vec![0, 5, 6, 1], &[(0, 1), (0, 2), (1, 3), (2, 3)]).unwrap();
        let b = FunctionGraph::new(vec![0, 6, 5, 1], &[(0, 2), (0, 1), (2, 3), (1, 3)]).unwrap();
        assert_eq!(a.histogram(), b.histogram());
        let chain = FunctionGraph::new(vec![0, 5, 6, 1], &[(0, 1), (1, 2), (2, 3)]).unwrap();
        assert_ne!(a.histogram(), chain.histogram());
        // One name per node at depth 0, and WL_DEPTH more in each direction.
        let total: f64 = a.histogram().counts().iter().map(|&(_, count)| count).sum();
        assert_eq!(total, 4.0 * (1.0 + 2.0 * WL_DEPTH as f64));
    }

    #[test]
    fn backward_edges_are_refused() {
        let error = FunctionGraph::new(vec![0, 1], &[(1, 1)]).unwrap_err();
        assert_eq!(error.to_string(), "the edge 1 -> 1 does not lead from a lower to a higher one of 2 nodes");
    }
}
