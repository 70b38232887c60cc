//! Rank correlation.

/// Kendall's τ-b between two lists of scores: 1 if they rank alike, -1 if they rank the other way round, 0 if they have nothing to do with each
/// other. Ties count half: `(concordant − discordant) / √((pairs − ties of a)·(pairs − ties of b))`.
///
/// None for lists of different lengths, with values that are not finite, or where one of them ties everything.
///
/// # Source
/// Kendall, Rank Correlation Methods, 1948, section 3.
/// # Complexity
/// `O(n²)`.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() || !a.iter().chain(b).all(|value| value.is_finite()) {
        return None;
    }
    let (mut agreement, mut untied_a, mut untied_b) = (0_i64, 0_i64, 0_i64);
    for i in 0..a.len() {
        for j in 0..i {
            let sign = |values: &[f64]| values[i].total_cmp(&values[j]) as i64 * i64::from(values[i] != values[j]);
            let (sign_a, sign_b) = (sign(a), sign(b));
            agreement += sign_a * sign_b;
            untied_a += sign_a.abs();
            untied_b += sign_b.abs();
        }
    }
    (untied_a > 0 && untied_b > 0).then(|| agreement as f64 / ((untied_a as f64) * (untied_b as f64)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(kendall_tau(&[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]), Some(1.0));
        assert_eq!(kendall_tau(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        // Two of three pairs agree.
        assert!((kendall_tau(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]).unwrap() - 1.0 / 3.0).abs() < 1e-12);
        // Five of six pairs in order, one against.
        assert!((kendall_tau(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]).unwrap() - 4.0 / 6.0).abs() < 1e-12);
        // One tie: two agreeing pairs over √(2·3).
        assert!((kendall_tau(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0]).unwrap() - 2.0 / 6.0_f64.sqrt()).abs() < 1e-12);
        for (a, b) in [(&[1.0, 1.0][..], &[1.0, 2.0][..]), (&[1.0], &[1.0, 2.0]), (&[f64::NAN, 1.0], &[1.0, 2.0])] {
            assert_eq!(kendall_tau(a, b), None);
        }
    }
}
