//! How a network is trained.

use gram_data::Augmentation;
use serde::{Deserialize, Serialize};

/// How a network is trained. Seeds and data are given beside it.
///
/// Where the paper is silent, and it says nothing on training small networks, values are \[ours\].
///
/// # Example
/// ```
/// use gram_train::{Optimizer, TrainConfig};
/// let config = TrainConfig { epochs: 5, optimizer: Optimizer::adamw(), learning_rate: 2e-3, ..TrainConfig::default() };
/// config.validate()?;
/// # Ok::<(), gram_train::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// How gradients become updates. Default: SGD, momentum 0.9, Nesterov \[ours\].
    pub optimizer: Optimizer,
    /// Highest learning rate, reached after warm-up; see [`learning_rate`](crate::learning_rate). Default 0.2 \[ours\]: of
    /// 0.05, 0.1, 0.2 and 0.4 the two highest did best in 8 epochs on subsets of optdigits and Fashion-MNIST, and 0.2 leaves a margin.
    pub learning_rate: f64,
    /// Passes over the training images, 1 or more. Default 20, as in the authors' search (ALGORITHMS 1.3).
    pub epochs: usize,
    /// Epochs in which the learning rate rises linearly, at most `epochs`. Default 1 \[ours\].
    pub warmup_epochs: usize,
    /// Images per step, 1 or more. Default 64 \[ours\].
    pub batch_size: usize,
    /// Decay of weights, not of norms and biases: added to the gradient with SGD and RMSProp, decoupled with AdamW. Default 5e-4 \[ours\].
    pub weight_decay: f64,
    /// Share of the target that is spread over all classes, in `0..1`. Default 0.1 (ALGORITHMS 1.8).
    pub label_smoothing: f64,
    /// Decay of the moving average of the weights, in `0..1`, which is then what is evaluated and kept; none: the weights
    /// themselves. Default none \[ours\].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// Largest Euclidean norm of a step's gradient, over all trained tensors together; a longer gradient is scaled down to it. Above 0.
    /// Default none \[ours\].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Parameter α of mixup, finite and above 0: each batch is mixed with a permutation of itself, images and targets alike, by a share that
    /// is drawn from the distribution Beta(α, α). Zhang et al., [arXiv:1710.09412](https://arxiv.org/abs/1710.09412), take 0.1 to 0.4 for
    /// ImageNet and 1 for CIFAR-10. Default none \[ours\].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixup: Option<f64>,
    /// Random changes of training images. Default none \[ours\].
    pub augmentation: Augmentation,
    /// What is learnt from the teacher, where the training has one. Default none: a training with a teacher must say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
}

/// How a network learns from a larger one, the teacher: by what the teacher says of the same pixels, augmented and mixed as they are.
///
/// The loss is `(1 - weight) · CE + weight · temperature² · KL(teacher ‖ network)`: CE is that of the labels, smoothed and mixed as ever; KL
/// is between the softmax of both networks' scores divided by the temperature, and its factor keeps gradients of one size for all
/// temperatures.
///
/// # Source
/// Hinton, Vinyals and Dean, [arXiv:1503.02531](https://arxiv.org/abs/1503.02531), section 2. They name temperatures from 1 to 20 and give
/// the labels "a considerably lower weight"; the defaults here are ours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distillation {
    /// Share of the teacher in the loss, in `0..=1`. Default 0.5 \[ours\].
    pub weight: f64,
    /// What scores are divided by before softmax, above 0: the higher, the more counts what the teacher thinks of the other classes.
    /// Default 2 \[ours\].
    pub temperature: f64,
}

impl Default for Distillation {
    fn default() -> Self {
        Self { weight: 0.5, temperature: 2.0 }
    }
}

impl Distillation {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let Self { weight, temperature } = *self;
        require("distillation.weight", weight, (0.0..=1.0).contains(&weight), "between 0 and 1")?;
        require("distillation.temperature", temperature, positive(temperature), "finite and above 0")
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::sgd(),
            learning_rate: 0.2,
            epochs: 20,
            warmup_epochs: 1,
            batch_size: 64,
            weight_decay: 5e-4,
            label_smoothing: 0.1,
            ema_decay: None,
            clip_norm: None,
            mixup: None,
            augmentation: Augmentation::default(),
            distillation: None,
        }
    }
}

