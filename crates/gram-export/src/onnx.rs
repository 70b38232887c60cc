//! ONNX files: writing, reading back, checking what was written.

mod check;
mod limits;
mod metadata;
mod operators;
mod proto;
mod read;
mod tensors;
mod write;

pub use check::{CheckReport, DEFAULT_TOLERANCE, check_onnx};
pub use metadata::OnnxMetadata;
pub use read::{OnnxModel, ReadError, from_onnx};
pub(crate) use write::f32_bytes;
pub use write::to_onnx;

/// The operator set that is written and read.
pub const OPSET: i64 = 17;
/// The version of the file format that is written and read.
pub const IR_VERSION: i64 = 8;
/// Name of the graph's input, `[batch, c, h, w]`.
pub const INPUT: &str = "input";
/// Name of the graph's output, `[batch, classes]`.
pub const OUTPUT: &str = "logits";
