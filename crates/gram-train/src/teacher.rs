//! A trained network that another one learns from.

use gram_data::Normalisation;
use gram_ir::{Network, Shape, Weights};

use crate::{EvalEngine, TrainError, weights_digest};

/// A trained network whose scores another one is held against; see [`Distillation`](crate::Distillation).
#[derive(Clone, Copy, Debug)]
pub struct Teacher<'a> {
    /// The network; its input and its classes are those of the one that learns.
    pub network: &'a Network,
    /// Its weights.
    pub weights: &'a Weights,
    /// How its images were normalised, which may be otherwise than those of the one that learns.
    pub normalisation: &'a Normalisation,
}

impl Teacher<'_> {
    /// blake3 of all that decides what it says, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in [self.network.to_json("network"), weights_digest(self.weights)] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for figure in self.normalisation.mean.iter().chain(&self.normalisation.std) {
            hasher.update(&figure.to_le_bytes());
        }
        hasher.finalize().to_string()
    }

    /// Refuses one that does not go with a network.
    pub(crate) fn check(&self, network: &Network) -> Result<(), TrainError> {
        let shapes = |network: &Network| (network.input_shape(), network.output_shape());
        let (got, expected) = (shapes(self.network), shapes(network));
        if got != expected {
            return Err(TrainError::Teacher { input: got.0, output: got.1, expected: expected.into() });
        }
        self.weights.check(self.network)?;
        Ok(self.normalisation.check(got.0.c)?)
    }

    /// How pixels that were normalised otherwise become its own: a factor and a summand per channel; none if there is nothing to do.
    pub(crate) fn conversion(&self, from: &Normalisation) -> Option<Vec<[f32; 2]>> {
        let Normalisation { mean, std } = self.normalisation;
        let figures = from.mean.iter().zip(&from.std).zip(mean.iter().zip(std));
        (self.normalisation != from).then(|| {
            figures.map(|((from_mean, from_std), (mean, std))| [from_std / std, (from_mean - mean) / std]).collect()
        })
    }
}

/// A teacher, ready to classify batches on the CPU.
#[derive(Debug)]
pub(crate) struct TeacherEngine {
    engine: EvalEngine,
    conversion: Option<Vec<[f32; 2]>>,
    input: Shape,
}

impl TeacherEngine {
    /// For images that are normalised as `from` says.
    ///
    /// # Errors
    /// [`TrainError`] where it does not go with `network`.
    pub(crate) fn new(teacher: &Teacher<'_>, network: &Network, from: &Normalisation) -> Result<Self, TrainError> {
        teacher.check(network)?;
        Ok(Self {
            engine: EvalEngine::new(teacher.network, teacher.weights, None)?,
            conversion: teacher.conversion(from),
            input: network.input_shape(),
        })
    }

    /// Scores `[n, classes]` of a batch as the one that learns sees it; runs on the present rayon pool, whose threads change no bit.
    pub(crate) fn logits(&mut self, pixels: &[f32], n: usize) -> Vec<f32> {
        let Some(conversion) = &self.conversion else { return self.engine.run(pixels, n) };
        let mut own = pixels.to_vec();
        for image in own.chunks_exact_mut(self.input.elements()) {
            for (plane, [factor, summand]) in image.chunks_exact_mut(self.input.pixels()).zip(conversion) {
                plane.iter_mut().for_each(|x| *x = factor * *x + summand);
            }
        }
        self.engine.run(&own, n)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use gram_ir::Op;

    use super::*;
    use crate::Model;

    fn network(classes: usize) -> Network {
        let mut network = Network::new(Shape::chw(2, 2, 2));
        let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()]).unwrap();
        let fc = network.add("fc", Op::Linear { c_in: 2, c_out: classes, bias: true }, &[pool]).unwrap();
        network.set_output(fc).unwrap();
        network
    }

    fn weights(network: &Network, seed: u64) -> Weights {
        Model::new(network, seed, DType::F32).unwrap().weights().unwrap()
    }

    fn norm(mean: [f32; 2], std: [f32; 2]) -> Normalisation {
        Normalisation { mean: mean.to_vec(), std: std.to_vec() }
    }

    #[test]
    fn it_sees_images_as_it_learnt_them() {
        let (network, bytes) = (network(3), [0, 60, 120, 255, 7, 8, 9, 10]);
        let weights = weights(&network, 1);
        let (own, other) = (norm([0.2, 0.5], [0.3, 0.1]), norm([0.4, 0.3], [0.2, 0.25]));
        let teacher = Teacher { network: &network, weights: &weights, normalisation: &own };
        let scores = |normalisation: &Normalisation| {
            let mut pixels = [0.0; 8];
            normalisation.apply(&bytes, &mut pixels);
            TeacherEngine::new(&teacher, &network, normalisation).unwrap().logits(&pixels, 1)
        };
        for (got, expected) in scores(&other).iter().zip(scores(&own)) {
            assert!((got - expected).abs() < 1e-5, "{got} instead of {expected}");
        }
    }

    #[test]
    fn everything_of_it_counts() {
        let networks = [network(3), network(4)];
        let [a, b] = [norm([0.2, 0.5], [0.3, 0.1]), norm([0.2, 0.5], [0.3, 0.2])];
        let digest = |network: &Network, seed, normalisation: &Normalisation| {
            let weights = weights(network, seed);
            Teacher { network, weights: &weights, normalisation }.digest()
        };
        let digests = [
            digest(&networks[0], 1, &a),
            digest(&networks[0], 2, &a),
            digest(&networks[0], 1, &b),
            digest(&networks[1], 1, &a),
        ];
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest), "{i}");
        }
        assert_eq!(digest(&networks[0], 1, &a), digests[0]);
    }

    #[test]
    fn another_task_is_refused() {
        let (network, student) = (network(3), network(4));
        let (weights, normalisation) = (weights(&network, 1), norm([0.0; 2], [1.0; 2]));
        let teacher = Teacher { network: &network, weights: &weights, normalisation: &normalisation };
        let error = TeacherEngine::new(&teacher, &student, &normalisation).unwrap_err().to_string();
        assert_eq!(error, "the teacher takes 2x2x2 and gives 3x1x1, the network takes 2x2x2 and gives 4x1x1");
        let one = Normalisation { mean: vec![0.0], std: vec![1.0] };
        assert!(Teacher { normalisation: &one, ..teacher }.check(&network).is_err());
    }
}
