//! Schedules of whole graphs: part by part, bounds first, then the exact search.

use std::collections::BTreeMap;

use gram_ir::{MemoryModel, Network};
use serde::Serialize;

use crate::bound::{lower_bound, working_set};
use crate::exact::{Outcome, Searched, search};
use crate::greedy::{Order, best_quick_order};
use crate::live::Tracker;
use crate::parts::part_ends;
use crate::problem::{LocalIds, Problem};
use crate::{MemoryError, MemoryGraph, StepId};

/// Searches within a budget, where the exact search did not end.
const MAX_PROBES: usize = 6;

/// States that the search of each part may visit in [`plan`](crate::plan()) and its kin.
pub const DEFAULT_MAX_STATES: u64 = 1 << 19;

/// Parts with more steps are not searched exactly.
pub const MAX_EXACT_STEPS: usize = 512;

/// An order of all steps of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// All steps.
    pub order: Vec<StepId>,
    /// The most bytes that are alive at one time.
    pub peak_bytes: u64,
    /// No order has a lower peak than this; equal to the peak where the schedule is exact.
    pub lower_bound_bytes: u64,
    /// The most bytes that are alive at one time in plain order.
    pub plain_peak_bytes: u64,
    /// The parts that were scheduled alone, in execution order.
    pub parts: Vec<Part>,
}

/// A part of a schedule: steps between two that every order passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Position of its first step in the schedule, and in the plain order.
    pub first_step: usize,
    /// Number of steps.
    pub steps: usize,
    /// The most bytes that are alive at one time in it.
    pub peak_bytes: u64,
    /// No order has a lower peak in it than this.
    pub lower_bound_bytes: u64,
    /// The most bytes that are alive at one time in plain order.
    pub plain_peak_bytes: u64,
    /// Sets of executed steps that the exact search visited; 0 where the bounds met without it.
    pub states: u64,
}

impl Schedule {
    /// Whether no order has a lower peak.
    pub fn is_exact(&self) -> bool {
        self.peak_bytes == self.lower_bound_bytes
    }
}

impl Part {
    /// Whether no order has a lower peak in this part.
    pub fn is_exact(&self) -> bool {
        self.peak_bytes == self.lower_bound_bytes
    }
}

/// Whether a network's maps fit into so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// There is an order with this peak or a lower one.
    Fits {
        /// A peak within the limit, not necessarily the least.
        peak_bytes: u64,
    },
    /// There is none.
    Exceeds {
        /// Every order takes this much.
        at_least_bytes: u64,
    },
    /// The allowance of states was spent before it was known. A hard limit has to take it for too large.
    Undecided {
        /// Every order takes this much.
        at_least_bytes: u64,
        /// An order with this peak is known.
        at_most_bytes: u64,
    },
}

impl Fit {
    /// Whether it is certain that an order keeps the limit.
    pub fn fits(self) -> bool {
        matches!(self, Self::Fits { .. })
    }
}

/// The order with the least peak, as far as `max_states` sets of executed steps in each part of at most 64 steps allow to find it (half
/// as many with up to 128 steps, a 16th with up to [`MAX_EXACT_STEPS`]).
///
/// Exact for every part of at most [`MAX_EXACT_STEPS`] steps whose search ends within the allowance; for others the best of quick orders and
/// of searches within a budget, with a proven lower bound beside it. Depends on nothing but the arguments.
///
/// # Complexity
/// A part visits at most twice `max_states` sets of up to 64 steps, or so many fewer as they are larger; one that is too large to be searched takes time of the order of its square.
/// # Source
/// Ahn et al., "Ordering chaos: memory-aware scheduling of irregularly wired neural networks for edge devices",
/// [arXiv:2003.02369](https://arxiv.org/abs/2003.02369) (ALGORITHMS section 5).
pub fn schedule(graph: &MemoryGraph, max_states: u64) -> Schedule {
    let mut order = Vec::with_capacity(graph.steps().len());
    let mut parts = Vec::new();
    for_each_part(graph, |work| {
        let (steps, part) = work.solve(max_states);
        order.extend(steps.iter().map(|&step| StepId((work.first + step as usize) as u32)));
        parts.push(part);
        true
    });
    let inputs = graph.input_bytes();
    let highest = |bytes: fn(&Part) -> u64| parts.iter().map(bytes).max().unwrap_or(0).max(inputs);
    Schedule {
        order,
        peak_bytes: highest(|part| part.peak_bytes),
        lower_bound_bytes: highest(|part| part.lower_bound_bytes),
        plain_peak_bytes: highest(|part| part.plain_peak_bytes),
        parts,
    }
}

