//! Successive halving inside a round: children that are behind at a milestone are not trained to the end.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gram_ir::Cost;
use serde::{Deserialize, Serialize};

use crate::{ConfigError, Evaluation, Evaluator, EvaluatorError, Executor, Job, Outcome};

/// When and how the children of a round are compared, and how many of them go on.
///
/// All children of a round are trained to the first milestone, on the schedule of the whole training; the best share of those that came so far
/// goes on from there, to the next milestone or to the end. What a child comes to depends on the children of its round and on nothing else.
///
/// # Source
/// Successive halving: Jamieson and Talwalkar, [arXiv:1502.07943](https://arxiv.org/abs/1502.07943); as one bracket of Hyperband, Li et al.,
/// [arXiv:1603.06560](https://arxiv.org/abs/1603.06560), with epochs as the resource and the round as the bracket.
///
/// # Differs from the paper
/// The milestones need not grow by the inverse of the share that is kept, a selection may look at costs ([`KeepBy::Front`]), and a child that was
/// stopped has a score for the strategy to learn from; see [`estimate`](Self::estimate).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halving {
    /// Milestones: epochs behind which children are compared; increasing, below the epochs of the whole training.
    pub epochs: Vec<usize>,
    /// Share of the children at a milestone that goes on, above 0 and at most 1; rounded up. Default 0.5, the paper's.
    #[serde(default = "default_keep")]
    pub keep: f64,
    /// Which ones.
    #[serde(default)]
    pub keep_by: KeepBy,
}

fn default_keep() -> f64 {
    0.5
}

/// Which children go on at a milestone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepBy {
    /// Those with the highest top-1; of equals the one with fewer MACs, then fewer params, then the earlier one.
    #[default]
    Top1,
    /// For several objectives: those that no child of the round dominates in top-1, MACs and params, then those that only these dominate, and so
    /// on; each front in the order of [`KeepBy::Top1`]. Ours.
    ///
    /// # Source
    /// Non-dominated sorting: Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEVC 2002, whose crowding distance
    /// is left out: top-1 is what a study is after.
    Front,
}

/// A child at a milestone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Validation top-1 there, in `0..=1`.
    pub validation_top1: f64,
    /// Its costs.
    pub cost: Cost,
}

impl Standing {
    fn dominates(&self, other: &Self) -> bool {
        let ours = (self.validation_top1, self.cost.macs, self.cost.params);
        let theirs = (other.validation_top1, other.cost.macs, other.cost.params);
        ours.0 >= theirs.0 && ours.1 <= theirs.1 && ours.2 <= theirs.2 && ours != theirs
    }

    /// The better one first.
    fn compare(&self, other: &Self) -> Ordering {
        let costs = |standing: &Self| (standing.cost.macs, standing.cost.params);
        other.validation_top1.total_cmp(&self.validation_top1).then_with(|| costs(self).cmp(&costs(other)))
    }
}

/// A child that went on at a milestone: its validation top-1 there, and its score in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WentOn {
    /// Validation top-1 at the milestone.
    pub there: f64,
    /// [`Outcome::score`].
    pub score: f64,
}

/// Of each child the number of its front: 0 for those that no other dominates, 1 for those that only children of front 0 dominate, and so on.
///
/// # Complexity
/// Cubic in the number of children, which are those of a round.
fn fronts(standings: &[Standing]) -> Vec<usize> {
    let mut fronts: Vec<Option<usize>> = vec![None; standings.len()];
    for front in 0..standings.len() {
        let is_left = |index: &usize| fronts[*index].is_none();
        let left: Vec<usize> = (0..standings.len()).filter(is_left).collect();
        let is_ahead = |&&index: &&usize| !left.iter().any(|&other| standings[other].dominates(&standings[index]));
        let ahead: Vec<usize> = left.iter().filter(is_ahead).copied().collect();
        ahead.into_iter().for_each(|index| fronts[index] = Some(front));
    }
    fronts.into_iter().map(|front| front.unwrap_or(0)).collect()
}

