//! Decoded images of one common shape, with their labels.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::decode::fit_plane;

/// Longest height or width of a loaded image, in pixels.
pub(crate) const MAX_SIDE: usize = 4096;

/// Shape of one image, `[c, h, w]`; every side is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 3]", into = "[usize; 3]")]
pub struct ImageShape {
    /// Channels: 1 grey, 3 red, green, blue.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
}

impl ImageShape {
    /// A shape of `c` channels, `h` rows and `w` columns.
    pub fn new(c: usize, h: usize, w: usize) -> Self {
        ImageShape { c, h, w }
    }

    /// Number of values in one image, `c·h·w`; `None` if a side is 0 or the product overflows.
    pub fn checked_len(&self) -> Option<usize> {
        let len = self.c.checked_mul(self.h)?.checked_mul(self.w)?;
        (len > 0).then_some(len)
    }
}

impl From<[usize; 3]> for ImageShape {
    fn from([c, h, w]: [usize; 3]) -> Self {
        ImageShape { c, h, w }
    }
}

impl From<ImageShape> for [usize; 3] {
    fn from(shape: ImageShape) -> Self {
        [shape.c, shape.h, shape.w]
    }
}

impl std::fmt::Display for ImageShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.c, self.h, self.w)
    }
}

/// Images of one common shape with one label each; u8 pixels, `[n, c, h, w]`.
///
/// Cheap to clone and to select from: subsets share the pixels of the set they come from.
#[derive(Clone, Debug)]
pub struct ImageSet {
    shape: ImageShape,
    image_len: usize,
    pixels: Arc<Vec<u8>>,
    /// Where each image lies in `pixels`, in images.
    places: Vec<usize>,
    labels: Vec<u32>,
}

