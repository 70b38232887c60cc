//! Few-shot transfer on tables of measured latencies: how well a device is known after ten measurements, given other devices.
//!
//! Gaussian processes over architectures: two are alike if other devices take alike long for both, if they have alike many MACs, and if
//! they agree in their decisions. The linear part is ridge regression on the latencies of the other devices: the pool of known devices
//! is the prior (ALGORITHMS 4.2, F2). Processes that believe more or less in the other devices, and more or less noise, are averaged by
//! how likely they make the measurements; those that expect less time for more MACs are left out. Nothing in it is trained by gradients.

mod table;

use rand::seq::index;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::linalg::{Cholesky, dot};
use crate::metrics::spearman;
pub use table::{LatencyTable, TableError};

/// How transfer is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TransferConfig {
    /// Architectures measured on the held-out device.
    pub samples: usize,
    /// Repetitions with other samples.
    pub draws: usize,
    /// Seed of the samples.
    pub seed: u64,
    /// How samples are chosen.
    pub choice: SampleChoice,
    /// Most architectures that predictions are compared on, spread evenly over the table.
    pub evaluated: usize,
}

/// How the samples on a new device are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleChoice {
    /// Uniformly, as in published comparisons.
    Random,
    /// Far from each other as the known devices see them (k-means++ seeding), as one would in practice.
    Spread,
}

/// Transfer to one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceTransfer {
    /// The held-out device.
    pub device: String,
    /// Devices that were known: all of other hardware.
    pub known_devices: usize,
    /// Mean of Spearman's rank correlation over draws.
    pub spearman: f64,
    /// Smallest of the draws.
    pub worst_spearman: f64,
    /// Mean over draws of the mean of `|predicted − measured| / measured`.
    pub mape: f64,
    /// Rank correlation of the MACs alone.
    pub macs_spearman: f64,
}

/// Transfer to every device of a table in turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransferReport {
    /// How it was evaluated.
    pub config: TransferConfig,
    /// Each device.
    pub devices: Vec<DeviceTransfer>,
    /// Mean rank correlation over devices.
    pub mean_spearman: f64,
    /// Mean rank correlation of the MACs alone.
    pub mean_macs_spearman: f64,
    /// Devices on which the MACs alone rank better.
    pub below_macs: Vec<String>,
}

/// Holds out each device of the table in turn.
///
/// Hardware counts as one device whatever the batch size: a GPU at another batch size is no known device.
pub fn transfer(table: &LatencyTable, config: TransferConfig) -> TransferReport {
    let indices: Vec<usize> = (0..table.devices().len()).collect();
    let devices: Vec<DeviceTransfer> =
        indices.into_par_iter().map(|target| transfer_to(table, target, config)).collect();
    let mean = |of: fn(&DeviceTransfer) -> f64| devices.iter().map(of).sum::<f64>() / devices.len() as f64;
    let below = devices.iter().filter(|device| device.spearman < device.macs_spearman);
    TransferReport {
        config,
        mean_spearman: mean(|device| device.spearman),
        mean_macs_spearman: mean(|device| device.macs_spearman),
        below_macs: below.map(|device| device.device.clone()).collect(),
        devices,
    }
}

