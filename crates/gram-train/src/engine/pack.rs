//! Weights in the order in which kernels read them, and their gradients back in torch's order.

use std::ops::Range;

use gram_ir::Conv2d;
use gram_kernels::{Element, LANES};
use rayon::prelude::*;

use super::plan::{Kind, Lanes, Map, Plan};

/// Where the packed weights of one operator are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Packed<E> {
    /// Dense weights: for each block of the input `[taps][depth][width]`.
    dense: Vec<E>,
    /// The same the other way round: for each block `[taps][n_out][16]`.
    transposed: Vec<E>,
    /// Depthwise weights: for each block `[taps][16]`.
    depthwise: Vec<E>,
}

/// Shapes of an operator's packed weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape<'a> {
    map: &'a Map,
}

impl<'a> Shape<'a> {
    pub(crate) fn of(map: &'a Map) -> Self {
        Self { map }
    }

    fn dense(&self) -> Option<(Conv2d, usize)> {
        match self.map.kind {
            Kind::Pointwise { conv, weight } | Kind::Conv { conv, weight } | Kind::Sep { conv, weight, .. } => {
                Some((conv, weight))
            }
            _ => None,
        }
    }

    /// Kernel size and tensor of the depthwise part.
    fn depthwise(&self) -> Option<(usize, usize)> {
        match self.map.kind {
            Kind::Depthwise { conv, weight } => Some((conv.kernel, weight)),
            Kind::Sep { kernel, depthwise, .. } => Some((kernel, depthwise)),
            _ => None,
        }
    }

    fn taps(&self) -> usize {
        self.dense().map_or(0, |(conv, _)| conv.kernel * conv.kernel)
    }

    /// Output channels, padding included.
    pub(crate) fn width(&self) -> usize {
        self.map.site.stride()
    }

    /// Output channels of the dense part.
    pub(crate) fn n_out(&self) -> usize {
        self.dense().map_or(0, |(conv, _)| conv.c_out)
    }

    /// Elements of the dense weights of slice `i`: also those of their gradient.
    pub(crate) fn dense_range(&self, i: usize) -> Range<usize> {
        let per_channel = self.taps() * self.width();
        let start = self.map.slices[i].lanes.first * per_channel;
        start..start + self.map.slices[i].lanes.depth * per_channel
    }

    fn transposed_range(&self, i: usize) -> Range<usize> {
        let len = self.taps() * self.n_out() * LANES;
        i * len..(i + 1) * len
    }

    fn depthwise_range(&self, i: usize) -> Range<usize> {
        let len = self.depthwise().map_or(0, |(kernel, _)| kernel * kernel * LANES);
        i * len..(i + 1) * len
    }

    /// Elements of the dense weights.
    pub(crate) fn dense_len(&self) -> usize {
        self.map.slices.last().map_or(0, |last| (last.lanes.first + last.lanes.depth) * self.taps() * self.width())
    }
}

/// The packed weights of all operators.
#[derive(Debug)]
pub(crate) struct Pack<E> {
    packed: Vec<Packed<E>>,
}

impl<E: Element> Pack<E> {
    pub(crate) fn new(plan: &Plan, with_transposed: bool) -> Self {
        let packed = plan.maps.iter().map(|map| {
            let shape = Shape::of(map);
            let n = map.slices.len();
            let transposed = if with_transposed { shape.transposed_range(n).start } else { 0 };
            Packed {
                dense: vec![E::default(); shape.dense_len()],
                transposed: vec![E::default(); transposed],
                depthwise: vec![E::default(); shape.depthwise_range(n).start],
            }
        });
        Self { packed: packed.collect() }
    }

    /// Bytes that all of it takes.
    pub(crate) fn bytes(&self) -> usize {
        let len = |packed: &Packed<E>| packed.dense.len() + packed.transposed.len() + packed.depthwise.len();
        self.packed.iter().map(len).sum::<usize>() * size_of::<E>()
    }

    /// Packs all weights anew.
    pub(crate) fn refresh(&mut self, plan: &Plan, values: &[E], offsets: &[usize]) {
        self.packed.par_iter_mut().zip(&plan.maps).for_each(|(packed, map)| {
            let shape = Shape::of(map);
            if let Some((conv, weight)) = shape.dense() {
                pack_dense(shape, conv, &values[offsets[weight]..], packed);
            }
            if let Some((kernel, weight)) = shape.depthwise() {
                pack_depthwise(shape, kernel * kernel, &values[offsets[weight]..], &mut packed.depthwise);
            }
        });
    }

