//! The state of a training as a checkpoint, and back.

use std::path::Path;

use gram_data::ImageSet;
use gram_ir::Network;

use crate::checkpoint::{Checkpoint, CheckpointProblem, Identity};
use crate::edit::edit;
use crate::ops::values;
use crate::train::Run;
use crate::{Model, NUMERICS, TrainConfig, TrainData, TrainError};

/// Where a training keeps its checkpoints.
pub(crate) struct Checkpoints<'p> {
    path: &'p Path,
    identity: Identity,
}

/// Puts `run` into the state of the checkpoint at `path`, if there is one.
pub(crate) fn open<'p>(run: &mut Run<'_>, path: &'p Path) -> Result<Checkpoints<'p>, TrainError> {
    let identity = identity(run.network, run.data, run.config, run.seed)?;
    if let Some(checkpoint) = Checkpoint::load(path, &identity)? {
        restore(run, checkpoint, path)?;
    }
    Ok(Checkpoints { path, identity })
}

impl Checkpoints<'_> {
    /// Writes the state of `run` between two epochs.
    pub(crate) fn save(&self, run: &Run<'_>) -> Result<(), TrainError> {
        let mut checkpoint = Checkpoint {
            identity: self.identity.clone(),
            epoch: run.history.len(),
            n_steps: run.optimizer.n_steps,
            n_updates: run.ema.as_ref().map_or(0, |ema| ema.n_updates),
            history: run.history.clone(),
            tensors: Default::default(),
        };
        add_model(&mut checkpoint, "", &run.model)?;
        if let Some(ema) = &run.ema {
            add_model(&mut checkpoint, "ema/", &ema.model)?;
        }
        for (spec, memory) in run.model.specs().iter().zip(&run.optimizer.memories) {
            for (prefix, data) in [("first/", &memory.first), ("second/", &memory.second)] {
                if !data.is_empty() {
                    let entry = (spec.shape.clone(), data.clone());
                    checkpoint.tensors.insert(format!("{prefix}{}", spec.name), entry);
                }
            }
        }
        Ok(checkpoint.save(self.path)?)
    }
}

fn add_model(checkpoint: &mut Checkpoint, prefix: &str, model: &Model) -> Result<(), TrainError> {
    for (spec, var) in model.specs().iter().zip(model.vars()) {
        let entry = (spec.shape.clone(), values::<f32>(var)?.to_vec());
        checkpoint.tensors.insert(format!("{prefix}{}", spec.name), entry);
    }
    Ok(())
}

fn restore(run: &mut Run<'_>, mut checkpoint: Checkpoint, path: &Path) -> Result<(), TrainError> {
    let at = |problem: CheckpointProblem| problem.at(path);
    let counted = checkpoint.history.iter().map(|report| report.epoch).eq(1..=checkpoint.epoch);
    if !counted || checkpoint.epoch > run.config.epochs {
        return Err(at(CheckpointProblem::Damaged("its epochs do not count up".into())).into());
    }
    restore_model(&mut checkpoint, "", &run.model, path)?;
    if let Some(ema) = &mut run.ema {
        restore_model(&mut checkpoint, "ema/", &ema.model, path)?;
        ema.n_updates = checkpoint.n_updates;
    }
    for (spec, memory) in run.model.specs().iter().zip(&mut run.optimizer.memories) {
        for (prefix, data) in [("first/", &mut memory.first), ("second/", &mut memory.second)] {
            if !data.is_empty() {
                *data = checkpoint.take(&format!("{prefix}{}", spec.name), &spec.shape).map_err(at)?;
            }
        }
    }
    run.optimizer.n_steps = checkpoint.n_steps;
    run.history = std::mem::take(&mut checkpoint.history);
    Ok(checkpoint.finish().map_err(at)?)
}

fn restore_model(checkpoint: &mut Checkpoint, prefix: &str, model: &Model, path: &Path) -> Result<(), TrainError> {
    for (spec, var) in model.specs().iter().zip(model.vars()) {
        let name = format!("{prefix}{}", spec.name);
        let data = checkpoint.take(&name, &spec.shape).map_err(|problem| problem.at(path))?;
        edit(var, |weights| weights.copy_from_slice(&data))?;
    }
    Ok(())
}

fn identity(network: &Network, data: &TrainData<'_>, config: &TrainConfig, seed: u64) -> Result<Identity, TrainError> {
    let config = serde_json::to_value(config).map_err(|error| candle_core::Error::msg(error.to_string()))?;
    let network = blake3::hash(network.to_json("network").as_bytes()).to_string();
    Ok(Identity { network, data: data_digest(data), config, seed, numerics: NUMERICS.into() })
}

/// blake3 of everything that [`TrainData`] holds.
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