impl ImageSet {
    /// A set from `[n, c, h, w]` pixels and `n` labels.
    ///
    /// # Errors
    /// [`DataError::Setting`] if a side of the shape is 0 or the lengths do not agree.
    pub fn new(shape: ImageShape, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self, DataError> {
        let image_len = shape
            .checked_len()
            .ok_or_else(|| DataError::setting("image shape", format!("{shape} has an empty side or is too large")))?;
        if labels.len().checked_mul(image_len) != Some(pixels.len()) {
            let reason =
                format!("{} values do not make {} images of {shape}, one per label", pixels.len(), labels.len());
            return Err(DataError::setting("image set", reason));
        }
        let places = (0..labels.len()).collect();
        Ok(ImageSet { shape, image_len, pixels: Arc::new(pixels), places, labels })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The common shape of the images.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Pixels of image `i`, `[c, h, w]`, rows top to bottom.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len), as slices do.
    pub fn image(&self, i: usize) -> &[u8] {
        let start = self.places[i] * self.image_len;
        &self.pixels[start..start + self.image_len]
    }

    /// Label of image `i`.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len), as slices do.
    pub fn label(&self, i: usize) -> u32 {
        self.labels[i]
    }

    /// All labels, in order.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The images at `indices`, in that order; an index may come twice. Pixels are shared, not copied.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len), as slices do.
    pub fn select(&self, indices: &[usize]) -> ImageSet {
        ImageSet {
            shape: self.shape,
            image_len: self.image_len,
            pixels: Arc::clone(&self.pixels),
            places: indices.iter().map(|&i| self.places[i]).collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    /// Images per class for classes `0..n_classes`; labels from `n_classes` on are not counted.
    pub fn counts(&self, n_classes: usize) -> Vec<usize> {
        let mut counts = vec![0; n_classes];
        for &label in &self.labels {
            if let Some(count) = counts.get_mut(label as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// The same images at `h` x `w` pixels: the largest centred part with the new proportions, resized with a
    /// triangle filter that averages when it shrinks (resize of the shorter side and centre crop in one step).
    ///
    /// # Errors
    /// [`DataError::Setting`] if a side is 0 or above 4096.
    pub fn resized(&self, h: usize, w: usize) -> Result<ImageSet, DataError> {
        check_size(h, w)?;
        if (h, w) == (self.shape.h, self.shape.w) {
            return Ok(self.clone());
        }
        let shape = ImageShape { h, w, ..self.shape };
        let too_large = || DataError::setting("image size", format!("{} images of {shape} are too many", self.len()));
        let image_len = shape.checked_len().ok_or_else(too_large)?;
        let total = image_len.checked_mul(self.len()).ok_or_else(too_large)?;
        let mut pixels = vec![0u8; total];
        let plane_len = self.shape.h * self.shape.w;
        pixels.par_chunks_mut(image_len).enumerate().for_each(|(i, out)| {
            for (plane, out) in self.image(i).chunks_exact(plane_len).zip(out.chunks_exact_mut(h * w)) {
                fit_plane(plane, (self.shape.h, self.shape.w), (h, w), out);
            }
        });
        ImageSet::new(shape, pixels, self.labels.clone())
    }
}

/// Refuses sizes that no reader should produce.
pub(crate) fn check_size(h: usize, w: usize) -> Result<(), DataError> {
    if h == 0 || w == 0 || h > MAX_SIDE || w > MAX_SIDE {
        return Err(DataError::setting("image size", format!("{h}x{w} is not between 1x1 and {MAX_SIDE}x{MAX_SIDE}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> ImageSet {
        // 3 images of [1, 1, 2]
        ImageSet::new(ImageShape::new(1, 1, 2), vec![1, 2, 3, 4, 5, 6], vec![0, 1, 0]).unwrap()
    }

    #[test]
    fn images_and_labels_come_back() {
        let set = three();
        assert_eq!((set.len(), set.image(1), set.label(1)), (3, &[3u8, 4][..], 1));
        assert_eq!(set.counts(3), [2, 1, 0]);
        assert_eq!(set.counts(1), [2]);
    }

    #[test]
    fn selections_of_selections_point_at_the_first_set() {
        let set = three().select(&[2, 0]).select(&[1, 1, 0]);
        assert_eq!(set.image(0), [1, 2]);
        assert_eq!(set.image(2), [5, 6]);
        assert_eq!(set.labels(), [0, 0, 0]);
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        assert!(ImageSet::new(ImageShape::new(1, 1, 2), vec![0; 5], vec![0, 0]).is_err());
        assert!(ImageSet::new(ImageShape::new(0, 1, 2), vec![], vec![]).is_err());
        assert!(ImageSet::new(ImageShape::new(usize::MAX, 2, 2), vec![], vec![]).is_err());
    }

    #[test]
    fn halving_averages_and_keeps_constants() {
        // A 2x2 image [[0, 100], [200, 60]] to 1x1: the triangle filter weighs all four pixels equally: 360 / 4 = 90.
        let set = ImageSet::new(ImageShape::new(1, 2, 2), vec![0, 100, 200, 60], vec![0]).unwrap();
        assert_eq!(set.resized(1, 1).unwrap().image(0), [90]);
        let flat = ImageSet::new(ImageShape::new(3, 5, 9), vec![77; 135], vec![0]).unwrap();
        assert!(flat.resized(8, 4).unwrap().image(0).iter().all(|&p| p == 77));
        assert_eq!(flat.resized(8, 4).unwrap().shape(), ImageShape::new(3, 8, 4));
        assert!(flat.resized(0, 4).is_err() && flat.resized(4, 5000).is_err());
    }

    #[test]
    fn a_wide_image_keeps_its_centre() {
        // 1x5 [10, 20, 30, 40, 50] to 1x1: the centred 1x1 part is the middle pixel.
        let set = ImageSet::new(ImageShape::new(1, 1, 5), vec![10, 20, 30, 40, 50], vec![0]).unwrap();
        assert_eq!(set.resized(1, 1).unwrap().image(0), [30]);
    }
}
