//! A new device from few measurements: the table of a known device, and what translates its times (ALGORITHMS 4.2, F2).

use std::collections::BTreeMap;

use gram_ir::Network;
use gram_latency_runner::stats::median;
use gram_latency_runner::{Device, Plan, References};

use crate::FORMAT_VERSION;
use crate::device_file::{DeviceFile, NetworkTime};
use crate::family::{Family, FamilyError};
use crate::fit::{FitError, Prior, fit_from};
use crate::fuse::fuse;
use crate::kernel::Kernel;
use crate::predictor::{PredictError, Predictor};
use crate::profile::counted;
use crate::regressor::Regressors;

/// Why a device cannot be adapted to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdaptError {
    /// No known device was given.
    #[error("adapting needs one known device or more")]
    NoKnownDevice,
    /// A known device.
    #[error("known device `{device}`: {source}")]
    Known {
        /// The device.
        device: String,
        /// What is wrong with it.
        source: PredictError,
    },
    /// Too few networks were measured, or one is not known.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A family has no networks.
    #[error(transparent)]
    Family(#[from] FamilyError),
}

/// Networks to measure on the new device: of `candidates` drawn ones those whose predicted latencies are spread most evenly, from the
/// fastest to the slowest.
///
/// # Errors
/// [`AdaptError`] if a family has no networks or the known device cannot predict them.
pub fn adaptation_networks(
    known: &DeviceFile,
    families: &[Family],
    samples: usize,
    seed: u64,
) -> Result<Vec<(String, Network)>, AdaptError> {
    let wrong = |source| AdaptError::Known { device: known.device.to_string(), source };
    let predictor = Predictor::new(known).map_err(wrong)?;
    let mut drawn = Vec::new();
    for family in families {
        for index in 0..(20 * samples as u64).div_ceil(families.len() as u64) {
            let network = family.network(seed, index)?;
            let ms = predictor.predict(&network).map_err(wrong)?.ms;
            drawn.push((ms, format!("{}/{seed}/{index}", family.name), network));
        }
    }
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
    let last = drawn.len().saturating_sub(1);
    let mut places: Vec<usize> = (0..samples).map(|i| i * last / samples.saturating_sub(1).max(1)).collect();
    places.dedup();
    let mut chosen: Vec<Option<_>> = drawn.into_iter().map(Some).collect();
    let taken = places.into_iter().filter_map(|place| chosen.get_mut(place)?.take());
    Ok(taken.map(|(_, name, network)| (name, network)).collect())
}

/// What was measured on the new device.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDevice {
    /// The device.
    pub device: Device,
    /// How it was measured.
    pub plan: Plan,
    /// Times of the reference networks.
    pub references: References,
    /// Measured networks with their names and median and fastest passes, in microseconds.
    pub networks: Vec<(String, Network, [f64; 2])>,
}

/// The device file of a new device: the table of that known device whose translation leaves the smallest residuals.
///
/// The prior of the translation is the known device's fit, slowed down or sped up as a whole; 8 networks or more settle it.
/// # Errors
/// [`AdaptError`].
pub fn adapt(known: &[DeviceFile], new: &NewDevice) -> Result<DeviceFile, AdaptError> {
    let mut best: Option<DeviceFile> = None;
    for file in known {
        let adapted = adapt_one(file, new)?;
        let sd = |file: &DeviceFile| file.fit.as_ref().map_or(f64::INFINITY, |fit| fit.residual_sd);
        if best.as_ref().is_none_or(|best| sd(&adapted) < sd(best)) {
            best = Some(adapted);
        }
    }
    best.ok_or(AdaptError::NoKnownDevice)
}

fn adapt_one(known: &DeviceFile, new: &NewDevice) -> Result<DeviceFile, AdaptError> {
    let wrong = |source| AdaptError::Known { device: known.device.to_string(), source };
    let predictor = Predictor::new(known).map_err(wrong)?;
    // Kernels are those of the known device's engine, whatever the new one fuses.
    let time = |(name, network, [p50_us, min_us]): &(String, Network, [f64; 2])| NetworkTime {
        name: name.clone(),
        macs: network.cost().macs.0,
        kernels: counted(&fuse(network, known.layout)),
        min_us: *min_us,
        p50_us: *p50_us,
    };
    let networks: Vec<NetworkTime> = new.networks.iter().map(time).collect();
    let ratio = |network: &NetworkTime| {
        let predicted = predictor.predict_kernels(&network.kernels).map_err(wrong)?;
        Ok(network.p50_us / (1e3 * predicted.ms))
    };
    let ratios = networks.iter().map(ratio).collect::<Result<Vec<f64>, AdaptError>>()?;
    let times: BTreeMap<Kernel, f64> = known.kernels.iter().map(|(&kernel, time)| (kernel, time.us)).collect();
    let prior = Prior::translated(predictor.fit(), median(&ratios));
    let fit = fit_from(&prior, &known.kernels, &Regressors::fit(&times), &networks)?;
    Ok(DeviceFile {
        format_version: FORMAT_VERSION,
        device: new.device.clone(),
        layout: known.layout,
        plan: new.plan.clone(),
        families: known.families.clone(),
        borrowed_from: Some(known.borrowed_from.clone().unwrap_or_else(|| known.device.clone())),
        reference_us: new.references.us,
        large_reference_us: new.references.large_us,
        kernels: known.kernels.clone(),
        networks,
        refused: BTreeMap::new(),
        fit: Some(fit),
    })
}
