//! Checkpoints of a training: safetensors files with weights, optimiser, moving average and history.
//!
//! Weights stand under their torch-like names, all else behind a prefix that no node name can have (`ema/…`, `first/…`, `second/…`). The
//! metadata entry `gram-checkpoint` is a JSON document ([`Header`]) whose first member is a checksum over the rest of the document and all
//! tensors: a flipped bit anywhere is an error instead of another model.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use self::seal::{seal, unseal};
use crate::EpochReport;

mod seal;

/// Version of the format that is written and read.
const FORMAT_VERSION: u32 = 3;

/// Key of the header in the file's metadata.
const KEY: &str = "gram-checkpoint";

/// What a training was started with; a checkpoint continues only the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// blake3 of the network's JSON form.
    pub(crate) network: String,
    /// blake3 of training and validation images, labels and the normalisation.
    pub(crate) data: String,
    /// The configuration's JSON form.
    pub(crate) config: serde_json::Value,
    pub(crate) seed: u64,
    /// [`weights_digest`](crate::weights_digest) of what it started from; none: of random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initial: Option<String>,
    /// [`numerics`](crate::numerics) of the program that wrote it.
    pub(crate) numerics: String,
    /// [`Teacher::digest`](crate::Teacher::digest) of the teacher; files without one do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) teacher: Option<String>,
}

impl Identity {
    /// The first part in which the other one differs.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            (self.network == other.network, "another network"),
            (self.data == other.data, "other images"),
            (self.config == other.config, "another configuration"),
            (self.seed == other.seed, "another seed"),
            (self.teacher == other.teacher, "another teacher"),
            (self.initial == other.initial, "other initial weights"),
            (self.numerics == other.numerics, "another version of the program or another instruction set"),
        ];
        parts.into_iter().find(|(same, _)| !same).map(|(_, part)| part)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u32,
    identity: Identity,
    /// Epochs done.
    epoch: usize,
    /// Optimiser steps done.
    n_steps: u64,
    /// Updates of the moving average done.
    n_updates: u64,
    history: Vec<EpochReport>,
}

/// Shape and elements of a tensor.
type Stored = (Vec<usize>, Vec<f32>);

/// The state of a training between two epochs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) identity: Identity,
    pub(crate) epoch: usize,
    pub(crate) n_steps: u64,
    pub(crate) n_updates: u64,
    pub(crate) history: Vec<EpochReport>,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

/// Why a checkpoint cannot be used or written.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint {}: {problem}", path.display())]
pub struct CheckpointError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: CheckpointProblem,
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointProblem {
    /// It lies there but cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// It is no safetensors file, or a damaged one.
    #[error("is no intact safetensors file ({0}); remove it to start over")]
    Damaged(String),
    /// Its checksum is another one than that of its content.
    #[error("is damaged: its checksum does not match; remove the file to train from the start")]
    Checksum,
    /// It is a safetensors file of something else.
    #[error("is a safetensors file, but no checkpoint of a training; move it away or name another file")]
    Foreign,
    /// It was written by another version.
    #[error("has format version {found}, this program reads {FORMAT_VERSION}; remove it to start over")]
    Version {
        /// The file's version.
        found: u64,
    },
    /// It belongs to another training.
    #[error("belongs to a training with {0}; remove it to start over, or name another file")]
    Differs(&'static str),
    /// A tensor is missing, too many or of another shape.
    #[error("tensor `{name}` {problem}; remove the file to start over")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl CheckpointProblem {
    pub(crate) fn at(self, path: &Path) -> CheckpointError {
        CheckpointError { path: path.to_owned(), problem: self }
    }
}

impl Checkpoint {
    /// Writes the file under a temporary name, makes it durable and renames it: the old checkpoint stays until the new one is whole.
    pub(crate) fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = self.to_bytes().map_err(|problem| problem.at(path))?;
        write_atomically(path, &bytes).map_err(|error| CheckpointProblem::Write(error).at(path))
    }

    /// Reads the checkpoint of the training `identity`; none if there is no file.
    pub(crate) fn load(path: &Path, identity: &Identity) -> Result<Option<Self>, CheckpointError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CheckpointProblem::Read(error).at(path)),
        };
        Self::from_bytes(&bytes, identity).map(Some).map_err(|problem| problem.at(path))
    }

    fn to_bytes(&self) -> Result<Vec<u8>, CheckpointProblem> {
        let header = Header {
            format_version: FORMAT_VERSION,
            identity: self.identity.clone(),
            epoch: self.epoch,
            n_steps: self.n_steps,
            n_updates: self.n_updates,
            history: self.history.clone(),
        };
        let invalid = |error: String| CheckpointProblem::Write(io::Error::new(io::ErrorKind::InvalidData, error));
        let header = serde_json::to_string(&header).map_err(|error| invalid(error.to_string()))?;
        let data: Vec<Vec<u8>> = self.tensors.values().map(|(_, data)| little_endian(data)).collect();
        let views = self.tensors.iter().zip(&data).map(|((name, (shape, _)), data)| {
            TensorView::new(Dtype::F32, shape.clone(), data).map(|view| (name.as_str(), view))
        });
        let views: BTreeMap<_, _> = views.collect::<Result<_, _>>().map_err(|error| invalid(error.to_string()))?;
        let metadata = HashMap::from([(KEY.to_owned(), seal(&header, &views))]);
        safetensors::serialize(views, Some(metadata)).map_err(|error| invalid(error.to_string()))
    }

    fn from_bytes(bytes: &[u8], identity: &Identity) -> Result<Self, CheckpointProblem> {
        let damaged = |error: safetensors::SafeTensorError| CheckpointProblem::Damaged(error.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let header =
            metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)).ok_or(CheckpointProblem::Foreign)?;
        check_version(header)?;
        let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let views: BTreeMap<&str, TensorView<'_>> = file.iter().collect();
        let header: Header = serde_json::from_str(&unseal(header, &views)?).map_err(damaged_header)?;
        if let Some(part) = identity.difference(&header.identity) {
            return Err(CheckpointProblem::Differs(part));
        }
        let tensors = views.into_iter().map(read_tensor).collect::<Result<_, _>>()?;
        let Header { identity, epoch, n_steps, n_updates, history, .. } = header;
        Ok(Self { identity, epoch, n_steps, n_updates, history, tensors })
    }

    /// Takes the tensor `name` of shape `shape` out.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointProblem> {
        let problem = |problem: String| CheckpointProblem::Tensor { name: name.to_owned(), problem };
        let (found, data) = self.tensors.remove(name).ok_or_else(|| problem("is missing".into()))?;
        if found != shape {
            return Err(problem(format!("has shape {found:?} instead of {shape:?}")));
        }
        Ok(data)
    }

    /// Refuses tensors that nobody has taken.
    pub(crate) fn finish(self) -> Result<(), CheckpointProblem> {
        match self.tensors.into_keys().next() {
            Some(name) => Err(CheckpointProblem::Tensor { name, problem: "does not belong here".into() }),
            None => Ok(()),
        }
    }
}

