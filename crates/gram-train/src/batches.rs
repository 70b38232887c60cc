//! The batches that a training sees: shuffled and augmented by [`gram_data`], then mixed where the configuration asks for it.

use gram_data::{Batch, Batches, DataError};
use rand::seq::SliceRandom;
use rand_distr::{Beta, Distribution};

use crate::seeds::{Purpose, derived_seed, step_stream};
use crate::{Mix, Targets, TrainConfig, TrainData};

/// One step's images and labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrainBatch {
    /// Its labels are those of the images' first parts.
    pub(crate) batch: Batch,
    pub(crate) mixture: Option<Mixture>,
}

/// What was mixed into the images of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mixture {
    /// Labels of the second parts.
    labels: Vec<u32>,
    /// Share of the first parts, a number of f32, as pixels are mixed in f32.
    share: f64,
}

impl TrainBatch {
    /// What the scores are held against.
    pub(crate) fn targets(&self, smoothing: f64) -> Targets<'_> {
        let mix = self.mixture.as_ref().map(|mixture| Mix { labels: &mixture.labels, share: mixture.share });
        Targets { mix, ..Targets::of(&self.batch.labels, smoothing) }
    }

    /// Labels of what most of each image is; those of the first parts where both are the same.
    pub(crate) fn main_labels(&self) -> &[u32] {
        match &self.mixture {
            Some(mixture) if mixture.share < 0.5 => &mixture.labels,
            _ => &self.batch.labels,
        }
    }
}

/// The batches of one epoch.
pub(crate) struct TrainBatches<'a> {
    batches: Batches<'a>,
    mixup: Option<Mixup>,
    epoch: u64,
    step: u64,
}

/// How batches are mixed.
#[derive(Clone, Copy)]
struct Mixup {
    shares: Beta<f64>,
    seed: u64,
}

impl<'a> TrainBatches<'a> {
    /// Of epoch `epoch`, from 0. The configuration must have been validated.
    ///
    /// # Errors
    /// As for [`Batches::train`].
    pub(crate) fn new(data: &TrainData<'a>, config: &TrainConfig, seed: u64, epoch: u64) -> Result<Self, DataError> {
        let TrainConfig { augmentation, batch_size, mixup, .. } = *config;
        let of_batches = derived_seed(seed, Purpose::Batches);
        let batches = Batches::train(data.train, data.normalisation, augmentation, batch_size, of_batches, epoch)?;
        let mixup = mixup.map(|alpha| Mixup {
            shares: Beta::new(alpha, alpha).expect("invariant: a validated configuration has a mixup above 0"),
            seed: derived_seed(seed, Purpose::Mixup),
        });
        Ok(Self { batches, mixup, epoch, step: 0 })
    }
}

impl Iterator for TrainBatches<'_> {
    type Item = TrainBatch;

    fn next(&mut self) -> Option<TrainBatch> {
        let batch = self.batches.next()?;
        let step = self.step;
        self.step += 1;
        let Some(Mixup { shares, seed }) = self.mixup else { return Some(TrainBatch { batch, mixture: None }) };
        let mut rng = step_stream(seed, self.epoch, step);
        let share = shares.sample(&mut rng) as f32;
        let mut partners: Vec<usize> = (0..batch.n).collect();
        partners.shuffle(&mut rng);
        Some(mixed(batch, &partners, share))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.batches.size_hint()
    }
}

impl ExactSizeIterator for TrainBatches<'_> {}

/// Each image as `share` of itself and `1 - share` of its partner, as it was before mixing.
///
/// # Source
/// Zhang et al., *mixup*, [arXiv:1710.09412](https://arxiv.org/abs/1710.09412), section 2, with both images from one batch and one share for
/// all of it, as in its figure 1a.
fn mixed(mut batch: Batch, partners: &[usize], share: f32) -> TrainBatch {
    let len = batch.pixels.len() / batch.n.max(1);
    let before = batch.pixels.clone();
    for (image, &partner) in batch.pixels.chunks_exact_mut(len).zip(partners) {
        let partner = &before[partner * len..(partner + 1) * len];
        image.iter_mut().zip(partner).for_each(|(x, y)| *x = share * *x + (1.0 - share) * y);
    }
    let labels = partners.iter().map(|&partner| batch.labels[partner]).collect();
    TrainBatch { batch, mixture: Some(Mixture { labels, share: f64::from(share) }) }
}

#[cfg(test)]
mod tests {
    use gram_data::{ImageSet, ImageShape, Normalisation};
    use proptest::prelude::*;

    use super::*;

