//! Runs searches on a table.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::report::{Comparison, StrategyFigures, TableFigures, Targets};
use super::{StrategyName, Table, TabularConfig, TabularError, TabularReport};
use crate::domain::Domain;
use crate::strategies::GramConfig;

/// Reads the table and runs the strategy, and those it is compared with, over all seeds.
///
/// # Errors
/// [`TabularError`]: files that cannot be read, or a strategy that the table does not allow.
/// # Complexity
/// All figures come from one list of evaluated rows for each search, so memory is `seeds · evaluations` words.
pub fn run(config: &TabularConfig) -> Result<TabularReport, TabularError> {
    let table = config.open()?;
    for &strategy in std::iter::once(&config.strategy).chain(&config.versus) {
        if strategy == StrategyName::Autoshrink && !table.can_shrink() {
            return Err(TabularError::NotApplicable { strategy: strategy.name(), table: table.name() });
        }
    }
    let targets = Targets::of(&table);
    config.gram.verify()?;
    let traces = search(&table, (config.strategy, &config.gram), config);
    let figures = StrategyFigures::new(config.strategy, &traces, &table, &targets);
    let mut comparisons = Vec::with_capacity(config.versus.len());
    for &versus in &config.versus {
        let theirs = search(&table, (versus, &GramConfig::default()), config);
        let figures = StrategyFigures::new(versus, &theirs, &table, &targets);
        comparisons.push(Comparison::new(figures, &traces, &theirs, &table));
    }
    Ok(TabularReport::new(config.clone(), TableFigures::new(&table, &targets), figures, comparisons))
}

/// Rows in the order of evaluation, for each seed.
pub(super) type Trace = Vec<usize>;

fn search(table: &Table, strategy: (StrategyName, &GramConfig), config: &TabularConfig) -> Vec<Trace> {
    let n_seeds = config.seeds.get();
    let (next, traces) = (AtomicUsize::new(0), Mutex::new(vec![Trace::new(); n_seeds]));
    std::thread::scope(|scope| {
        for _ in 0..config.threads.get().min(n_seeds) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= n_seeds {
                        break;
                    }
                    let seed = config.first_seed.wrapping_add(index as u64);
                    let trace = search_once(table, strategy, seed, config.evaluations, config.batch);
                    if let Ok(mut traces) = traces.lock() {
                        traces[index] = trace;
                    }
                }
            });
        }
    });
    traces.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn search_once(
    table: &Table,
    (strategy, gram): (StrategyName, &GramConfig),
    seed: u64,
    evaluations: NonZeroUsize,
    batch: NonZeroUsize,
) -> Trace {
    let mut strategy = strategy.build(seed, gram);
    let mut trace = Trace::new();
    while trace.len() < evaluations.get() {
        let points = strategy.ask(batch.get().min(evaluations.get() - trace.len()), table);
        if points.is_empty() {
            break;
        }
        let rows: Vec<usize> = points.iter().filter_map(|point| table.row(point)).collect();
        debug_assert!(rows.len() == points.len() && points.iter().all(|point| table.is_feasible(point)));
        let scores: Vec<Option<f64>> = rows.iter().map(|&row| Some(table.validation(row))).collect();
        trace.extend(rows);
        strategy.tell(&scores, table);
    }
    trace
}
