//! The file of what was measured: a line for the device and the list of jobs, then a line for each measurement.
//!
//! Lines are appended as blocks of jobs end, so whatever stops a run, what was measured stays, and the same run continues behind it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::jobs::{JobError, parse_versioned, read_bounded};
use crate::{Device, FORMAT_VERSION};

/// Larger files of results are refused before they are read.
pub const MAX_RESULTS_BYTES: u64 = 256 << 20;

/// First line of a file of results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What was measured on.
    pub device: Device,
    /// [`crate::JobFile::digest`] of the list that was measured.
    pub jobs_digest: String,
}

/// One measurement of one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The job.
    pub id: String,
    /// Which of its rounds.
    pub round: u32,
    /// What came out.
    pub outcome: Outcome,
}

/// What came out of measuring a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Times.
    Measured(Times),
    /// The engine does not take the model, and why.
    Refused(String),
}

/// Times of one job, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// Forward passes.
    pub n: usize,
    /// Fastest pass.
    pub min_us: f64,
    /// Median pass.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// The reference's time around the block: the mean of before and after.
    pub reference_us: f64,
    /// The same of the large reference, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_reference_us: Option<f64>,
    /// Times of nodes, if the job is profiled, in the order in which they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeTime>,
}

/// Times of the reference networks, in microseconds, around some measurements: times of different moments and sessions are scaled by them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct References {
    /// Of the small one, which stays in the caches.
    pub us: f64,
    /// Of the large one, which does not; none where no large network was measured.
    pub large_us: Option<f64>,
}

impl Times {
    /// Times of the references around the block.
    pub fn references(&self) -> References {
        References { us: self.reference_us, large_us: self.large_reference_us }
    }
}

/// Time of one node of the model as the engine runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTime {
    /// The engine's name of the node.
    pub name: String,
    /// The engine's operator.
    pub op: String,
    /// Axes of its output, as the engine lays it out; empty if it does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<usize>,
    /// Mean of the faster half of its passes, in microseconds.
    pub us: f64,
}

/// Why a file of results cannot be continued or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] JobError),
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line in the middle is damaged, or the first is no header.
    #[error("{}, line {line}: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The file was measured on another device.
    #[error("{} was measured on another device ({}); use another file, or remove it", path.display(), differences.join("; "))]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// The fields that differ.
        differences: Vec<String>,
    },
    /// The file belongs to another list of jobs.
    #[error("{} belongs to another list of jobs; use another file, or remove it", path.display())]
    OtherJobs {
        /// The file.
        path: PathBuf,
    },
}

/// A file of results that grows.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens `path` for the device and jobs of `header` and gives what it holds already; a new file gets the header.
    ///
    /// A last line that was cut off is removed.
    /// # Errors
    /// [`JournalError`] if the file is damaged, or of another device or list of jobs; it is left as it is then.
    pub fn open(path: &Path, header: &Header) -> Result<(Self, Vec<Record>), JournalError> {
        let write = |source| JournalError::Write { path: path.into(), source };
        let known = if path.exists() { read(path)? } else { None };
        let (records, whole_bytes) = match known {
            Some(found) => {
                let differences = found.header.device.differences(&header.device);
                if !differences.is_empty() {
                    return Err(JournalError::OtherDevice { path: path.into(), differences });
                }
                if found.header.jobs_digest != header.jobs_digest {
                    return Err(JournalError::OtherJobs { path: path.into() });
                }
                (found.records, found.whole_bytes)
            }
            None => (Vec::new(), 0),
        };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(write)?;
        file.set_len(whole_bytes).map_err(write)?;
        let mut journal = Self { path: path.into(), file };
        if whole_bytes == 0 {
            journal.append_line(header)?;
        }
        Ok((journal, records))
    }

    /// Appends records and makes them durable.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        records.iter().try_for_each(|record| self.append_line(record))?;
        self.file.sync_data().map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    fn append_line(&mut self, value: &impl Serialize) -> Result<(), JournalError> {
        let line = serde_json::to_string(value).map_err(io::Error::from);
        let written = line.and_then(|line| self.file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }
}

/// A file of results as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Its first line.
    pub header: Header,
    /// The measurements, each job and round once, in the order of the file.
    pub records: Vec<Record>,
    /// Length up to the end of the last whole line.
    whole_bytes: u64,
}

/// Reads a file of results; none if not even the header is whole.
///
/// # Errors
/// [`JournalError`] if it cannot be read or a line other than the last is damaged.
pub fn read(path: &Path) -> Result<Option<Results>, JournalError> {
    let bytes = read_bounded(path, MAX_RESULTS_BYTES)?;
    let whole_bytes = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = bytes[..whole_bytes].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let Some(first) = lines.next() else { return Ok(None) };
    let damaged = |line: usize, message: String| JournalError::Damaged { path: path.into(), line, message };
    let header = parse_versioned(first).map_err(|message| damaged(1, message))?;
    let mut records: Vec<Record> = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, line) in lines.enumerate() {
        let record: Record = serde_json::from_slice(line).map_err(|error| damaged(i + 2, error.to_string()))?;
        if seen.insert((record.id.clone(), record.round)) {
            records.push(record);
        }
    }
    Ok(Some(Results { header, records, whole_bytes: whole_bytes as u64 }))
}

impl Header {
    /// Header of results of `device` for the list of jobs with this digest.
    pub fn new(device: &Device, jobs_digest: &str) -> Self {
        Self { format_version: FORMAT_VERSION, device: device.clone(), jobs_digest: jobs_digest.into() }
    }
}

/// Removes a file of results; one that is not there is no error.
///
/// # Errors
/// [`JournalError::Write`].
pub fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::Write { path: path.into(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, round: u32) -> Record {
        let times = Times {
            n: 3,
            min_us: 1.5,
            p50_us: 2.0,
            p90_us: 2.5,
            reference_us: 9.0,
            large_reference_us: None,
            nodes: Vec::new(),
        };
        Record { id: id.into(), round, outcome: Outcome::Measured(times) }
    }

    #[test]
    fn a_run_continues_behind_what_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let header = Header::new(&Device::of_this_machine("fake", "1", 1), "digest");
        let (mut journal, found) = Journal::open(&path, &header).unwrap();
        assert_eq!(found, []);
        journal.append(&[record("a", 0), record("b", 0)]).unwrap();
        // A line that was cut off in the middle is dropped.
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"id\":\"c\"")).unwrap();
        let (mut journal, found) = Journal::open(&path, &header).unwrap();
        assert_eq!(found, [record("a", 0), record("b", 0)]);
        journal.append(&[record("b", 0), record("c", 1)]).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().records, [record("a", 0), record("b", 0), record("c", 1)]);
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let device = Device::of_this_machine("fake", "1", 1);
        Journal::open(&path, &Header::new(&device, "digest")).unwrap().0.append(&[record("a", 0)]).unwrap();
        let before = fs::read(&path).unwrap();
        let other = Device { threads: 4, ..device.clone() };
        let message = Journal::open(&path, &Header::new(&other, "digest")).unwrap_err().to_string();
        assert!(message.contains("threads: 1, not 4"), "{message}");
        assert!(matches!(Journal::open(&path, &Header::new(&device, "x")), Err(JournalError::OtherJobs { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, "{\"format_version\": 9}\n").unwrap();
        assert!(
            read(&path).unwrap_err().to_string().ends_with("line 1: format version 9; this program reads version 2")
        );
    }
}
