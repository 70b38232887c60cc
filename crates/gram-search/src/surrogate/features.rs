//! What a surrogate sees of a point.

use crate::domain::{Domain, Histogram, Point};

/// Features of a class, both parts of unit length.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// One-hot decisions, averaged over the class's members: what was chosen where.
    choices: Vec<f64>,
    /// What the points compute, wherever that was chosen.
    histogram: Histogram,
}

impl Features {
    /// Features of a point; equal for all members of its class.
    pub fn of(point: &Point, domain: &dyn Domain) -> Self {
        let starts: Vec<usize> = domain
            .decisions()
            .iter()
            .scan(0, |next, decision| Some(std::mem::replace(next, *next + usize::from(decision.n_values()))))
            .collect();
        let n_choices = domain.decisions().iter().map(|decision| usize::from(decision.n_values())).sum();
        let mut choices = vec![0.0; n_choices];
        for member in domain.members(point) {
            for (start, &value) in starts.iter().zip(member.values()) {
                choices[start + usize::from(value)] += 1.0;
            }
        }
        let norm = choices.iter().map(|x| x * x).sum::<f64>().sqrt();
        choices.iter_mut().for_each(|x| *x /= norm.max(f64::MIN_POSITIVE));
        let histogram = domain.histogram(point);
        let norm = histogram.dot(&histogram).sqrt().max(f64::MIN_POSITIVE);
        let histogram = histogram.counts().iter().map(|&(name, count)| (name, count / norm)).collect();
        Self { choices, histogram }
    }

    /// Cosine of the decisions and of the histograms; features of one class have 1 and 1.
    pub fn similarity(&self, other: &Self) -> Similarity {
        Similarity {
            choices: self.choices.iter().zip(&other.choices).map(|(a, b)| a * b).sum(),
            histogram: self.histogram.dot(&other.histogram),
        }
    }
}

/// How much two points have in common, each `0..=1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// In their decisions.
    pub choices: f64,
    /// In what they compute.
    pub histogram: f64,
}
