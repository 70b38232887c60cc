//! Job folders: what is to be measured, and the file of what was.
//!
//! A folder has `jobs.json` ([`JobFile`]) and the models that it names; the runner writes `results.jsonl` into it ([`crate::Journal`]).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of `jobs.json` and `results.jsonl`.
pub const FORMAT_VERSION: u32 = 2;
/// Name of the file that lists the jobs.
pub const JOBS_FILE: &str = "jobs.json";
/// Name of the file that the runner writes.
pub const RESULTS_FILE: &str = "results.jsonl";
/// Larger lists of jobs are refused before they are read.
pub const MAX_JOBS_BYTES: u64 = 64 << 20;
/// Larger models are refused before they are read.
pub const MAX_MODEL_BYTES: u64 = 1 << 30;
/// No file may list more jobs.
pub const MAX_JOBS: usize = 100_000;

/// A list of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Names this list: results of another list are not mixed with it.
    pub digest: String,
    /// How to measure.
    pub plan: Plan,
    /// Measured around every block of jobs; what it drifts by is what the machine drifts by.
    pub reference: Job,
    /// A network that does not stay in the caches, measured besides where such networks are measured: what it drifts by is what others do
    /// to a shared cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_reference: Option<Job>,
    /// What to measure.
    pub jobs: Vec<Job>,
}

/// One model to measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Name of the job, unique in its list.
    pub id: String,
    /// The model's file, relative to the folder.
    pub model: String,
    /// Shape of one image, `[c, h, w]`.
    pub input: [usize; 3],
    /// Whether times of nodes are wanted; whole passes are then slower and their times not comparable with others.
    pub profiled: bool,
    /// How often, at different times, it is measured.
    pub rounds: u32,
}

/// How jobs are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Threads of a forward pass.
    pub threads: usize,
    /// Passes before the measured ones.
    pub warmups: usize,
    /// Measured passes.
    pub runs: usize,
    /// Jobs between two measurements of the reference.
    pub block: usize,
    /// Largest relative change of the reference over a block; a block with more is dropped and measured again.
    pub max_drift: f64,
    /// Largest 90th percentile, as a multiple of the minimum; jobs with more are measured again.
    pub max_spread: f64,
    /// How often a block or job is measured again before the run is refused.
    pub max_repeats: usize,
    /// Milliseconds to wait before the first repetition, twice as many before the second, and so on: what disturbs often ends by itself.
    pub pause_ms: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            threads: 1,
            warmups: 10,
            runs: 30,
            block: 12,
            max_drift: 0.03,
            max_spread: 1.3,
            max_repeats: 8,
            pause_ms: 100,
        }
    }
}

