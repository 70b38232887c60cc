//! What a benchmark found.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bench::Trace;
use super::{PairedTest, StrategyName, Table, TabularConfig, paired_test};

/// Version of [`TabularReport`] as JSON.
pub const FORMAT_VERSION: u32 = 1;

/// Numbers of evaluations after which searches are compared.
pub const CHECKPOINTS: [usize; 4] = [25, 50, 100, 200];

/// The result of [`super::run`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TabularReport {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What was run.
    pub config: TabularConfig,
    /// The table.
    pub table: TableFigures,
    /// Evaluations until the best cell.
    pub evaluations_to_best: Quantiles,
    /// Evaluations until the cell whose validation value is best: what a search that sees no more than that can aim at.
    pub evaluations_to_best_validation: Quantiles,
    /// Evaluations until one of the top 0.1 %.
    pub evaluations_to_top_0_1_percent: Quantiles,
    /// Evaluations until one of the top 1 %.
    pub evaluations_to_top_1_percent: Quantiles,
    /// Mean test value after these numbers of evaluations; those beyond the search's length are left out.
    pub mean_test_at: BTreeMap<usize, f64>,
    /// Regret after each evaluation.
    pub regret: RegretBands,
    /// The strategies it was compared with.
    pub comparisons: Vec<Comparison>,
}

/// A table's own figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFigures {
    /// Rows.
    pub n_rows: usize,
    /// Classes that share an evaluation.
    pub n_classes: usize,
    /// Lines that repeated an architecture and were averaged.
    pub n_duplicates: usize,
    /// Rows that keep the limit.
    pub n_feasible: usize,
    /// Highest test value of these.
    pub best_test: f64,
    /// Place of that row by validation value, from 1: where it is large, the search's signal does not lead to the best row.
    pub best_validation_rank: usize,
    /// Lowest test value of the top 0.1 %.
    pub top_0_1_percent_test: f64,
    /// Lowest test value of the top 1 %.
    pub top_1_percent_test: f64,
}

/// One strategy's figures; see [`TabularReport`] for the fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategyFigures {
    /// The strategy.
    pub strategy: StrategyName,
    /// See [`TabularReport::evaluations_to_best`].
    pub evaluations_to_best: Quantiles,
    /// See [`TabularReport::evaluations_to_best_validation`].
    pub evaluations_to_best_validation: Quantiles,
    /// See [`TabularReport::evaluations_to_top_0_1_percent`].
    pub evaluations_to_top_0_1_percent: Quantiles,
    /// See [`TabularReport::evaluations_to_top_1_percent`].
    pub evaluations_to_top_1_percent: Quantiles,
    /// See [`TabularReport::mean_test_at`].
    pub mean_test_at: BTreeMap<usize, f64>,
    /// See [`TabularReport::regret`].
    pub regret: RegretBands,
}

/// Quantiles over seeds of a number of evaluations; `None` where that share of the searches did not reach the aim.
///
/// A quantile `q` of `n` searches is the `⌈q·n⌉`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// Half of the searches.
    pub median: Option<usize>,
    /// Three quarters.
    pub p75: Option<usize>,
    /// 95 of 100.
    pub p95: Option<usize>,
}

/// Regret in units of the test column after 1, 2, ... evaluations, over seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegretBands {
    /// Mean.
    pub mean: Vec<f64>,
    /// 10 % of the searches have at most this.
    pub p10: Vec<f64>,
    /// 25 %.
    pub p25: Vec<f64>,
    /// Half.
    pub median: Vec<f64>,
    /// 75 %.
    pub p75: Vec<f64>,
    /// 90 %.
    pub p90: Vec<f64>,
}

/// Another strategy on the same seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The other strategy's figures.
    pub versus: StrategyFigures,
    /// Test values after these numbers of evaluations, the report's strategy less the other, seed by seed.
    pub tests: BTreeMap<usize, PairedTest>,
}

