//! Trained networks as files that other programs load: ONNX, safetensors, DOT, SVG.
//!
//! What was written is checked: [`check_onnx`] reads the ONNX bytes back and runs them beside the trained network on real images.
//! The crate neither trains nor knows datasets; quantised models are not written.
//!
//! # Example
//! ```
//! use gram_export::{DEFAULT_TOLERANCE, OnnxMetadata, check_onnx, to_onnx};
//! use gram_ir::{Conv2d, Network, Op, Shape, Tensor, Weights};
//!
//! let mut network = Network::new(Shape::chw(3, 8, 8));
//! let conv = network.add("conv", Op::Conv(Conv2d::new(3, 8, 3)), &[network.input()])?;
//! let norm = network.add("norm", Op::BatchNorm { channels: 8 }, &[conv])?;
//! let pool = network.add("pool", Op::GlobalAvgPool, &[norm])?;
//! let linear = network.add("classifier", Op::Linear { c_in: 8, c_out: 10, bias: true }, &[pool])?;
//! network.set_output(linear)?;
//! let weights = Weights::arbitrary(&network, 1);
//!
//! let bytes = to_onnx(&network, &weights, &OnnxMetadata::new("example"))?;
//! let images = Tensor::arbitrary(&[4, 3, 8, 8], 2);
//! let report = check_onnx(&bytes, &network, &weights, &images, DEFAULT_TOLERANCE)?;
//! assert!(report.max_relative_difference < 1e-6 && report.n_argmax_equal == 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod deploy;
mod drawing;
mod error;
pub mod files;
mod onnx;
mod safetensors;

pub use deploy::deploy;
pub use drawing::{
    LiveBytes, architecture_to_dot, architecture_to_svg, cell_to_dot, live_bytes_to_svg, network_to_dot,
};
pub use error::ExportError;
pub use onnx::{
    CheckReport, DEFAULT_TOLERANCE, INPUT, IR_VERSION, OPSET, OUTPUT, OnnxMetadata, OnnxModel, ReadError, check_onnx,
    from_onnx, to_onnx,
};
pub use safetensors::{SafetensorsError, read_safetensors, read_safetensors_metadata, write_safetensors};
