//! A table of evaluated architectures as a search domain.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::TabularError;
use crate::domain::{ClassKey, Decision, Domain, Histogram, Point};

/// A row as its reader gives it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) point: Point,
    /// Equal exactly for rows that compute the same function.
    pub(super) function: Vec<u32>,
    pub(super) validation: f64,
    pub(super) test: f64,
}

/// What all rows of a table have in common.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    pub(super) decisions: Vec<Decision>,
    /// See [`Domain::removal`].
    pub(super) removals: Vec<Option<u8>>,
    /// Lines of the file that repeated an architecture.
    pub(super) n_duplicates: usize,
}

/// How rows are taken to be the same architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// Rows that compute the same function share one evaluation.
    #[default]
    Function,
    /// Every row is evaluated on its own, as most published baselines do.
    Row,
}

/// A table of evaluated architectures.
///
/// The rows are all that there is: points without a row are infeasible. A table that holds most of its space is moved in by single edits;
/// of one that is a sample of a larger space, hardly any single edit leads to another row, and the neighbours of a row are then as many
/// nearest rows (by the number of decisions that differ, earlier rows first) as a complete table would have single edits.
#[derive(Debug)]
pub struct Table {
    layout: Layout,
    rows: Vec<Row>,
    index: HashMap<Point, usize>,
    /// Class of each row.
    classes: Vec<usize>,
    /// Rows of each class, ascending.
    members: Vec<Vec<usize>>,
    histograms: Vec<Histogram>,
    feasible: Vec<usize>,
    is_feasible: Vec<bool>,
    is_complete: bool,
    /// Of each class, filled when first asked for.
    neighbours: Vec<OnceLock<Vec<usize>>>,
}

impl Table {
    /// Builds the table; `histogram` is asked once for each class.
    pub(super) fn new(
        layout: Layout,
        rows: Vec<Row>,
        identity: Identity,
        histogram: impl Fn(&Row) -> Histogram,
    ) -> Self {
        let mut class_of: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut classes = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let key = match identity {
                Identity::Function => row.function.clone(),
                Identity::Row => vec![index as u32],
            };
            let class = *class_of.entry(key).or_insert(members.len());
            if class == members.len() {
                members.push(Vec::new());
            }
            members[class].push(index);
            classes.push(class);
        }
        let n_points = layout.decisions.iter().map(|d| f64::from(d.n_values())).product::<f64>();
        Self {
            index: rows.iter().enumerate().map(|(index, row)| (row.point.clone(), index)).collect(),
            histograms: members.iter().map(|rows_of| histogram(&rows[rows_of[0]])).collect(),
            feasible: (0..rows.len()).collect(),
            is_feasible: vec![true; rows.len()],
            is_complete: 2.0 * rows.len() as f64 >= n_points,
            neighbours: members.iter().map(|_| OnceLock::new()).collect(),
            layout,
            rows,
            classes,
            members,
        }
    }

    /// Keeps the rows whose `costs` are at most the `share` quantile of all rows' costs; ties at the quantile are kept.
    ///
    /// # Errors
    /// [`TabularError::NothingFeasible`] if none is left, [`TabularError::Range`] unless there is a cost for every row and `0 < share <= 1`.
    pub fn restrict(&mut self, costs: &[f64], share: f64) -> Result<(), TabularError> {
        if costs.len() != self.rows.len() {
            let value = costs.len().to_string();
            return Err(TabularError::Range { name: "number of costs", value, range: "the number of rows" });
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err(TabularError::Range {
                name: "limit share",
                value: share.to_string(),
                range: "above 0 and at most 1",
            });
        }
        let mut sorted = costs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let limit = sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
        self.is_feasible = costs.iter().map(|&cost| cost <= limit).collect();
        self.feasible = (0..self.rows.len()).filter(|&row| self.is_feasible[row]).collect();
        self.neighbours = self.members.iter().map(|_| OnceLock::new()).collect();
        if self.feasible.is_empty() { Err(TabularError::NothingFeasible) } else { Ok(()) }
    }

    /// The table's name.
    pub fn name(&self) -> &'static str {
        self.layout.name
    }

    /// Rows that keep the limits.
    pub fn feasible_rows(&self) -> &[usize] {
        &self.feasible
    }

    /// All rows.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Classes of equal function over all rows.
    pub fn n_classes(&self) -> usize {
        self.members.len()
    }

    /// Lines of the file that repeated an architecture; their values were averaged.
    pub fn n_duplicates(&self) -> usize {
        self.layout.n_duplicates
    }

    /// Whether the rows are most of their space.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The row of a point.
    pub fn row(&self, point: &Point) -> Option<usize> {
        self.index.get(point).copied()
    }

    /// The class of a row.
    pub fn class(&self, row: usize) -> usize {
        self.classes[row]
    }

    /// What a search may look at.
    pub fn validation(&self, row: usize) -> f64 {
        self.rows[row].validation
    }

    /// What it is judged by.
    pub fn test(&self, row: usize) -> f64 {
        self.rows[row].test
    }

    /// Whether points have single edits that take something away, and the points that remain exist.
    pub fn can_shrink(&self) -> bool {
        self.is_complete && self.layout.removals.iter().any(Option::is_some)
    }

    fn n_edits(&self) -> usize {
        self.layout.decisions.iter().map(|decision| usize::from(decision.n_values()) - 1).sum()
    }

    fn find_neighbours(&self, class: usize) -> Vec<usize> {
        if self.is_complete {
            let members: Vec<Point> = self.members[class].iter().map(|&row| self.rows[row].point.clone()).collect();
            let found = crate::domain::one_edit_neighbours(self, &members);
            return found.iter().filter_map(|point| self.row(point)).collect();
        }
        let own = &self.rows[self.members[class][0]].point;
        let others = self.feasible.iter().filter(|&&row| self.classes[row] != class);
        let mut near: Vec<(usize, usize)> =
            others.map(|&row| (n_different(own.values(), self.rows[row].point.values()), row)).collect();
        let n_kept = self.n_edits().min(near.len());
        if n_kept < near.len() {
            near.select_nth_unstable(n_kept);
            near.truncate(n_kept);
        }
        near.sort_unstable();
        near.into_iter().map(|(_, row)| row).collect()
    }
}

