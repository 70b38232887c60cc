//! Networks with all their costs, and which of them no other beats.

use std::cmp::Ordering;

use gram_ir::{Architecture, Cost};

use crate::{Expectation, Latency};

/// A network that keeps the limits, with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Cells with live nodes only; ids are those of the complete DAGs.
    pub architecture: Architecture,
    /// Where it comes from.
    pub origin: Origin,
    /// Exact costs.
    pub cost: Cost,
    /// Least peak bytes that were found for the engine of the limits.
    pub peak_bytes: u64,
    /// Predicted latency; none without a device, or where the device's table lacks an operator.
    pub latency: Option<Latency>,
    /// Expected validation top-1; none without a model of it.
    pub expected: Option<Expectation>,
    /// Sum of the log-odds `ln(w / (1 − w))` of all edges.
    pub retained_weight: f64,
}

/// Where a network comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// One threshold per stage leaves it; the largest ones that do.
    Thresholds(Vec<f64>),
    /// The caller proposed it, with this number: a child of the study.
    Given(usize),
    /// So many single-edge swaps lead to it from the best of the others.
    Repaired(usize),
}

impl Choice {
    /// What networks are ranked by: expected top-1, or retained weight where nothing is expected.
    pub fn merit(&self) -> f64 {
        self.expected.map_or(self.retained_weight, |expected| expected.mean)
    }

    /// Upper end of the predicted latency; infinite where there is none.
    fn high_ms(&self) -> f64 {
        self.latency.map_or(f64::INFINITY, |latency| latency.high_ms)
    }

    fn costs(&self) -> [u64; 3] {
        [self.cost.macs.0, self.cost.params.0, self.peak_bytes]
    }

    /// Whether it is no worse in all four costs and in merit.
    fn is_no_worse(&self, other: &Self) -> bool {
        self.costs().iter().zip(other.costs()).all(|(own, theirs)| *own <= theirs)
            && self.high_ms() <= other.high_ms()
            && self.merit() >= other.merit()
    }
}

/// The choices that no other beats, best first: by merit, then fewer MACs, params, peak bytes, milliseconds.
///
/// One beats another if it costs no more MACs, params, peak bytes and milliseconds (upper ends of predictions) and its merit is no less,
/// and differs in one of these; of equals in all five the first stands. Choices of several spaces may be joined if their merits come from one
/// model.
///
/// # Complexity
/// Number of choices times size of the result.
pub fn pareto(mut choices: Vec<Choice>) -> Vec<Choice> {
    choices.sort_by(by_rank);
    let mut front: Vec<Choice> = Vec::new();
    for choice in choices {
        // What beats it stands before it.
        if !front.iter().any(|other| other.is_no_worse(&choice)) {
            front.push(choice);
        }
    }
    front
}

fn by_rank(a: &Choice, b: &Choice) -> Ordering {
    b.merit().total_cmp(&a.merit()).then_with(|| a.costs().cmp(&b.costs())).then(a.high_ms().total_cmp(&b.high_ms()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::{Activation, Head, Macs, Params, Shape};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn choice(number: usize, (macs, params, peak_bytes, ms, top1): (u64, u64, u64, Option<u8>, u8)) -> Choice {
        let architecture = Architecture {
            name: "none".into(),
            input: Shape::chw(1, 1, 1),
            num_classes: 2,
            activation: Activation::Relu,
            stem: Vec::new(),
            stages: Vec::new(),
            head: Head::default(),
        };
        let latency = |ms: f64| Latency { ms, low_ms: ms, high_ms: ms };
        let mean = f64::from(top1) / 10.0;
        Choice {
            architecture,
            origin: Origin::Given(number),
            cost: Cost { macs: Macs(macs), params: Params(params), ..Cost::default() },
            peak_bytes,
            latency: ms.map(|ms| latency(f64::from(ms))),
            expected: Some(Expectation { mean, sd: 0.0, low: mean, high: mean }),
            retained_weight: 0.0,
        }
    }

    proptest! {
        /// As the definition says, pair by pair.
        #[test]
        fn the_front_is_what_nothing_beats(
            points in vec((0..5u64, 0..5u64, 0..5u64, prop::option::of(0..4u8), 0..5u8), 0..40),
        ) {
            let all: Vec<Choice> = points.iter().enumerate().map(|(i, &point)| choice(i, point)).collect();
            let differs = |a: &Choice, b: &Choice| (a.costs(), a.high_ms(), a.merit()) != (b.costs(), b.high_ms(), b.merit());
            let beats = |a: usize, b: usize| all[a].is_no_worse(&all[b]) && (differs(&all[a], &all[b]) || a < b);
            let expected: Vec<usize> = (0..all.len()).filter(|&b| !(0..all.len()).any(|a| a != b && beats(a, b))).collect();
            let front = pareto(all.clone());
            prop_assert!(front.is_sorted_by(|a, b| a.merit() >= b.merit()));
            let mut found: Vec<usize> = front
                .iter()
                .map(|choice| if let Origin::Given(number) = choice.origin { number } else { usize::MAX })
                .collect();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
