//! `results/`: one immutable file per evaluation, first writer wins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::FORMAT_VERSION;
use crate::files::{AtPath, remove_temporaries, write_new};
use crate::sealed::{seal, unseal};
use crate::{EvalKey, FileError, Outcome};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultFile {
    format_version: u32,
    key: EvalKey,
    outcome: Outcome,
}

/// Why a stored result cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file was changed or is no result.
    #[error("{}: {reason}; remove the file to evaluate the child again", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two outcomes of one evaluation differ: the evaluator is not deterministic, or the file is from elsewhere.
    #[error("{}: holds {first:?}, but the journal or another evaluation has {second:?}", .path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// What is stored.
        first: Box<Outcome>,
        /// The other one.
        second: Box<Outcome>,
    },
}

/// The store of outcomes by evaluation key.
#[derive(Debug)]
pub(crate) struct Results {
    directory: PathBuf,
}

impl Results {
    pub(crate) fn open(directory: PathBuf) -> Result<Self, ResultsError> {
        fs::create_dir_all(&directory).at(&directory)?;
        remove_temporaries(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, key: EvalKey) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    /// The stored outcome, if there is one.
    pub(crate) fn get(&self, key: EvalKey) -> Result<Option<Outcome>, ResultsError> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(bytes) => parse(&path, key, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError { path, source }.into()),
        }
    }

    /// Makes the store agree with an outcome of the journal: puts it back if it is gone. If one is stored, it must be equal.
    pub(crate) fn settle(&self, key: EvalKey, outcome: &Outcome) -> Result<Outcome, ResultsError> {
        match self.get(key)? {
            Some(first) if first != *outcome => Err(self.differs(key, first, outcome)),
            Some(first) => Ok(first),
            None => self.put(key, outcome).map(|()| outcome.clone()),
        }
    }

    fn differs(&self, key: EvalKey, first: Outcome, second: &Outcome) -> ResultsError {
        let path = self.path(key);
        ResultsError::Differs { path, first: Box::new(first), second: Box::new(second.clone()) }
    }

    /// Stores an outcome. If one is stored already it stays, and must be equal.
    pub(crate) fn put(&self, key: EvalKey, outcome: &Outcome) -> Result<(), ResultsError> {
        let path = self.path(key);
        let file = ResultFile { format_version: FORMAT_VERSION, key, outcome: outcome.clone() };
        let body = serde_json::to_string(&file).map_err(io::Error::from).at(&path)?;
        let (line, _) = seal("", &body);
        if write_new(&path, &(line + "\n"))? {
            return Ok(());
        }
        match self.get(key)? {
            Some(first) if first != *outcome => Err(self.differs(key, first, outcome)),
            _ => Ok(()),
        }
    }
}

fn parse(path: &Path, key: EvalKey, bytes: &[u8]) -> Result<Outcome, ResultsError> {
    let corrupt = |reason: &str| ResultsError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| corrupt("it is not UTF-8"))?;
    let (_, body) = unseal("", text.trim_end()).ok_or_else(|| corrupt("its checksum does not fit"))?;
    let file: ResultFile = serde_json::from_str(&body).map_err(|error| corrupt(&error.to_string()))?;
    if file.format_version != FORMAT_VERSION {
        return Err(corrupt(&format!("format version {}, this program reads {FORMAT_VERSION}", file.format_version)));
    }
    if file.key != key {
        return Err(corrupt("it holds the result of another evaluation"));
    }
    file.outcome.check().map_err(|error| corrupt(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::Cell;

    fn key(seed: u64) -> EvalKey {
        EvalKey::new(&Cell::new().canonical_key(), "test", seed)
    }

    #[test]
    fn the_first_writer_wins() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::open(folder.path().join("results")).unwrap();
        assert_eq!(results.get(key(1)).unwrap(), None);
        results.put(key(1), &Outcome::scored(0.5)).unwrap();
        results.put(key(1), &Outcome::scored(0.5)).unwrap();
        let error = results.put(key(1), &Outcome::scored(0.6)).unwrap_err();
        assert!(matches!(error, ResultsError::Differs { .. }), "{error}");
        assert_eq!(results.get(key(1)).unwrap(), Some(Outcome::scored(0.5)));
    }

    #[test]
    fn changed_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::open(folder.path().to_owned()).unwrap();
        results.put(key(1), &Outcome::scored(0.5)).unwrap();
        let path = results.path(key(1));
        let text = fs::read_to_string(&path).unwrap();
        for (content, reason) in [
            (text.replace("0.5", "0.9"), "its checksum does not fit"),
            (text[..text.len() / 2].to_owned(), "its checksum does not fit"),
            (String::new(), "its checksum does not fit"),
        ] {
            fs::write(&path, content).unwrap();
            let error = results.get(key(1)).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(".json"), "{error}");
        }
        fs::write(results.path(key(2)), text).unwrap();
        assert!(results.get(key(2)).unwrap_err().to_string().contains("another evaluation"));
    }
}
