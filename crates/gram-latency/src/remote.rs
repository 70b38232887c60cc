//! Measuring on another device: a job folder is sent, a runner measures it there, the results are fetched.
//!
//! The folder also stays here, with all results that came back, so a device that disappears costs what it had not handed over; the same
//! call goes on from there.

mod adb;
mod ssh;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use gram_export::files::{WriteError, write_atomic};
use gram_latency_runner::jobs::{JOBS_FILE, RESULTS_FILE};
use gram_latency_runner::journal::{self, Results};
use gram_latency_runner::{Device, EngineError, JournalError, Outcome, Record};

pub use adb::Adb;
pub use ssh::Ssh;

use crate::Layout;
use crate::layout::layout_of_times;
use crate::profile::{Prepared, ProfileError};

/// A way to a device.
pub trait Transport {
    /// Where it leads, for messages.
    fn describe(&self) -> String;

    /// Copies the folder to the device, together with all that its runner needs; what is there already is replaced.
    ///
    /// # Errors
    /// [`TransportError`].
    fn send(&self, folder: &Path) -> Result<(), TransportError>;

    /// Runs the runner on the folder that was sent and waits for its end. Its progress goes where this process's errors go.
    ///
    /// # Errors
    /// [`TransportError`], also where the runner itself fails.
    fn measure(&self) -> Result<(), TransportError>;

    /// Writes the device's results, whatever there is of them, to `file`; gives `false` if there are none.
    ///
    /// # Errors
    /// [`TransportError`].
    fn fetch(&self, file: &Path) -> Result<bool, TransportError>;
}

/// A step that did not work on the way to a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {message}")]
pub struct TransportError {
    /// What was being done.
    pub step: String,
    /// What went wrong.
    pub message: String,
}

/// Why nothing, or not all, was measured on a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The job folder could not be written.
    #[error("cannot write the job folder {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the job folder could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A model could not be made.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The device was not reached, or went away.
    #[error("{device}: {source}; {n_kept} measurements are kept in {}; run the same command again to go on", folder.display())]
    Gone {
        /// The device.
        device: String,
        /// What did not work.
        source: TransportError,
        /// Measurements that came back before.
        n_kept: usize,
        /// Where they are.
        folder: PathBuf,
    },
    /// The results are damaged, or of another list of jobs.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The runner ended without having measured everything.
    #[error("{device}: {n_missing} of {total} measurements are missing; run the same command again to go on")]
    Incomplete {
        /// The device.
        device: String,
        /// Measurements that are missing.
        n_missing: usize,
        /// Measurements in all.
        total: usize,
    },
    /// The engine does not run the network that shows its layout.
    #[error("{device}: {source}")]
    Probe {
        /// The device.
        device: String,
        /// What the engine said.
        source: EngineError,
    },
}

/// What came back from a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The device, as its runner saw it.
    pub device: Device,
    /// All measurements.
    pub records: Vec<Record>,
}

/// Measures the prepared jobs on the device behind `transport`, with `folder` as the job folder on this side.
///
/// # Errors
/// [`RemoteError`]; what came back is kept in the folder, and a second call asks for the rest only.
pub fn measure_there(transport: &dyn Transport, prepared: &Prepared, folder: &Path) -> Result<Measured, RemoteError> {
    write_folder(prepared, folder)?;
    let results = folder.join(RESULTS_FILE);
    let kept = read_results(prepared, &results)?;
    if let Some(measured) = complete(prepared, &kept) {
        return Ok(measured);
    }
    let gone = |source: TransportError, n_kept: usize| RemoteError::Gone {
        device: transport.describe(),
        source,
        n_kept,
        folder: folder.into(),
    };
    let n_records = |results: &Option<Results>| results.as_ref().map_or(0, |results| results.records.len());
    transport.send(folder).map_err(|source| gone(source, n_records(&kept)))?;
    let ran = transport.measure();
    // Whatever happened, what was measured is wanted.
    let fetched = fetch(transport, folder);
    let kept = read_results(prepared, &results)?;
    ran.and(fetched).map_err(|source| gone(source, n_records(&kept)))?;
    let total = prepared.jobs.measurements().count();
    complete(prepared, &kept).ok_or_else(|| RemoteError::Incomplete {
        device: transport.describe(),
        n_missing: total - n_records(&kept).min(total),
        total,
    })
}

