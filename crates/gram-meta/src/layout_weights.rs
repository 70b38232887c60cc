//! Weights of a space's layouts: widths, repeats, image size.

use gram_ir::{Dimension, Layout, Space};
use rand::Rng;

use crate::op_weights::raise_to_floor;
use crate::sample::draw_index;
use crate::{Child, MetaGraph};

/// For one [`Dimension`] of a space a categorical distribution over its values.
///
/// Every child has a value for it, so all children teach it. No probability falls below `2ε` over the number of values, as with
/// [`OpWeights`](crate::OpWeights).
///
/// # Source
/// The edges' rule of ALGORITHMS 1.5 for categorical variables \[ours\].
#[derive(Clone, Debug, PartialEq)]
pub struct LayoutWeights {
    pub(crate) dimension: Dimension,
    pub(crate) weights: Vec<f64>,
}

impl LayoutWeights {
    /// Every dimension of the space with all values alike.
    pub(crate) fn prior(space: &Space) -> Vec<Self> {
        let even = |dimension: Dimension| {
            let weights = vec![1.0 / dimension.values.len() as f64; dimension.values.len()];
            Self { dimension, weights }
        };
        space.dimensions().into_iter().map(even).collect()
    }

    /// What is chosen, and the values.
    pub fn dimension(&self) -> &Dimension {
        &self.dimension
    }

    /// The probabilities of the values, in their order.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Mixes one value in with weight `share`.
    pub(crate) fn tilt(&mut self, choice: u8, share: f64) {
        for (index, weight) in self.weights.iter_mut().enumerate() {
            *weight = (1.0 - share) * *weight + if index == usize::from(choice) { share } else { 0.0 };
        }
    }

    /// `w ← w + η·(Σ u_k·1[k chose it] − U·w)`, raised to the floor; returns the largest change.
    fn propagate(&mut self, chosen: impl Iterator<Item = (u8, f64)>, eta: f64, epsilon: f64) -> f64 {
        let mut masses = vec![0.0; self.weights.len()];
        chosen.for_each(|(choice, mass)| masses[usize::from(choice)] += mass);
        let total: f64 = masses.iter().sum();
        if total == 0.0 {
            return 0.0;
        }
        let step = |(weight, mass): (&f64, &f64)| weight + eta * (mass - total * weight);
        let mut moved: Vec<f64> = self.weights.iter().zip(&masses).map(step).collect();
        raise_to_floor(&mut moved, epsilon);
        let change = self.weights.iter().zip(&moved).map(|(old, new)| (new - old).abs()).fold(0.0, f64::max);
        self.weights = moved;
        change
    }
}

impl MetaGraph {
    /// The belief in each value of each dimension that the space leaves open; empty where there is none.
    pub fn layout(&self) -> &[LayoutWeights] {
        &self.layout
    }

    /// The likeliest `n` layouts, likeliest first, by the product of their values' probabilities; of equally likely ones the first in
    /// lexicographic order.
    ///
    /// # Complexity
    /// `O(n · values)` for each dimension.
    pub fn likeliest_layouts(&self, n: usize) -> Vec<(Layout, f64)> {
        // A prefix of one of the best n is among the best n prefixes.
        let mut best = vec![(Layout::default(), 1.0)];
        for dimension in &self.layout {
            let longer = |(layout, p): &(Layout, f64)| {
                let (layout, p) = (layout.clone(), *p);
                dimension.weights.iter().enumerate().map(move |(choice, weight)| {
                    let mut longer = layout.clone();
                    longer.0.push(choice as u8);
                    (longer, p * weight)
                })
            };
            best = best.iter().flat_map(longer).collect();
            best.sort_by(|(a, p), (b, q)| q.total_cmp(p).then(a.cmp(b)));
            best.truncate(n);
        }
        best
    }

    /// A layout from the prior; nothing is drawn where there is nothing to choose.
    pub(crate) fn draw_layout(&self, rng: &mut impl Rng) -> Layout {
        Layout(self.layout.iter().map(|dimension| draw_index(&dimension.weights, rng) as u8).collect())
    }

