//! The little linear algebra that fitting needs: symmetric positive definite systems and small non-negative least squares.

/// A lower triangular Cholesky factor, rows one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cholesky {
    n: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factor of the symmetric `n`×`n` matrix; none if it is not positive definite.
    ///
    /// # Complexity
    /// n³/6 multiply–adds.
    pub(crate) fn new(n: usize, matrix: &[f64]) -> Option<Self> {
        let mut lower = vec![0.0; n * n];
        for i in 0..n {
            let (above, rest) = lower.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &above[j * n..j * n + j + 1];
                row[j] = (matrix[i * n + j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = matrix[i * n + i] - dot(&row[..i], &row[..i]);
            if pivot.is_nan() || pivot <= 0.0 {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        Some(Self { n, lower })
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.lower[i * self.n..i * self.n + i + 1]
    }

    /// `x` with `L x = b`.
    pub(crate) fn forward(&self, b: &[f64]) -> Vec<f64> {
        let mut x = Vec::with_capacity(self.n);
        for (i, b) in b.iter().enumerate() {
            let row = self.row(i);
            x.push((b - dot(&row[..i], &x)) / row[i]);
        }
        x
    }

    /// `x` with `L Lᵀ x = b`.
    pub(crate) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = self.forward(b);
        for i in (0..self.n).rev() {
            let row = self.row(i);
            x[i] /= row[i];
            let xi = x[i];
            x[..i].iter_mut().zip(row).for_each(|(x, l)| *x -= l * xi);
        }
        x
    }

    /// Logarithm of the determinant of `L Lᵀ`.
    pub(crate) fn log_determinant(&self) -> f64 {
        2.0 * (0..self.n).map(|i| self.row(i)[i].ln()).sum::<f64>()
    }

    /// Diagonal of the inverse of `L Lᵀ`.
    ///
    /// # Complexity
    /// n³/6 multiply–adds.
    pub(crate) fn inverse_diagonal(&self) -> Vec<f64> {
        let mut diagonal = vec![0.0; self.n];
        // Column j of L⁻¹ starts at row j; the diagonal sums the squares of each column.
        for (j, sum) in diagonal.iter_mut().enumerate() {
            let mut column: Vec<f64> = Vec::with_capacity(self.n - j);
            for i in j..self.n {
                let row = self.row(i);
                let unit = if i == j { 1.0 } else { 0.0 };
                column.push((unit - dot(&row[j..i], &column)) / row[i]);
            }
            *sum = dot(&column, &column);
        }
        diagonal
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Least squares `Σ (row · x − target)²` with `x ≥ 0`, for few columns: the best of all subsets whose solution is not negative.
///
/// # Complexity
/// 2^columns small systems.
pub(crate) fn non_negative<const N: usize>(rows: &[[f64; N]], targets: &[f64]) -> [f64; N] {
    let mut best = ([0.0; N], targets.iter().map(|target| target * target).sum::<f64>());
    for subset in 1usize..1 << N {
        let columns: Vec<usize> = (0..N).filter(|column| subset >> column & 1 == 1).collect();
        let Some(solution) = least_squares(rows, targets, &columns) else { continue };
        if solution.iter().any(|&x| x < 0.0) {
            continue;
        }
        let mut x = [0.0; N];
        columns.iter().zip(&solution).for_each(|(&column, &value)| x[column] = value);
        let error: f64 = rows.iter().zip(targets).map(|(row, target)| (dot(row, &x) - target).powi(2)).sum();
        // A column more must be worth it: this also settles ties in favour of the first.
        if error < best.1 * (1.0 - 1e-9) {
            best = (x, error);
        }
    }
    best.0
}

fn least_squares<const N: usize>(rows: &[[f64; N]], targets: &[f64], columns: &[usize]) -> Option<Vec<f64>> {
    let n = columns.len();
    let mut matrix = vec![0.0; n * n];
    let mut right = vec![0.0; n];
    for (row, target) in rows.iter().zip(targets) {
        for (i, &a) in columns.iter().enumerate() {
            right[i] += row[a] * target;
            for (j, &b) in columns.iter().enumerate() {
                matrix[i * n + j] += row[a] * row[b];
            }
        }
    }
    // Columns of very different size: scaled to a unit diagonal, with a little on it against equal columns.
    let scale: Vec<f64> = (0..n).map(|i| matrix[i * n + i].sqrt()).collect();
    if scale.iter().any(|&scale| scale.is_nan() || scale <= 0.0) {
        return None;
    }
    for i in 0..n {
        right[i] /= scale[i];
        (0..n).for_each(|j| matrix[i * n + j] /= scale[i] * scale[j]);
        matrix[i * n + i] += 1e-10;
    }
    let solution = Cholesky::new(n, &matrix)?.solve(&right);
    Some(solution.iter().zip(&scale).map(|(x, scale)| x / scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `A = [[4, 2, 0.6], [2, 5, 1], [0.6, 1, 3]]`.
    const MATRIX: [f64; 9] = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];

    #[test]
    fn systems_are_solved() {
        let factor = Cholesky::new(3, &MATRIX).unwrap();
        let x = factor.solve(&[1.0, 2.0, 3.0]);
        for (i, b) in [1.0, 2.0, 3.0].into_iter().enumerate() {
            assert!((dot(&MATRIX[3 * i..3 * i + 3], &x) - b).abs() < 1e-12);
        }
        // det = 4·(15 − 1) − 2·(6 − 0.6) + 0.6·(2 − 3)
        assert!((factor.log_determinant() - 44.6f64.ln()).abs() < 1e-12);
        let unit = |i: usize| (0..3).map(|j| f64::from(u8::from(i == j))).collect::<Vec<_>>();
        let inverse: Vec<f64> = (0..3).map(|i| factor.solve(&unit(i))[i]).collect();
        assert!(factor.inverse_diagonal().iter().zip(&inverse).all(|(a, b)| (a - b).abs() < 1e-12));
        assert_eq!(Cholesky::new(2, &[1.0, 2.0, 2.0, 1.0]), None);
        assert_eq!(Cholesky::new(1, &[f64::NAN]), None);
    }

    #[test]
    fn solutions_are_not_negative() {
        // y = 2 + 3 x fits exactly; a third column of −x would need a negative factor.
        let rows: Vec<[f64; 3]> = (0..6).map(|x| [1.0, f64::from(x), -f64::from(x)]).collect();
        let targets: Vec<f64> = (0..6).map(|x| 2.0 + 3.0 * f64::from(x)).collect();
        let x = non_negative(&rows, &targets);
        assert!((x[0] - 2.0).abs() < 1e-6 && (x[1] - 3.0).abs() < 1e-6 && x[2] == 0.0, "{x:?}");
        let x = non_negative(&rows, &targets.iter().map(|y| -y).collect::<Vec<_>>());
        assert!(x[0] == 0.0 && x[1] == 0.0 && x[2] > 0.0, "{x:?}");
        assert_eq!(non_negative::<2>(&[], &[]), [0.0, 0.0]);
    }
}
