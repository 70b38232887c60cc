//! The meta-graph of a domain: a belief in every value of every decision.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Decision, Point};

/// Categorical weights, one distribution for each decision: what a meta-graph's edge weights are for decisions of any number of values.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionWeights(Vec<Vec<f64>>);

impl DecisionWeights {
    /// Every value of a decision equally likely.
    pub fn uniform(decisions: &[Decision]) -> Self {
        let uniform =
            |decision: &Decision| vec![1.0 / f64::from(decision.n_values()); usize::from(decision.n_values())];
        Self(decisions.iter().map(uniform).collect())
    }

    /// Weights of one decision's values; they sum to 1.
    pub fn of(&self, decision: usize) -> &[f64] {
        &self.0[decision]
    }

    /// Draws every decision on its own.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Point {
        self.0.iter().map(|weights| draw_value(weights, rng)).collect::<Vec<u8>>().into()
    }

    /// `ln Π w` of the point's values.
    pub fn log_weight(&self, point: &Point) -> f64 {
        self.0.iter().zip(point.values()).map(|(weights, &value)| weights[usize::from(value)].ln()).sum()
    }

    /// One of `points`, each with a chance proportional to its `Π w`; `None` of none.
    pub fn choose<'a>(&self, points: &'a [Point], rng: &mut ChaCha8Rng) -> Option<&'a Point> {
        let logs: Vec<f64> = points.iter().map(|point| self.log_weight(point)).collect();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let chances: Vec<f64> = logs.iter().map(|log| (log - most).exp()).collect();
        let mut left = rng.random::<f64>() * chances.iter().sum::<f64>();
        let chosen = chances.iter().position(|chance| {
            left -= chance;
            left < 0.0
        });
        points.get(chosen.unwrap_or(points.len().saturating_sub(1)))
    }

    /// Moves every decision's weights towards what the weighted points chose: `w ← (1 − η·U)·w + η·U·ĝ`, clipped to at least
    /// `epsilon` of a uniform weight.
    ///
    /// Each lesson is one member of a class with its share `u`; the shares sum to at most 1, and teaching all members of a class with equal parts
    /// of its share makes the rule blind to which of them was evaluated. The share `roles` of what a decision is taught is the mean over all
    /// decisions between as many values.
    /// # Source
    /// ALGORITHMS 1.5, propagation \[ours\], for categorical decisions: the cross-entropy method. Every decision is live here.
    pub fn propagate<'a>(
        &mut self,
        lessons: impl IntoIterator<Item = (&'a Point, f64)>,
        eta: f64,
        epsilon: f64,
        roles: f64,
    ) {
        let mut total = 0.0;
        let mut chosen: Vec<Vec<f64>> = self.0.iter().map(|weights| vec![0.0; weights.len()]).collect();
        for (point, share) in lessons {
            total += share;
            for (sums, &value) in chosen.iter_mut().zip(point.values()) {
                sums[usize::from(value)] += share;
            }
        }
        share_by_roles(&mut chosen, roles);
        for (weights, sums) in self.0.iter_mut().zip(&chosen) {
            let floor = epsilon / weights.len() as f64;
            for (weight, sum) in weights.iter_mut().zip(sums) {
                *weight = ((1.0 - eta * total) * *weight + eta * sum).max(floor);
            }
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    }
}

/// Mixes what each decision was taught with the mean of all decisions between as many values: they choose from the same menu, and so have
/// the same roles.
fn share_by_roles(chosen: &mut [Vec<f64>], roles: f64) {
    let mut means: BTreeMap<usize, (f64, Vec<f64>)> = BTreeMap::new();
    for sums in &*chosen {
        let (n, mean) = means.entry(sums.len()).or_insert_with(|| (0.0, vec![0.0; sums.len()]));
        *n += 1.0;
        mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum);
    }
    for sums in chosen.iter_mut() {
        let (n, mean) = &means[&sums.len()];
        sums.iter_mut().zip(mean).for_each(|(sum, mean)| *sum = (1.0 - roles) * *sum + roles * mean / n);
    }
}

fn draw_value(weights: &[f64], rng: &mut ChaCha8Rng) -> u8 {
    let mut left: f64 = rng.random();
    for (value, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return value as u8;
        }
    }
    (weights.len() - 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn one_round_by_hand() {
        let mut weights = DecisionWeights::uniform(&[Decision::new("a", 2), Decision::new("b", 4)]);
        let lessons = [(Point::from([0, 3]), 0.75), (Point::from([1, 3]), 0.25)];
        weights.propagate(lessons.iter().map(|(point, share)| (point, *share)), 0.2, 0.02, 0.0);
        // a: 0.8·0.5 + 0.2·(0.75, 0.25); b: 0.8·0.25 + 0.2·(0, 0, 0, 1).
        for (got, expected) in weights.of(0).iter().chain(weights.of(1)).zip([0.55, 0.45, 0.2, 0.2, 0.2, 0.4]) {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
        assert!((weights.log_weight(&Point::from([0, 3])) - (0.55_f64 * 0.4).ln()).abs() < 1e-12);
    }

    #[test]
    fn weights_stay_distributions_with_a_floor() {
        let mut weights = DecisionWeights::uniform(&[Decision::new("a", 5)]);
        let best = Point::from([2]);
        for _ in 0..200 {
            weights.propagate([(&best, 1.0)], 0.2, 0.02, 0.0);
        }
        assert!((weights.of(0).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(weights.of(0).iter().all(|&w| w >= 0.0039), "{weights:?}");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        // P(fewer than 900 of 1000 at p = 0.984) < 1e-9.
        assert!((0..1000).filter(|_| weights.draw(&mut rng) == best).count() > 900);
    }
}
