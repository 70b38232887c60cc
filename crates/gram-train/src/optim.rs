//! Optimisers and the moving average of weights.

use candle_core::Tensor;
use gram_ir::TensorRole;

use crate::edit::edit;
use crate::ops::values;
use crate::{Model, Optimizer, TrainError};

/// An optimiser of one f32 [`Model`]: its settings and what it remembers of earlier gradients.
#[derive(Debug)]
pub(crate) struct OptimizerState {
    kind: Optimizer,
    weight_decay: f64,
    /// Steps taken.
    pub(crate) n_steps: u64,
    /// One for each tensor of the model; empty for running statistics.
    pub(crate) memories: Vec<Memory>,
}

/// What is remembered of the gradients of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Momentum, or the mean of gradients.
    pub(crate) first: Vec<f32>,
    /// Mean of squared gradients; AdamW only.
    pub(crate) second: Vec<f32>,
}

impl OptimizerState {
    pub(crate) fn new(kind: Optimizer, weight_decay: f64, model: &Model) -> Self {
        let memory = |spec: &gram_ir::TensorSpec| {
            let zeros = |wanted: bool| if wanted { vec![0.0; spec.elements()] } else { Vec::new() };
            let trainable = spec.role.is_trainable();
            Memory { first: zeros(trainable), second: zeros(trainable && matches!(kind, Optimizer::Adamw { .. })) }
        };
        Self { kind, weight_decay, n_steps: 0, memories: model.specs().iter().map(memory).collect() }
    }

    /// Changes every tensor that has a gradient.
    pub(crate) fn step(&mut self, model: &Model, gradients: &[Option<Tensor>], lr: f64) -> Result<(), TrainError> {
        self.n_steps += 1;
        let tensors = model.specs().iter().zip(model.vars());
        for (((spec, var), memory), gradient) in tensors.zip(&mut self.memories).zip(gradients) {
            let Some(gradient) = gradient else { continue };
            let gradient = values::<f32>(gradient)?;
            let decay = if spec.role == TensorRole::Weight { self.weight_decay } else { 0.0 };
            match self.kind {
                Optimizer::Sgd { momentum, nesterov } => {
                    let step = Sgd { lr: lr as f32, decay: decay as f32, momentum: momentum as f32, nesterov };
                    edit(var, |weights| step.update(weights, &gradient, &mut memory.first))?;
                }
                Optimizer::Adamw { beta1, beta2, epsilon } => {
                    let step = Adamw::new([beta1, beta2], epsilon, lr, decay, self.n_steps);
                    edit(var, |weights| step.update(weights, &gradient, memory))?;
                }
            }
        }
        Ok(())
    }
}

/// One step of SGD, torch's formula: the decay joins the gradient, the gradient joins the momentum.
#[derive(Clone, Copy)]
struct Sgd {
    lr: f32,
    decay: f32,
    momentum: f32,
    nesterov: bool,
}

impl Sgd {
    fn update(self, weights: &mut [f32], gradient: &[f32], memory: &mut [f32]) {
        for ((weight, &gradient), memory) in weights.iter_mut().zip(gradient).zip(memory) {
            let gradient = gradient + self.decay * *weight;
            *memory = self.momentum * *memory + gradient;
            let update = if self.nesterov { gradient + self.momentum * *memory } else { *memory };
            *weight -= self.lr * update;
        }
    }
}

/// One step of AdamW.
#[derive(Clone, Copy)]
struct Adamw {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// `1 - lr · decay`.
    keep: f32,
    /// Learning rate over the bias correction of the mean.
    lr: f32,
    /// Bias correction of the mean square.
    correction: f32,
}

impl Adamw {
    fn new([beta1, beta2]: [f64; 2], epsilon: f64, lr: f64, decay: f64, n_steps: u64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(n_steps as f64);
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: epsilon as f32,
            keep: (1.0 - lr * decay) as f32,
            lr: (lr / correction(beta1)) as f32,
            correction: correction(beta2) as f32,
        }
    }

    fn update(self, weights: &mut [f32], gradient: &[f32], memory: &mut Memory) {
        let memories = memory.first.iter_mut().zip(&mut memory.second);
        for ((weight, &gradient), (mean, square)) in weights.iter_mut().zip(gradient).zip(memories) {
            *mean = self.beta1 * *mean + (1.0 - self.beta1) * gradient;
            *square = self.beta2 * *square + (1.0 - self.beta2) * gradient * gradient;
            *weight = *weight * self.keep - self.lr * *mean / ((*square / self.correction).sqrt() + self.epsilon);
        }
    }
}

/// A moving average of a model's tensors, running statistics included.
///
/// The decay of update `t` (from 0) is `min(decay, (1 + t) / (10 + t))`, so that the first weights are soon forgotten.
#[derive(Debug)]
pub(crate) struct Ema {
    pub(crate) model: Model,
    decay: f64,
    /// Updates made.
    pub(crate) n_updates: u64,
}