impl Halving {
    /// Everything that is out of range, for a whole training of `n_epochs`.
    ///
    /// # Errors
    /// [`ConfigError`] with one line per broken rule, naming the field.
    pub fn verify(&self, n_epochs: usize) -> Result<(), ConfigError> {
        let Self { epochs, keep, .. } = self;
        let increasing = epochs.iter().zip(&epochs[1.min(epochs.len())..]).all(|(a, b)| a < b);
        let within = epochs.iter().all(|&epoch| 0 < epoch && epoch < n_epochs);
        let rules = [
            (!epochs.is_empty(), "halving.epochs is empty, it must name a milestone or more".to_owned()),
            (increasing, format!("halving.epochs is {epochs:?}, it must increase")),
            (
                within,
                format!(
                    "halving.epochs is {epochs:?}, all must be at least 1 and below the {n_epochs} epochs of training"
                ),
            ),
            (0.0 < *keep && *keep <= 1.0, format!("halving.keep is {keep}, it must be above 0 and at most 1")),
        ];
        let broken: Vec<String> = rules.into_iter().filter(|(holds, _)| !holds).map(|(_, message)| message).collect();
        if broken.is_empty() { Ok(()) } else { Err(ConfigError(broken)) }
    }

    /// Places of the children that go on, ascending: the share of them rounded up, at least one.
    pub fn kept(&self, standings: &[Standing]) -> Vec<usize> {
        let fronts = match self.keep_by {
            KeepBy::Top1 => vec![0; standings.len()],
            KeepBy::Front => fronts(standings),
        };
        let mut places: Vec<(usize, usize)> = fronts.into_iter().zip(0..).collect();
        places.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| standings[a.1].compare(&standings[b.1])));
        // A little less, for 0.07 · 100 is a little more than 7.
        let n_kept = (self.keep * standings.len() as f64 - 1e-9).ceil().max(1.0) as usize;
        let mut kept: Vec<usize> = places.into_iter().take(n_kept).map(|(_, place)| place).collect();
        kept.sort_unstable();
        kept
    }

    /// The score of a child that was stopped with `stopped_top1`, beside those that went on from the same milestone and have a score: its
    /// top-1 and their mean gain since, but below each of them that was not behind it at the milestone. Ours.
    ///
    /// Scores of few epochs and of many are thereby of one scale, which a surrogate over all rounds and the softmax of a lesson need: as it
    /// was measured, a child that was stopped would seem worse by what all children gain by training on. Where the best ones by top-1 are
    /// kept, it never ranks above one that went on. Where costs are looked at, it may rank above one that was kept for its costs alone:
    /// strategies learn top-1, and were misled if the worse one had the higher score.
    pub fn estimate(stopped_top1: f64, went_on: &[WentOn]) -> f64 {
        let gains: f64 = went_on.iter().map(|child| child.score - child.there).sum();
        let gain = if went_on.is_empty() { 0.0 } else { gains / went_on.len() as f64 };
        let ahead = went_on.iter().filter(|child| child.there >= stopped_top1).map(|child| child.score);
        let most = ahead.reduce(f64::min).map_or(1.0, f64::next_down);
        (stopped_top1 + gain).min(most).clamp(0.0, 1.0)
    }
}

/// A milestone that a round has passed.
struct Milestone {
    epochs: usize,
    /// Place and outcome there of the children that were not diverged.
    standings: Standings,
    /// Places of those that went on.
    kept: Vec<usize>,
}

/// Evaluates a round: milestone by milestone, then to the end. None if it was interrupted: not all outcomes are known, and what is known is
/// not told.
///
/// # Errors
/// The first error, and the place of its job.
pub(crate) fn evaluate_round(
    halving: &Halving,
    jobs: &[Job],
    evaluator: &dyn Evaluator,
    executor: &dyn Executor,
    interrupt: &AtomicBool,
) -> Result<Option<Vec<Evaluation>>, (usize, EvaluatorError)> {
    let mut round = Round { outcomes: vec![None; jobs.len()], durations: vec![Duration::ZERO; jobs.len()] };
    let mut going_on: Vec<usize> = (0..jobs.len()).collect();
    let mut passed = Vec::new();
    for &epochs in &halving.epochs {
        let until = Until { evaluator, epochs: Some(epochs) };
        let Some(standings) = round.run(jobs, &going_on, &until, executor, interrupt)? else { return Ok(None) };
        let standing = |(place, outcome): &(usize, Outcome)| Standing {
            validation_top1: outcome.validation_top1().unwrap_or(0.0),
            cost: jobs[*place].network.cost(),
        };
        let kept = halving.kept(&standings.iter().map(standing).collect::<Vec<_>>());
        going_on = kept.into_iter().filter_map(|index| Some(standings.get(index)?.0)).collect();
        passed.push(Milestone { epochs, standings, kept: going_on.clone() });
    }
    let until = Until { evaluator, epochs: None };
    let Some(ended) = round.run(jobs, &going_on, &until, executor, interrupt)? else { return Ok(None) };
    ended.into_iter().for_each(|(place, outcome)| round.outcomes[place] = Some(outcome));
    // The last milestone first: what those have come to that went on is known.
    passed.iter().rev().for_each(|milestone| round.settle(milestone));
    let evaluations = round.outcomes.into_iter().zip(round.durations);
    Ok(evaluations.map(|(outcome, duration)| Some(Evaluation { outcome: outcome?, duration })).collect())
}