/// Classes that a search is to reach, and their test values.
pub(super) struct Targets {
    best: Target,
    best_validation: Target,
    best_validation_rank: usize,
    top_0_1_percent: Target,
    top_1_percent: Target,
}

struct Target {
    test: f64,
    classes: BTreeSet<usize>,
}

impl Targets {
    pub(super) fn of(table: &Table) -> Self {
        let mut tests: Vec<f64> = table.feasible_rows().iter().map(|&row| table.test(row)).collect();
        tests.sort_by(|a, b| b.total_cmp(a));
        let first = |n: usize| {
            let test = tests[n.clamp(1, tests.len()) - 1];
            let within = table.feasible_rows().iter().filter(|&&row| table.test(row) >= test);
            Target { test, classes: within.map(|&row| table.class(row)).collect() }
        };
        let (best, n) = (first(1), tests.len());
        let highest = |value: &dyn Fn(usize) -> f64| {
            let rows = table.feasible_rows().iter().copied();
            rows.max_by(|&a, &b| value(a).total_cmp(&value(b)).then(b.cmp(&a))).expect("invariant: a row is feasible")
        };
        let signal = |row| table.validation(row);
        let (leader, best_row) = (highest(&signal), highest(&|row| table.test(row)));
        let leads = |&&row: &&usize| signal(row) >= signal(leader);
        let classes = table.feasible_rows().iter().filter(leads).map(|&row| table.class(row)).collect();
        let best_validation = Target { test: table.test(leader), classes };
        let ahead = table.feasible_rows().iter().filter(|&&row| signal(row) > signal(best_row)).count();
        Self {
            best,
            best_validation,
            best_validation_rank: ahead + 1,
            top_0_1_percent: first(n.div_ceil(1000)),
            top_1_percent: first(n.div_ceil(100)),
        }
    }
}

impl TableFigures {
    pub(super) fn new(table: &Table, targets: &Targets) -> Self {
        Self {
            n_rows: table.n_rows(),
            n_classes: table.n_classes(),
            n_duplicates: table.n_duplicates(),
            n_feasible: table.feasible_rows().len(),
            best_test: targets.best.test,
            best_validation_rank: targets.best_validation_rank,
            top_0_1_percent_test: targets.top_0_1_percent.test,
            top_1_percent_test: targets.top_1_percent.test,
        }
    }
}

impl StrategyFigures {
    pub(super) fn new(strategy: StrategyName, traces: &[Trace], table: &Table, targets: &Targets) -> Self {
        let incumbents: Vec<Vec<f64>> = traces.iter().map(|trace| incumbent_tests(trace, table)).collect();
        let longest = incumbents.iter().map(Vec::len).max().unwrap_or(0);
        let at = |n: usize| -> Vec<f64> { incumbents.iter().filter_map(|tests| after(tests, n)).collect() };
        let mean = |tests: Vec<f64>| tests.iter().sum::<f64>() / tests.len().max(1) as f64;
        Self {
            strategy,
            evaluations_to_best: Quantiles::of(traces, table, &targets.best),
            evaluations_to_best_validation: Quantiles::of(traces, table, &targets.best_validation),
            evaluations_to_top_0_1_percent: Quantiles::of(traces, table, &targets.top_0_1_percent),
            evaluations_to_top_1_percent: Quantiles::of(traces, table, &targets.top_1_percent),
            mean_test_at: CHECKPOINTS.into_iter().filter(|&n| n <= longest).map(|n| (n, mean(at(n)))).collect(),
            regret: RegretBands::of(longest, |n| at(n).iter().map(|test| targets.best.test - test).collect()),
        }
    }
}

/// Test value of the best by validation after each evaluation.
fn incumbent_tests(trace: &Trace, table: &Table) -> Vec<f64> {
    let mut best: Option<usize> = None;
    let step = |&row: &usize| {
        let kept = best.filter(|&best| table.validation(best) >= table.validation(row)).unwrap_or(row);
        best = Some(kept);
        table.test(kept)
    };
    trace.iter().map(step).collect()
}