    pub(crate) fn dense(&self, map: usize, shape: Shape<'_>, slice: usize) -> &[E] {
        &self.packed[map].dense[shape.dense_range(slice)]
    }

    pub(crate) fn transposed(&self, map: usize, shape: Shape<'_>, slice: usize) -> &[E] {
        &self.packed[map].transposed[shape.transposed_range(slice)]
    }

    pub(crate) fn depthwise(&self, map: usize, shape: Shape<'_>, slice: usize) -> &[E] {
        &self.packed[map].depthwise[shape.depthwise_range(slice)]
    }
}

/// Where the weight of output `o`, input `c` lies among those of one tap, in torch's order with groups; none where they are not connected.
fn position(conv: &Conv2d, o: usize, c: usize) -> Option<usize> {
    let (outs, ins) = (conv.c_out / conv.groups, conv.c_in / conv.groups);
    (o / outs == c / ins).then(|| o * ins + c % ins)
}

/// Calls `f` with the index in torch's order and the one in the packed order of every weight of a slice.
fn for_each_weight(shape: Shape<'_>, conv: &Conv2d, lanes: Lanes, mut f: impl FnMut(usize, usize, usize, usize)) {
    let taps = shape.taps();
    for o in 0..conv.c_out {
        for k in 0..lanes.depth {
            let Some(at) = position(conv, o, lanes.first + k) else { continue };
            for tap in 0..taps {
                f(at * taps + tap, tap, k, o);
            }
        }
    }
}

fn pack_dense<E: Element>(shape: Shape<'_>, conv: Conv2d, weights: &[E], packed: &mut Packed<E>) {
    let width = shape.width();
    for (i, slice) in shape.map.slices.iter().enumerate() {
        let dense = &mut packed.dense[shape.dense_range(i)];
        let depth = slice.lanes.depth;
        for_each_weight(shape, &conv, slice.lanes, |from, tap, k, o| {
            dense[(tap * depth + k) * width + o] = weights[from];
        });
        if !packed.transposed.is_empty() {
            let transposed = &mut packed.transposed[shape.transposed_range(i)];
            for_each_weight(shape, &conv, slice.lanes, |from, tap, k, o| {
                transposed[(tap * conv.c_out + o) * LANES + k] = weights[from];
            });
        }
    }
}

fn pack_depthwise<E: Element>(shape: Shape<'_>, taps: usize, weights: &[E], packed: &mut [E]) {
    for (i, slice) in shape.map.slices.iter().enumerate() {
        let rows = &mut packed[shape.depthwise_range(i)];
        for k in 0..slice.lanes.depth {
            for tap in 0..taps {
                rows[tap * LANES + k] = weights[(slice.lanes.first + k) * taps + tap];
            }
        }
    }
}

/// Writes the gradient of an operator's dense weights, which lies in the packed order, into `gradient`.
pub(crate) fn unpack_dense<E: Element>(map: &Map, packed: &[E], gradient: &mut [E], offsets: &[usize]) {
    let shape = Shape::of(map);
    let Some((conv, weight)) = shape.dense() else { return };
    let (width, gradient) = (shape.width(), &mut gradient[offsets[weight]..]);
    for (i, slice) in map.slices.iter().enumerate() {
        let dense = &packed[shape.dense_range(i)];
        for_each_weight(shape, &conv, slice.lanes, |to, tap, k, o| {
            gradient[to] = dense[(tap * slice.lanes.depth + k) * width + o];
        });
    }
}

/// Writes the gradient of one block of depthwise weights, `[taps][16]`, into `gradient`.
pub(crate) fn unpack_depthwise<E: Element>(
    map: &Map,
    slice: usize,
    rows: &[[E; LANES]],
    gradient: &mut [E],
    offsets: &[usize],
) {
    let Some((kernel, weight)) = Shape::of(map).depthwise() else { return };
    let (taps, lanes) = (kernel * kernel, map.slices[slice].lanes);
    for k in 0..lanes.depth {
        for tap in 0..taps {
            gradient[offsets[weight] + (lanes.first + k) * taps + tap] = rows[tap][k];
        }
    }
}
