//! Seeds for the several uses of randomness in one training.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What random numbers are for; each has its own stream.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Weights = 1,
    Batches = 2,
}

/// The seed of one purpose in a training with seed `seed`.
pub(crate) fn derived_seed(seed: u64, purpose: Purpose) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng.next_u64()
}
