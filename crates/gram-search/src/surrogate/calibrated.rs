//! Guesses in the unit of the scores, with an interval for which held-out examples vouch.

use serde::Serialize;

use super::targets::{normal_quantile, normal_scores};
use super::{Features, KernelRidge, KernelRidgeConfig, Prediction, Surrogate, SurrogateError};
use crate::kendall_tau;

/// Fewest examples: with fewer, nothing can be held out that tells how good the guesses are.
pub const MIN_EXAMPLES: usize = 4;
/// Share of held-out scores that the interval is made to hold.
const COVERAGE: f64 = 0.9;
/// Examples are held out in so many turns.
const FOLDS: usize = 10;
/// Points of a normal distribution over which a guess is averaged.
const POINTS: usize = 16;
/// Least variance of a score that is measured again, in units of the variance of all scores.
const LEAST_NOISE: f64 = 0.01;

/// A score that is expected of something that was not evaluated, in the unit of the scores: for children, validation top-1 in `0..=1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// Expectation.
    pub mean: f64,
    /// Standard deviation of one evaluation around it, as held-out examples have it.
    pub sd: f64,
    /// Lower end of the 90 % interval of one evaluation.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// How good guesses of examples were that the fit had not seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CrossValidation {
    /// Examples, each held out once.
    pub n_examples: usize,
    /// Kendall's τ of guesses and scores; 0 if all guesses or all scores are equal.
    pub kendall_tau: f64,
    /// Mean distance between guess and score.
    pub mean_absolute_error: f64,
    /// Share of scores inside of their 90 % interval. The interval was made wide enough for these examples, so it is no test of it.
    pub coverage: f64,
}

/// A [`KernelRidge`] that answers in the unit of the scores, which are between 0 and 1.
///
/// The surrogate learns ranks. Its guess, a normal distribution on the scale of ranks, is taken back to scores along the line through the
/// examples, and widened until nine in ten of the scores that were held out, a tenth at a time, lie inside of their intervals.
///
/// # Source
/// Cross-conformal intervals: Vovk, Cross-conformal predictors, [arXiv:1208.0806](https://arxiv.org/abs/1208.0806), with residuals in units
/// of the guess's standard deviation; the way back from ranks is \[ours\].
#[derive(Clone, Debug)]
pub struct Calibrated {
    fold: Fold,
    /// Variance of an evaluation around what the surrogate believes, on the scale of ranks.
    noise: f64,
    /// Half the interval, in raw standard deviations.
    width: f64,
    /// What raw standard deviations are to be multiplied by.
    inflation: f64,
    check: CrossValidation,
}

/// A surrogate and the scale of the scores that it was fitted to.
#[derive(Clone, Debug)]
struct Fold {
    ridge: KernelRidge,
    scale: RankScale,
}

/// A held-out example, and what was guessed of it.
struct HeldOut {
    fold: usize,
    guess: Prediction,
    score: f64,
}

impl CrossValidation {
    /// Kendall's τ that guesses without any sense stay within nineteen times in twenty.
    ///
    /// # Source
    /// The variance of τ for independent orders, 2(2n + 5) / 9n(n − 1): Kendall, A New Measure of Rank Correlation, Biometrika 1938.
    pub fn tau_of_chance(&self) -> f64 {
        let n = self.n_examples as f64;
        1.96 * (2.0 * (2.0 * n + 5.0) / (9.0 * n * (n - 1.0))).sqrt()
    }
}

impl Calibrated {
    /// Fits to examples with scores between 0 and 1.
    ///
    /// # Errors
    /// [`SurrogateError`]; [`SurrogateError::TooFew`] for fewer than [`MIN_EXAMPLES`].
    /// # Complexity
    /// Eleven fits of the surrogate.
    pub fn fit(config: &KernelRidgeConfig, examples: &[(Features, f64)]) -> Result<Self, SurrogateError> {
        if examples.len() < MIN_EXAMPLES {
            return Err(SurrogateError::TooFew { examples: examples.len(), least: MIN_EXAMPLES });
        }
        let n_folds = FOLDS.min(examples.len());
        let (mut folds, mut held_out) = (Vec::new(), Vec::new());
        for fold in 0..n_folds {
            let others = examples.iter().enumerate().filter(|(index, _)| index % n_folds != fold);
            folds.push(Fold::fit(config, others.map(|(_, example)| example))?);
            for (features, score) in examples.iter().skip(fold).step_by(n_folds) {
                held_out.push(HeldOut { fold, guess: folds[fold].ridge.predict(features), score: *score });
            }
        }
        let noise = noise(&held_out, &folds);
        let guesses: Vec<(f64, f64)> =
            held_out.iter().map(|held| folds[held.fold].scale.moments(held.guess, noise)).collect();
        let errors: Vec<f64> =
            held_out.iter().zip(&guesses).map(|(held, guess)| (held.score - guess.0).abs()).collect();
        let ratios: Vec<f64> = errors.iter().zip(&guesses).map(|(error, guess)| error / guess.1).collect();
        let width = conformal_quantile(&ratios, COVERAGE);
        let n = examples.len() as f64;
        let check = CrossValidation {
            n_examples: examples.len(),
            kendall_tau: kendall_tau(
                &guesses.iter().map(|guess| guess.0).collect::<Vec<_>>(),
                &held_out.iter().map(|held| held.score).collect::<Vec<_>>(),
            )
            .unwrap_or(0.0),
            mean_absolute_error: errors.iter().sum::<f64>() / n,
            coverage: ratios.iter().filter(|&&ratio| ratio <= width).count() as f64 / n,
        };
        let inflation = (ratios.iter().map(|ratio| ratio * ratio).sum::<f64>() / n).sqrt();
        Ok(Self { fold: Fold::fit(config, examples)?, noise, width, inflation, check })
    }