/// How gradients become updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum, as torch's `SGD`.
    Sgd {
        /// Share of the last update that is kept, in `0..1`. Default 0.9 \[ours\].
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// Nesterov's variant. Default true \[ours\].
        #[serde(default = "default_nesterov")]
        nesterov: bool,
    },
    /// Adam with decoupled weight decay, Loshchilov and Hutter, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101), algorithm 2.
    Adamw {
        /// Decay of the mean of gradients, in `0..1`. Default 0.9, as in the paper on Adam.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// Decay of the mean of squared gradients, in `0..1`. Default 0.999, as in the paper on Adam.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// Added to the root of the mean square, above 0. Default 1e-8, as in the paper on Adam.
        #[serde(default = "default_epsilon")]
        epsilon: f64,
    },
    /// RMSProp with momentum, as torch's `RMSprop` (not centred): ε is added outside of the root, the weight decay joins the gradient.
    ///
    /// The defaults are those that MobileNet-V2 ([arXiv:1801.04381](https://arxiv.org/abs/1801.04381), section 6.1) and -V3
    /// ([arXiv:1905.02244](https://arxiv.org/abs/1905.02244), section 6.1) are trained with in TensorFlow. These papers give no ε; 1e-3 is
    /// that of EfficientNet's TensorFlow code, where it stands under the root and the mean square starts at 1 instead of 0.
    Rmsprop {
        /// Decay of the mean of squared gradients, in `0..1`. Default 0.9, as in the paper on MobileNet-V2.
        #[serde(default = "default_alpha")]
        alpha: f64,
        /// Share of the last update that is kept, in `0..1`. Default 0.9, as in the papers on MobileNet-V2 and -V3.
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// Added to the root of the mean square, above 0. Default 1e-3.
        #[serde(default = "default_rmsprop_epsilon")]
        epsilon: f64,
    },
}

fn default_momentum() -> f64 {
    0.9
}

fn default_nesterov() -> bool {
    true
}

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.999
}

fn default_epsilon() -> f64 {
    1e-8
}

fn default_alpha() -> f64 {
    0.9
}

fn default_rmsprop_epsilon() -> f64 {
    1e-3
}

impl Optimizer {
    /// SGD with its defaults.
    pub fn sgd() -> Self {
        Self::Sgd { momentum: default_momentum(), nesterov: default_nesterov() }
    }

    /// AdamW with its defaults.
    pub fn adamw() -> Self {
        Self::Adamw { beta1: default_beta1(), beta2: default_beta2(), epsilon: default_epsilon() }
    }

    /// RMSProp with its defaults.
    pub fn rmsprop() -> Self {
        Self::Rmsprop { alpha: default_alpha(), momentum: default_momentum(), epsilon: default_rmsprop_epsilon() }
    }
}

/// A setting that is out of range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}, it must be {expected}")]
pub struct ConfigError {
    /// The field, e.g. `optimizer.momentum`.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub expected: &'static str,
}

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] for the first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require("learning_rate", self.learning_rate, positive(self.learning_rate), "finite and above 0")?;
        require("epochs", self.epochs, (1..=MAX_EPOCHS).contains(&self.epochs), "between 1 and 1000000")?;
        require("warmup_epochs", self.warmup_epochs, self.warmup_epochs <= self.epochs, "at most epochs")?;
        require("batch_size", self.batch_size, self.batch_size > 0, "1 or more")?;
        let decay_fits = self.weight_decay.is_finite() && self.weight_decay >= 0.0;
        require("weight_decay", self.weight_decay, decay_fits, "finite and 0 or above")?;
        require("label_smoothing", self.label_smoothing, share(self.label_smoothing), SHARE)?;
        if let Some(decay) = self.ema_decay {
            require("ema_decay", decay, share(decay), SHARE)?;
        }
        if let Some(norm) = self.clip_norm {
            require("clip_norm", norm, positive(norm), "finite and above 0")?;
        }
        if let Some(alpha) = self.mixup {
            require("mixup", alpha, positive(alpha), "finite and above 0")?;
        }
        self.distillation.map_or(Ok(()), |distillation| distillation.validate())?;
        self.optimizer.validate()
    }
}

