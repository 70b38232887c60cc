//! The operators' forward pass for one image, in training and in evaluation.

use std::ops::Range;

use gram_kernels::{self as kernels, Ahead, Block, Depthwise, Element, Frame, Kernels, LANES, Weights};

use super::memory::ScratchSizes;
use super::pack::{Pack, Shape};
use super::plan::{Kind, Map, Plan, Slice};
use super::site::SiteState;

/// What lies still while images pass.
pub(crate) struct Fixed<'a, E: Element> {
    pub(crate) s: &'static dyn Kernels<E>,
    pub(crate) plan: &'a Plan,
    pub(crate) pack: &'a Pack<E>,
    /// Of each map.
    pub(crate) sites: &'a [SiteState<E>],
    /// Of the inside of each separable convolution.
    pub(crate) inner: &'a [Option<SiteState<E>>],
}

/// Memory of one thread.
#[derive(Debug)]
pub(crate) struct Scratch<E> {
    pub(crate) frame: Vec<E>,
    pub(crate) g_frame: Vec<E>,
    /// A block without a border.
    pub(crate) dx: Vec<E>,
    pub(crate) tile: Vec<E>,
}

impl<E: Element> Scratch<E> {
    pub(crate) fn new(sizes: ScratchSizes) -> Self {
        let zeros = |len: usize| vec![E::default(); len];
        Self {
            frame: zeros(sizes.frame),
            g_frame: zeros(sizes.frame),
            dx: zeros(sizes.pixels * LANES),
            tile: zeros(kernels::POINTWISE_SCRATCH.max(kernels::sep_scratch(sizes.columns))),
        }
    }

    /// Bytes of one such scratch.
    pub(crate) fn bytes(sizes: ScratchSizes) -> usize {
        let tile = kernels::POINTWISE_SCRATCH.max(kernels::sep_scratch(sizes.columns));
        (2 * sizes.frame + sizes.pixels * LANES + tile) * size_of::<E>()
    }
}

/// The number around an image that changes no result.
pub(crate) fn border_value<E: Element>(kind: &Kind) -> E {
    E::from_f64(if matches!(kind, Kind::MaxPool(_)) { f64::NEG_INFINITY } else { 0.0 })
}

