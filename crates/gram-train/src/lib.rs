//! Trains and evaluates lowered networks on candle.
//!
//! [`train`] takes a [`Network`](gram_ir::Network), images and a [`TrainConfig`] and gives [`Outcome::Trained`] weights, or says where the
//! training diverged or stopped; [`evaluate`] and [`predict`] run weights. Underneath, [`Model`] runs a network on candle tensors with the
//! operators of [`ops`]: kernels and gradients of their own, because some of candle 0.11.1's are wrong or unusably slow on the CPU.
//!
//! The same seed gives the same bits for any number of threads. Nothing here decides what to train next, and nothing prints.
//!
//! See [`train`] for an example.

mod batches;
mod checkpoint;
mod config;
mod device;
mod digest;
mod edit;
mod engine;
mod epochs;
mod error;
mod evaluate;
mod kernels;
mod memory;
mod model;
mod network_op;
pub mod ops;
mod optim;
mod prefetch;
mod program;
mod resume;
mod schedule;
mod seeds;
mod teacher;
mod trace;
mod train;
mod trainer;

/// Names what may change the last bits of a training besides its inputs and the machine; raised with every change of the code that does.
/// See [`numerics`].
pub const NUMERICS: &str = "gram-train 2, cpu, f32";

pub use candle_core::Device;
pub use checkpoint::{CheckpointError, CheckpointProblem};
pub use config::{ConfigError, Distillation, Optimizer, TrainConfig};
pub use device::{DeviceChoice, DeviceModel, DeviceNameError, numerics_on, train_on, train_on_device};
pub use digest::weights_digest;
pub use engine::{Engine, EvalEngine, Layout};
pub use error::TrainError;
pub use evaluate::{Evaluation, evaluate, predict};
pub use kernels::loss::{Mix, Targets, Taught};
pub use memory::{teacher_bytes, training_bytes};
pub use model::{BATCH_NORM_MOMENTUM, Gradients, Mode, Model};
pub use network_op::NetworkOp;
pub use schedule::learning_rate;
pub use teacher::Teacher;
pub use train::{Control, EpochReport, Outcome, TrainData, TrainOptions, Trained, train};
pub use trainer::{StepReport, Trainer, numerics};
