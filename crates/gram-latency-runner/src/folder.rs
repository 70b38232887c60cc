//! Measuring a job folder: `jobs.json` and models in, `results.jsonl` out.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::jobs::{Job, JobError, JobFile, MAX_MODEL_BYTES, RESULTS_FILE, read_bounded};
use crate::journal::{Header, Journal, JournalError, Record};
use crate::run::{Ended, Host, Progress, RunError, run};

/// Why a job folder was not measured to its end; what was measured is in its results.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The list of jobs or a model.
    #[error(transparent)]
    Jobs(#[from] JobError),
    /// The results.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The measurement.
    #[error(transparent)]
    Run(#[from] RunError<Box<FolderError>>),
}

/// Measures what the folder's jobs ask for and its results do not have yet.
///
/// # Errors
/// [`FolderError`]; whole blocks of jobs are in the results, and a second call goes on behind them.
pub fn measure_folder(
    engine: &dyn Engine,
    folder: &Path,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Ended, FolderError> {
    let jobs = JobFile::open(folder)?;
    let header = Header::new(engine.device(), &jobs.digest);
    let (journal, records) = Journal::open(&folder.join(RESULTS_FILE), &header)?;
    let done: BTreeSet<(String, u32)> = records.into_iter().map(|record| (record.id, record.round)).collect();
    let mut host = FolderHost { folder: folder.into(), journal, progress };
    Ok(run(engine, &jobs, &done, &mut host)?)
}

struct FolderHost<'a> {
    folder: PathBuf,
    journal: Journal,
    progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
}

impl Host for FolderHost<'_> {
    type Error = Box<FolderError>;

    fn model(&mut self, job: &Job) -> Result<Vec<u8>, Self::Error> {
        read_bounded(&self.folder.join(&job.model), MAX_MODEL_BYTES).map_err(|error| Box::new(error.into()))
    }

    fn keep(&mut self, records: Vec<Record>) -> Result<(), Self::Error> {
        self.journal.append(&records).map_err(|error| Box::new(error.into()))
    }

    fn progress(&mut self, progress: Progress<'_>) -> ControlFlow<()> {
        (self.progress)(progress)
    }
}
