//! Rewrites of cells, and the same rewrites for the stages of an architecture.
//!
//! Two nodes of a cell that have the same operator and the same inputs are *not* merged here: their weights are their own, so a cell with
//! one of them computes another function. Networks with weights have a transform for nodes that really are equal.

use crate::{Architecture, Cell, CellNodeId, EdgeMap, Transform, TransformFailure};

/// Removes the edges that weigh less than `cut`; name `prune-edges`.
///
/// Nodes stay, so what is dead or a leaf afterwards is decided anew: the cost may even rise. For cuts `c₁ ≤ c₂` the edges that `c₂`
/// keeps are among those that `c₁` keeps.
///
/// # Errors
/// [`TransformFailure::Unsuitable`] if an edge of the cell has no weight, or if a weight or `cut` is not a number.
/// # Source
/// ALGORITHMS 1.6, steps 1 and 2 \[ours\].
/// # Example
/// ```
/// use gram_ir::{Cell, CellNodeId, CellOp, EdgeMap, PruneEdges, apply_checked};
/// let mut cell = Cell::new();
/// for n in [1, 2] {
///     cell.add_node(CellNodeId(n), CellOp::Conv1x1)?;
///     cell.add_edge(CellNodeId::INPUT, CellNodeId(n))?;
/// }
/// cell.add_edge(CellNodeId(1), CellNodeId(2))?;
/// let weights = EdgeMap::from_fn(3, |from, _| if from == CellNodeId::INPUT { 0.5 } else { 0.2 });
/// assert!(apply_checked(&PruneEdges { weights: &weights, cut: 0.5 }, &mut cell)?);
/// assert_eq!(cell.leaves(), [CellNodeId(1), CellNodeId(2)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PruneEdges<'a> {
    /// A weight for each candidate edge.
    pub weights: &'a EdgeMap<f64>,
    /// The least weight that is kept.
    pub cut: f64,
}

impl Transform<Cell> for PruneEdges<'_> {
    fn name(&self) -> &'static str {
        "prune-edges"
    }

    fn apply(&self, cell: &mut Cell) -> Result<bool, TransformFailure> {
        if self.cut.is_nan() {
            return Err(TransformFailure::Unsuitable("the cut is not a number".into()));
        }
        let mut changed = false;
        for (from, to) in cell.edges() {
            if weight(self.weights, from, to)? < self.cut {
                changed |= cell.remove_edge(from, to);
            }
        }
        Ok(changed)
    }
}

fn weight(weights: &EdgeMap<f64>, from: CellNodeId, to: CellNodeId) -> Result<f64, TransformFailure> {
    let unsuitable = |what: String| TransformFailure::Unsuitable(format!("edge {from} -> {to} {what}"));
    match weights.get(from, to) {
        None => Err(unsuitable(format!("has no weight: there are weights for {} nodes", weights.n_nodes()))),
        Some(weight) if weight.is_nan() => Err(unsuitable("has a weight that is not a number".into())),
        Some(&weight) => Ok(weight),
    }
}

/// Removes the nodes that no path leads to from the input, with their edges; name `drop-dead-nodes`.
///
/// Keeps the function: edges out of dead nodes do not exist for the model (ALGORITHMS 1.2, sibling code). Ids stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct DropDeadNodes;

impl Transform<Cell> for DropDeadNodes {
    fn name(&self) -> &'static str {
        "drop-dead-nodes"
    }

    fn apply(&self, cell: &mut Cell) -> Result<bool, TransformFailure> {
        let live = cell.live();
        let dead: Vec<CellNodeId> = cell.ops().map(|(id, _)| id).filter(|id| !live.contains(id)).collect();
        for &id in &dead {
            cell.remove_node(id);
        }
        Ok(!dead.is_empty())
    }
}

/// Makes the cell its [`Cell::canonical_form`]: live nodes only, renumbered 0, 1, 2, … in canonical order; name `canonicalise-cell`.
///
/// Keeps the function up to the order in which channels are concatenated. Isomorphic cells become equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct CanonicaliseCell;

impl Transform<Cell> for CanonicaliseCell {
    fn name(&self) -> &'static str {
        "canonicalise-cell"
    }

    fn apply(&self, cell: &mut Cell) -> Result<bool, TransformFailure> {
        let form = cell.canonical_form();
        let changed = form != *cell;
        *cell = form;
        Ok(changed)
    }
}

/// Rewrites the cell of every stage with one transform, whose name it has; `EachCell(DropDeadNodes)` is a `Transform<Architecture>`.
///
/// # Errors
/// [`TransformFailure::Stage`] around what the transform says, or if it would leave a stage without a live node.
#[derive(Clone, Copy, Debug, Default)]
pub struct EachCell<T>(
    /// What is done to each cell.
    pub T,
);

impl<T: Transform<Cell>> Transform<Architecture> for EachCell<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn apply(&self, architecture: &mut Architecture) -> Result<bool, TransformFailure> {
        let mut changed = false;
        for stage in 0..architecture.stages.len() {
            changed |= apply_to_stage(&self.0, architecture, stage)?;
        }
        Ok(changed)
    }
}

/// Rewrites the cell of stage `i` with the `i`-th transform, whose name it has.
///
/// Pruning needs this: each stage has edge weights of its own.
///
/// # Errors
/// As [`EachCell`]; [`TransformFailure::Unsuitable`] if there are not as many transforms as stages.
#[derive(Clone, Debug, Default)]
pub struct PerStage<T>(
    /// What is done to the cell of each stage, in order.
    pub Vec<T>,
);

