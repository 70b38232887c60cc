//! Predictors to compare with, fitted to the same networks: what a number means is seen beside what is simpler.

use std::collections::BTreeMap;

use crate::device_file::NetworkTime;
use crate::kernel::{Kernel, KernelOp};
use crate::linalg::dot;
use crate::process::Process;

/// Multiply–accumulates times a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MacsTimesConstant {
    us_per_mac: f64,
}

impl MacsTimesConstant {
    /// The constant with the least squared relative error.
    pub fn fit(networks: &[NetworkTime]) -> Self {
        let rows: Vec<f64> = networks.iter().map(|network| network.macs as f64 / network.p50_us).collect();
        Self { us_per_mac: rows.iter().sum::<f64>() / dot(&rows, &rows) }
    }

    /// Predicted microseconds.
    pub fn predict(&self, network: &NetworkTime) -> f64 {
        self.us_per_mac * network.macs as f64
    }
}

/// Features of the network as a whole, from which a Gaussian process predicts the logarithm of the time.
#[derive(Clone, Debug)]
pub struct WholeNetwork {
    features: fn(&NetworkTime) -> [f64; N_FEATURES],
    mean: f64,
    process: Process<N_FEATURES>,
}

const N_FEATURES: usize = 8;

impl WholeNetwork {
    /// Totals: MACs, maps, weights and numbers of kernels of the whole network, in logarithms.
    pub fn flat(networks: &[NetworkTime]) -> Self {
        Self::fit(networks, |network| totals(network).map(|total| (1.0 + total).log2()))
    }

    /// Means over kernels, as graph networks with a mean read-out have them, in logarithms.
    pub fn mean_readout(networks: &[NetworkTime]) -> Self {
        Self::fit(networks, |network| {
            let n_kernels = f64::from(network.kernels.values().sum::<u32>());
            totals(network).map(|total| (1.0 + 16.0 * total / n_kernels).log2())
        })
    }

    fn fit(networks: &[NetworkTime], features: fn(&NetworkTime) -> [f64; N_FEATURES]) -> Self {
        let logs: Vec<f64> = networks.iter().map(|network| network.p50_us.ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let targets: Vec<f64> = logs.iter().map(|log| log - mean).collect();
        Self { features, mean, process: Process::fit(networks.iter().map(features).collect(), &targets) }
    }

    /// Predicted microseconds.
    pub fn predict(&self, network: &NetworkTime) -> f64 {
        (self.mean + self.process.at(&(self.features)(network)).0).exp()
    }
}

fn totals(network: &NetworkTime) -> [f64; N_FEATURES] {
    let sum = |of: &dyn Fn(&Kernel) -> u64| total(&network.kernels, of);
    let count = |op: KernelOp| sum(&|kernel| u64::from(kernel.op == op));
    [
        network.macs as f64,
        sum(&|kernel| kernel.elements_in() + kernel.elements_out()),
        sum(&|kernel| kernel.weights()),
        sum(&|_| 1),
        count(KernelOp::Conv),
        count(KernelOp::DepthwiseConv),
        count(KernelOp::Concat),
        count(KernelOp::ReorderInput) + count(KernelOp::ReorderOutput),
    ]
}

fn total(kernels: &BTreeMap<Kernel, u32>, of: &dyn Fn(&Kernel) -> u64) -> f64 {
    kernels.iter().map(|(kernel, &count)| of(kernel) as f64 * f64::from(count)).sum()
}