fn transfer_to(table: &LatencyTable, target: usize, config: TransferConfig) -> DeviceTransfer {
    let known: Vec<usize> =
        (0..table.devices().len()).filter(|&device| table.hardware(device) != table.hardware(target)).collect();
    let prior = Prior::new(table, &known);
    let n_rows = table.n_rows();
    let step = n_rows.div_ceil(config.evaluated.max(1)).max(1);
    let rows: Vec<usize> = (0..n_rows).step_by(step).collect();
    let latencies = table.latencies(target);
    let measured: Vec<f64> = rows.iter().map(|&row| latencies[row]).collect();
    let mut correlations = Vec::new();
    let mut errors = Vec::new();
    for draw in 0..config.draws {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream((target * config.draws + draw) as u64);
        let samples = prior.choose(config.samples.min(n_rows), config.choice, &mut rng);
        let seen: Vec<(usize, f64)> = samples.into_iter().map(|row| (row, latencies[row])).collect();
        let posterior = Posterior::new(&prior, &seen);
        let predicted: Vec<f64> = rows.iter().map(|&row| posterior.predict(row)).collect();
        correlations.push(spearman(&predicted, &measured));
        let off = predicted.iter().zip(&measured).map(|(predicted, measured)| (predicted / measured - 1.0).abs());
        errors.push(off.sum::<f64>() / rows.len() as f64);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let macs: Vec<f64> = rows.iter().map(|&row| table.macs()[row]).collect();
    DeviceTransfer {
        device: table.devices()[target].clone(),
        known_devices: known.len(),
        spearman: mean(&correlations),
        worst_spearman: correlations.iter().copied().fold(f64::INFINITY, f64::min),
        mape: mean(&errors),
        macs_spearman: spearman(&macs, &measured),
    }
}

/// Weights of what makes architectures alike \[ours\].
#[derive(Clone, Copy)]
struct View {
    /// Latencies on known devices, linearly.
    linear: f64,
    /// Latencies on known devices, where they are near each other.
    near: f64,
    /// Shared decisions.
    decisions: f64,
    /// MACs, linearly.
    macs: f64,
}

/// From full belief in the known devices to MACs alone.
const VIEWS: [View; 4] = [
    View { linear: 1.0, near: 0.3, decisions: 0.1, macs: 0.2 },
    View { linear: 0.1, near: 0.03, decisions: 0.01, macs: 1.0 },
    View { linear: 0.03, near: 0.01, decisions: 0.003, macs: 1.0 },
    View { linear: 0.0, near: 0.0, decisions: 0.0, macs: 1.0 },
];
/// Variances of the noise, relative to that of the signal.
const NOISES: [f64; 5] = [0.03, 0.1, 0.3, 1.0, 3.0];

/// What known devices say about architectures.
struct Prior<'a> {
    table: &'a LatencyTable,
    /// Per row the standardised log-latencies on known devices, over the root of their number.
    points: Vec<Vec<f64>>,
    /// Per row the standardised log of its MACs.
    macs: Vec<f64>,
}

impl<'a> Prior<'a> {
    fn new(table: &'a LatencyTable, known: &[usize]) -> Self {
        let columns: Vec<Vec<f64>> = known.iter().map(|&device| standardised_log(table.latencies(device))).collect();
        let macs = standardised_log(table.macs());
        let scale = 1.0 / (columns.len() as f64).sqrt();
        let point = |row: usize| columns.iter().map(|column| scale * column[row]).collect();
        Self { table, points: (0..table.n_rows()).map(point).collect(), macs }
    }

    /// How alike two rows are in each view.
    fn similarities(&self, a: usize, b: usize) -> [f64; VIEWS.len()] {
        let (x, y) = (&self.points[a], &self.points[b]);
        let linear = dot(x, y);
        let distance: f64 = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
        let (near, decisions) = ((-0.5 * distance).exp(), self.table.agreement(a, b));
        let macs = self.macs[a] * self.macs[b];
        VIEWS.map(|view| view.linear * linear + view.near * near + view.decisions * decisions + view.macs * macs)
    }

    /// Whether what is predicted from these rows grows with the MACs, over rows spread over the table.
    fn grows(&self, rows: &[usize], view: usize, weights: &[f64]) -> bool {
        let step = self.points.len().div_ceil(100);
        let predicted = |row: usize| {
            let terms = rows.iter().zip(weights).map(|(&seen, weight)| weight * self.similarities(row, seen)[view]);
            terms.sum::<f64>()
        };
        let each = (0..self.points.len()).step_by(step).map(|row| (self.macs[row], predicted(row)));
        let (mut product, mut macs, mut sum, mut n) = (0.0, 0.0, 0.0, 0.0);
        for (x, y) in each {
            (product, macs, sum, n) = (product + x * y, macs + x, sum + y, n + 1.0);
        }
        product - macs * sum / n > 0.0
    }

    fn choose(&self, samples: usize, choice: SampleChoice, rng: &mut impl Rng) -> Vec<usize> {
        let n_rows = self.points.len();
        match choice {
            SampleChoice::Random => index::sample(rng, n_rows, samples).into_vec(),
            SampleChoice::Spread => {
                let candidates = index::sample(rng, n_rows, n_rows.min(40 * samples)).into_vec();
                self.spread(&candidates, samples, rng)
            }
        }
    }

