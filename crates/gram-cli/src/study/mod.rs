//! A study as the command line runs it: configuration, evaluation on a proxy, the winner.

pub(crate) mod config;
pub(crate) mod evaluator;
pub(crate) mod finish;
pub(crate) mod images;
pub(crate) mod inherit;
pub(crate) mod jobs;
pub(crate) mod latency;
pub(crate) mod load;
mod measure;
pub(crate) mod memory;
mod overrides;
pub(crate) mod prune;
pub(crate) mod teacher;
pub(crate) mod training;
pub(crate) mod warm;

pub(crate) use overrides::{merge, parse_set};
