//! What a proposal must pass before anything is evaluated: it lowers, and keeps the hard limits.

use gram_ir::{
    Architecture, Blueprint, CanonicalKey, Cell, CellNodeId, CellOp, Cost, Limits, LowerError, Network, Shape, Space,
    grouped,
};
use gram_memory::keeps_peak_limit;

use crate::LatencyLimit;

/// A proposal that may be evaluated.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Layout and cells as they were proposed, in the strategy's own numbering.
    pub blueprint: Blueprint,
    /// The architecture with every cell in canonical form: the same for every numbering of the graph.
    pub architecture: Architecture,
    /// The architecture lowered.
    pub network: Network,
    /// Exact costs; within the limits.
    pub cost: Cost,
    /// Identity of the graph.
    pub graph: CanonicalKey,
}

/// Edges of one stage in the meta-graph's numbering, sorted by source and target.
pub type EdgeList = Vec<(CellNodeId, CellNodeId)>;

impl Candidate {
    /// The proposed edges of each stage.
    pub(crate) fn edges(&self) -> Vec<EdgeList> {
        self.blueprint.cells.iter().map(|cell| cell.edges().into_iter().collect()).collect()
    }

    /// The proposed operators of each stage.
    pub(crate) fn ops(&self) -> Vec<Vec<CellOp>> {
        self.blueprint.cells.iter().map(|cell| cell.ops().map(|(_, op)| op).collect()).collect()
    }
}

/// Why a proposal may not be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It breaks a limit.
    #[error("{} and {} exceed the limits", .cost.macs, .cost.params)]
    Limits {
        /// Its costs.
        cost: Cost,
    },
    /// It may be slower than allowed.
    #[error("predicted to take up to {upper_ms:?} ms, more than {max_ms} ms (none: it cannot be predicted)")]
    Latency {
        /// Upper end of the prediction.
        upper_ms: Option<f64>,
        /// The limit.
        max_ms: f64,
    },
    /// Its feature maps need more bytes than may be alive at one time, or it is not known that they do not.
    #[error("its feature maps are not known to fit into {} bytes", grouped(*.max_peak_bytes))]
    Peak {
        /// The limit.
        max_peak_bytes: u64,
    },
    /// It cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
}

/// Space, input, classes and limits of a study: turns blueprints into candidates, or refuses them.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// The search space.
    pub space: &'a Space,
    /// Shape of one image.
    pub input: Shape,
    /// Number of classes.
    pub num_classes: usize,
    /// Hard limits.
    pub limits: &'a Limits,
    /// Hard limit on predicted latency.
    pub latency: Option<&'a LatencyLimit>,
}

impl Gate<'_> {
    /// Exact costs of an architecture.
    ///
    /// # Errors
    /// [`LowerError`] where it cannot be lowered.
    pub fn cost(&self, blueprint: &Blueprint) -> Result<Cost, LowerError> {
        Ok(self.space.build(self.input, self.num_classes, blueprint).lower()?.cost())
    }

    /// Whether an architecture may be evaluated.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, blueprint: &Blueprint) -> Result<Cost, Refusal> {
        let cost = self.cost(blueprint)?;
        if !self.limits.allow(&cost) {
            return Err(Refusal::Limits { cost });
        }
        if self.limits.max_peak_bytes.is_some() || self.latency.is_some() {
            // On what would be trained: where a search for an order is given up, and what fuses, may depend on the numbering.
            self.check_network(&self.canonical(blueprint).lower()?)?;
        }
        Ok(cost)
    }

    /// Whether a lowered network may be evaluated, and its exact costs: what stands between a candidate and the evaluator.
    ///
    /// # Errors
    /// [`Refusal`] if it breaks a limit.
    pub fn check_lowered(&self, network: &Network) -> Result<Cost, Refusal> {
        let cost = network.cost();
        if !self.limits.allow(&cost) {
            return Err(Refusal::Limits { cost });
        }
        self.check_network(network)?;
        Ok(cost)
    }

    /// The limits that take more than counting.
    fn check_network(&self, network: &Network) -> Result<(), Refusal> {
        if let Some(max_peak_bytes) = self.limits.max_peak_bytes
            && !keeps_peak_limit(network, self.limits)
        {
            return Err(Refusal::Peak { max_peak_bytes });
        }
        match self.latency {
            Some(limit) if !limit.allows(network) => {
                Err(Refusal::Latency { upper_ms: limit.model.upper_ms(network), max_ms: limit.max_ms })
            }
            _ => Ok(()),
        }
    }

    /// The architecture with every cell in canonical form.
    fn canonical(&self, blueprint: &Blueprint) -> Architecture {
        let cells = blueprint.cells.iter().map(Cell::canonical_form).collect();
        self.space.build(self.input, self.num_classes, &Blueprint { layout: blueprint.layout.clone(), cells })
    }

    /// The candidate of a blueprint.
    ///
    /// # Errors
    /// [`Refusal`] if it cannot be lowered or breaks a limit.
    pub fn admit(&self, blueprint: impl Into<Blueprint>) -> Result<Candidate, Refusal> {
        let blueprint = blueprint.into();
        let proposed = self.cost(&blueprint)?;
        if !self.limits.allow(&proposed) {
            return Err(Refusal::Limits { cost: proposed });
        }
        let architecture = self.canonical(&blueprint);
        let network = architecture.lower()?;
        // A relabelling moves channels around but costs the same; a limit is checked on what is trained all the same.
        let cost = self.check_lowered(&network)?;
        let graph = architecture.canonical_key();
        Ok(Candidate { blueprint, architecture, network, cost, graph })
    }
}
