//! Records of `journal.jsonl`.

use std::fmt;

use gram_ir::{CellOp, Layout};
use gram_meta::Converged;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gate::EdgeList;
use crate::{EvalKey, Lesson, Outcome, Prior};

/// Version of the journal and of the results' files.
pub const FORMAT_VERSION: u32 = 1;

/// One line of the journal, apart from its number and checksum. Nothing in it depends on time, threads or interruptions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Record {
    /// The first line: what the study is.
    Header {
        /// [`FORMAT_VERSION`].
        format_version: u32,
        /// Effective configuration, evaluator included; keys sorted.
        config: Value,
        /// blake3 of the configuration's text.
        config_digest: String,
    },
    /// How the initial meta-graph was fitted to the limits.
    Prior(Prior),
    /// A child that was evaluated.
    Child(ChildRecord),
    /// A round that was told to the strategy.
    Round(RoundRecord),
    /// The last line: why the study ended.
    Stop {
        /// The reason.
        reason: StopReason,
        /// Distinct children evaluated.
        n_children: usize,
        /// Rounds told.
        n_rounds: usize,
    },
}

/// A child that was evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildRecord {
    /// Number of the child, from 1.
    pub child: usize,
    /// Round, from 0.
    pub round: usize,
    /// Identity of the evaluation.
    pub key: EvalKey,
    /// blake3 of the canonical key of the child's graph.
    pub graph: String,
    /// Seed of the evaluation.
    pub seed: u64,
    /// Number of the child whose weights it started from; left out where it started from random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<usize>,
    /// Edges of each stage in the meta-graph's numbering, from live nodes only.
    pub edges: Vec<EdgeList>,
    /// Operators of each stage's live nodes, in the order of their numbers; left out where the meta-graph deals them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<Vec<CellOp>>,
    /// What it chose besides its cells; left out where the space leaves nothing open.
    #[serde(default, skip_serializing_if = "Layout::is_empty")]
    pub layout: Layout,
    /// Multiply–accumulates of one forward pass.
    pub macs: u64,
    /// Trainable scalars.
    pub params: u64,
    /// Scalars after folding.
    pub deployed_params: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// A round that was told to the strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundRecord {
    /// Round, from 0.
    pub round: usize,
    /// New children evaluated in it.
    pub n_new: usize,
    /// Draws that gave a child known before; they were told its stored score.
    pub n_repeats: usize,
    /// Children of the round that diverged.
    pub n_diverged: usize,
    /// Children of the round that were not trained to the end; left out where none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_stopped: usize,
    /// Best score so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_validation_top1: Option<f64>,
    /// What the strategy learnt; none where it does not learn, or waits for more children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lesson: Option<Lesson>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Why a study ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StopReason {
    /// As many distinct children as asked for are evaluated.
    BudgetSpent,
    /// A convergence test fired.
    Converged(Converged),
    /// A round found no new child in a bounded number of tries.
    SpaceExhausted,
    /// It was interrupted, and goes on when it is run again. Never in the journal.
    Interrupted,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BudgetSpent => f.write_str("all children are evaluated"),
            Self::Converged(test) => write!(f, "converged: {test}"),
            Self::SpaceExhausted => f.write_str("no new child was found in a whole round of draws"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}