fn n_different(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).filter(|(x, y)| x != y).count()
}

impl Domain for Table {
    fn decisions(&self) -> &[Decision] {
        &self.layout.decisions
    }

    fn is_feasible(&self, point: &Point) -> bool {
        self.row(point).is_some_and(|row| self.is_feasible[row])
    }

    /// The number of the class; points without a row have the largest key.
    fn class_of(&self, point: &Point) -> ClassKey {
        ClassKey::new(self.row(point).map_or(u128::MAX, |row| self.classes[row] as u128))
    }

    fn members(&self, point: &Point) -> Vec<Point> {
        match self.row(point) {
            Some(row) => self.members[self.classes[row]].iter().map(|&row| self.rows[row].point.clone()).collect(),
            None => vec![point.clone()],
        }
    }

    fn histogram(&self, point: &Point) -> Histogram {
        self.row(point).map_or_else(Histogram::default, |row| self.histograms[self.classes[row]].clone())
    }

    fn removal(&self, decision: usize) -> Option<u8> {
        self.layout.removals.get(decision).copied().flatten()
    }

    /// A feasible row, all equally likely.
    fn random(&self, rng: &mut ChaCha8Rng) -> Option<Point> {
        let row = *self.feasible.get(rng.random_range(0..self.feasible.len().max(1)))?;
        Some(self.rows[row].point.clone())
    }

    fn neighbours(&self, point: &Point) -> Vec<Point> {
        let Some(row) = self.row(point) else { return Vec::new() };
        let class = self.classes[row];
        let rows = self.neighbours[class].get_or_init(|| self.find_neighbours(class));
        rows.iter().map(|&row| self.rows[row].point.clone()).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Three bits; the first two may be exchanged. The score is the number read as binary.
    pub(in crate::tabular) fn bits(identity: Identity) -> Table {
        let rows = (0..8u8).map(|n| {
            let bits = [n >> 2 & 1, n >> 1 & 1, n & 1];
            let function = vec![u32::from(bits[0] + bits[1]), u32::from(bits[2])];
            Row { point: Point::from(bits), function, validation: f64::from(n), test: f64::from(n) }
        });
        let layout = Layout {
            name: "bits",
            decisions: (0..3).map(|i| Decision::new(format!("bit{i}"), 2)).collect(),
            removals: vec![Some(0); 3],
            n_duplicates: 0,
        };
        Table::new(layout, rows.collect(), identity, |row| {
            row.point.values().iter().map(|&b| (u64::from(b), 1.0)).collect()
        })
    }

    fn values(points: &[Point]) -> Vec<&[u8]> {
        points.iter().map(Point::values).collect()
    }

    #[test]
    fn neighbours_reach_over_all_members_and_stay_outside_the_class() {
        let table = bits(Identity::Function);
        assert_eq!((table.n_rows(), table.n_classes()), (8, 6));
        let point = Point::from([1, 0, 0]);
        assert_eq!(values(&table.members(&point)), [[0, 1, 0], [1, 0, 0]]);
        // From 010: 110, 000, 011; from 100: 101 is the class of 011.
        assert_eq!(values(&table.neighbours(&point)), [[1, 1, 0], [0, 0, 0], [0, 1, 1]]);
        assert_eq!(bits(Identity::Row).neighbours(&point).len(), 3);
    }

    #[test]
    fn limits_make_rows_infeasible() {
        let mut table = bits(Identity::Function);
        table.restrict(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 0.25).unwrap();
        assert_eq!(table.feasible_rows(), [6, 7]);
        assert!(!table.is_feasible(&Point::from([0, 0, 0])));
        assert_eq!(values(&table.neighbours(&Point::from([1, 1, 0]))), [[1, 1, 1]]);
        assert!(matches!(table.restrict(&[1.0], 0.25), Err(TabularError::Range { .. })));
        assert!(matches!(table.restrict(&[1.0; 8], 0.0), Err(TabularError::Range { .. })));
    }

    #[test]
    fn a_sample_is_moved_in_by_distance() {
        let full = bits(Identity::Row);
        let rows = [0, 3, 7].map(|row| full.rows[row].clone()).to_vec();
        let table = Table::new(full.layout.clone(), rows, Identity::Row, |_| Histogram::default());
        assert!(!table.is_complete() && !table.can_shrink());
        assert_eq!(values(&table.neighbours(&Point::from([0, 0, 0]))), [[0, 1, 1], [1, 1, 1]]);
    }
}