    /// What an evaluation is expected to give.
    pub fn predict(&self, features: &Features) -> Expected {
        let (mean, sd) = self.fold.scale.moments(self.fold.ridge.predict(features), self.noise);
        let half = self.width * sd;
        Expected { mean, sd: self.inflation * sd, low: (mean - half).max(0.0), high: (mean + half).min(1.0) }
    }

    /// How good guesses are.
    pub fn check(&self) -> &CrossValidation {
        &self.check
    }
}

impl Fold {
    fn fit<'a>(
        config: &KernelRidgeConfig,
        examples: impl IntoIterator<Item = &'a (Features, f64)>,
    ) -> Result<Self, SurrogateError> {
        let mut ridge = KernelRidge::new(config.clone());
        let mut scores = Vec::new();
        for (features, score) in examples {
            ridge.observe(features.clone());
            scores.push(*score);
        }
        ridge.fit(&scores)?;
        Ok(Self { ridge, scale: RankScale::of(&scores) })
    }
}

/// Mean square of what held-out scores are off by beyond the guess's own variance, on the scale of ranks.
fn noise(held_out: &[HeldOut], folds: &[Fold]) -> f64 {
    let beyond = |held: &HeldOut| {
        let error = folds[held.fold].scale.position(held.score) - held.guess.mean;
        error * error - held.guess.sd * held.guess.sd
    };
    (held_out.iter().map(beyond).sum::<f64>() / held_out.len() as f64).max(LEAST_NOISE)
}

/// The monotone line between ranks and scores: straight between neighbouring examples, and on from the outer quarters.
#[derive(Clone, Debug)]
struct RankScale {
    /// Position on the scale of ranks and score, both ascending; one at least.
    knots: Vec<(f64, f64)>,
}

impl RankScale {
    fn of(scores: &[f64]) -> Self {
        let mut knots: Vec<(f64, f64)> = normal_scores(scores).into_iter().zip(scores.iter().copied()).collect();
        knots.sort_by(|a, b| a.1.total_cmp(&b.1));
        knots.dedup_by(|a, b| a.1 == b.1);
        Self { knots }
    }

    /// Mean and standard deviation of the score for a guess on the scale of ranks; the latter above 0.
    fn moments(&self, guess: Prediction, noise: f64) -> (f64, f64) {
        let sd = (guess.sd * guess.sd + noise).sqrt();
        let point = |index: usize| self.score(guess.mean + sd * normal_quantile((index as f64 + 0.5) / POINTS as f64));
        let points: Vec<f64> = (0..POINTS).map(point).collect();
        let mean = points.iter().sum::<f64>() / POINTS as f64;
        let variance = points.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / POINTS as f64;
        (mean, variance.sqrt().max(1e-6))
    }

    /// The score at a position, between 0 and 1.
    fn score(&self, position: f64) -> f64 {
        let (a, b) = self.segment(|knot| knot.0 < position);
        let slope = if b.0 > a.0 { (b.1 - a.1) / (b.0 - a.0) } else { 0.0 };
        let at = self.anchor(position, |knot| knot.0, a);
        (at.1 + slope * (position - at.0)).clamp(0.0, 1.0)
    }

    /// The position of a score.
    fn position(&self, score: f64) -> f64 {
        let (a, b) = self.segment(|knot| knot.1 < score);
        let slope = if b.1 > a.1 { (b.0 - a.0) / (b.1 - a.1) } else { 0.0 };
        let at = self.anchor(score, |knot| knot.1, a);
        at.0 + slope * (score - at.1)
    }

    /// Two knots that decide the slope where `is_before` ends: neighbours, or at the ends those of the outer quarter.
    fn segment(&self, is_before: impl Fn(&(f64, f64)) -> bool) -> ((f64, f64), (f64, f64)) {
        let last = self.knots.len() - 1;
        let quarter = (last / 4).max(1).min(last);
        match self.knots.partition_point(is_before) {
            0 => (self.knots[0], self.knots[quarter]),
            n if n > last => (self.knots[last - quarter], self.knots[last]),
            n => (self.knots[n - 1], self.knots[n]),
        }
    }

