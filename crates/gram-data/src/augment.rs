//! Random shift and mirroring of training images.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{DataError, ImageShape};

/// What is done to a training image at random. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Pixels of black that are put on every side before a random part of the old size is cut out; 0: no shift.
    pub pad: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

impl Augmentation {
    /// Refuses padding that could push an image out of sight.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `pad` is not below height and width.
    pub fn check(&self, shape: ImageShape) -> Result<(), DataError> {
        if self.pad > 0 && self.pad >= shape.h.min(shape.w) {
            let most = shape.h.min(shape.w).saturating_sub(1);
            return Err(DataError::setting(
                "pad",
                format!("{} is too much for images of {shape}: at most {most}", self.pad),
            ));
        }
        Ok(())
    }

    /// Writes a randomly shifted and mirrored copy of one image `[c, h, w]`.
    ///
    /// # Panics
    /// If `pixels` or `out` are not of length `c·h·w`.
    pub fn apply(&self, shape: ImageShape, pixels: &[u8], rng: &mut impl Rng, out: &mut [u8]) {
        let top = rng.random_range(0..=2 * self.pad);
        let left = rng.random_range(0..=2 * self.pad);
        let flip = self.flip && rng.random::<bool>();
        shifted(shape, pixels, self.pad, (top, left), flip, out);
    }
}

/// The part of the padded image whose upper left corner is at `(top, left)`, mirrored if `flip`.
///
/// `(pad, pad)` is the image itself; corners range over `0..=2·pad`. Padding is black.
///
/// # Panics
/// If `pixels` or `out` are not of length `c·h·w`.
pub fn shifted(shape: ImageShape, pixels: &[u8], pad: usize, (top, left): (usize, usize), flip: bool, out: &mut [u8]) {
    let ImageShape { c, h, w } = shape;
    assert!(pixels.len() == c * h * w && out.len() == pixels.len(), "one image of {shape}");
    for (from, to) in pixels.chunks_exact(h * w).zip(out.chunks_exact_mut(h * w)) {
        for (y, row) in to.chunks_exact_mut(w).enumerate() {
            match (y + top).checked_sub(pad).filter(|&source| source < h) {
                Some(source) => shift_row(&from[source * w..(source + 1) * w], pad, left, row),
                None => row.fill(0),
            }
            if flip {
                row.reverse();
            }
        }
    }
}

/// One row: `row[x] = from[x + left - pad]`, black outside.
fn shift_row(from: &[u8], pad: usize, left: usize, row: &mut [u8]) {
    for (x, to) in row.iter_mut().enumerate() {
        let source = (x + left).checked_sub(pad).and_then(|source| from.get(source));
        *to = source.copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { c: 1, h: 2, w: 3 };
    const IMAGE: [u8; 6] = [1, 2, 3, 4, 5, 6];

    fn at(corner: (usize, usize), flip: bool) -> [u8; 6] {
        let mut out = [9; 6];
        shifted(SHAPE, &IMAGE, 1, corner, flip, &mut out);
        out
    }

    #[test]
    fn corners_of_the_padded_image() {
        assert_eq!(at((1, 1), false), IMAGE);
        assert_eq!(at((0, 0), false), [0, 0, 0, 0, 1, 2]); // one down, one right
        assert_eq!(at((2, 2), false), [5, 6, 0, 0, 0, 0]); // one up, one left
        assert_eq!(at((1, 1), true), [3, 2, 1, 6, 5, 4]);
        assert_eq!(at((1, 2), true), [0, 3, 2, 0, 6, 5]);
    }

    #[test]
    fn too_much_padding_is_refused() {
        assert!(Augmentation { pad: 1, flip: true }.check(SHAPE).is_ok());
        assert!(Augmentation { pad: 2, flip: true }.check(SHAPE).is_err());
        assert!(Augmentation { pad: usize::MAX, flip: true }.check(SHAPE).is_err());
        assert!(Augmentation::default().check(ImageShape::new(1, 1, 1)).is_ok());
    }
}
