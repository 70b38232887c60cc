//! Expected accuracy of architectures that were not trained, from the children of a study that were.

use gram_ir::{Architecture, Cell, CellNodeId, Cost, LowerError, Macs, Params};
use gram_meta::{Child, MetaGraph, MetaStage, StageEdges};

use crate::surrogate::{Calibrated, CrossValidation, Expected, Features, KernelRidgeConfig, SurrogateError};
use crate::{CellDomain, ChildRecord, Gate, Record};

/// A child that a study has trained.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedChild {
    /// Number of the child, from 1.
    pub child: usize,
    /// Its cells are in the meta-graph's numbering, and have live nodes only.
    pub architecture: Architecture,
    /// Exact costs.
    pub cost: Cost,
    /// Validation top-1 of the one evaluation that it had, a guess if it was stopped ([`Outcome::score`](crate::Outcome::score)); none if it diverged.
    pub validation_top1: Option<f64>,
}

/// The children in a journal's records, in the order in which they were trained, built anew from their edges.
///
/// `meta` deals the operators where they are not searched: the study's meta-graph, or
/// [`StudyConfig::initial_meta_graph`](crate::StudyConfig::initial_meta_graph). A child whose graph is not the one that was trained is left out:
/// journals of earlier builds hold no operators.
pub fn trained_children(records: &[Record], meta: &MetaGraph, gate: &Gate<'_>) -> Vec<TrainedChild> {
    let children =
        records.iter().filter_map(|record| if let Record::Child(child) = record { Some(child) } else { None });
    children.filter_map(|record| trained_child(record, meta, gate)).collect()
}

fn trained_child(record: &ChildRecord, meta: &MetaGraph, gate: &Gate<'_>) -> Option<TrainedChild> {
    let mut ops = record.ops.iter();
    let kept = |(stage, edges): (&MetaStage, &crate::EdgeList)| {
        let kept = StageEdges::new(stage.n_nodes(), edges.iter().copied());
        let Some(ops) = ops.next() else { return Some(kept) };
        let mut ops = (ops.len() == kept.n_live_operators()).then(|| ops.iter().copied())?;
        Some(kept.with_ops(|_| ops.next().expect("invariant: as many operators as live nodes")))
    };
    let stages = meta.stages().iter().zip(&record.edges).map(kept).collect::<Option<_>>()?;
    let child = Child::new(stages).with_layout(record.layout.clone());
    let child = meta.blueprint(&child).ok().filter(|child| child.cells.len() == gate.space.stages.len())?;
    let architecture = gate.space.build(gate.input, gate.num_classes, &child);
    if blake3::hash(architecture.canonical_key().as_bytes()).to_hex().as_str() != record.graph {
        return None;
    }
    let ChildRecord { child, macs, params, deployed_params, ref outcome, .. } = *record;
    let cost = Cost { macs: Macs(macs), params: Params(params), deployed_params: Params(deployed_params) };
    Some(TrainedChild { child, architecture, cost, validation_top1: outcome.expected_top1() })
}

/// What validation top-1 an architecture would have, had the study trained it as a child.
///
/// The search's own surrogate, fitted to all children and taken back to top-1; see [`Calibrated`]. It is about the proxy that
/// children are trained on, not about the final training. What was picked for its expectation is expected too much of, like anything
/// that is best among many.
#[derive(Debug)]
pub struct ExpectedAccuracy {
    domain: CellDomain,
    fitted: Calibrated,
}

impl ExpectedAccuracy {
    /// Fits to trained children; one that diverged counts as the worst.
    ///
    /// # Errors
    /// [`ExpectedError`]; for fewer than [`MIN_EXAMPLES`](crate::surrogate::MIN_EXAMPLES) children, and where none has a score.
    /// # Complexity
    /// Eleven fits of a Gaussian process to as many examples as there are children.
    pub fn fit(meta: &MetaGraph, gate: &Gate<'_>, children: &[TrainedChild]) -> Result<Self, ExpectedError> {
        let domain = CellDomain::new(meta.clone(), None, gate)?;
        let scores = || children.iter().filter_map(|child| child.validation_top1);
        let worst = scores().min_by(f64::total_cmp).ok_or(ExpectedError::NoScore)?;
        let example =
            |child: &TrainedChild| (features(&domain, &child.architecture), child.validation_top1.unwrap_or(worst));
        let examples: Vec<(Features, f64)> = children.iter().map(example).collect();
        let fitted = Calibrated::fit(&KernelRidgeConfig::default(), &examples)?;
        Ok(Self { domain, fitted })
    }

    /// Expected validation top-1 of an architecture of the study's space, whose cells are in the meta-graph's numbering.
    ///
    /// # Panics
    /// If the architecture is not of the study's space.
    pub fn predict(&self, architecture: &Architecture) -> Expected {
        self.fitted.predict(&features(&self.domain, architecture))
    }

    /// How good predictions are, by children that were held out.
    pub fn check(&self) -> &CrossValidation {
        self.fitted.check()
    }
}

fn features(domain: &CellDomain, architecture: &Architecture) -> Features {
    let stages = domain.meta().stages();
    assert_eq!(stages.len(), architecture.stages.len(), "invariant: an architecture of the study's space");
    let edges = stages.iter().zip(&architecture.stages).map(|(meta, stage)| stage_edges(meta, &stage.cell));
    let layout = domain.space().layout_of(architecture).expect("invariant: an architecture of the study's space");
    Features::of(&domain.point(&Child::new(edges.collect()).with_layout(layout)), domain)
}

fn stage_edges(stage: &MetaStage, cell: &Cell) -> StageEdges {
    let edges = StageEdges::new(stage.n_nodes(), cell.edges());
    match stage.op_weights() {
        None => edges,
        Some(searched) => edges.with_ops(|node: CellNodeId| cell.op(node).unwrap_or(searched.menu()[0])),
    }
}

/// Why there is no expected accuracy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpectedError {
    /// No child has a score.
    #[error("no child has a score")]
    NoScore,
    /// The surrogate cannot be fitted to the children.
    #[error(transparent)]
    Surrogate(#[from] SurrogateError),
    /// Not even the space's smallest networks can be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
}