/// Children by their place in the round, with what they have come to.
type Standings = Vec<(usize, Outcome)>;

/// A round under way.
struct Round {
    /// What is recorded of each child, once it is known.
    outcomes: Vec<Option<Outcome>>,
    durations: Vec<Duration>,
}

impl Round {
    /// Evaluates the children at `places` further; gives those that have not diverged, in order, or none if interrupted.
    fn run(
        &mut self,
        jobs: &[Job],
        places: &[usize],
        until: &Until<'_>,
        executor: &dyn Executor,
        interrupt: &AtomicBool,
    ) -> Result<Option<Standings>, (usize, EvaluatorError)> {
        let going_on: Vec<Job> = places.iter().map(|&place| jobs[place].clone()).collect();
        let mut ended: Vec<Option<Evaluation>> = vec![None; going_on.len()];
        let mut failure = None;
        executor.run(&going_on, until, interrupt, &mut |index, result| match result {
            Ok(evaluation) => {
                ended[index] = Some(evaluation);
                ControlFlow::Continue(())
            }
            Err(EvaluatorError::Interrupted) => ControlFlow::Continue(()),
            Err(error) => {
                failure.get_or_insert((places[index], error));
                ControlFlow::Break(())
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let Some(ended) = ended.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let mut standings = Vec::new();
        for (&place, Evaluation { outcome, duration }) in places.iter().zip(ended) {
            self.durations[place] += duration;
            match outcome {
                Outcome::Scored { .. } => standings.push((place, outcome)),
                Outcome::Stopped { .. } | Outcome::Diverged { .. } => self.outcomes[place] = Some(outcome),
            }
        }
        Ok(Some(standings))
    }

    /// Gives the children that were stopped at a milestone their outcomes; those that went on have theirs.
    fn settle(&mut self, milestone: &Milestone) {
        let went_on = |(place, outcome): &(usize, Outcome)| {
            let is_kept = milestone.kept.contains(place);
            let score = self.outcomes[*place].as_ref().filter(|_| is_kept)?.score()?;
            Some(WentOn { there: outcome.validation_top1()?, score })
        };
        let went_on: Vec<WentOn> = milestone.standings.iter().filter_map(went_on).collect();
        for (place, outcome) in milestone.standings.iter().filter(|(place, _)| !milestone.kept.contains(place)) {
            let Outcome::Scored { validation_top1, metrics, .. } = outcome.clone() else { continue };
            let estimated_top1 = Halving::estimate(validation_top1, &went_on);
            self.outcomes[*place] =
                Some(Outcome::Stopped { epochs: milestone.epochs, validation_top1, estimated_top1, metrics });
        }
    }
}

/// An evaluator up to a milestone.
struct Until<'a> {
    evaluator: &'a dyn Evaluator,
    epochs: Option<usize>,
}

impl Evaluator for Until<'_> {
    fn identity(&self) -> String {
        self.evaluator.identity()
    }

    fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
        self.evaluator.evaluate_until(job, self.epochs)
    }