/// The layout of the device's engine, asked for with a job folder of its own inside `folder`.
///
/// # Errors
/// As [`measure_there`], and [`RemoteError::Probe`] if the engine refuses the probe.
pub fn layout_there(transport: &dyn Transport, threads: usize, folder: &Path) -> Result<(Device, Layout), RemoteError> {
    let measured = measure_there(transport, &Prepared::layout_probe(threads)?, &folder.join("layout"))?;
    let refused = |source| RemoteError::Probe { device: transport.describe(), source };
    match measured.records.first().map(|record| &record.outcome) {
        Some(Outcome::Measured(times)) => Ok((measured.device, layout_of_times(&times.nodes))),
        Some(Outcome::Refused(reason)) => Err(refused(EngineError::Refused(reason.clone()))),
        None => Err(refused(EngineError::NoProfile("the probe was not measured".into()))),
    }
}

/// Writes `jobs.json` and the models; results of another list of jobs are removed.
fn write_folder(prepared: &Prepared, folder: &Path) -> Result<(), RemoteError> {
    let wrong = |source| RemoteError::Folder { folder: folder.into(), source };
    fs::create_dir_all(folder.join("nets")).map_err(wrong)?;
    let jobs = serde_json::to_vec_pretty(&prepared.jobs).map_err(|error| wrong(error.into()))?;
    let list = folder.join(JOBS_FILE);
    if fs::read(&list).is_ok_and(|found| found == jobs) {
        return Ok(());
    }
    journal::remove(&folder.join(RESULTS_FILE))?;
    for job in prepared.jobs.models() {
        let path = folder.join(&job.model);
        fs::write(&path, prepared.model(job)?).map_err(wrong)?;
    }
    // Written last: a folder with a list is whole.
    Ok(write_atomic(&list, &jobs)?)
}

/// Fetches results into the folder; what is there stays if nothing comes.
fn fetch(transport: &dyn Transport, folder: &Path) -> Result<(), TransportError> {
    let incoming = folder.join("incoming.jsonl");
    let local = |error: io::Error| TransportError { step: "keeping the results".into(), message: error.to_string() };
    if !transport.fetch(&incoming)? {
        return Ok(());
    }
    let results = folder.join(RESULTS_FILE);
    // The device was sent what was known here, so it has at least that, unless it was cut off while it sent.
    let grew = fs::metadata(&incoming).map_err(local)?.len() >= fs::metadata(&results).map_or(0, |kept| kept.len());
    if grew { fs::rename(&incoming, &results).map_err(local) } else { fs::remove_file(&incoming).map_err(local) }
}

/// Results of these jobs; none if there are none yet.
fn read_results(prepared: &Prepared, path: &Path) -> Result<Option<Results>, RemoteError> {
    if !path.exists() {
        return Ok(None);
    }
    match journal::read(path)? {
        Some(results) if results.header.jobs_digest != prepared.jobs.digest => {
            Err(JournalError::OtherJobs { path: path.into() }.into())
        }
        results => Ok(results),
    }
}

fn complete(prepared: &Prepared, results: &Option<Results>) -> Option<Measured> {
    let results = results.as_ref()?;
    let done: BTreeSet<(&str, u32)> = results.records.iter().map(|record| (record.id.as_str(), record.round)).collect();
    let all = prepared.jobs.measurements().all(|(job, round)| done.contains(&(job.id.as_str(), round)));
    all.then(|| Measured { device: results.header.device.clone(), records: results.records.clone() })
}

/// Runs a program and waits; `step` is for messages.
fn execute(step: &str, program: &str, arguments: &[String], inherit: bool) -> Result<Vec<u8>, TransportError> {
    let fail = |message: String| TransportError { step: step.into(), message };
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null());
    if inherit {
        let status = command.stdout(std::process::Stdio::null()).status();
        let status = status.map_err(|error| fail(format!("{program} cannot be run: {error}")))?;
        return if status.success() { Ok(Vec::new()) } else { Err(fail(format!("{program} ended with {status}"))) };
    }
    let output = command.output().map_err(|error| fail(format!("{program} cannot be run: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
    Err(fail(format!("{program} ended with {}: {last}", output.status)))
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them() {
        assert_eq!(quoted("/tmp/a-b_1.so"), "/tmp/a-b_1.so");
        assert_eq!(quoted("a b; rm -rf x"), "'a b; rm -rf x'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn programs_that_fail_say_why() {
        let run = |script: &str| execute("trying", "sh", &["-c".into(), script.into()], false);
        assert_eq!(run("echo out").unwrap(), b"out\n");
        let error = run("echo first >&2; echo why >&2; exit 3").unwrap_err();
        assert_eq!((error.step.as_str(), error.message.ends_with("why")), ("trying", true), "{error}");
        let error = execute("trying", "no-such-program", &[], false).unwrap_err();
        assert!(error.message.starts_with("no-such-program cannot be run"), "{error}");
    }
}
