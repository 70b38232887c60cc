//! What shared caches cost: networks too large for a core's own cache wait for weights and buffers that others have pushed out \[ours\].
//!
//! Of the `M` megabytes of weights and outputs that a pass touches once, some are gone by the time they come round again, the more the longer
//! the pass takes: `M · (1 − exp(−t / 5 ms))`. Kernels that are measured in small networks of their own do not show it, so it is a term of the
//! [`crate::Fit`]; and it changes with what others do, so times of large networks are scaled to a large reference as well.

use std::collections::BTreeMap;

use gram_latency_runner::References;

use crate::kernel::Kernel;

/// Milliseconds after which about two thirds of what a pass left in the caches are gone; between 3 and 12 it hardly matters.
const EVICTION_MS: f64 = 5.0;

/// Networks with fewer megabytes of weights and outputs stay in the caches, or nearly so.
pub(crate) const LARGE_MB: f64 = 4.0;

/// Weights and outputs of a kernel.
pub(crate) fn megabytes(kernel: &Kernel) -> f64 {
    4e-6 * (kernel.weights() + kernel.elements_out()) as f64
}

/// Weights and outputs of a network.
pub(crate) fn megabytes_of(kernels: &BTreeMap<Kernel, u32>) -> f64 {
    kernels.iter().map(|(kernel, &count)| f64::from(count) * megabytes(kernel)).sum()
}

/// Megabytes that are expected to have left the caches since the last pass, if passes take `us` microseconds.
pub(crate) fn evicted_mb(megabytes: f64, us: f64) -> f64 {
    megabytes * (1.0 - (-us / (1e3 * EVICTION_MS)).exp())
}

/// The large reference, by its megabytes of weights and outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LargeReference {
    pub(crate) megabytes: f64,
}

impl LargeReference {
    /// How many times longer than at `then` a network takes at `now`, of that many megabytes and microseconds.
    ///
    /// What the large reference lost besides what the small one lost is the price of a megabyte; a network pays in proportion to the
    /// megabytes that it loses in a microsecond, but at most twice as much as the large reference.
    pub(crate) fn slowdown(self, now: References, then: References, megabytes: f64, us: f64) -> f64 {
        let small = now.us / then.us;
        let Some((large_now, large_then)) = now.large_us.zip(then.large_us) else { return small };
        let exposure = (evicted_mb(megabytes, us) / us) / (evicted_mb(self.megabytes, large_then) / large_then);
        let exposure = exposure.min(2.0);
        small * (1.0 + exposure * (large_now / large_then / small - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_networks_are_scaled_by_the_large_reference() {
        let large = LargeReference { megabytes: 30.0 };
        let then = References { us: 400.0, large_us: Some(2000.0) };
        let now = References { us: 440.0, large_us: Some(2420.0) };
        // One like the large reference took 1.21 times as long, one that loses nothing 1.1 times.
        assert!((large.slowdown(now, then, 30.0, 2000.0) - 1.21).abs() < 1e-12);
        assert!((large.slowdown(now, then, 0.0, 2000.0) - 1.1).abs() < 1e-12);
        let between = large.slowdown(now, then, 15.0, 2000.0);
        assert!((between - 1.155).abs() < 1e-12, "{between}");
        // Without a large reference on either side the small one must do.
        for unknown in [References { large_us: None, ..now }, References { large_us: Some(2420.0), us: 440.0 }] {
            let then = if unknown.large_us.is_none() { then } else { References { large_us: None, ..then } };
            assert!((large.slowdown(unknown, then, 30.0, 2000.0) - 1.1).abs() < 1e-12);
        }
    }
}
