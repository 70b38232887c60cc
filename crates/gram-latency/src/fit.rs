//! Fitting: from the times of kernels and a few whole networks to what predicts other networks.
//!
//! `T = a + Σ scale(kernel) · time(kernel) + c · Σ reorders + d · number of kernels + e · M · (1 − exp(−t / 5 ms))`. The sum is what an engine
//! does that runs its kernels one after the other, so the fit extrapolates to larger networks (ALGORITHMS 4.2, F1). `d` is negative: it takes
//! back what the engine's profiler adds to every kernel.
//!
//! The last term, \[ours\], is what shared caches cost; see `eviction.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::device_file::{DeviceFile, KernelTime, NetworkTime};
use crate::eviction;
use crate::kernel::{Kernel, KernelOp};
use crate::linalg::{Cholesky, dot};
use crate::regressor::Regressors;

/// What was fitted to whole networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Microseconds that every forward pass takes besides its kernels.
    pub per_pass_us: f64,
    /// Factor of convolutions of single pixels.
    pub pointwise_scale: f64,
    /// Factor of other dense convolutions.
    pub dense_scale: f64,
    /// Factor of depthwise convolutions.
    pub depthwise_scale: f64,
    /// Factor of all else but reorders.
    pub other_scale: f64,
    /// Factor of reorders.
    pub reorder_scale: f64,
    /// Microseconds that every kernel takes besides its time in the table; negative where the engine's profiler adds some.
    pub per_kernel_us: f64,
    /// Microseconds for a megabyte of weights and outputs that has left the caches since the last pass.
    pub eviction_us_per_mb: f64,
    /// Covariance of the eight terms above, in their order, in microseconds: how well the networks settled them.
    pub covariance: [[f64; TERMS]; TERMS],
    /// Standard deviation of measured over predicted time of networks whose kernels are all in the table.
    pub residual_sd: f64,
    /// Half the width of the 90 % interval, in standard deviations.
    pub interval_factor: f64,
    /// Networks that it was fitted to.
    pub n_networks: usize,
}

/// Share of networks whose time lies within the interval.
pub const COVERAGE: f64 = 0.9;

/// Why nothing can be fitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// Too few networks.
    #[error("{found} networks were measured; fitting needs {} or more", MIN_NETWORKS)]
    TooFew {
        /// Their number.
        found: usize,
    },
    /// A kernel of a measured network of which no kind was measured.
    #[error("network `{network}`: no time of `{kernel}` nor of any kernel like it")]
    Unknown {
        /// The network.
        network: String,
        /// Its kernel.
        kernel: Box<Kernel>,
    },
}

/// Fewest networks that can be fitted to.
pub const MIN_NETWORKS: usize = 8;

/// Number of terms of the sum.
const TERMS: usize = 8;

/// What is expected of the terms before any network was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prior {
    mean: [f64; TERMS],
    sd: [f64; TERMS],
    /// Standard deviation of a factor that all kernels have in common.
    common_sd: f64,
}

impl Prior {
    /// Of a device with a table of its own \[ours\]: kernels take about what the table says.
    const OWN_TABLE: Self = Self {
        mean: [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
        sd: [20.0, 0.05, 0.05, 0.05, 0.05, 0.3, 3.0, 30.0],
        common_sd: 0.3,
    };

    /// Of a device that takes about `ratio` times as long as the one that `fit` is of \[ours\]: kinds of kernels may differ by a
    /// quarter, and all together by as much.
    pub(crate) fn translated(fit: &Fit, ratio: f64) -> Self {
        let mean = fit.terms().map(|term| ratio * term);
        let [per_pass, .., reorder, per_kernel, eviction] = mean;
        let factor = 0.25 * ratio;
        let sd = [
            10.0 * ratio + 0.5 * per_pass.abs(),
            factor,
            factor,
            factor,
            factor,
            0.5 * reorder.abs(),
            ratio + 0.5 * per_kernel.abs(),
            10.0 * ratio + 0.5 * eviction.abs(),
        ];
        Self { mean, sd, common_sd: factor }
    }
}

/// Relative residuals below this are not believed: networks do not repeat better.
const MIN_RESIDUAL_SD: f64 = 0.004;
/// Standard deviation of what a whole session is off by after it was scaled to the reference: measured, `docs/latency.md`.
const SESSION_SD: f64 = 0.005;
/// Standard deviation of what evictions cost in another session, scaled to the large reference, as a share of their cost: chosen so that
/// intervals hold about 90 % of chains on a shared machine, `docs/latency.md`.
const EVICTION_SD: f64 = 0.07;
/// The standard normal's quantile for [`COVERAGE`].
const NORMAL_QUANTILE: f64 = 1.645;

/// What the terms of a network are made of, and the variance of its time, in µs², that comes from kernels that are not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// All terms but the last.
    sums: [f64; TERMS - 1],
    /// Of weights and outputs.
    megabytes: f64,
    variance: f64,
    pub(crate) n_estimated: u32,
}

