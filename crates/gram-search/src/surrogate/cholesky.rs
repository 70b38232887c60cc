//! Cholesky factors that grow by a row.

/// A lower triangular `L` with `L·Lᵀ` the matrix whose rows were pushed.
#[derive(Clone, Debug, Default)]
pub(super) struct Cholesky {
    rows: Vec<Vec<f64>>,
}

impl Cholesky {
    /// Adds a row of the matrix: its entries before the diagonal, and that on it. False, and nothing changes, unless the matrix stays
    /// positive definite.
    pub(super) fn push(&mut self, before: &[f64], diagonal: f64) -> bool {
        let mut row = self.solve(before);
        let rest = diagonal - row.iter().map(|x| x * x).sum::<f64>();
        if rest > 0.0 && rest.is_finite() {
            row.push(rest.sqrt());
            self.rows.push(row);
            true
        } else {
            false
        }
    }

    /// `L⁻¹·b` for the first `b.len()` rows.
    pub(super) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = Vec::with_capacity(b.len() + 1);
        for (row, &right) in self.rows.iter().zip(b) {
            let Some((&diagonal, before)) = row.split_last() else { break };
            x.push((right - dot(before, &x)) / diagonal);
        }
        x
    }

    /// Half the logarithm of the matrix's determinant.
    pub(super) fn half_log_determinant(&self) -> f64 {
        self.rows.iter().filter_map(|row| row.last()).map(|diagonal| diagonal.ln()).sum()
    }
}

/// `Σ a·b` in four independent sums, which compilers turn into vector instructions; the order is fixed, so results are too.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a4, a_rest) = a.as_chunks::<4>();
    let (b4, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (x, y) in a4.iter().zip(b4) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_by_hand() {
        // [[4, 2], [2, 5]] = L·Lᵀ with L = [[2, 0], [1, 2]].
        let mut factor = Cholesky::default();
        assert!(factor.push(&[], 4.0) && factor.push(&[2.0], 5.0));
        assert_eq!(factor.solve(&[2.0, 5.0]), [1.0, 2.0]);
        assert!((factor.half_log_determinant() - 4f64.ln()).abs() < 1e-15);
        // A third row equal to the second one is singular.
        assert!(!factor.push(&[2.0, 5.0], 5.0));
        assert_eq!(factor.solve(&[2.0, 5.0]), [1.0, 2.0]);
    }

    #[test]
    fn unrolled_sums_are_whole() {
        let a: Vec<f64> = (0..11).map(f64::from).collect();
        assert_eq!(dot(&a, &a), 385.0);
    }
}
