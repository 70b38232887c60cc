//! How good a device's predictor is on networks that it has not seen, beside simpler ones.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::baseline::{MacsTimesConstant, WholeNetwork};
use crate::device_file::{DeviceFile, NetworkTime};
use crate::metrics::Accuracy;
use crate::predictor::{PredictError, Predictor};

/// Predictions of one family of held-out networks against measurements.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FamilyReport {
    /// The family: what stands before the first `/` of the networks' names.
    pub family: String,
    /// Median of the measured latencies, in milliseconds.
    pub median_ms: f64,
    /// The predictor.
    pub accuracy: Accuracy,
    /// Share of networks whose latency lies within the 90 % interval.
    pub coverage: f64,
    /// Mean half width of the interval, relative to the prediction.
    pub half_width: f64,
    /// Share of kernels whose times are estimates.
    pub estimated_kernels: f64,
    /// Multiply–accumulates times a constant.
    pub macs_times_constant: Accuracy,
    /// A Gaussian process on totals of the whole network.
    pub flat: Accuracy,
    /// A Gaussian process on means over kernels.
    pub mean_readout: Accuracy,
}

/// Reports for each family among held-out networks, in order of names; the simpler predictors are fitted to the same networks as the
/// device's own.
///
/// # Errors
/// [`PredictError`] if the device was not fitted or has nothing like a kernel of a network.
pub fn check(file: &DeviceFile, held_out: &[NetworkTime]) -> Result<Vec<FamilyReport>, PredictError> {
    let predictor = Predictor::new(file)?;
    let mut families: BTreeMap<&str, Vec<&NetworkTime>> = BTreeMap::new();
    for network in held_out {
        families.entry(family_of(&network.name)).or_default().push(network);
    }
    families.into_iter().map(|(family, networks)| report(file, &predictor, family, &networks)).collect()
}

pub(crate) fn family_of(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

fn report(
    file: &DeviceFile,
    predictor: &Predictor,
    family: &str,
    networks: &[&NetworkTime],
) -> Result<FamilyReport, PredictError> {
    let measured: Vec<f64> = networks.iter().map(|network| network.p50_us / 1e3).collect();
    let predictions = networks.iter().map(|network| predictor.predict_kernels(&network.kernels));
    let predictions = predictions.collect::<Result<Vec<_>, _>>()?;
    let accuracy = |predict: &dyn Fn(&NetworkTime) -> f64| {
        let predicted: Vec<f64> = networks.iter().map(|network| predict(network) / 1e3).collect();
        Accuracy::of(&predicted, &measured)
    };
    let n = networks.len() as f64;
    let covered = predictions.iter().zip(&measured).filter(|(p, ms)| (p.low..=p.high).contains(ms)).count();
    let (estimated, kernels) =
        predictions.iter().fold((0, 0), |(estimated, all), p| (estimated + p.n_estimated, all + p.n_kernels));
    let (macs, flat) = (MacsTimesConstant::fit(&file.networks), WholeNetwork::flat(&file.networks));
    let mean_readout = WholeNetwork::mean_readout(&file.networks);
    let predicted: Vec<f64> = predictions.iter().map(|prediction| prediction.ms).collect();
    Ok(FamilyReport {
        family: family.into(),
        median_ms: gram_latency_runner::stats::median(&measured),
        accuracy: Accuracy::of(&predicted, &measured),
        coverage: covered as f64 / n,
        half_width: predictions.iter().map(|p| 0.5 * (p.high - p.low) / p.ms).sum::<f64>() / n,
        estimated_kernels: f64::from(estimated) / f64::from(kernels.max(1)),
        macs_times_constant: accuracy(&|network| macs.predict(network)),
        flat: accuracy(&|network| flat.predict(network)),
        mean_readout: accuracy(&|network| mean_readout.predict(network)),
    })
}
