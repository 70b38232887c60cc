//! 1x1 convolutions of one block of channels.

use crate::block::Block;
use crate::gemm::{Rows, product, transposed};
use crate::isa::{Isa, LANES};
use crate::lift::{Activate, ForActivation, Lift, Lifter, with_activation};
use crate::raw::{Source, Target};

/// Pixels that are handled together: their lifted block stays in the first-level cache.
const TILE: usize = 128;

/// Scratch elements that the functions of this module need.
pub const POINTWISE_SCRATCH: usize = TILE * LANES;

/// A block's part of a matrix of weights.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a, E> {
    /// `[depth][width]`.
    pub data: &'a [E],
    /// Channels of the block, at most 16.
    pub depth: usize,
    /// Output channels, padding included: a multiple of 16.
    pub width: usize,
}

impl<E> Weights<'_, E> {
    pub(crate) fn check(&self) {
        let fits =
            self.depth <= LANES && self.width.is_multiple_of(LANES) && self.data.len() >= self.depth * self.width;
        assert!(fits, "invariant: {} weights for {}x{}", self.data.len(), self.depth, self.width);
    }
}

/// Weights of a block the other way round.
#[derive(Clone, Copy, Debug)]
pub struct TransposedWeights<'a, E> {
    /// `[n_out][16]`.
    pub data: &'a [E],
    /// Output channels, without padding.
    pub n_out: usize,
}

impl<E> TransposedWeights<'_, E> {
    pub(crate) fn check(&self) {
        assert!(self.data.len() >= self.n_out * LANES, "invariant: {} weights for {}", self.data.len(), self.n_out);
    }
}

/// The part that one block of the input has in the output `z` `[pixels][width]`: replaces it, or with `add` is added to it.
///
/// # Panics
/// If a slice is too short.
pub fn pointwise<S: Isa>(
    s: S,
    (x, lift): (Block<'_, S::E>, &Lift<'_, S::E>),
    pixels: usize,
    weights: Weights<'_, S::E>,
    scratch: &mut [S::E],
    (z, add): (&mut [S::E], bool),
) {
    x.check(pixels);
    weights.check();
    assert!(
        z.len() >= pixels * weights.width && scratch.len() >= POINTWISE_SCRATCH,
        "invariant: slices of full length"
    );
    in_tiles(
        s,
        (x, lift),
        pixels,
        scratch,
        #[inline(always)]
        |first, n, tile| {
            let (a, w) = (Source::new(tile), Source::new(weights.data));
            let out = Target::new(&mut *z);
            let rows = Rows::new(first * weights.width, weights.width);
            let sizes = (n, weights.depth, weights.width);
            // SAFETY: the tile has n rows of 16, weights and z were checked.
            unsafe { product(s, (a, Rows::new(0, LANES)), (w, Rows::new(0, weights.width)), (out, rows), sizes, add) }
        },
    );
}

/// Adds the gradient of a block's weights to `dw` `[depth][width]`, given that of the output, `g` `[pixels][width]`.
///
/// # Panics
/// If a slice is too short.
pub fn pointwise_weights<S: Isa>(
    s: S,
    (x, lift): (Block<'_, S::E>, &Lift<'_, S::E>),
    pixels: usize,
    g: &[S::E],
    (depth, width): (usize, usize),
    scratch: &mut [S::E],
    dw: &mut [S::E],
) {
    x.check(pixels);
    Weights { data: &*dw, depth, width }.check();
    assert!(g.len() >= pixels * width && scratch.len() >= POINTWISE_SCRATCH, "invariant: slices of full length");
    in_tiles(
        s,
        (x, lift),
        pixels,
        scratch,
        #[inline(always)]
        |first, n, tile| {
            let (a, g, out) = (Source::new(tile), Source::new(g), Target::new(&mut *dw));
            let g_rows = Rows::new(first * width, width);
            // SAFETY: the tile has n rows of 16, g and dw were checked.
            unsafe {
                transposed(s, (a, Rows::new(0, LANES)), (g, g_rows), (out, Rows::new(0, width)), (n, depth, width))
            }
        },
    );
}

/// The part of the output's gradient `g` `[pixels][width]` in that of a block of the input, `dx` `[pixels][16]`: replaces it, or with `add`
/// is added to it.
///
/// # Panics
/// If a slice is too short.
pub fn pointwise_input<S: Isa>(
    s: S,
    (g, width): (&[S::E], usize),
    weights: TransposedWeights<'_, S::E>,
    pixels: usize,
    (dx, add): (&mut [S::E], bool),
) {
    weights.check();
    assert!(
        weights.n_out <= width && g.len() >= pixels * width && dx.len() >= pixels * LANES,
        "invariant: full length"
    );
    s.run(
        #[inline(always)]
        || {
            let (g, w, out) = (Source::new(g), Source::new(weights.data), Target::new(dx));
            let (rows, sizes) = (Rows::new(0, LANES), (pixels, weights.n_out, LANES));
            // SAFETY: checked above.
            unsafe { product(s, (g, Rows::new(0, width)), (w, rows), (out, rows), sizes, add) }
        },
    );
}

/// Lifts a block tile by tile; `f` gets the first pixel, the number of pixels and the tile.
#[inline(always)]
fn in_tiles<S: Isa>(
    s: S,
    (x, lift): (Block<'_, S::E>, &Lift<'_, S::E>),
    pixels: usize,
    scratch: &mut [S::E],
    f: impl FnMut(usize, usize, &[S::E]),
) {
    struct Tiles<'a, S: Isa, F>(S, Block<'a, S::E>, &'a Lift<'a, S::E>, usize, &'a mut [S::E], F);
    impl<S: Isa, F: FnMut(usize, usize, &[S::E])> ForActivation<S> for Tiles<'_, S, F> {
        type Output = ();
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) {
            let Self(s, x, lift, pixels, scratch, mut f) = self;
            let (lift, source) = (Lifter::new(s, lift, activation), Source::new(x.data));
            let mut first = 0;
            while first < pixels {
                let n = TILE.min(pixels - first);
                let tile = Target::new(&mut *scratch);
                for p in 0..n {
                    // SAFETY: pixel first + p lies inside the block and p inside the tile; both were checked.
                    unsafe { tile.put(s, p * LANES, lift.value(s, source.lanes(s, (first + p) * x.stride + x.at))) }
                }
                f(first, n, scratch);
                first += n;
            }
        }
    }
    s.run(
        #[inline(always)]
        || with_activation(s, lift.activation, Tiles(s, x, lift, pixels, scratch, f)),
    );
}