impl<'a, E: Element> Fixed<'a, E> {
    /// A slice of an operator's input in the image `x` of its map.
    pub(crate) fn block<'x>(&self, slice: &Slice, x: &'x [E]) -> Block<'x, E> {
        Block { data: x, stride: self.plan.maps[slice.map].site.stride(), at: slice.block * LANES }
    }

    /// Size of the lifted input with its border.
    pub(crate) fn frame(&self, map: &Map, slice: &Slice) -> Frame {
        Frame { inner: self.plan.maps[slice.map].plane, pad: map.border().unwrap_or(0) }
    }

    /// A slice, lifted and in a border.
    pub(crate) fn fill(&self, map: &Map, slice: &Slice, x: &[E], out: &mut [E]) -> Frame {
        let (frame, lift) = (self.frame(map, slice), self.sites[slice.map].lift(slice.block));
        self.s.fill_frame(self.block(slice, x), &lift, frame, border_value(&map.kind), out);
        frame
    }

    /// Computes one image of map `j`, given those of its inputs.
    pub(crate) fn forward(&self, j: usize, inputs: &[&[E]], out: &mut [E], scratch: &mut Scratch<E>) {
        let map = &self.plan.maps[j];
        let (s, shape, stride) = (self.s, Shape::of(map), map.site.stride());
        for (q, slice) in map.slices.iter().enumerate() {
            let (x, lift, add) = (inputs[slice.input], self.sites[slice.map].lift(slice.block), q > 0);
            let dense = || Weights { data: self.pack.dense(j, shape, q), depth: slice.lanes.depth, width: stride };
            let to = (&mut *out, stride, q * LANES);
            match &map.kind {
                Kind::Pointwise { .. } => {
                    let block = (self.block(slice, x), &lift);
                    s.pointwise(block, map.site.pixels, dense(), &mut scratch.tile, (out, add));
                }
                Kind::Conv { .. } => {
                    let frame = self.fill(map, slice, x, &mut scratch.frame);
                    let (weights, sizes) = (self.pack.dense(j, shape, q), (slice.lanes.depth, stride));
                    s.conv((frame, &scratch.frame), map.window(), weights, sizes, (out, add));
                }
                Kind::Depthwise { .. } => {
                    let frame = self.fill(map, slice, x, &mut scratch.frame);
                    let weights = self.pack.depthwise(j, shape, q);
                    s.depthwise((frame, &scratch.frame), map.window(), weights, to);
                }
                Kind::Sep { .. } => {
                    let lift = self.inner_site(j).lift(q);
                    for rows in kernels::sep_tiles(0..map.plane.h, map.plane.w) {
                        let dw = (self.depthwise_rows((j, q), inputs, &rows, &mut scratch.frame), rows);
                        s.sep(dw, &lift, dense(), &mut scratch.tile, (out, add));
                    }
                }
                Kind::MaxPool(_) => {
                    let frame = self.fill(map, slice, x, &mut scratch.frame);
                    s.max_pool((frame, &scratch.frame), map.window(), to);
                }
                Kind::AvgPool(_) => {
                    let frame = self.fill(map, slice, x, &mut scratch.frame);
                    s.avg_pool((frame, &scratch.frame), map.window(), to);
                }
                Kind::Global => {
                    let pixels = self.plan.maps[slice.map].site.pixels;
                    let mean = s.global_average((self.block(slice, x), &lift), pixels);
                    out[q * LANES..(q + 1) * LANES].copy_from_slice(&mean);
                }
                Kind::Sum => self.add_term(map, q, x, out, scratch),
                Kind::Input | Kind::Zero => {}
            }
        }
    }

    /// The depthwise part of slice `q` of separable convolution `j`; `filled` is the border of what `frame` holds of this slice already.
    pub(crate) fn depthwise<'x>(
        &'x self,
        j: usize,
        q: usize,
        x: &'x [E],
        filled: &mut Option<usize>,
        frame: &'x mut Vec<E>,
    ) -> Depthwise<'x, E> {
        let (map, slice) = (&self.plan.maps[j], &self.plan.maps[j].slices[q]);
        let size = self.frame(map, slice);
        if *filled != Some(size.pad) {
            self.fill(map, slice, x, frame);
            *filled = Some(size.pad);
        }
        let (kernel, weights) = (2 * size.pad + 1, self.pack.depthwise(j, Shape::of(map), q));
        Depthwise { frame: size, x: frame, kernel, weights, ahead: Ahead::block(self.block(slice, x), 0) }
    }

    /// As [`depthwise`](Self::depthwise), with as much of the frame as rows `rows` need; those in front of them must have been asked for before.
    pub(crate) fn depthwise_rows<'x>(
        &'x self,
        (j, q): (usize, usize),
        inputs: &[&'x [E]],
        rows: &Range<usize>,
        frame: &'x mut Vec<E>,
    ) -> Depthwise<'x, E> {
        let (map, slice) = (&self.plan.maps[j], &self.plan.maps[j].slices[q]);
        let size = self.frame(map, slice);
        let filled = if rows.start == 0 { 0 } else { rows.start + 2 * size.pad };
        let block = self.block(slice, inputs[slice.input]);
        let source = (block, &self.sites[slice.map].lift(slice.block));
        self.s.fill_rows(source, (size, E::default()), filled..rows.end + 2 * size.pad, frame);
        let ahead = if rows.end < size.inner.h {
            Ahead::block(block, (rows.end + size.pad) * size.inner.w)
        } else if let Some(next) = map.slices.get(q + 1) {
            Ahead::block(self.block(next, inputs[next.input]), 0)
        } else {
            // The next image.
            let first = &map.slices[0];
            Ahead::block(self.block(first, inputs[first.input]), size.inner.pixels())
        };
        let (kernel, weights) = (2 * size.pad + 1, self.pack.depthwise(j, Shape::of(map), q));
        Depthwise { frame: size, x: frame, kernel, weights, ahead }
    }

    /// The inside of separable convolution `j`.
    pub(crate) fn inner_site(&self, j: usize) -> &SiteState<E> {
        self.inner[j].as_ref().expect("invariant: a separable convolution has an inside")
    }

    /// Adds slice `q` of a sum. Those of the first term come first, have the sum's own blocks and replace what was there.
    fn add_term(&self, map: &Map, q: usize, x: &[E], out: &mut [E], scratch: &mut Scratch<E>) {
        let (slice, stride, pixels) = (&map.slices[q], map.site.stride(), map.site.pixels);
        let block = (self.block(slice, x), &self.sites[slice.map].lift(slice.block));
        if let Some(at) = map.block_of(slice.lanes) {
            let add = q >= map.site.blocks.len();
            return self.s.lift_block(block, pixels, (out, stride, at * LANES), add);
        }
        self.s.lift_block(block, pixels, (&mut scratch.dx, LANES, 0), false);
        for (i, place) in map.places(slice.lanes).enumerate() {
            for p in 0..pixels {
                let to = &mut out[p * stride + place];
                *to = *to + scratch.dx[p * LANES + i];
            }
        }
    }
}
