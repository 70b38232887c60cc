//! A network with its tensors, ready to run on candle.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var, bail};
use gram_ir::{Activation, Network, Op, Shape, TensorRole, TensorSpec, Weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::TrainError;
use crate::ops::{self, ActOp, AddOp, ConcatOp, ConvOp, GlobalOp, NormOp, Operator, PoolOp};
use crate::program::{Action, NormTensors, Program, Step};
use crate::trace::Trace;

/// Share of a batch's statistics that goes into the running ones; torch's default.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Whether batch norms take their statistics from the batch or from what they have seen in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics; running statistics are updated; gradients can be taken.
    Train,
    /// Running statistics; nothing is kept for gradients.
    Eval,
}

/// A [`Network`] that runs on candle tensors.
///
/// Its tensors are [`Var`]s in the order of [`Network::tensors`], under the same names.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use gram_ir::{Conv2d, Network, Op, Shape};
/// use gram_train::{Mode, Model};
///
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let conv = network.add("conv", Op::Conv(Conv2d::new(3, 4, 3)), &[network.input()])?;
/// network.set_output(conv)?;
/// let model = Model::new(&network, 1, DType::F32)?;
/// let images = Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&images, Mode::Eval)?.dims(), [2, 4, 8, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Model {
    program: Arc<Program>,
    specs: Arc<Vec<TensorSpec>>,
    network: Arc<Network>,
    vars: Vec<Var>,
    dtype: DType,
}

/// What one batch says about a model.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Mean loss of the batch.
    pub loss: f64,
    /// Scores `[n, classes]`.
    pub logits: Tensor,
    /// The gradient of each tensor of [`Model::specs`], of its shape; none for running statistics and for tensors that the output does not
    /// depend on.
    pub by_tensor: Vec<Option<Tensor>>,
}

impl Model {
    /// A model with random weights, f32 or f64.
    ///
    /// Convolutions are uniform in ±√(6 / fan-out), fan-out being `k²·c_out / groups`; linear layers and their biases are uniform in
    /// ±1/√c_in; norms start as identities, all other biases at 0. Tensor `i` is drawn from ChaCha8 stream `i` of `seed`.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] for other types.
    /// # Source
    /// He et al., [arXiv:1502.01852](https://arxiv.org/abs/1502.01852), section 2.2, backward variant, as a uniform distribution.
    pub fn new(network: &Network, seed: u64, dtype: DType) -> Result<Self, TrainError> {
        let specs = network.tensors();
        let values: Vec<Vec<f64>> =
            specs.iter().enumerate().map(|(i, spec)| initial_values(network, spec, seed, i as u64)).collect();
        Self::build(network, specs, values, dtype)
    }

    /// A model with the given weights.
    ///
    /// # Errors
    /// [`TrainError::Weights`] where they are not those of the network, [`TrainError::Tensor`] for other types than f32 and f64.
    pub fn with_weights(network: &Network, weights: &Weights, dtype: DType) -> Result<Self, TrainError> {
        weights.check(network)?;
        let specs = network.tensors();
        let values =
            specs.iter().map(|spec| Ok(weights.get(&spec.name)?.data().to_vec())).collect::<Result<_, TrainError>>()?;
        Self::build(network, specs, values, dtype)
    }

