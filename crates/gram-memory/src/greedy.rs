//! Quick orders: upper bounds of the least peak.

use crate::follow::{Follower, Move, peak_of};
use crate::problem::Problem;

/// Parts with more steps are left in their plain order: the greedy orders take time of the order of its square.
const MAX_STEPS: usize = 4096;

/// An order of a part.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) steps: Vec<u32>,
    /// Most bytes that are alive at one time.
    pub(crate) peak: u64,
}

impl Order {
    pub(crate) fn new(problem: &Problem, steps: Vec<u32>) -> Self {
        Self { peak: peak_of(problem, steps.iter().copied()), steps }
    }
}

/// The best of the plain order, whose peak is `plain_peak`, and of two greedy ones; the first of equals.
pub(crate) fn best_quick_order(problem: &Problem, plain_peak: u64) -> Order {
    let plain = Order { steps: (0..problem.len() as u32).collect(), peak: plain_peak };
    if problem.len() > MAX_STEPS {
        return plain;
    }
    let least_after = |step: &Move| (step.after, step.during, step.step);
    let least_during = |step: &Move| (step.during, step.after, step.step);
    [greedy(problem, least_after), greedy(problem, least_during)]
        .into_iter()
        .fold(plain, |best, next| if next.peak < best.peak { next } else { best })
}

/// Executes, over and over, the step that costs nothing, or else the one that is least by `rank`.
///
/// A step costs nothing if it leaves no more bytes alive than before, and reaches no new peak: whatever else is done, it can be done first
/// (see [`search`](crate::exact::search)).
fn greedy(problem: &Problem, rank: impl Fn(&Move) -> (u64, u64, u32)) -> Order {
    let mut follower = Follower::new(problem);
    loop {
        let free = |step: &Move| step.after <= follower.live() && step.during <= follower.peak();
        let next = follower.moves().find(free).or_else(|| follower.moves().min_by_key(&rank));
        match next {
            Some(step) => follower.execute(step.step),
            None => break,
        }
    }
    let (steps, peak) = follower.finish();
    Order { steps, peak }
}