impl<T: Transform<Cell>> Transform<Architecture> for PerStage<T> {
    fn name(&self) -> &'static str {
        self.0.first().map_or("per-stage", Transform::name)
    }

    fn apply(&self, architecture: &mut Architecture) -> Result<bool, TransformFailure> {
        let (given, stages) = (self.0.len(), architecture.stages.len());
        if given != stages {
            let what = format!("there are {given} transforms for {stages} stages");
            return Err(TransformFailure::Unsuitable(what));
        }
        let mut changed = false;
        for (stage, transform) in self.0.iter().enumerate() {
            changed |= apply_to_stage(transform, architecture, stage)?;
        }
        Ok(changed)
    }
}

fn apply_to_stage(
    transform: &impl Transform<Cell>,
    architecture: &mut Architecture,
    stage: usize,
) -> Result<bool, TransformFailure> {
    let in_stage = |source| TransformFailure::Stage { stage, source: Box::new(source) };
    let cell = &mut architecture.stages[stage].cell;
    let changed = transform.apply(cell).map_err(in_stage)?;
    if changed && cell.leaves().is_empty() {
        let what = "no node of the cell would be reached from its input";
        return Err(in_stage(TransformFailure::Unsuitable(what.into())));
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, CellOp, CellOutput, Downsample, Head, Shape, Stage, TransformError, apply_checked};

    fn cell(edges: &[(u16, u16)]) -> Cell {
        let mut cell = Cell::new();
        for n in 1..=3 {
            cell.add_node(CellNodeId(n), CellOp::Sep3x3).unwrap();
        }
        for &(from, to) in edges {
            cell.add_edge(CellNodeId(from), CellNodeId(to)).unwrap();
        }
        cell
    }

    /// Edge `i → j` weighs `j / 4`.
    fn weights(n_nodes: usize) -> EdgeMap<f64> {
        EdgeMap::from_fn(n_nodes, |_, to| f64::from(to.0) / 4.0)
    }

    fn two_stages(cell: &Cell) -> Architecture {
        let stage = Stage {
            cell: cell.clone(),
            repeats: 1,
            node_channels: 2,
            downsample: Downsample::None,
            output: CellOutput { project: None, residual: false, linear_leaves: false, activation: false },
        };
        Architecture {
            name: "two-stages".into(),
            input: Shape::chw(1, 4, 4),
            num_classes: 2,
            activation: Activation::Relu,
            stem: Vec::new(),
            stages: vec![stage.clone(), stage],
            head: Head::default(),
        }
    }

    #[test]
    fn edges_below_the_cut_go_and_nodes_stay() {
        let weights = weights(4);
        let mut pruned = cell(&[(0, 1), (1, 2), (0, 3), (2, 3)]);
        let pass = PruneEdges { weights: &weights, cut: 0.5 };
        assert_eq!(apply_checked(&pass, &mut pruned), Ok(true));
        assert_eq!(pruned, cell(&[(1, 2), (0, 3), (2, 3)]));
        assert_eq!(apply_checked(&pass, &mut pruned), Ok(false));
        assert_eq!(apply_checked(&DropDeadNodes, &mut pruned), Ok(true));
        assert_eq!(pruned.ops().collect::<Vec<_>>(), [(CellNodeId(3), CellOp::Sep3x3)]);
    }

    #[test]
    fn what_cannot_be_pruned_is_refused_unchanged() {
        #[track_caller]
        fn refused(weights: &EdgeMap<f64>, cut: f64, message: &str) {
            let before = cell(&[(0, 1), (0, 3)]);
            let mut after = before.clone();
            let error = apply_checked(&PruneEdges { weights, cut }, &mut after).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(after, before);
        }
        refused(&weights(3), 0.5, "prune-edges: edge n0 -> n3 has no weight: there are weights for 3 nodes");
        refused(&weights(4), f64::NAN, "prune-edges: the cut is not a number");
        let mut broken = weights(4);
        broken.values_mut()[0] = f64::NAN;
        refused(&broken, 0.5, "prune-edges: edge n0 -> n1 has a weight that is not a number");
    }

    #[test]
    fn stages_are_rewritten_together_or_not_at_all() {
        let weights = weights(4);
        let before = two_stages(&cell(&[(0, 1), (0, 2), (0, 3)]));
        let prune = |cut| PruneEdges { weights: &weights, cut };

        let mut after = before.clone();
        assert_eq!(apply_checked(&PerStage(vec![prune(0.5), prune(0.75)]), &mut after), Ok(true));
        assert_eq!(after.stages[0].cell, cell(&[(0, 2), (0, 3)]));
        assert_eq!(after.stages[1].cell, cell(&[(0, 3)]));
        assert_eq!(apply_checked(&EachCell(DropDeadNodes), &mut after), Ok(true));
        assert_eq!(apply_checked(&EachCell(DropDeadNodes), &mut after), Ok(false));

        let mut refused = before.clone();
        let error = apply_checked(&PerStage(vec![prune(0.5), prune(0.9)]), &mut refused).unwrap_err();
        assert_eq!(error.to_string(), "prune-edges: stage 1: no node of the cell would be reached from its input");
        let error = apply_checked(&PerStage(vec![prune(0.5)]), &mut refused).unwrap_err();
        assert!(matches!(error, TransformError::Failed { .. }), "{error}");
        assert_eq!(refused, before);
    }
}
