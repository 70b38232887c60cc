//! What a study found: children ranked, the Pareto front.

use std::cmp::Ordering;

use gram_ir::{Architecture, Cost};
use gram_meta::MetaGraph;
use serde_json::{Value, json};

use crate::{EvalKey, FORMAT_VERSION, Outcome, StopReason};

/// One evaluated child.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildSummary {
    /// Number of the child, from 1.
    pub child: usize,
    /// Round, from 0.
    pub round: usize,
    /// Identity of the evaluation.
    pub key: EvalKey,
    /// The child, its cells in canonical form: what was evaluated.
    pub architecture: Architecture,
    /// Exact costs.
    pub cost: Cost,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a study found.
#[derive(Clone, Debug)]
pub struct StudyReport {
    /// Why it ended.
    pub stop: StopReason,
    /// Distinct children evaluated.
    pub n_children: usize,
    /// Those of them that diverged.
    pub n_diverged: usize,
    /// Rounds told to the strategy.
    pub n_rounds: usize,
    /// Proposals that were known graphs and took their score from the study instead of an evaluation.
    pub n_cache_hits: usize,
    /// Evaluations that this run did itself, others being there from an earlier one.
    pub n_evaluated_now: usize,
    /// Children with a score, best first: by [`Outcome::score`], then fewer MACs, then fewer params, then earlier.
    pub best: Vec<ChildSummary>,
    /// Numbers of the children on the Pareto front of validation top-1, MACs and params; see [`pareto_front`].
    pub pareto: Vec<usize>,
    /// What was learnt, if the strategy keeps it in a meta-graph.
    pub meta_graph: Option<MetaGraph>,
}

impl StudyReport {
    /// The children of the Pareto front, best top-1 first.
    pub fn pareto_children(&self) -> impl Iterator<Item = &ChildSummary> {
        self.best.iter().filter(|child| self.pareto.contains(&child.child))
    }
}

/// Children with a score, best first.
pub(crate) fn ranked(children: &[ChildSummary]) -> Vec<ChildSummary> {
    let mut scored: Vec<ChildSummary> =
        children.iter().filter(|child| child.outcome.validation_top1().is_some()).cloned().collect();
    scored.sort_by(|a, b| by(Outcome::score, a, b));
    scored
}

/// The one with the higher top-1 first, `top1` says which; then the cheaper one, then the earlier one.
fn by(top1: fn(&Outcome) -> Option<f64>, a: &ChildSummary, b: &ChildSummary) -> Ordering {
    let top1 = |child: &ChildSummary| top1(&child.outcome).unwrap_or(f64::NEG_INFINITY);
    top1(b)
        .total_cmp(&top1(a))
        .then_with(|| (a.cost.macs, a.cost.params, a.child).cmp(&(b.cost.macs, b.cost.params, b.child)))
}

/// Numbers of the children that no other child dominates: none has at least their validation top-1 at no more MACs and params and is better
/// in one of the three. Of equals in all three the earliest stands. Diverged children are never on the front. Best top-1 first.
///
/// Top-1 as it was measured: a child that was stopped stands with what it had, for a front reports and guesses nothing.
///
/// # Complexity
/// Number of children times size of the front.
pub fn pareto_front(children: &[ChildSummary]) -> Vec<usize> {
    let mut front: Vec<ChildSummary> = Vec::new();
    let mut measured = ranked(children);
    measured.sort_by(|a, b| by(Outcome::validation_top1, a, b));
    for child in measured {
        // Sorted, so all before it have at least its top-1.
        let dominated =
            front.iter().any(|other| other.cost.macs <= child.cost.macs && other.cost.params <= child.cost.params);
        if !dominated {
            front.push(child);
        }
    }
    front.into_iter().map(|child| child.child).collect()
}

