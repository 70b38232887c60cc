//! The state of a trainer on a device in a checkpoint. Files have the tensors of a training on the CPU, but other numerics.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::store::{Part, Store};
use super::trainer::DeviceTrainer;
use crate::TrainError;
use crate::checkpoint::Checkpoint;

/// Adds tensors and counts.
pub(super) fn save(trainer: &DeviceTrainer, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
    checkpoint.n_steps = trainer.optimizer.as_ref().map_or(0, |optimizer| optimizer.n_steps);
    checkpoint.n_updates = trainer.ema.as_ref().map_or(0, |ema| ema.n_updates);
    let store = trainer.model.store();
    add(checkpoint, "", store, store.parts())?;
    if let Some(ema) = &trainer.ema {
        add(checkpoint, "ema/", store, ema.model.store().parts())?;
    }
    if let Some(optimizer) = &trainer.optimizer {
        for (prefix, memory) in [("first/", &optimizer.first), ("second/", &optimizer.second)] {
            add(checkpoint, prefix, store, memory.iter().map(|memory| (Part::Learnt, memory)))?;
        }
    }
    Ok(())
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

/// Takes out what [`save`] has added; `path` is for errors.
pub(super) fn restore(trainer: &mut DeviceTrainer, checkpoint: &mut Checkpoint, path: &Path) -> Result<(), TrainError> {
    let (n_steps, n_updates) = (checkpoint.n_steps, checkpoint.n_updates);
    let mut taken = |prefix: &str, store: &Store, part: Part| take(checkpoint, prefix, store, part, path);
    replace(trainer.model.store_mut(), "", &mut taken)?;
    if let Some(ema) = &mut trainer.ema {
        replace(ema.model.store_mut(), "ema/", &mut taken)?;
        ema.n_updates = n_updates;
    }
    if let Some(optimizer) = &mut trainer.optimizer {
        for (prefix, memory) in [("first/", &mut optimizer.first), ("second/", &mut optimizer.second)] {
            if memory.is_some() {
                *memory = Some(taken(prefix, trainer.model.store(), Part::Learnt)?);
            }
        }
        optimizer.n_steps = n_steps;
    }
    Ok(())
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
