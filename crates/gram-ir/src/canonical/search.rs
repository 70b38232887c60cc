//! The search tree of individualisation and refinement, pruned by traces and by automorphisms.

use std::collections::BTreeMap;

use super::dag::Dag;
use super::partition::{Partition, Scratch};

/// Indices of all nodes of `dag` in canonical order, twins side by side.
pub(super) fn canonical_order(dag: &Dag) -> Vec<u8> {
    let (order, _) = canonical_vertices(dag);
    order.into_iter().flat_map(|vertex| dag.members[usize::from(vertex)].iter().copied()).collect()
}

/// Vertices in canonical order and the number of refinements that it took.
pub(super) fn canonical_vertices(dag: &Dag) -> (Vec<u8>, usize) {
    let mut scratch = Scratch::new(dag.len());
    let root = Partition::by_colour(dag, &mut scratch);
    let mut search = Search {
        dag,
        scratch,
        traces: Vec::new(),
        leaves: BTreeMap::new(),
        automorphisms: Vec::new(),
        path: Vec::new(),
        n_refinements: 1,
    };
    search.explore(&root);
    let (_, best) = search.leaves.pop_first().expect("the search reaches a leaf");
    (best.order, search.n_refinements)
}

/// Depth-first search through the tree whose nodes are sequences of individualised vertices (`path`) and whose leaves are partitions into
/// single vertices.
///
/// The canonical leaf has the least sequence of traces, then the least certificate. Both do not depend on how vertices are numbered, and
/// neither does the tree; so equal keys need nothing of what is pruned here.
struct Search<'a> {
    dag: &'a Dag,
    scratch: Scratch,
    /// Traces on the way to the best leaves so far.
    traces: Vec<u64>,
    /// One leaf for each certificate met at the end of `traces`.
    leaves: BTreeMap<Vec<u64>, Leaf>,
    /// Automorphisms found, each as the images of all vertices.
    automorphisms: Vec<Vec<u8>>,
    path: Vec<u8>,
    n_refinements: usize,
}

struct Leaf {
    path: Vec<u8>,
    order: Vec<u8>,
}

impl Search<'_> {
    /// Searches the subtree below `partition`, which belongs to `path`, and gives the level to go back to: the path's own, or less if the
    /// subtree turned out to be the image of one that was searched.
    fn explore(&mut self, partition: &Partition) -> usize {
        let level = self.path.len();
        let Some(target) = partition.target() else { return self.leaf(partition) };
        let best_is_known = !self.leaves.is_empty();
        if best_is_known && self.traces.len() == level {
            return level; // the best path ends here, and the shorter one wins
        }
        if best_is_known {
            let back = self.dive(partition);
            if back < level {
                return back;
            }
        }
        let candidates = self.least_children(partition, target);
        let mut searched: Vec<u8> = Vec::new();
        let mut orbits = self.orbits();
        let mut n_known = self.automorphisms.len();
        for vertex in candidates {
            if self.automorphisms.len() > n_known {
                orbits = self.orbits();
                n_known = self.automorphisms.len();
            }
            let orbit = |vertex: u8| orbits[usize::from(vertex)];
            if searched.iter().any(|&other| orbit(other) == orbit(vertex)) {
                continue;
            }
            let (child, _) = self.child(partition, vertex);
            self.path.push(vertex);
            let back = self.explore(&child);
            self.path.pop();
            if back < level {
                return back;
            }
            searched.push(vertex);
        }
        level
    }

    fn child(&mut self, partition: &Partition, vertex: u8) -> (Partition, u64) {
        self.n_refinements += 1;
        partition.individualised(vertex, self.dag, &mut self.scratch)
    }

    /// Vertices of `target` whose children have the least trace, one of each known orbit; none if the best leaves have a lesser one.
    fn least_children(&mut self, partition: &Partition, target: &[u8]) -> Vec<u8> {
        let level = self.path.len();
        let orbits = self.orbits();
        let mut seen: Vec<u8> = Vec::new();
        let mut least = u64::MAX;
        let mut children: Vec<u8> = Vec::new();
        for &vertex in target {
            let orbit = orbits[usize::from(vertex)];
            if seen.contains(&orbit) {
                continue;
            }
            seen.push(orbit);
            let (_, trace) = self.child(partition, vertex);
            if trace < least {
                least = trace;
                children.clear();
            }
            if trace == least {
                children.push(vertex);
            }
        }
        match self.traces.get(level) {
            Some(&best) if least > best => return Vec::new(),
            Some(&best) if least == best => {}
            _ => {
                self.traces.truncate(level);
                self.traces.push(least);
                self.leaves.clear();
            }
        }
        children
    }

    /// Goes down along the traces of the best leaves, without looking left or right: mostly that ends at an image of one of them.
    fn dive(&mut self, partition: &Partition) -> usize {
        let level = self.path.len();
        let mut tip = partition.clone();
        while let Some(target) = tip.target() {
            let Some(&best) = self.traces.get(self.path.len()) else { break };
            let mut same = None;
            for &vertex in target {
                let (child, trace) = self.child(&tip, vertex);
                if trace == best {
                    same = Some((vertex, child));
                    break;
                }
            }
            let Some((vertex, child)) = same else { break };
            self.path.push(vertex);
            tip = child;
        }
        let at_leaf = tip.target().is_none() && self.path.len() == self.traces.len();
        let back = if at_leaf { self.leaf(&tip) } else { level };
        self.path.truncate(level);
        back
    }

    /// Notes a leaf; gives the level to go back to.
    fn leaf(&mut self, partition: &Partition) -> usize {
        let level = self.path.len();
        if self.traces.len() > level {
            self.traces.truncate(level);
            self.leaves.clear();
        }
        let certificate = self.dag.certificate(partition.order());
        let Some(twin) = self.leaves.get(&certificate) else {
            let leaf = Leaf { path: self.path.clone(), order: partition.order().to_vec() };
            self.leaves.insert(certificate, leaf);
            return level;
        };
        let common = twin.path.iter().zip(&self.path).take_while(|(a, b)| a == b).count();
        if common < level {
            let mut images = vec![0; self.dag.len()];
            for (&from, &to) in twin.order.iter().zip(partition.order()) {
                images[usize::from(from)] = to;
            }
            self.automorphisms.push(images);
        }
        // Where the paths part, this branch is the image of the other, which has been searched.
        common
    }

    /// For each vertex the least one that known automorphisms which fix the path map it to.
    fn orbits(&self) -> Vec<u8> {
        let mut orbit: Vec<u8> = (0..self.dag.len()).map(|vertex| vertex as u8).collect();
        fn root(orbit: &[u8], mut vertex: u8) -> u8 {
            while orbit[usize::from(vertex)] != vertex {
                vertex = orbit[usize::from(vertex)];
            }
            vertex
        }
        let fixes_path = |images: &&Vec<u8>| self.path.iter().all(|&vertex| images[usize::from(vertex)] == vertex);
        for images in self.automorphisms.iter().filter(fixes_path) {
            for (vertex, &image) in images.iter().enumerate() {
                let (a, b) = (root(&orbit, vertex as u8), root(&orbit, image));
                orbit[usize::from(a.max(b))] = a.min(b);
            }
        }
        (0..orbit.len()).map(|vertex| root(&orbit, vertex as u8)).collect()
    }
}
