//! What a device computes: the outputs of a job folder's models, so that one device can be held against another.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, EngineError, Profiling};
use crate::folder::FolderError;
use crate::jobs::{Job, JobError, JobFile, MAX_MODEL_BYTES, parse_versioned, read_bounded};
use crate::journal::{JournalError, MAX_RESULTS_BYTES};
use crate::run::RunError;
use crate::{Device, FORMAT_VERSION};

/// A file of outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What computed them.
    pub device: Device,
    /// [`JobFile::digest`] of the list whose models they are.
    pub jobs_digest: String,
    /// The jobs as they are listed, then the references.
    pub outputs: Vec<Output>,
}

/// Output of one job's model for the engine's fixed input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The job.
    pub id: String,
    /// What came out.
    pub computed: Computed,
}

/// What came out of running a model once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Computed {
    /// All values, the last axis innermost.
    Values(Vec<f32>),
    /// The engine does not take the model, and why.
    Refused(String),
}

impl Outputs {
    /// Runs every model of the folder once.
    ///
    /// # Errors
    /// [`FolderError`]; values that are not finite are a failure of the engine.
    pub fn of_folder(engine: &dyn Engine, folder: &Path) -> Result<Self, FolderError> {
        let jobs = JobFile::open(folder)?;
        let outputs =
            jobs.models().map(|job| Ok(Output { id: job.id.clone(), computed: compute(engine, folder, job)? }));
        let outputs = outputs.collect::<Result<_, FolderError>>()?;
        let device = engine.device().clone();
        Ok(Self { format_version: FORMAT_VERSION, device, jobs_digest: jobs.digest, outputs })
    }

    /// Writes the file whole or not at all; one that is there is replaced.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), JournalError> {
        let written = || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec(self).map_err(io::Error::from)?)?;
            file.persist(path).map(drop).map_err(|error| error.error)
        };
        written().map_err(|source| JournalError::Write { path: path.into(), source })
    }

    /// Reads a file that [`Self::write`] wrote.
    ///
    /// # Errors
    /// [`JobError`] naming the file.
    pub fn read(path: &Path) -> Result<Self, JobError> {
        let parsed = parse_versioned(&read_bounded(path, MAX_RESULTS_BYTES)?);
        parsed.map_err(|message| JobError::Format { path: path.into(), message })
    }

    /// The largest difference between two values of a job, relative to the job's largest value; none if the two devices did not run the
    /// same models.
    pub fn difference(&self, other: &Self) -> Option<f64> {
        if self.jobs_digest != other.jobs_digest || self.outputs.len() != other.outputs.len() {
            return None;
        }
        let pairs = self.outputs.iter().zip(&other.outputs);
        pairs.map(|(a, b)| a.difference(b)).try_fold(0.0, |largest: f64, each| Some(largest.max(each?)))
    }
}

impl Output {
    /// The largest difference between two values of this job, relative to its largest value; none if the other is another job's, or if
    /// only one was refused.
    pub fn difference(&self, other: &Self) -> Option<f64> {
        let (a, b) = match (&self.computed, &other.computed) {
            (Computed::Values(a), Computed::Values(b)) if a.len() == b.len() => (a, b),
            (Computed::Refused(_), Computed::Refused(_)) if self.id == other.id => return Some(0.0),
            _ => return None,
        };
        let largest = a.iter().chain(b).fold(0.0f64, |largest, &value| largest.max(f64::from(value).abs()));
        let differences = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
        let difference = differences.fold(0.0, f64::max);
        (self.id == other.id).then_some(if difference == 0.0 { 0.0 } else { difference / largest })
    }
}

