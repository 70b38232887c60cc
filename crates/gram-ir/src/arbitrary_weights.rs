//! Made-up numbers for tests and measurements: the same for the same seed, on every machine.

use crate::{Network, Tensor, TensorRole, Weights};

impl Weights {
    /// Weights of an untrained `network`, for tests and for measuring costs that do not depend on what was learnt.
    ///
    /// Weights are uniform within `±√(3 / fan-in)`, biases, shifts and running means within ±0.5, norm scales within ±(0.5 to 1.5),
    /// running variances within 0.5 to 1.5: activations neither vanish nor explode, and nothing is 0 or 1 by accident. A tensor depends
    /// on `seed` and its own name and size only, so two networks that share a tensor's name share its values.
    pub fn arbitrary(network: &Network, seed: u64) -> Self {
        let mut weights = Self::new();
        for spec in network.tensors() {
            let mut numbers = SplitMix64::new(seed ^ fnv1a(&spec.name));
            let fan_in = spec.shape[1..].iter().product::<usize>().max(1) as f64;
            let mut number = || match spec.role {
                TensorRole::Weight => numbers.symmetric() * (3.0 / fan_in).sqrt(),
                TensorRole::Bias | TensorRole::NormShift | TensorRole::RunningMean => numbers.symmetric() * 0.5,
                TensorRole::NormScale => {
                    let x = numbers.symmetric();
                    x + 0.5f64.copysign(x)
                }
                TensorRole::RunningVar => 1.0 + 0.5 * numbers.symmetric(),
            };
            let mut tensor = Tensor::zeros(&spec.shape);
            tensor.data_mut().iter_mut().for_each(|x| *x = number());
            weights.insert(spec.name, tensor);
        }
        weights
    }
}

impl Tensor {
    /// A tensor of `shape`, uniform in -1 to 1, for tests and measurements; the same for the same seed.
    pub fn arbitrary(shape: &[usize], seed: u64) -> Self {
        let mut numbers = SplitMix64::new(seed);
        let mut tensor = Self::zeros(shape);
        tensor.data_mut().iter_mut().for_each(|x| *x = numbers.symmetric());
        tensor
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014: enough for data that only must not be special.
struct SplitMix64(u64);

impl SplitMix64 {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in -1 to 1, a multiple of 2⁻⁵².
    fn symmetric(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// The 64-bit FNV-1a hash, which tells the names of one network's tensors apart.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, Op, Shape};

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        let mut numbers = SplitMix64::new(1_234_567);
        assert_eq!([numbers.next(), numbers.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn weights_fit_and_depend_on_seed_and_name() {
        let mut network = Network::new(Shape::chw(2, 4, 4));
        let a = network.add("a", Op::Conv(Conv2d::new(2, 3, 3).bias(true)), &[network.input()]).unwrap();
        let b = network.add("b", Op::Conv(Conv2d::new(2, 3, 3)), &[network.input()]).unwrap();
        let sum = network.add("sum", Op::Add, &[a, b]).unwrap();
        let norm = network.add("norm", Op::BatchNorm { channels: 3 }, &[sum]).unwrap();
        network.set_output(norm).unwrap();
        let weights = Weights::arbitrary(&network, 7);
        assert_eq!(weights.check(&network), Ok(()));
        assert_eq!(weights, Weights::arbitrary(&network, 7));
        assert_ne!(weights, Weights::arbitrary(&network, 8));
        assert_ne!(weights.get("a.weight"), weights.get("b.weight"));
        let within = |name: &str, low: f64, high: f64| {
            weights.get(name).unwrap().data().iter().all(|x| (low..=high).contains(&x.abs()))
        };
        assert!(within("norm.weight", 0.5, 1.5) && within("norm.running_var", 0.5, 1.5));
        assert!(within("a.weight", 0.0, (3.0f64 / 18.0).sqrt()));
    }
}
