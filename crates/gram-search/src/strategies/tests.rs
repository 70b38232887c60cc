//! What every strategy keeps.

use std::collections::BTreeSet;

use super::*;
use crate::domain::{ClassKey, Decision, Histogram};

/// Twelve switches of three values; the first two may be exchanged, the first four may not all be off.
struct Switches(Vec<Decision>);

impl Switches {
    fn new() -> Self {
        Self((0..12).map(|i| Decision::new(format!("switch{i}"), 3)).collect())
    }

    /// Highest, 24, where all switches are at 2; an exchange of the first two changes nothing.
    fn score(point: &Point) -> f64 {
        point.values().iter().map(|&value| f64::from(value)).sum()
    }
}

impl Domain for Switches {
    fn decisions(&self) -> &[Decision] {
        &self.0
    }
    fn is_feasible(&self, point: &Point) -> bool {
        point.values()[..4].iter().any(|&value| value > 0)
    }
    fn class_of(&self, point: &Point) -> ClassKey {
        let mut values = point.values().to_vec();
        values[..2].sort_unstable();
        ClassKey::of_bytes(&values)
    }
    fn members(&self, point: &Point) -> Vec<Point> {
        let mut both = point.values().to_vec();
        both[..2].sort_unstable();
        let (first, mut second) = (Point::from(both.clone()), Point::from(both));
        second.swap(0, 1);
        if first == second { vec![first] } else { vec![first, second] }
    }
    fn histogram(&self, point: &Point) -> Histogram {
        point.values().iter().map(|&value| (u64::from(value), 1.0)).collect()
    }
    fn removal(&self, _decision: usize) -> Option<u8> {
        Some(0)
    }
}

fn strategies(seed: u64) -> Vec<Box<dyn DomainStrategy>> {
    vec![
        Box::new(RandomSearch::new(seed)),
        Box::new(LocalSearch::new(seed)),
        Box::new(RegularisedEvolution::new(seed, EvolutionConfig::default())),
        Box::new(AutoShrink::new(seed)),
        Box::new(GramSearch::new(seed, GramConfig::default())),
    ]
}

/// All points asked for until there are `n`; every seventh diverges.
fn search(strategy: &mut dyn DomainStrategy, n: usize, batch: usize) -> Vec<Point> {
    let domain = Switches::new();
    let mut asked: Vec<Point> = Vec::new();
    while asked.len() < n {
        let points = strategy.ask(batch, &domain);
        assert!(!points.is_empty() && points.len() <= batch, "{}", strategy.name());
        let diverges = |index: usize| (asked.len() + index) % 7 == 6;
        let score = |(index, point): (usize, &Point)| (!diverges(index)).then(|| Switches::score(point));
        let scores: Vec<Option<f64>> = points.iter().enumerate().map(score).collect();
        asked.extend(points);
        strategy.tell(&scores, &domain);
    }
    asked
}

#[test]
fn points_are_feasible_and_of_new_classes() {
    let domain = Switches::new();
    for batch in [1, 4, 16] {
        for mut strategy in strategies(3) {
            let asked = search(strategy.as_mut(), 80, batch);
            let classes: BTreeSet<ClassKey> = asked.iter().map(|point| domain.class_of(point)).collect();
            assert_eq!(classes.len(), asked.len(), "{} {batch}", strategy.name());
            assert!(asked.iter().all(|point| domain.is_feasible(point)), "{} {batch}", strategy.name());
        }
    }
}

#[test]
fn equal_seeds_ask_for_equal_points() {
    for (mut first, mut second) in strategies(5).into_iter().zip(strategies(5)) {
        assert_eq!(search(first.as_mut(), 60, 4), search(second.as_mut(), 60, 4), "{}", first.name());
    }
    for (mut first, mut second) in strategies(5).into_iter().zip(strategies(6)) {
        assert_ne!(search(first.as_mut(), 20, 4), search(second.as_mut(), 20, 4), "{}", first.name());
    }
}

#[test]
fn gram_climbs_an_additive_score() {
    let best = |asked: &[Point]| asked.iter().map(Switches::score).fold(0.0, f64::max);
    let gram: Vec<f64> =
        (0..5).map(|seed| best(&search(&mut GramSearch::new(seed, GramConfig::default()), 60, 1))).collect();
    let random: Vec<f64> = (0..5).map(|seed| best(&search(&mut RandomSearch::new(seed), 60, 1))).collect();
    assert!(gram.iter().all(|&score| score >= 23.0), "{gram:?}");
    assert!(random.iter().all(|&score| score < 22.0), "{random:?}");
}

/// Switches with prices of 1, 2, 3, … within a budget.
struct Shop {
    decisions: Vec<Decision>,
    budget: u32,
}

impl Shop {
    fn new(n: usize, budget: u32) -> Self {
        Self { decisions: (0..n).map(|i| Decision::new(format!("switch {i}"), 2)).collect(), budget }
    }
}

impl Domain for Shop {
    fn decisions(&self) -> &[Decision] {
        &self.decisions
    }
    fn is_feasible(&self, point: &Point) -> bool {
        point.values().iter().zip(1..).map(|(&on, price)| u32::from(on) * price).sum::<u32>() <= self.budget
    }
    fn class_of(&self, point: &Point) -> ClassKey {
        ClassKey::of_bytes(point.values())
    }
    fn histogram(&self, point: &Point) -> Histogram {
        point.values().iter().zip(0..).map(|(&on, name)| (name, f64::from(on))).collect()
    }
    fn removal(&self, _decision: usize) -> Option<u8> {
        Some(0)
    }
}

#[test]
fn pairs_of_edits_trade_under_a_hard_limit() {
    let domain = Shop::new(8, 12);
    let full = Point::from([0, 0, 0, 1, 0, 0, 0, 1]);
    let with_two_on = |pairs| {
        let config = GramConfig { pairs, draws: 0, exploration: 0.0, founders: 2, ..GramConfig::default() };
        let mut search = GramSearch::new(1, config);
        search.learn([full.clone(), Point::from([0; 8])], &[Some(0.9), Some(0.1)], &domain);
        let asked = search.ask(8, &domain);
        assert!(asked.iter().all(|point| domain.is_feasible(point) && *point != full));
        asked.iter().filter(|point| point.values().iter().sum::<u8>() == 2).count()
    };
    assert_eq!(with_two_on(0), 0, "one edit from a spent budget leaves one switch on");
    assert!(with_two_on(400) > 0);
}

#[test]
fn a_small_domain_is_exhausted() {
    let domain = Shop::new(2, 3);
    for mut strategy in strategies(1) {
        let mut n = 0;
        loop {
            let points = strategy.ask(3, &domain);
            if points.is_empty() {
                break;
            }
            n += points.len();
            strategy.tell(&vec![Some(0.5); points.len()], &domain);
        }
        assert_eq!(n, 4, "{}", strategy.name());
    }
}
