//! The state of a training as a checkpoint, and back.

use std::collections::BTreeMap;
use std::path::Path;

use gram_data::ImageSet;
use gram_ir::Weights;

use crate::checkpoint::{Checkpoint, CheckpointProblem, Identity};
use crate::epochs::{Backend, Run};
use crate::{TrainData, TrainError, weights_digest};

/// Where a training keeps its checkpoints.
pub(crate) struct Checkpoints<'p> {
    path: &'p Path,
    identity: Identity,
}

/// Puts `run`, which started from `initial`, into the state of the checkpoint at `path`, if there is one.
pub(crate) fn open<'p, B: Backend>(
    run: &mut Run<'_, B>,
    path: &'p Path,
    initial: Option<&Weights>,
) -> Result<Checkpoints<'p>, TrainError> {
    let identity = identity(run, initial)?;
    if let Some(checkpoint) = Checkpoint::load(path, &identity)? {
        restore(run, checkpoint, path)?;
    }
    Ok(Checkpoints { path, identity })
}

impl Checkpoints<'_> {
    /// Writes the state of `run` between two epochs.
    pub(crate) fn save<B: Backend>(&self, run: &Run<'_, B>) -> Result<(), TrainError> {
        let mut checkpoint = Checkpoint {
            identity: self.identity.clone(),
            epoch: run.history.len(),
            n_steps: 0,
            n_updates: 0,
            history: run.history.clone(),
            tensors: BTreeMap::new(),
        };
        run.backend.save(&mut checkpoint)?;
        Ok(checkpoint.save(self.path)?)
    }
}

fn restore<B: Backend>(run: &mut Run<'_, B>, mut checkpoint: Checkpoint, path: &Path) -> Result<(), TrainError> {
    let counted = checkpoint.history.iter().map(|report| report.epoch).eq(1..=checkpoint.epoch);
    if !counted || checkpoint.epoch > run.config.epochs {
        return Err(CheckpointProblem::Damaged("its epochs do not count up".into()).at(path).into());
    }
    run.backend.restore(&mut checkpoint, path)?;
    run.history = std::mem::take(&mut checkpoint.history);
    Ok(checkpoint.finish().map_err(|problem| problem.at(path))?)
}

/// What a checkpoint is of.
fn identity<B: Backend>(run: &Run<'_, B>, initial: Option<&Weights>) -> Result<Identity, TrainError> {
    let config = serde_json::to_value(run.config).map_err(|error| candle_core::Error::msg(error.to_string()))?;
    Ok(Identity {
        network: blake3::hash(run.network.to_json("network").as_bytes()).to_string(),
        data: data_digest(run.data),
        config,
        seed: run.seed,
        initial: initial.map(weights_digest),
        numerics: run.backend.numerics(),
        teacher: run.data.teacher.map(|teacher| teacher.digest()),
    })
}

/// blake3 of all images of a training and their normalisation.
fn data_digest(data: &TrainData<'_>) -> String {
    let mut hasher = blake3::Hasher::new();
    for figures in [&data.normalisation.mean, &data.normalisation.std] {
        hasher.update(&(figures.len() as u64).to_le_bytes());
        figures.iter().for_each(|figure| {
            hasher.update(&figure.to_le_bytes());
        });
    }
    for set in [Some(data.train), data.validation] {
        hasher.update(&[u8::from(set.is_some())]);
        if let Some(set) = set {
            add_set(&mut hasher, set);
        }
    }
    hasher.finalize().to_string()
}

fn add_set(hasher: &mut blake3::Hasher, set: &ImageSet) {
    for number in [set.len(), set.shape().c, set.shape().h, set.shape().w] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    for i in 0..set.len() {
        hasher.update(&set.label(i).to_le_bytes());
        hasher.update(set.image(i));
    }
}
