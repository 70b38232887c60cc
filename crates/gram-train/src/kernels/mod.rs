//! CPU kernels: slices in, slices out; no graph, no candle tensors.
//!
//! Every kernel works on dense `[n, c, h, w]` slices and is generic over [`Real`]. Work is split into image chunks whose
//! size depends on the batch alone; what chunks add up is added in chunk order. Nothing is fused into multiply–adds and
//! the order of every sum is written out, so that results are the same bits for any number of threads and any vector width.

// Lanes are indexed, as iterators over several of them do not stay in registers.
#![allow(clippy::needless_range_loop)]

pub(crate) mod activation;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod gemm;
pub(crate) mod join;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod pool;

use candle_core::WithDType;

/// Elements that kernels handle together: two AVX2 registers of f32.
pub(crate) const LANES: usize = 16;

/// Most image chunks of one batch, and so the most threads that one kernel can use.
const MAX_CHUNKS: usize = 16;

/// A floating-point type that the kernels are compiled for: f32 to train, f64 to check gradients.
pub(crate) trait Real: WithDType + Default {}

impl Real for f32 {}
impl Real for f64 {}

/// Images in one chunk of a batch of `n`; depends on nothing else, so neither do the sums over chunks.
pub(crate) fn images_per_chunk(n: usize) -> usize {
    n.div_ceil(MAX_CHUNKS).max(1)
}

/// Runs a kernel compiled for the widest vector registers of this machine.
///
/// The job's `call` must be `#[inline(always)]`, else it is compiled for the base instruction set.
pub(crate) fn vectorised<J: pulp::NullaryFnOnce>(job: J) -> J::Output {
    pulp::Arch::new().dispatch(job)
}

/// Numbers that are added to together.
///
/// They go by value through plain loops without closures or computed bounds: that keeps them in vector registers.
pub(crate) type Lanes<T> = [T; LANES];

/// `sums + a · b` in each lane, rounded twice.
#[inline(always)]
pub(crate) fn add_products<T: Real>(mut sums: Lanes<T>, a: &Lanes<T>, b: &Lanes<T>) -> Lanes<T> {
    for i in 0..LANES {
        sums[i] += a[i] * b[i];
    }
    sums
}

/// `sums + a · b` in each lane.
#[inline(always)]
pub(crate) fn add_scaled<T: Real>(mut sums: Lanes<T>, a: T, b: &Lanes<T>) -> Lanes<T> {
    for i in 0..LANES {
        sums[i] += a * b[i];
    }
    sums
}

/// `a + b` in each lane.
#[inline(always)]
pub(crate) fn add_lanes<T: Real>(mut a: Lanes<T>, b: &Lanes<T>) -> Lanes<T> {
    for i in 0..LANES {
        a[i] += b[i];
    }
    a
}

/// The sum of all lanes, as a balanced tree.
#[inline(always)]
pub(crate) fn sum_lanes<T: Real>(mut lanes: Lanes<T>) -> T {
    for i in 0..8 {
        lanes[i] += lanes[i + 8];
    }
    for i in 0..4 {
        lanes[i] += lanes[i + 4];
    }
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

/// Adds the partial results of chunks, in chunk order.
pub(crate) fn sum_in_order<T: Real>(partials: Vec<Vec<T>>, len: usize) -> Vec<T> {
    let mut partials = partials.into_iter();
    let mut total = partials.next().unwrap_or_else(|| vec![T::zero(); len]);
    for partial in partials {
        for (total, part) in total.iter_mut().zip(&partial) {
            *total += *part;
        }
    }
    total
}

#[cfg(test)]
pub(crate) mod testing {
    //! Random slices and comparisons for the kernels' tests.

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// `len` numbers in -1..1.
    pub(crate) fn noise(seed: u64, len: usize) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    #[track_caller]
    pub(crate) fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len());
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!(
                (got - expected).abs() <= tolerance * (1.0 + expected.abs()),
                "at {i}: {got} instead of {expected}"
            );
        }
    }
}
