//! What is evaluated, by whom, and what comes of it.

use std::collections::BTreeMap;
use std::fmt;

use gram_ir::{Architecture, CanonicalKey, Network};
use serde::{Deserialize, Serialize};

use crate::{Halving, Source};

/// Scores children: trains them, or looks them up.
///
/// An evaluation must be a pure function of the job's architecture, its seed and what [`Evaluator::identity`] says, whichever thread it runs
/// on: studies store the outcome under a key made of these and never ask twice. With [`Evaluator::halving`] the outcome depends on the
/// children of the same round as well, and so does the key.
pub trait Evaluator: Sync {
    /// Everything besides the child and its seed that decides the outcome: training configuration, digest of the data, numerics class,
    /// version of the evaluator. Two evaluators with one identity give equal outcomes.
    fn identity(&self) -> String;

    /// Evaluates one child.
    ///
    /// # Errors
    /// [`EvaluatorError`]; a child that diverges is an [`Outcome`], not an error.
    fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError>;

    /// Bytes of memory that evaluating `job` takes at most, beside what the evaluator holds anyway; executors keep the sum of what runs within
    /// bounds. 0, the default, is never too much.
    fn bytes(&self, job: &Job) -> u64 {
        let _ = job;
        0
    }

    /// How the children of a round are compared on their way, and those that are behind stopped; none, the default: each is evaluated by itself.
    ///
    /// Part of [`Evaluator::identity`].
    fn halving(&self) -> Option<&Halving> {
        None
    }

    /// As [`Evaluator::evaluate`], but only up to so many epochs of the whole; none: to the end. Where an earlier call for the job has come
    /// further it trains nothing, otherwise it goes on from there, in this process or a later one: the outcome is that of one go.
    ///
    /// Called instead of [`Evaluator::evaluate`] by studies of an evaluator with [`Evaluator::halving`].
    /// # Errors
    /// As [`Evaluator::evaluate`].
    fn evaluate_until(&self, job: &Job, epochs: Option<usize>) -> Result<Outcome, EvaluatorError> {
        let _ = epochs;
        self.evaluate(job)
    }

    /// Whether children start from the weights of trained ones; false, the default: all start from random weights.
    ///
    /// Jobs then name a [`Job::source`], and the evaluator keeps the weights of children that it trained to the end for as long as the study
    /// searches. Part of [`Evaluator::identity`].
    fn inherits(&self) -> bool {
        false
    }

    /// What [`Evaluator::evaluate_until`] keeps to go on from is not needed any more; nothing may be there.
    fn forget(&self, key: EvalKey) {
        let _ = key;
    }
}

/// One evaluation to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// Number of the child in its study, from 1.
    pub child: usize,
    /// The child, its cells in canonical form.
    pub architecture: Architecture,
    /// The child lowered.
    pub network: Network,
    /// Under which the outcome is stored.
    pub key: EvalKey,
    /// All randomness of the evaluation comes from here; below 2^53.
    pub seed: u64,
    /// The child whose weights it starts from; none: random ones. Only for an evaluator that [inherits](Evaluator::inherits).
    pub source: Option<Source>,
}

/// Identity of an evaluation: blake3 of the canonical graph, the evaluator's identity and the child's seed; 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EvalKey([u8; 32]);

