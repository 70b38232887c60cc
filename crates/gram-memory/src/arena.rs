//! Offsets of all buffers in one block of memory.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{BufferId, MemoryError, MemoryGraph, StepId};

/// With more buffers only the quick allocation in the order of time is tried.
const MAX_OFFLINE: usize = 4096;
/// How often buffers at the top are placed anew, before others.
const MAX_REPAIRS: usize = 32;

/// Where a buffer stands, and from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Allocation {
    /// The buffer, by its number in the graph.
    pub buffer: u32,
    /// First byte.
    pub offset_bytes: u64,
    /// How many.
    pub bytes: u64,
    /// Position in the order of the first step that needs it.
    pub first_step: usize,
    /// Position in the order of the last step that needs it.
    pub last_step: usize,
}

/// A block of memory with a place for every buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Arena {
    /// Size of the block; at least the peak of the order, and more where the gaps between buffers do not fit.
    pub bytes: u64,
    /// A place for each buffer that some step needs, by buffer.
    pub allocations: Vec<Allocation>,
}

/// Two buffers that are in each other's way, or one that stands out of the arena.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// Both are alive in some step, and have bytes in common.
    #[error("{first} and {second} are both alive in step {step} and overlap")]
    Overlap {
        /// The one that was there.
        first: BufferId,
        /// The one that comes.
        second: BufferId,
        /// Position in the order.
        step: usize,
    },
    /// It ends behind the end of the arena.
    #[error("{buffer} ends at byte {end} of an arena of {arena}")]
    OutOfArena {
        /// The buffer.
        buffer: BufferId,
        /// Its end.
        end: u64,
        /// Size of the arena.
        arena: u64,
    },
}

impl Arena {
    /// Places all buffers for `order`.
    ///
    /// Lifetimes are known beforehand, so large buffers are placed first, each into the smallest gap that is free all its life. That is done
    /// for several orders of placing (by size, by size times lifetime, by time, and with what came to stand at the top first); the smallest
    /// arena is taken. Buffers without bytes stand at 0.
    ///
    /// # Errors
    /// [`MemoryError::NotAnOrder`].
    /// # Complexity
    /// Of the order of the number of buffers squared; for more than 4,096 buffers that number times those that are alive at one time.
    /// # Source
    /// Pisarchyk and Lee, "Efficient memory management for deep neural net inference",
    /// [arXiv:2001.03288](https://arxiv.org/abs/2001.03288), section 5 (greedy by size); best fit and repairs \[ours\].
    pub fn new(graph: &MemoryGraph, order: &[StepId]) -> Result<Self, MemoryError> {
        graph.live_bytes(order)?;
        let buffers = lifetimes(graph, order);
        let mut best = place_in_time(&buffers);
        if buffers.len() <= MAX_OFFLINE {
            let by = |rank: fn(&Allocation) -> u128| {
                let mut ranked: Vec<usize> = (0..buffers.len()).collect();
                ranked.sort_by_key(|&i| (std::cmp::Reverse(rank(&buffers[i])), buffers[i].first_step, i));
                ranked
            };
            let area =
                |buffer: &Allocation| u128::from(buffer.bytes) * (buffer.last_step - buffer.first_step + 1) as u128;
            for ranked in [by(|buffer| u128::from(buffer.bytes)), by(area)] {
                improve(&mut best, &buffers, ranked);
            }
        }
        Ok(best)
    }

    /// Checks that no two buffers that are alive at one time share a byte, and that all stand within the arena.
    ///
    /// # Errors
    /// [`ArenaError`] with the first that do.
    /// # Complexity
    /// `n log n` in the number of buffers.
    pub fn verify(&self) -> Result<(), ArenaError> {
        let id = |allocation: &Allocation| BufferId(allocation.buffer);
        let end = |allocation: &Allocation| allocation.offset_bytes.saturating_add(allocation.bytes);
        if let Some(out) = self.allocations.iter().find(|allocation| end(allocation) > self.bytes) {
            return Err(ArenaError::OutOfArena { buffer: id(out), end: end(out), arena: self.bytes });
        }
        let solid = || self.allocations.iter().filter(|allocation| allocation.bytes > 0);
        // Births and deaths in the order of time; what dies in one step is still there for what is born in it.
        let mut births: Vec<&Allocation> = solid().collect();
        births.sort_by_key(|allocation| allocation.first_step);
        let mut deaths: Vec<&Allocation> = solid().collect();
        deaths.sort_by_key(|allocation| allocation.last_step);
        let mut deaths = deaths.into_iter().peekable();
        let mut alive: BTreeMap<u64, &Allocation> = BTreeMap::new();
        for born in births {
            while let Some(dead) = deaths.next_if(|dead| dead.last_step < born.first_step) {
                alive.remove(&dead.offset_bytes);
            }
            let below =
                alive.range(..=born.offset_bytes).next_back().filter(|(_, other)| end(other) > born.offset_bytes);
            let above = alive.range(born.offset_bytes..).next().filter(|(offset, _)| **offset < end(born));
            if let Some((_, other)) = below.or(above) {
                return Err(ArenaError::Overlap { first: id(other), second: id(born), step: born.first_step });
            }
            alive.insert(born.offset_bytes, born);
        }
        Ok(())
    }

