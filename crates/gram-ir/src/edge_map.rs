//! Facts about the edges of a complete DAG, beside the graph instead of in it.

use serde::{Deserialize, Serialize};

use crate::CellNodeId;

/// One value for each pair `i < j` of `n_nodes` nodes: the candidate edges `i → j` of a stage.
///
/// Pairs are ordered by target, then source: (0,1), (0,2), (1,2), (0,3), … so a map of fewer nodes is a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "Vec<T>",
    into = "Vec<T>",
    bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>")
)]
pub struct EdgeMap<T> {
    n_nodes: usize,
    values: Vec<T>,
}

impl<T> EdgeMap<T> {
    /// A map of the complete DAG on `n_nodes` nodes (`n_nodes·(n_nodes − 1)/2` edges), filled by `value(from, to)`.
    pub fn from_fn(n_nodes: usize, mut value: impl FnMut(CellNodeId, CellNodeId) -> T) -> Self {
        Self { n_nodes, values: pairs(n_nodes).map(|(from, to)| value(from, to)).collect() }
    }

    /// Nodes of the complete DAG, the input among them.
    pub fn n_nodes(&self) -> usize {
        self.n_nodes
    }

    /// Number of edges.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no edges.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Position of the edge `from → to` in [`EdgeMap::values`].
    pub const fn position(from: CellNodeId, to: CellNodeId) -> usize {
        to.index() * (to.index() - 1) / 2 + from.index()
    }

    /// The value of `from → to`; none if it is no pair `i < j` of the map.
    pub fn get(&self, from: CellNodeId, to: CellNodeId) -> Option<&T> {
        if from < to { self.values.get(Self::position(from, to)) } else { None }
    }

    /// The value of `from → to`, to change.
    pub fn get_mut(&mut self, from: CellNodeId, to: CellNodeId) -> Option<&mut T> {
        if from < to { self.values.get_mut(Self::position(from, to)) } else { None }
    }

    /// All edges with their values, ordered by target, then source.
    pub fn iter(&self) -> impl Iterator<Item = (CellNodeId, CellNodeId, &T)> {
        pairs(self.n_nodes).zip(&self.values).map(|((from, to), value)| (from, to, value))
    }

    /// All values, ordered by target, then source.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All values, to change.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

fn pairs(n_nodes: usize) -> impl Iterator<Item = (CellNodeId, CellNodeId)> {
    let id = |n: usize| CellNodeId(n as u16);
    (1..n_nodes).flat_map(move |to| (0..to).map(move |from| (id(from), id(to))))
}

impl<T> TryFrom<Vec<T>> for EdgeMap<T> {
    type Error = NotTriangular;

    fn try_from(values: Vec<T>) -> Result<Self, Self::Error> {
        let n_edges = values.len();
        let n_nodes = (1..=usize::from(crate::MAX_CELL_NODE) + 1).find(|n| n * (n - 1) / 2 >= n_edges);
        match n_nodes.filter(|n| n * (n - 1) / 2 == n_edges) {
            Some(n_nodes) => Ok(Self { n_nodes, values }),
            None => Err(NotTriangular { n_edges }),
        }
    }
}

impl<T> From<EdgeMap<T>> for Vec<T> {
    fn from(map: EdgeMap<T>) -> Self {
        map.values
    }
}

/// A number of values that no complete DAG has as edges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{n_edges} values do not fit a complete DAG: expected n(n-1)/2 for some n up to 256")]
pub struct NotTriangular {
    /// Number of values.
    pub n_edges: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_its_own_place() {
        let map = EdgeMap::from_fn(5, |from, to| (from.0, to.0));
        assert_eq!(map.len(), 10);
        assert!(map.iter().all(|(from, to, &value)| value == (from.0, to.0) && map.get(from, to) == Some(&value)));
        assert_eq!(map.get(CellNodeId(3), CellNodeId(3)), None);
        assert_eq!(map.get(CellNodeId(0), CellNodeId(5)), None);
    }

    #[test]
    fn only_triangular_numbers_are_maps() {
        assert_eq!(EdgeMap::try_from(vec![0; 6]).unwrap().n_nodes(), 4);
        assert_eq!(EdgeMap::try_from(vec![0; 5]), Err(NotTriangular { n_edges: 5 }));
        let text = serde_json::to_string(&EdgeMap::from_fn(3, |_, to| to.0)).unwrap();
        assert_eq!(text, "[1,2,2]");
        assert!(serde_json::from_str::<EdgeMap<u16>>("[1,2]").is_err());
    }
}
