//! Why an export was refused.

use gram_ir::{RunError, Shape, TensorError, TransformError};

use crate::CheckReport;
use crate::onnx::ReadError;

/// Why a network was not exported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The weights are not those of the network.
    #[error(transparent)]
    Weights(#[from] TensorError),
    /// Batch norm could not be folded, or an identity not removed.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// One of the two networks could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file is not one that this crate writes.
    #[error("not a readable model: {0}")]
    Read(#[from] ReadError),
    /// A number of a tensor, finite in f64, is not finite in f32.
    #[error("tensor `{name}`: element {index} is {value:e}, beyond the range of f32")]
    BeyondF32 {
        /// Name of the tensor.
        name: String,
        /// Position of the element.
        index: usize,
        /// The element.
        value: f64,
    },
    /// More than 2 GiB, which no ONNX file may have.
    #[error("the model needs {bytes} bytes; an ONNX file has less than 2 GiB")]
    TooLarge {
        /// Bytes of all weights.
        bytes: u64,
    },
    /// Two metadata entries of one key.
    #[error("metadata `{key}` is given twice")]
    DuplicateMetadata {
        /// The key.
        key: String,
    },
    /// The file's network has another input or output than the model.
    #[error("the exported model maps {got_input} to {got_output}, the trained one {input} to {output}")]
    OtherShapes {
        /// Input of the trained model.
        input: Shape,
        /// Output of the trained model.
        output: Shape,
        /// Input of the exported model.
        got_input: Shape,
        /// Output of the exported model.
        got_output: Shape,
    },
    /// There is no image to check the exported model on.
    #[error("there is no image to check the exported model on")]
    NoImages,
    /// The exported model computes something else than the trained one.
    #[error(
        "the exported model differs from the trained one: by up to {:.2e} of the largest output (limit {tolerance:.0e}), \
         same class for {} of {} images",
        report.max_relative_difference, report.n_argmax_equal, report.n_images
    )]
    Differs {
        /// What was found.
        report: CheckReport,
        /// Largest relative difference that is allowed.
        tolerance: f64,
    },
}
