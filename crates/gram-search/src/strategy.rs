//! Strategies: who decides which children to evaluate next, by ask and tell.

mod domain_search;
mod draw;
mod gram;
mod random;

use std::sync::atomic::{AtomicBool, Ordering};

use gram_ir::{Blueprint, CanonicalKey, LowerError, Macs, Params, grouped};
use gram_meta::{Converged, MetaGraph, MetaGraphError, PropagateError, SampleError, WarmStartError};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Candidate, Gate, PreflightError, Refusal, try_stream};

pub use domain_search::DomainSearch;
pub use draw::{Fitted, TRIES_PER_NEW_CHILD, Tilt, probe_prior};
pub use gram::GramStrategy;
pub use random::RandomStrategy;

/// Decides which children to evaluate.
///
/// A study asks for a round of proposals, evaluates the new ones, and tells all scores in the order of the proposals. A strategy is
/// deterministic: the same seed and scores give the same proposals. That is what lets a study go on after a kill by replaying its rounds.
pub trait Strategy {
    /// The name in files and on the command line.
    fn name(&self) -> &'static str;

    /// Called once, before the first round.
    ///
    /// # Errors
    /// [`AskError`] if no child could ever be proposed.
    fn start(&mut self, context: &Context<'_>) -> Result<Option<Prior>, AskError>;

    /// Proposes a round: up to `n_new` children that the study does not know, and, if the strategy learns from them, repeats of known ones.
    ///
    /// Fewer (or no) new children mean that no more were found in a bounded number of tries.
    /// # Errors
    /// [`AskError`].
    fn ask(&mut self, n_new: usize, context: &Context<'_>) -> Result<Vec<Proposal>, AskError>;

    /// Tells the scores of the last round's proposals in their order; `None` for children that diverged.
    ///
    /// `pruned` says what pruning a meta-graph to the study's limits gives now; see [`gram_meta::ConvergenceTest`].
    /// # Errors
    /// [`TellError`].
    fn tell(&mut self, scores: &[Option<f64>], pruned: &Pruned<'_>) -> Result<Option<Lesson>, TellError>;

    /// Called once, after the last round of a study that has ended: learns what rounds were too small to teach.
    ///
    /// # Errors
    /// [`TellError`].
    fn finish(&mut self, pruned: &Pruned<'_>) -> Result<(), TellError> {
        let _ = pruned;
        Ok(())
    }

    /// What was learnt so far, if the strategy keeps it in a meta-graph.
    fn meta_graph(&self) -> Option<&MetaGraph>;
}

/// Names the child that pruning a meta-graph to the limits gives, or `None` where nothing is pruned during the search.
pub type Pruned<'a> = dyn Fn(&MetaGraph) -> Option<CanonicalKey> + 'a;

/// A proposed child.
#[derive(Clone, Debug)]
pub enum Proposal {
    /// A child that the study has not evaluated, for the first time in this round.
    New(Box<Candidate>),
    /// A child that the study knows, or that stands earlier in this round; it is told its score and not evaluated again.
    Repeat(CanonicalKey),
}

impl Proposal {
    /// Identity of the child's graph.
    pub fn graph(&self) -> &CanonicalKey {
        match self {
            Self::New(candidate) => &candidate.graph,
            Self::Repeat(graph) => graph,
        }
    }
}

/// What a strategy may look at while it proposes.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Lowers cells and checks the limits.
    pub gate: Gate<'a>,
    /// The study's seed.
    pub seed: u64,
    /// The round, from 0.
    pub round: usize,
    /// Whether the study has evaluated this graph.
    pub is_seen: &'a dyn Fn(&CanonicalKey) -> bool,
    /// Becomes true when the study is to stop.
    pub interrupt: &'a AtomicBool,
}

impl Context<'_> {
    /// The random stream of one try of this round.
    pub fn rng(&self, attempt: usize) -> ChaCha8Rng {
        try_stream(self.seed, self.round, attempt)
    }

    /// The candidate of a blueprint.
    ///
    /// # Errors
    /// [`Refusal`] if it cannot be lowered or breaks a limit.
    pub fn admit(&self, blueprint: Blueprint) -> Result<Candidate, Refusal> {
        self.gate.admit(blueprint)
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

/// How the initial meta-graph was fitted to the limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prior {
    /// Every initial weight was multiplied by this; 1 where the limits leave room.
    pub factor: f64,
    /// Share of structures drawn from it, tilted if there is a tilt, that keep the limits.
    pub acceptance: f64,
    /// Share of preflight's witness in the weights that children are drawn with; there only where thinning was not enough, see [`Tilt`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tilt: Option<f64>,
}

/// What a lesson, the children of one round or more, taught.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lesson {
    /// Inverse temperature of the scores.
    pub beta: f64,
    /// Effective number of children that the lesson's weights stand for.
    pub ess: f64,
    /// Largest change of an edge weight.
    pub max_change: f64,
    /// Its moving average.
    pub change_average: f64,
    /// Mean entropy of an edge in bits, see [`MetaGraph::entropy_bits`].
    pub entropy_bits: f64,
    /// Lessons for which the pruned child has been the same.
    pub unchanged_rounds: usize,
    /// The convergence test that fired, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converged: Option<Converged>,
    /// What the trial of a warm start came to; with the first lesson of a study that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_start: Option<WarmOutcome>,
}

/// What the trial of a warm start came to; see [`gram_meta::WarmTrial`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmOutcome {
    /// Whether the earlier study's knowledge is used.
    pub is_warm: bool,
    /// Mean score of the children that it proposed; none if none has a score.
    pub mean_warm: Option<f64>,
    /// Mean score of the children that were proposed without it; none if none has a score.
    pub mean_cold: Option<f64>,
}

