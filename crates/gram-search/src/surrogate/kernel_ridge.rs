//! Kernel ridge regression as a Gaussian process.

use super::cholesky::Cholesky;
use super::features::Similarity;
use super::targets::normal_scores;
use super::{Features, Prediction, Surrogate, SurrogateError};

/// Settings of [`KernelRidge`]. Every refit takes the pair of share and noise under which the scores are likeliest.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelRidgeConfig {
    /// Shares of the decisions in the similarity, `0..=1`; the rest is what is computed.
    pub choice_shares: Vec<f64>,
    /// Variances of the noise, relative to the kernel's.
    pub noises: Vec<f64>,
}

impl Default for KernelRidgeConfig {
    /// Our choice, by evidence on NAS-Bench-Macro and enas-dag.
    fn default() -> Self {
        Self { choice_shares: vec![1.0, 0.75, 0.5, 0.25], noises: vec![0.03, 0.1] }
    }
}

/// A Gaussian process on ranks of scores with a kernel of degree two: `k = s/2 + s²/2` of a similarity `s` of [`Features`].
///
/// `s` gives every choice and every part a weight of its own, `s²` every pair of them. Exact: a Cholesky factor of all examples.
/// # Complexity
/// `O(settings · n³)` for a fit to `n` examples, `O(n²)` for a prediction; made for a few hundred examples.
#[derive(Clone, Debug)]
pub struct KernelRidge {
    config: KernelRidgeConfig,
    examples: Vec<Features>,
    /// Of each example to those before it.
    similarities: Vec<Vec<Similarity>>,
    fitted: Option<Fit>,
    /// Points that are believed, after the examples.
    believed: Vec<Features>,
}

#[derive(Clone, Debug)]
struct Fit {
    share: f64,
    noise: f64,
    n_examples: usize,
    factor: Cholesky,
    /// `L⁻¹·z`, with zeros for what is believed.
    whitened: Vec<f64>,
    /// Variance of the kernel's scale.
    variance: f64,
    log_likelihood: f64,
}

impl KernelRidge {
    /// A surrogate without examples.
    pub fn new(config: KernelRidgeConfig) -> Self {
        Self { config, examples: Vec::new(), similarities: Vec::new(), fitted: None, believed: Vec::new() }
    }

    /// Share and noise of the last fit.
    pub fn setting(&self) -> Option<(f64, f64)> {
        self.fitted.as_ref().map(|fit| (fit.share, fit.noise))
    }

    fn fit_with(&self, share: f64, noise: f64, targets: &[f64]) -> Option<Fit> {
        let mut factor = Cholesky::default();
        for similarities in &self.similarities {
            let row: Vec<f64> = similarities.iter().map(|&similarity| kernel(share, similarity)).collect();
            if !factor.push(&row, 1.0 + noise) {
                return None;
            }
        }
        let whitened = factor.solve(targets);
        let n = targets.len() as f64;
        // Equal scores leave no variance to explain.
        let variance = (whitened.iter().map(|x| x * x).sum::<f64>() / n).max(1e-9);
        let log_likelihood = -0.5 * n * variance.ln() - factor.half_log_determinant();
        Some(Fit { share, noise, n_examples: targets.len(), factor, whitened, variance, log_likelihood })
    }

    fn covariances(&self, fit: &Fit, features: &Features) -> Vec<f64> {
        let known = self.examples[..fit.n_examples].iter().chain(&self.believed);
        known.map(|example| kernel(fit.share, example.similarity(features))).collect()
    }
}

/// 1 for equal features.
fn kernel(share: f64, similarity: Similarity) -> f64 {
    let s = share * similarity.choices + (1.0 - share) * similarity.histogram;
    0.5 * s + 0.5 * s * s
}

impl Surrogate for KernelRidge {
    fn observe(&mut self, features: Features) {
        self.similarities.push(self.examples.iter().map(|example| example.similarity(&features)).collect());
        self.examples.push(features);
    }