fn compute(engine: &dyn Engine, folder: &Path, job: &Job) -> Result<Computed, FolderError> {
    let model = read_bounded(&folder.join(&job.model), MAX_MODEL_BYTES)?;
    let values = engine.load(&model, job.input, Profiling::Off).and_then(|mut session| session.output());
    // JSON has no word for the others.
    let finite = |values: &Vec<f32>| values.iter().all(|value| value.is_finite());
    let source = match values {
        Ok(values) if finite(&values) => return Ok(Computed::Values(values)),
        Ok(_) => EngineError::Failed("values that are not finite came out".into()),
        Err(EngineError::Refused(reason)) => return Ok(Computed::Refused(reason)),
        Err(source) => source,
    };
    Err(RunError::Engine { id: job.id.clone(), source }.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::{NodeRuns, Session};
    use crate::jobs::{JOBS_FILE, Plan};

    /// Takes models that are numbers and gives each number, and a third of it, back.
    struct Echo(Device);

    struct EchoSession(f32);

    impl Engine for Echo {
        fn device(&self) -> &Device {
            &self.0
        }

        fn load<'a>(&'a self, model: &[u8], _: [usize; 3], _: Profiling) -> Result<Box<dyn Session + 'a>, EngineError> {
            let number = std::str::from_utf8(model).ok().and_then(|text| text.parse().ok());
            Ok(Box::new(EchoSession(number.ok_or_else(|| EngineError::Refused("no number".into()))?)))
        }
    }

    impl Session for EchoSession {
        fn run(&mut self) -> Result<f64, EngineError> {
            Ok(1.0)
        }

        fn output(&mut self) -> Result<Vec<f32>, EngineError> {
            Ok(vec![self.0, self.0 / 3.0])
        }

        fn into_node_runs(self: Box<Self>) -> Result<Vec<NodeRuns>, EngineError> {
            Err(EngineError::NoProfile("never".into()))
        }
    }

    fn folder(models: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let job = |i: usize| Job {
            id: format!("job {i}"),
            model: format!("{i}.onnx"),
            input: [1, 1, 1],
            profiled: i == 0,
            rounds: 1,
        };
        let jobs = (0..models.len() - 1).map(job).collect();
        let (digest, plan, reference) = ("d".into(), Plan::default(), job(models.len() - 1));
        let file = JobFile { format_version: FORMAT_VERSION, digest, plan, reference, large_reference: None, jobs };
        fs::write(folder.path().join(JOBS_FILE), serde_json::to_string(&file).unwrap()).unwrap();
        for (i, model) in models.iter().enumerate() {
            fs::write(folder.path().join(format!("{i}.onnx")), model).unwrap();
        }
        folder
    }

    fn echo() -> Echo {
        Echo(Device::of_this_machine("echo", "1", 1))
    }

    #[test]
    fn every_model_is_run_and_every_bit_written() {
        let folder = folder(&["0.1", "what", "-1e-30"]);
        let outputs = Outputs::of_folder(&echo(), folder.path()).unwrap();
        let computed: Vec<&Computed> = outputs.outputs.iter().map(|output| &output.computed).collect();
        let refused = Computed::Refused("no number".into());
        let values = |x: f32| Computed::Values(vec![x, x / 3.0]);
        assert_eq!(computed, [&values(0.1), &refused, &values(-1e-30)]);
        let path = folder.path().join("outputs.json");
        outputs.write(&path).unwrap();
        assert_eq!(Outputs::read(&path).unwrap(), outputs);
        assert_eq!(outputs.difference(&outputs), Some(0.0));
        fs::write(&path, r#"{"format_version": 9}"#).unwrap();
        assert!(Outputs::read(&path).unwrap_err().to_string().contains("this program reads version 2"));
        assert!(outputs.write(folder.path()).is_err());
    }

    #[test]
    fn what_is_not_finite_fails() {
        let error = Outputs::of_folder(&echo(), folder(&["1", "inf", "1"]).path()).unwrap_err();
        assert_eq!(error.to_string(), "job `job 1`: the engine failed: values that are not finite came out");
    }

    #[test]
    fn differences_are_relative_to_the_largest_value_of_the_job() {
        let outputs = |models: &[&str]| Outputs::of_folder(&echo(), folder(models).path()).unwrap();
        let one = outputs(&["100", "4", "0"]);
        // The first job differs by 1 of 100, the second by 1 of 5.
        assert_eq!(one.difference(&outputs(&["99", "5", "0"])), Some(0.2));
        assert_eq!(one.difference(&outputs(&["100", "refused", "0"])), None);
        assert_eq!(one.difference(&outputs(&["100", "4"])), None);
        assert_eq!(one.difference(&Outputs { jobs_digest: "other".into(), ..one.clone() }), None);
    }
}
