//! The training loss: softmax cross-entropy with targets that may be smoothed and mixed, and what a teacher says.

use super::Real;
use crate::{ConfigError, Distillation, TrainError};

/// What the scores of a batch are held against.
///
/// # Example
/// ```
/// use gram_train::{Mix, Targets};
///
/// // Two images; each is 0.7 of itself and 0.3 of the other one.
/// let targets = Targets { mix: Some(Mix { labels: &[1, 0], share: 0.7 }), ..Targets::of(&[0, 1], 0.1) };
/// assert_eq!(targets.labels.len(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Targets<'a> {
    /// One label per image.
    pub labels: &'a [u32],
    /// Weight of the uniform distribution in the target, in `0..1`; the label's own class gets `1 - smoothing + smoothing / classes`.
    pub smoothing: f64,
    /// Of images that are mixtures of two: the second one.
    pub mix: Option<Mix<'a>>,
    /// What a teacher says of the images.
    pub teacher: Option<Taught<'a>>,
}

/// What a teacher says of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taught<'a> {
    /// Its scores, `[n, classes]`.
    pub logits: &'a [f32],
    /// What they count.
    pub distillation: Distillation,
}

/// What else is in the images of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix<'a> {
    /// Label of each image's second part.
    pub labels: &'a [u32],
    /// Share of the first part, in `0..=1`: the target is `share` of the target of the first label and `1 - share` of that of the second.
    pub share: f64,
}

impl<'a> Targets<'a> {
    /// Of images with one label each.
    pub fn of(labels: &'a [u32], smoothing: f64) -> Self {
        Self { labels, smoothing, mix: None, teacher: None }
    }

    /// Refuses what does not go with `classes` scores per image.
    pub(crate) fn check(&self, classes: usize) -> Result<(), TrainError> {
        let wrong = |field, value: f64, expected| {
            Err(TrainError::Config(ConfigError { field, value: value.to_string(), expected }))
        };
        let second = self.mix.map_or(&[][..], |mix| mix.labels);
        if let Some(&label) = self.labels.iter().chain(second).find(|&&label| label as usize >= classes) {
            return Err(TrainError::Label { set: "given", label, classes });
        }
        if !(0.0..1.0).contains(&self.smoothing) {
            return wrong("smoothing", self.smoothing, "at least 0 and below 1");
        }
        let n_scores = self.labels.len() * classes;
        if let Some(Taught { logits, distillation }) = self.teacher {
            distillation.validate()?;
            if logits.len() != n_scores {
                return wrong("teacher.logits", logits.len() as f64, "one score per image and class");
            }
        }
        match self.mix {
            Some(mix) if mix.labels.len() != self.labels.len() => {
                wrong("mix.labels", mix.labels.len() as f64, "one per image")
            }
            Some(mix) if !(0.0..=1.0).contains(&mix.share) => wrong("mix.share", mix.share, "between 0 and 1"),
            _ => Ok(()),
        }
    }

    /// What softmax should give for one class of an image.
    pub(crate) fn target(&self, image: usize, class: usize, classes: usize) -> f64 {
        let uniform = self.smoothing / classes as f64;
        let of = |label: u32| if class == label as usize { 1.0 - self.smoothing + uniform } else { uniform };
        match self.mix {
            None => of(self.labels[image]),
            Some(Mix { labels, share }) => share * of(self.labels[image]) + (1.0 - share) * of(labels[image]),
        }
    }

    /// The mean over images of `-Σ target · ln softmax(logits)`, and what a teacher adds to it (see [`Distillation`]); logits are
    /// `[n, classes]`.
    pub(crate) fn mean<T: Real>(&self, logits: &[T]) -> f64 {
        let n = self.labels.len().max(1);
        let classes = logits.len() / n;
        let mut total = 0.0;
        for (image, row) in logits.chunks_exact(classes.max(1)).enumerate() {
            let log_sum = log_sum_exp(row);
            for (class, logit) in row.iter().enumerate() {
                total += self.target(image, class, classes) * (log_sum - logit.to_f64());
            }
        }
        let mean = total / n as f64;
        let Some(taught) = self.teacher else { return mean };
        let Distillation { weight, temperature } = taught.distillation;
        let divergences = logits.chunks_exact(classes.max(1)).zip(taught.logits.chunks_exact(classes.max(1)));
        let divergence =
            divergences.map(|(row, teacher)| divergence(teacher, row, temperature)).sum::<f64>() / n as f64;
        (1.0 - weight) * mean + weight * temperature * temperature * divergence
    }

    /// Gradient of `g` times the mean: `g · (softmax - target) / n` without a teacher; with one that part counts `1 - weight`, and
    /// `weight · temperature · (softmax - teacher's softmax)`, both of scores divided by the temperature, is added to it.
    pub(crate) fn backward<T: Real>(&self, logits: &[T], g: f64) -> Vec<T> {
        let n = self.labels.len().max(1);
        let classes = logits.len() / n;
        let mut gradient = Vec::with_capacity(logits.len());
        for (image, row) in logits.chunks_exact(classes.max(1)).enumerate() {
            let log_sum = log_sum_exp(row);
            gradient.extend(row.iter().enumerate().map(|(class, logit)| {
                let softmax = (logit.to_f64() - log_sum).exp();
                T::from_f64(g * (softmax - self.target(image, class, classes)) / n as f64)
            }));
        }
        if let Some(taught) = self.teacher {
            let Distillation { weight, temperature } = taught.distillation;
            let rows = logits.chunks_exact(classes.max(1)).zip(taught.logits.chunks_exact(classes.max(1)));
            for ((row, teacher), gradient) in rows.zip(gradient.chunks_exact_mut(classes.max(1))) {
                let (own, teacher) = (log_softmax(row, temperature), log_softmax(teacher, temperature));
                for ((gradient, own), teacher) in gradient.iter_mut().zip(own).zip(teacher) {
                    let pull = g * weight * temperature * (own.exp() - teacher.exp()) / n as f64;
                    *gradient = T::from_f64((1.0 - weight) * gradient.to_f64() + pull);
                }
            }
        }
        gradient
    }
}

/// `Σ p · (ln p - ln q)` for the distributions that the scores of a teacher (p) and of another network (q) give at a temperature.
fn divergence<T: Real>(teacher: &[f32], row: &[T], temperature: f64) -> f64 {
    let pairs = log_softmax(teacher, temperature).zip(log_softmax(row, temperature));
    pairs.map(|(teacher, own)| teacher.exp() * (teacher - own)).sum()
}

/// `ln softmax(row / temperature)`.
fn log_softmax<T: Real>(row: &[T], temperature: f64) -> impl Iterator<Item = f64> {
    let scores = move |x: &T| x.to_f64() / temperature;
    let largest = row.iter().map(scores).fold(f64::NEG_INFINITY, f64::max);
    let log_sum = largest + row.iter().map(|x| (scores(x) - largest).exp()).sum::<f64>().ln();
    row.iter().map(move |x| scores(x) - log_sum)
}

/// `ln Σ exp(x)`, from the largest logit down so that nothing overflows; NaN if a logit is NaN.
fn log_sum_exp<T: Real>(row: &[T]) -> f64 {
    let largest = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    largest + row.iter().map(|x| (x.to_f64() - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests;
