//! `journal.jsonl`: append-only, checksummed, replayed line by line when a study goes on.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::FileError;
use crate::files::{AtPath, sync_parent};
use crate::sealed::{seal, unseal};

#[derive(Serialize)]
struct Body<'a> {
    seq: usize,
    record: &'a Record,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnedBody {
    seq: usize,
    record: Record,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line was changed, is missing, or is none of the journal's.
    #[error("{}, line {line}: {reason}; restore the file or start in another directory", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The study now writes something else than it did then.
    #[error(
        "{}, line {line}: the study now gives another {kind} record than when the journal was written; was it written by another version of the program?",
        .path.display()
    )]
    Diverged {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Kind of the record that the study gives now.
        kind: &'static str,
    },
}

/// The records of a journal, in order.
///
/// A last line without line break, torn by a kill or a full disk, is left out.
///
/// # Errors
/// [`JournalError`] that names file and line.
pub fn read_journal(path: &Path) -> Result<Vec<Record>, JournalError> {
    Ok(read_lines(path)?.lines.into_iter().map(|line| line.record).collect())
}

struct Line {
    text: String,
    checksum: String,
    record: Record,
}

struct Lines {
    lines: Vec<Line>,
    /// Bytes of the whole lines.
    length: u64,
    /// Bytes behind them.
    torn: u64,
}

fn read_lines(path: &Path) -> Result<Lines, JournalError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(FileError { path: path.to_owned(), source }.into()),
    };
    let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let mut lines: Vec<Line> = Vec::new();
    for (seq, line) in bytes[..length].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let corrupt = |reason: String| JournalError::Corrupt { path: path.to_owned(), line: seq + 1, reason };
        let text = std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| corrupt("it is not UTF-8".into()))?;
        let previous = lines.last().map_or("", |line| line.checksum.as_str());
        let (checksum, body) = unseal(previous, text).ok_or_else(|| corrupt("its checksum does not fit".into()))?;
        let body: OwnedBody = serde_json::from_str(&body).map_err(|error| corrupt(error.to_string()))?;
        if body.seq != seq {
            return Err(corrupt(format!("it has number {}, not {seq}", body.seq)));
        }
        lines.push(Line { text: text.to_owned(), checksum, record: body.record });
    }
    Ok(Lines { lines, length: length as u64, torn: (bytes.len() - length) as u64 })
}

/// The journal of a study that runs.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Lines of an earlier run that this one has not come to again.
    ahead: VecDeque<String>,
    n_lines: usize,
    checksum: String,
}

impl Journal {
    /// Opens or begins a journal; gives the records that are there and the number of bytes of a torn last line, which is cut off.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Record>, u64), JournalError> {
        let Lines { lines, length, torn } = read_lines(path)?;
        let file = OpenOptions::new().create(true).append(true).open(path).at(path)?;
        if torn > 0 {
            file.set_len(length).at(path)?;
            file.sync_all().at(path)?;
        }
        sync_parent(path)?;
        let (ahead, records) = lines.into_iter().map(|line| (line.text, line.record)).unzip();
        Ok((Self { path: path.to_owned(), file, ahead, n_lines: 0, checksum: String::new() }, records, torn))
    }

    /// Appends a record; if an earlier run wrote this line already, compares instead.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let body = serde_json::to_string(&Body { seq: self.n_lines, record });
        let body = body.map_err(io::Error::from).at(&self.path)?;
        let (line, checksum) = seal(&self.checksum, &body);
        match self.ahead.pop_front() {
            Some(before) if before == line => {}
            Some(_) => return Err(self.diverged(kind(record))),
            None => {
                let mut bytes = line.into_bytes();
                bytes.push(b'\n');
                self.file.write_all(&bytes).at(&self.path)?;
                self.file.sync_data().at(&self.path)?;
            }
        }
        self.n_lines += 1;
        self.checksum = checksum;
        Ok(())
    }

    /// Whether an earlier run's lines are still to come.
    pub(crate) fn is_replaying(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The study has ended; an earlier run must not have gone on.
    pub(crate) fn finish(&self) -> Result<(), JournalError> {
        if self.ahead.is_empty() { Ok(()) } else { Err(self.diverged("last")) }
    }

    fn diverged(&self, kind: &'static str) -> JournalError {
        JournalError::Diverged { path: self.path.clone(), line: self.n_lines + 1, kind }
    }
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Header { .. } => "header",
        Record::Prior(_) => "prior",
        Record::Child(_) => "child",
        Record::Round(_) => "round",
        Record::Stop { .. } => "stop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Prior, StopReason};

    fn records() -> Vec<Record> {
        let prior = |acceptance| Record::Prior(Prior { factor: 1.0, acceptance, tilt: None });
        let stop = Record::Stop { reason: StopReason::BudgetSpent, n_children: 1, n_rounds: 2 };
        vec![prior(0.5), prior(1.0 / 3.0), stop]
    }

    fn write(path: &Path) {
        let (mut journal, before, torn) = Journal::open(path).unwrap();
        assert_eq!((before, torn), (vec![], 0));
        records().iter().for_each(|record| journal.append(record).unwrap());
    }

    #[test]
    fn records_read_back_and_replay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        write(&path);
        let text = fs::read(&path).unwrap();
        assert_eq!(read_journal(&path).unwrap(), records());
        let (mut journal, before, _) = Journal::open(&path).unwrap();
        assert!(journal.is_replaying() && before == records());
        assert!(journal.finish().is_err());
        records().iter().for_each(|record| journal.append(record).unwrap());
        assert!(!journal.is_replaying() && journal.finish().is_ok());
        assert_eq!(fs::read(&path).unwrap(), text);
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        write(&path);
        let text = fs::read(&path).unwrap();
        let second = text.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        fs::write(&path, &text[..second + 20]).unwrap();
        let (mut journal, before, torn) = Journal::open(&path).unwrap();
        assert_eq!((before.len(), torn), (1, 20));
        records().iter().for_each(|record| journal.append(record).unwrap());
        assert_eq!(fs::read(&path).unwrap(), text);
    }

    #[test]
    fn a_corrupt_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        write(&path);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let check = |content: String, line: &str| {
            fs::write(&path, content).unwrap();
            let error = Journal::open(&path).unwrap_err().to_string();
            assert!(error.contains("journal.jsonl") && error.contains(line), "{error}");
        };
        check(text.replacen("0.5", "0.6", 1), "line 1: its checksum");
        check(format!("{}\n{}\n", lines[0], lines[2]), "line 2: its checksum");
        check(format!("{}\nrubbish\n{}\n", lines[0], lines[1]), "line 2");
        fs::write(&path, b"\xff\xff\n").unwrap();
        assert!(read_journal(&path).unwrap_err().to_string().contains("line 1: it is not UTF-8"));
    }

    #[test]
    fn another_course_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        write(&path);
        let (mut journal, ..) = Journal::open(&path).unwrap();
        let error = journal.append(&records()[1]).unwrap_err().to_string();
        assert!(error.contains("line 1: the study now gives another prior record"), "{error}");
    }
}
