//! Trainings on a device.

use std::path::Path;

use candle_core::Device;
use gram_data::{ImageSet, Normalisation};
use gram_ir::{Network, Weights};

use super::numerics_of_operators;
use super::state;
use super::teacher::DeviceTeacher;
use super::trainer::{DeviceTrainer, Pending};
use crate::checkpoint::Checkpoint;
use crate::epochs::{Backend, Epoch, Run, Steps, Totals};
use crate::evaluate::check_set;
use crate::train::check_teacher;
use crate::{Outcome, TrainConfig, TrainData, TrainError, TrainOptions, train};

/// [`train`] on `device`: the CPU has an engine of its own, other devices use [`train_on_device`].
///
/// [`numerics_on`](crate::numerics_on) tells apart what comes out.
///
/// # Errors
/// [`TrainError`] where configuration, images, network or checkpoint do not fit, or the device has no room.
pub fn train_on(
    device: &Device,
    network: &Network,
    data: &TrainData<'_>,
    config: &TrainConfig,
    seed: u64,
    options: TrainOptions<'_>,
) -> Result<Outcome, TrainError> {
    if device.is_cpu() {
        train(network, data, config, seed, options)
    } else {
        train_on_device(network, data, config, seed, device, options)
    }
}

/// What [`train`] does, on any candle device, by a [`DeviceModel`](crate::DeviceModel).
///
/// Weights, batches and schedule are those of [`train`], results equal but for rounding. Only pixels and labels go to the device, only
/// scores come back, those of a step while the next one runs; so a loss that is not finite is noticed a step later, and reported for its
/// own step. `options.n_threads` is not used. A checkpoint goes on only on the same kind of device.
///
/// Trainings that run at the same time on one GPU need to open it once each: an opened [`Device`] has one library handle and one queue.
///
/// # Errors
/// As [`train`], and [`TrainError::Tensor`] if the device has no room.
pub fn train_on_device(
    network: &Network,
    data: &TrainData<'_>,
    config: &TrainConfig,
    seed: u64,
    device: &Device,
    options: TrainOptions<'_>,
) -> Result<Outcome, TrainError> {
    check_set(network, data.train, "training")?;
    if let Some(validation) = data.validation {
        check_set(network, validation, "validation")?;
    }
    check_teacher(data, config)?;
    let mut trainer = DeviceTrainer::new(network, config, seed, device, options.initial)?;
    if let Some((teacher, distillation)) = data.teacher.zip(config.distillation) {
        trainer.teacher = Some(DeviceTeacher::new(&teacher, network, data.normalisation, (distillation, device))?);
    }
    Run::new(network, data, config, seed, trainer).all(options)
}

impl Backend for DeviceTrainer {
    fn epoch(&mut self, steps: &mut Steps<'_, '_>) -> Result<Epoch, TrainError> {
        let mut totals = Totals::default();
        let mut pending: Option<Pending> = None;
        while let Some((batch, rate)) = steps.next()? {
            let launched = self.step(batch, rate)?;
            // The scores of the step before are read while the device works on this one.
            if let Some(before) = pending.replace(launched)
                && !totals.add(&before.report()?)
            {
                return Ok(Epoch::Diverged(steps.last() - 1));
            }
        }
        let last = pending.map(Pending::report).transpose()?;
        let finite = last.is_none_or(|report| totals.add(&report)) && self.is_finite()?;
        Ok(if finite { Epoch::Done(totals) } else { Epoch::Diverged(steps.last()) })
    }

    fn top1(&self, images: &ImageSet, normalisation: &Normalisation) -> Result<f64, TrainError> {
        DeviceTrainer::top1(self, images, normalisation)
    }

    fn weights(&self) -> Result<Weights, TrainError> {
        self.result().weights()
    }

    fn numerics(&self) -> String {
        numerics_of_operators(self.model.device().location())
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        state::save(self, checkpoint)
    }

    fn restore(&mut self, checkpoint: &mut Checkpoint, path: &Path) -> Result<(), TrainError> {
        state::restore(self, checkpoint, path)
    }
}
