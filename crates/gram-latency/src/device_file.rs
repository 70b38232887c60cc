//! `device.json`: what was measured on one device, and the predictor that was fitted to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gram_export::files::{WriteError, write_atomic};
use gram_latency_runner::jobs::read_bounded;
use gram_latency_runner::{Device, JobError, Plan, References};
use serde::{Deserialize, Serialize};

use crate::family::Family;
use crate::fit::Fit;
use crate::kernel::Kernel;
use crate::{FORMAT_VERSION, Layout};

/// Larger files are refused before they are read.
pub const MAX_DEVICE_BYTES: u64 = 64 << 20;

/// Measurements of one device and what was made of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFile {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What was measured on; every number of the file is of this device, but for a table that is borrowed.
    pub device: Device,
    /// The engine's blocked layout.
    pub layout: Layout,
    /// How it was measured.
    pub plan: Plan,
    /// The families of networks that it was profiled with.
    pub families: Vec<Family>,
    /// The device that the table is of, where it is of another one: what was fitted then translates its times. Made by [`crate::adapt`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub borrowed_from: Option<Device>,
    /// Median time of the reference network, in microseconds; all times are scaled to it.
    pub reference_us: f64,
    /// Median time of the large reference network, in microseconds, where large networks were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_reference_us: Option<f64>,
    /// The table.
    pub kernels: BTreeMap<Kernel, KernelTime>,
    /// Whole networks.
    pub networks: Vec<NetworkTime>,
    /// What the engine refused, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, String>,
    /// What predicts networks that were not measured; made by [`crate::fit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
}

/// Measured time of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelTime {
    /// Time by the engine's own profile, in microseconds.
    pub us: f64,
    /// Networks of the profiled families that have it; none for kernels that were drawn at random.
    pub networks: u32,
}

/// Measured time of one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkTime {
    /// Family, seed and index, or a name.
    pub name: String,
    /// Multiply–accumulates.
    pub macs: u64,
    /// Its kernels, and how often each occurs.
    pub kernels: BTreeMap<Kernel, u32>,
    /// Fastest pass: median over rounds, in microseconds.
    pub min_us: f64,
    /// Median pass: median over rounds, in microseconds.
    pub p50_us: f64,
}

/// Why a device file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceFileError {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] JobError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It is no device file.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// It is of another format version.
    #[error("{}: format version {found}; this program reads version {FORMAT_VERSION}. Profile the device again", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It is of another device.
    #[error("{} is of another device ({}); times of different devices are not mixed", path.display(), differences.join("; "))]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// The fields that differ.
        differences: Vec<String>,
    },
}

impl DeviceFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`DeviceFileError`] naming the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, DeviceFileError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let bytes = read_bounded(path, MAX_DEVICE_BYTES)?;
        let format = |message: String| DeviceFileError::Format { path: path.into(), message };
        let version: Version = serde_json::from_slice(&bytes).map_err(|error| format(error.to_string()))?;
        if version.format_version != FORMAT_VERSION {
            return Err(DeviceFileError::Version { path: path.into(), found: version.format_version });
        }
        let file: Self = serde_json::from_slice(&bytes).map_err(|error| format(error.to_string()))?;
        file.check().map_err(format)?;
        Ok(file)
    }

    /// Writes the file, all or nothing.
    ///
    /// # Errors
    /// [`DeviceFileError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), DeviceFileError> {
        let format =
            |error: serde_json::Error| DeviceFileError::Format { path: path.into(), message: error.to_string() };
        let mut text = serde_json::to_string_pretty(self).map_err(format)?;
        text.push('\n');
        Ok(write_atomic(path, text.as_bytes())?)
    }

    /// Times of the reference networks.
    pub fn references(&self) -> References {
        References { us: self.reference_us, large_us: self.large_reference_us }
    }

    /// Refuses `device` if it is not the file's.
    ///
    /// # Errors
    /// [`DeviceFileError::OtherDevice`] naming the fields that differ; `path` is the file's.
    pub fn expect_device(&self, path: &Path, device: &Device) -> Result<(), DeviceFileError> {
        let differences = self.device.differences(device);
        if differences.is_empty() {
            return Ok(());
        }
        Err(DeviceFileError::OtherDevice { path: path.into(), differences })
    }

    fn check(&self) -> Result<(), String> {
        let positive = |us: f64| us.is_finite() && us > 0.0;
        if !positive(self.reference_us) || !self.large_reference_us.is_none_or(positive) {
            return Err("reference_us and large_reference_us must be above 0".into());
        }
        if let Some((kernel, time)) = self.kernels.iter().find(|(_, time)| !positive(time.us)) {
            return Err(format!("kernel `{kernel}`: a time of {}", time.us));
        }
        if let Some(network) =
            self.networks.iter().find(|network| !positive(network.min_us) || !positive(network.p50_us))
        {
            return Err(format!("network `{}`: times must be above 0", network.name));
        }
        if self.layout.block == 0 || self.layout.align == 0 {
            return Err("layout: block and align must be 1 or more".into());
        }
        Ok(())
    }
}
