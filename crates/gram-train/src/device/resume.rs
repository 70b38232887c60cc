//! The state of a training on a device as a checkpoint, and back. Files have the tensors of a training on the CPU, but other numerics.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use gram_ir::Weights;

use super::numerics_of_operators;
use super::store::{Part, Store};
use super::train::DeviceRun;
use crate::checkpoint::{Checkpoint, CheckpointProblem, Identity};
use crate::resume::identity;
use crate::{TrainError, weights_digest};

/// Where a training keeps its checkpoints.
pub(super) struct Checkpoints<'p> {
    path: &'p Path,
    identity: Identity,
}

/// Puts `run` into the state of the checkpoint at `path`, if there is one.
pub(super) fn open<'p>(
    run: &mut DeviceRun<'_>,
    path: &'p Path,
    initial: Option<&Weights>,
) -> Result<Checkpoints<'p>, TrainError> {
    let numerics = numerics_of_operators(run.trainer.model.device().location());
    let initial = initial.map(weights_digest);
    let identity = Identity { numerics, initial, ..identity(run.network, run.data, run.config, run.seed)? };
    if let Some(checkpoint) = Checkpoint::load(path, &identity)? {
        restore(run, checkpoint, path)?;
    }
    Ok(Checkpoints { path, identity })
}

impl Checkpoints<'_> {
    /// Writes the state of `run` between two epochs.
    pub(super) fn save(&self, run: &DeviceRun<'_>) -> Result<(), TrainError> {
        let trainer = &run.trainer;
        let mut checkpoint = Checkpoint {
            identity: self.identity.clone(),
            epoch: run.history.len(),
            n_steps: trainer.optimizer.as_ref().map_or(0, |optimizer| optimizer.n_steps),
            n_updates: trainer.ema.as_ref().map_or(0, |ema| ema.n_updates),
            history: run.history.clone(),
            tensors: BTreeMap::new(),
        };
        let store = trainer.model.store();
        add(&mut checkpoint, "", store, store.parts())?;
        if let Some(ema) = &trainer.ema {
            add(&mut checkpoint, "ema/", store, ema.model.store().parts())?;
        }
        if let Some(optimizer) = &trainer.optimizer {
            for (prefix, memory) in [("first/", &optimizer.first), ("second/", &optimizer.second)] {
                add(&mut checkpoint, prefix, store, memory.iter().map(|memory| (Part::Learnt, memory)))?;
            }
        }
        Ok(checkpoint.save(self.path)?)
    }
}

/// Adds the tensors of `parts`, which are laid out as in `store`.
fn add<'t>(
    checkpoint: &mut Checkpoint,
    prefix: &str,
    store: &Store,
    parts: impl Iterator<Item = (Part, &'t Tensor)>,
) -> Result<(), TrainError> {
    for (part, elements) in parts {
        let elements = elements.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        for (spec, range) in store.places().in_part(part) {
            let entry = (spec.shape.clone(), elements[range].to_vec());
            checkpoint.tensors.insert(format!("{prefix}{}", spec.name), entry);
        }
    }
    Ok(())
}

fn restore(run: &mut DeviceRun<'_>, mut checkpoint: Checkpoint, path: &Path) -> Result<(), TrainError> {
    let at = |problem: CheckpointProblem| problem.at(path);
    let counted = checkpoint.history.iter().map(|report| report.epoch).eq(1..=checkpoint.epoch);
    if !counted || checkpoint.epoch > run.config.epochs {
        return Err(at(CheckpointProblem::Damaged("its epochs do not count up".into())).into());
    }
    let trainer = &mut run.trainer;
    let mut taken = |prefix: &str, store: &Store, part: Part| take(&mut checkpoint, prefix, store, part, path);
    replace(trainer.model.store_mut(), "", &mut taken)?;
    if let Some(ema) = &mut trainer.ema {
        replace(ema.model.store_mut(), "ema/", &mut taken)?;
    }
    if let Some(optimizer) = &mut trainer.optimizer {
        for (prefix, memory) in [("first/", &mut optimizer.first), ("second/", &mut optimizer.second)] {
            if memory.is_some() {
                *memory = Some(taken(prefix, trainer.model.store(), Part::Learnt)?);
            }
        }
        optimizer.n_steps = checkpoint.n_steps;
    }
    if let Some(ema) = &mut trainer.ema {
        ema.n_updates = checkpoint.n_updates;
    }
    run.history = std::mem::take(&mut checkpoint.history);
    Ok(checkpoint.finish().map_err(at)?)
}

/// Replaces all parts of a store.
fn replace(
    store: &mut Store,
    prefix: &str,
    taken: &mut impl FnMut(&str, &Store, Part) -> Result<Tensor, TrainError>,
) -> Result<(), TrainError> {
    let parts: Vec<Part> = store.parts().map(|(part, _)| part).collect();
    for part in parts {
        let elements = taken(prefix, store, part)?;
        store.replace(part, elements);
    }
    Ok(())
}

/// Takes the elements of one part out of a checkpoint.
fn take(
    checkpoint: &mut Checkpoint,
    prefix: &str,
    store: &Store,
    part: Part,
    path: &Path,
) -> Result<Tensor, TrainError> {
    let mut elements = Vec::new();
    for (spec, _) in store.places().in_part(part) {
        let data = checkpoint.take(&format!("{prefix}{}", spec.name), &spec.shape);
        elements.extend(data.map_err(|problem| problem.at(path))?);
    }
    Ok(Tensor::from_slice(&elements, elements.len(), store.part(part)?.device())?)
}