impl Terms {
    /// Adds `count` kernels of `us` each; `log_sd` is 0 if it was measured.
    pub(crate) fn add(&mut self, kernel: &Kernel, count: u32, us: f64, log_sd: f64) {
        let count_f64 = f64::from(count);
        self.sums[0] = 1.0;
        self.sums[term_of(kernel)] += count_f64 * us;
        self.sums[6] += count_f64;
        self.megabytes += count_f64 * eviction::megabytes(kernel);
        self.variance += (count_f64 * us * log_sd).powi(2);
        self.n_estimated += if log_sd > 0.0 { count } else { 0 };
    }

    /// Microseconds of all kernels, by the table.
    fn kernels_us(&self) -> f64 {
        self.sums[1..6].iter().sum()
    }

    /// Megabytes of weights and outputs that are expected to have left a shared cache.
    pub(crate) fn evicted_mb(&self) -> f64 {
        eviction::evicted_mb(self.megabytes, self.kernels_us())
    }

    fn values(&self) -> [f64; TERMS] {
        let [pass, pointwise, dense, depthwise, other, reorder, kernels] = self.sums;
        [pass, pointwise, dense, depthwise, other, reorder, kernels, self.evicted_mb()]
    }
}

fn term_of(kernel: &Kernel) -> usize {
    match kernel.op {
        KernelOp::Conv if kernel.kernel == 1 => 1,
        KernelOp::Conv => 2,
        KernelOp::DepthwiseConv => 3,
        KernelOp::ReorderInput | KernelOp::ReorderOutput => 5,
        _ => 4,
    }
}

impl Fit {
    fn terms(&self) -> [f64; TERMS] {
        [
            self.per_pass_us,
            self.pointwise_scale,
            self.dense_scale,
            self.depthwise_scale,
            self.other_scale,
            self.reorder_scale,
            self.per_kernel_us,
            self.eviction_us_per_mb,
        ]
    }

    /// Half the relative width of the 90 % interval of networks whose kernels are all in the table and that stay in the caches.
    pub fn half_width(&self) -> f64 {
        (self.interval_factor * self.residual_sd).hypot(NORMAL_QUANTILE * SESSION_SD)
    }

    /// Predicted time in microseconds and half the relative width of its interval.
    pub(crate) fn predict(&self, terms: &Terms) -> (f64, f64) {
        // A network takes some time, whatever was fitted far away from it.
        let floor = 0.1 * terms.kernels_us();
        let us = dot(&self.terms(), &terms.values()).max(floor).max(1e-3);
        let sd = relative_sd(self.residual_sd, terms, &self.covariance, us);
        let session_sd = SESSION_SD.hypot(EVICTION_SD * self.eviction_us_per_mb * terms.evicted_mb() / us);
        (us, (self.interval_factor * sd).hypot(NORMAL_QUANTILE * session_sd))
    }
}

/// Residuals, kernels whose times are estimates, and terms that the networks did not settle: the last is what grows where networks are
/// larger than those that were fitted to.
fn relative_sd(residual_sd: f64, terms: &Terms, covariance: &[[f64; TERMS]; TERMS], us: f64) -> f64 {
    let values = terms.values();
    let unsettled: f64 = covariance.iter().zip(&values).map(|(row, value)| value * dot(row, &values)).sum();
    (residual_sd.powi(2) + (terms.variance + unsettled.max(0.0)) / (us * us)).sqrt()
}

/// Fits the predictor to the device's own networks; what it predicts is the median pass.
///
/// The interval is conformal: residuals of networks that were left out, over their predicted standard deviation, at the 90 % quantile. A kernel
/// that only the network that is left out has counts as one that was not measured.
/// # Errors
/// [`FitError`] if there are too few networks, or one has a kernel of a kind that was not measured.
/// # Source
/// Normalised split-conformal intervals, Lei et al., [arXiv:1604.04173](https://arxiv.org/abs/1604.04173), section 5.2, with leaving one out
/// in place of a split; the prior on the terms is \[ours\].
pub fn fit(file: &DeviceFile) -> Result<Fit, FitError> {
    let times: BTreeMap<Kernel, f64> = file.kernels.iter().map(|(&kernel, time)| (kernel, time.us)).collect();
    fit_from(&Prior::OWN_TABLE, &file.kernels, &Regressors::fit(&times), &file.networks)
}