    /// k-means++ seeding: each next one with a probability that grows with the squared distance to those chosen.
    fn spread(&self, candidates: &[usize], samples: usize, rng: &mut impl Rng) -> Vec<usize> {
        let mut chosen = vec![candidates[rng.random_range(0..candidates.len())]];
        let mut distances = vec![f64::INFINITY; candidates.len()];
        while chosen.len() < samples {
            let last = &self.points[chosen[chosen.len() - 1]];
            for (distance, &candidate) in distances.iter_mut().zip(candidates) {
                let point = &self.points[candidate];
                let to_last: f64 = point.iter().zip(last).map(|(x, y)| (x - y) * (x - y)).sum();
                *distance = distance.min(to_last);
            }
            let mut left = rng.random::<f64>() * distances.iter().sum::<f64>();
            let place = distances.iter().position(|distance| {
                left -= distance;
                left < 0.0
            });
            chosen.push(candidates[place.unwrap_or(candidates.len() - 1)]);
        }
        chosen
    }
}

/// What is known of a device after some measurements.
struct Posterior<'a> {
    prior: &'a Prior<'a>,
    rows: Vec<usize>,
    /// Per view and measurement, summed over noises.
    weights: [Vec<f64>; VIEWS.len()],
    /// How the logarithm follows that of the MACs where no process is left.
    macs_slope: f64,
    mean: f64,
    scale: f64,
}

impl<'a> Posterior<'a> {
    fn new(prior: &'a Prior<'a>, seen: &[(usize, f64)]) -> Self {
        let rows: Vec<usize> = seen.iter().map(|(row, _)| *row).collect();
        let latencies: Vec<f64> = seen.iter().map(|(_, latency)| *latency).collect();
        let (logs, mean, scale) = log_moments(&latencies);
        let targets: Vec<f64> = logs.iter().map(|log| (log - mean) / scale).collect();
        let n = rows.len();
        let alike: Vec<[f64; VIEWS.len()]> =
            (0..n * n).map(|place| prior.similarities(rows[place / n], rows[place % n])).collect();
        let mut members: Vec<(usize, f64, Vec<f64>)> = Vec::new();
        for view in 0..VIEWS.len() {
            for noise in NOISES {
                let mut matrix: Vec<f64> = alike.iter().map(|alike| alike[view]).collect();
                (0..n).for_each(|i| matrix[i * n + i] += noise);
                let Some(factor) = Cholesky::new(n, &matrix) else { continue };
                let weights = factor.solve(&targets);
                // The marginal likelihood with the likeliest variance of the signal.
                let signal = (dot(&targets, &weights) / n as f64).max(1e-9);
                let likelihood = -0.5 * (n as f64 * signal.ln() + factor.log_determinant());
                members.push((view, likelihood, weights));
            }
        }
        // Ten noisy measurements can say otherwise, but no device gets faster by more work.
        members.retain(|(view, _, weights)| prior.grows(&rows, *view, weights));
        let macs_slope = if members.is_empty() { 0.5 } else { 0.0 };
        let likeliest = members.iter().map(|(_, likelihood, _)| *likelihood).fold(f64::NEG_INFINITY, f64::max);
        let share = |likelihood: f64| (likelihood - likeliest).exp();
        let total: f64 = members.iter().map(|(_, likelihood, _)| share(*likelihood)).sum();
        let mut weights: [Vec<f64>; VIEWS.len()] = std::array::from_fn(|_| vec![0.0; n]);
        for (view, likelihood, own) in &members {
            weights[*view].iter_mut().zip(own).for_each(|(sum, weight)| *sum += share(*likelihood) / total * weight);
        }
        Self { prior, rows, weights, macs_slope, mean, scale }
    }

    /// Predicted latency.
    fn predict(&self, row: usize) -> f64 {
        let mut standardised = self.macs_slope * self.prior.macs[row];
        for (i, &seen) in self.rows.iter().enumerate() {
            let alike = self.prior.similarities(row, seen);
            standardised += alike.iter().zip(&self.weights).map(|(alike, weights)| alike * weights[i]).sum::<f64>();
        }
        (self.mean + self.scale * standardised).exp()
    }
}

/// Of latencies that may be next to nothing (a network without a path takes no time): logarithms, their mean and standard deviation;
/// what is below 3 % of the median counts as that.
fn log_moments(values: &[f64]) -> (Vec<f64>, f64, f64) {
    let floor = (0.03 * gram_latency_runner::stats::median(values)).max(1e-9);
    let logs: Vec<f64> = values.iter().map(|value| value.max(floor).ln()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / logs.len() as f64;
    (logs, mean, variance.sqrt().max(1e-9))
}

fn standardised_log(values: &[f64]) -> Vec<f64> {
    let (logs, mean, scale) = log_moments(values);
    logs.iter().map(|log| (log - mean) / scale).collect()
}
