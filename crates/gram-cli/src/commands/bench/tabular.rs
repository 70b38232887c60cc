//! `gram bench tabular`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use clap::{Args, ValueEnum};
use gram_export::files::write_atomic;
use gram_search::strategies::GramConfig;
use gram_search::tabular::{
    self, CostLimit, Identity, Quantiles, StrategyFigures, StrategyName, TableKind, TabularConfig, TabularError,
    TabularReport,
};

use super::regret;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::output;
use crate::study::{merge, parse_set};

#[derive(Args, Debug)]
pub(crate) struct TabularArgs {
    /// Layout of the table
    #[arg(long, value_enum)]
    table: TableArg,
    /// The table's file, or the folder that it lies in under its usual name
    #[arg(long, value_name = "PATH")]
    path: PathBuf,
    /// Who searches: gram, random, local, evolution or autoshrink
    #[arg(long, value_name = "NAME", default_value = "gram")]
    strategy: StrategyName,
    /// Strategies to compare it with on the same seeds, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    versus: Vec<StrategyName>,
    /// A setting of gram, such as draws=0 or surrogate.noises=[0.1]; those of --versus keep the defaults
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Evaluations of each search
    #[arg(long, value_name = "N", default_value = "200")]
    evaluations: NonZeroUsize,
    /// Searches
    #[arg(long, value_name = "M", default_value = "200")]
    seeds: NonZeroUsize,
    /// The first search's seed; the others follow
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_seed: u64,
    /// Architectures that are evaluated at a time
    #[arg(long, value_name = "K", default_value = "1")]
    batch: NonZeroUsize,
    /// What the search sees [default: the table's]
    #[arg(long, value_name = "COLUMN")]
    validation_column: Option<String>,
    /// What it is judged by [default: the table's]
    #[arg(long, value_name = "COLUMN")]
    test_column: Option<String>,
    /// File of costs, a row for each row of the table: those above a quantile of --limit-column are infeasible
    #[arg(long, value_name = "FILE", requires = "limit_column")]
    limit: Option<PathBuf>,
    /// Column of --limit, say a device
    #[arg(long, value_name = "COLUMN", requires = "limit")]
    limit_column: Option<String>,
    /// Share of the rows that --limit leaves feasible, the cheapest ones
    #[arg(long, value_name = "SHARE", default_value_t = 0.25, requires = "limit")]
    limit_share: f64,
    /// Evaluate every row on its own, also those that compute the same function
    #[arg(long)]
    rows_apart: bool,
    /// Threads, which change nothing but the time [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Draw regret against evaluations, with the middle half of the searches as a band
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TableArg {
    /// 15,625 cells, comma-separated; other tables in the same layout too
    Nasbench201,
    /// 6,561 networks of 8 layers, JSON
    NasbenchMacro,
    /// ENAS networks of 6 layers, a line each
    EnasDag,
}

impl TableArg {
    /// The layout, and the file's usual name.
    fn kind(self) -> (TableKind, &'static str) {
        match self {
            Self::Nasbench201 => (TableKind::Nasbench201, "accuracy_cifar10.csv.gz"),
            Self::NasbenchMacro => (TableKind::NasbenchMacro, "nas-bench-macro_cifar10.json.gz"),
            Self::EnasDag => (TableKind::EnasDag, "final_structures6.txt.gz"),
        }
    }
}

pub(crate) fn run(args: &TabularArgs) -> Result<()> {
    let report = tabular::run(&config(args)?).map_err(failure)?;
    if let Some(path) = &args.svg {
        let drawn = regret::svg(&report);
        write_atomic(path, drawn.as_bytes()).or_fail_with(Kind::Data, format!("writing {}", path.display()))?;
    }
    if args.json {
        return output::json(&report);
    }
    print(&report);
    Ok(())
}

/// The defaults with every `--set` on top.
fn gram(args: &TabularArgs) -> Result<GramConfig> {
    if !args.set.is_empty() && args.strategy != StrategyName::Gram {
        return Err(Failure::new(Kind::Usage, "--set is for settings of gram, and --strategy names another"));
    }
    let mut settings = toml::Table::new();
    for text in &args.set {
        merge(&mut settings, parse_set(text)?);
    }
    settings.try_into().or_fail_with(Kind::Usage, "--set")
}

fn config(args: &TabularArgs) -> Result<TabularConfig> {
    let (table, usual_name) = args.table.kind();
    let file = |path: &Path| if path.is_dir() { path.join(usual_name) } else { path.to_owned() };
    let limit = |(path, column): (&PathBuf, &String)| CostLimit {
        path: path.clone(),
        column: column.clone(),
        share: args.limit_share,
    };
    let all_cores = || available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(TabularConfig {
        gram: gram(args)?,
        table,
        path: file(&args.path),
        validation_column: args.validation_column.clone(),
        test_column: args.test_column.clone(),
        identity: if args.rows_apart { Identity::Row } else { Identity::Function },
        limit: args.limit.as_ref().zip(args.limit_column.as_ref()).map(limit),
        strategy: args.strategy,
        versus: args.versus.clone(),
        evaluations: args.evaluations,
        seeds: args.seeds,
        first_seed: args.first_seed,
        batch: args.batch,
        threads: args.threads.unwrap_or_else(all_cores),
    })
}

/// Wrong files are bad data, wrong wishes usage.
fn failure(error: TabularError) -> Failure {
    let kind = if error.is_about_data() { Kind::Data } else { Kind::Usage };
    Failure { kind, error: error.into() }
}

fn print(report: &TabularReport) {
    let table = &report.table;
    output::line(format_args!(
        "{} rows, {} classes of equal function, {} feasible; best test {:.4} (place {} by validation), top 0.1 % from {:.4}, top 1 % from {:.4}",
        table.n_rows,
        table.n_classes,
        table.n_feasible,
        table.best_test,
        table.best_validation_rank,
        table.top_0_1_percent_test,
        table.top_1_percent_test
    ));
    output::line(format_args!(
        "{:<14} {:>16} {:>16} {:>16} {:>16}  mean test after",
        "median/p75/p95", "to best", "to best by val.", "to top 0.1 %", "to top 1 %"
    ));
    figures(&report.figures());
    for comparison in &report.comparisons {
        figures(&comparison.versus);
    }
    for comparison in &report.comparisons {
        let tests = comparison
            .tests
            .iter()
            .map(|(n, test)| format!("{n}: {}/{}/{}, p {:.1e}", test.wins, test.ties, test.losses, test.p_wilcoxon));
        let (own, other) = (report.config.strategy.name(), comparison.versus.strategy.name());
        let tests: Vec<String> = tests.collect();
        output::line(format_args!("{own} against {other}, wins/ties/losses after {}", tests.join("; ")));
    }
}

fn figures(of: &StrategyFigures) {
    let shown = |quantiles: Quantiles| {
        let number = |n: Option<usize>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        [quantiles.median, quantiles.p75, quantiles.p95].map(number).join("/")
    };
    let means: Vec<String> = of.mean_test_at.iter().map(|(n, mean)| format!("{n}: {mean:.3}")).collect();
    output::line(format_args!(
        "{:<14} {:>16} {:>16} {:>16} {:>16}  {}",
        of.strategy.name(),
        shown(of.evaluations_to_best),
        shown(of.evaluations_to_best_validation),
        shown(of.evaluations_to_top_0_1_percent),
        shown(of.evaluations_to_top_1_percent),
        means.join("  ")
    ));
}
