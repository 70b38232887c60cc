//! Times of kernels that are not in the table: a roofline per group of operators, and a Gaussian process for what it misses.
//!
//! The roofline `o + MACs/r + bytes/b` is linear in what a kernel does, so it holds beyond what was measured (ALGORITHMS 4.2, F1); the
//! Gaussian process corrects it by a factor where similar kernels were measured, and says how sure it is.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::kernel::{Kernel, KernelOp};
use crate::linalg::{dot, non_negative};
use crate::process::Process;

/// Kernels that one roofline and one Gaussian process stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    op: KernelOp,
    /// Convolutions of single pixels are matrix products, others are not.
    is_pointwise: bool,
    blocked: bool,
}

impl Group {
    pub(crate) fn of(kernel: &Kernel) -> Self {
        // Windows are windows, whatever is done with them.
        let op = if kernel.op == KernelOp::AvgPool { KernelOp::MaxPool } else { kernel.op };
        let is_pointwise = op == KernelOp::Conv && kernel.kernel == 1;
        Self { op, is_pointwise, blocked: kernel.blocked }
    }
}

/// A predicted time, in microseconds, and the standard deviation of its logarithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) us: f64,
    pub(crate) log_sd: f64,
}

/// Regressors of all groups that were measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regressors {
    groups: BTreeMap<Group, Regressor>,
}

impl Regressors {
    /// Fits every group of a table of kernels and times in microseconds.
    pub(crate) fn fit(table: &BTreeMap<Kernel, f64>) -> Self {
        let mut samples: BTreeMap<Group, Vec<(Kernel, f64)>> = BTreeMap::new();
        for (&kernel, &us) in table {
            samples.entry(Group::of(&kernel)).or_default().push((kernel, us));
        }
        let groups: Vec<(Group, Vec<(Kernel, f64)>)> = samples.into_iter().collect();
        let fitted = groups.into_par_iter().map(|(group, samples)| (group, Regressor::fit(thinned(samples))));
        Self { groups: fitted.collect::<Vec<_>>().into_iter().collect() }
    }

    /// Time of a kernel; none if no kernel of its group was measured.
    pub(crate) fn estimate(&self, kernel: &Kernel) -> Option<Estimate> {
        Some(self.groups.get(&Group::of(kernel))?.estimate(kernel))
    }

    /// What would be estimated for a measured kernel, had it not been measured.
    pub(crate) fn estimate_without(&self, kernel: &Kernel) -> Option<Estimate> {
        let group = self.groups.get(&Group::of(kernel))?;
        let own = group.kernels.binary_search(kernel).ok();
        own.map_or_else(|| Some(group.estimate(kernel)), |place| group.left_out.get(place).copied())
    }
}

/// Larger groups are thinned out, so that fitting stays a matter of seconds.
const MAX_SAMPLES: usize = 900;

/// Every so many-th of too many samples; they are sorted by operator and shape, so what is left is spread out.
fn thinned(samples: Vec<(Kernel, f64)>) -> Vec<(Kernel, f64)> {
    let n = samples.len();
    let kept = |i: usize| i * MAX_SAMPLES / n != (i + 1) * MAX_SAMPLES / n || n <= MAX_SAMPLES;
    samples.into_iter().enumerate().filter(|&(i, _)| kept(i)).map(|(_, sample)| sample).collect()
}

#[derive(Clone, Debug, PartialEq)]
struct Regressor {
    /// Factors of [`work`], not negative.
    roofline: [f64; N_WORK],
    /// Sorted.
    kernels: Vec<Kernel>,
    /// Mean of the logarithms of time over roofline.
    mean: f64,
    process: Process<N_FEATURES>,
    /// Per kernel what would be estimated without it.
    left_out: Vec<Estimate>,
}

/// No estimate claims to be better than this: measurements repeat to about 1 %.
const MIN_LOG_SD: f64 = 0.01;
/// Standard deviation of a group of which too little was measured.
const UNKNOWN_LOG_SD: f64 = 0.35;

impl Regressor {
    fn fit(samples: Vec<(Kernel, f64)>) -> Self {
        let rows: Vec<[f64; N_WORK]> = samples.iter().map(|(kernel, us)| work(kernel).map(|work| work / us)).collect();
        let roofline = non_negative(&rows, &vec![1.0; rows.len()]);
        let ratio = |(kernel, us): &(Kernel, f64)| (us / roofline_us(&roofline, kernel)).ln();
        let ratios: Vec<f64> = samples.iter().map(ratio).collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let centred: Vec<f64> = ratios.iter().map(|ratio| ratio - mean).collect();
        let kernels: Vec<Kernel> = samples.iter().map(|(kernel, _)| *kernel).collect();
        let process = Process::fit(kernels.iter().map(features).collect(), &centred);
        let left_out = process.left_out(&centred);
        let mut regressor = Self { roofline, kernels, mean, process, left_out: Vec::new() };
        let estimates = left_out.into_iter().zip(&regressor.kernels);
        regressor.left_out = estimates.map(|(log, kernel)| regressor.scaled(kernel, log)).collect();
        regressor
    }

    fn estimate(&self, kernel: &Kernel) -> Estimate {
        self.scaled(kernel, self.process.at(&features(kernel)))
    }

