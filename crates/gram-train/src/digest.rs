//! A digest of weights.

use gram_ir::Weights;

/// blake3 of names, shapes and values, in hexadecimal: equal for equal weights, on every machine.
///
/// Hashed, numbers little-endian: for each tensor in order of names the length of its name (u64), the name, the number of axes and the axes
/// (u64 each), the values (f64 each).
pub fn weights_digest(weights: &Weights) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in weights.iter() {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&(tensor.shape().len() as u64).to_le_bytes());
        for &axis in tensor.shape() {
            hasher.update(&(axis as u64).to_le_bytes());
        }
        for value in tensor.data() {
            hasher.update(&value.to_le_bytes());
        }
    }
    hasher.finalize().to_string()
}

#[cfg(test)]
mod tests {
    use gram_ir::Tensor;

    use super::*;

    #[test]
    fn names_shapes_and_bits_count() {
        let of = |name: &str, shape: Vec<usize>, data: Vec<f64>| {
            let mut weights = Weights::new();
            weights.insert(name, Tensor::new(shape, data).unwrap());
            weights_digest(&weights)
        };
        let digests = [
            of("a", vec![2], vec![0.0, 1.0]),
            of("b", vec![2], vec![0.0, 1.0]),
            of("a", vec![2, 1], vec![0.0, 1.0]),
            of("a", vec![2], vec![-0.0, 1.0]),
            weights_digest(&Weights::new()),
        ];
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest), "{i}");
        }
        assert_eq!(digests[0], of("a", vec![2], vec![0.0, 1.0]));
    }
}
