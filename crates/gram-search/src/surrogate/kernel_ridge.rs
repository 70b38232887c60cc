//! Kernel ridge regression as a Gaussian process.

use serde::{Deserialize, Serialize};

use super::cholesky::{Cholesky, dot};
use super::features::Postings;
use super::targets::normal_scores;
use super::{Features, Prediction, Surrogate, SurrogateError};

/// Settings of [`KernelRidge`]. Every refit takes the pair of share and noise under which the scores are likeliest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KernelRidgeConfig {
    /// Shares of the decisions in the similarity, `0..=1`; the rest is what is computed.
    pub choice_shares: Vec<f64>,
    /// Variances of the noise, relative to the kernel's.
    pub noises: Vec<f64>,
}

impl KernelRidgeConfig {
    /// Whether there is a setting, and all are in range.
    pub(crate) fn is_usable(&self) -> bool {
        let shares = self.choice_shares.iter().all(|share| (0.0..=1.0).contains(share));
        let noises = self.noises.iter().all(|&noise| noise > 0.0 && noise.is_finite());
        shares && noises && !self.choice_shares.is_empty() && !self.noises.is_empty()
    }
}

impl Default for KernelRidgeConfig {
    /// Our choice, by evidence on NAS-Bench-Macro and enas-dag.
    fn default() -> Self {
        Self { choice_shares: vec![1.0, 0.75, 0.5, 0.25], noises: vec![0.03, 0.1] }
    }
}

/// A Gaussian process on ranks of scores with a kernel of degree two: `k = s/2 + s²/2` of a similarity `s` of [`Features`].
///
/// `s` gives every choice and every part a weight of its own, `s²` every pair of them. Exact: every setting has a Cholesky factor of all
/// examples, which grows by a row with each.
/// # Complexity
/// `O(settings · n²)` for an example and for a fit to `n` of them, `O(n²)` for a prediction; made for a few hundred examples.
#[derive(Clone, Debug)]
pub struct KernelRidge {
    settings: Vec<Setting>,
    choices: Postings,
    computes: Postings,
    examples: Vec<Features>,
    /// Mean square of what the examples of the first fit compute; products are divided by it.
    scale: f64,
    /// Examples in the factors.
    n_factored: usize,
    fitted: Option<Fit>,
}

/// A share and a noise, with the factor of the examples' kernel matrix; `None` once that is not positive definite.
#[derive(Clone, Debug)]
struct Setting {
    share: f64,
    noise: f64,
    factor: Option<Cholesky>,
}

#[derive(Clone, Debug)]
struct Fit {
    setting: usize,
    /// `L⁻¹·z`.
    whitened: Vec<f64>,
    /// Variance of the kernel's scale.
    variance: f64,
    log_likelihood: f64,
    /// Points that are believed: what they have in common with the examples, whitened, and a factor of what that leaves.
    believed: Vec<(Features, Vec<f64>)>,
    belief: Cholesky,
}

impl KernelRidge {
    /// A surrogate without examples.
    pub fn new(config: KernelRidgeConfig) -> Self {
        let KernelRidgeConfig { choice_shares, noises } = config;
        let settings = choice_shares.iter().flat_map(|&share| {
            noises.iter().map(move |&noise| Setting { share, noise, factor: Some(Cholesky::default()) })
        });
        let (choices, computes) = (Postings::default(), Postings::default());
        Self {
            settings: settings.collect(),
            choices,
            computes,
            examples: Vec::new(),
            scale: 1.0,
            n_factored: 0,
            fitted: None,
        }
    }

    /// Share and noise of the last fit.
    pub fn setting(&self) -> Option<(f64, f64)> {
        self.fitted.as_ref().map(|fit| (self.settings[fit.setting].share, self.settings[fit.setting].noise))
    }

    /// Adds the examples since the last fit to the factors.
    fn extend_factors(&mut self) {
        if self.n_factored == 0 && !self.examples.is_empty() {
            let squares: f64 = self.examples.iter().map(|e| e.computes.dot(&e.computes)).sum();
            self.scale = (squares / self.examples.len() as f64).max(f64::MIN_POSITIVE);
        }
        for features in &self.examples[self.n_factored..] {
            let (choices, computes) = (self.choices.dots(&features.choices), self.computes.dots(&features.computes));
            for setting in &mut self.settings {
                let both = choices.iter().zip(&computes).take(self.n_factored);
                let row: Vec<f64> = both.map(|(&a, &b)| kernel(setting.share, a, b / self.scale)).collect();
                let own = kernel(setting.share, 1.0, features.computes.dot(&features.computes) / self.scale);
                if setting.factor.as_mut().is_some_and(|factor| !factor.push(&row, own + setting.noise)) {
                    setting.factor = None;
                }
            }
            self.n_factored += 1;
        }
    }

    /// The prior variance of a point.
    fn own(&self, share: f64, features: &Features) -> f64 {
        kernel(share, 1.0, features.computes.dot(&features.computes) / self.scale)
    }

