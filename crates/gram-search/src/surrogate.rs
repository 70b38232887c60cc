//! Surrogates: what a score might be, before anything is trained.

mod calibrated;
mod cholesky;
mod features;
mod kernel_ridge;
mod targets;

pub use calibrated::{Calibrated, CrossValidation, Expected, MIN_EXAMPLES};
pub use features::Features;
pub use kernel_ridge::{KernelRidge, KernelRidgeConfig};

/// A guess of a score.
///
/// On a scale of the surrogate's own that rises with the score: guesses of one fit compare with each other and with nothing else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Expectation.
    pub mean: f64,
    /// Standard deviation, 0 or more.
    pub sd: f64,
}

/// Predicts scores from features, with an uncertainty.
///
/// Deterministic: equal examples and scores in equal order give equal predictions. Before the first fit every prediction is the same.
pub trait Surrogate: Send {
    /// Adds an example, whose score comes with the next fit.
    fn observe(&mut self, features: Features);

    /// Refits to the scores of all examples, in their order; forgets what was believed.
    ///
    /// # Errors
    /// [`SurrogateError`]; the surrogate stays as it was.
    fn fit(&mut self, scores: &[f64]) -> Result<(), SurrogateError>;

    /// The guess for a point.
    fn predict(&self, features: &Features) -> Prediction;

    /// Takes it for granted, until the next fit, that this point has its mean: means stay, uncertainty around it shrinks. So a batch spreads out.
    ///
    /// # Source
    /// Desautels et al., Parallelizing Exploration-Exploitation Tradeoffs in Gaussian Process Bandit Optimization, JMLR 2014.
    fn believe(&mut self, features: &Features);
}

/// Why a surrogate could not be fitted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SurrogateError {
    /// Other scores than examples.
    #[error("{scores} scores for {examples} examples")]
    Count {
        /// Examples observed.
        examples: usize,
        /// Scores given.
        scores: usize,
    },
    /// Too few examples to hold some out.
    #[error("{examples} examples, {least} are needed")]
    TooFew {
        /// Examples given.
        examples: usize,
        /// Fewest that are enough.
        least: usize,
    },
    /// A score that says nothing.
    #[error("score {index} is {score}; scores are finite")]
    Score {
        /// Which.
        index: usize,
        /// Its value.
        score: f64,
    },
    /// No setting gives a positive definite kernel matrix.
    #[error("the kernel matrix of {examples} examples is not positive definite")]
    NotPositiveDefinite {
        /// Examples.
        examples: usize,
    },
}

/// The lowest `n` bits of a number, each a decision of its own: what the tests of surrogates learn from.
#[cfg(test)]
fn switches(number: u16, n: u16) -> Features {
    use crate::domain::{ClassKey, Decision, Domain, Histogram, Point};

    struct Switches(Vec<Decision>);

    impl Domain for Switches {
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

    let domain = Switches((0..n).map(|i| Decision::new(format!("{i}"), 2)).collect());
    let bits: Vec<u8> = (0..n).map(|i| (number >> i & 1) as u8).collect();
    Features::of(&Point::from(bits), &domain)
}