/// Why a strategy has no proposals.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No feasible child in a bounded number of tries.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The prior hardly ever keeps the limits, however thin.
    #[error(
        "none of {tries} children drawn from the thinned prior keeps the limits, nor one of the cheapest; the smallest possible cost is {least_macs} and {least_params}, perhaps not of one child{}",
        describe_seen(*.least_peak_bytes, *.least_latency_ms)
    )]
    Prior {
        /// Children drawn.
        tries: usize,
        /// The least MACs of a child.
        least_macs: Macs,
        /// The least params of a child; perhaps another one.
        least_params: Params,
        /// The least peak bytes of the cheapest children and of small ones that were drawn; where peak bytes are limited.
        least_peak_bytes: Option<u64>,
        /// The least milliseconds, upper ends of predictions, of the same; where latency is limited and could be predicted.
        least_latency_ms: Option<f64>,
    },
    /// The cheapest children cannot be found.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// A child that does not fit its meta-graph.
    #[error(transparent)]
    Meta(#[from] MetaGraphError),
    /// An earlier study's meta-graph that does not fit.
    #[error(transparent)]
    WarmStart(#[from] WarmStartError),
    /// Not even the smallest networks of the space can be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A child that the domain allows and the gate refuses: a bug.
    #[error("a proposed child is refused: {0}")]
    Refused(#[from] Refusal),
    /// The study is to stop.
    #[error("interrupted")]
    Interrupted,
}

fn describe_seen(peak_bytes: Option<u64>, latency_ms: Option<f64>) -> String {
    let peak = peak_bytes.map(|bytes| format!("{} peak bytes", grouped(bytes)));
    let ms = latency_ms.map(|ms| format!("{ms:.4} ms"));
    let seen: Vec<String> = peak.into_iter().chain(ms).collect();
    if seen.is_empty() { String::new() } else { format!("; the least that was seen is {}", seen.join(" and ")) }
}

/// Why a strategy cannot learn from a round.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TellError {
    /// Other scores than proposals.
    #[error("told {got} scores for {expected} proposals")]
    Count {
        /// Proposals of the last round.
        expected: usize,
        /// Scores told.
        got: usize,
    },
    /// The round does not fit the meta-graph.
    #[error(transparent)]
    Propagate(#[from] PropagateError),
}
