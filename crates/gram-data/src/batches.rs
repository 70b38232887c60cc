//! Batches of normalised images: an epoch of training, or one pass in order.

use rand::seq::SliceRandom;

use crate::seeds::{Purpose, stream};
use crate::{Augmentation, DataError, ImageSet, Normalisation};

/// Some images, ready for a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Normalised pixels, `[n, c, h, w]`.
    pub pixels: Vec<f32>,
    /// One label per image.
    pub labels: Vec<u32>,
    /// Number of images, at least 1.
    pub n: usize,
}

/// Iterates over the batches of one epoch. All but the last have `batch_size` images.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    set: &'a ImageSet,
    norm: &'a Normalisation,
    augmented: Option<Augmented>,
    order: Vec<usize>,
    batch_size: usize,
    at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Augmented {
    augmentation: Augmentation,
    seed: u64,
    epoch: u64,
}

impl<'a> Batches<'a> {
    /// Every image once, shuffled and augmented.
    ///
    /// The order depends on `(seed, epoch)`; what happens to an image on `(seed, epoch, index)`, and so neither on the
    /// order nor on threads. A single image left over for the last batch is dropped, because batch statistics of one
    /// image are useless; one image alone is kept if it is all there is.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `batch_size` is 0, the padding is too large or the figures of `norm` do not fit.
    pub fn train(
        set: &'a ImageSet,
        norm: &'a Normalisation,
        augmentation: Augmentation,
        batch_size: usize,
        seed: u64,
        epoch: u64,
    ) -> Result<Self, DataError> {
        augmentation.check(set.shape())?;
        let mut batches = Batches::eval(set, norm, batch_size)?;
        batches.order.shuffle(&mut stream(seed, Purpose::Order, epoch, 0));
        if batch_size > 1 && set.len() > 1 && set.len() % batch_size == 1 {
            batches.order.pop();
        }
        if augmentation != Augmentation::default() {
            batches.augmented = Some(Augmented { augmentation, seed, epoch });
        }
        Ok(batches)
    }

    /// Every image once, in order, as it is.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `batch_size` is 0 or the figures of `norm` do not fit.
    pub fn eval(set: &'a ImageSet, norm: &'a Normalisation, batch_size: usize) -> Result<Self, DataError> {
        if batch_size == 0 {
            return Err(DataError::setting("batch_size", "0 images make no batch: use at least 1"));
        }
        norm.check(set.shape().c)?;
        Ok(Batches { set, norm, augmented: None, order: (0..set.len()).collect(), batch_size, at: 0 })
    }

    /// Indices into the set in the order of the whole epoch.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    fn write_image(&self, index: usize, scratch: &mut [u8], out: &mut [f32]) {
        let image = self.set.image(index);
        match self.augmented {
            None => self.norm.apply(image, out),
            Some(Augmented { augmentation, seed, epoch }) => {
                let mut rng = stream(seed, Purpose::Augmentation, epoch, index as u64);
                augmentation.apply(self.set.shape(), image, &mut rng, scratch);
                self.norm.apply(scratch, out);
            }
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let end = self.at.saturating_add(self.batch_size).min(self.order.len());
        let indices = self.order.get(self.at..end).filter(|indices| !indices.is_empty())?;
        let shape = self.set.shape();
        let image_len = shape.c * shape.h * shape.w;
        let mut scratch = vec![0; image_len];
        let mut pixels = vec![0.0; indices.len() * image_len];
        for (&index, out) in indices.iter().zip(pixels.chunks_exact_mut(image_len)) {
            self.write_image(index, &mut scratch, out);
        }
        let batch = Batch { pixels, labels: indices.iter().map(|&i| self.set.label(i)).collect(), n: indices.len() };
        self.at = end;
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.order.len() - self.at).div_ceil(self.batch_size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batches<'_> {}
