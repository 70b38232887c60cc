//! A bound on in-degrees for steps that raise many edges at once.

use crate::MetaStage;

impl MetaStage {
    /// Scales the in-edges of a node down where together they are more than half of the largest in-degree, and more than they were
    /// `before`.
    ///
    /// Rejection from the prior needs that: with independent edges an in-degree of 2 is expected to exceed 4 at one node in twenty, so that
    /// children of 30 nodes are still feasible at every fifth draw, and with one of 4 hardly ever. Steps that follow feasible children edge
    /// by edge keep away from there by themselves; those that move all edges of a kind do not.
    ///
    /// `before` holds weights of this stage's edges; no weight falls below ε.
    pub(crate) fn bound_in_degrees(&mut self, before: &[f64], max_in_degree: usize, epsilon: f64) {
        let (mut weights, mut before) = (self.weights.values_mut(), before);
        for node in 1..=self.ops.len() {
            let (own, rest) = weights.split_at_mut(node);
            let (own_before, rest_before) = before.split_at(node);
            (weights, before) = (rest, rest_before);
            let most = own_before.iter().sum::<f64>().max(max_in_degree as f64 / 2.0);
            let expected: f64 = own.iter().sum();
            if expected > most {
                own.iter_mut().for_each(|weight| *weight = (*weight * most / expected).max(epsilon));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::meta_graph::tests::meta;

    #[test]
    fn bounds_by_hand() {
        let mut stage = meta(&[4]).stages()[0].clone();
        stage.weights.values_mut().copy_from_slice(&[0.9, 0.9, 0.9, 0.9, 0.9, 0.6]);
        // Half of 4 is 2: nodes 1 and 2 expect 0.9 and 1.8, node 3 expects 2.4.
        stage.bound_in_degrees(&[0.5; 6], 4, 0.02);
        let expected = [0.9, 0.9, 0.9, 0.75, 0.75, 0.5];
        assert!(stage.weights.values().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15));
        // Node 3 had 2.1 before.
        stage.weights.values_mut().copy_from_slice(&[0.9, 0.9, 0.9, 0.9, 0.9, 0.6]);
        stage.bound_in_degrees(&[0.7; 6], 4, 0.02);
        assert!((stage.weights.values()[3] - 0.9 * 2.1 / 2.4).abs() < 1e-15);
        // Half of 1 is 0.5; no weight falls below ε.
        stage.weights.values_mut().copy_from_slice(&[0.9, 0.02, 0.9, 0.1, 0.1, 0.1]);
        stage.bound_in_degrees(&[0.02; 6], 1, 0.02);
        assert_eq!((stage.weights.values()[0], stage.weights.values()[1], stage.weights.values()[3]), (0.5, 0.02, 0.1));
    }
}
