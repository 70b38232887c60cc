//! Forward and backward passes of a whole network over a batch.
//!
//! A pass is a parallel loop over chunks of images, whose number depends on the batch alone; what chunks sum up is added in their order. So
//! results are the same bits for any number of threads.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use gram_ir::Network;
use gram_kernels::{self as kernels, Element, Kernels, LANES, ShiftedSums};
use rayon::prelude::*;

use super::image::{Fixed, Scratch};
use super::memory::{Memory, Region, ScratchSizes, carve, is_source};
use super::pack::{Pack, Shape};
use super::plan::{Kind, MapId, Plan, Site};
use super::site::{Moments, SiteState, Tensors, merge};

/// Most chunks of a batch, and so the most threads that one training can use.
pub(super) const MAX_CHUNKS: usize = 16;

/// A network with its tensors and all memory that a training step needs.
#[derive(Debug)]
pub(crate) struct Executor<E: Element> {
    pub(super) s: &'static dyn Kernels<E>,
    pub(super) plan: Plan,
    /// Where each tensor begins in `values` and `gradient`.
    pub(super) offsets: Vec<usize>,
    pub(crate) values: Vec<E>,
    pub(crate) gradient: Vec<E>,
    pub(super) memory: Memory,
    pub(super) arena: Vec<E>,
    pub(super) pack: Pack<E>,
    pub(super) sites: Vec<SiteState<E>>,
    pub(super) inner: Vec<Option<SiteState<E>>>,
    pub(super) scratch: ThreadScratch<E>,
    /// What chunks sum up.
    pub(super) partials: Vec<E>,
    /// Images of the last forward pass.
    pub(super) n: usize,
}

/// Scratch memory of each thread of a pool.
#[derive(Debug)]
pub(crate) struct ThreadScratch<E> {
    sizes: ScratchSizes,
    threads: Vec<Mutex<Scratch<E>>>,
}

impl<E: Element> ThreadScratch<E> {
    pub(super) fn new(sizes: ScratchSizes) -> Self {
        Self { sizes, threads: Vec::new() }
    }

    /// Makes sure that there is one for each thread of the present pool.
    pub(super) fn prepare(&mut self) {
        let n = rayon::current_num_threads().max(1);
        while self.threads.len() < n {
            self.threads.push(Mutex::new(Scratch::new(self.sizes)));
        }
    }

