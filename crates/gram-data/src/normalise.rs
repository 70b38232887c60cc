//! Per-channel normalisation, computed from training data.

use serde::{Deserialize, Serialize};

use crate::{DataError, ImageSet};

/// Mean and standard deviation of each channel of `pixel / 255`.
///
/// Travels with a trained model: the same figures apply at prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Mean per channel, in `0..=1`.
    pub mean: Vec<f32>,
    /// Standard deviation per channel (of the population), never below [`Normalisation::MIN_STD`] when computed.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// Least standard deviation, one step of a byte: a constant channel becomes 0, not noise.
    pub const MIN_STD: f32 = 1.0 / 255.0;

    /// Figures of `train`, from exact integer sums; 0 and 1 for an empty set.
    pub fn of(train: &ImageSet) -> Self {
        let shape = train.shape();
        let n = (train.len() * shape.h * shape.w) as f64;
        if train.is_empty() {
            return Normalisation { mean: vec![0.0; shape.c], std: vec![1.0; shape.c] };
        }
        let (mean, std) = histograms(train).iter().map(|counts| mean_and_std(counts, n)).unzip();
        Normalisation { mean, std }
    }

    /// Writes `(pixel / 255 - mean) / std` for one image `[c, h, w]`.
    ///
    /// # Panics
    /// If the lengths of `pixels` and `out` differ or are no multiple of the number of channels.
    pub fn apply(&self, pixels: &[u8], out: &mut [f32]) {
        assert_eq!(pixels.len(), out.len(), "one output value per pixel");
        assert_eq!(pixels.len() % self.mean.len(), 0, "whole planes");
        let plane = pixels.len() / self.mean.len();
        let planes = pixels.chunks_exact(plane.max(1)).zip(out.chunks_exact_mut(plane.max(1)));
        for ((pixels, out), (&mean, &std)) in planes.zip(self.mean.iter().zip(&self.std)) {
            let (scale, shift) = (1.0 / (255.0 * std), -mean / std);
            for (value, &pixel) in out.iter_mut().zip(pixels) {
                *value = f32::from(pixel) * scale + shift;
            }
        }
    }

    /// Checks figures that were read from a file against a number of channels.
    ///
    /// # Errors
    /// [`DataError::Setting`] if there are more or fewer than `channels` figures, or one is not finite, or a standard
    /// deviation is not positive.
    pub fn check(&self, channels: usize) -> Result<(), DataError> {
        let refuse = |reason: String| Err(DataError::setting("normalisation", reason));
        if self.mean.len() != channels || self.std.len() != channels {
            return refuse(format!(
                "{} means and {} deviations for {channels} channels",
                self.mean.len(),
                self.std.len()
            ));
        }
        if let Some(mean) = self.mean.iter().find(|mean| !mean.is_finite()) {
            return refuse(format!("mean {mean} is not finite"));
        }
        match self.std.iter().find(|&&std| !(std.is_finite() && std > 0.0)) {
            Some(std) => refuse(format!("standard deviation {std} is not positive and finite")),
            None => Ok(()),
        }
    }
}

/// How often each byte occurs in each channel.
fn histograms(set: &ImageSet) -> Vec<[u64; 256]> {
    let shape = set.shape();
    let mut counts = vec![[0; 256]; shape.c];
    for i in 0..set.len() {
        for (plane, counts) in set.image(i).chunks_exact(shape.h * shape.w).zip(&mut counts) {
            for &pixel in plane {
                counts[usize::from(pixel)] += 1;
            }
        }
    }
    counts
}

fn mean_and_std(counts: &[u64; 256], n: f64) -> (f32, f32) {
    let moment = |power: u32| -> f64 {
        let sum: u128 = counts.iter().zip(0u128..).map(|(&count, value)| u128::from(count) * value.pow(power)).sum();
        sum as f64 / n
    };
    let mean = moment(1);
    let variance = (moment(2) - mean * mean).max(0.0);
    ((mean / 255.0) as f32, ((variance.sqrt() / 255.0) as f32).max(Normalisation::MIN_STD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageShape;

    #[test]
    fn figures_of_four_pixels() {
        // Two channels of two pixels each: 0 and 255 (mean 0.5, deviation 0.5); 51 and 51 (mean 0.2, floored).
        let set = ImageSet::new(ImageShape::new(2, 1, 2), vec![0, 255, 51, 51], vec![0]).unwrap();
        let norm = Normalisation::of(&set);
        assert_eq!((norm.mean[0], norm.std[0]), (0.5, 0.5));
        assert_eq!((norm.mean[1], norm.std[1]), (0.2, Normalisation::MIN_STD));
        let mut out = [9.0; 4];
        norm.apply(set.image(0), &mut out);
        assert_eq!(out[..2], [-1.0, 1.0]);
        assert!(out[2..].iter().all(|v| v.abs() < 1e-5), "{out:?}");
    }

    #[test]
    fn figures_from_files_are_checked() {
        let norm = |mean: f32, std: f32| Normalisation { mean: vec![mean], std: vec![std] };
        assert!(norm(0.5, 0.2).check(1).is_ok());
        assert!(norm(0.5, 0.2).check(3).is_err());
        assert!(norm(f32::NAN, 0.2).check(1).is_err());
        assert!(norm(0.5, 0.0).check(1).is_err());
    }

    #[test]
    fn an_empty_set_changes_nothing() {
        let set = ImageSet::new(ImageShape::new(1, 2, 2), vec![], vec![]).unwrap();
        assert_eq!(Normalisation::of(&set), Normalisation { mean: vec![0.0], std: vec![1.0] });
    }
}
