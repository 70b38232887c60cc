//! Random shift, mirroring and cutout of training images.

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
    /// Side in pixels of the square that is blacked out in every image, behind shift and mirroring; 0: none. See [`blacked_out`].
    ///
    /// Its centre is any pixel of the image, so that at the border less is covered, as in DeVries and Taylor,
    /// [arXiv:1708.04552](https://arxiv.org/abs/1708.04552), section 3.2. They take 16 pixels for CIFAR-10 and 8 for CIFAR-100. Files
    /// name it only where there is one, so that what was trained without is the same training as before.
    #[serde(skip_serializing_if = "is_none")]
    pub cutout: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_none(cutout: &usize) -> bool {
    *cutout == 0
}

impl Augmentation {
    /// Refuses padding that could push an image out of sight, and squares that could cover all of it.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `pad` or `cutout` is not below height and width.
    pub fn check(&self, shape: ImageShape) -> Result<(), DataError> {
        let side = shape.h.min(shape.w);
        for (name, value) in [("pad", self.pad), ("cutout", self.cutout)] {
            if value > 0 && value >= side {
                let most = side.saturating_sub(1);
                return Err(DataError::setting(
                    name,
                    format!("{value} is too much for images of {shape}: at most {most}"),
                ));
            }
        }
        Ok(())
    }

    /// Writes a randomly shifted, mirrored and partly blacked out copy of one image `[c, h, w]`.
    ///
    /// # Panics
    /// If `pixels` or `out` are not of length `c·h·w`.
    pub fn apply(&self, shape: ImageShape, pixels: &[u8], rng: &mut impl Rng, out: &mut [u8]) {
        let top = rng.random_range(0..=2 * self.pad);
        let left = rng.random_range(0..=2 * self.pad);
        let flip = self.flip && rng.random::<bool>();
        shifted(shape, pixels, self.pad, (top, left), flip, out);
        // Drawn last, and only if asked for: a seed shifts and mirrors its images alike with and without it.
        if self.cutout > 0 {
            let centre = (rng.random_range(0..shape.h), rng.random_range(0..shape.w));
            blacked_out(shape, self.cutout, centre, out);
        }
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

/// Blackens the square of `side` pixels around `centre` (row, column) in every channel, as far as it lies in the image.
///
/// It covers rows `y - ⌊side / 2⌋ .. y - ⌊side / 2⌋ + side`, and columns alike. Black are bytes of 0, as the padding of [`shifted`]: behind
/// normalisation `-mean / std`.
///
/// # Differs from the paper
/// There the square is 0 behind normalisation, the mean colour, and its side rounded down to an even number of pixels.
///
/// # Panics
/// If `image` is not of length `c·h·w`.
pub fn blacked_out(shape: ImageShape, side: usize, (y, x): (usize, usize), image: &mut [u8]) {
    let ImageShape { c, h, w } = shape;
    assert!(image.len() == c * h * w, "one image of {shape}");
    let clipped = |at: usize, most: usize| {
        let end = at.saturating_add(side - side / 2).min(most);
        at.saturating_sub(side / 2).min(end)..end
    };
    let (rows, columns) = (clipped(y, h), clipped(x, w));
    for plane in image.chunks_exact_mut(h * w) {
        for row in rows.clone() {
            plane[row * w..(row + 1) * w][columns.clone()].fill(0);
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
        let of = |pad, cutout| Augmentation { pad, flip: true, cutout }.check(SHAPE);
        assert!(of(1, 1).is_ok());
        assert!(of(2, 0).is_err());
        assert!(of(usize::MAX, 0).is_err());
        assert!(of(0, 2).unwrap_err().to_string().contains("cutout"));
        assert!(of(0, usize::MAX).is_err());
        assert!(Augmentation::default().check(ImageShape::new(1, 1, 1)).is_ok());
    }

    /// Rows of two 4x5 planes with the square in them.
    fn cut(side: usize, centre: (usize, usize)) -> [u8; 40] {
        let mut image = [1; 40];
        blacked_out(ImageShape::new(2, 4, 5), side, centre, &mut image);
        assert_eq!(image[..20], image[20..], "all channels alike");
        image
    }

    #[test]
    fn squares_are_clipped_at_the_border() {
        // Rows 0 and 1, columns 2 and 3: an even side reaches one pixel further up and left than down and right.
        assert_eq!(cut(2, (1, 3))[..20], [1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        // Rows 2 and 3 of 2..5, columns 0 and 1 of -1..2.
        assert_eq!(cut(3, (3, 0))[..20], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1]);
        assert_eq!(cut(1, (0, 4)).iter().filter(|&&pixel| pixel == 0).count(), 2);
        assert_eq!(cut(0, (0, 4)), [1; 40]);
    }

    #[test]
    fn files_name_a_square_only_where_there_is_one() {
        let text = |cutout| serde_json::to_string(&Augmentation { pad: 1, flip: false, cutout }).unwrap();
        assert_eq!(text(0), r#"{"pad":1,"flip":false}"#);
        assert_eq!(text(4), r#"{"pad":1,"flip":false,"cutout":4}"#);
        assert_eq!(serde_json::from_str::<Augmentation>(&text(0)).unwrap().cutout, 0);
    }
}