    /// Covariances with all examples, whitened: `L⁻¹·k`.
    fn whiten(&self, setting: &Setting, features: &Features, n_examples: usize) -> Vec<f64> {
        let (choices, computes) = (self.choices.dots(&features.choices), self.computes.dots(&features.computes));
        let both = choices.into_iter().zip(computes).take(n_examples);
        let row: Vec<f64> =
            both.map(|(choices, computes)| kernel(setting.share, choices, computes / self.scale)).collect();
        setting.factor.as_ref().map_or_else(Vec::new, |factor| factor.solve(&row))
    }

    /// What the examples and the beliefs do not explain of a point's variance, and the mean.
    fn posterior(&self, fit: &Fit, features: &Features) -> (f64, f64) {
        let setting = &self.settings[fit.setting];
        let white = self.whiten(setting, features, fit.whitened.len());
        let mean = dot(&white, &fit.whitened);
        let mut rest = self.own(setting.share, features) - dot(&white, &white);
        if !fit.believed.is_empty() {
            let common = fit.belief.solve(&self.belief_row(fit, features, &white));
            rest -= dot(&common, &common);
        }
        (mean, rest.max(0.0))
    }

    /// Covariances with the believed points, given the examples.
    fn belief_row(&self, fit: &Fit, features: &Features, white: &[f64]) -> Vec<f64> {
        let share = self.settings[fit.setting].share;
        let common = |(other, theirs): &(Features, Vec<f64>)| {
            let (choices, computes) = (other.choices.dot(&features.choices), other.computes.dot(&features.computes));
            kernel(share, choices, computes / self.scale) - dot(theirs, white)
        };
        fit.believed.iter().map(common).collect()
    }
}

fn kernel(share: f64, choices: f64, computes: f64) -> f64 {
    let s = share * choices + (1.0 - share) * computes;
    0.5 * s + 0.5 * s * s
}

impl Surrogate for KernelRidge {
    fn observe(&mut self, features: Features) {
        self.choices.push(&features.choices);
        self.computes.push(&features.computes);
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
        self.extend_factors();
        let targets = normal_scores(scores);
        let mut best: Option<Fit> = None;
        for (index, setting) in self.settings.iter().enumerate() {
            if let Some(factor) = &setting.factor {
                let fit = Fit::new(index, factor, &targets);
                if best.as_ref().is_none_or(|best| fit.log_likelihood > best.log_likelihood) {
                    best = Some(fit);
                }
            }
        }
        self.fitted = Some(best.ok_or(SurrogateError::NotPositiveDefinite { examples })?);
        Ok(())
    }

    fn predict(&self, features: &Features) -> Prediction {
        let Some(fit) = &self.fitted else { return Prediction { mean: 0.0, sd: 1.0 } };
        let (mean, rest) = self.posterior(fit, features);
        Prediction { mean, sd: (fit.variance * rest).sqrt() }
    }

    fn believe(&mut self, features: &Features) {
        let Some(mut fit) = self.fitted.take() else { return };
        let setting = &self.settings[fit.setting];
        let white = self.whiten(setting, features, fit.whitened.len());
        let row = self.belief_row(&fit, features, &white);
        let own = self.own(setting.share, features);
        if fit.belief.push(&row, own + setting.noise - dot(&white, &white)) {
            fit.believed.push((features.clone(), white));
        }
        self.fitted = Some(fit);
    }
}

impl Fit {
    fn new(setting: usize, factor: &Cholesky, targets: &[f64]) -> Self {
        let whitened = factor.solve(targets);
        let n = targets.len().max(1) as f64;
        // Equal scores leave no variance to explain.
        let variance = (dot(&whitened, &whitened) / n).max(1e-9);
        let log_likelihood = -0.5 * n * variance.ln() - factor.half_log_determinant();
        Self { setting, whitened, variance, log_likelihood, believed: Vec::new(), belief: Cholesky::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::switches;
    use super::*;

    fn features(n: u8) -> Features {
        switches(n.into(), 6)
    }

    /// 40 of 64 points scored by their number, whose bits weigh 1 to 32.
    fn fitted() -> KernelRidge {
        let mut ridge = KernelRidge::new(KernelRidgeConfig::default());
        let known: Vec<u8> = (0..40u16).map(|i| (i * 29 % 64) as u8).collect();
        known.iter().for_each(|&n| ridge.observe(features(n)));
        ridge.fit(&known.iter().map(|&n| f64::from(n)).collect::<Vec<_>>()).unwrap();
        ridge
    }

    #[test]
    fn additive_scores_are_ordered_where_nothing_was_seen() {
        let ridge = fitted();
        let unknown: Vec<u8> = (40..64u16).map(|i| (i * 29 % 64) as u8).collect();
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
        assert!((before.mean - after.mean).abs() < 1e-9 && after.sd < 0.95 * before.sd, "{before:?} {after:?}");
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
