//! Latency.
mod adapt;
pub mod baseline;
mod bench;
mod check;
pub mod device_file;
mod fake;
pub mod family;
mod fit;
mod fuse;
mod kernel;
mod layout;
mod linalg;
mod measure;
mod metrics;
mod predictor;
mod process;
pub mod profile;
mod regressor;
pub mod remote;
pub mod transfer;

pub use adapt::{AdaptError, NewDevice, adapt, adaptation_networks};
pub use check::{FamilyReport, check};
pub use device_file::{DeviceFile, DeviceFileError, KernelTime, NetworkTime};
pub use fake::FakeEngine;
pub use fit::{COVERAGE, Fit, FitError, MIN_NETWORKS, fit};
pub use fuse::{Layout, PlacedKernel, fused_kernels};
pub use kernel::{Kernel, KernelOp, KernelParseError};
pub use layout::engine_layout;
pub use measure::{MeasureError, measure_here};
pub use metrics::{Accuracy, spearman};
pub use predictor::{PredictError, Prediction, Predictor};

/// Version of device files.
pub const FORMAT_VERSION: u32 = 1;
