//! What there is to choose from: combinations of thresholds, and what the caller proposes.

use std::collections::BTreeSet;
use std::rc::Rc;

use gram_ir::{CanonicalKey, Cell, EdgeMap};

use crate::candidates::{StageCandidate, stage_candidates};
use crate::setting::retained_weight;
use crate::{Candidate, Origin, Setting};

/// At most so many combinations of thresholds, evenly spread over those of each stage, are looked at beside the pruner's own front.
const MAX_GRID: usize = 4096;

/// A network to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) cells: Vec<Rc<Numbered>>,
    pub(crate) origin: Origin,
}

/// A cell in the complete DAG's numbering and in canonical form.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) cell: Cell,
    pub(crate) canonical: Cell,
    key: CanonicalKey,
    retained_weight: f64,
}

impl Numbered {
    pub(crate) fn new(cell: Cell, weights: &EdgeMap<f64>) -> Self {
        let (canonical, key) = (cell.canonical_form(), cell.canonical_key());
        let retained_weight = retained_weight(&cell, weights);
        Self { cell, canonical, key, retained_weight }
    }
}

impl Proposal {
    /// A network of these cells, in the numbering of the setting's complete DAGs.
    pub(crate) fn new(cells: &[Cell], origin: Origin, setting: &Setting<'_>) -> Self {
        let number =
            |(cell, stage): (&Cell, &crate::PrunableStage<'_>)| Rc::new(Numbered::new(cell.clone(), stage.weights));
        Self { cells: cells.iter().zip(setting.stages).map(number).collect(), origin }
    }

    pub(crate) fn retained_weight(&self) -> f64 {
        self.cells.iter().map(|cell| cell.retained_weight).sum()
    }

    pub(crate) fn cells(&self) -> Vec<Cell> {
        self.cells.iter().map(|cell| cell.cell.clone()).collect()
    }

    /// The cells as they would be trained.
    pub(crate) fn canonical(&self) -> Vec<Cell> {
        self.cells.iter().map(|cell| cell.canonical.clone()).collect()
    }

    /// Equal for networks that are the same but for the numbering of nodes.
    fn key(&self) -> Vec<CanonicalKey> {
        self.cells.iter().map(|cell| cell.key.clone()).collect()
    }
}

/// All different proposals: what is given, the pruner's front, and combinations of thresholds; of equal ones the first.
pub(crate) fn proposals(setting: &Setting<'_>, given: &[(usize, Vec<Cell>)], front: &[Candidate]) -> Vec<Proposal> {
    let given = given.iter().map(|(number, cells)| Proposal::new(cells, Origin::Given(*number), setting));
    let pruned = front.iter().map(|candidate| {
        let cells: Vec<Cell> = candidate.architecture.stages.iter().map(|stage| stage.cell.clone()).collect();
        Proposal::new(&cells, Origin::Thresholds(candidate.thresholds.clone()), setting)
    });
    let mut known = BTreeSet::new();
    given.chain(pruned).chain(grid(setting)).filter(|proposal| known.insert(proposal.key())).collect()
}

/// Combinations of thresholds.
fn grid(setting: &Setting<'_>) -> Vec<Proposal> {
    let mut stages: Vec<Vec<(Rc<Numbered>, f64)>> = Vec::new();
    let candidates: Vec<Vec<StageCandidate>> = setting
        .stages
        .iter()
        .map(|stage| stage_candidates(stage.ops, stage.weights, setting.space.max_in_degree))
        .collect();
    let most = per_stage(&candidates.iter().map(Vec::len).collect::<Vec<_>>());
    for (stage, candidates) in setting.stages.iter().zip(candidates) {
        let numbered = |candidate: &StageCandidate| {
            (Rc::new(Numbered::new(candidate.cell.clone(), stage.weights)), candidate.threshold)
        };
        stages.push(crate::prune::spread(&candidates, most).map(numbered).collect());
    }
    let mut combinations: Vec<(Vec<Rc<Numbered>>, Vec<f64>)> = vec![Default::default()];
    for stage in &stages {
        let longer = |(cells, thresholds): &(Vec<Rc<Numbered>>, Vec<f64>)| {
            let with = |(cell, threshold): &(Rc<Numbered>, f64)| {
                let cells = cells.iter().cloned().chain([cell.clone()]).collect();
                (cells, thresholds.iter().copied().chain([*threshold]).collect())
            };
            stage.iter().map(with).collect::<Vec<_>>()
        };
        combinations = combinations.iter().flat_map(longer).collect();
    }
    let proposal = |(cells, thresholds)| Proposal { cells, origin: Origin::Thresholds(thresholds) };
    combinations.into_iter().map(proposal).collect()
}

/// The most candidates of each stage for which there are no more than [`MAX_GRID`] combinations; two at least.
fn per_stage(counts: &[usize]) -> usize {
    let most = counts.iter().copied().max().unwrap_or(2);
    let n_combinations = |k: usize| counts.iter().map(|&n| n.min(k)).fold(1_usize, usize::saturating_mul);
    (2..=most).rev().find(|&k| n_combinations(k) <= MAX_GRID).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_as_fine_as_may_be() {
        assert_eq!(per_stage(&[28, 28]), 28);
        assert_eq!(per_stage(&[400, 400, 400]), 16);
        assert_eq!(per_stage(&[3, 400, 400]), 36);
        assert_eq!(per_stage(&[1; 20]), 2);
        assert_eq!(per_stage(&[9; 40]), 2);
    }
}
