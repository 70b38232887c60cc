//! Softmax cross-entropy with label smoothing.

use super::Real;

/// Labels of a batch and how they are smoothed.
#[derive(Clone, Debug)]
pub(crate) struct CrossEntropy {
    pub(crate) labels: Vec<u32>,
    /// Weight of the uniform distribution in the target, in `0..1`; the label's own class gets `1 - smoothing + smoothing / classes`.
    pub(crate) smoothing: f64,
}

impl CrossEntropy {
    fn target(&self, label: u32, class: usize, classes: usize) -> f64 {
        let uniform = self.smoothing / classes as f64;
        if class == label as usize { 1.0 - self.smoothing + uniform } else { uniform }
    }

    /// The mean over rows of `-Σ target · ln softmax(logits)`; logits are `[n, classes]`.
    pub(crate) fn mean<T: Real>(&self, logits: &[T]) -> f64 {
        let classes = logits.len() / self.labels.len().max(1);
        let mut total = 0.0;
        for (row, &label) in logits.chunks_exact(classes.max(1)).zip(&self.labels) {
            let log_sum = log_sum_exp(row);
            for (class, logit) in row.iter().enumerate() {
                total += self.target(label, class, classes) * (log_sum - logit.to_f64());
            }
        }
        total / self.labels.len().max(1) as f64
    }

    /// Gradient of `g` times the mean: `g · (softmax - target) / n`.
    pub(crate) fn backward<T: Real>(&self, logits: &[T], g: f64) -> Vec<T> {
        let n = self.labels.len().max(1);
        let classes = logits.len() / n;
        let mut gradient = Vec::with_capacity(logits.len());
        for (row, &label) in logits.chunks_exact(classes.max(1)).zip(&self.labels) {
            let log_sum = log_sum_exp(row);
            gradient.extend(row.iter().enumerate().map(|(class, logit)| {
                let softmax = (logit.to_f64() - log_sum).exp();
                T::from_f64(g * (softmax - self.target(label, class, classes)) / n as f64)
            }));
        }
        gradient
    }
}

/// `ln Σ exp(x)`, from the largest logit down so that nothing overflows; NaN if a logit is NaN.
fn log_sum_exp<T: Real>(row: &[T]) -> f64 {
    let largest = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    largest + row.iter().map(|x| (x.to_f64() - largest).exp()).sum::<f64>().ln()
}
