//! A network that runs on any device.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor, bail};
use gram_ir::{Activation, Network, Shape, TensorSpec, Weights};

use super::conv::conv2d;
use super::norm::{Moments, batch_norm, batch_norm_fixed};
use super::pointwise::{activation, add, concat, global_avg_pool};
use super::pool::{avg_pool, max_pool};
use super::store::{Part, Places, Store};
use super::tape::{Saved, Tape, Then};
use super::teacher::Said;
use crate::program::{Action, NormTensors, Program, Step};
use crate::{BATCH_NORM_MOMENTUM, Distillation, Gradients, Mode, Targets, TrainError, ops};

/// A [`Network`] that runs on any candle [`Device`], on candle's own operators.
///
/// On the CPU [`train`](crate::train) is many times faster; this is for GPUs. It computes what [`Model`](crate::Model) does but for rounding.
/// Nothing is on candle's tape: gradients come from [`Self::gradients`].
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use gram_ir::{Conv2d, Network, Op, Shape};
/// use gram_train::{DeviceModel, Mode, Model};
///
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let conv = network.add("conv", Op::Conv(Conv2d::new(3, 4, 3)), &[network.input()])?;
/// network.set_output(conv)?;
/// let weights = Model::new(&network, 1, DType::F32)?.weights()?;
/// let device = Device::Cpu;
/// let mut model = DeviceModel::new(&network, &weights, DType::F32, &device)?;
/// let images = Tensor::ones((2, 3, 8, 8), DType::F32, &device)?;
/// assert_eq!(model.forward(&images, Mode::Eval)?.dims(), [2, 4, 8, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeviceModel {
    program: Arc<Program>,
    network: Arc<Network>,
    store: Store,
    dtype: DType,
    device: Device,
}

/// Scores and gradients of a batch, still on the device.
pub(super) struct Launched {
    /// `[n, classes]`.
    pub(super) logits: Tensor,
    pub(super) by_tensor: Vec<Option<Tensor>>,
}

/// What a forward pass in training leaves behind.
struct Traces<'p> {
    /// None where no gradients will be asked for.
    tape: Option<Tape<'p>>,
    /// Tensors of running statistics, and what the batch adds to them.
    moments: Vec<(usize, Tensor)>,
}

