//! The state of a training as a checkpoint, and back.

use std::ops::Range;
use std::path::Path;

use gram_data::ImageSet;
use gram_ir::{Network, TensorSpec, Weights};

use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointProblem, Identity};
use crate::engine::Layout;
use crate::train::Run;
use crate::{TrainConfig, TrainData, TrainError, numerics, weights_digest};

/// Where a training keeps its checkpoints.
pub(crate) struct Checkpoints<'p> {
    path: &'p Path,
    identity: Identity,
}

/// Puts `run`, which started from `initial`, into the state of the checkpoint at `path`, if there is one.
pub(crate) fn open<'p>(
    run: &mut Run<'_>,
    path: &'p Path,
    initial: Option<&Weights>,
) -> Result<Checkpoints<'p>, TrainError> {
    let identity =
        Identity { initial: initial.map(weights_digest), ..identity(run.network, run.data, run.config, run.seed)? };
    if let Some(checkpoint) = Checkpoint::load(path, &identity)? {
        restore(run, checkpoint, path)?;
    }
    Ok(Checkpoints { path, identity })
}

impl Checkpoints<'_> {
    /// Writes the state of `run` between two epochs.
    pub(crate) fn save(&self, run: &Run<'_>) -> Result<(), TrainError> {
        let trainer = &run.trainer;
        let mut checkpoint = Checkpoint {
            identity: self.identity.clone(),
            epoch: run.history.len(),
            n_steps: trainer.optimizer.n_steps,
            n_updates: trainer.ema.as_ref().map_or(0, |ema| ema.n_updates),
            history: run.history.clone(),
            tensors: Default::default(),
        };
        let layout = trainer.layout();
        for (part, buffer) in PARTS.iter().zip(trainer.state()) {
            for (spec, range) in part.tensors(layout, buffer.is_empty()) {
                let entry = (spec.shape.clone(), buffer[range.clone()].to_vec());
                checkpoint.tensors.insert(part.name(spec), entry);
            }
        }
        Ok(checkpoint.save(self.path)?)
    }
}

/// What a checkpoint holds of a training's tensors.
#[derive(Clone, Copy)]
struct Part {
    /// Stands before the tensors' names.
    prefix: &'static str,
    /// Whether tensors are left out that are not trained.
    only_trained: bool,
}

/// In the order of [`Trainer::state`](crate::Trainer::state).
const PARTS: [Part; 4] = [
    Part { prefix: "", only_trained: false },
    Part { prefix: "ema/", only_trained: false },
    Part { prefix: "first/", only_trained: true },
    Part { prefix: "second/", only_trained: true },
];

impl Part {
    fn name(self, spec: &TensorSpec) -> String {
        format!("{}{}", self.prefix, spec.name)
    }

    /// The tensors that a buffer holds, and where; none if it is empty.
    fn tensors(self, layout: &Layout, empty: bool) -> impl Iterator<Item = (&TensorSpec, &Range<usize>)> {
        let tensors = layout.specs.iter().zip(&layout.ranges).zip(&layout.trained);
        let held = tensors.filter(move |&(_, &trained)| !empty && (trained || !self.only_trained));
        held.map(|(tensor, _)| tensor)
    }
}

fn restore(run: &mut Run<'_>, mut checkpoint: Checkpoint, path: &Path) -> Result<(), TrainError> {
    let at = |problem: CheckpointProblem| -> CheckpointError { problem.at(path) };
    let counted = checkpoint.history.iter().map(|report| report.epoch).eq(1..=checkpoint.epoch);
    if !counted || checkpoint.epoch > run.config.epochs {
        return Err(at(CheckpointProblem::Damaged("its epochs do not count up".into())).into());
    }
    let trainer = &mut run.trainer;
    trainer.optimizer.n_steps = checkpoint.n_steps;
    if let Some(ema) = &mut trainer.ema {
        ema.n_updates = checkpoint.n_updates;
    }
    let layout = trainer.layout().clone();
    for (part, buffer) in PARTS.iter().zip(trainer.state_mut()) {
        for (spec, range) in part.tensors(&layout, buffer.is_empty()) {
            let data = checkpoint.take(&part.name(spec), &spec.shape).map_err(at)?;
            buffer[range.clone()].copy_from_slice(&data);
        }
    }
    run.history = std::mem::take(&mut checkpoint.history);
    Ok(checkpoint.finish().map_err(at)?)
}

/// What a checkpoint is of: a training on the CPU, from random weights.
pub(crate) fn identity(
    network: &Network,
    data: &TrainData<'_>,
    config: &TrainConfig,
    seed: u64,
) -> Result<Identity, TrainError> {
    let config = serde_json::to_value(config).map_err(|error| candle_core::Error::msg(error.to_string()))?;
    let network = blake3::hash(network.to_json("network").as_bytes()).to_string();
    let teacher = data.teacher.map(|teacher| teacher.digest());
    Ok(Identity { network, data: data_digest(data), config, seed, initial: None, numerics: numerics(), teacher })
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