impl EvalKey {
    /// The key of evaluating `graph` with `seed` by the evaluator called `identity`.
    pub fn new(graph: &CanonicalKey, identity: &str, seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"gram evaluation v1\0");
        for part in [graph.as_bytes(), identity.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.update(&seed.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of the same evaluation from the weights that another one has left.
    pub fn inheriting(self, source: Self) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"gram evaluation from weights v1\0").update(&self.0).update(&source.0);
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of the same evaluation among the others of its round, in their order, it among them: for outcomes that depend on all of them.
    pub fn among(self, round: &[Self]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"gram evaluation in a round v1\0");
        for key in [self].iter().chain(round) {
            hasher.update(&key.0);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for EvalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for EvalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvalKey({self})")
    }
}

impl From<EvalKey> for String {
    fn from(key: EvalKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for EvalKey {
    type Error = BadEvalKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hash = blake3::Hash::from_hex(&text).map_err(|_| BadEvalKey(text.chars().take(80).collect()))?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// A text that is no evaluation key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an evaluation key: expected 64 hexadecimal digits")]
pub struct BadEvalKey(pub String);

/// What came of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status", deny_unknown_fields)]
pub enum Outcome {
    /// The child was trained and scored.
    Scored {
        /// Top-1 on the validation split, in `0..=1`.
        validation_top1: f64,
        /// What the child is ranked by in its place, in `0..=1` and more for better ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        score: Option<f64>,
        /// Other figures, by name; finite, and never durations: they are part of what must be reproducible.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metrics: BTreeMap<String, f64>,
    },
    /// The child fell behind others of its round and was not trained to the end; see [`Halving`].
    Stopped {
        /// Epochs that it was trained for.
        epochs: usize,
        /// Top-1 on the validation split behind them, in `0..=1`.
        validation_top1: f64,
        /// What it is guessed to have come to at the end, in `0..=1`; see [`Halving::estimate`].
        estimated_top1: f64,
        /// As of a child that was trained to the end, behind the epochs that it had.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metrics: BTreeMap<String, f64>,
    },
    /// Training diverged.
    Diverged {
        /// Optimiser step at which the loss stopped being finite.
        step: u64,
    },
}

impl Outcome {
    /// An outcome with a score and nothing else.
    pub fn scored(validation_top1: f64) -> Self {
        Self::Scored { validation_top1, score: None, metrics: BTreeMap::new() }
    }

    /// Top-1 on the validation split as it was measured, where the training ended; none if the child diverged.
    pub fn validation_top1(&self) -> Option<f64> {
        match self {
            Self::Scored { validation_top1, .. } | Self::Stopped { validation_top1, .. } => Some(*validation_top1),
            Self::Diverged { .. } => None,
        }
    }

    /// Validation top-1 at the end of training, which is a guess for a child that was stopped; none if the child diverged.
    pub fn expected_top1(&self) -> Option<f64> {
        match self {
            Self::Stopped { estimated_top1, .. } => Some(*estimated_top1),
            Self::Scored { .. } | Self::Diverged { .. } => self.validation_top1(),
        }
    }

    /// What strategies are told and children are ranked by: [`Self::expected_top1`], unless the evaluator gave another score; none if the child
    /// diverged.
    pub fn score(&self) -> Option<f64> {
        match self {
            Self::Scored { score: Some(score), .. } => Some(*score),
            _ => self.expected_top1(),
        }
    }

    /// Refuses scores outside `0..=1` and metrics that are not finite: JSON has no words for these, and a strategy could not use them.
    pub(crate) fn check(self) -> Result<Self, EvaluatorError> {
        if let Self::Scored { metrics, .. } | Self::Stopped { metrics, .. } = &self {
            let scores = [("validation top-1", self.validation_top1()), ("score", self.score())];
            let mut scores = scores.into_iter().filter_map(|(name, score)| Some((name, score?)));
            if let Some((name, score)) = scores.find(|(_, score)| !(0.0..=1.0).contains(score)) {
                return Err(EvaluatorError::new(format!("{name} is {score}, not in 0 to 1")));
            }
            if let Some((name, value)) = metrics.iter().find(|(_, value)| !value.is_finite()) {
                return Err(EvaluatorError::new(format!("metric `{name}` is {value}")));
            }
        }
        Ok(self)
    }
}

/// Why an evaluation has no outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluatorError {
    /// It was asked to stop; the same job will be asked for again when the study goes on.
    #[error("interrupted")]
    Interrupted,
    /// It alone takes more memory than there may be used; it was not started.
    #[error("it takes {}, the memory limit leaves {}", Mebibytes(*.bytes), Mebibytes(*.max_bytes))]
    Memory {
        /// What it takes, in bytes.
        bytes: u64,
        /// What evaluations may take, in bytes.
        max_bytes: u64,
    },
    /// Anything else: unreadable data, no memory, a bug.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// The cause, if there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// Bytes, printed for people.
struct Mebibytes(u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB", self.0 as f64 / f64::from(1 << 20))
    }
}

impl EvaluatorError {
    /// A failure without a cause.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), source: None }
    }

    /// A failure with its cause.
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { message: message.into(), source: Some(source.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::Cell;

    #[test]
    fn keys_depend_on_every_part() {
        let graph = Cell::new().canonical_key();
        let key = EvalKey::new(&graph, "a", 1);
        assert_ne!(key, EvalKey::new(&graph, "b", 1));
        assert_ne!(key, EvalKey::new(&graph, "a", 2));
        let other = EvalKey::new(&graph, "a", 2);
        let among = key.among(&[key, other]);
        assert!(key.inheriting(other) != other.inheriting(key) && key.inheriting(other) != among);
        assert!(among != key && among != other.among(&[key, other]) && among != key.among(&[key]));
        let text = key.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(EvalKey::try_from(text), Ok(key));
        assert!(EvalKey::try_from("zz".to_owned()).is_err());
    }

    #[test]
    fn outcomes_are_finite() {
        assert!(Outcome::scored(1.0).check().is_ok());
        for score in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            assert!(Outcome::scored(score).check().is_err(), "{score}");
        }
        let stopped = |estimated_top1| {
            let metrics = BTreeMap::new();
            Outcome::Stopped { epochs: 1, validation_top1: 0.5, estimated_top1, metrics }.check().is_ok()
        };
        assert!(stopped(1.0) && !stopped(1.1));
        let metrics = BTreeMap::from([("loss".to_owned(), f64::NAN)]);
        let error = Outcome::Scored { validation_top1: 0.5, score: None, metrics }.check().unwrap_err();
        assert_eq!(error.to_string(), "metric `loss` is NaN");
    }

    #[test]
    fn outcomes_read_back() {
        let stopped =
            Outcome::Stopped { epochs: 2, validation_top1: 0.1, estimated_top1: 1.0 / 3.0, metrics: BTreeMap::new() };
        assert_eq!((stopped.validation_top1(), stopped.score()), (Some(0.1), Some(1.0 / 3.0)));
        for outcome in [Outcome::scored(1.0 / 3.0), Outcome::Diverged { step: 7 }, stopped] {
            let text = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
        }
        assert_eq!(serde_json::to_string(&Outcome::Diverged { step: 7 }).unwrap(), r#"{"status":"diverged","step":7}"#);
    }
}
