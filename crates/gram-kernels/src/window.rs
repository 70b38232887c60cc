//! Where the pixels under a kernel lie.

use crate::block::{Frame, Plane};
use crate::isa::LANES;

/// A square kernel that moves over a [`Frame`], whose border is the padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns of the kernel, at least 1.
    pub kernel: usize,
    /// Pixels from one position to the next, at least 1.
    pub stride: usize,
    /// Pixels from one tap to the next, at least 1.
    pub dilation: usize,
}

impl Window {
    /// Positions of the kernel: `⌊(n + 2·pad − dilation·(kernel − 1) − 1) / stride⌋ + 1` rows and columns, none where it does not fit.
    ///
    /// # Panics
    /// If a field of the window is zero.
    pub fn output(self, frame: Frame) -> Plane {
        Plane { h: self.positions(frame.h()), w: self.positions(frame.w()) }
    }

    /// Taps of the kernel.
    pub(crate) const fn taps(self) -> usize {
        self.kernel.saturating_mul(self.kernel)
    }

    /// The same window, but of what is known when the code is compiled; as it is where `K` is 0.
    #[inline(always)]
    pub(crate) const fn known<const K: usize, const STRIDE: usize>(self) -> Self {
        if K == 0 { self } else { Self { kernel: K, stride: STRIDE, dilation: 1 } }
    }

    fn positions(self, pixels: usize) -> usize {
        assert!(self.kernel > 0 && self.stride > 0 && self.dilation > 0, "invariant: no field of {self:?} is zero");
        let reach = (self.kernel - 1).saturating_mul(self.dilation).saturating_add(1);
        if pixels < reach { 0 } else { (pixels - reach) / self.stride + 1 }
    }

    /// The output, after a panic unless `len` elements hold the frame: what unchecked accesses rely on.
    #[inline(always)]
    pub(crate) fn check(self, frame: Frame, len: usize) -> Plane {
        let side = |n: usize| frame.pad.checked_mul(2)?.checked_add(n);
        let elements = || side(frame.inner.h)?.checked_mul(side(frame.inner.w)?)?.checked_mul(LANES);
        assert!(elements().is_some_and(|n| n <= len), "invariant: {frame:?} in {len} elements");
        self.output(frame)
    }
}

/// Element offsets in a frame of what a [`Window`] meets.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    /// To the next tap, right and down.
    pub(crate) tap: (usize, usize),
    /// To the next position, right and down.
    pub(crate) position: (usize, usize),
}

impl Steps {
    #[inline(always)]
    pub(crate) fn new(window: Window, frame: Frame) -> Self {
        let row = frame.w() * LANES;
        Self {
            tap: (window.dilation.saturating_mul(LANES), window.dilation.saturating_mul(row)),
            position: (window.stride.saturating_mul(LANES), window.stride.saturating_mul(row)),
        }
    }

    /// The first tap at position (`y`, `x`).
    #[inline(always)]
    pub(crate) const fn at(self, y: usize, x: usize) -> usize {
        y * self.position.1 + x * self.position.0
    }

    /// Tap (`ky`, `kx`) from the first one on.
    #[inline(always)]
    pub(crate) const fn to_tap(self, ky: usize, kx: usize) -> usize {
        ky * self.tap.1 + kx * self.tap.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_counted_as_in_pytorch() {
        let output = |(kernel, stride, dilation), pad, h, w| {
            let out = Window { kernel, stride, dilation }.output(Frame { inner: Plane { h, w }, pad });
            (out.h, out.w)
        };
        assert_eq!(output((3, 1, 1), 1, 5, 7), (5, 7));
        assert_eq!(output((3, 2, 1), 1, 32, 31), (16, 16));
        assert_eq!(output((2, 2, 1), 0, 5, 4), (2, 2)); // what is left over is not read
        assert_eq!(output((3, 1, 2), 2, 4, 4), (4, 4));
        assert_eq!(output((7, 1, 1), 2, 2, 3), (0, 1)); // 2 + 4 rows are too few
        assert_eq!(output((3, 1, usize::MAX), 1, 9, 9), (0, 0));
    }

    #[test]
    #[should_panic(expected = "in 10 elements")]
    fn frames_that_are_too_large_to_count_do_not_fit() {
        let frame = Frame { inner: Plane { h: 1 << 62, w: 1 << 62 }, pad: 0 };
        Window { kernel: 1, stride: 1, dilation: 1 }.check(frame, 10);
    }
}
