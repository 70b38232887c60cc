//! Where randomness comes from: every stream is a function of the study's seed and of what it is for, never of time or threads.

use gram_ir::CanonicalKey;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The stream of one try of one round.
///
/// Tries of a round have streams of one key, so a try's draws do not depend on how many another one made.
pub fn try_stream(study_seed: u64, round: usize, attempt: usize) -> ChaCha8Rng {
    let mut rng = stream("round", study_seed, round);
    rng.set_stream(attempt as u64);
    rng
}

/// A stream for what happens before the first round: probing the prior, preflight.
pub(crate) fn probe_stream(study_seed: u64, attempt: usize) -> ChaCha8Rng {
    let mut rng = stream("probe", study_seed, 0);
    rng.set_stream(attempt as u64);
    rng
}

fn stream(purpose: &str, study_seed: u64, index: usize) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"gram stream v1\0").update(purpose.as_bytes()).update(b"\0");
    hasher.update(&study_seed.to_le_bytes()).update(&(index as u64).to_le_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// The seed that a child is trained with: the same for every numbering of its graph, whenever it is met. Below 2^53, so that every JSON
/// reader keeps it.
pub fn child_seed(study_seed: u64, graph: &CanonicalKey) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"gram child seed v1\0").update(&study_seed.to_le_bytes()).update(graph.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::Cell;
    use rand::Rng;

    #[test]
    fn streams_differ_by_seed_round_and_try() {
        let first = |seed, round, attempt| try_stream(seed, round, attempt).next_u64();
        let draws = [first(1, 0, 0), first(2, 0, 0), first(1, 1, 0), first(1, 0, 1), probe_stream(1, 0).next_u64()];
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|b| a != b), "{draws:?}");
        }
        assert_eq!(first(1, 0, 0), draws[0]);
    }

    #[test]
    fn child_seeds_are_exact_in_every_json_reader() {
        let key = Cell::new().canonical_key();
        assert!((0..100).all(|seed| child_seed(seed, &key) < 1 << 53));
        assert_ne!(child_seed(0, &key), child_seed(1, &key));
    }
}
