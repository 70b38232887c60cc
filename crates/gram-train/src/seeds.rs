//! Seeds for the several uses of randomness in one training.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What random numbers are for; each has its own stream.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Weights = 1,
    Batches = 2,
    Mixup = 3,
}

/// The seed of one purpose in a training with seed `seed`.
pub(crate) fn derived_seed(seed: u64, purpose: Purpose) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng.next_u64()
}

/// The stream of one step of one epoch: what is drawn there depends neither on the steps before nor on threads.
pub(crate) fn step_stream(seed: u64, epoch: u64, step: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, epoch, step]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
