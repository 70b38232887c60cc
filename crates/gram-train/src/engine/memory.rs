//! One buffer for all maps and gradients: who lives where, and when.

use std::ops::Range;

use super::plan::{Kind, MapId, Plan};

/// A buffer of the arena: the numbers of a map, or their gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Region {
    Map(MapId),
    Gradient(MapId),
}

/// Places of all buffers, in elements per image of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Memory {
    maps: Vec<Range<usize>>,
    gradients: Vec<Range<usize>>,
    /// Elements that one image takes.
    pub(crate) per_image: usize,
}

impl Memory {
    /// For a forward pass alone: a map is gone behind its last reader.
    pub(crate) fn forward(plan: &Plan) -> Self {
        let n = plan.maps.len();
        let mut last: Vec<usize> = (0..n).collect();
        for (j, map) in plan.maps.iter().enumerate() {
            map.inputs.iter().for_each(|&input| last[input] = last[input].max(j));
        }
        plan.outputs.iter().for_each(|output| last[output.map] = n);
        let lives = (0..n).map(|i| (plan.maps[i].site.image_len(), i, last[i])).collect();
        let (maps, per_image) = place(lives);
        Self { maps, gradients: vec![0..0; n], per_image }
    }

    /// For forward and backward: operator `i` is computed at time `i` and differentiated at time `2n - 1 - i`.
    pub(crate) fn training(plan: &Plan) -> Self {
        let n = plan.maps.len();
        let back = |i: usize| 2 * n - 1 - i;
        let mut last: Vec<usize> = (0..n).map(|i| if plan.maps[i].differentiated { back(i) } else { n }).collect();
        let mut gradient: Vec<usize> = (0..n).map(back).collect();
        for (j, map) in plan.maps.iter().enumerate().filter(|(_, map)| map.differentiated) {
            for &input in &map.inputs {
                last[input] = last[input].max(back(j));
                if plan.maps[input].differentiated {
                    gradient[j] = gradient[j].max(back(input));
                }
            }
        }
        let len = |i: usize| plan.maps[i].site.image_len();
        let gradient_len = |i: usize| if plan.maps[i].differentiated { len(i) } else { 0 };
        let mut lives: Vec<(usize, usize, usize)> = (0..n).map(|i| (len(i), i, last[i])).collect();
        // In the order of their births.
        lives.extend((0..n).rev().map(|i| (gradient_len(i), back(i), gradient[i])));
        let (mut places, per_image) = place(lives);
        let mut gradients = places.split_off(n);
        gradients.reverse();
        Self { maps: places, gradients, per_image }
    }

    /// Where a buffer lies for a batch of `n` images.
    pub(crate) fn range(&self, region: Region, n: usize) -> Range<usize> {
        let range = match region {
            Region::Map(i) => &self.maps[i],
            Region::Gradient(i) => &self.gradients[i],
        };
        range.start * n..range.end * n
    }
}

/// Places for buffers of `(length, first time, last time)`, sorted by the first: each at the lowest gap that takes it. Also the length in all.
fn place(lives: Vec<(usize, usize, usize)>) -> (Vec<Range<usize>>, usize) {
    // Those that are alive, by place, with their last time.
    let mut alive: Vec<(Range<usize>, usize)> = Vec::new();
    let (mut places, mut total) = (Vec::with_capacity(lives.len()), 0);
    for (len, first, last) in lives {
        if len == 0 {
            places.push(0..0);
            continue;
        }
        alive.retain(|&(_, end)| end >= first);
        let mut start = 0;
        let mut at = alive.len();
        for (i, (range, _)) in alive.iter().enumerate() {
            if range.start >= start + len {
                at = i;
                break;
            }
            start = range.end;
        }
        alive.insert(at, (start..start + len, last));
        total = total.max(start + len);
        places.push(start..start + len);
    }
    (places, total)
}

/// The arena's elements cut into the given disjoint ranges, in their order.
///
/// # Panics
/// If they overlap or end behind the arena.
pub(crate) fn carve<'a, E>(arena: &'a mut [E], ranges: &[Range<usize>]) -> Vec<&'a mut [E]> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&i| (ranges[i].start, ranges[i].end));
    let mut parts: Vec<Option<&'a mut [E]>> = ranges.iter().map(|_| None).collect();
    let (mut rest, mut at) = (arena, 0);
    for i in order {
        let (_, behind) =
            std::mem::take(&mut rest).split_at_mut(ranges[i].start.checked_sub(at).expect("invariant: no overlap"));
        let (part, behind) = behind.split_at_mut(ranges[i].len());
        parts[i] = Some(part);
        (rest, at) = (behind, ranges[i].end);
    }
    parts.into_iter().flatten().collect()
}

/// Elements of scratch memory that one thread needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScratchSizes {
    /// A block with its border.
    pub(crate) frame: usize,
    /// Pixels of the largest map.
    pub(crate) pixels: usize,
    /// Columns of the widest one.
    pub(crate) columns: usize,
}

impl ScratchSizes {
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut sizes = Self::default();
        for map in &plan.maps {
            for plane in map.inputs.iter().map(|&input| plan.maps[input].plane).chain([map.plane]) {
                let frame = gram_kernels::Frame { inner: plane, pad: map.border().unwrap_or(0) };
                sizes.frame = sizes.frame.max(frame.len());
                sizes.pixels = sizes.pixels.max(plane.pixels());
                sizes.columns = sizes.columns.max(plane.w);
            }
        }
        sizes
    }
}

/// Whether an operator is nothing but numbers from outside.
pub(crate) fn is_source(kind: &Kind) -> bool {
    matches!(kind, Kind::Input | Kind::Zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_live_together_do_not_overlap() {
        let lives = vec![(4, 0, 2), (2, 0, 0), (3, 1, 5), (2, 1, 2), (4, 3, 4), (1, 3, 9), (0, 3, 3), (6, 5, 6)];
        let (places, total) = place(lives.clone());
        for (i, a) in lives.iter().enumerate() {
            assert_eq!(places[i].len(), a.0);
            assert!(places[i].end <= total);
            for (j, b) in lives.iter().enumerate().filter(|(j, b)| *j != i && b.0 > 0 && a.0 > 0) {
                let together = a.1 <= b.2 && b.1 <= a.2;
                let apart = places[i].end <= places[j].start || places[j].end <= places[i].start;
                assert!(!together || apart, "{i} and {j}");
            }
        }
        assert!(total < lives.iter().map(|life| life.0).sum());
    }

    #[test]
    fn parts_come_in_the_order_that_was_asked_for() {
        let mut arena: Vec<usize> = (0..10).collect();
        let parts = carve(&mut arena, &[6..8, 0..2, 2..2, 3..6]);
        assert_eq!(parts, [&[6, 7][..], &[0, 1], &[], &[3, 4, 5]]);
    }
}
