//! Optimisers, gradient clipping and the moving average of weights, on flat tensors of a device.
//!
//! The formulas are those of the CPU's optimisers; one update is a handful of operations over all learnt elements at once.

use candle_core::{DType, Result, Tensor};

use super::model::DeviceModel;
use super::store::upload;
use crate::Optimizer;

/// An optimiser of the learnt tensors of a model: its settings and what it remembers of earlier gradients.
#[derive(Debug)]
pub(super) struct OptimizerState {
    kind: Optimizer,
    /// Decay of each element: the weight decay for weights, 0 for norms and biases; none if nothing decays.
    decay: Option<Tensor>,
    /// Steps taken.
    pub(super) n_steps: u64,
    /// Momentum, or AdamW's mean of gradients; missing where the optimiser has none.
    pub(super) first: Option<Tensor>,
    /// Mean of squared gradients; missing for SGD.
    pub(super) second: Option<Tensor>,
}

impl OptimizerState {
    /// For `values`, all learnt elements of `model`.
    pub(super) fn new(kind: Optimizer, weight_decay: f64, model: &DeviceModel, values: &Tensor) -> Result<Self> {
        let [first, second] = match kind {
            Optimizer::Sgd { momentum, .. } => [momentum > 0.0, false],
            Optimizer::Adamw { .. } => [true, true],
            Optimizer::Rmsprop { momentum, .. } => [momentum > 0.0, true],
        };
        let zeros = |wanted: bool| wanted.then(|| values.zeros_like()).transpose();
        let decay = model.store().places().of_weights(weight_decay);
        let decay = (weight_decay > 0.0).then(|| upload(decay, values.dtype(), values.device())).transpose()?;
        Ok(Self { kind, decay, n_steps: 0, first: zeros(first)?, second: zeros(second)? })
    }

    /// What `values` become by one step.
    pub(super) fn step(&mut self, values: &Tensor, gradient: &Tensor, lr: f64) -> Result<Tensor> {
        self.n_steps += 1;
        match self.kind {
            Optimizer::Sgd { momentum, nesterov } => {
                let gradient = self.decayed(values, gradient)?;
                let update = match self.momentum(momentum, &gradient)? {
                    Some(memory) if nesterov => (gradient + (memory * momentum)?)?,
                    Some(memory) => memory,
                    None => gradient,
                };
                values - (update * lr)?
            }
            Optimizer::Adamw { beta1, beta2, epsilon } => {
                let correction = |beta: f64, n_steps: u64| 1.0 - beta.powf(n_steps as f64);
                let [first, second] = [beta1, beta2].map(|beta| correction(beta, self.n_steps));
                let mean = average(&mut self.first, beta1, gradient)?;
                let square = average(&mut self.second, beta2, &gradient.sqr()?)?;
                let update = (mean / ((square / second)?.sqrt()? + epsilon)?)?;
                let kept = match &self.decay {
                    Some(decay) => (values * decay.affine(-lr, 1.0)?)?,
                    None => values.clone(),
                };
                kept - (update * (lr / first))?
            }
            Optimizer::Rmsprop { alpha, momentum, epsilon } => {
                let gradient = self.decayed(values, gradient)?;
                let square = average(&mut self.second, alpha, &gradient.sqr()?)?;
                let scaled = (gradient / (square.sqrt()? + epsilon)?)?;
                let update = self.momentum(momentum, &scaled)?.unwrap_or(scaled);
                values - (update * lr)?
            }
        }
    }

    /// The gradient with the decay.
    fn decayed(&self, values: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        match &self.decay {
            Some(decay) => gradient + (decay * values)?,
            None => Ok(gradient.clone()),
        }
    }

    /// The momentum with `gradient` joined to it, where there is one.
    fn momentum(&mut self, momentum: f64, gradient: &Tensor) -> Result<Option<Tensor>> {
        if let Some(memory) = &mut self.first {
            *memory = ((&*memory * momentum)? + gradient)?;
        }
        Ok(self.first.clone())
    }
}

/// Lets `beta` of a memory remain and takes the rest from `x`; gives the memory.
fn average(memory: &mut Option<Tensor>, beta: f64, x: &Tensor) -> Result<Tensor> {
    let new = (x * (1.0 - beta))?;
    let new = match memory.take() {
        Some(old) => ((old * beta)? + new)?,
        None => new,
    };
    *memory = Some(new.clone());
    Ok(new)
}

/// `gradient`, scaled down so that its Euclidean norm is at most `max_norm`, without waiting for the device.
///
/// # Source
/// Pascanu et al., [arXiv:1211.5063](https://arxiv.org/abs/1211.5063), algorithm 1.
pub(super) fn clip(gradient: &Tensor, max_norm: f64) -> Result<Tensor> {
    let norm = gradient.to_dtype(DType::F64)?.sqr()?.sum_all()?.sqrt()?;
    let excess = (norm / max_norm)?.maximum(1.0)?;
    gradient.broadcast_mul(&excess.recip()?.to_dtype(gradient.dtype())?)
}

/// A moving average of all tensors that change, running statistics included.
///
/// The decay of update `t` (from 0) is `min(decay, (1 + t) / (10 + t))`, so that the first weights are soon forgotten.
#[derive(Debug)]
pub(super) struct Ema {
    pub(super) model: DeviceModel,
    decay: f64,
    /// Updates made.
    pub(super) n_updates: u64,
}

impl Ema {
    pub(super) fn new(decay: f64, model: &DeviceModel) -> Self {
        Self { model: model.clone(), decay, n_updates: 0 }
    }

    pub(super) fn update(&mut self, model: &DeviceModel) -> Result<()> {
        let decay = self.decay.min((1 + self.n_updates) as f64 / (10 + self.n_updates) as f64);
        for (part, now) in model.store().changing() {
            let average = ((self.model.store().part(part)? * decay)? + (now * (1.0 - decay))?)?;
            self.model.store_mut().replace(part, average);
        }
        self.n_updates += 1;
        Ok(())
    }
}
