//! Measuring prepared jobs on this machine, with a journal that a second run continues.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use gram_latency_runner::{Ended, Engine, Header, Host, Job, Journal, JournalError, Progress, Record, RunError, run};

use crate::profile::{Prepared, ProfileError};

/// Why measuring ended early; what was measured before is in the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A model could not be made.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The measurement itself.
    #[error(transparent)]
    Run(#[from] RunError<Box<MeasureError>>),
    /// It was asked to stop.
    #[error("stopped; what was measured is kept")]
    Stopped,
}

/// Measures the prepared jobs with `engine` and gives all their records.
///
/// With a journal, what it holds is not measured again; it is removed by the caller when it has what it wants.
/// # Errors
/// [`MeasureError`]; whole blocks of jobs are in the journal then.
pub fn measure_here(
    engine: &dyn Engine,
    prepared: &Prepared,
    journal: Option<&Path>,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<Record>, MeasureError> {
    let header = Header::new(engine.device(), &prepared.jobs.digest);
    let (journal, records) = match journal {
        Some(path) => {
            let (journal, records) = Journal::open(path, &header)?;
            (Some(journal), records)
        }
        None => (None, Vec::new()),
    };
    let done: BTreeSet<(String, u32)> = records.iter().map(|record| (record.id.clone(), record.round)).collect();
    let mut host = Here { prepared, journal, records, progress };
    match run(engine, &prepared.jobs, &done, &mut host)? {
        Ended::Complete => Ok(host.records),
        Ended::Stopped => Err(MeasureError::Stopped),
    }
}

struct Here<'a> {
    prepared: &'a Prepared,
    journal: Option<Journal>,
    records: Vec<Record>,
    progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
}

impl Host for Here<'_> {
    type Error = Box<MeasureError>;

    fn model(&mut self, job: &Job) -> Result<Vec<u8>, Self::Error> {
        self.prepared.model(job).map_err(|error| Box::new(error.into()))
    }

    fn keep(&mut self, records: Vec<Record>) -> Result<(), Self::Error> {
        if let Some(journal) = &mut self.journal {
            journal.append(&records).map_err(|error| Box::new(error.into()))?;
        }
        self.records.extend(records);
        Ok(())
    }

    fn progress(&mut self, progress: Progress<'_>) -> ControlFlow<()> {
        (self.progress)(progress)
    }
}
