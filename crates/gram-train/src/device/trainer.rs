//! One network in training on a device: a step at a time, without waiting for the device.

use candle_core::{DType, Device, Tensor};
use gram_data::{Batches, ImageSet, Normalisation};
use gram_ir::{Network, Shape, Weights};

use super::model::{DeviceModel, Launched, loss};
use super::optim::{Ema, OptimizerState, clip};
use super::store::Part;
use super::teacher::{DeviceTeacher, Said};
use crate::batches::TrainBatch;
use crate::epochs::BatchReport;
use crate::evaluate::count_within;
use crate::ops::values;
use crate::seeds::{Purpose, derived_seed};
use crate::trainer::inherited;
use crate::{Model, Targets, Taught, TrainConfig, TrainError};

/// A network in training: its tensors, optimiser and moving average.
#[derive(Debug)]
pub(super) struct DeviceTrainer {
    pub(super) model: DeviceModel,
    /// None for networks without tensors that learn.
    pub(super) optimizer: Option<OptimizerState>,
    pub(super) ema: Option<Ema>,
    clip_norm: Option<f64>,
    label_smoothing: f64,
    input: Shape,
    pub(super) teacher: Option<DeviceTeacher>,
}

/// A batch whose scores are on their way.
pub(super) struct Pending {
    logits: Tensor,
    said: Option<Said>,
    /// Without its pixels, which went to the device.
    batch: TrainBatch,
    smoothing: f64,
}

impl DeviceTrainer {
    /// `network` with the weights that [`train`](crate::train) starts from.
    pub(super) fn new(
        network: &Network,
        config: &TrainConfig,
        seed: u64,
        device: &Device,
        initial: Option<&Weights>,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let mut weights = Model::new(network, derived_seed(seed, Purpose::Weights), DType::F32)?.weights()?;
        for spec in network.tensors() {
            let inherited = initial.and_then(|initial| inherited(&spec, initial));
            inherited.into_iter().for_each(|tensor| weights.insert(spec.name.clone(), tensor.clone()));
        }
        let model = DeviceModel::new(network, &weights, DType::F32, device)?;
        let optimizer = |values| OptimizerState::new(config.optimizer, config.weight_decay, &model, values);
        Ok(Self {
            optimizer: model.store().learnt().map(optimizer).transpose()?,
            ema: config.ema_decay.map(|decay| Ema::new(decay, &model)),
            clip_norm: config.clip_norm,
            label_smoothing: config.label_smoothing,
            input: network.input_shape(),
            teacher: None,
            model,
        })
    }

    /// One step: what the teacher says, forward, backward, clipping, optimiser, moving average. The device may still be at work when it returns.
    pub(super) fn step(&mut self, mut batch: TrainBatch, lr: f64) -> Result<Pending, TrainError> {
        let images = self.images(std::mem::take(&mut batch.batch.pixels))?;
        let said = self.teacher.as_ref().map(|teacher| teacher.say(&images)).transpose()?;
        let targets = batch.targets(self.label_smoothing);
        let Launched { logits, by_tensor } = self.model.launch(&images, &targets, said.as_ref())?;
        if let (Some(optimizer), Some(values)) = (&mut self.optimizer, self.model.store().learnt()) {
            let gradient = self.model.store().flat_learnt(&by_tensor)?;
            let gradient = match self.clip_norm {
                Some(max_norm) => clip(&gradient, max_norm)?,
                None => gradient,
            };
            let values = optimizer.step(values, &gradient, lr)?;
            self.model.store_mut().replace(Part::Learnt, values);
        }
        if let Some(ema) = &mut self.ema {
            ema.update(&self.model)?;
        }
        Ok(Pending { logits, said, batch, smoothing: self.label_smoothing })
    }

    /// Top-1 on all images of `set`, of the moving average if there is one.
    pub(super) fn top1(&self, set: &ImageSet, normalisation: &Normalisation) -> Result<f64, TrainError> {
        let mut right = 0;
        for batch in Batches::eval(set, normalisation, EVALUATION_BATCH)? {
            let logits = self.result().evaluate(&self.images(batch.pixels)?)?.flatten_from(1)?;
            right += count_within(1, &values::<f32>(&logits.to_device(&Device::Cpu)?)?, &batch.labels);
        }
        Ok(right as f64 / set.len() as f64)
    }

    /// The model that is evaluated and kept.
    pub(super) fn result(&self) -> &DeviceModel {
        self.ema.as_ref().map_or(&self.model, |ema| &ema.model)
    }

    /// Whether all tensors and all that a checkpoint holds of them are; a step can break them though its loss was finite.
    pub(super) fn is_finite(&self) -> Result<bool, TrainError> {
        let models = [Some(&self.model), self.ema.as_ref().map(|ema| &ema.model)];
        let parts =
            models.into_iter().flatten().flat_map(|model| model.store().changing().map(|(_, elements)| elements));
        let memories = self.optimizer.iter().flat_map(|optimizer| [&optimizer.first, &optimizer.second]).flatten();
        for elements in parts.chain(memories) {
            if !all_finite(elements)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pixels `[n, c, h, w]` on the device.
    fn images(&self, pixels: Vec<f32>) -> candle_core::Result<Tensor> {
        let Shape { c, h, w } = self.input;
        let n = pixels.len() / (c * h * w);
        Tensor::from_vec(pixels, (n, c, h, w), self.model.device())
    }
}

impl Pending {
    /// Waits for the scores.
    pub(super) fn report(self) -> Result<BatchReport, TrainError> {
        let logits = self.logits.to_device(&Device::Cpu)?;
        let right = count_within(1, &values::<f32>(&logits)?, self.batch.main_labels());
        let said = self.said.map(|Said { logits, distillation }| {
            Ok::<_, TrainError>((values::<f32>(&logits.to_device(&Device::Cpu)?)?.to_vec(), distillation))
        });
        let said = said.transpose()?;
        let taught = said.as_ref().map(|(logits, distillation)| Taught { logits, distillation: *distillation });
        let targets = Targets { teacher: taught, ..self.batch.targets(self.smoothing) };
        Ok(BatchReport { loss: loss(&logits, &targets)?, right, n: self.batch.batch.n })
    }
}

fn all_finite(elements: &Tensor) -> candle_core::Result<bool> {
    // 0 times anything finite is 0, times anything else NaN.
    Ok((elements * 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? == 0.0)
}

/// Images evaluated at once; changes nothing but speed.
const EVALUATION_BATCH: usize = 256;
