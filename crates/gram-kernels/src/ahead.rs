//! Asking for memory while something else is computed.
//!
//! The maps of a batch are larger than the caches. A loop that does nothing but read them waits; kernels that compute much with little memory
//! have time to ask for what the next call reads.

use crate::block::Block;
use crate::isa::{Element, Isa, LANES};
use crate::raw::Source;

/// Pixels that will be read soon.
#[derive(Clone, Copy, Debug)]
pub struct Ahead<'a, E> {
    /// The block that they are in.
    pub block: Block<'a, E>,
    /// Channels of it that will be read, a multiple of 16.
    pub channels: usize,
    /// The first of the pixels. It may lie behind the block: nothing is read.
    pub first: usize,
}

impl<'a, E: Element> Ahead<'a, E> {
    /// All channels of an image's pixels, from the first on.
    pub fn all(image: &'a [E], stride: usize) -> Self {
        Self { block: Block { data: image, stride, at: 0 }, channels: stride, first: 0 }
    }

    /// Sixteen channels, from pixel `first` on.
    pub fn block(block: Block<'a, E>, first: usize) -> Self {
        Self { block, channels: LANES, first }
    }

    /// What kernels keep in registers.
    #[inline(always)]
    pub(crate) fn asker(&self) -> Asker<'a, E> {
        let Block { data, stride, at } = self.block;
        Asker { source: Source::new(data), start: self.first * stride + at, stride, channels: self.channels }
    }
}

/// Asks for pixels.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a, E> {
    source: Source<'a, E>,
    start: usize,
    stride: usize,
    channels: usize,
}

impl<E: Element> Asker<'_, E> {
    /// Asks for the first 16 channels of pixel number `i`.
    #[inline(always)]
    pub(crate) fn ask<S: Isa<E = E>>(self, s: S, i: usize) {
        self.source.prefetch(s, self.start + i * self.stride);
    }

    /// Asks for all channels of pixel number `i`.
    #[inline(always)]
    pub(crate) fn ask_all<S: Isa<E = E>>(self, s: S, i: usize) {
        for channel in (0..self.channels).step_by(LANES) {
            self.source.prefetch(s, self.start + i * self.stride + channel);
        }
    }
}
