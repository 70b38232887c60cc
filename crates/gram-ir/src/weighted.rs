//! A network with its weights, so that rewrites can change both at once.

use std::collections::BTreeSet;

use crate::{Network, RunError, Tensor, Verify, Violations, Weights, reference};

/// A network and the weights that belong to it; well-formed if both are and fit together.
///
/// # Example
/// ```
/// use gram_ir::{Conv2d, FoldBatchNorm, Network, Op, Shape, Tensor, WeightedNetwork, Weights, apply_checked};
/// let mut network = Network::new(Shape::chw(3, 8, 8));
/// let conv = network.add("conv", Op::Conv(Conv2d::new(3, 4, 3)), &[network.input()])?;
/// let norm = network.add("norm", Op::BatchNorm { channels: 4 }, &[conv])?;
/// network.set_output(norm)?;
/// let weights = Weights::arbitrary(&network, 0);
/// let mut folded = WeightedNetwork { network, weights };
/// let before = folded.run(&Tensor::arbitrary(&[1, 3, 8, 8], 1))?;
/// apply_checked(&FoldBatchNorm, &mut folded)?;
/// let after = folded.run(&Tensor::arbitrary(&[1, 3, 8, 8], 1))?;
/// assert_eq!(folded.network.nodes().len(), 2);
/// assert!(before.data().iter().zip(after.data()).all(|(a, b)| (a - b).abs() < 1e-12));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedNetwork {
    /// The graph.
    pub network: Network,
    /// Exactly its tensors.
    pub weights: Weights,
}

impl WeightedNetwork {
    /// The output for `input`, by [`reference::run`].
    ///
    /// # Errors
    /// [`RunError`] where the weights are not those of the network or the input does not fit.
    pub fn run(&self, input: &Tensor) -> Result<Tensor, RunError> {
        reference::run(&self.network, &self.weights, input)
    }

    /// Puts `network` in the place of the old one; tensors that it does not have are dropped.
    pub(crate) fn replace_network(&mut self, network: Network) {
        let kept: BTreeSet<String> = network.tensors().into_iter().map(|spec| spec.name).collect();
        let dropped: Vec<String> =
            self.weights.iter().map(|(name, _)| name.to_owned()).filter(|name| !kept.contains(name)).collect();
        for name in dropped {
            self.weights.remove(&name);
        }
        self.network = network;
    }
}

impl Verify for WeightedNetwork {
    /// The network is well-formed, and the weights are exactly its tensors, each of its shape and finite.
    fn verify(&self) -> Result<(), Violations> {
        let mut broken = self.network.verify().err().unwrap_or_default();
        if let Err(error) = self.weights.check(&self.network) {
            broken.push(error.to_string());
        }
        broken.into_result()
    }
}