/// The value after `n` evaluations; a search that ended earlier (its domain was exhausted) stays at its last one.
fn after(tests: &[f64], n: usize) -> Option<f64> {
    tests.get(n - 1).or(tests.last()).copied()
}

impl Quantiles {
    fn of(traces: &[Trace], table: &Table, target: &Target) -> Self {
        let reached = |trace: &Trace| trace.iter().position(|&row| target.classes.contains(&table.class(row)));
        let mut evaluations: Vec<usize> =
            traces.iter().map(|trace| reached(trace).map_or(usize::MAX, |i| i + 1)).collect();
        evaluations.sort_unstable();
        let quantile = |percent: usize| {
            let rank = (percent * evaluations.len()).div_ceil(100).max(1);
            evaluations.get(rank - 1).copied().filter(|&n| n < usize::MAX)
        };
        Self { median: quantile(50), p75: quantile(75), p95: quantile(95) }
    }
}

impl RegretBands {
    fn of(n: usize, regrets_after: impl Fn(usize) -> Vec<f64>) -> Self {
        let empty = || Vec::with_capacity(n);
        let mut bands = Self { mean: empty(), p10: empty(), p25: empty(), median: empty(), p75: empty(), p90: empty() };
        for evaluations in 1..=n {
            let mut regrets = regrets_after(evaluations);
            regrets.sort_by(f64::total_cmp);
            let quantile = |percent: usize| regrets[(percent * regrets.len()).div_ceil(100).max(1) - 1];
            bands.mean.push(regrets.iter().sum::<f64>() / regrets.len() as f64);
            bands.p10.push(quantile(10));
            bands.p25.push(quantile(25));
            bands.median.push(quantile(50));
            bands.p75.push(quantile(75));
            bands.p90.push(quantile(90));
        }
        bands
    }
}

impl Comparison {
    pub(super) fn new(versus: StrategyFigures, ours: &[Trace], theirs: &[Trace], table: &Table) -> Self {
        let both: Vec<(Vec<f64>, Vec<f64>)> =
            ours.iter().zip(theirs).map(|(a, b)| (incumbent_tests(a, table), incumbent_tests(b, table))).collect();
        let longest = both.iter().map(|(a, _)| a.len()).max().unwrap_or(0);
        let test_at = |n: usize| {
            let differences: Vec<f64> = both.iter().filter_map(|(a, b)| Some(after(a, n)? - after(b, n)?)).collect();
            (n, paired_test(&differences))
        };
        Self { versus, tests: CHECKPOINTS.into_iter().filter(|&n| n <= longest).map(test_at).collect() }
    }
}

impl TabularReport {
    pub(super) fn new(
        config: TabularConfig,
        table: TableFigures,
        figures: StrategyFigures,
        comparisons: Vec<Comparison>,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            config,
            table,
            evaluations_to_best: figures.evaluations_to_best,
            evaluations_to_best_validation: figures.evaluations_to_best_validation,
            evaluations_to_top_0_1_percent: figures.evaluations_to_top_0_1_percent,
            evaluations_to_top_1_percent: figures.evaluations_to_top_1_percent,
            mean_test_at: figures.mean_test_at,
            regret: figures.regret,
            comparisons,
        }
    }
    /// The strategy's own figures.
    pub fn figures(&self) -> StrategyFigures {
        StrategyFigures {
            strategy: self.config.strategy,
            evaluations_to_best: self.evaluations_to_best,
            evaluations_to_best_validation: self.evaluations_to_best_validation,
            evaluations_to_top_0_1_percent: self.evaluations_to_top_0_1_percent,
            evaluations_to_top_1_percent: self.evaluations_to_top_1_percent,
            mean_test_at: self.mean_test_at.clone(),
            regret: self.regret.clone(),
        }
    }
}
