//! Paired tests of two strategies over the same seeds.

use serde::{Deserialize, Serialize};

/// What paired differences say about the strategies' order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedTest {
    /// Mean difference.
    pub mean_difference: f64,
    /// Pairs with a difference above 0.
    pub wins: usize,
    /// Pairs without one.
    pub ties: usize,
    /// Pairs with a difference below 0.
    pub losses: usize,
    /// Two-sided p of the Wilcoxon signed-rank test.
    pub p_wilcoxon: f64,
    /// Two-sided p of the sign test.
    pub p_sign: f64,
}

/// Up to this number of differences other than 0 the Wilcoxon test is exact.
const MAX_EXACT: usize = 25;

/// Tests whether paired differences lie around 0; ties are left out of both tests.
///
/// The Wilcoxon test counts all signs of the (mid-)ranks up to 25 differences; beyond, it is the normal approximation with corrections for
/// equal ranks and continuity. The sign test is exact up to 1000 differences, then normal. Without any difference both p are 1.
/// # Source
/// Wilcoxon, Individual Comparisons by Ranking Methods, 1945.
pub fn paired_test(differences: &[f64]) -> PairedTest {
    let wins = differences.iter().filter(|&&d| d > 0.0).count();
    let losses = differences.iter().filter(|&&d| d < 0.0).count();
    PairedTest {
        mean_difference: differences.iter().sum::<f64>() / differences.len().max(1) as f64,
        wins,
        ties: differences.len() - wins - losses,
        losses,
        p_wilcoxon: wilcoxon(differences),
        p_sign: sign_test(wins, losses),
    }
}

fn wilcoxon(differences: &[f64]) -> f64 {
    let mut nonzero: Vec<f64> = differences.iter().copied().filter(|&d| d != 0.0).collect();
    nonzero.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = nonzero.len();
    // Twice the mid-ranks, so that they are whole numbers.
    let mut ranks = Vec::with_capacity(n);
    let mut tie_term = 0.0;
    for group in nonzero.chunk_by(|a, b| a.abs() == b.abs()) {
        let (before, size) = (ranks.len(), group.len());
        ranks.extend(std::iter::repeat_n(2 * before + size + 1, size));
        tie_term += (size.pow(3) - size) as f64;
    }
    let positive: usize = ranks.iter().zip(&nonzero).filter(|(_, d)| **d > 0.0).map(|(rank, _)| rank).sum();
    let total = n * (n + 1);
    let extreme = positive.min(total - positive);
    if n == 0 {
        return 1.0;
    }
    if n <= MAX_EXACT {
        return (2.0 * share_of_sums_up_to(&ranks, extreme)).min(1.0);
    }
    let n = n as f64;
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - tie_term / 48.0;
    // Sums of doubled ranks are halved; the continuity correction is half a rank.
    let distance = (n * (n + 1.0) / 4.0 - extreme as f64 / 2.0 - 0.5).max(0.0);
    two_sided(distance / variance.sqrt())
}

/// Share of all choices of signs whose positive ranks sum to at most `most`.
fn share_of_sums_up_to(ranks: &[usize], most: usize) -> f64 {
    let mut counts = vec![0.0; ranks.iter().sum::<usize>() + 1];
    counts[0] = 1.0;
    for &rank in ranks {
        for sum in (rank..counts.len()).rev() {
            counts[sum] += counts[sum - rank];
        }
    }
    counts[..=most].iter().sum::<f64>() / 2f64.powi(ranks.len() as i32)
}

fn sign_test(wins: usize, losses: usize) -> f64 {
    let (n, fewer) = (wins + losses, wins.min(losses));
    if n == 0 {
        return 1.0;
    }
    if n > 1000 {
        let distance = (n as f64 / 2.0 - fewer as f64 - 0.5).max(0.0);
        return two_sided(distance / (n as f64).sqrt() * 2.0);
    }
    // Σ C(n, k) / 2^n, k <= fewer, by the ratio of neighbouring terms.
    let (mut term, mut sum) = (0.5f64.powi(n as i32), 0.0);
    for k in 0..=fewer {
        sum += term;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    (2.0 * sum).min(1.0)
}

/// `P(|Z| >= z)` of a standard normal variable, relative error below 2e-7 up to its underflow.
///
/// # Source
/// The Chebyshev fit of `erfc` in Numerical Recipes (`erfcc`).
fn two_sided(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    const COEFFICIENTS: [f64; 10] = [
        -1.26551223,
        1.00002368,
        0.37409196,
        0.09678418,
        -0.18628806,
        0.27886807,
        -1.13520398,
        1.48851587,
        -0.82215223,
        0.17087277,
    ];
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    (t * (polynomial - x * x).exp()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_are_exact() {
        // Five positive differences: 1 of 32 sign patterns is as extreme on each side.
        let test = paired_test(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((test.p_wilcoxon, test.p_sign, test.wins), (0.0625, 0.0625, 5));
        // Ranks 1, 2, 3 with 1 negative: sums 0, 1 of 8 patterns, two-sided 4/8.
        assert_eq!(paired_test(&[-1.0, 2.0, 3.0, 0.0]).p_wilcoxon, 0.5);
        // Two of each sign at equal distance: nothing.
        let even = paired_test(&[-1.0, 1.0, -1.0, 1.0]);
        assert_eq!((even.p_wilcoxon, even.p_sign), (1.0, 1.0));
        assert_eq!(paired_test(&[0.0; 9]).p_wilcoxon, 1.0);
    }

    #[test]
    fn large_samples_are_near_the_exact_ones() {
        let differences: Vec<f64> = (1..=25).map(|i| if i % 3 == 0 { -f64::from(i) } else { f64::from(i) }).collect();
        let exact = wilcoxon(&differences);
        let (n, positive) = (25.0f64, 217.0f64);
        let z = (positive - n * (n + 1.0) / 4.0 - 0.5) / (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt();
        assert!((exact - two_sided(z)).abs() < 0.02 * exact, "{exact} {}", two_sided(z));
        assert!((two_sided(1.959964) - 0.05).abs() < 1e-6 && (two_sided(0.0) - 1.0).abs() < 1e-6);
        assert!((sign_test(600, 401) / sign_test(599, 401) - 1.0).abs() < 0.2);
    }
}