/// Why a job folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `jobs.json` is no list of jobs.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl JobFile {
    /// Reads and checks the `jobs.json` of a folder.
    ///
    /// # Errors
    /// [`JobError`] for a file that is missing, too large, of another version or inconsistent.
    pub fn open(folder: &Path) -> Result<Self, JobError> {
        let path = folder.join(JOBS_FILE);
        let bytes = read_bounded(&path, MAX_JOBS_BYTES)?;
        let format = |message: String| JobError::Format { path: path.clone(), message };
        let file: Self = parse_versioned(&bytes).map_err(format)?;
        file.check().map_err(format)?;
        Ok(file)
    }

    /// What is inconsistent, if anything.
    ///
    /// # Errors
    /// A sentence that names the job or field.
    pub fn check(&self) -> Result<(), String> {
        let plan = &self.plan;
        let counts = [plan.threads, plan.runs, plan.block];
        if counts.iter().any(|count| !(1..=1_000_000).contains(count)) || plan.warmups > 1_000_000 {
            return Err("plan: threads, runs and block must be 1 to 1000000, warmups 0 to 1000000".into());
        }
        if plan.max_repeats > 1000 || plan.pause_ms > 60_000 {
            return Err("plan: at most 1000 repeats, pauses of at most 60000 ms".into());
        }
        if !(plan.max_drift > 0.0 && plan.max_spread > 1.0) {
            return Err("plan: max_drift must be above 0 and max_spread above 1".into());
        }
        if self.jobs.len() > MAX_JOBS {
            return Err(format!("{} jobs, more than {MAX_JOBS}", self.jobs.len()));
        }
        let mut ids = BTreeSet::new();
        for job in self.models() {
            if !ids.insert(&job.id) {
                return Err(format!("job `{}` stands twice", job.id));
            }
            let inside = Path::new(&job.model).components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || job.model.is_empty() {
                return Err(format!("job `{}`: model `{}` lies outside of the folder", job.id, job.model));
            }
            if job.input.iter().any(|axis| !(1..=1 << 16).contains(axis)) || job.rounds == 0 {
                return Err(format!("job `{}`: axes must be 1 to 65536, rounds 1 or more", job.id));
            }
        }
        Ok(())
    }

    /// All jobs as they are listed, then the references.
    pub fn models(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().chain([&self.reference]).chain(&self.large_reference)
    }

    /// Every measurement that the list asks for, rounds outermost, so that the rounds of a job lie far apart.
    pub fn measurements(&self) -> impl Iterator<Item = (&Job, u32)> {
        let rounds = self.jobs.iter().map(|job| job.rounds).max().unwrap_or(0);
        (0..rounds)
            .flat_map(|round| self.jobs.iter().filter(move |job| round < job.rounds).map(move |job| (job, round)))
    }
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// [`JobError`] naming the file.
pub fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, JobError> {
    let fail = |source| JobError::Read { path: path.into(), source };
    let metadata = fs::metadata(path).map_err(fail)?;
    if metadata.is_dir() {
        return Err(fail(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(most + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > most {
        return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes"))));
    }
    Ok(bytes)
}

/// Parses JSON whose `format_version` must be [`FORMAT_VERSION`]; another version is named before anything else is complained about.
pub(crate) fn parse_versioned<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if format_version != FORMAT_VERSION {
        return Err(format!("format version {format_version}; this program reads version {FORMAT_VERSION}"));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn job(id: &str) -> Job {
        Job { id: id.into(), model: format!("nets/{id}.onnx"), input: [3, 8, 8], profiled: false, rounds: 2 }
    }

    fn file() -> JobFile {
        let once = Job { rounds: 1, ..job("b") };
        let (digest, plan, reference) = ("d".into(), Plan::default(), job("reference"));
        JobFile {
            format_version: FORMAT_VERSION,
            digest,
            plan,
            reference,
            large_reference: None,
            jobs: vec![job("a"), once],
        }
    }

    #[test]
    fn rounds_lie_apart() {
        let file = file();
        let order: Vec<(&str, u32)> = file.measurements().map(|(job, round)| (job.id.as_str(), round)).collect();
        assert_eq!(order, [("a", 0), ("b", 0), ("a", 1)]);
    }

    #[test]
    fn bad_lists_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join(JOBS_FILE), text).unwrap();
        let fails = || JobFile::open(folder.path()).unwrap_err().to_string();
        assert!(fails().starts_with("cannot read "));
        write("{");
        assert!(fails().contains("EOF"));
        write(r#"{"format_version": 9, "what": 1}"#);
        assert!(fails().ends_with("format version 9; this program reads version 2"), "{}", fails());
        for (broken, words) in [
            (JobFile { jobs: vec![job("a"), job("a")], ..file() }, "job `a` stands twice"),
            (JobFile { jobs: vec![Job { model: "../a".into(), ..job("a") }], ..file() }, "outside of the folder"),
            (JobFile { jobs: vec![Job { model: "/a".into(), ..job("a") }], ..file() }, "outside of the folder"),
            (JobFile { jobs: vec![Job { input: [0, 1, 1], ..job("a") }], ..file() }, "axes must be"),
            (JobFile { plan: Plan { runs: 0, ..Plan::default() }, ..file() }, "plan: threads"),
            (JobFile { plan: Plan { max_drift: f64::NAN, ..Plan::default() }, ..file() }, "max_drift"),
        ] {
            write(&serde_json::to_string(&broken).unwrap().replace("null", "-1"));
            assert!(fails().contains(words), "{}", fails());
        }
        write(&serde_json::to_string(&file()).unwrap());
        assert_eq!(JobFile::open(folder.path()).unwrap(), file());
    }
}
