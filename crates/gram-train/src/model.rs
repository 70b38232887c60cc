//! A network with its tensors, ready to run on candle.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var, bail};
use gram_ir::{Network, Op, Shape, TensorRole, TensorSpec, Weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::TrainError;
use crate::ops;
use crate::program::{Action, NormTensors, Program};

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

    /// A copy with tensors of its own.
    pub(crate) fn duplicate(&self) -> Result<Self, TrainError> {
        let copy = |var: &Var| Var::from_tensor(&var.as_tensor().copy()?);
        let vars = self.vars.iter().map(copy).collect::<candle_core::Result<_>>()?;
        let (program, specs, network) = (Arc::clone(&self.program), Arc::clone(&self.specs), Arc::clone(&self.network));
        Ok(Self { program, specs, network, vars, dtype: self.dtype })
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
    /// # Shapes
    /// `images` are `[n, c, h, w]` of the model's type; the output is `[n, c', h', w']`, so class scores are `[n, classes, 1, 1]`.
    /// # Errors
    /// [`TrainError::Tensor`] if the images have another shape or type.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TrainError> {
        let Shape { c, h, w } = self.network.input_shape();
        if images.dims().get(1..) != Some(&[c, h, w]) || images.dims()[0] == 0 {
            let message = format!("expected images [n, {c}, {h}, {w}] with n above 0, got {:?}", images.dims());
            return Err(candle_core::Error::msg(message).into());
        }
        Ok(self.program.run(images, |action, inputs| self.act(action, inputs, mode))?)
    }

    fn tensor(&self, index: usize, mode: Mode) -> Tensor {
        match mode {
            Mode::Train => self.vars[index].as_tensor().clone(),
            Mode::Eval => self.vars[index].as_detached_tensor(),
        }
    }

    fn act(&self, action: Action, inputs: &[Tensor], mode: Mode) -> candle_core::Result<Tensor> {
        let [x, ..] = inputs else { bail!("a step without inputs") };
        match action {
            Action::Input | Action::Identity => Ok(x.clone()),
            Action::Conv { conv, weight, bias } => {
                let weight = self.tensor(weight, mode).reshape(&conv.weight_shape())?;
                let bias = bias.map(|bias| self.tensor(bias, mode));
                ops::conv2d(x, &weight, bias.as_ref(), &conv)
            }
            Action::Norm { norm, activation } => self.norm(x, norm, activation, mode),
            Action::Act(activation) => ops::activation(x, activation),
            Action::Concat => ops::concat(inputs),
            Action::Add => inputs[1..].iter().try_fold(x.clone(), |sum, input| sum.add(input)),
            Action::MaxPool(pool) => ops::max_pool(x, &pool),
            Action::AvgPool(pool) => ops::avg_pool(x, &pool),
            Action::GlobalAvgPool => ops::global_avg_pool(x),
            Action::Zero => x.detach().zeros_like(),
        }
    }

    fn norm(
        &self,
        x: &Tensor,
        norm: NormTensors,
        activation: Option<gram_ir::Activation>,
        mode: Mode,
    ) -> candle_core::Result<Tensor> {
        let (scale, shift) = (self.tensor(norm.scale, mode), self.tensor(norm.shift, mode));
        let running = [&self.vars[norm.mean], &self.vars[norm.var]];
        if mode == Mode::Eval {
            let [mean, var] = running.map(Var::as_detached_tensor);
            return ops::batch_norm_fixed(x, [&mean, &var], &scale, &shift, activation);
        }
        let (y, moments) = ops::batch_norm(x, &scale, &shift, activation)?;
        for (running, batch) in running.into_iter().zip([&moments.mean, &moments.unbiased_var]) {
            let old = numbers(running)?;
            let towards = |(old, new): (f64, &f64)| old * (1.0 - BATCH_NORM_MOMENTUM) + new * BATCH_NORM_MOMENTUM;
            let new: Vec<f64> = old.into_iter().zip(batch).map(towards).collect();
            running.set(&tensor(&new, running.dims(), self.dtype)?)?;
        }
        Ok(y)
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

fn initial_values(network: &Network, spec: &TensorSpec, seed: u64, stream: u64) -> Vec<f64> {
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
