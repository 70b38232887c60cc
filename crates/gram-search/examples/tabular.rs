//! Runs strategies on a table of trained architectures and prints one line for each.
//!
//! ```text
//! cargo run --release -p gram-search --example tabular -- <table> <file> [key=value ...]
//! ```
//! Tables: `nasbench201`, `nasbench-macro`, `enas-dag`. Keys: `strategies` (comma-separated; the first is compared with the others),
//! `evaluations`, `seeds`, `first-seed`, `batch`, `threads`, `identity` (`function` or `row`),
//! `versus-identity` (the same, for the others), `validation` and `test` (columns),
//! `limit` (a file of costs), `device` (its column), `share` (of rows that stay feasible), `json` (a file for the report).
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;

use gram_search::tabular::{
    CostLimit, Identity, PairedTest, Quantiles, StrategyName, TabularConfig, TabularReport, run,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [table, path, keys @ ..] = arguments.as_slice() else {
        return Err("usage: tabular <table> <file> [key=value ...]".into());
    };
    let keys: BTreeMap<&str, &str> = keys.iter().filter_map(|key| key.split_once('=')).collect();
    let number = |key: &str, default: usize| keys.get(key).map_or(Ok(default), |value| value.parse());
    let count = |key: &str, default: usize| -> Result<NonZeroUsize, Box<dyn Error>> {
        NonZeroUsize::new(number(key, default)?).ok_or_else(|| format!("{key} is at least 1").into())
    };
    let names = keys.get("strategies").copied().unwrap_or("gram,local,evolution,random");
    let mut strategies = names.split(',').map(str::parse::<StrategyName>).collect::<Result<Vec<_>, _>>()?;
    let limit = keys.get("limit").map(|path| -> Result<CostLimit, Box<dyn Error>> {
        let column = keys.get("device").ok_or("limit needs device")?.to_string();
        let share = keys.get("share").map_or(Ok(0.25), |share| share.parse())?;
        Ok(CostLimit { path: path.into(), column, share })
    });
    let config = TabularConfig {
        table: table.parse()?,
        path: path.into(),
        validation_column: keys.get("validation").map(|name| name.to_string()),
        test_column: keys.get("test").map(|name| name.to_string()),
        identity: if keys.get("identity") == Some(&"row") { Identity::Row } else { Identity::Function },
        limit: limit.transpose()?,
        versus_identity: if keys.get("versus-identity") == Some(&"row") { Identity::Row } else { Identity::Function },
        strategy: strategies.remove(0),
        versus: strategies,
        evaluations: count("evaluations", 200)?,
        seeds: count("seeds", 200)?,
        first_seed: number("first-seed", 0)? as u64,
        batch: count("batch", 1)?,
        threads: count("threads", 2)?,
    };
    let report = run(&config)?;
    print_report(&report);
    if let Some(path) = keys.get("json") {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

fn print_report(report: &TabularReport) {
    let table = &report.table;
    println!(
        "{} rows, {} classes, {} duplicates, {} feasible; best {:.4}, top 0.1 % {:.4}, top 1 % {:.4}",
        table.n_rows,
        table.n_classes,
        table.n_duplicates,
        table.n_feasible,
        table.best_test,
        table.top_0_1_percent_test,
        table.top_1_percent_test
    );
    let line = |name: &str, to: [Quantiles; 3], means: &BTreeMap<usize, f64>| {
        let [best, top, first] = to.map(quantiles);
        let means: Vec<String> = means.iter().map(|(n, mean)| format!("{n}: {mean:.4}")).collect();
        println!(
            "{name:<13} best {best:<12} top 0.1 % {top:<12} top 1 % {first:<12} mean test at {}",
            means.join("  ")
        );
    };
    line(
        report.config.strategy.name(),
        [report.evaluations_to_best, report.evaluations_to_top_0_1_percent, report.evaluations_to_top_1_percent],
        &report.mean_test_at,
    );
    for comparison in &report.comparisons {
        let theirs = &comparison.versus;
        line(
            theirs.strategy.name(),
            [theirs.evaluations_to_best, theirs.evaluations_to_top_0_1_percent, theirs.evaluations_to_top_1_percent],
            &theirs.mean_test_at,
        );
        let tests: Vec<String> = comparison.tests.iter().map(|(n, test)| format!("{n}: {}", outcome(test))).collect();
        println!("{:13} wins/ties/losses, p: {}", "", tests.join("  "));
    }
}

fn quantiles(quantiles: Quantiles) -> String {
    let shown = |n: Option<usize>| n.map_or("-".to_owned(), |n| n.to_string());
    format!("{}/{}/{}", shown(quantiles.median), shown(quantiles.p75), shown(quantiles.p95))
}

fn outcome(test: &PairedTest) -> String {
    format!("{}/{}/{} {:.0e}", test.wins, test.ties, test.losses, test.p_wilcoxon)
}
