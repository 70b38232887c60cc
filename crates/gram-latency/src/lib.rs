//! Latency.
mod bench;
pub mod family;
mod fuse;
mod kernel;
mod layout;

pub use fuse::{Layout, PlacedKernel, fused_kernels};
pub use layout::engine_layout;
pub use kernel::{Kernel, KernelOp, KernelParseError};
