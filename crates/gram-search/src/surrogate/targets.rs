//! Scores as a surrogate learns them.

/// Scores replaced by the normal quantiles of their ranks, then scaled to mean 0 and variance 1; equal scores share their mean rank.
///
/// Tables have a few broken architectures far below all others, on which a least-squares fit of plain scores spends itself; ranks also make
/// the units of scores immaterial.
/// # Source
/// The copula transform of Salinas, Shen and Perrone, [arXiv:1909.13595](https://arxiv.org/abs/1909.13595).
pub(super) fn normal_scores(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut targets = vec![0.0; scores.len()];
    let mut before = 0;
    for group in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let middle = before as f64 + group.len() as f64 / 2.0;
        for &index in group {
            targets[index] = normal_quantile(middle / scores.len() as f64);
        }
        before += group.len();
    }
    let n = scores.len().max(1) as f64;
    let mean = targets.iter().sum::<f64>() / n;
    let sd = (targets.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n).sqrt();
    targets.iter_mut().for_each(|target| *target = (*target - mean) / if sd > 0.0 { sd } else { 1.0 });
    targets
}

/// The quantile of the standard normal distribution for `0 < p < 1`; absolute error below 4.5e-4, which is far less than a rank.
///
/// # Source
/// Abramowitz and Stegun 26.2.23.
pub(super) fn normal_quantile(p: f64) -> f64 {
    let tail = (-2.0 * p.min(1.0 - p).ln()).sqrt();
    let numerator = 2.515517 + tail * (0.802853 + tail * 0.010328);
    let denominator = 1.0 + tail * (1.432788 + tail * (0.189269 + tail * 0.001308));
    let quantile = tail - numerator / denominator;
    if p < 0.5 { -quantile } else { quantile }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_only_count() {
        let targets = normal_scores(&[10.0, -1e9, 11.0, 10.0]);
        assert_eq!(targets, normal_scores(&[2.0, 1.0, 3.0, 2.0]));
        assert!(targets[1] < targets[0] && targets[0] == targets[3] && targets[3] < targets[2]);
        assert!((targets.iter().map(|t| t * t).sum::<f64>() / 4.0 - 1.0).abs() < 1e-12);
        assert_eq!(normal_scores(&[5.0, 5.0]), [0.0, 0.0]);
        assert!(normal_scores(&[]).is_empty());
    }

    #[test]
    fn quantiles_of_the_normal_distribution() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959964), (0.025, -1.959964), (0.84134, 0.999996)] {
            assert!((normal_quantile(p) - z).abs() < 4.5e-4, "{p}");
        }
    }
}
