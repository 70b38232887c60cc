//! What a strategy was told.

use std::collections::BTreeMap;

use crate::domain::{ClassKey, Domain, Point};

use super::Round;

/// An evaluated point.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The member of its class that was evaluated.
    pub point: Point,
    /// What it computes.
    pub class: ClassKey,
    /// Its score; `None` if it diverged.
    pub score: Option<f64>,
}

/// Evaluated points in the order of evaluation, one for each class.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Vec<Evaluated>,
    by_class: BTreeMap<ClassKey, usize>,
}

impl History {
    /// All that was evaluated, first to last.
    pub fn entries(&self) -> &[Evaluated] {
        &self.entries
    }

    /// Whether the class was evaluated.
    pub fn contains(&self, class: &ClassKey) -> bool {
        self.by_class.contains_key(class)
    }

    /// The evaluation of a class.
    pub fn get(&self, class: &ClassKey) -> Option<&Evaluated> {
        self.by_class.get(class).map(|&index| &self.entries[index])
    }

    /// The frozen score of a point's class, minus infinity if it diverged; `None` if it was not evaluated.
    pub fn score_of(&self, point: &Point, domain: &dyn Domain) -> Option<f64> {
        self.get(&domain.class_of(point)).map(|evaluated| evaluated.score.unwrap_or(f64::NEG_INFINITY))
    }

    /// Indices of scored entries, best first; the earlier one of equals first.
    pub fn ranked(&self) -> Vec<usize> {
        let score = |index: usize| self.entries[index].score.unwrap_or(f64::NEG_INFINITY);
        let mut order: Vec<usize> =
            (0..self.entries.len()).filter(|&index| self.entries[index].score.is_some()).collect();
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        order
    }

    /// Adds a round with its scores; a score that is not finite counts as none.
    pub(super) fn extend(&mut self, round: Round, scores: &[Option<f64>]) {
        let scores = scores.iter().copied().chain(std::iter::repeat(None));
        for ((point, class), score) in round.points.into_iter().zip(round.classes).zip(scores) {
            self.by_class.entry(class).or_insert_with(|| {
                self.entries.push(Evaluated { point, class, score: score.filter(|score| score.is_finite()) });
                self.entries.len() - 1
            });
        }
    }
}