/// Peaks of many networks that have parts in common, as those of one study do: equal parts are searched once.
///
/// # Example
/// ```
/// use gram_ir::preset;
/// use gram_memory::{MemoryModel, Peaks, peak_bytes};
/// let network = preset("swiftnet-vww", None, None)?.lower()?;
/// let engine = MemoryModel::default();
/// let mut peaks = Peaks::default();
/// assert_eq!(peaks.peak_bytes(&network, &engine)?, peak_bytes(&network, &engine)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Peaks {
    /// The peak that was found for each part.
    solved: BTreeMap<Problem, u64>,
}

impl Peaks {
    /// As [`peak_bytes`](crate::peak_bytes).
    ///
    /// # Errors
    /// As [`peak_bytes`](crate::peak_bytes).
    pub fn peak_bytes(&mut self, network: &Network, engine: &MemoryModel) -> Result<u64, MemoryError> {
        let graph = MemoryGraph::from_network(network, engine)?;
        let mut peak = graph.input_bytes();
        for_each_part(&graph, |work| {
            let plain_peak = work.plain_peak;
            let of_part = match work.problem {
                Some(problem) => match self.solved.get(&problem) {
                    Some(&known) => known,
                    None => {
                        let found = solve(&problem, plain_peak, DEFAULT_MAX_STATES).order.peak;
                        self.solved.insert(problem, found);
                        found
                    }
                },
                None => plain_peak,
            };
            peak = peak.max(of_part);
            true
        });
        Ok(peak)
    }
}

/// Whether some order keeps within `max_bytes`.
///
/// Much quicker than [`schedule`]: parts whose plain order keeps the limit are not looked at, those whose lower bound breaks it end it, and
/// what is left is searched for an order within the limit, not for the best.
pub fn fits(graph: &MemoryGraph, max_bytes: u64, max_states: u64) -> Fit {
    let inputs = graph.input_bytes();
    let (mut at_least, mut at_most) = (inputs, inputs);
    // Bounds of all parts first: the search of one is wasted if another breaks the limit anyway.
    let mut open: Vec<(Problem, u64)> = Vec::new();
    for_each_part(graph, |work| {
        if work.plain_peak <= max_bytes {
            at_most = at_most.max(work.plain_peak);
            return true;
        }
        let Some(problem) = work.problem else {
            at_least = at_least.max(work.plain_peak);
            return false;
        };
        let bound = bound_of(&problem);
        at_least = at_least.max(bound);
        if bound <= max_bytes {
            let quick_peak = best_quick_order(&problem, work.plain_peak).peak;
            if quick_peak <= max_bytes {
                at_most = at_most.max(quick_peak);
            } else {
                open.push((problem, quick_peak));
            }
        }
        bound <= max_bytes
    });
    if at_least > max_bytes {
        return Fit::Exceeds { at_least_bytes: at_least };
    }
    let mut undecided = false;
    for (problem, quick_peak) in &open {
        let searched = search_within(problem, max_bytes, max_bytes.saturating_add(1), max_states);
        match searched.outcome {
            Outcome::Order(steps) => at_most = at_most.max(Order::new(problem, steps).peak),
            Outcome::NoneBelowCeiling => return Fit::Exceeds { at_least_bytes: max_bytes + 1 },
            Outcome::OutOfStates => {
                undecided = true;
                at_most = at_most.max(*quick_peak);
            }
        }
    }
    if undecided {
        Fit::Undecided { at_least_bytes: at_least, at_most_bytes: at_most }
    } else {
        Fit::Fits { peak_bytes: at_most }
    }
}

/// One part, about to be scheduled.
struct Work {
    first: usize,
    plain_peak: u64,
    /// None for a single step, of which there is one order.
    problem: Option<Problem>,
}

