//! What can go wrong in training and evaluation.

use gram_data::{DataError, ImageShape};
use gram_ir::{Shape, TensorError};

use crate::{CheckpointError, ConfigError, DeviceChoice};

/// Why training or evaluation could not be done. A network that diverges is no error but an [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Images cannot be prepared as asked.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Weights are not those of the network.
    #[error(transparent)]
    Weights(#[from] TensorError),
    /// A checkpoint cannot be used or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Images of another shape than the network's input.
    #[error("the network takes images of {expected}, the {set} images are {got}")]
    Images {
        /// Which set.
        set: &'static str,
        /// The network's input.
        expected: Shape,
        /// The images' shape.
        got: ImageShape,
    },
    /// A set without images.
    #[error("there are no {set} images")]
    NoImages {
        /// Which set.
        set: &'static str,
    },
    /// The network's output is a map, not one score per class.
    #[error("the network gives {got}, not one score per class (classes x1x1)")]
    NotAClassifier {
        /// Shape of its output.
        got: Shape,
    },
    /// A label that the network has no output for.
    #[error("a {set} image has label {label}, the network has {classes} classes")]
    Label {
        /// Which set.
        set: &'static str,
        /// The label.
        label: u32,
        /// Outputs of the network.
        classes: usize,
    },
    /// A teacher with another input or other classes than the network that learns from it.
    #[error("the teacher takes {input} and gives {output}, the network takes {} and gives {}", expected[0], expected[1])]
    Teacher {
        /// Its input.
        input: Shape,
        /// Its output.
        output: Shape,
        /// Input and output of the network that learns.
        expected: [Shape; 2],
    },
    /// Pixels that are not a whole number of images.
    #[error("{got} values are not a whole number of images of {expected}")]
    Pixels {
        /// The network's input.
        expected: Shape,
        /// Number of values.
        got: usize,
    },
    /// candle refused an operation.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Worker threads could not be started.
    #[error("worker threads could not be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The thread that prepares batches could not be started.
    #[error("the thread that prepares batches could not be started: {0}")]
    Prefetch(#[source] std::io::Error),
    /// A GPU was asked for of a program that was built without the feature `cuda`.
    #[error("this build of gram has no CUDA: build it with `--features cuda`")]
    NoCuda,
    /// A GPU cannot be used.
    #[error("device {device} cannot be used: {source}")]
    Device {
        /// Which one was asked for.
        device: DeviceChoice,
        /// What candle says.
        source: Box<candle_core::Error>,
    },
}
