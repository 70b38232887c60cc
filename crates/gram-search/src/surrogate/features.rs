//! What a surrogate sees of a point.

use std::collections::BTreeMap;

use crate::domain::{Domain, Histogram, Point};

/// Features of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// One-hot decisions, averaged over the class's members and of unit length: what was chosen where.
    pub(super) choices: Histogram,
    /// Roots of the counts of what the points compute, wherever that was chosen: not scaled, for size matters.
    pub(super) computes: Histogram,
}

impl Features {
    /// Features of a point; equal for all members of its class.
    pub fn of(point: &Point, domain: &dyn Domain) -> Self {
        let one_hot = |member: Point| {
            let choice = |(decision, &value): (usize, &u8)| ((decision as u64) << 8 | u64::from(value), 1.0);
            member.values().iter().enumerate().map(choice).collect::<Vec<_>>()
        };
        let choices: Histogram = domain.members(point).into_iter().flat_map(one_hot).collect();
        let computes = domain.histogram(point).counts().iter().map(|&(name, count)| (name, count.sqrt())).collect();
        Self { choices: unit(&choices), computes }
    }
}

fn unit(counts: &Histogram) -> Histogram {
    let norm = counts.dot(counts).sqrt().max(f64::MIN_POSITIVE);
    counts.counts().iter().map(|&(name, count)| (name, count / norm)).collect()
}

/// Counts of examples by name, so that a point meets only examples with which it has something in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Postings {
    lists: BTreeMap<u64, Vec<(usize, f64)>>,
    n_examples: usize,
}

impl Postings {
    pub(super) fn push(&mut self, counts: &Histogram) {
        for &(name, count) in counts.counts() {
            self.lists.entry(name).or_default().push((self.n_examples, count));
        }
        self.n_examples += 1;
    }

    /// The product with every example.
    pub(super) fn dots(&self, counts: &Histogram) -> Vec<f64> {
        let mut dots = vec![0.0; self.n_examples];
        for (name, count) in counts.counts() {
            for &(example, theirs) in self.lists.get(name).into_iter().flatten() {
                dots[example] += count * theirs;
            }
        }
        dots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_multiply_with_every_example() {
        let examples: Vec<Histogram> =
            vec![[(1, 2.0), (5, 1.0)].into_iter().collect(), [(2, 3.0)].into_iter().collect(), Histogram::default()];
        let mut postings = Postings::default();
        examples.iter().for_each(|example| postings.push(example));
        let other: Histogram = [(1, 1.0), (2, 2.0), (9, 4.0)].into_iter().collect();
        assert_eq!(postings.dots(&other), examples.iter().map(|example| example.dot(&other)).collect::<Vec<_>>());
    }
}