/// Fits to these networks, starting from `prior`.
pub(crate) fn fit_from(
    prior: &Prior,
    table: &BTreeMap<Kernel, KernelTime>,
    regressors: &Regressors,
    networks: &[NetworkTime],
) -> Result<Fit, FitError> {
    let n_networks = networks.len();
    if n_networks < MIN_NETWORKS {
        return Err(FitError::TooFew { found: n_networks });
    }
    let measured = networks.iter().map(|network| terms_of(table, regressors, network, false));
    let measured = measured.collect::<Result<Vec<Terms>, _>>()?;
    let left_out = networks.iter().map(|network| terms_of(table, regressors, network, true));
    let left_out = left_out.collect::<Result<Vec<Terms>, _>>()?;
    let us: Vec<f64> = networks.iter().map(|network| network.p50_us).collect();
    let rows: Vec<[f64; TERMS]> =
        measured.iter().zip(&us).map(|(terms, us)| terms.values().map(|value| value / us)).collect();
    let mut residual_sd = 0.01;
    for _ in 0..4 {
        let residuals: Vec<f64> =
            (0..n_networks).map(|i| 1.0 - dot(&posterior(prior, &rows, residual_sd, Some(i)).mean, &rows[i])).collect();
        residual_sd = (dot(&residuals, &residuals) / n_networks as f64).sqrt().max(MIN_RESIDUAL_SD);
    }
    let mut scores: Vec<f64> = (0..n_networks)
        .map(|i| {
            let Posterior { mean, covariance } = posterior(prior, &rows, residual_sd, Some(i));
            let predicted = dot(&mean, &left_out[i].values());
            (us[i] / predicted - 1.0).abs() / relative_sd(residual_sd, &left_out[i], &covariance, predicted)
        })
        .collect();
    scores.sort_by(f64::total_cmp);
    // The (n+1)·90 %-th smallest; with fewer than 9 networks the largest must do.
    let rank = ((n_networks + 1) as f64 * COVERAGE).ceil() as usize;
    let interval_factor = scores[rank.min(n_networks) - 1];
    let Posterior { mean, covariance } = posterior(prior, &rows, residual_sd, None);
    // In the order of `Fit::terms`.
    Ok(Fit {
        per_pass_us: mean[0],
        pointwise_scale: mean[1],
        dense_scale: mean[2],
        depthwise_scale: mean[3],
        other_scale: mean[4],
        reorder_scale: mean[5],
        per_kernel_us: mean[6],
        eviction_us_per_mb: mean[7],
        covariance,
        residual_sd,
        interval_factor,
        n_networks,
    })
}

/// The terms of a network; `alone`: as if it had not been profiled.
fn terms_of(
    table: &BTreeMap<Kernel, KernelTime>,
    regressors: &Regressors,
    network: &NetworkTime,
    alone: bool,
) -> Result<Terms, FitError> {
    let mut terms = Terms::default();
    for (kernel, &count) in &network.kernels {
        match table.get(kernel) {
            Some(time) if !(alone && time.networks == 1) => terms.add(kernel, count, time.us, 0.0),
            _ => {
                let unknown = || FitError::Unknown { network: network.name.clone(), kernel: Box::new(*kernel) };
                let estimate = regressors.estimate_without(kernel).ok_or_else(unknown)?;
                terms.add(kernel, count, estimate.us, estimate.log_sd);
            }
        }
    }
    Ok(terms)
}

/// What is known of the terms once networks were seen.
struct Posterior {
    mean: [f64; TERMS],
    covariance: [[f64; TERMS]; TERMS],
}

/// The terms given rows of `terms / time`, all of which should sum up to 1 with a standard deviation of `sd`.
fn posterior(prior: &Prior, rows: &[[f64; TERMS]], sd: f64, without: Option<usize>) -> Posterior {
    let (mut matrix, mut right) = prior.precision();
    let weight = 1.0 / (sd * sd);
    for (_, row) in rows.iter().enumerate().filter(|(i, _)| Some(*i) != without) {
        for i in 0..TERMS {
            right[i] += weight * row[i];
            (0..TERMS).for_each(|j| matrix[i * TERMS + j] += weight * row[i] * row[j]);
        }
    }
    let mut posterior = Posterior { mean: prior.mean, covariance: [[0.0; TERMS]; TERMS] };
    // The prior's precision makes the matrix positive definite.
    if let Some(factor) = Cholesky::new(TERMS, &matrix) {
        posterior.mean.copy_from_slice(&factor.solve(&right));
        for (i, row) in posterior.covariance.iter_mut().enumerate() {
            let mut unit = [0.0; TERMS];
            unit[i] = 1.0;
            row.copy_from_slice(&factor.solve(&unit));
        }
    }
    posterior
}

impl Prior {
    /// Precision, and precision times mean.
    fn precision(&self) -> ([f64; TERMS * TERMS], [f64; TERMS]) {
        let mut precision = [0.0; TERMS * TERMS];
        for i in 0..TERMS {
            precision[i * TERMS + i] = self.sd[i].powi(-2);
        }
        // The four factors of kernels share one: by Sherman and Morrison the inverse of own² I + common² 11ᵀ.
        let (own, common) = (self.sd[1].powi(2), self.common_sd.powi(2));
        let shared = common / (own * (own + 4.0 * common));
        for i in 1..5 {
            (1..5).for_each(|j| precision[i * TERMS + j] -= shared);
        }
        let mut right = [0.0; TERMS];
        for i in 0..TERMS {
            right[i] = dot(&precision[i * TERMS..(i + 1) * TERMS], &self.mean);
        }
        (precision, right)
    }
}
