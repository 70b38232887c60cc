//! Searching: strategies that propose children by ask and tell, executors that evaluate them, and studies that survive being killed.
//!
//! A [`Study`] is a directory. [`Study::run`] asks its [`Strategy`] for rounds of children, lets an [`Executor`] evaluate those that no one
//! evaluated before, writes a checksummed journal, and tells the strategy in the order of submission. Run it again after a kill: it
//! replays the journal, takes finished evaluations from `results/`, and ends with the same bytes. [`preflight()`] says beforehand which limits
//! can be met.
//!
//! Training is behind the [`Evaluator`] trait: this crate knows neither data nor tensors, and prints nothing.
//!
//! # Example
//! A study of a toy score:
//! ```
//! use std::num::NonZeroUsize;
//! use std::sync::atomic::AtomicBool;
//! use gram_ir::{Activation, CellOp, CellOutput, Downsample, Head, Limits, Shape, Space, StageSpace};
//! use gram_search::{Evaluator, EvaluatorError, Job, LocalExecutor, Outcome, Run, Study, StudyConfig, StrategyKind};
//!
//! struct FewParams;
//! impl Evaluator for FewParams {
//!     fn identity(&self) -> String {
//!         "few-params".into()
//!     }
//!     fn evaluate(&self, job: &Job) -> Result<Outcome, EvaluatorError> {
//!         Ok(Outcome::scored(1.0 / (1.0 + job.network.params().0 as f64 / 1000.0)))
//!     }
//! }
//!
//! let output = CellOutput { project: Some(8), residual: false, linear_leaves: false, activation: false };
//! let stage = StageSpace::new(6, 8, Downsample::None, output);
//! let space = Space {
//!     name: "tiny".into(),
//!     activation: Activation::Relu,
//!     max_in_degree: 4,
//!     operators: vec![CellOp::Conv1x1, CellOp::Sep3x3],
//!     node_operators: Default::default(),
//!     image_sizes: vec![],
//!     channel_multiple: 1,
//!     stem: vec![],
//!     stages: vec![stage],
//!     head: Head::default(),
//! };
//! let config = StudyConfig {
//!     space,
//!     input: Shape::chw(1, 8, 8),
//!     num_classes: 10,
//!     limits: Limits::default(),
//!     latency: None,
//!     strategy: StrategyKind::Gram,
//!     sampler: Default::default(),
//!     warm_start: None,
//!     n_children: 40,
//!     children_per_round: 8,
//!     seed: 1,
//!     meta: Default::default(),
//! };
//! let folder = tempfile::tempdir()?;
//! let mut study = Study::open(folder.path(), config, &FewParams.identity(), &serde_json::Value::Null)?;
//! let executor = LocalExecutor::new(NonZeroUsize::MIN);
//! let report = study.run(Run {
//!     evaluator: &FewParams,
//!     executor: &executor,
//!     observer: &mut (),
//!     interrupt: &AtomicBool::new(false),
//!     pruned: &|_| None,
//!     warm_source: None,
//!     latency: None,
//! })?;
//! assert_eq!(report.n_children, 40);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cell_costs;
mod cell_domain;
mod config;
pub mod domain;
mod evaluator;
mod executor;
mod expected;
mod files;
mod gate;
mod halving;
mod inherit;
mod kendall;
mod latency;
mod observer;
mod preflight;
mod report;
mod sealed;
pub mod strategies;
mod strategy;
mod streams;
mod study;
pub mod surrogate;
pub mod tabular;

pub use cell_domain::CellDomain;
pub use config::{ConfigError, Sampler, StrategyError, StrategyKind, StudyConfig, UnknownStrategy, WarmStart};
pub use evaluator::{BadEvalKey, EvalKey, Evaluator, EvaluatorError, Job, Outcome};
pub use executor::{Done, Evaluation, Executor, LocalExecutor};
pub use expected::{ExpectedAccuracy, ExpectedError, TrainedChild, trained_children};
pub use files::FileError;
pub use gate::{Candidate, EdgeList, Gate, Refusal};
pub use halving::{Halving, KeepBy, Standing, WentOn};
pub use inherit::Source;
pub use kendall::kendall_tau;
pub use latency::{LatencyConfig, LatencyLimit, LatencyModel};
pub use observer::{Observer, Progress};
pub use preflight::{
    CostRange, Feasibility, LatencyRange, LimitKind, LimitUse, PeakRange, Preflight, PreflightError, StageSize,
    cheapest_child, preflight, preflight_on,
};
pub use report::{ChildSummary, StudyReport, pareto_front, pareto_json};
pub use strategy::{
    AskError, Context, DomainSearch, Fitted, GramStrategy, Lesson, Prior, Proposal, Pruned, RandomStrategy, Strategy,
    TRIES_PER_NEW_CHILD, TellError, Tilt, WarmOutcome, probe_prior,
};
pub use streams::{child_seed, try_stream};
pub use study::{
    ChildRecord, FORMAT_VERSION, JournalError, Record, ResultsError, RoundRecord, Run, StopReason, Study, StudyError,
    read_journal,
};
