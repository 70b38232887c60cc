//! How good predictions are.

use serde::Serialize;

/// Predictions against measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Networks.
    pub n: usize,
    /// Mean of `|predicted − measured| / measured`.
    pub mape: f64,
    /// Share of predictions within 5 % of the measurement.
    pub within_5_percent: f64,
    /// Share of predictions within 10 % of the measurement.
    pub within_10_percent: f64,
    /// Largest relative error.
    pub worst: f64,
    /// Mean of `(predicted − measured) / measured`, with its sign.
    pub bias: f64,
    /// Spearman's rank correlation.
    pub spearman: f64,
}

impl Accuracy {
    /// Of predictions and measurements in the same order, all above 0.
    pub fn of(predicted: &[f64], measured: &[f64]) -> Self {
        let errors: Vec<f64> =
            predicted.iter().zip(measured).map(|(predicted, measured)| predicted / measured - 1.0).collect();
        let n = errors.len();
        let share = |most: f64| errors.iter().filter(|error| error.abs() <= most).count() as f64 / n as f64;
        Self {
            n,
            mape: errors.iter().map(|error| error.abs()).sum::<f64>() / n as f64,
            within_5_percent: share(0.05),
            within_10_percent: share(0.1),
            worst: errors.iter().map(|error| error.abs()).fold(0.0, f64::max),
            bias: errors.iter().sum::<f64>() / n as f64,
            spearman: spearman(predicted, measured),
        }
    }
}

/// Spearman's rank correlation, equal values having their mean rank; 0 if all values of one side are equal.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    if scale > 0.0 { product(&a, &b) / scale } else { 0.0 }
}

/// Ranks from 0, equal values having their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = start as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter().for_each(|&i| ranks[i] = mean);
        start += group.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let accuracy = Accuracy::of(&[1.04, 1.8, 3.0, 4.0], &[1.0, 2.0, 3.0, 5.0]);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(accuracy.mape, (0.04 + 0.1 + 0.2) / 4.0) && close(accuracy.bias, (0.04 - 0.1 - 0.2) / 4.0));
        assert_eq!((accuracy.within_5_percent, accuracy.n, accuracy.spearman), (0.5, 4, 1.0));
        assert!(close(accuracy.worst, 0.2));
    }

    #[test]
    fn ranks_share_their_mean() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
        // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: 4.5 / √(4.5 · 5).
        assert!((spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]) - (4.5f64 / 5.0).sqrt()).abs() < 1e-12);
    }
}