fn damaged_header(error: serde_json::Error) -> CheckpointProblem {
    CheckpointProblem::Damaged(format!("its header: {error}"))
}

/// The version decides how the rest is to be read.
fn check_version(header: &str) -> Result<(), CheckpointProblem> {
    let json: serde_json::Value = serde_json::from_str(header).map_err(damaged_header)?;
    match json.get("format_version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(FORMAT_VERSION) => Ok(()),
        Some(found) => Err(CheckpointProblem::Version { found }),
        None => Err(CheckpointProblem::Foreign),
    }
}

fn read_tensor((name, view): (&str, TensorView<'_>)) -> Result<(String, Stored), CheckpointProblem> {
    if view.dtype() != Dtype::F32 {
        let problem = format!("is {:?} instead of F32", view.dtype());
        return Err(CheckpointProblem::Tensor { name: name.into(), problem });
    }
    let data: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    if data.iter().any(|x| !x.is_finite()) {
        return Err(CheckpointProblem::Tensor {
            name: name.into(),
            problem: "has elements that are not finite".into(),
        });
    }
    Ok((name.to_owned(), (view.shape().to_vec(), data)))
}

fn little_endian(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = write_durably(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error that is reported is the first one.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(folder)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Folders cannot be synchronised there.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let config = serde_json::json!({"epochs": 2});
        let (network, data, numerics) = ("n".into(), "d".into(), "x".into());
        Identity { network, data, config, seed: u64::MAX, initial: None, numerics, teacher: None }
    }

    fn checkpoint() -> Checkpoint {
        let report = EpochReport {
            epoch: 1,
            train_loss: 0.1 + 0.2,
            train_top1: 1.0 / 3.0,
            validation_top1: None,
            learning_rate: 1e-3,
        };
        let tensors = [("a.weight", vec![1.0, -0.0, f32::MIN_POSITIVE]), ("ema/a.weight", vec![2.0])];
        Checkpoint {
            identity: identity(),
            epoch: 1,
            n_steps: 7,
            n_updates: 6,
            history: vec![report],
            tensors: tensors.into_iter().map(|(name, data)| (name.into(), (vec![data.len()], data))).collect(),
        }
    }

    #[test]
    fn what_is_saved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        assert_eq!(Checkpoint::load(&path, &identity()).unwrap(), None);
        checkpoint().save(&path).unwrap();
        checkpoint().save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path, &identity()).unwrap(), Some(checkpoint()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
        let bytes = checkpoint().to_bytes().unwrap();
        assert_eq!(bytes, fs::read(&path).unwrap(), "the same bytes every time");
    }

    #[track_caller]
    fn refused(bytes: &[u8], identity: &Identity) -> String {
        Checkpoint::from_bytes(bytes, identity).unwrap_err().to_string()
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = checkpoint().to_bytes().unwrap();
        for len in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..len], &identity()).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn other_files_and_trainings_are_refused() {
        let bytes = checkpoint().to_bytes().unwrap();
        assert!(refused(b"not a checkpoint at all", &identity()).starts_with("is no intact safetensors file"));
        let model = safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap();
        assert!(refused(&model, &identity()).starts_with("is a safetensors file, but"));
        for (identity, part) in [
            (Identity { seed: 1, ..identity() }, "another seed"),
            (Identity { initial: Some("w".into()), ..identity() }, "other initial weights"),
            (
                Identity { numerics: "y".into(), ..identity() },
                "another version of the program or another instruction set",
            ),
            (Identity { network: "m".into(), ..identity() }, "another network"),
            (Identity { teacher: Some("t".into()), ..identity() }, "another teacher"),
            (Identity { data: "e".into(), ..identity() }, "other images"),
            (Identity { config: serde_json::json!({"epochs": 3}), ..identity() }, "another configuration"),
        ] {
            assert!(refused(&bytes, &identity).contains(part));
        }
        for version in [1, 2, 4] {
            let other = with_header(&format!(r#"{{"format_version": {version}}}"#));
            assert!(refused(&other, &identity()).starts_with(&format!("has format version {version}")));
        }
    }

    /// A file without tensors.
    fn with_header(header: &str) -> Vec<u8> {
        let metadata = HashMap::from([(KEY.to_owned(), header.to_owned())]);
        safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), Some(metadata)).unwrap()
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let mut bytes = checkpoint().to_bytes().unwrap();
        let n_data: usize = checkpoint().tensors.values().map(|(_, data)| 4 * data.len()).sum();
        let start_of_data = bytes.len() - n_data;
        for position in 0..bytes.len() {
            for bit in 0..8 {
                bytes[position] ^= 1 << bit;
                let loaded = Checkpoint::from_bytes(&bytes, &identity());
                bytes[position] ^= 1 << bit;
                let problem = loaded.expect_err(&format!("bit {bit} of byte {position}"));
                let by_checksum = matches!(problem, CheckpointProblem::Checksum);
                assert!(by_checksum || position < start_of_data, "bit {bit} of byte {position}: {problem}");
            }
        }
        assert_eq!(Checkpoint::from_bytes(&bytes, &identity()).unwrap(), checkpoint());
    }

    #[test]
    fn a_header_without_its_checksum_is_refused() {
        let problem = refused(&with_header(r#"{"format_version":3}"#), &identity());
        assert_eq!(problem, "is damaged: its checksum does not match; remove the file to train from the start");
    }

    #[test]
    fn exchanged_tensors_are_refused() {
        let mut exchanged = checkpoint();
        let [a, b] = ["a.weight", "ema/a.weight"].map(|name| exchanged.tensors.remove(name).unwrap());
        exchanged.tensors.extend([("a.weight".to_owned(), b), ("ema/a.weight".to_owned(), a)]);
        let exchanged = exchanged.to_bytes().unwrap();
        let own = checkpoint().to_bytes().unwrap();
        let header = |bytes: &[u8]| SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone();
        let file = SafeTensors::deserialize(&exchanged).unwrap();
        let forged = safetensors::serialize(file.iter(), header(&own)).unwrap();
        assert!(matches!(Checkpoint::from_bytes(&forged, &identity()), Err(CheckpointProblem::Checksum)));
    }

    #[test]
    fn tensors_are_taken_with_their_shape() {
        let mut file = checkpoint();
        assert!(file.take("b", &[1]).unwrap_err().to_string().contains("is missing"));
        assert!(file.clone().take("a.weight", &[3, 1]).unwrap_err().to_string().contains("instead of [3, 1]"));
        assert_eq!(file.take("ema/a.weight", &[1]).unwrap(), [2.0]);
        assert!(file.finish().unwrap_err().to_string().contains("`a.weight` does not belong here"));
        let mut broken = checkpoint();
        broken.tensors.insert("x".into(), (vec![1], vec![f32::NAN]));
        assert!(refused(&broken.to_bytes().unwrap(), &identity()).contains("not finite"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = checkpoint().save(Path::new("/nonexistent/folder/c.safetensors")).unwrap_err();
        assert!(error.to_string().starts_with("checkpoint /nonexistent/folder/c.safetensors: cannot be written"));
    }
}