    fn of(allocations: Vec<Allocation>) -> Self {
        let end = |allocation: &Allocation| allocation.offset_bytes + allocation.bytes;
        Self { bytes: allocations.iter().map(end).max().unwrap_or(0), allocations }
    }
}

/// When each buffer is needed, all at offset 0; buffers that no step needs are left out.
///
/// What is there from the start is needed from the first step on, outputs until the last.
fn lifetimes(graph: &MemoryGraph, order: &[StepId]) -> Vec<Allocation> {
    let mut position = vec![0; order.len()];
    for (i, step) in order.iter().enumerate() {
        position[step.index()] = i;
    }
    let end = order.len().saturating_sub(1);
    let lifetime = |index: usize| {
        let buffer = BufferId(index as u32);
        let at = |steps: &[u32]| steps.iter().map(|&step| position[step as usize]).collect::<Vec<_>>();
        let (writes, reads) = (at(graph.writers(index)), at(graph.readers(index)));
        let last_use = writes.iter().chain(&reads).max().copied();
        let last_step = if graph.is_output(buffer) { Some(end) } else { last_use };
        Some(Allocation {
            buffer: buffer.0,
            offset_bytes: 0,
            bytes: graph.bytes(buffer),
            first_step: writes.into_iter().min().unwrap_or(0),
            last_step: last_step.or_else(|| graph.writers(index).is_empty().then_some(0))?,
        })
    };
    (0..graph.n_buffers()).filter_map(lifetime).collect()
}

/// Places buffers in the order of `ranked`, then again with what came to stand at the top first, and keeps the smallest arena.
fn improve(best: &mut Arena, buffers: &[Allocation], mut ranked: Vec<usize>) {
    for _ in 0..MAX_REPAIRS {
        let arena = place(buffers, &ranked);
        let end = |&i: &usize| arena.allocations[i].offset_bytes + arena.allocations[i].bytes;
        let top = ranked.iter().position(|i| end(i) == arena.bytes);
        let next = (arena.bytes < best.bytes).then_some(arena);
        match (next, top) {
            (Some(arena), _) => *best = arena,
            (None, None | Some(0)) => return,
            (None, Some(_)) => {}
        }
        if let Some(top) = top {
            ranked[..=top].rotate_right(1);
        }
    }
}

/// Places each buffer into the smallest gap between those that are alive in its time and placed before it.
fn place(buffers: &[Allocation], ranked: &[usize]) -> Arena {
    let mut placed: Vec<Allocation> = Vec::with_capacity(buffers.len());
    let mut offsets = vec![0; buffers.len()];
    for &i in ranked {
        let buffer = buffers[i];
        // `placed` is sorted by offset, so the gaps come in order.
        let meets = |other: &&Allocation| other.first_step <= buffer.last_step && buffer.first_step <= other.last_step;
        let offset = best_gap(placed.iter().filter(meets), buffer.bytes);
        offsets[i] = offset;
        let at = placed.partition_point(|other| other.offset_bytes <= offset);
        placed.insert(at, Allocation { offset_bytes: offset, ..buffer });
    }
    let at = |(buffer, offset_bytes): (&Allocation, u64)| Allocation { offset_bytes, ..*buffer };
    Arena::of(buffers.iter().zip(offsets).map(at).collect())
}

/// Places buffers when they come into being, into the smallest gap between those that are alive.
fn place_in_time(buffers: &[Allocation]) -> Arena {
    let mut by_birth: Vec<usize> = (0..buffers.len()).collect();
    by_birth.sort_by_key(|&i| (buffers[i].first_step, std::cmp::Reverse(buffers[i].bytes), i));
    let mut alive: Vec<Allocation> = Vec::new();
    let mut offsets = vec![0; buffers.len()];
    for i in by_birth {
        let buffer = buffers[i];
        alive.retain(|other| other.last_step >= buffer.first_step);
        let offset = best_gap(alive.iter(), buffer.bytes);
        offsets[i] = offset;
        let at = alive.partition_point(|other| other.offset_bytes <= offset);
        alive.insert(at, Allocation { offset_bytes: offset, ..buffer });
    }
    let at = |(buffer, offset_bytes): (&Allocation, u64)| Allocation { offset_bytes, ..*buffer };
    Arena::of(buffers.iter().zip(offsets).map(at).collect())
}

/// Start of the smallest gap of `bytes` or more between `others`, which are sorted by offset; behind them all if there is none.
fn best_gap<'a>(others: impl Iterator<Item = &'a Allocation>, bytes: u64) -> u64 {
    let (mut end, mut best) = (0, None);
    for other in others {
        if other.offset_bytes > end {
            let gap = other.offset_bytes - end;
            if gap >= bytes && best.is_none_or(|(smallest, _)| gap < smallest) {
                best = Some((gap, end));
            }
        }
        end = end.max(other.offset_bytes + other.bytes);
    }
    best.map_or(end, |(_, start)| start)
}
