//! Equal accuracy: what a family would cost at the accuracy of another network, interpolated on its best curve.

use std::collections::BTreeMap;

use super::record::Record;

/// A cost of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    Macs,
    Params,
    PeakBytes,
    LatencyMs,
}

impl Cost {
    pub(super) const ALL: [Self; 4] = [Self::Macs, Self::Params, Self::PeakBytes, Self::LatencyMs];

    /// Name for people, with the unit of [`Cost::in_unit`].
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Macs => "MACs (M)",
            Self::Params => "params (k)",
            Self::PeakBytes => "peak (KiB)",
            Self::LatencyMs => "latency (ms)",
        }
    }

    /// None where it was not measured.
    pub(super) fn of(self, record: &Record) -> Option<f64> {
        match self {
            Self::Macs => Some(record.macs),
            Self::Params => Some(record.params),
            Self::PeakBytes => Some(record.peak_bytes),
            Self::LatencyMs => record.latency_ms,
        }
    }

    pub(super) fn in_unit(self, value: f64) -> f64 {
        match self {
            Self::Macs => value / 1e6,
            Self::Params => value / 1e3,
            Self::PeakBytes => value / 1024.0,
            Self::LatencyMs => value,
        }
    }
}

/// A variant of a family, over its seeds.
#[derive(Clone, Debug)]
pub(super) struct Variant<'a> {
    pub(super) family: &'a str,
    pub(super) name: &'a str,
    pub(super) records: Vec<&'a Record>,
}

impl<'a> Variant<'a> {
    /// The variants in `records`, in the order of their names.
    pub(super) fn all(records: impl IntoIterator<Item = &'a Record>) -> Vec<Self> {
        let mut found: BTreeMap<(&str, &str), Vec<&Record>> = BTreeMap::new();
        for record in records {
            found.entry((&record.family, &record.variant)).or_default().push(record);
        }
        found.into_iter().map(|((family, name), records)| Variant { family, name, records }).collect()
    }

    /// Mean over seeds, in which searched networks differ in cost as well; none where one was not measured.
    pub(super) fn cost(&self, cost: Cost) -> Option<f64> {
        let costs: Option<Vec<f64>> = self.records.iter().map(|record| cost.of(record)).collect();
        Some(mean(costs?.into_iter()).0)
    }

    /// Mean and standard deviation of test top-1 over seeds; no deviation for a single one.
    pub(super) fn top1(&self) -> (f64, Option<f64>) {
        mean(self.records.iter().map(|record| record.test_top1))
    }
}

/// Mean and standard deviation (of a sample); no deviation of a single value.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> (f64, Option<f64>) {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (values.len() > 1).then(|| variance.sqrt()))
}

/// What the best of `variants` cost at this top-1: on their curve, between two of which the logarithm of the cost is linear in top-1. None beyond
/// the ends of the curve.
pub(super) fn cost_at(variants: &[&Variant<'_>], cost: Cost, top1: f64) -> Option<f64> {
    let points = variants.iter().filter_map(|variant| Some((variant.cost(cost)?.ln(), variant.top1().0)));
    curve(points.collect()).windows(2).find(|pair| (pair[0].1..=pair[1].1).contains(&top1)).map(|pair| {
        let share = (top1 - pair[0].1) / (pair[1].1 - pair[0].1);
        (pair[0].0 * (1.0 - share) + pair[1].0 * share).exp()
    })
}

/// The points (logarithm of cost, top-1) that nothing beats: neither another one nor what lies between two others, so that no weak variant
/// makes a family look worse. Of points of one cost, all between which nothing better lies stay.
fn curve(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let slope = |a: (f64, f64), b: (f64, f64)| (b.1 - a.1) / (b.0 - a.0);
    let mut curve: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if curve.last().is_some_and(|last| point.1 <= last.1) {
            continue;
        }
        while let [.., a, b] = curve[..]
            && slope(a, b) < slope(b, point)
        {
            curve.pop();
        }
        curve.push(point);
    }
    curve
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn the_curve_leaves_out_what_is_beaten_and_is_linear_in_the_logarithm() {
        let records = [record("a", 1, 1e6, 0.5), record("a", 1, 4e6, 0.7), record("b", 1, 2e6, 0.45)];
        let variants = Variant::all(&records);
        let all: Vec<&Variant<'_>> = variants.iter().collect();
        let at = |top1| cost_at(&all, Cost::Macs, top1);
        assert!((at(0.6).unwrap() - 2e6).abs() < 1.0);
        assert!((at(0.5).unwrap() - 1e6).abs() < 1.0);
        assert_eq!((at(0.49), at(0.71)), (None, None));
    }

    #[test]
    fn a_weak_variant_does_not_weaken_its_family() {
        let [strong, weak] = [vec![(1.0, 0.5), (3.0, 0.7)], vec![(1.0, 0.5), (2.0, 0.55), (3.0, 0.7)]].map(curve);
        assert_eq!(strong, weak);
    }

    #[test]
    fn between_variants_of_one_cost_it_is_that_cost() {
        let records = [record("a", 1, 1e6, 0.5), record("b", 1, 1e6, 0.7), record("c", 1, 2e6, 0.6)];
        let variants = Variant::all(&records);
        let all: Vec<&Variant<'_>> = variants.iter().collect();
        assert_eq!(cost_at(&all, Cost::Macs, 0.6).map(f64::round), Some(1e6));
    }

    #[test]
    fn seeds_are_averaged() {
        let records = [record("a", 1, 1e6, 0.5), record("a", 2, 1e6, 0.6)];
        let variants = Variant::all(&records);
        let (mean, deviation) = variants[0].top1();
        assert!((mean - 0.55).abs() < 1e-12 && (deviation.unwrap() - 0.005_f64.sqrt()).abs() < 1e-12);
    }
}
