//! Joining the stages: from candidates of each stage to combinations that none beats.

use std::collections::BTreeMap;

use gram_ir::{Limits, Shape};

use crate::candidates::StageCandidate;
use crate::costs::{Costs, Part, PartCost};
use crate::pareto::{Weighed, keep_undominated};

/// One candidate of each stage, with what they add up to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Combination {
    /// Index of the candidate, stage by stage.
    pub(crate) picks: Vec<usize>,
    /// Stem and head included.
    pub(crate) cost: PartCost,
    pub(crate) retained_weight: f64,
}

/// A network up to some stage.
#[derive(Clone, Copy, Debug)]
struct State {
    part: Part,
    retained_weight: f64,
    /// Index of the state one stage before.
    parent: usize,
    /// Candidate of the last stage.
    pick: usize,
}

impl Weighed for State {
    fn cost(&self) -> PartCost {
        self.part.cost
    }

    fn retained_weight(&self) -> f64 {
        self.retained_weight
    }
}

/// So many states are gathered before the dominated ones are thrown away, to bound memory.
const GATHERED: usize = 1 << 16;

/// The combinations within the limits that no other dominates in retained weight, MACs and params, best first.
///
/// Stage by stage, states that give the same shape are compared: what follows costs them the same, so a dominated one can go. States that
/// exceed a limit even with the least that can follow go as well, and so do parts that break the limit on peak bytes on their own.
///
/// # Source
/// ALGORITHMS 1.6, step 3 \[ours\].
/// # Complexity
/// Per stage, states × undominated candidates, times the logarithm of the number kept.
pub(crate) fn join(candidates: &[Vec<StageCandidate>], costs: &Costs, limits: &Limits) -> Vec<Combination> {
    if !costs.stem.keeps_peak {
        return Vec::new();
    }
    let least_behind = costs.least_behind();
    let mut layers = vec![vec![State { part: costs.stem, retained_weight: 0.0, parent: 0, pick: 0 }]];
    for (index, stage) in candidates.iter().enumerate() {
        let least = &least_behind[index + 1];
        let in_reach = |part: &Part| least.get(&part.output).is_some_and(|&rest| (part.cost + rest).is_within(limits));
        let steps = steps(stage, &costs.stages[index]);
        let mut next = ByShape::default();
        for (parent, state) in layers[index].iter().enumerate() {
            for step in &steps[&state.part.output] {
                let part = Part { cost: state.part.cost + step.part.cost, ..step.part };
                if in_reach(&part) {
                    let retained_weight = state.retained_weight + step.retained_weight;
                    next.push(State { part, retained_weight, parent, pick: step.pick });
                }
            }
        }
        layers.push(next.into_states());
    }
    let mut ends: Vec<State> = layers[candidates.len()].clone();
    for (index, end) in ends.iter_mut().enumerate() {
        end.part.cost = end.part.cost + costs.head(end.part.output);
        end.parent = index;
    }
    ends.retain(|end| costs.head_keeps_peak(end.part.output));
    keep_undominated(&mut ends);
    ends.iter().map(|end| trace(end, &layers)).collect()
}

/// For each input shape, the stage's candidates as states of their own, without those that another one dominates.
fn steps(stage: &[StageCandidate], priced: &BTreeMap<Shape, Vec<Option<Part>>>) -> BTreeMap<Shape, Vec<State>> {
    let steps_of = |parts: &[Option<Part>]| {
        let mut steps = ByShape::default();
        for (pick, (part, candidate)) in parts.iter().zip(stage).enumerate() {
            if let Some(part) = part.filter(|part| part.keeps_peak) {
                steps.push(State { part, retained_weight: candidate.retained_weight, parent: 0, pick });
            }
        }
        steps.into_states()
    };
    priced.iter().map(|(&shape, parts)| (shape, steps_of(parts))).collect()
}

/// States apart by the shape that they give.
#[derive(Default)]
struct ByShape(BTreeMap<Shape, Gathering>);

#[derive(Default)]
struct Gathering {
    states: Vec<State>,
    /// How many of them are known not to dominate each other.
    n_compared: usize,
}

impl ByShape {
    fn push(&mut self, state: State) {
        let Gathering { states, n_compared } = self.0.entry(state.part.output).or_default();
        states.push(state);
        if states.len() >= 2 * *n_compared + GATHERED {
            keep_undominated(states);
            *n_compared = states.len();
        }
    }

    /// The undominated states of each shape.
    fn into_states(self) -> Vec<State> {
        let undominated = |mut gathering: Gathering| {
            keep_undominated(&mut gathering.states);
            gathering.states
        };
        self.0.into_values().flat_map(undominated).collect()
    }
}

/// Follows the parents of an end, whose own parent is its place in the last layer.
fn trace(end: &State, layers: &[Vec<State>]) -> Combination {
    let mut picks = Vec::with_capacity(layers.len() - 1);
    let mut at = end.parent;
    for layer in layers[1..].iter().rev() {
        picks.push(layer[at].pick);
        at = layer[at].parent;
    }
    picks.reverse();
    Combination { picks, cost: end.part.cost, retained_weight: end.retained_weight }
}
