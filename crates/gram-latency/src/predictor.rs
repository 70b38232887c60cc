//! Latency of networks that were not measured, in milliseconds, with an interval.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use gram_ir::Network;
use gram_latency_runner::Device;
use serde::Serialize;

use crate::Layout;
use crate::device_file::{DeviceFile, DeviceFileError};
use crate::fit::{Fit, Terms};
use crate::fuse::fuse;
use crate::kernel::Kernel;
use crate::regressor::{Estimate, Regressors};

/// Predicts the median latency of networks on one device.
///
/// Made from a [`DeviceFile`] that was fitted. Predicting takes microseconds per network; it may be called from many threads.
#[derive(Debug)]
pub struct Predictor {
    device: Device,
    layout: Layout,
    fit: Fit,
    table: BTreeMap<Kernel, f64>,
    regressors: Regressors,
    /// Estimates of kernels that are not in the table, as far as they were asked for.
    estimates: RwLock<BTreeMap<Kernel, Option<Estimate>>>,
}

/// A predicted latency: the median of many forward passes at batch 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Milliseconds.
    pub ms: f64,
    /// Lower end of the 90 % interval, in milliseconds.
    pub low: f64,
    /// Upper end of the 90 % interval, in milliseconds.
    pub high: f64,
    /// Kernels of the network.
    pub n_kernels: u32,
    /// Those of them that are not in the device's table, whose times are estimates.
    pub n_estimated: u32,
}

/// Why a latency cannot be predicted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// The device file.
    #[error(transparent)]
    File(#[from] DeviceFileError),
    /// The device file holds measurements only.
    #[error("the device file was not fitted yet; run `gram latency fit` on it")]
    NotFitted,
    /// An operator of which nothing was measured.
    #[error(
        "the device's table has no kernel like `{kernel}`; profile the device with a space that has it: gram latency profile --space SPACE"
    )]
    MissingOperator {
        /// The kernel.
        kernel: Box<Kernel>,
    },
}

impl Predictor {
    /// The predictor of a device file.
    ///
    /// # Errors
    /// [`PredictError::NotFitted`].
    pub fn new(file: &DeviceFile) -> Result<Self, PredictError> {
        let fit = file.fit.clone().ok_or(PredictError::NotFitted)?;
        let table: BTreeMap<Kernel, f64> = file.kernels.iter().map(|(&kernel, time)| (kernel, time.us)).collect();
        let regressors = Regressors::fit(&table);
        let (device, layout, estimates) = (file.device.clone(), file.layout, RwLock::default());
        Ok(Self { device, layout, fit, table, regressors, estimates })
    }

    /// The predictor of a device file on disk.
    ///
    /// # Errors
    /// [`PredictError`] if the file is unusable or was not fitted.
    pub fn open(path: &Path) -> Result<Self, PredictError> {
        Self::new(&DeviceFile::read(path)?)
    }

    /// The device that latencies are predicted for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What was fitted.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// Predicted latency of a network.
    ///
    /// # Errors
    /// [`PredictError::MissingOperator`] if the network has an operator of which the device's table has nothing.
    pub fn predict(&self, network: &Network) -> Result<Prediction, PredictError> {
        let mut terms = Terms::default();
        let fused = fuse(network, self.layout);
        fused.kernels.iter().try_for_each(|placed| self.add(&mut terms, &placed.kernel, 1))?;
        Ok(self.prediction(&terms, fused.kernels.len() as u32))
    }

    /// Predicted latency of a network whose kernels, and how often each occurs, are known.
    ///
    /// # Errors
    /// As [`Self::predict`].
    pub fn predict_kernels(&self, kernels: &BTreeMap<Kernel, u32>) -> Result<Prediction, PredictError> {
        let mut terms = Terms::default();
        kernels.iter().try_for_each(|(kernel, &count)| self.add(&mut terms, kernel, count))?;
        Ok(self.prediction(&terms, kernels.values().sum()))
    }

    fn add(&self, terms: &mut Terms, kernel: &Kernel, count: u32) -> Result<(), PredictError> {
        if let Some(&us) = self.table.get(kernel) {
            terms.add(kernel, count, us, 0.0);
            return Ok(());
        }
        let estimate = self.estimate(kernel);
        let estimate = estimate.ok_or_else(|| PredictError::MissingOperator { kernel: Box::new(*kernel) })?;
        terms.add(kernel, count, estimate.us, estimate.log_sd);
        Ok(())
    }

    fn estimate(&self, kernel: &Kernel) -> Option<Estimate> {
        let known = self.estimates.read().unwrap_or_else(PoisonError::into_inner).get(kernel).copied();
        known.unwrap_or_else(|| {
            let estimate = self.regressors.estimate(kernel);
            self.estimates.write().unwrap_or_else(PoisonError::into_inner).insert(*kernel, estimate);
            estimate
        })
    }

    fn prediction(&self, terms: &Terms, n_kernels: u32) -> Prediction {
        let (us, half) = self.fit.predict(terms);
        let ms = us / 1e3;
        let [low, high] = [(ms * (1.0 - half)).max(0.0), ms * (1.0 + half)];
        Prediction { ms, low, high, n_kernels, n_estimated: terms.n_estimated }
    }
}
