//! What can be wrong with a table, or with what is asked of it.

use std::io;
use std::path::PathBuf;

use crate::strategies::GramConfigError;

/// Why a tabular benchmark did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TabularError {
    /// A file that cannot be read or unpacked.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file, or what it unpacks to, that is larger than any table of this kind.
    #[error("{}: more than {limit} bytes when unpacked; no table of this kind is that large", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Largest size.
        limit: u64,
    },
    /// A line that does not say what its place asks for.
    #[error("{}:{line}: {reason}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1; of a file that is one line, the entry.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A file that is wrong as a whole.
    #[error("{}: {reason}", .path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A table that has no such column.
    #[error("{}: no column {name:?}; there are {}", .path.display(), .available.join(", "))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        name: String,
        /// Those there are.
        available: Vec<String>,
    },
    /// A column asked of a table that has one accuracy only.
    #[error("table {table} has one accuracy, both signal and judge; it has no column {name:?}")]
    OneAccuracy {
        /// The table.
        table: &'static str,
        /// The column asked for.
        name: String,
    },
    /// A limit that leaves nothing.
    #[error("no architecture of the table keeps the limit")]
    NothingFeasible,
    /// A strategy that this table's space does not allow.
    #[error(
        "strategy {strategy} needs decisions that take something away, and every point that remains; table {table} lacks them"
    )]
    NotApplicable {
        /// The strategy.
        strategy: &'static str,
        /// The table.
        table: &'static str,
    },
    /// Settings of GRAM that are out of range.
    #[error(transparent)]
    Gram(#[from] GramConfigError),
    /// A number out of range.
    #[error("{name} is {value}; it must be {range}")]
    Range {
        /// What.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A name of no table or strategy.
    #[error("unknown {what} {name:?}; there are {available}")]
    Unknown {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
        /// Those there are.
        available: &'static str,
    },
}

impl TabularError {
    /// Whether a file is wrong; else what was asked for is.
    pub fn is_about_data(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::TooLarge { .. } | Self::Line { .. } | Self::Table { .. })
    }
}
