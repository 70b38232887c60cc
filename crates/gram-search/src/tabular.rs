//! Tabular benchmarks: strategies search tables of trained architectures, over many seeds.
//!
//! A strategy sees the validation column only; all figures are of the test column. [`run`] does everything from files to a
//! [`TabularReport`]; [`Table`] is a [`Domain`](crate::domain::Domain), so that other searches can be tried on it.
//!
//! # What is counted
//! - An *evaluation* is a look at the validation score of a class of equal functions that was not looked at before: that of the member
//!   that was asked for. The class keeps this score, and is judged by the test value of the same member.
//! - The *best cell* is the feasible row with the highest test value (all of them where several tie). It is found when a member of its class
//!   is evaluated. The *top 0.1 %* (1 %) are the first `⌈n/1000⌉` (`⌈n/100⌉`) of the `n` feasible rows by test value, and all that tie with
//!   the last of these; a search reaches them when it evaluates a member of one of their classes.
//! - *Mean test at n* is, averaged over seeds, the test value of the evaluation that had the best validation score of the first `n`; of
//!   equal ones the first. *Regret* is the best cell's test value less that.
//!
//! Results do not depend on the number of threads.

mod bench;
mod compare;
mod config;
pub mod enas_dag;
mod error;
pub mod nasbench201;
pub mod nasbench_macro;
mod read;
mod report;
mod table;

pub use bench::run;
pub use compare::{PairedTest, paired_test};
pub use config::{CostLimit, StrategyName, TableKind, TabularConfig};
pub use error::TabularError;
pub use report::{
    CHECKPOINTS, Comparison, FORMAT_VERSION, Quantiles, RegretBands, StrategyFigures, TableFigures, TabularReport,
};
pub use table::{Identity, Table};
