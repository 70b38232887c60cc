//! Sixteen channels of one image.

use crate::isa::LANES;

/// The pixels of one image, all channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Plane {
    /// Rows times columns.
    pub const fn pixels(self) -> usize {
        self.h * self.w
    }
}

/// Sixteen channels of one image `[pixels][stride]`: those from `at` on.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a, E> {
    /// The image.
    pub data: &'a [E],
    /// Channels of the image, padding included.
    pub stride: usize,
    /// First channel.
    pub at: usize,
}

impl<'a, E> Block<'a, E> {
    /// The first 16 channels of an image that has only them.
    pub fn alone(data: &'a [E]) -> Self {
        Self { data, stride: LANES, at: 0 }
    }

    /// Panics unless all lanes of `pixels` pixels lie inside: what unchecked accesses rely on.
    #[inline(always)]
    pub(crate) fn check(&self, pixels: usize) {
        assert!(
            self.at + LANES <= self.stride && pixels.checked_mul(self.stride).is_some_and(|len| len <= self.data.len()),
            "invariant: a block of {pixels} pixels with {} channels from {} on in {} elements",
            self.stride,
            self.at,
            self.data.len()
        );
    }
}

/// An image inside a border of `pad` pixels, `[h + 2·pad][w + 2·pad][16]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The image.
    pub inner: Plane,
    /// Border on each side.
    pub pad: usize,
}

impl Frame {
    /// Columns, border included.
    pub const fn w(self) -> usize {
        self.inner.w + 2 * self.pad
    }

    /// Rows, border included.
    pub const fn h(self) -> usize {
        self.inner.h + 2 * self.pad
    }

    /// Elements of a frame.
    pub const fn len(self) -> usize {
        self.h() * self.w() * LANES
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Where pixel (0, 0) of the image begins.
    pub const fn origin(self) -> usize {
        (self.pad * self.w() + self.pad) * LANES
    }
}