    fn batch() -> Batch {
        // Three images of two pixels.
        Batch { pixels: vec![1.0, 2.0, 10.0, 20.0, -4.0, 0.0], labels: vec![5, 6, 7], n: 3 }
    }

    fn images() -> ImageSet {
        let pixels = (0..23 * 12).map(|i| (i * 37 % 251) as u8).collect();
        ImageSet::new(ImageShape::new(3, 2, 2), pixels, (0..23).map(|i| i % 5).collect()).unwrap()
    }

    fn of_epoch(set: &ImageSet, mixup: Option<f64>, seed: u64, epoch: u64) -> Vec<TrainBatch> {
        let norm = Normalisation::of(set);
        let data = TrainData { train: set, validation: None, normalisation: &norm, teacher: None };
        let config = TrainConfig { mixup, batch_size: 4, ..TrainConfig::default() };
        TrainBatches::new(&data, &config, seed, epoch).unwrap().collect()
    }

    #[test]
    fn a_mixture_by_hand() {
        let TrainBatch { batch: got, mixture } = mixed(batch(), &[1, 2, 2], 0.75);
        // 0.75·1 + 0.25·10 = 3.25, …; the third is its own partner.
        assert_eq!(got.pixels, [3.25, 6.5, 6.5, 15.0, -4.0, 0.0]);
        assert_eq!((got.labels, mixture), (vec![5, 6, 7], Some(Mixture { labels: vec![6, 7, 7], share: 0.75 })));
    }

    #[test]
    fn a_share_of_1_changes_no_image() {
        let whole = mixed(batch(), &[2, 0, 1], 1.0);
        assert_eq!(whole.batch, batch());
        assert_eq!(whole.main_labels(), [5, 6, 7]);
    }

    #[test]
    fn the_larger_share_names_the_image() {
        let main = |share| mixed(batch(), &[1, 2, 0], share).main_labels().to_vec();
        assert_eq!([main(0.4), main(0.5), main(0.6)], [vec![6, 7, 5], vec![5, 6, 7], vec![5, 6, 7]]);
    }

    proptest! {
        #[test]
        fn mixtures_are_of_the_batch_and_of_their_step_alone(seed: u64, epoch in 0u64..5, alpha in 0.01f64..4.0) {
            let set = images();
            let (plain, mixed) = (of_epoch(&set, None, seed, epoch), of_epoch(&set, Some(alpha), seed, epoch));
            prop_assert_eq!(&of_epoch(&set, Some(alpha), seed, epoch), &mixed); // I1 the same seed, the same bits
            prop_assert_eq!(plain.len(), mixed.len());
            for (plain, mixed) in plain.iter().zip(&mixed) {
                prop_assert!(plain.mixture.is_none() && plain.main_labels() == plain.batch.labels);
                let mixture = mixed.mixture.as_ref().unwrap();
                prop_assert_eq!(&plain.batch.labels, &mixed.batch.labels); // I2 images and their order are those without
                prop_assert!((0.0..=1.0).contains(&mixture.share));
                let sorted = |labels: &[u32]| { let mut labels = labels.to_vec(); labels.sort_unstable(); labels };
                prop_assert_eq!(sorted(&mixture.labels), sorted(&plain.batch.labels)); // I3 every image is a partner once
                let sum = |batch: &Batch| batch.pixels.iter().map(|&x| f64::from(x)).sum::<f64>();
                prop_assert!((sum(&plain.batch) - sum(&mixed.batch)).abs() < 1e-3); // I4 nothing is lost
            }
        }
    }

    #[test]
    fn shares_follow_the_beta_distribution() {
        let set = images();
        for alpha in [0.2, 1.0, 5.0] {
            let shares: Vec<f64> = (0..400)
                .flat_map(|epoch| of_epoch(&set, Some(alpha), 1, epoch))
                .map(|batch| batch.mixture.unwrap().share)
                .collect();
            let n = shares.len() as f64;
            let mean = shares.iter().sum::<f64>() / n;
            let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / n;
            // Mean 1/2, variance 1 / (4 (2α + 1)); 2400 draws, so 5 standard errors of the mean are at most 0.05.
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.05, "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.15, "{alpha}: {variance} instead of {expected}");
        }
    }

    #[test]
    fn extreme_parameters_give_shares() {
        for alpha in [1e-9, 1e-3, 1e6] {
            for batch in of_epoch(&images(), Some(alpha), 3, 0) {
                let share = batch.mixture.unwrap().share;
                assert!((0.0..=1.0).contains(&share), "{alpha}: {share}");
            }
        }
    }
}
