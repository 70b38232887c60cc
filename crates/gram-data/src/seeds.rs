//! One random stream per purpose, so that no draw depends on the order of others or on the number of threads.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream is for. The numbers are part of every result and never change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Which training images become the test split of a data set without one.
    Test = 1,
    /// Which training images become validation images.
    Validation = 2,
    /// Which images a proxy subset keeps.
    Proxy = 3,
    /// The order of an epoch.
    Order = 4,
    /// Shift and flip of one image in one epoch.
    Augmentation = 5,
}

/// The ChaCha8 stream of (seed, purpose, a, b): these four, little-endian u64, are its key.
pub(crate) fn stream(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
