//! The learning rate over time.

use std::f64::consts::PI;

/// The learning rate of step `step` (from 0) of `n_steps`: a linear rise over `warmup_steps`, then half a cosine towards 0.
///
/// Warm-up step `t` has `peak · (t + 1) / warmup_steps`; a later one `peak · (1 + cos(π · (t - warmup_steps) / (n_steps - warmup_steps))) / 2`.
/// From `n_steps` on it is 0.
/// # Source
/// Loshchilov and Hutter, [arXiv:1608.03983](https://arxiv.org/abs/1608.03983), equation 5, without restarts; warm-up of Goyal et al.,
/// [arXiv:1706.02677](https://arxiv.org/abs/1706.02677), section 2.2.
pub fn learning_rate(peak: f64, step: u64, warmup_steps: u64, n_steps: u64) -> f64 {
    if step >= n_steps {
        0.0
    } else if step < warmup_steps {
        peak * (step + 1) as f64 / warmup_steps as f64
    } else {
        let progress = (step - warmup_steps) as f64 / (n_steps - warmup_steps) as f64;
        peak * 0.5 * (1.0 + (PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_then_cosine() {
        let at = |step| learning_rate(2.0, step, 4, 12);
        assert_eq!([at(0), at(1), at(3)], [0.5, 1.0, 2.0]);
        assert_eq!(at(4), 2.0);
        // A quarter, half and three quarters of the way down: (1 + cos(π/4)) = 1.7071…, 1, 0.2929….
        assert!((at(6) - 1.707_106_781_186_547_5).abs() < 1e-12);
        assert!((at(8) - 1.0).abs() < 1e-12);
        assert!((at(10) - 0.292_893_218_813_452_5).abs() < 1e-12);
        assert!(at(11) > 0.0);
        assert_eq!(at(12), 0.0);
    }

    #[test]
    fn without_warm_up_it_starts_at_the_peak_and_falls() {
        let rates: Vec<f64> = (0..50).map(|step| learning_rate(0.3, step, 0, 50)).collect();
        assert_eq!(rates[0], 0.3);
        assert!(rates.windows(2).all(|pair| pair[1] < pair[0]));
    }
}
