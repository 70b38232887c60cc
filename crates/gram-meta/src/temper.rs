//! Tempering: scores of a round become weights of its children.

use crate::MetaConfig;

/// Weights of a round's children.
#[derive(Clone, Debug, PartialEq)]
pub struct Tempered {
    /// Inverse temperature; of scores in `0..=1`.
    pub beta: f64,
    /// `u_k ∝ exp(β·S_k)`, summing to 1; 0 for children without a score; all 0 if no child has one.
    pub weights: Vec<f64>,
    /// Effective sample size `1/Σ u_k²`; 0 if no child has a score.
    pub ess: f64,
}

/// No round's β is below the last one's by more than this factor.
const MAX_FALL: f64 = 2.0;

/// Weights `u = softmax(β·S)` with the largest β whose effective sample size is at least half the number of scored children.
///
/// β is at most `config.beta_cap` and at least half of `previous_beta`, even if the effective sample size is then smaller. `None` and scores
/// that are not finite (diverged children) get weight 0; if no child has a score, β stays as it was.
///
/// # Source
/// ALGORITHMS 1.5, tempering \[ours\]; counting scored children instead of all is ours too, for otherwise a round in which most children
/// diverge has no β at all.
/// # Complexity
/// At most 100 bisection steps of one exponential per child.
pub fn temper(scores: &[Option<f64>], previous_beta: Option<f64>, config: &MetaConfig) -> Tempered {
    let finite: Vec<Option<f64>> = scores.iter().map(|score| score.filter(|s| s.is_finite())).collect();
    let n_scored = finite.iter().flatten().count();
    let floor = previous_beta.unwrap_or(0.0) / MAX_FALL;
    if n_scored == 0 {
        let beta = previous_beta.unwrap_or(0.0).min(config.beta_cap);
        return Tempered { beta, weights: vec![0.0; scores.len()], ess: 0.0 };
    }
    let target = n_scored as f64 / 2.0;
    let beta = largest_beta(&finite, target, config.beta_cap).max(floor).min(config.beta_cap);
    let weights = softmax(&finite, beta);
    let ess = effective_sample_size(&weights);
    Tempered { beta, weights, ess }
}

/// The effective sample size falls as β grows (its logarithm has derivative 2·(E_β S − E_2β S) ≤ 0), so bisection finds the edge.
fn largest_beta(scores: &[Option<f64>], target: f64, cap: f64) -> f64 {
    let keeps = |beta| effective_sample_size(&softmax(scores, beta)) >= target;
    if keeps(cap) {
        return cap;
    }
    let (mut low, mut high) = (0.0, cap);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if keeps(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// `exp(β·(S − max S))` over its sum, 0 where there is no score.
fn softmax(scores: &[Option<f64>], beta: f64) -> Vec<f64> {
    let most = scores.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = scores.iter().map(|score| score.map_or(0.0, |s| (beta * (s - most)).exp())).collect();
    let total: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / total).collect()
}

fn effective_sample_size(weights: &[f64]) -> f64 {
    1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(scores: &[f64], previous: Option<f64>) -> Tempered {
        temper(&scores.iter().map(|&s| Some(s)).collect::<Vec<_>>(), previous, &MetaConfig::default())
    }

    #[test]
    fn half_of_the_children_count() {
        let scores: Vec<f64> = (0..16).map(|k| 0.5 + 0.01 * f64::from(k)).collect();
        let tempered = scored(&scores, None);
        assert!((tempered.ess - 8.0).abs() < 1e-6 && tempered.beta < 200.0, "{tempered:?}");
        assert!((tempered.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(tempered.weights.is_sorted());
    }

    #[test]
    fn equal_scores_weigh_equally_at_the_cap() {
        let tempered = scored(&[0.7; 5], None);
        assert_eq!((tempered.beta, tempered.weights), (200.0, vec![0.2; 5]));
        assert_eq!(scored(&[0.3], None).weights, [1.0]);
    }

    #[test]
    fn beta_falls_by_half_at_most() {
        // One outlier: any β that helps has an effective sample size near 1.
        let mut scores = vec![0.1; 15];
        scores.push(0.9);
        let free = scored(&scores, None);
        let held = scored(&scores, Some(100.0));
        assert!(free.beta < 50.0 && held.beta == 50.0 && held.ess < 8.0, "{free:?} {held:?}");
    }

    #[test]
    fn diverged_children_weigh_nothing() {
        let config = MetaConfig::default();
        let tempered = temper(&[None, Some(0.5), Some(f64::NEG_INFINITY), Some(f64::NAN), Some(0.5)], None, &config);
        assert_eq!(tempered.weights, [0.0, 0.5, 0.0, 0.0, 0.5]);
        let none = temper(&[None, None], Some(40.0), &config);
        assert_eq!(none, Tempered { beta: 40.0, weights: vec![0.0; 2], ess: 0.0 });
        assert_eq!(temper(&[], None, &config).weights, Vec::<f64>::new());
    }

    #[test]
    fn huge_differences_do_not_overflow() {
        let tempered = scored(&[-1e300, 1e300, 1e300], None);
        assert!(tempered.weights.iter().all(|weight| weight.is_finite()));
        assert_eq!(tempered.weights, [0.0, 0.5, 0.5]);
    }
}