    fn bytes(&self, job: &Job) -> u64 {
        self.evaluator.bytes(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::{Macs, Params};

    fn halving(keep: f64, keep_by: KeepBy) -> Halving {
        Halving { epochs: vec![1, 3], keep, keep_by }
    }

    fn standing((validation_top1, macs, params): (f64, u64, u64)) -> Standing {
        let cost = Cost { macs: Macs(macs), params: Params(params), ..Cost::default() };
        Standing { validation_top1, cost }
    }

    /// In the order of top-1: 3, 1, 4, 0, 2. Nobody is better than 3 or cheaper than 2; 4 has fewer params than 3 and 1, 0 has more of
    /// both than 4; 1 is dearer than 3 in both.
    const CHILDREN: [(f64, u64, u64); 5] =
        [(0.5, 300, 60), (0.7, 410, 81), (0.3, 100, 20), (0.8, 400, 80), (0.6, 200, 50)];

    #[test]
    fn the_best_share_goes_on_rounded_up() {
        let standings = CHILDREN.map(standing);
        let kept = |keep| halving(keep, KeepBy::Top1).kept(&standings);
        assert_eq!(kept(1.0), [0, 1, 2, 3, 4]);
        assert_eq!(kept(0.5), [1, 3, 4], "3 of 2.5");
        assert_eq!(kept(0.4), [1, 3]);
        assert_eq!(kept(0.2), [3]);
        assert_eq!(kept(0.001), [3], "at least one");
        // Of equals the cheaper one, then the earlier one.
        let equals = [(0.5, 9, 9), (0.5, 8, 9), (0.5, 8, 8), (0.5, 8, 8)].map(standing);
        assert_eq!(halving(0.25, KeepBy::Top1).kept(&equals), [2]);
        assert_eq!(halving(0.75, KeepBy::Top1).kept(&equals), [1, 2, 3]);
        assert_eq!(
            halving(0.07, KeepBy::Top1).kept(&[standing((0.5, 1, 1)); 100]).len(),
            7,
            "0.07 · 100 is above 7 in floats"
        );
        assert!(halving(0.5, KeepBy::Top1).kept(&[]).is_empty());
    }

    #[test]
    fn the_front_goes_on_before_the_others() {
        let standings = CHILDREN.map(standing);
        let kept = |keep| halving(keep, KeepBy::Front).kept(&standings);
        // The front is 3, 4, 2; then 1 before 0.
        assert_eq!(kept(0.2), [3]);
        assert_eq!(kept(0.4), [3, 4]);
        assert_eq!(kept(0.6), [2, 3, 4], "2 is on the front, 1 has the higher top-1");
        assert_eq!(kept(0.8), [1, 2, 3, 4], "0 and 1 are on the second front");
        // A chain of three: each front is one child.
        let chain = [(0.3, 30, 30), (0.5, 10, 10), (0.4, 20, 20), (0.45, 25, 9)].map(standing);
        assert_eq!(fronts(&chain), [2, 0, 1, 0]);
    }

    #[test]
    fn stopped_children_are_estimated_below_those_ahead_of_them() {
        let went_on = |pairs: &[(f64, f64)]| -> Vec<WentOn> {
            pairs.iter().map(|&(there, score)| WentOn { there, score }).collect()
        };
        // Gains of 0.25 and 0.125.
        let two = went_on(&[(0.5, 0.75), (0.5, 0.625)]);
        assert_eq!(Halving::estimate(0.25, &two), 0.25 + 0.1875);
        assert_eq!(Halving::estimate(0.5, &two), 0.625_f64.next_down());
        // Kept for its costs: what was better at the milestone may stay so.
        assert_eq!(Halving::estimate(0.5, &went_on(&[(0.75, 0.875), (0.25, 0.375)])), 0.625);
        assert_eq!(Halving::estimate(0.5, &[]), 0.5, "all others diverged");
        assert_eq!(Halving::estimate(0.0, &went_on(&[(0.0, 0.0)])), 0.0, "no score is below 0");
        assert_eq!(Halving::estimate(0.1, &went_on(&[(0.75, 0.25)])), 0.0);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let verify =
            |epochs: &[usize], keep| Halving { epochs: epochs.to_vec(), keep, keep_by: KeepBy::Top1 }.verify(4);
        assert_eq!(verify(&[1, 2, 3], 1.0), Ok(()));
        for (epochs, keep, field) in [
            (&[][..], 0.5, "epochs"),
            (&[2, 2], 0.5, "epochs"),
            (&[3, 1], 0.5, "epochs"),
            (&[0, 1], 0.5, "epochs"),
            (&[1, 4], 0.5, "epochs"),
            (&[1], 0.0, "keep"),
            (&[1], 1.01, "keep"),
            (&[1], f64::NAN, "keep"),
        ] {
            let error = verify(epochs, keep).unwrap_err();
            assert!(error.0.len() == 1 && error.0[0].contains(&format!("halving.{field} is")), "{error}");
        }
        let read = serde_json::from_str::<Halving>(r#"{"epochs": [1], "keep_by": "front"}"#).unwrap();
        assert_eq!(read, Halving { epochs: vec![1], keep: 0.5, keep_by: KeepBy::Front });
    }
}