    /// The knot from which the line goes on: the last one beyond the upper end, else the segment's first.
    fn anchor(&self, at: f64, of: impl Fn(&(f64, f64)) -> f64, first: (f64, f64)) -> (f64, f64) {
        let last = self.knots[self.knots.len() - 1];
        if at > of(&last) { last } else { first }
    }
}

/// The smallest ratio that so large a share of `n + 1` exchangeable ones does not exceed; the largest where `n` is too small to tell.
fn conformal_quantile(ratios: &[f64], share: f64) -> f64 {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() + 1) as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::super::switches;
    use super::*;

    fn features(n: u16) -> Features {
        switches(n, 8)
    }

    /// Between 0.6 and 0.95: every bit adds its part, and noise of a fixed pattern with a standard deviation of 0.01.
    fn score(n: u16) -> f64 {
        let parts = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.05];
        let sum: f64 = parts.iter().enumerate().map(|(bit, part)| f64::from(n >> bit & 1) * part).sum();
        0.6 + sum + 0.014 * (f64::from(n) * 12.9898).sin()
    }

    fn numbers(n: u16, from: u16) -> Vec<u16> {
        (from..from + n).map(|i| i * 77 % 256).collect()
    }

    fn fitted(n: u16) -> Calibrated {
        let examples: Vec<_> = numbers(n, 0).into_iter().map(|n| (features(n), score(n))).collect();
        Calibrated::fit(&KernelRidgeConfig::default(), &examples).unwrap()
    }

    #[test]
    fn guesses_are_scores_with_honest_intervals() {
        let fitted = fitted(64);
        let unseen = numbers(192, 64);
        let guesses: Vec<Expected> = unseen.iter().map(|&n| fitted.predict(&features(n))).collect();
        let scores: Vec<f64> = unseen.iter().map(|&n| score(n)).collect();
        let means: Vec<f64> = guesses.iter().map(|guess| guess.mean).collect();
        let tau = kendall_tau(&means, &scores).unwrap();
        assert!(tau > 0.75, "{tau}");
        let held = |(guess, score): (&Expected, &f64)| (guess.low..=guess.high).contains(score);
        let covered = guesses.iter().zip(&scores).filter(|&pair| held(pair)).count();
        // A binomial of 192 with 0.9 is beyond these bounds once in ten thousand; the data is fixed.
        assert!((156..=187).contains(&covered), "{covered} of 192");
        assert!(guesses.iter().all(|g| 0.0 <= g.low && g.low < g.mean && g.mean < g.high && g.high <= 1.0));
        let check = fitted.check();
        // 2 · 133 / (9 · 64 · 63) = 0.0073; its root times 1.96.
        assert!((check.tau_of_chance() - 0.1678).abs() < 1e-3, "{}", check.tau_of_chance());
        assert!(check.kendall_tau > 0.7 && check.mean_absolute_error < 0.03 && check.coverage >= 0.9, "{check:?}");
    }

    #[test]
    fn examples_keep_their_order_and_unit() {
        let fitted = fitted(64);
        let best = numbers(64, 0).into_iter().max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
        let worst = numbers(64, 0).into_iter().min_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
        let (high, low) = (fitted.predict(&features(best)), fitted.predict(&features(worst)));
        assert!((high.mean - score(best)).abs() < 0.03 && (low.mean - score(worst)).abs() < 0.03, "{high:?} {low:?}");
    }

    #[test]
    fn few_or_equal_scores() {
        let examples = |n: u16| (0..n).map(|n| (features(n), 0.5)).collect::<Vec<_>>();
        let config = KernelRidgeConfig::default();
        let error = Calibrated::fit(&config, &examples(3)).unwrap_err();
        assert_eq!(error, SurrogateError::TooFew { examples: 3, least: 4 });
        let fitted = Calibrated::fit(&config, &examples(4)).unwrap();
        let guess = fitted.predict(&features(9));
        assert!((guess.mean - 0.5).abs() < 1e-9 && fitted.check().kendall_tau == 0.0, "{guess:?}");
    }

    #[test]
    fn ranks_and_scores_are_inverse() {
        let scale = RankScale::of(&[0.2, 0.9, 0.5, 0.5, 0.7, 0.6, 0.8, 0.3]);
        for score in [0.1, 0.2, 0.35, 0.5, 0.75, 0.9, 0.95] {
            assert!((scale.score(scale.position(score)) - score).abs() < 1e-12, "{score}");
        }
        assert!((-40..40).map(|p| scale.score(f64::from(p) / 10.0)).is_sorted());
        assert_eq!((scale.score(-99.0), scale.score(99.0)), (0.0, 1.0));
    }

    #[test]
    fn quantiles_by_hand() {
        // (9 + 1) · 0.9 = 9: the largest of nine.
        let nine: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!((conformal_quantile(&nine, 0.9), conformal_quantile(&nine[..3], 0.9)), (9.0, 3.0));
        assert_eq!(conformal_quantile(&(1..=19).map(f64::from).collect::<Vec<_>>(), 0.9), 18.0);
    }
}
