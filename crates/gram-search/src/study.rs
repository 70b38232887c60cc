//! Studies: a directory that one command fills, and the same command continues.

mod differences;
mod journal;
mod record;
mod results;
mod rounds;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gram_meta::{MetaFileError, MetaGraph};
use serde_json::Value;

use crate::files::AtPath;
use crate::{
    AskError, ConfigError, Evaluator, EvaluatorError, Executor, FileError, LatencyLimit, Observer, Outcome,
    PreflightError, Pruned, Strategy, StrategyError, StudyConfig, StudyReport, TellError,
};

use differences::{differences, sorted};
use journal::Journal;
use results::Results;
use rounds::Rounds;

pub use journal::{JournalError, read_journal};
pub use record::{ChildRecord, FORMAT_VERSION, Record, RoundRecord, StopReason};
pub use results::ResultsError;

/// A study's directory, locked for this process.
///
/// It holds `journal.jsonl` (append-only, the only truth), `results/` (one immutable file per evaluation), `meta-graph.json` and
/// `pareto.json` (rewritten as a whole), `timings.jsonl` (how long evaluations took; not part of what is reproducible) and `lock`.
#[derive(Debug)]
pub struct Study {
    directory: PathBuf,
    config: StudyConfig,
    identity: String,
    journal: Journal,
    /// Outcomes of the journal, by evaluation.
    known: BTreeMap<crate::EvalKey, Outcome>,
    results: Results,
    notes: Vec<String>,
    has_run: bool,
    /// Held while the study is open.
    _lock: File,
}

/// What a run of a study needs besides its configuration; none of it may change the journal.
pub struct Run<'a> {
    /// Scores children; its identity must be the one that the study was opened with.
    pub evaluator: &'a dyn Evaluator,
    /// Runs evaluations.
    pub executor: &'a dyn Executor,
    /// Hears of progress.
    pub observer: &'a mut dyn Observer,
    /// Set it to stop: running evaluations end, the report says [`StopReason::Interrupted`], and the next run goes on.
    pub interrupt: &'a AtomicBool,
    /// For the convergence test, see [`Strategy::tell`]. A function of the meta-graph alone.
    pub pruned: &'a Pruned<'a>,
    /// The meta-graph of [`StudyConfig::warm_start`].
    pub warm_source: Option<&'a MetaGraph>,
    /// The limit of [`StudyConfig::latency`].
    pub latency: Option<LatencyLimit>,
}

impl Study {
    /// Opens a study's directory, new or begun, and locks it.
    ///
    /// `identity` is the evaluator's. `context` is written into the journal's header beside the configuration (training configuration,
    /// data digest, …), so that a directory that was begun otherwise is refused with the names of what differs.
    ///
    /// # Errors
    /// [`StudyError`]: a configuration that is not usable, a directory that is locked or belongs to another configuration, a corrupt journal.
    pub fn open(directory: &Path, config: StudyConfig, identity: &str, context: &Value) -> Result<Self, StudyError> {
        config.verify()?;
        fs::create_dir_all(directory).at(directory)?;
        let lock = lock(&directory.join("lock"))?;
        let (mut journal, records, torn) = Journal::open(&directory.join("journal.jsonl"))?;
        let header = header(&config, identity, context)?;
        check_header(directory, &records, &header)?;
        journal.append(&header)?;
        let mut notes = Vec::new();
        if torn > 0 {
            notes.push(format!("the journal's last line was torn ({torn} bytes) and is written anew"));
        }
        let known: BTreeMap<_, _> = records.into_iter().filter_map(outcome).collect();
        if !known.is_empty() {
            notes.push(format!("going on after {} evaluated children", known.len()));
        }
        let results = Results::open(directory.join("results"))?;
        crate::files::remove_temporaries(directory)?;
        let (directory, identity) = (directory.to_owned(), identity.to_owned());
        Ok(Self { directory, config, identity, journal, known, results, notes, has_run: false, _lock: lock })
    }

    /// The configuration.
    pub fn config(&self) -> &StudyConfig {
        &self.config
    }

    /// Runs the study to its end, or until it is interrupted, with the strategy that its configuration names.
    ///
    /// # Errors
    /// [`StudyError`]; what was evaluated until then is kept, and the next run goes on there.
    pub fn run(&mut self, run: Run<'_>) -> Result<StudyReport, StudyError> {
        let mut strategy = self.config.build_strategy(run.warm_source)?;
        self.run_with(strategy.as_mut(), run)
    }