    /// Whether a layout has one of the values for each dimension.
    pub(crate) fn allows(&self, layout: &Layout) -> bool {
        let is_value = |(dimension, &choice): (&LayoutWeights, &u8)| usize::from(choice) < dimension.weights.len();
        self.layout.len() == layout.0.len() && self.layout.iter().zip(&layout.0).all(is_value)
    }

    /// Moves the layout's weights towards the weighted children's; returns the largest change.
    pub(crate) fn propagate_layout(&mut self, children: &[(&Child, f64)], eta: f64) -> f64 {
        let epsilon = self.config.epsilon;
        let mut largest: f64 = 0.0;
        for (index, dimension) in self.layout.iter_mut().enumerate() {
            let chosen = children.iter().map(|(child, weight)| (child.layout().0[index], *weight));
            largest = largest.max(dimension.propagate(chosen, eta, epsilon));
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta_graph::tests::space;
    use crate::{MetaConfig, MetaGraphError, StageEdges};
    use gram_ir::CellNodeId;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Widths 4 and 8, repeats 1 to 3.
    fn meta() -> MetaGraph {
        let mut space = space(&[4]);
        space.stages[0].widths = vec![4, 8];
        space.stages[0].depths = vec![1, 2, 3];
        MetaGraph::new(&space, MetaConfig::default(), 1).unwrap()
    }

    fn child(layout: &[u8]) -> Child {
        let edges = [(0, 1), (0, 2)].map(|(from, to)| (CellNodeId(from), CellNodeId(to)));
        Child::new(vec![StageEdges::new(4, edges)]).with_layout(Layout(layout.to_vec()))
    }

    #[test]
    fn layouts_are_taught_by_hand() {
        let mut meta = meta();
        let (a, b) = (child(&[0, 2]), child(&[1, 2]));
        let largest = meta.propagate([(&a, 0.75), (&b, 0.25)]).unwrap();
        // η 0.2: width 4 from 1/2 by 0.2·(0.75 − 1/2), three repeats from 1/3 by 0.2·(1 − 1/3).
        let close = |got: &[f64], expected: &[f64]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(meta.layout()[0].weights(), &[0.55, 0.45]), "{:?}", meta.layout());
        let third = 1.0 / 3.0;
        let others = third - 0.2 * third;
        assert!(close(meta.layout()[1].weights(), &[others, others, third + 0.4 * third]), "{:?}", meta.layout());
        assert!(largest >= 0.4 / 3.0 - 1e-12);
        let likeliest: Vec<Layout> = meta.likeliest_layouts(3).into_iter().map(|(layout, _)| layout).collect();
        assert_eq!(likeliest, [Layout(vec![0, 2]), Layout(vec![1, 2]), Layout(vec![0, 0])]);
        assert_eq!(meta.likeliest_layouts(100).len(), 6);
    }

    #[test]
    fn draws_follow_the_weights() {
        let meta = meta();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let n = 6000;
        let mut counts = [0_usize; 6];
        for _ in 0..n {
            let child = meta.sample(&mut rng, &|_| true).unwrap();
            counts[usize::from(child.layout().0[0]) * 3 + usize::from(child.layout().0[1])] += 1;
        }
        // Six even cells: chi-square with 5 degrees of freedom exceeds 20.5 with probability 0.001.
        let even = n as f64 / 6.0;
        let chi2: f64 = counts.iter().map(|&count| (count as f64 - even).powi(2) / even).sum();
        assert!(chi2 < 20.5, "{counts:?}");
    }

    #[test]
    fn foreign_layouts_are_refused() {
        let mut meta = meta();
        for layout in [&[][..], &[0], &[0, 3], &[0, 0, 0]] {
            let error = meta.propagate([(&child(layout), 1.0)]).unwrap_err();
            assert!(error.to_string().contains("layout"), "{error}");
        }
        assert!(matches!(meta.cells(&child(&[2, 0])), Err(MetaGraphError::Layout { .. })));
    }

    #[test]
    fn a_tilt_of_one_draws_the_witness_layout() {
        let tilted = meta().tilted(&child(&[1, 2]), 1.0).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        assert!((0..50).all(|_| tilted.sample(&mut rng, &|_| true).unwrap() == child(&[1, 2])));
    }
}
