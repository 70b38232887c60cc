//! Accuracy and loss of given weights, and class scores of images.

use gram_data::{Batches, ImageSet, Normalisation};
use gram_ir::{Network, Weights};
use serde::{Deserialize, Serialize};

use crate::{EvalEngine, Targets, TrainError};

/// How good weights are on a set of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of images whose highest score is that of their label, in `0..=1`.
    pub top1: f64,
    /// Share of images whose label is among the five highest scores, in `0..=1`.
    pub top5: f64,
    /// Mean cross-entropy without label smoothing, in nats.
    pub loss: f64,
    /// Number of images.
    pub n: usize,
}

/// Top-1, top-5 and loss of `weights` on all images of `set`, in evaluation mode.
///
/// Of equal scores that of the smaller class counts as the higher one; a score that is not a number is never right.
/// The result does not depend on `batch_size` but for the last bits of the loss, and not on the number of threads, those of the
/// present rayon pool. Batch norms are folded; each image runs through the whole network alone.
///
/// # Errors
/// [`TrainError`] where weights, images and network do not go together, or `batch_size` is 0.
pub fn evaluate(
    network: &Network,
    weights: &Weights,
    set: &ImageSet,
    normalisation: &Normalisation,
    batch_size: usize,
) -> Result<Evaluation, TrainError> {
    check_set(network, set, "given")?;
    let mut engine = EvalEngine::new(network, weights, None)?;
    let (mut top1, mut top5, mut loss) = (0, 0, 0.0);
    for batch in Batches::eval(set, normalisation, batch_size)? {
        let logits = engine.run(&batch.pixels, batch.n);
        top1 += count_within(1, &logits, &batch.labels);
        top5 += count_within(5, &logits, &batch.labels);
        loss += Targets::of(&batch.labels, 0.0).mean(&logits) * batch.n as f64;
    }
    let share = |count: usize| count as f64 / set.len() as f64;
    Ok(Evaluation { top1: share(top1), top5: share(top5), loss: loss / set.len() as f64, n: set.len() })
}

/// Class scores (logits) of normalised `pixels` `[n, c, h, w]`, one list per image, in evaluation mode.
///
/// # Errors
/// [`TrainError`] where weights, pixels and network do not go together.
pub fn predict(network: &Network, weights: &Weights, pixels: &[f32]) -> Result<Vec<Vec<f32>>, TrainError> {
    let classes = n_classes(network)?;
    let expected = network.input_shape();
    if pixels.is_empty() || !pixels.len().is_multiple_of(expected.elements()) {
        return Err(TrainError::Pixels { expected, got: pixels.len() });
    }
    let mut engine = EvalEngine::new(network, weights, None)?;
    let mut scores = Vec::with_capacity(pixels.len() / expected.elements());
    for pixels in pixels.chunks(PREDICT_BATCH * expected.elements()) {
        let logits = engine.run(pixels, pixels.len() / expected.elements());
        scores.extend(logits.chunks_exact(classes).map(<[f32]>::to_vec));
    }
    Ok(scores)
}

/// Images that [`predict`] runs at once.
const PREDICT_BATCH: usize = 64;

/// Checks that images and labels fit the network, and that there are images.
pub(crate) fn check_set(network: &Network, set: &ImageSet, name: &'static str) -> Result<(), TrainError> {
    let classes = n_classes(network)?;
    let (expected, got) = (network.input_shape(), set.shape());
    if (expected.c, expected.h, expected.w) != (got.c, got.h, got.w) {
        return Err(TrainError::Images { set: name, expected, got });
    }
    if set.is_empty() {
        return Err(TrainError::NoImages { set: name });
    }
    match set.labels().iter().find(|&&label| label as usize >= classes) {
        Some(&label) => Err(TrainError::Label { set: name, label, classes }),
        None => Ok(()),
    }
}

/// Number of scores that the network gives.
fn n_classes(network: &Network) -> Result<usize, TrainError> {
    let got = network.output_shape();
    if got.pixels() == 1 { Ok(got.c) } else { Err(TrainError::NotAClassifier { got }) }
}

/// Images whose label is among the `k` highest scores.
pub(crate) fn count_within(k: usize, logits: &[f32], labels: &[u32]) -> usize {
    let classes = logits.len() / labels.len().max(1);
    let within = |&(row, &label): &(&[f32], &u32)| rank(row, label as usize) < k;
    logits.chunks_exact(classes.max(1)).zip(labels).filter(within).count()
}

/// How many classes come before `label`; all of them if its score is NaN.
fn rank(scores: &[f32], label: usize) -> usize {
    let mine = scores[label];
    if mine.is_nan() {
        return scores.len();
    }
    let before = |&(class, &score): &(usize, &f32)| score > mine || (score == mine && class < label) || score.is_nan();
    scores.iter().enumerate().filter(before).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_hand() {
        let scores = [0.5, 2.0, 0.5, -1.0];
        assert_eq!([0, 1, 2, 3].map(|label| rank(&scores, label)), [1, 0, 2, 3]);
        assert_eq!(rank(&[f32::NAN, 1.0], 0), 2);
        assert_eq!(rank(&[f32::NAN, 1.0], 1), 1);
    }

    #[test]
    fn labels_within_the_highest_scores() {
        let logits = [3.0, 2.0, 1.0, 1.0, 2.0, 3.0];
        assert_eq!(count_within(1, &logits, &[0, 1]), 1);
        assert_eq!(count_within(2, &logits, &[0, 1]), 2);
        assert_eq!(count_within(5, &logits, &[2, 0]), 2);
    }
}
