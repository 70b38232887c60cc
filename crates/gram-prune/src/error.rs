//! What can be wrong with what the pruner is given.

use gram_ir::{CellNodeId, Limits, LowerError, Macs, Params, SpaceError, grouped};

/// Why nothing was pruned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// No combination of thresholds keeps the limits.
    #[error(
        "no pruned network keeps the limits{}: the smallest possible have {smallest_macs} and {smallest_params}{}",
        describe(limits),
        each_alone(limits, *smallest_macs, *smallest_params)
    )]
    LimitsUnmeetable {
        /// What was asked for.
        limits: Limits,
        /// Fewest MACs of all combinations of thresholds.
        smallest_macs: Macs,
        /// Fewest params of all combinations of thresholds; not necessarily of the same network.
        smallest_params: Params,
    },
    /// There are not as many stages as the space has.
    #[error("there are weights for {got} stages, the space has {expected}")]
    Stages {
        /// Stages of the space.
        expected: usize,
        /// Stages given.
        got: usize,
    },
    /// A stage has other nodes than the space says.
    #[error("stage {stage}: the space has {nodes} nodes, there are operators for {ops} and weights for {weights}")]
    Nodes {
        /// Index of the stage, from 0.
        stage: usize,
        /// Nodes of the space's stage, the input among them.
        nodes: usize,
        /// Nodes with an operator, and the input.
        ops: usize,
        /// Nodes of the weights' complete DAG.
        weights: usize,
    },
    /// A weight that is no belief.
    #[error("stage {stage}: edge {from} -> {to} weighs {weight}, which is not between 0 and 1")]
    Weight {
        /// Index of the stage, from 0.
        stage: usize,
        /// Source.
        from: CellNodeId,
        /// Target.
        to: CellNodeId,
        /// The weight.
        weight: f64,
    },
    /// The space is not usable.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Not one combination of thresholds gives a network, as a layer does not fit the image, say; or a network of the front is too large.
    #[error(transparent)]
    Lower(#[from] LowerError),
}

/// ` (at most 9 MACs, at most 5 params)`
fn describe(limits: &Limits) -> String {
    let parts = [limits.max_macs.map(|most| most.to_string()), limits.max_params.map(|most| most.to_string())];
    let peak = limits.max_peak_bytes.map(|most| format!("{} peak bytes", grouped(most)));
    let parts: Vec<String> = parts.into_iter().flatten().chain(peak).map(|most| format!("at most {most}")).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// Says so where either limit could be met without the other.
fn each_alone(limits: &Limits, macs: Macs, params: Params) -> &'static str {
    // Which networks keep a limit on peak bytes is not among the figures.
    let meetable = limits.max_peak_bytes.is_none()
        && limits.max_macs.is_none_or(|most| macs <= most)
        && limits.max_params.is_none_or(|most| params <= most);
    if meetable { ", but not together" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_was_asked_and_what_is_possible() {
        let message = |max_macs: Option<u64>, max_params: Option<u64>| {
            let limits =
                Limits { max_macs: max_macs.map(Macs), max_params: max_params.map(Params), ..Limits::default() };
            PruneError::LimitsUnmeetable { limits, smallest_macs: Macs(1200), smallest_params: Params(70) }.to_string()
        };
        assert_eq!(
            message(Some(1000), None),
            "no pruned network keeps the limits (at most 1,000 MACs): the smallest possible have 1,200 MACs and 70 params"
        );
        let limits = Limits { max_peak_bytes: Some(9000), ..Limits::default() };
        let error = PruneError::LimitsUnmeetable { limits, smallest_macs: Macs(3), smallest_params: Params(2) };
        assert_eq!(
            error.to_string(),
            "no pruned network keeps the limits (at most 9,000 peak bytes): the smallest possible have 3 MACs and 2 params"
        );
        assert_eq!(
            message(Some(1200), Some(70)),
            "no pruned network keeps the limits (at most 1,200 MACs, at most 70 params): the smallest possible have 1,200 MACs and 70 params, but not together"
        );
    }
}