/// Hands out the parts in order until `each` says that it has seen enough.
fn for_each_part(graph: &MemoryGraph, mut each: impl FnMut(Work) -> bool) {
    let mut tracker = Tracker::new(graph);
    let mut ids = LocalIds::new(graph);
    let mut first = 0;
    for end in part_ends(graph) {
        let problem = (end - first > 1).then(|| Problem::new(graph, [first, end], &tracker, &mut ids));
        let during = (first..end).map(|step| tracker.execute(StepId(step as u32)));
        let plain_peak = during.max().unwrap_or(0);
        if !each(Work { first, plain_peak, problem }) {
            return;
        }
        first = end;
    }
}

impl Work {
    /// An order of the part's steps, counted from its first.
    fn solve(&self, max_states: u64) -> (Vec<u32>, Part) {
        let solved = match &self.problem {
            Some(problem) => solve(problem, self.plain_peak, max_states),
            None => {
                Solved { order: Order { steps: vec![0], peak: self.plain_peak }, bound: self.plain_peak, states: 0 }
            }
        };
        let part = Part {
            first_step: self.first,
            steps: solved.order.steps.len(),
            peak_bytes: solved.order.peak,
            lower_bound_bytes: solved.bound,
            plain_peak_bytes: self.plain_peak,
            states: solved.states,
        };
        (solved.order.steps, part)
    }
}

struct Solved {
    order: Order,
    /// No order has a lower peak.
    bound: u64,
    states: u64,
}

fn solve(problem: &Problem, plain_peak: u64, max_states: u64) -> Solved {
    let mut solved = Solved { order: best_quick_order(problem, plain_peak), bound: bound_of(problem), states: 0 };
    if problem.len() > MAX_EXACT_STEPS || max_states == 0 || solved.order.peak == solved.bound {
        return solved;
    }
    let searched = search_within(problem, solved.bound, solved.order.peak, max_states);
    solved.states = searched.states;
    solved.bound = searched.level;
    match searched.outcome {
        Outcome::Order(steps) => solved.order = Order::new(problem, steps),
        Outcome::NoneBelowCeiling => {}
        Outcome::OutOfStates => solved.narrow(problem, max_states / 16),
    }
    solved
}

impl Solved {
    /// The soft budget: searches within budgets between the bound and the best order, each with a small allowance.
    ///
    /// A budget in which an order is found is lowered, one that spends its allowance is raised, halfway each time.
    fn narrow(&mut self, problem: &Problem, max_states: u64) {
        let mut low = self.bound;
        for _ in 0..MAX_PROBES {
            if low >= self.order.peak {
                return;
            }
            let budget = low + (self.order.peak - 1 - low) / 2;
            let searched = search_within(problem, budget, budget + 1, max_states);
            self.states += searched.states;
            match searched.outcome {
                Outcome::Order(steps) => self.order = Order::new(problem, steps),
                Outcome::NoneBelowCeiling => {
                    self.bound = budget + 1;
                    low = budget + 1;
                }
                Outcome::OutOfStates => low = budget + 1,
            }
        }
    }
}

fn bound_of(problem: &Problem) -> u64 {
    match problem.len() {
        0..=64 => lower_bound::<1>(problem),
        65..=128 => lower_bound::<2>(problem),
        129..=MAX_EXACT_STEPS => lower_bound::<8>(problem),
        _ => working_set(problem),
    }
}

/// [`search`] with sets as small as the part allows; parts of more than [`MAX_EXACT_STEPS`] steps are not searched.
///
/// Sets of more words have more steps to go on with, each of which takes longer: fewer are allowed.
fn search_within(problem: &Problem, floor: u64, ceiling: u64, max_states: u64) -> Searched {
    match problem.len() {
        0..=64 => search::<1>(problem, floor, ceiling, max_states),
        65..=128 => search::<2>(problem, floor, ceiling, max_states / 2),
        129..=MAX_EXACT_STEPS => search::<8>(problem, floor, ceiling, max_states / 16),
        _ => Searched { outcome: Outcome::OutOfStates, level: floor, states: 0 },
    }
}