impl Ema {
    pub(crate) fn new(decay: f64, model: &Model) -> Result<Self, TrainError> {
        Ok(Self { model: model.duplicate()?, decay, n_updates: 0 })
    }

    pub(crate) fn update(&mut self, model: &Model) -> Result<(), TrainError> {
        let decay = self.decay.min((1 + self.n_updates) as f64 / (10 + self.n_updates) as f64);
        let (keep, take) = (decay as f32, (1.0 - decay) as f32);
        for (average, var) in self.model.vars().iter().zip(model.vars()) {
            let now = values::<f32>(var)?;
            edit(average, |average| average.iter_mut().zip(&*now).for_each(|(a, &x)| *a = keep * *a + take * x))?;
        }
        self.n_updates += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use gram_ir::{Network, NodeId, Op, Shape};

    use super::*;

    #[test]
    fn sgd_by_hand() {
        let (mut weights, mut memory) = ([1.0f32], [0.0f32]);
        let plain = Sgd { lr: 0.1, decay: 0.5, momentum: 0.9, nesterov: false };
        plain.update(&mut weights, &[1.0], &mut memory);
        // g = 1 + 0.5·1 = 1.5; m = 1.5; w = 1 - 0.15.
        assert_eq!((weights[0], memory[0]), (0.85, 1.5));
        Sgd { nesterov: true, decay: 0.0, ..plain }.update(&mut weights, &[1.0], &mut memory);
        // m = 0.9·1.5 + 1 = 2.35; step 1 + 0.9·2.35 = 3.115; w = 0.85 - 0.3115.
        assert!((weights[0] - 0.5385).abs() < 1e-6, "{weights:?}");
    }

    #[test]
    fn adamw_by_hand() {
        let mut weights = [1.0f32];
        let mut memory = Memory { first: vec![0.0], second: vec![0.0] };
        Adamw::new([0.9, 0.99], 0.0, 0.1, 0.5, 1).update(&mut weights, &[2.0], &mut memory);
        // Corrected mean 2 and mean square 4: the step is lr·2/2; the weight first shrinks to 1 - 0.1·0.5.
        assert!((weights[0] - 0.85).abs() < 1e-6, "{weights:?}");
        assert!((memory.first[0] - 0.2).abs() < 1e-6 && (memory.second[0] - 0.04).abs() < 1e-6);
        Adamw::new([0.9, 0.99], 0.0, 0.1, 0.0, 2).update(&mut weights, &[0.0], &mut memory);
        // mean 0.18/(1 - 0.81), square 0.0396/(1 - 0.9801): 0.947368/√1.989950 = 0.671574.
        assert!((weights[0] - (0.85 - 0.067_157_4)).abs() < 1e-6, "{weights:?}");
    }

    fn linear() -> Model {
        let mut network = Network::new(Shape::chw(1, 1, 1));
        let norm = network.add("bn", Op::BatchNorm { channels: 1 }, &[NodeId(0)]).unwrap();
        let fc = network.add("fc", Op::Linear { c_in: 1, c_out: 1, bias: true }, &[norm]).unwrap();
        network.set_output(fc).unwrap();
        Model::new(&network, 0, DType::F32).unwrap()
    }

    fn first(model: &Model, name: &str) -> f64 {
        model.weights().unwrap().get(name).unwrap().data()[0]
    }

    #[test]
    fn norms_and_biases_do_not_decay() {
        let model = linear();
        // Gradients of zero: only the decay moves anything.
        let gradients: Vec<_> = model.vars().iter().map(|var| Some(var.zeros_like().unwrap())).collect();
        let before = model.weights().unwrap();
        OptimizerState::new(Optimizer::sgd(), 0.5, &model).step(&model, &gradients, 0.1).unwrap();
        let moved: Vec<String> = before
            .iter()
            .filter(|(name, old)| model.weights().unwrap().get(name).unwrap() != *old)
            .map(|(n, _)| n.into())
            .collect();
        assert_eq!(moved, ["fc.weight"]);
    }

    #[test]
    fn averages_start_quickly_and_copy_running_statistics() {
        let model = linear();
        let set = |value: f32| model.vars().iter().for_each(|var| edit(var, |data| data.fill(value)).unwrap());
        set(0.0);
        let mut ema = Ema::new(0.15, &model).unwrap();
        set(1.0);
        ema.update(&model).unwrap();
        // First decay 1/10: 0.1·0 + 0.9·1.
        assert!((first(&ema.model, "fc.weight") - 0.9).abs() < 1e-6);
        assert!((first(&ema.model, "bn.running_var") - 0.9).abs() < 1e-6);
        set(2.0);
        ema.update(&model).unwrap();
        // Second decay min(0.15, 2/11): 0.15·0.9 + 0.85·2.
        assert!((first(&ema.model, "fc.weight") - 1.835).abs() < 1e-6);
        assert_eq!(first(&model, "fc.weight"), 2.0);
    }
}