impl Optimizer {
    fn validate(&self) -> Result<(), ConfigError> {
        match *self {
            Self::Sgd { momentum, .. } => require("optimizer.momentum", momentum, share(momentum), SHARE),
            Self::Adamw { beta1, beta2, epsilon } => {
                require("optimizer.beta1", beta1, share(beta1), SHARE)?;
                require("optimizer.beta2", beta2, share(beta2), SHARE)?;
                require("optimizer.epsilon", epsilon, positive(epsilon), "finite and above 0")
            }
            Self::Rmsprop { alpha, momentum, epsilon } => {
                require("optimizer.alpha", alpha, share(alpha), SHARE)?;
                require("optimizer.momentum", momentum, share(momentum), SHARE)?;
                require("optimizer.epsilon", epsilon, positive(epsilon), "finite and above 0")
            }
        }
    }
}

/// Keeps the number of steps well inside what is exact in f64.
const MAX_EPOCHS: usize = 1_000_000;

const SHARE: &str = "at least 0 and below 1";

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

fn share(value: f64) -> bool {
    (0.0..1.0).contains(&value)
}

fn require(field: &'static str, value: impl ToString, fits: bool, expected: &'static str) -> Result<(), ConfigError> {
    if fits { Ok(()) } else { Err(ConfigError { field, value: value.to_string(), expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_json() {
        let config = TrainConfig::default();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
        assert_eq!(serde_json::from_str::<TrainConfig>("{}").unwrap(), config);
        assert!(
            ["clip_norm", "ema_decay", "mixup", "cutout", "distillation"].iter().all(|field| !text.contains(field)),
            "{text}"
        );
        let clipped = TrainConfig { clip_norm: Some(1.5), mixup: Some(0.2), ..config };
        let text = serde_json::to_string(&clipped).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), clipped);
    }

    #[test]
    fn optimisers_fill_in_what_is_missing() {
        let config: TrainConfig = serde_json::from_str(r#"{"optimizer": {"name": "adamw", "beta2": 0.95}}"#).unwrap();
        assert_eq!(config.optimizer, Optimizer::Adamw { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 });
        let config: TrainConfig = serde_json::from_str(r#"{"optimizer": {"name": "rmsprop"}}"#).unwrap();
        assert_eq!(config.optimizer, Optimizer::Rmsprop { alpha: 0.9, momentum: 0.9, epsilon: 1e-3 });
        assert!(serde_json::from_str::<TrainConfig>(r#"{"optimizer": {"name": "sgd", "beta1": 0.9}}"#).is_err());
        assert!(serde_json::from_str::<TrainConfig>(r#"{"epoch": 3}"#).is_err());
    }

    #[test]
    fn each_bad_field_is_named() {
        let d = TrainConfig::default;
        let taught = |weight, temperature| Distillation { weight, temperature };
        let bad = [
            ("learning_rate", TrainConfig { learning_rate: 0.0, ..d() }),
            ("learning_rate", TrainConfig { learning_rate: f64::NAN, ..d() }),
            ("epochs", TrainConfig { epochs: 0, ..d() }),
            ("warmup_epochs", TrainConfig { epochs: 3, warmup_epochs: 4, ..d() }),
            ("batch_size", TrainConfig { batch_size: 0, ..d() }),
            ("weight_decay", TrainConfig { weight_decay: -1e-4, ..d() }),
            ("label_smoothing", TrainConfig { label_smoothing: 1.0, ..d() }),
            ("ema_decay", TrainConfig { ema_decay: Some(1.0), ..d() }),
            ("clip_norm", TrainConfig { clip_norm: Some(0.0), ..d() }),
            ("clip_norm", TrainConfig { clip_norm: Some(f64::INFINITY), ..d() }),
            ("mixup", TrainConfig { mixup: Some(0.0), ..d() }),
            ("mixup", TrainConfig { mixup: Some(f64::INFINITY), ..d() }),
            ("distillation.weight", TrainConfig { distillation: Some(taught(1.1, 2.0)), ..d() }),
            ("distillation.temperature", TrainConfig { distillation: Some(taught(0.5, 0.0)), ..d() }),
            ("optimizer.momentum", TrainConfig { optimizer: Optimizer::Sgd { momentum: 1.0, nesterov: false }, ..d() }),
            (
                "optimizer.epsilon",
                TrainConfig { optimizer: Optimizer::Adamw { beta1: 0.9, beta2: 0.9, epsilon: 0.0 }, ..d() },
            ),
            (
                "optimizer.alpha",
                TrainConfig { optimizer: Optimizer::Rmsprop { alpha: 1.0, momentum: 0.9, epsilon: 1e-3 }, ..d() },
            ),
        ];
        for (field, config) in bad {
            assert_eq!(config.validate().unwrap_err().field, field);
        }
    }
}
