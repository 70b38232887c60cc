//! Weights of operators, where those are searched.

use gram_ir::{CellNodeId, CellOp};

use crate::StageEdges;

/// For each operator node of a stage a categorical distribution over the menu of operators.
///
/// No probability falls below `2ε` over the size of the menu, so that a menu of two is bounded as an edge is, by ε and 1 − ε, and all
/// operators of a node share the same exploration of 2ε however long the menu is.
///
/// # Source
/// The edges' rule of ALGORITHMS 1.5 for categorical variables \[ours\].
#[derive(Clone, Debug, PartialEq)]
pub struct OpWeights {
    menu: Vec<CellOp>,
    /// Node 1's probabilities in the order of the menu, then node 2's, ….
    weights: Vec<f64>,
}

impl OpWeights {
    /// Every node with all operators of the list alike.
    pub(crate) fn prior(operators: &[CellOp], n_operator_nodes: usize) -> Self {
        let mut menu: Vec<CellOp> = Vec::new();
        for &op in operators {
            if !menu.contains(&op) {
                menu.push(op);
            }
        }
        let even = 1.0 / menu.len() as f64;
        Self { weights: vec![even; n_operator_nodes * menu.len()], menu }
    }

    /// From the parts of a file; the lengths must fit.
    pub(crate) fn from_parts(menu: Vec<CellOp>, weights: Vec<f64>) -> Self {
        Self { menu, weights }
    }

    /// The operators that a node may have, each once.
    pub fn menu(&self) -> &[CellOp] {
        &self.menu
    }

    /// The probabilities of a node's operators, in the order of the menu; none for the input or a node beyond the stage.
    pub fn of(&self, node: CellNodeId) -> Option<&[f64]> {
        self.weights.chunks_exact(self.menu.len()).nth(node.index().checked_sub(1)?)
    }

    /// All probabilities: node 1's in the order of the menu, then node 2's, ….
    pub fn values(&self) -> &[f64] {
        &self.weights
    }

    /// All probabilities, node by node.
    pub(crate) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut [f64]> {
        self.weights.chunks_exact_mut(self.menu.len())
    }

    /// Mixes the operators of a child's live nodes in with weight `share`.
    pub(crate) fn tilt(&mut self, kept: &StageEdges, share: f64) {
        let Self { menu, weights } = self;
        for (index, weights) in weights.chunks_exact_mut(menu.len()).enumerate() {
            let chosen = kept.op(CellNodeId(index as u16 + 1));
            for (op, weight) in menu.iter().zip(weights).filter(|_| chosen.is_some()) {
                *weight = (1.0 - share) * *weight + if chosen == Some(*op) { share } else { 0.0 };
            }
        }
    }

    /// Where an operator stands on the menu.
    pub(crate) fn index(&self, op: CellOp) -> Option<usize> {
        self.menu.iter().position(|&other| other == op)
    }

    /// Replaces each operator of `ops` that is not the likeliest of its node by the first that is.
    pub(crate) fn keep_likeliest(&self, ops: &mut [CellOp]) {
        for (op, weights) in ops.iter_mut().zip(self.weights.chunks_exact(self.menu.len())) {
            let most = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let is_likeliest = |op: CellOp| self.index(op).is_some_and(|index| weights[index] == most);
            if !is_likeliest(*op) {
                *op = self.menu[weights.iter().position(|&weight| weight == most).unwrap_or(0)];
            }
        }
    }
}

/// The least probability of an operator.
pub(crate) fn floor(n_ops: usize, epsilon: f64) -> f64 {
    2.0 * epsilon.min(0.5) / n_ops as f64
}

/// Raises probabilities to the floor; the others give in proportion to what they have above it. The sum becomes 1.
///
/// Changes nothing (but rounding) if none is below; two operators are clipped to `[ε, 1 − ε]`.
pub(crate) fn raise_to_floor(weights: &mut [f64], epsilon: f64) {
    let floor = floor(weights.len(), epsilon);
    let above = |weight: f64| (weight - floor).max(0.0);
    let slack: f64 = weights.iter().map(|&weight| above(weight)).sum();
    if slack == 0.0 {
        weights.fill(1.0 / weights.len() as f64);
        return;
    }
    let scale = (1.0 - floor * weights.len() as f64) / slack;
    for weight in weights {
        *weight = floor + above(*weight) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prior_knows_each_operator_once() {
        let weights = OpWeights::prior(&[CellOp::Sep3x3, CellOp::Conv1x1, CellOp::Sep3x3], 2);
        assert_eq!(weights.menu(), [CellOp::Sep3x3, CellOp::Conv1x1]);
        assert_eq!(weights.values(), [0.5; 4]);
        assert_eq!(weights.of(CellNodeId(2)), Some([0.5; 2].as_slice()));
        assert_eq!((weights.of(CellNodeId(0)), weights.of(CellNodeId(3))), (None, None));
    }

    #[test]
    fn raising_by_hand() {
        // Floor 2·0.03/3 = 0.02; slacks 0.68, 0.28, 0 are scaled by 0.94/0.96.
        let mut weights = [0.7, 0.3, 0.0];
        raise_to_floor(&mut weights, 0.03);
        let scale = 0.94 / 0.96;
        for (weight, expected) in weights.iter().zip([0.02 + 0.68 * scale, 0.02 + 0.28 * scale, 0.02]) {
            assert!((weight - expected).abs() < 1e-15, "{weight} {expected}");
        }
        let mut two = [1.0, 0.0];
        raise_to_floor(&mut two, 0.02);
        assert!((two[0] - 0.98).abs() < 1e-15 && two[1] == 0.02);
        let mut one = [1.0];
        raise_to_floor(&mut one, 0.02);
        assert!((one[0] - 1.0).abs() < 1e-15);
    }

    #[test]
    fn the_likeliest_operator_is_kept_on_ties() {
        let menu = vec![CellOp::Conv1x1, CellOp::Sep3x3];
        let weights = OpWeights::from_parts(menu, vec![0.5, 0.5, 0.9, 0.1]);
        let mut ops = [CellOp::Sep3x3, CellOp::Sep3x3];
        weights.keep_likeliest(&mut ops);
        assert_eq!(ops, [CellOp::Sep3x3, CellOp::Conv1x1]);
    }
}
