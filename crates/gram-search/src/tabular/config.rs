//! What a benchmark runs.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Identity, Table, TabularError, enas_dag, nasbench_macro, nasbench201};
use crate::strategies::{
    AutoShrink, DomainStrategy, EvolutionConfig, GramConfig, GramSearch, LocalSearch, RandomSearch,
    RegularisedEvolution,
};

/// A benchmark of one strategy on one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TabularConfig {
    /// How the file is laid out.
    pub table: TableKind,
    /// The file.
    pub path: PathBuf,
    /// What the search sees; the table's own default if none is named. Only tables with columns have several.
    #[serde(default)]
    pub validation_column: Option<String>,
    /// What it is judged by.
    #[serde(default)]
    pub test_column: Option<String>,
    /// What shares an evaluation.
    #[serde(default)]
    pub identity: Identity,
    /// A hard limit on a cost.
    #[serde(default)]
    pub limit: Option<CostLimit>,
    /// Who searches.
    pub strategy: StrategyName,
    /// Settings of `strategy` if that is [`StrategyName::Gram`]; what it is compared with has the defaults.
    #[serde(default)]
    pub gram: GramConfig,
    /// Strategies that it is compared with, on the same seeds.
    #[serde(default)]
    pub versus: Vec<StrategyName>,
    /// Evaluations of each search.
    pub evaluations: NonZeroUsize,
    /// Searches; their seeds are `first_seed..`.
    pub seeds: NonZeroUsize,
    /// The first seed.
    #[serde(default)]
    pub first_seed: u64,
    /// Points that are asked for at once, as if as many children were trained at a time.
    pub batch: NonZeroUsize,
    /// Threads; the results do not depend on it.
    pub threads: NonZeroUsize,
}

/// A limit on a column of costs: rows above a quantile are infeasible.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostLimit {
    /// A comma-separated file with a row for each row of the table, in its order.
    pub path: PathBuf,
    /// The column, say a device.
    pub column: String,
    /// Share of the rows that stay feasible, `0 < share <= 1`; 0.25 keeps the tightest quarter.
    pub share: f64,
}

/// Layouts of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// See [`nasbench201`].
    Nasbench201,
    /// See [`nasbench_macro`].
    NasbenchMacro,
    /// See [`enas_dag`].
    EnasDag,
}

impl TableKind {
    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nasbench201 => "nasbench201",
            Self::NasbenchMacro => "nasbench-macro",
            Self::EnasDag => "enas-dag",
        }
    }
}

impl FromStr for TableKind {
    type Err = TabularError;

    fn from_str(name: &str) -> Result<Self, TabularError> {
        let all = [Self::Nasbench201, Self::NasbenchMacro, Self::EnasDag];
        let available = "nasbench201, nasbench-macro, enas-dag";
        let unknown = || TabularError::Unknown { what: "table", name: name.to_owned(), available };
        all.into_iter().find(|table| table.name() == name).ok_or_else(unknown)
    }
}

/// Strategies of [`crate::strategies`] with their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyName {
    /// [`GramSearch`].
    Gram,
    /// [`RandomSearch`].
    Random,
    /// [`LocalSearch`].
    #[serde(rename = "local")]
    LocalSearch,
    /// [`RegularisedEvolution`].
    Evolution,
    /// [`AutoShrink`].
    Autoshrink,
}

impl StrategyName {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Gram, Self::Random, Self::LocalSearch, Self::Evolution, Self::Autoshrink];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gram => "gram",
            Self::Random => "random",
            Self::LocalSearch => "local",
            Self::Evolution => "evolution",
            Self::Autoshrink => "autoshrink",
        }
    }

    /// A search with the strategy's defaults, but for GRAM's settings.
    pub fn build(self, seed: u64, gram: &GramConfig) -> Box<dyn DomainStrategy> {
        match self {
            Self::Gram => Box::new(GramSearch::new(seed, gram.clone())),
            Self::Random => Box::new(RandomSearch::new(seed)),
            Self::LocalSearch => Box::new(LocalSearch::new(seed)),
            Self::Evolution => Box::new(RegularisedEvolution::new(seed, EvolutionConfig::default())),
            Self::Autoshrink => Box::new(AutoShrink::new(seed)),
        }
    }
}

impl FromStr for StrategyName {
    type Err = TabularError;

    fn from_str(name: &str) -> Result<Self, TabularError> {
        let available = "gram, random, local, evolution, autoshrink";
        let unknown = || TabularError::Unknown { what: "strategy", name: name.to_owned(), available };
        Self::ALL.into_iter().find(|strategy| strategy.name() == name).ok_or_else(unknown)
    }
}

impl TabularConfig {
    /// Reads the table, with the limit applied.
    ///
    /// # Errors
    /// [`TabularError`].
    pub fn open(&self) -> Result<Table, TabularError> {
        let named = [&self.validation_column, &self.test_column].into_iter().flatten().next();
        if self.table != TableKind::Nasbench201
            && let Some(name) = named
        {
            return Err(TabularError::OneAccuracy { table: self.table.name(), name: name.clone() });
        }
        let mut table = match self.table {
            TableKind::Nasbench201 => {
                let validation = self.validation_column.as_deref().unwrap_or(nasbench201::DEFAULT_VALIDATION_COLUMN);
                let test = self.test_column.as_deref().unwrap_or(nasbench201::DEFAULT_TEST_COLUMN);
                nasbench201::read(&self.path, validation, test, self.identity)?
            }
            TableKind::NasbenchMacro => nasbench_macro::read(&self.path, self.identity)?,
            TableKind::EnasDag => enas_dag::read(&self.path, self.identity)?,
        };
        if let Some(limit) = &self.limit {
            table.restrict(&nasbench201::read_costs(&limit.path, &limit.column)?, limit.share)?;
        }
        Ok(table)
    }
}