    /// Runs the study with a strategy at its start; it must be a function of the configuration.
    ///
    /// # Errors
    /// [`StudyError`]; what was evaluated until then is kept, and the next run goes on there.
    pub fn run_with(&mut self, strategy: &mut dyn Strategy, run: Run<'_>) -> Result<StudyReport, StudyError> {
        if std::mem::replace(&mut self.has_run, true) {
            return Err(StudyError::HasRun);
        }
        let identity = run.evaluator.identity();
        if identity != self.identity {
            return Err(StudyError::Identity { expected: self.identity.clone(), got: identity });
        }
        if self.config.latency.as_ref().map(|limit| limit.max_ms) != run.latency.as_ref().map(|limit| limit.max_ms) {
            return Err(StudyError::Latency);
        }
        for note in self.notes.drain(..) {
            run.observer.note(&note);
        }
        Rounds::new(self, strategy, run).run()
    }
}

fn lock(path: &Path) -> Result<File, StudyError> {
    let file = File::options().create(true).truncate(false).write(true).open(path).at(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StudyError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Ok(Err(error).at(path)?),
    }
}

fn header(config: &StudyConfig, identity: &str, context: &Value) -> Result<Record, StudyError> {
    let study = serde_json::to_value(config).map_err(StudyError::Encode)?;
    let config = sorted(&serde_json::json!({ "study": study, "context": context, "evaluator": identity }));
    let config_digest = blake3::hash(config.to_string().as_bytes()).to_hex().to_string();
    Ok(Record::Header { format_version: FORMAT_VERSION, config, config_digest })
}

/// The journal begins with this header, or is empty.
fn check_header(directory: &Path, records: &[Record], expected: &Record) -> Result<(), StudyError> {
    let Record::Header { config: ours, .. } = expected else { return Ok(()) };
    match records.first() {
        None => Ok(()),
        Some(Record::Header { format_version, config: theirs, .. }) => {
            if *format_version != FORMAT_VERSION {
                return Err(StudyError::Version { directory: directory.to_owned(), got: *format_version });
            }
            let differences = differences(theirs, ours);
            if differences.is_empty() {
                return Ok(());
            }
            Err(StudyError::ConfigDiffers { directory: directory.to_owned(), differences })
        }
        Some(_) => Err(StudyError::NoHeader { directory: directory.to_owned() }),
    }
}

fn outcome(record: Record) -> Option<(crate::EvalKey, Outcome)> {
    match record {
        Record::Child(child) => Some((child.key, child.outcome)),
        _ => None,
    }
}

/// Why a study cannot be opened or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// The configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration's strategy cannot be built.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// Limits that cannot be met, or a space that cannot be lowered.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The directory was begun with another configuration.
    #[error(
        "{} holds a study with another configuration; use another directory. What differs: {}",
        .directory.display(),
        .differences.join("; ")
    )]
    ConfigDiffers {
        /// The directory.
        directory: PathBuf,
        /// One line per differing field: its path, what is there and what was asked for.
        differences: Vec<String>,
    },
    /// The directory was written by another version.
    #[error("{}: the journal has format version {got}, this program reads {FORMAT_VERSION}", .directory.display())]
    Version {
        /// The directory.
        directory: PathBuf,
        /// What the journal has.
        got: u32,
    },
    /// The journal does not begin with a header.
    #[error("{}: the journal does not begin with a header", .directory.display())]
    NoHeader {
        /// The directory.
        directory: PathBuf,
    },
    /// Another process has the directory open.
    #[error("{}: another process runs this study", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// [`Study::run`] was called twice; open the study again instead.
    #[error("the study has run already; open it again to go on")]
    HasRun,
    /// The evaluator is not the one that the study was opened with.
    #[error("the evaluator is `{got}`, the study was opened for `{expected}`")]
    Identity {
        /// The study's.
        expected: String,
        /// The evaluator's.
        got: String,
    },
    /// The latency limit of the configuration and that of the run are not the same.
    #[error("the study was opened with another latency limit than it is run with")]
    Latency,
    /// A journal that is corrupt or does not fit.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A stored result that is corrupt or does not fit.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Another file of the directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// No first child.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A strategy that cannot learn from its round.
    #[error(transparent)]
    Tell(#[from] TellError),
    /// An evaluation failed.
    #[error("child {child} ({key}) could not be evaluated: {source}")]
    Evaluation {
        /// Number of the child, from 1.
        child: usize,
        /// The evaluation.
        key: crate::EvalKey,
        /// Why.
        source: EvaluatorError,
    },
    /// The meta-graph cannot be written.
    #[error(transparent)]
    MetaFile(#[from] MetaFileError),
    /// A record cannot be encoded.
    #[error("a record cannot be encoded: {0}")]
    Encode(#[source] serde_json::Error),
}
