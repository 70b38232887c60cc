//! Statistics of repeated measurements.

/// Minimum, median and 90th percentile of times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
}

impl Spread {
    /// Of one or more times; none for none.
    pub fn of(times: &[f64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let min = *sorted.first()?;
        Some(Self { min, p50: quantile_of_sorted(&sorted, 0.5), p90: quantile_of_sorted(&sorted, 0.9) })
    }
}

/// The `q`-quantile, between neighbours by linear interpolation; NaN for none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, q)
}

/// The median; NaN for none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Mean of the smaller half: as robust against interruptions as the minimum, and finer where times are whole microseconds.
pub fn lower_half_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = &sorted[..sorted.len().div_ceil(2)];
    half.iter().sum::<f64>() / half.len() as f64
}

fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let times = [5.0, 1.0, 2.0, 4.0, 3.0];
        assert_eq!(Spread::of(&times), Some(Spread { min: 1.0, p50: 3.0, p90: 4.6 }));
        assert_eq!(Spread::of(&[]), None);
        // 1, 2, 3 are the smaller half of five.
        assert_eq!(lower_half_mean(&times), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert!(median(&[]).is_nan() && lower_half_mean(&[]).is_nan());
    }
}