/// The content of `pareto.json`: the front with scores, costs and architectures.
///
/// # Errors
/// None that a valid report can cause; the encoder's own are passed on.
pub fn pareto_json(report: &StudyReport) -> Result<String, serde_json::Error> {
    let child = |child: &ChildSummary| -> Result<Value, serde_json::Error> {
        let architecture: Value = serde_json::from_str(&child.architecture.to_json())?;
        let mut entry = json!({
            "child": child.child,
            "key": child.key,
            "validation_top1": child.outcome.validation_top1(),
            "macs": child.cost.macs,
            "params": child.cost.params,
            "deployed_params": child.cost.deployed_params,
            "architecture": architecture,
        });
        if let Outcome::Stopped { epochs, .. } = child.outcome {
            entry["stopped_after_epochs"] = epochs.into();
        }
        Ok(entry)
    };
    let children = report.pareto_children().map(child).collect::<Result<Vec<_>, _>>()?;
    let file = json!({ "format_version": FORMAT_VERSION, "n_children": report.n_children, "children": children });
    Ok(serde_json::to_string_pretty(&file)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::{Activation, Cell, Head, Macs, Params, Shape};

    fn child(number: usize, top1: Option<f64>, macs: u64, params: u64) -> ChildSummary {
        let architecture = Architecture {
            name: "empty".into(),
            input: Shape::chw(1, 1, 1),
            num_classes: 2,
            activation: Activation::Relu,
            stem: Vec::new(),
            stages: Vec::new(),
            head: Head::default(),
        };
        ChildSummary {
            child: number,
            round: 0,
            key: EvalKey::new(&Cell::new().canonical_key(), "test", number as u64),
            architecture,
            cost: Cost { macs: Macs(macs), params: Params(params), deployed_params: Params(params) },
            outcome: top1.map_or(Outcome::Diverged { step: 1 }, Outcome::scored),
        }
    }

    #[test]
    fn front_and_ranking_by_hand() {
        let children = [
            child(1, Some(0.9), 100, 10),
            child(2, Some(0.9), 90, 10), // dominates 1
            child(3, Some(0.8), 50, 20), // fewer MACs
            child(4, Some(0.7), 60, 5),  // fewer params
            child(5, Some(0.7), 60, 30), // dominated by 3
            child(6, None, 1, 1),        // diverged
            child(7, Some(0.7), 60, 5),  // equal to 4, later
        ];
        let ranks: Vec<usize> = ranked(&children).iter().map(|child| child.child).collect();
        assert_eq!(ranks, [2, 1, 3, 4, 7, 5]);
        assert_eq!(pareto_front(&children), [2, 3, 4]);
    }

    #[test]
    fn a_stopped_child_is_ranked_by_its_estimate_and_reported_with_what_was_measured() {
        let stopped = Outcome::Stopped {
            epochs: 2,
            validation_top1: 0.5,
            estimated_top1: 0.8,
            metrics: std::collections::BTreeMap::new(),
        };
        let cheap = ChildSummary { outcome: stopped, ..child(1, None, 10, 10) };
        let children = [cheap.clone(), child(2, Some(0.7), 20, 20), child(3, Some(0.6), 10, 10)];
        assert_eq!(ranked(&children).iter().map(|child| child.child).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(pareto_front(&children), [2, 3]);
        let report = StudyReport {
            stop: StopReason::BudgetSpent,
            n_children: 1,
            n_diverged: 0,
            n_rounds: 1,
            n_cache_hits: 0,
            n_evaluated_now: 1,
            pareto: pareto_front(std::slice::from_ref(&cheap)),
            best: vec![cheap],
            meta_graph: None,
        };
        let file: Value = serde_json::from_str(&pareto_json(&report).unwrap()).unwrap();
        assert_eq!(file["children"][0]["validation_top1"], json!(0.5));
        assert_eq!(file["children"][0]["stopped_after_epochs"], json!(2));
    }

    #[test]
    fn the_front_is_what_brute_force_says() {
        // A small deterministic scatter with many ties.
        let children: Vec<ChildSummary> = (1..80_u64)
            .map(|n| child(n as usize, Some(((n * 37) % 11) as f64 / 11.0), (n * 53) % 13, (n * 29) % 7))
            .collect();
        let dominates = |a: &ChildSummary, b: &ChildSummary| {
            let (ta, tb) = (a.outcome.validation_top1().unwrap(), b.outcome.validation_top1().unwrap());
            let no_worse = ta >= tb && a.cost.macs <= b.cost.macs && a.cost.params <= b.cost.params;
            no_worse && ((ta, a.cost.macs, a.cost.params) != (tb, b.cost.macs, b.cost.params) || a.child < b.child)
        };
        let mut slow: Vec<usize> =
            children.iter().filter(|b| !children.iter().any(|a| dominates(a, b))).map(|child| child.child).collect();
        let mut fast = pareto_front(&children);
        slow.sort_unstable();
        fast.sort_unstable();
        assert_eq!(fast, slow);
    }
}