    fn fit(&mut self, scores: &[f64]) -> Result<(), SurrogateError> {
        let examples = self.examples.len();
        if scores.len() != examples {
            return Err(SurrogateError::Count { examples, scores: scores.len() });
        }
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            return Err(SurrogateError::Score { index, score: scores[index] });
        }
        let targets = normal_scores(scores);
        let mut best: Option<Fit> = None;
        for &share in &self.config.choice_shares {
            for &noise in &self.config.noises {
                if let Some(fit) = self.fit_with(share, noise, &targets)
                    && best.as_ref().is_none_or(|best| fit.log_likelihood > best.log_likelihood)
                {
                    best = Some(fit);
                }
            }
        }
        self.fitted = Some(best.ok_or(SurrogateError::NotPositiveDefinite { examples })?);
        self.believed.clear();
        Ok(())
    }

    fn predict(&self, features: &Features) -> Prediction {
        let Some(fit) = &self.fitted else { return Prediction { mean: 0.0, sd: 1.0 } };
        let white = fit.factor.solve(&self.covariances(fit, features));
        let mean = white.iter().zip(&fit.whitened).map(|(a, b)| a * b).sum();
        let explained: f64 = white.iter().map(|x| x * x).sum();
        Prediction { mean, sd: (fit.variance * (1.0 - explained).max(0.0)).sqrt() }
    }

    fn believe(&mut self, features: &Features) {
        let Some(fit) = &self.fitted else { return };
        let row = self.covariances(fit, features);
        if let Some(fit) = &mut self.fitted
            && fit.factor.push(&row, 1.0 + fit.noise)
        {
            fit.whitened.push(0.0);
            self.believed.push(features.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ClassKey, Decision, Domain, Histogram, Point};

    struct Bits(Vec<Decision>);

    impl Domain for Bits {
        fn decisions(&self) -> &[Decision] {
            &self.0
        }
        fn is_feasible(&self, _point: &Point) -> bool {
            true
        }
        fn class_of(&self, point: &Point) -> ClassKey {
            ClassKey::of_bytes(point.values())
        }
        fn histogram(&self, point: &Point) -> Histogram {
            point.values().iter().map(|&bit| (u64::from(bit), 1.0)).collect()
        }
    }

    fn features(n: u8) -> Features {
        let bits = Bits((0..6).map(|i| Decision::new(format!("{i}"), 2)).collect());
        Features::of(&Point::from((0..6).map(|i| n >> i & 1).collect::<Vec<u8>>()), &bits)
    }

    /// 40 of 64 points scored by their number, whose bits weigh 1 to 32.
    fn fitted() -> KernelRidge {
        let mut ridge = KernelRidge::new(KernelRidgeConfig::default());
        let known: Vec<u8> = (0..40).map(|i| i * 29 % 64).collect();
        known.iter().for_each(|&n| ridge.observe(features(n)));
        ridge.fit(&known.iter().map(|&n| f64::from(n)).collect::<Vec<_>>()).unwrap();
        ridge
    }

    #[test]
    fn additive_scores_are_ordered_where_nothing_was_seen() {
        let ridge = fitted();
        let unknown: Vec<u8> = (40..64).map(|i| (i as u16 * 29 % 64) as u8).collect();
        let pairs = unknown.iter().flat_map(|&a| unknown.iter().map(move |&b| (a, b))).filter(|(a, b)| a < b);
        let (mut right, mut all) = (0, 0);
        for (a, b) in pairs {
            all += 1;
            right += u32::from(ridge.predict(&features(a)).mean < ridge.predict(&features(b)).mean);
        }
        assert!(f64::from(right) > 0.95 * f64::from(all), "{right} of {all} pairs");
    }

    #[test]
    fn beliefs_keep_means_and_shrink_uncertainty() {
        let mut ridge = fitted();
        let (near, same) = (features(44), features(12));
        let (before, same_before) = (ridge.predict(&near), ridge.predict(&same));
        ridge.believe(&near);
        let (after, same_after) = (ridge.predict(&near), ridge.predict(&same));
        assert!((before.mean - after.mean).abs() < 1e-9 && after.sd < 0.8 * before.sd, "{before:?} {after:?}");
        assert!((same_before.mean - same_after.mean).abs() < 1e-9 && same_after.sd <= same_before.sd);
    }

    #[test]
    fn units_of_scores_do_not_matter() {
        let scores = [0.3, 0.9, 0.5];
        let fit = |scale: f64| {
            let mut ridge = KernelRidge::new(KernelRidgeConfig::default());
            [3, 12, 48].iter().for_each(|&n| ridge.observe(features(n)));
            ridge.fit(&scores.map(|s| s * scale)).unwrap();
            ridge.predict(&features(15))
        };
        assert_eq!(fit(1.0), fit(100.0));
    }

    #[test]
    fn bad_scores_are_refused() {
        let mut ridge = KernelRidge::new(KernelRidgeConfig::default());
        assert_eq!(ridge.predict(&features(1)), Prediction { mean: 0.0, sd: 1.0 });
        ridge.observe(features(1));
        assert_eq!(ridge.fit(&[]), Err(SurrogateError::Count { examples: 1, scores: 0 }));
        assert!(matches!(ridge.fit(&[f64::NAN]), Err(SurrogateError::Score { index: 0, .. })));
        assert_eq!(ridge.fit(&[0.5]), Ok(()));
    }
}