    fn build(
        network: &Network,
        specs: Vec<TensorSpec>,
        values: Vec<Vec<f64>>,
        dtype: DType,
    ) -> Result<Self, TrainError> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(candle_core::Error::msg(format!("models are f32 or f64, not {dtype:?}")).into());
        }
        let var = |(spec, values): (&TensorSpec, Vec<f64>)| Var::from_tensor(&tensor(&values, &spec.shape, dtype)?);
        let vars = specs.iter().zip(values).map(var).collect::<candle_core::Result<_>>()?;
        let program = Arc::new(Program::compile(network));
        Ok(Self { program, specs: Arc::new(specs), network: Arc::new(network.clone()), vars, dtype })
    }

    /// Names, roles and shapes of the tensors, in order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The tensors, in the order of [`Self::specs`]; running statistics are among them and get no gradient.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// The network's output for a batch of images.
    ///
    /// In [`Mode::Train`] the output is on candle's tape, so that any loss can be made of it and its `backward` be called; for the usual
    /// loss [`Self::gradients`] is much quicker.
    ///
    /// # Shapes
    /// `images` are `[n, c, h, w]` of the model's type; the output is `[n, c', h', w']`, so class scores are `[n, classes, 1, 1]`.
    /// # Errors
    /// [`TrainError::Tensor`] if the images have another shape or type.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TrainError> {
        self.check(images)?;
        Ok(self.program.run(images, |step, inputs| match mode {
            Mode::Train => self.taped(step, inputs),
            Mode::Eval => self.plain(step, inputs, mode, None),
        })?)
    }

    /// Scores, smoothed cross-entropy and its gradients for one batch in training mode; running statistics are updated.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if images or labels do not fit the network, or its output has more than one pixel.
    pub fn gradients(&self, images: &Tensor, labels: &[u32], smoothing: f64) -> Result<Gradients, TrainError> {
        self.check(images)?;
        let mut trace = Trace::new(&self.program);
        let output =
            self.program.run(images, |step, inputs| self.plain(step, inputs, Mode::Train, Some(&mut trace)))?;
        let Ok((n, classes, 1, 1)) = output.dims4() else {
            return Err(TrainError::NotAClassifier { got: self.network.output_shape() });
        };
        let logits = output.reshape((n, classes))?;
        let op = ops::LossOp::new(logits.dims(), labels.to_vec(), smoothing)?;
        let loss = ops::compute(&op, &[&logits])?;
        let one = loss.ones_like()?;
        let g = op.backward(&[&logits], &one, &[true])?.pop().flatten();
        let g = g.ok_or_else(|| candle_core::Error::msg("invariant: the loss has a gradient"))?;
        let by_tensor = trace.backward(g.reshape(output.shape())?, self.vars.len())?;
        Ok(Gradients { loss: loss.to_dtype(DType::F64)?.to_scalar()?, logits, by_tensor })
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

    /// A step on candle's tape, in training mode.
    fn taped(&self, step: &Step, inputs: &[Tensor]) -> candle_core::Result<Tensor> {
        let [x, ..] = inputs else { bail!("a step without inputs") };
        let var = |index: usize| self.vars[index].as_tensor();
        match step.action {
            Action::Input => Ok(x.clone()),
            Action::Conv { conv, weight, bias } => ops::conv2d(x, var(weight), bias.map(var), &conv),
            Action::Norm { norm, activation } => {
                let (y, moments) = ops::batch_norm(x, var(norm.scale), var(norm.shift), activation)?;
                self.update_running(norm, &moments)?;
                Ok(y)
            }
            Action::Act(activation) => ops::activation(x, activation),
            Action::Concat => ops::concat(inputs),
            Action::Add => ops::add(inputs),
            Action::MaxPool(pool) => ops::max_pool(x, &pool),
            Action::AvgPool(pool) => ops::avg_pool(x, &pool),
            Action::GlobalAvgPool => ops::global_avg_pool(x),
            Action::Zero => x.detach().zeros_like(),
        }
    }

    /// A step without candle's tape; what a gradient needs goes into `trace`.
    fn plain(
        &self,
        step: &Step,
        inputs: &[Tensor],
        mode: Mode,
        trace: Option<&mut Trace<'_>>,
    ) -> candle_core::Result<Tensor> {
        let [x, ..] = inputs else { bail!("a step without inputs") };
        let (op, params): (Box<dyn Operator>, Vec<usize>) = match step.action {
            Action::Input => return Ok(x.clone()),
            Action::Zero => return x.zeros_like(),
            Action::Conv { conv, weight, bias } => {
                (Box::new(ConvOp::new(x.dims(), &conv)?), [weight].into_iter().chain(bias).collect())
            }
            Action::Norm { norm, activation } if mode == Mode::Train => {
                return self.norm_of_batch(step, x, norm, activation, trace);
            }
            Action::Norm { norm, activation } => {
                let running = [self.vars[norm.mean].as_tensor(), self.vars[norm.var].as_tensor()];
                (Box::new(NormOp::fixed(x.dims(), running, activation)?), vec![norm.scale, norm.shift])
            }
            Action::Act(activation) => (Box::new(ActOp(activation)), Vec::new()),
            Action::Concat => (Box::new(ConcatOp), Vec::new()),
            Action::Add => (Box::new(AddOp), Vec::new()),
            Action::MaxPool(pool) => (Box::new(PoolOp::max(x.dims(), pool)?), Vec::new()),
            Action::AvgPool(pool) => (Box::new(PoolOp::average(x.dims(), pool)?), Vec::new()),
            Action::GlobalAvgPool => (Box::new(GlobalOp::new(x.dims())?), Vec::new()),
        };
        self.compute(step, op, inputs, &params, trace)
    }

    fn norm_of_batch(
        &self,
        step: &Step,
        x: &Tensor,
        norm: NormTensors,
        activation: Option<Activation>,
        trace: Option<&mut Trace<'_>>,
    ) -> candle_core::Result<Tensor> {
        let op = NormOp::of_batch(x.dims(), activation)?;
        let moments = op.moments_after();
        let params = [norm.scale, norm.shift];
        let y = self.compute(step, Box::new(op), std::slice::from_ref(x), &params, trace)?;
        self.update_running(norm, &moments())?;
        Ok(y)
    }

    fn compute(
        &self,
        step: &Step,
        op: Box<dyn Operator>,
        inputs: &[Tensor],
        params: &[usize],
        trace: Option<&mut Trace<'_>>,
    ) -> candle_core::Result<Tensor> {
        let params_tensors = params.iter().map(|&param| self.vars[param].as_tensor());
        let all: Vec<&Tensor> = inputs.iter().chain(params_tensors).collect();
        let output = ops::compute(&*op, &all)?;
        if let Some(trace) = trace {
            trace.record(step, op, all.into_iter().cloned().collect(), params);
        }
        Ok(output)
    }

    fn update_running(&self, norm: NormTensors, moments: &ops::BatchMoments) -> candle_core::Result<()> {
        for (index, batch) in [(norm.mean, &moments.mean), (norm.var, &moments.unbiased_var)] {
            let running = &self.vars[index];
            let towards = |(old, new): (f64, &f64)| old * (1.0 - BATCH_NORM_MOMENTUM) + new * BATCH_NORM_MOMENTUM;
            let new: Vec<f64> = numbers(running)?.into_iter().zip(batch).map(towards).collect();
            running.set(&tensor(&new, running.dims(), self.dtype)?)?;
        }
        Ok(())
    }

    /// The present tensors, exact.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if they cannot be read.
    pub fn weights(&self) -> Result<Weights, TrainError> {
        let mut weights = Weights::new();
        for (spec, var) in self.specs.iter().zip(&self.vars) {
            weights.insert(spec.name.clone(), gram_ir::Tensor::new(spec.shape.clone(), numbers(var)?)?);
        }
        Ok(weights)
    }

    /// Replaces all tensors.
    ///
    /// # Errors
    /// [`TrainError::Weights`] where they are not those of the network; the model is unchanged then.
    pub fn load(&self, weights: &Weights) -> Result<(), TrainError> {
        weights.check(&self.network)?;
        for (spec, var) in self.specs.iter().zip(&self.vars) {
            var.set(&tensor(weights.get(&spec.name)?.data(), &spec.shape, self.dtype)?)?;
        }
        Ok(())
    }
}

fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> candle_core::Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(dtype)
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

/// The elements that tensor `spec` starts with, drawn from stream `stream` of `seed`; see [`Model::new`].
pub(crate) fn initial_values(network: &Network, spec: &TensorSpec, seed: u64, stream: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut uniform = |bound: f64| (0..spec.elements()).map(|_| rng.random_range(-bound..=bound)).collect();
    match (network.node(spec.node).op, spec.role) {
        (Op::Conv(conv), TensorRole::Weight) => {
            let fan_out = conv.kernel * conv.kernel * conv.c_out / conv.groups;
            uniform((6.0 / fan_out as f64).sqrt())
        }
        (Op::Linear { c_in, .. }, _) => uniform(1.0 / (c_in as f64).sqrt()),
        (_, TensorRole::NormScale | TensorRole::RunningVar) => vec![1.0; spec.elements()],
        _ => vec![0.0; spec.elements()],
    }
}
