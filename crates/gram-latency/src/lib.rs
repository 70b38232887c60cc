//! How long a network takes on a device: measured, predicted with an interval, transferred to new devices.
//!
//! A network is read as the kernels that the device's engine runs ([`fused_kernels`]). A profile measures kernels and whole networks
//! ([`profile`]); [`fit`] makes a predictor of it, a sum over kernels that holds for larger networks than were measured; [`adapt`] brings a
//! known device's table to a new one with ten measurements. Measuring itself is `gram-latency-runner`'s, here ([`measure_here`]) or on a
//! device elsewhere ([`remote`]).
//!
//! The crate does not decide what is searched, and never mixes numbers of different devices.
//!
//! # Example
//! ```
//! use gram_ir::{Shape, space_preset};
//! use gram_latency::family::{Family, FamilyKind, aligned_space};
//! use gram_latency::profile::{Prepared, ProfileConfig};
//! use gram_latency::{FakeEngine, Predictor, engine_layout, fit, measure_here};
//! use gram_latency_runner::Engine;
//! use std::ops::ControlFlow;
//!
//! // An engine that computes nothing; `gram_latency_runner::OnnxRuntime::open(None, 1)` is a real one.
//! let engine = FakeEngine::new("example", 1.0, 1);
//! let space = aligned_space(&space_preset("autoshrink").unwrap(), 16);
//! let kind = FamilyKind::Space(space);
//! let family = Family { name: "autoshrink".into(), kind, input: Shape::chw(3, 32, 32), num_classes: 10 };
//! let config = ProfileConfig { networks: 8, kernel_networks: 8, ..ProfileConfig::new(vec![family.clone()]) };
//! let prepared = Prepared::new(&config, engine_layout(&engine)?)?;
//! let records = measure_here(&engine, &prepared, None, &mut |_| ControlFlow::Continue(()))?;
//! let mut device = prepared.device_file(engine.device(), &records)?;
//! device.fit = Some(fit(&device)?);
//!
//! let network = family.network(7, 0)?;
//! let predicted = Predictor::new(&device)?.predict(&network)?;
//! assert!((1e3 * predicted.ms / engine.network_time(&network) - 1.0).abs() < 0.05);
//! assert!(predicted.low < predicted.ms && predicted.ms < predicted.high);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod adapt;
pub mod baseline;
mod bench;
mod check;
pub mod device_file;
mod eviction;
mod fake;
pub mod family;
mod fit;
mod fuse;
mod kernel;
mod layout;
mod linalg;
mod made_up;
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
pub use gram_latency_runner::References;
pub use kernel::{Kernel, KernelOp, KernelParseError};
pub use layout::engine_layout;
pub use measure::{MeasureError, measure_here};
pub use metrics::{Accuracy, spearman};
pub use predictor::{PredictError, Prediction, Predictor};

/// Version of device files.
pub const FORMAT_VERSION: u32 = 2;