    /// The roofline's time, corrected by the process.
    fn scaled(&self, kernel: &Kernel, (log, log_sd): (f64, f64)) -> Estimate {
        let log_sd = if self.process.len() < 5 { UNKNOWN_LOG_SD } else { log_sd.max(MIN_LOG_SD) };
        Estimate { us: roofline_us(&self.roofline, kernel) * (self.mean + log).exp(), log_sd }
    }
}

const N_WORK: usize = 4;

/// One, MACs, elements that are read and written, and weights: what a roofline is linear in.
///
/// Channels of blocked kernels are counted as the blocks that are computed.
fn work(kernel: &Kernel) -> [f64; N_WORK] {
    let scale = 1e-4;
    let fill = if kernel.blocked { 16 } else { 1 };
    let filled = |channels: usize| channels.next_multiple_of(fill) as f64 / channels as f64;
    // Few input channels are read as they are.
    let waste_in = if kernel.c_in < fill || kernel.groups > 1 { 1.0 } else { filled(kernel.c_in) };
    let macs = kernel.macs() as f64 * filled(kernel.c_out) * waste_in;
    let elements = kernel.elements_in() as f64 + kernel.elements_out() as f64;
    [1.0, scale * macs, scale * elements, scale * kernel.weights() as f64]
}

fn roofline_us(roofline: &[f64; N_WORK], kernel: &Kernel) -> f64 {
    // A group whose times are all but nothing still needs a logarithm.
    dot(roofline, &work(kernel)).max(1e-3)
}

const N_FEATURES: usize = 9;

/// What makes two kernels similar; a step of one in any of these is a step of like importance \[ours\].
fn features(kernel: &Kernel) -> [f64; N_FEATURES] {
    let [c_out, h, w] = kernel.output();
    let log = |x: usize| (x as f64).log2();
    [
        log(kernel.c_in),
        log(c_out),
        log(h * w),
        kernel.kernel as f64,
        2.0 * kernel.stride as f64,
        if kernel.residual { 1.5 } else { 0.0 },
        kernel.act.map_or(0.0, |act| 0.5 + 0.5 * act as u8 as f64),
        kernel.inputs as f64,
        // How well the last block of 64 output channels is filled: matrix products work on four blocks of 16 at a time.
        if c_out.is_multiple_of(64) { 0.0 } else { 0.5 },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// o = 2 µs, 1e-5 µs a MAC, 1e-4 µs an element.
    fn ideal(kernel: &Kernel) -> f64 {
        2.0 + 1e-5 * kernel.macs() as f64 + 1e-4 * (kernel.elements_in() + kernel.elements_out()) as f64
    }

    fn conv(c_in: usize, c_out: usize, side: usize) -> Kernel {
        let keeping = Kernel::keeping(KernelOp::Conv, [16 * c_in, side, side]);
        Kernel { c_out: 16 * c_out, kernel: 3, padding: 1, blocked: true, ..keeping }
    }

    fn table() -> BTreeMap<Kernel, f64> {
        let mut table = BTreeMap::new();
        for c_in in 1..6 {
            for c_out in 1..5 {
                for side in [7, 14, 28] {
                    let kernel = conv(c_in, c_out, side);
                    table.insert(kernel, ideal(&kernel));
                }
            }
        }
        table
    }

    #[test]
    fn a_roofline_is_found_exactly_and_holds_far_outside() {
        let regressors = Regressors::fit(&table());
        let far = conv(20, 16, 56);
        let estimate = regressors.estimate(&far).unwrap();
        assert!((estimate.us / ideal(&far) - 1.0).abs() < 1e-6, "{estimate:?}, {}", ideal(&far));
        assert_eq!(regressors.estimate(&Kernel::keeping(KernelOp::Concat, [32, 7, 7])), None);
    }

    #[test]
    fn what_is_far_from_all_measurements_is_less_sure() {
        let mut table = table();
        // Twice as slow where channels are many: no roofline.
        table.iter_mut().filter(|(kernel, _)| kernel.c_in > 48).for_each(|(_, us)| *us *= 2.0);
        let regressors = Regressors::fit(&table);
        let [near, far] = [conv(3, 3, 20), conv(30, 30, 112)].map(|kernel| regressors.estimate(&kernel).unwrap());
        assert!(near.log_sd < far.log_sd, "{near:?} {far:?}");
    }

    #[test]
    fn a_left_out_kernel_is_estimated_as_without_it() {
        let mut table = table();
        let probe = conv(2, 2, 14);
        *table.get_mut(&probe).unwrap() *= 1.5;
        let with = Regressors::fit(&table);
        let left_out = with.estimate_without(&probe).unwrap();
        let measured = with.estimate(&probe).unwrap();
        // The outlier pulls the estimate towards it, the one without it hardly (through roofline and variance only).
        assert!(
            measured.us > left_out.us && (left_out.us / ideal(&probe) - 1.0).abs() < 0.1,
            "{measured:?} {left_out:?}"
        );
        let unmeasured = conv(2, 3, 15);
        assert_eq!(with.estimate_without(&unmeasured), with.estimate(&unmeasured));
    }
}
