//! From the trained network to the one that is shipped.

use gram_ir::{
    DropUnusedNodes, FoldBatchNorm, Network, RemoveIdentities, Transform, WeightedNetwork, Weights, apply_checked,
};

use crate::ExportError;

/// The network that computes the same with fewer nodes: unused nodes and identities dropped, batch norm folded into convolutions.
///
/// # Errors
/// [`ExportError`] where the weights are not those of the network or a folded weight is not finite.
pub fn deploy(network: &Network, weights: &Weights) -> Result<WeightedNetwork, ExportError> {
    weights.check(network)?;
    let mut deployed = WeightedNetwork { network: network.clone(), weights: weights.clone() };
    // A norm is folded if it alone reads the convolution: unused readers and identities in between would be in the way.
    let passes: [&dyn Transform<WeightedNetwork>; 3] = [&DropUnusedNodes, &RemoveIdentities, &FoldBatchNorm];
    for pass in passes {
        apply_checked(pass, &mut deployed)?;
    }
    Ok(deployed)
}
