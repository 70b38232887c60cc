//! The state of a trainer in a checkpoint.

use std::ops::Range;

use gram_ir::TensorSpec;

use super::Trainer;
use crate::checkpoint::{Checkpoint, CheckpointProblem};
use crate::engine::Layout;

/// What a checkpoint holds of a training's tensors.
#[derive(Clone, Copy)]
struct Part {
    /// Stands before the tensors' names.
    prefix: &'static str,
    /// Whether tensors are left out that are not trained.
    only_trained: bool,
}

/// In the order of [`Trainer::state`].
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

impl Trainer {
    /// Adds tensors and counts.
    pub(crate) fn save(&self, checkpoint: &mut Checkpoint) {
        checkpoint.n_steps = self.optimizer.n_steps;
        checkpoint.n_updates = self.ema.as_ref().map_or(0, |ema| ema.n_updates);
        let layout = self.layout();
        for (part, buffer) in PARTS.iter().zip(self.state()) {
            for (spec, range) in part.tensors(layout, buffer.is_empty()) {
                let entry = (spec.shape.clone(), buffer[range.clone()].to_vec());
                checkpoint.tensors.insert(part.name(spec), entry);
            }
        }
    }

    /// Takes out what [`save`](Self::save) has added.
    pub(crate) fn restore(&mut self, checkpoint: &mut Checkpoint) -> Result<(), CheckpointProblem> {
        self.optimizer.n_steps = checkpoint.n_steps;
        if let Some(ema) = &mut self.ema {
            ema.n_updates = checkpoint.n_updates;
        }
        let layout = self.layout().clone();
        for (part, buffer) in PARTS.iter().zip(self.state_mut()) {
            for (spec, range) in part.tensors(&layout, buffer.is_empty()) {
                let data = checkpoint.take(&part.name(spec), &spec.shape)?;
                buffer[range.clone()].copy_from_slice(&data);
            }
        }
        Ok(())
    }
}