impl DeviceModel {
    /// A model with the given weights on `device`, f32 or f64.
    ///
    /// # Errors
    /// [`TrainError::Weights`] where they are not those of the network, [`TrainError::Tensor`] for other types than f32 and f64 or if the
    /// device has no room.
    pub fn new(network: &Network, weights: &Weights, dtype: DType, device: &Device) -> Result<Self, TrainError> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(candle_core::Error::msg(format!("models are f32 or f64, not {dtype:?}")).into());
        }
        let program = Program::compile(network);
        let places = Arc::new(Places::new(network.tensors(), &program));
        let store = store(network, weights, places, dtype, device)?;
        Ok(Self {
            program: Arc::new(program),
            network: Arc::new(network.clone()),
            store,
            dtype,
            device: device.clone(),
        })
    }

    /// Names, roles and shapes of the tensors, in order.
    pub fn specs(&self) -> &[TensorSpec] {
        self.store.places().specs()
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The present tensors, exact.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if they cannot be read.
    pub fn weights(&self) -> Result<Weights, TrainError> {
        let mut weights = Weights::new();
        for (spec, values) in self.specs().iter().zip(self.store.values()?) {
            weights.insert(spec.name.clone(), gram_ir::Tensor::new(spec.shape.clone(), values)?);
        }
        Ok(weights)
    }

    /// Replaces all tensors.
    ///
    /// # Errors
    /// [`TrainError::Weights`] where they are not those of the network; the model is unchanged then.
    pub fn load(&mut self, weights: &Weights) -> Result<(), TrainError> {
        let places = Arc::clone(self.store.places());
        self.store = store(&self.network, weights, places, self.dtype, &self.device)?;
        Ok(())
    }

    /// The network's output for a batch of images; in [`Mode::Train`] running statistics are updated.
    ///
    /// # Shapes
    /// `images` are `[n, c, h, w]` of the model's type on its device; the output is `[n, c', h', w']`.
    /// # Errors
    /// [`TrainError::Tensor`] if the images have another shape or type, or are elsewhere.
    pub fn forward(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor, TrainError> {
        match mode {
            Mode::Eval => self.evaluate(images),
            Mode::Train => {
                let program = Arc::clone(&self.program);
                let (output, traces) = self.train(&program, images, false)?;
                self.update_running(traces.moments)?;
                Ok(output.transpose(0, 1)?.contiguous()?)
            }
        }
    }

    /// [`Self::forward`] in [`Mode::Eval`].
    pub(super) fn evaluate(&self, images: &Tensor) -> Result<Tensor, TrainError> {
        self.check(images)?;
        let output = self.program.run(&channels_first(images)?, |step, inputs| match step.action {
            Action::Norm { norm, activation: behind } => {
                let y = self.norm_fixed(&inputs[0], norm)?;
                Ok(behind.map(|behind| activation(&y, behind)).transpose()?.map_or(y, |(y, _)| y))
            }
            _ => Ok(self.plain(step, inputs)?.0),
        })?;
        Ok(output.transpose(0, 1)?.contiguous()?)
    }

    /// Scores, smoothed cross-entropy and its gradients for one batch in training mode; running statistics are updated.
    ///
    /// The loss is computed on the CPU from the scores.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if images or labels do not fit the network, [`TrainError::NotAClassifier`] if its output has more than one
    /// pixel.
    pub fn gradients(&mut self, images: &Tensor, labels: &[u32], smoothing: f64) -> Result<Gradients, TrainError> {
        let targets = Targets::of(labels, smoothing);
        let Launched { logits, by_tensor } = self.launch(images, &targets, None)?;
        let loss = loss(&logits.to_device(&Device::Cpu)?, &targets)?;
        Ok(Gradients { loss, logits, by_tensor })
    }

    /// [`Self::gradients`], with targets that may be mixed and a teacher, without waiting for the device, which may still be at work.
    ///
    /// What a teacher says comes beside `targets`, because it is on the device.
    pub(super) fn launch(
        &mut self,
        images: &Tensor,
        targets: &Targets<'_>,
        said: Option<&Said>,
    ) -> Result<Launched, TrainError> {
        let program = Arc::clone(&self.program);
        let (output, traces) = self.train(&program, images, true)?;
        let (classes, n, 1, 1) = output.dims4()? else {
            return Err(TrainError::NotAClassifier { got: self.network.output_shape() });
        };
        let logits = output.reshape((classes, n))?.t()?.contiguous()?;
        let targets = self.targets(&logits, targets)?;
        let mut g = (softmax(&logits)? - targets)?;
        if let Some(Said { logits: teacher, distillation: Distillation { weight, temperature } }) = said {
            let at = |logits: &Tensor| softmax(&(logits / *temperature)?);
            let pull = (at(&logits)? - at(teacher)?)?;
            g = ((g * (1.0 - weight))? + (pull * (weight * temperature))?)?;
        }
        let g = (g / n as f64)?;
        let g = g.t()?.contiguous()?.reshape((classes, n, 1, 1))?;
        let tape = traces.tape.ok_or_else(|| candle_core::Error::msg("invariant: a tape was asked for"))?;
        let mut by_tensor = tape.backward(g, self.specs().len())?;
        for (gradient, spec) in by_tensor.iter_mut().zip(self.specs()) {
            *gradient = gradient.take().map(|gradient| gradient.reshape(spec.shape.as_slice())).transpose()?;
        }
        self.update_running(traces.moments)?;
        Ok(Launched { logits, by_tensor })
    }

    /// What the scores `[n, classes]` should be after softmax.
    fn targets(&self, logits: &Tensor, targets: &Targets<'_>) -> Result<Tensor, TrainError> {
        // Checks that there is a label for each image, which is what the sizes of `targets` do not say.
        ops::LossOp::new(logits.dims(), targets.labels.to_vec(), targets.smoothing)?;
        let (n, classes) = logits.dims2()?;
        targets.check(classes)?;
        let each = (0..n).flat_map(|image| (0..classes).map(move |class| targets.target(image, class, classes)));
        Ok(super::store::upload(each.collect(), self.dtype, &self.device)?.reshape((n, classes))?)
    }

    fn check(&self, images: &Tensor) -> Result<(), TrainError> {
        let Shape { c, h, w } = self.network.input_shape();
        if images.dims().get(1..) != Some(&[c, h, w]) || images.dims()[0] == 0 {
            let message = format!("expected images [n, {c}, {h}, {w}] with n above 0, got {:?}", images.dims());
            return Err(candle_core::Error::msg(message).into());
        }
        if images.dtype() != self.dtype {
            let message = format!("expected images of type {:?}, got {:?}", self.dtype, images.dtype());
            return Err(candle_core::Error::msg(message).into());
        }
        Ok(())
    }

    /// The output `[c', n, h', w']` in training mode.
    fn train<'p>(
        &self,
        program: &'p Program,
        images: &Tensor,
        with_gradients: bool,
    ) -> Result<(Tensor, Traces<'p>), TrainError> {
        self.check(images)?;
        let mut traces = Traces { tape: with_gradients.then(|| Tape::new(program)), moments: Vec::new() };
        let output = program.run(&channels_first(images)?, |step, inputs| {
            let (y, saved, params) = match step.action {
                Action::Norm { norm, activation } => self.norm_of_batch(&inputs[0], norm, activation, &mut traces)?,
                _ => self.plain(step, inputs)?,
            };
            if let (Some(tape), Some(saved)) = (&mut traces.tape, saved) {
                tape.record(step, saved, params);
            }
            Ok(y)
        })?;
        Ok((output, traces))
    }

    /// A step that is the same in training and evaluation; zeros have no gradient.
    fn plain(&self, step: &Step, inputs: &[Tensor]) -> candle_core::Result<Computed> {
        let [x, ..] = inputs else { bail!("a step without inputs") };
        match step.action {
            Action::Conv { conv, weight, bias } => {
                let bias_tensor = bias.map(|bias| self.store.get(bias)).transpose()?;
                let (y, saved) = conv2d(x, &self.store.get(weight)?, bias_tensor.as_ref(), &conv)?;
                Ok((y, Some(Box::new(saved)), [weight].into_iter().chain(bias).collect()))
            }
            Action::Act(kind) => Ok(computed(activation(x, kind)?)),
            Action::Concat => Ok(computed(concat(inputs)?)),
            Action::Add => Ok(computed(add(inputs)?)),
            Action::MaxPool(pool) => Ok(computed(max_pool(x, &pool)?)),
            Action::AvgPool(pool) => Ok(computed(avg_pool(x, &pool)?)),
            Action::GlobalAvgPool => Ok(computed(global_avg_pool(x)?)),
            Action::Zero => Ok((x.zeros_like()?, None, Vec::new())),
            Action::Input | Action::Norm { .. } => bail!("invariant: inputs and norms are run elsewhere"),
        }
    }

    fn norm_fixed(&self, x: &Tensor, norm: NormTensors) -> candle_core::Result<Tensor> {
        let [scale, shift, mean, var] =
            [norm.scale, norm.shift, norm.mean, norm.var].map(|index| self.store.get(index));
        batch_norm_fixed(x, [&mean?, &var?], &scale?, &shift?)
    }

    fn norm_of_batch(
        &self,
        x: &Tensor,
        norm: NormTensors,
        behind: Option<Activation>,
        traces: &mut Traces<'_>,
    ) -> candle_core::Result<Computed> {
        let (y, saved, Moments { mean, unbiased_var }) =
            batch_norm(x, &self.store.get(norm.scale)?, &self.store.get(norm.shift)?)?;
        traces.moments.extend([(norm.mean, mean), (norm.var, unbiased_var)]);
        let params = vec![norm.scale, norm.shift];
        match behind {
            None => Ok((y, Some(Box::new(saved)), params)),
            Some(behind) => {
                let (y, slope) = activation(&y, behind)?;
                Ok((y, Some(Box::new(Then(saved, slope))), params))
            }
        }
    }

    fn update_running(&mut self, mut moments: Vec<(usize, Tensor)>) -> candle_core::Result<()> {
        if moments.is_empty() {
            return Ok(());
        }
        moments.sort_by_key(|&(index, _)| index);
        let batch: Vec<Tensor> = moments.into_iter().map(|(_, batch)| batch).collect();
        let batch = (Tensor::cat(&batch, 0)? * BATCH_NORM_MOMENTUM)?;
        let running = ((self.store.part(Part::Running)? * (1.0 - BATCH_NORM_MOMENTUM))? + batch)?;
        self.store.replace(Part::Running, running);
        Ok(())
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

/// An output, what its gradient needs, and the tensors whose gradients come with it.
type Computed = (Tensor, Option<Box<dyn Saved>>, Vec<usize>);

fn computed((y, saved): (Tensor, impl Saved + 'static)) -> Computed {
    (y, Some(Box::new(saved)), Vec::new())
}

fn store(
    network: &Network,
    weights: &Weights,
    places: Arc<Places>,
    dtype: DType,
    device: &Device,
) -> Result<Store, TrainError> {
    weights.check(network)?;
    let value = |spec: &TensorSpec| Ok(weights.get(&spec.name)?.data().to_vec());
    let values = places.specs().iter().map(value).collect::<Result<Vec<_>, TrainError>>()?;
    Ok(Store::new(places, &values, dtype, device)?)
}

/// `[n, c, h, w]` as `[c, n, h, w]`.
fn channels_first(images: &Tensor) -> candle_core::Result<Tensor> {
    images.transpose(0, 1)?.contiguous()
}

/// Softmax of each row, from its largest score down so that nothing overflows.
fn softmax(logits: &Tensor) -> candle_core::Result<Tensor> {
    let exp = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Mean loss of scores that lie on the CPU, in their precision.
pub(super) fn loss(logits: &Tensor, targets: &Targets<'_>) -> Result<f64, TrainError> {
    match logits.dtype() {
        DType::F64 => Ok(targets.mean(&ops::values::<f64>(logits)?)),
        _ => Ok(f64::from(targets.mean(&ops::values::<f32>(logits)?) as f32)),
    }
}