    /// That of the present thread; it holds no state, so a panic of its last user does not matter.
    pub(super) fn get(&self) -> MutexGuard<'_, Scratch<E>> {
        let i = rayon::current_thread_index().unwrap_or(0) % self.threads.len();
        self.threads[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Images in one chunk of a batch of `n`.
pub(super) fn images_per_chunk(n: usize) -> usize {
    n.div_ceil(MAX_CHUNKS).max(1)
}

/// Images in each chunk.
pub(super) fn chunk_sizes(n: usize) -> Vec<usize> {
    let per_chunk = images_per_chunk(n);
    (0..n).step_by(per_chunk).map(|first| per_chunk.min(n - first)).collect()
}

/// The first region to write and the others to read, each once.
pub(super) struct Parts<'a, E> {
    pub(super) written: &'a mut [E],
    read: Vec<(Region, &'a [E])>,
}

impl<'a, E> Parts<'a, E> {
    pub(super) fn take(
        arena: &'a mut [E],
        memory: &Memory,
        n: usize,
        written: Region,
        read: impl IntoIterator<Item = Region>,
    ) -> Self {
        let mut regions: Vec<Region> = read.into_iter().collect();
        regions.sort_unstable();
        regions.dedup();
        let ranges: Vec<Range<usize>> =
            std::iter::once(written).chain(regions.iter().copied()).map(|region| memory.range(region, n)).collect();
        let mut parts = carve(arena, &ranges).into_iter();
        let written = parts.next().expect("invariant: as many parts as ranges");
        Self { written, read: regions.into_iter().zip(parts.map(|part| &*part)).collect() }
    }

    pub(super) fn find(read: &[(Region, &'a [E])], region: Region) -> &'a [E] {
        let at = read.binary_search_by_key(&region, |&(region, _)| region).expect("invariant: regions were asked for");
        read[at].1
    }

    pub(super) fn split(self) -> (&'a mut [E], Vec<(Region, &'a [E])>) {
        (self.written, self.read)
    }
}

impl<E: Element> Executor<E> {
    /// With all tensors 0.
    pub(crate) fn new(s: &'static dyn Kernels<E>, network: &Network, input_gradient: bool) -> Self {
        let plan = Plan::compile(network, input_gradient);
        let (mut len, mut offsets) = (0, Vec::new());
        for spec in network.tensors() {
            offsets.push(len);
            len += spec.elements();
        }
        let memory = Memory::training(&plan);
        let partials = plan.maps.iter().map(|map| Shape::of(map).dense_len()).max().unwrap_or(0);
        let inner = |kind: &Kind| match kind {
            Kind::Sep { inner, .. } => Some(SiteState::new(inner)),
            _ => None,
        };
        Self {
            s,
            offsets,
            values: vec![E::default(); len],
            gradient: vec![E::default(); len],
            memory,
            arena: Vec::new(),
            pack: Pack::new(&plan, true),
            sites: plan.maps.iter().map(|map| SiteState::new(&map.site)).collect(),
            inner: plan.maps.iter().map(|map| inner(&map.kind)).collect(),
            scratch: ThreadScratch::new(ScratchSizes::of(&plan)),
            partials: vec![E::default(); MAX_CHUNKS * partials],
            n: 0,
            plan,
        }
    }

    /// The output `[n, c, h, w]` for images `[n, c, h, w]`, in training mode: running statistics move.
    pub(crate) fn forward(&mut self, images: &[E], n: usize) -> Vec<E> {
        self.n = n;
        let needed = self.memory.per_image * n;
        if self.arena.len() < needed {
            // Not `resize`, which would hold the old and the new memory at once.
            self.arena = Vec::new();
            self.arena = vec![E::default(); needed];
        }
        self.scratch.prepare();
        self.pack.refresh(&self.plan, &self.values, &self.offsets);
        for j in 0..self.plan.maps.len() {
            self.forward_map(j, images);
            self.inner_moments(j);
        }
        self.read_output()
    }

    /// Everything that passes read, beside the arena.
    pub(super) fn fixed<'a>(
        s: &'static dyn Kernels<E>,
        plan: &'a Plan,
        pack: &'a Pack<E>,
        sites: &'a [SiteState<E>],
        inner: &'a [Option<SiteState<E>>],
    ) -> Fixed<'a, E> {
        Fixed { s, plan, pack, sites, inner }
    }

    fn forward_map(&mut self, j: MapId, images: &[E]) {
        let Self { s, plan, memory, arena, pack, sites, inner, scratch, n, .. } = self;
        let (s, n, map) = (*s, *n, &plan.maps[j]);
        let fixed = Self::fixed(s, plan, pack, sites, inner);
        let reads = map.inputs.iter().map(|&input| Region::Map(input));
        let (out, read) = Parts::take(arena, memory, n, Region::Map(j), reads).split();
        let inputs: Vec<&[E]> = map.inputs.iter().map(|&input| Parts::find(&read, Region::Map(input))).collect();
        let (len, per_chunk) = (map.site.image_len(), images_per_chunk(n));
        let chunks = out.par_chunks_mut(per_chunk * len).enumerate().map(|(chunk, out)| {
            let mut scratch = scratch.get();
            let mut sums: Vec<ShiftedSums<E>> = Vec::new();
            for (i, out) in out.chunks_exact_mut(len).enumerate() {
                let image = chunk * per_chunk + i;
                if is_source(&map.kind) {
                    fill_source(map, images, image, out);
                } else {
                    let inputs: Vec<&[E]> = inputs.iter().map(|input| image_of(input, n, image)).collect();
                    fixed.forward(j, &inputs, out, &mut scratch);
                }
                if map.site.norm.is_some() {
                    add_to_moments(s, &map.site, out, &mut sums);
                }
            }
            sums
        });
        let chunks: Vec<Vec<ShiftedSums<E>>> = chunks.collect();
        if let Some(norm) = map.site.norm {
            let moments = merged(&chunks, map.site.blocks.len(), n, map.site.pixels);
            let mut tensors = Tensors { values: &mut self.values, offsets: &self.offsets };
            self.sites[j].normalise(&map.site, norm, (0, &moments), &mut tensors);
        } else if let Some(bias) = map.site.bias {
            self.sites[j].set_bias(&map.site, &self.values[self.offsets[bias]..]);
        }
    }

    /// Statistics inside the separable convolutions that read map `i`, of all in one pass over it.
    fn inner_moments(&mut self, i: MapId) {
        let Self { s, plan, memory, arena, pack, sites, inner, scratch, n, .. } = self;
        let (s, n, map) = (*s, *n, &plan.maps[i]);
        let readers = &map.separables;
        if readers.is_empty() {
            return;
        }
        let fixed = Self::fixed(s, plan, pack, sites, inner);
        let (len, per_chunk, blocks) = (map.site.image_len(), images_per_chunk(n), map.site.blocks.len());
        let chunks = arena[memory.range(Region::Map(i), n)].par_chunks(per_chunk * len).map(|images| {
            let mut scratch = scratch.get();
            let mut sums: Vec<ShiftedSums<E>> = Vec::with_capacity(blocks * readers.len());
            for (image, x) in images.chunks_exact(len).enumerate() {
                for block in 0..blocks {
                    let mut filled = None;
                    for (r, &(j, first)) in readers.iter().enumerate() {
                        let dw = fixed.depthwise(j, first + block, x, &mut filled, &mut scratch.frame);
                        if image == 0 {
                            sums.push(ShiftedSums::new(s.sep_centre(dw)));
                        }
                        s.sep_moments(dw, &mut sums[block * readers.len() + r]);
                    }
                }
            }
            sums
        });
        let chunks: Vec<Vec<ShiftedSums<E>>> = chunks.collect();
        let moments = merged(&chunks, blocks * readers.len(), n, map.site.pixels);
        for (r, &(j, first)) in readers.iter().enumerate() {
            let own: Vec<Vec<Moments>> = moments.iter().skip(r).step_by(readers.len()).cloned().collect();
            let (Kind::Sep { inner: site, .. }, Some(state)) = (&plan.maps[j].kind, &mut inner[j]) else { continue };
            let mut tensors = Tensors { values: &mut self.values, offsets: &self.offsets };
            if let Some(norm) = site.norm {
                state.normalise(site, norm, (first, &own), &mut tensors);
            }
        }
    }

    /// The network's output, lifted, `[n, c, h, w]`.
    fn read_output(&self) -> Vec<E> {
        let Self { s, plan, memory, arena, sites, n, .. } = self;
        let pixels = plan.outputs.first().map_or(0, |output| plan.maps[output.map].site.pixels);
        let mut out = vec![E::default(); n * plan.n_out * pixels];
        for output in &plan.outputs {
            let range = memory.range(Region::Map(output.map), *n);
            let len = plan.maps[output.map].site.image_len();
            let images = arena[range].chunks_exact(len).zip(out.chunks_exact_mut(plan.n_out * pixels));
            images.for_each(|(x, out)| {
                write_planes(*s, &plan.maps[output.map].site, &sites[output.map], x, output.first, out)
            });
        }
        out
    }

    /// Bytes that a step with `n` images takes on `n_threads` threads, beside the tensors' own and the images.
    pub(crate) fn bytes(&self, n: usize, n_threads: usize) -> usize {
        let elements = self.memory.per_image * n + self.partials.len() + 2 * self.values.len();
        elements * size_of::<E>() + self.pack.bytes() + n_threads * Scratch::<E>::bytes(self.scratch.sizes)
    }
}

/// Image `i` of a batch of `n`.
pub(super) fn image_of<E>(batch: &[E], n: usize, i: usize) -> &[E] {
    let len = batch.len() / n;
    &batch[i * len..(i + 1) * len]
}

pub(super) fn fill_source<E: Element>(map: &super::plan::Map, images: &[E], image: usize, out: &mut [E]) {
    if map.kind == Kind::Zero {
        return out.fill(E::default());
    }
    let channels = map.site.blocks.last().map_or(0, |lanes| lanes.first + lanes.depth);
    let len = channels * map.site.pixels;
    kernels::to_pixels(&images[image * len..(image + 1) * len], channels, map.site.pixels, map.site.stride(), out);
}

/// Adds an image to the sums of all its blocks; a chunk's first one gives their shifts: its middle pixel.
fn add_to_moments<E: Element>(s: &'static dyn Kernels<E>, site: &Site, image: &[E], sums: &mut Vec<ShiftedSums<E>>) {
    for block in 0..site.blocks.len() {
        let at = site.pixels / 2 * site.stride() + block * LANES;
        if sums.len() == block {
            let mut shift = [E::default(); LANES];
            shift.copy_from_slice(&image[at..at + LANES]);
            sums.push(ShiftedSums::new(shift));
        }
        let block_of = kernels::Block { data: image, stride: site.stride(), at: block * LANES };
        s.add_moments(block_of, site.pixels, &mut sums[block]);
    }
}

/// The moments of `n_rows` blocks out of the sums of all chunks.
fn merged<E: Element>(chunks: &[Vec<ShiftedSums<E>>], n_rows: usize, n: usize, pixels: usize) -> Vec<Vec<Moments>> {
    let counts: Vec<f64> = chunk_sizes(n).into_iter().map(|images| (images * pixels) as f64).collect();
    let row = |row: usize| merge(&chunks.iter().map(|chunk| &chunk[row]).collect::<Vec<_>>(), &counts);
    (0..n_rows).map(row).collect()
}

/// One image of a map, lifted, as planes of an output whose channels begin at `first`.
pub(super) fn write_planes<E: Element>(
    s: &'static dyn Kernels<E>,
    site: &Site,
    state: &SiteState<E>,
    x: &[E],
    first: usize,
    out: &mut [E],
) {
    let mut lifted = vec![E::default(); site.pixels * LANES];
    for (block, lanes) in site.blocks.iter().enumerate() {
        let source = kernels::Block { data: x, stride: site.stride(), at: block * LANES };
        s.lift_block((source, &state.lift(block)), site.pixels, (&mut lifted, LANES, 0), false);
        for k in 0..lanes.depth {
            let plane = &mut out[(first + lanes.first + k) * site.pixels..][..site.pixels];
            plane.iter_mut().zip(lifted.iter().skip(k).step_by(LANES)).for_each(|(to, &x)| *to = x);
        }
    }
}
