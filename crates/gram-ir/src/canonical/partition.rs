//! Ordered partitions of vertices and their refinement by colours of neighbours.

use std::collections::VecDeque;

use super::dag::Dag;

/// Vertices in blocks, the blocks in an order that does not depend on how vertices are numbered.
#[derive(Clone)]
pub(super) struct Partition {
    /// Vertices, block after block.
    order: Vec<u8>,
    /// For each vertex the place in `order` at which its block starts: the block's name.
    block_of: Vec<u8>,
    /// For each place at which a block starts the number of its vertices.
    len: Vec<u8>,
    n_blocks: usize,
}

/// Buffers of [`Partition::refine`], all empty or zero between calls.
pub(super) struct Scratch {
    queue: VecDeque<u8>,
    queued: Vec<bool>,
    counts: Vec<u8>,
    touched: Vec<u8>,
    blocks: Vec<u8>,
    splitter: Vec<u8>,
}

impl Scratch {
    pub(super) fn new(n_vertices: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            queued: vec![false; n_vertices],
            counts: vec![0; n_vertices],
            touched: Vec::new(),
            blocks: Vec::new(),
            splitter: Vec::new(),
        }
    }

    fn enqueue(&mut self, block: u8) {
        if !std::mem::replace(&mut self.queued[usize::from(block)], true) {
            self.queue.push_back(block);
        }
    }
}

/// The finaliser of splitmix64: a bijection that spreads every bit.
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Partition {
    /// One block for each colour of `dag`, in order of colours, refined.
    pub(super) fn by_colour(dag: &Dag, scratch: &mut Scratch) -> Self {
        let n = dag.len();
        let mut order: Vec<u8> = (0..n).map(|vertex| vertex as u8).collect();
        order.sort_by_key(|&vertex| dag.colours[usize::from(vertex)]);
        let mut partition = Self { order, block_of: vec![0; n], len: vec![0; n], n_blocks: 0 };
        let mut start = 0;
        for place in 0..n {
            let colour = |place: usize| dag.colours[usize::from(partition.order[place])];
            if place == 0 || colour(place) != colour(place - 1) {
                start = place;
                partition.n_blocks += 1;
                scratch.enqueue(start as u8);
            }
            partition.len[start] += 1;
            partition.block_of[usize::from(partition.order[place])] = start as u8;
        }
        partition.refine(dag, scratch);
        partition
    }

    /// Vertices in order of their blocks.
    pub(super) fn order(&self) -> &[u8] {
        &self.order
    }

    /// The first of the largest blocks; none if every vertex has a block of its own.
    ///
    /// The largest: in projective planes the points of one line are a small block that refinement cannot split, although no symmetry is
    /// left among them; choosing them first makes the search explode.
    pub(super) fn target(&self) -> Option<&[u8]> {
        let mut largest: Option<&[u8]> = None;
        let mut start = 0;
        while start < self.order.len() {
            let len = usize::from(self.len[start]);
            if len > 1 && largest.is_none_or(|block| len > block.len()) {
                largest = Some(&self.order[start..start + len]);
            }
            start += len;
        }
        largest
    }

    /// The partition with `vertex` alone in front of its block, refined, and what refinement saw: equal for vertices that an
    /// automorphism maps to each other.
    pub(super) fn individualised(&self, vertex: u8, dag: &Dag, scratch: &mut Scratch) -> (Self, u64) {
        let mut child = self.clone();
        let start = usize::from(child.block_of[usize::from(vertex)]);
        let len = usize::from(child.len[start]);
        let block = &mut child.order[start..start + len];
        let place = block.iter().position(|&other| other == vertex).expect("a vertex stands in its block");
        block.swap(0, place);
        for &other in &block[1..] {
            child.block_of[usize::from(other)] = start as u8 + 1;
        }
        child.len[start] = 1;
        child.len[start + 1] = len as u8 - 1;
        child.n_blocks += 1;
        scratch.enqueue(start as u8);
        let trace = child.refine(dag, scratch);
        (child, trace)
    }

    /// Splits blocks until all vertices of a block have equally many neighbours in every queued block and those split off it.
    ///
    /// Gives a hash of all counts met on the way. Neither hash nor order of blocks depends on how vertices are numbered.
    fn refine(&mut self, dag: &Dag, scratch: &mut Scratch) -> u64 {
        let mut trace = 0;
        while let Some(block) = scratch.queue.pop_front() {
            scratch.queued[usize::from(block)] = false;
            if self.n_blocks == self.order.len() {
                continue; // nothing left to split: empty the queue
            }
            let start = usize::from(block);
            let splitter = &self.order[start..start + usize::from(self.len[start])];
            scratch.splitter.clear();
            scratch.splitter.extend_from_slice(splitter);
            trace = mix(trace ^ u64::from(block));
            for neighbours in [&dag.successors, &dag.predecessors] {
                trace = mix(trace.wrapping_add(self.split_by(neighbours, scratch)));
            }
        }
        mix(trace ^ self.n_blocks as u64)
    }

    /// Splits all blocks by the number of edges from the splitter.
    fn split_by(&mut self, neighbours: &[Vec<u8>], scratch: &mut Scratch) -> u64 {
        for &vertex in &scratch.splitter {
            for &to in &neighbours[usize::from(vertex)] {
                if scratch.counts[usize::from(to)] == 0 {
                    scratch.touched.push(to);
                }
                scratch.counts[usize::from(to)] += 1;
            }
        }
        let mut blocks = std::mem::take(&mut scratch.blocks);
        blocks.extend(scratch.touched.iter().map(|&vertex| self.block_of[usize::from(vertex)]));
        blocks.sort_unstable();
        blocks.dedup();
        let mut trace = 0;
        for &block in &blocks {
            trace = mix(trace ^ self.split_block(block, scratch));
        }
        blocks.clear();
        scratch.blocks = blocks;
        for vertex in scratch.touched.drain(..) {
            scratch.counts[usize::from(vertex)] = 0;
        }
        trace
    }

    /// Splits one block by the counts of its vertices, ascending, and queues the parts.
    fn split_block(&mut self, block: u8, scratch: &mut Scratch) -> u64 {
        let (start, len) = (usize::from(block), usize::from(self.len[usize::from(block)]));
        let end = start + len;
        let counts = &scratch.counts;
        let count = |vertex: u8| counts[usize::from(vertex)];
        self.order[start..end].sort_unstable_by_key(|&vertex| count(vertex));
        let mut trace = mix(u64::from(block) << 16 | len as u64);
        let mut largest = start;
        let mut part = start;
        while part < end {
            let first = count(self.order[part]);
            let size = self.order[part..end].iter().take_while(|&&vertex| count(vertex) == first).count();
            self.len[part] = size as u8;
            for &vertex in &self.order[part..part + size] {
                self.block_of[usize::from(vertex)] = part as u8;
            }
            if size > usize::from(self.len[largest]) {
                largest = part;
            }
            self.n_blocks += usize::from(part != start);
            trace = mix(trace ^ (u64::from(first) << 16 | size as u64));
            part += size;
        }
        if self.len[start] as usize == len {
            return trace;
        }
        // Counts in a block that was done before follow from its other parts, so the largest can be left out.
        let leave_out = if scratch.queued[start] { start } else { largest };
        let mut part = start;
        while part < end {
            if part != leave_out {
                scratch.enqueue(part as u8);
            }
            part += usize::from(self.len[part]);
        }
        trace
    }
}
