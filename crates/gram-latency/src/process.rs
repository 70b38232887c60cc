//! Gaussian process regression with one length scale, chosen by marginal likelihood. Deterministic.

use rayon::prelude::*;

use crate::linalg::{Cholesky, dot};

/// A process that was fitted to points of `N` features.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Process<const N: usize> {
    points: Vec<[f64; N]>,
    /// Length scale, in units of the features.
    length: f64,
    /// Variance of the signal.
    signal: f64,
    /// Variance of the noise, as a share of the signal's.
    noise: f64,
    factor: Cholesky,
    weights: Vec<f64>,
}

const LENGTHS: [f64; 5] = [1.0, 2.0, 3.5, 6.0, 10.0];
const NOISES: [f64; 4] = [1e-3, 1e-2, 1e-1, 1.0];
/// Points that the grid is searched on.
const GRID_POINTS: usize = 300;

struct Fitted<const N: usize> {
    process: Process<N>,
    likelihood: f64,
}

impl<const N: usize> Process<N> {
    /// The process with the largest marginal likelihood of a small grid; `targets` have mean zero.
    ///
    /// # Source
    /// Rasmussen and Williams, *Gaussian Processes for Machine Learning*, section 5.4.1; the signal's variance in closed form.
    pub(crate) fn fit(points: Vec<[f64; N]>, targets: &[f64]) -> Self {
        let grid: Vec<(f64, f64)> =
            LENGTHS.iter().flat_map(|&length| NOISES.iter().map(move |&noise| (length, noise))).collect();
        let step = points.len().div_ceil(GRID_POINTS).max(1);
        let some: Vec<[f64; N]> = points.iter().step_by(step).copied().collect();
        let their_targets: Vec<f64> = targets.iter().step_by(step).copied().collect();
        let likelihood = |&(length, noise): &(f64, f64)| {
            let fitted = Self::with(some.clone(), &their_targets, length, noise);
            fitted.map_or(f64::NEG_INFINITY, |fitted| fitted.likelihood)
        };
        let likelihoods: Vec<f64> = grid.par_iter().map(likelihood).collect();
        let best = (0..grid.len()).max_by(|&a, &b| likelihoods[a].total_cmp(&likelihoods[b])).unwrap_or(0);
        let (length, noise) = grid[best];
        let chosen = Self::with(points, targets, length, noise);
        chosen.expect("invariant: noise on the diagonal makes the matrix positive definite").process
    }

    fn with(points: Vec<[f64; N]>, targets: &[f64], length: f64, noise: f64) -> Option<Fitted<N>> {
        let n = points.len();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..i {
                let similarity = similarity(&points[i], &points[j], length);
                matrix[i * n + j] = similarity;
                matrix[j * n + i] = similarity;
            }
            matrix[i * n + i] = 1.0 + noise;
        }
        let factor = Cholesky::new(n, &matrix)?;
        let weights = factor.solve(targets);
        let signal = (dot(targets, &weights) / n as f64).max(1e-8);
        let likelihood = -0.5 * (n as f64 * signal.ln() + factor.log_determinant());
        Some(Fitted { process: Self { points, length, signal, noise, factor, weights }, likelihood })
    }

    /// Number of points.
    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// Mean and standard deviation of a new observation at a point.
    pub(crate) fn at(&self, point: &[f64; N]) -> (f64, f64) {
        let near: Vec<f64> = self.points.iter().map(|other| similarity(other, point, self.length)).collect();
        let known = self.factor.forward(&near);
        let variance = self.signal * (1.0 + self.noise - dot(&known, &known)).max(0.0);
        (dot(&near, &self.weights), variance.sqrt())
    }

    /// Mean and standard deviation at each point, had it been left out.
    ///
    /// # Source
    /// Rasmussen and Williams, equations 5.12.
    pub(crate) fn left_out(&self, targets: &[f64]) -> Vec<(f64, f64)> {
        let precisions = self.factor.inverse_diagonal();
        let each = targets.iter().zip(&self.weights).zip(&precisions);
        each.map(|((target, weight), precision)| (target - weight / precision, (self.signal / precision).sqrt()))
            .collect()
    }
}

fn similarity<const N: usize>(a: &[f64; N], b: &[f64; N], length: f64) -> f64 {
    let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (-0.5 * distance / (length * length)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> (Vec<[f64; 2]>, Vec<f64>) {
        let points: Vec<[f64; 2]> = (0..30).map(|i| [f64::from(i % 6), f64::from(i / 6)]).collect();
        let targets: Vec<f64> = points.iter().map(|[x, y]| (0.8 * x).sin() + 0.1 * (y - 2.0)).collect();
        let mean = targets.iter().sum::<f64>() / 30.0;
        (points, targets.iter().map(|target| target - mean).collect())
    }

    #[test]
    fn smooth_functions_are_followed_and_doubted_far_away() {
        let (points, targets) = points();
        let process = Process::fit(points.clone(), &targets);
        for (point, target) in points.iter().zip(&targets) {
            assert!((process.at(point).0 - target).abs() < 0.02);
        }
        let ([_, near], [mean, far]) = (<[f64; 2]>::from(process.at(&[2.5, 2.5])), process.at(&[100.0, 100.0]).into());
        assert!(far > 5.0 * near && mean.abs() < 1e-9, "{near} {far} {mean}");
    }

    #[test]
    fn leaving_out_is_fitting_without() {
        let (points, targets) = points();
        let all = Process::fit(points.clone(), &targets);
        let without = |left_out: usize| {
            let rest = |i: &usize| *i != left_out;
            let some: Vec<[f64; 2]> = (0..30).filter(rest).map(|i| points[i]).collect();
            let their_targets: Vec<f64> = (0..30).filter(rest).map(|i| targets[i]).collect();
            Process::with(some, &their_targets, all.length, all.noise).unwrap().process.at(&points[left_out]).0
        };
        for (i, (mean, _)) in all.left_out(&targets).into_iter().enumerate() {
            assert!((mean - without(i)).abs() < 1e-8);
        }
    }
}
