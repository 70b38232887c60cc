//! Which device a user asks for.

use std::fmt;
use std::str::FromStr;

use candle_core::{Device, DeviceLocation};

use crate::{TrainError, numerics};

/// A device by name: `cpu`, `cuda` (the first GPU) or `cuda:N`.
///
/// # Example
/// ```
/// use gram_train::DeviceChoice;
///
/// assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
/// assert_eq!(DeviceChoice::Cuda(1).to_string(), "cuda:1");
/// assert!(DeviceChoice::Cpu.open()?.is_cpu());
/// # Ok::<(), gram_train::TrainError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, from 0 on.
    Cuda(usize),
}

/// A name that is no device's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: write cpu, cuda or cuda:N with the number of a GPU, from 0 on")]
pub struct DeviceNameError(String);

impl DeviceChoice {
    /// The device, ready for work.
    ///
    /// # Errors
    /// [`TrainError::NoCuda`] if the program was built without the feature `cuda`, [`TrainError::Device`] if there is no such GPU or no
    /// driver for it.
    pub fn open(self) -> Result<Device, TrainError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => Err(TrainError::NoCuda),
            Self::Cuda(number) => {
                Device::new_cuda(number).map_err(|source| TrainError::Device { device: self, source: Box::new(source) })
            }
        }
    }

    /// Whether it is a GPU.
    pub fn is_cuda(self) -> bool {
        matches!(self, Self::Cuda(_))
    }
}

/// What may change the last bits of [`train_on`](crate::train_on) on `device` besides its inputs: [`numerics`] on the CPU, another text
/// for GPUs, the same for all of them.
///
/// A training is not continued, and a score not reused, where this differs.
pub fn numerics_on(device: &Device) -> String {
    if device.is_cpu() { numerics() } else { numerics_of_operators(device.location()) }
}

/// The same for [`train_on_device`](crate::train_on_device), which uses candle's operators on the CPU too; its number is raised with every
/// change of what they compute.
pub(super) fn numerics_of_operators(location: DeviceLocation) -> String {
    let name = match location {
        DeviceLocation::Cpu => "cpu by candle",
        DeviceLocation::Cuda { .. } => "cuda",
        DeviceLocation::Metal { .. } => "metal",
    };
    format!("gram-train 1, {name}, f32")
}

impl FromStr for DeviceChoice {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |digits: &&str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.strip_prefix("cuda:").filter(digits).and_then(|digits| digits.parse().ok());
        match (text, number) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => Err(DeviceNameError(text.into())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
        ];
        for (text, device) in cases {
            assert_eq!(text.parse(), Ok(device), "{text}");
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for text in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda 0", "cuda:99999999999999999999"] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is no device: write cpu")), "{error}");
        }
    }

    #[test]
    fn a_build_without_cuda_says_so() {
        if cfg!(feature = "cuda") {
            return;
        }
        let error = DeviceChoice::Cuda(0).open().unwrap_err();
        assert_eq!(error.to_string(), "this build of gram has no CUDA: build it with `--features cuda`");
    }

    #[test]
    fn numerics_tell_engines_apart() {
        assert_eq!(numerics_on(&Device::Cpu), numerics());
        assert_ne!(numerics_of_operators(DeviceLocation::Cpu), numerics());
        let gpu = |gpu_id| numerics_of_operators(DeviceLocation::Cuda { gpu_id });
        assert_eq!([gpu(0), gpu(1)], ["gram-train 1, cuda, f32"; 2]);
    }
}
