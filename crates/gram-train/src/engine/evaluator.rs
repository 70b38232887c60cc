//! Forward passes in evaluation mode.
//!
//! Without batch statistics no pass has to wait for all images: each image goes through the whole network alone, in as little memory as one
//! image needs, which stays in cache. Batch norms are folded with biases into the affine map that is applied when a map is read.

use gram_ir::Network;
use gram_kernels::{Element, Kernels};
use rayon::prelude::*;

use super::EvalEngine;
use super::executor::{ThreadScratch, write_planes};
use super::image::{Fixed, Scratch};
use super::memory::{Memory, Region, ScratchSizes, carve, is_source};
use super::pack::Pack;
use super::plan::{Kind, Plan, Site};
use super::site::SiteState;

/// A network with fixed tensors.
#[derive(Debug)]
pub(crate) struct Evaluator<E: Element> {
    s: &'static dyn Kernels<E>,
    plan: Plan,
    memory: Memory,
    pack: Pack<E>,
    sites: Vec<SiteState<E>>,
    inner: Vec<Option<SiteState<E>>>,
    scratch: ThreadScratch<E>,
}

impl<E: Element> Evaluator<E> {
    /// Of a plan with all its tensors, which begin at `offsets` of `values`.
    pub(crate) fn new(s: &'static dyn Kernels<E>, plan: Plan, values: &[E], offsets: &[usize]) -> Self {
        let mut pack = Pack::new(&plan, false);
        pack.refresh(&plan, values, offsets);
        let tensors = |sizes: usize| {
            move |tensor: usize| values[offsets[tensor]..][..sizes].iter().map(|x| x.to_f64()).collect::<Vec<f64>>()
        };
        let fixed = |site: &Site| {
            let mut state = SiteState::new(site);
            let channels = site.blocks.last().map_or(0, |lanes| lanes.first + lanes.depth);
            match (site.norm, site.bias) {
                (Some(norm), _) => state.fix(site, norm, &tensors(channels)),
                (None, Some(bias)) => state.set_bias(site, &values[offsets[bias]..]),
                (None, None) => {}
            }
            state
        };
        let inside = |kind: &Kind| match kind {
            Kind::Sep { inner, .. } => Some(fixed(inner)),
            _ => None,
        };
        Self {
            s,
            sites: plan.maps.iter().map(|map| fixed(&map.site)).collect(),
            inner: plan.maps.iter().map(|map| inside(&map.kind)).collect(),
            memory: Memory::forward(&plan),
            scratch: ThreadScratch::new(ScratchSizes::of(&plan)),
            pack,
            plan,
        }
    }

    /// The output `[n, c, h, w]` for images `[n, c, h, w]`; that of an image does not depend on the others.
    pub(crate) fn run(&mut self, images: &[E], n: usize) -> Vec<E> {
        self.scratch.prepare();
        let this = &*self;
        let out_len =
            this.plan.outputs.first().map_or(0, |output| this.plan.maps[output.map].site.pixels) * this.plan.n_out;
        let mut out = vec![E::default(); n * out_len];
        let images = images.par_chunks_exact((images.len() / n.max(1)).max(1));
        out.par_chunks_exact_mut(out_len.max(1)).zip(images).for_each_init(
            || vec![E::default(); this.memory.per_image],
            |arena, (out, image)| this.image(image, arena, &mut this.scratch.get(), out),
        );
        out
    }

    fn image(&self, image: &[E], arena: &mut [E], scratch: &mut Scratch<E>, out: &mut [E]) {
        let Self { s, plan, pack, sites, inner, .. } = self;
        let fixed = Fixed { s: *s, plan, pack, sites, inner };
        for (j, map) in plan.maps.iter().enumerate() {
            let mut inputs: Vec<Region> = map.inputs.iter().map(|&input| Region::Map(input)).collect();
            inputs.sort_unstable();
            inputs.dedup();
            let regions = std::iter::once(Region::Map(j)).chain(inputs.iter().copied());
            let ranges: Vec<_> = regions.map(|region| self.memory.range(region, 1)).collect();
            let mut parts = carve(arena, &ranges).into_iter();
            let Some(to) = parts.next() else { continue };
            if is_source(&map.kind) {
                super::executor::fill_source(map, image, 0, to);
                continue;
            }
            let parts: Vec<&[E]> = parts.map(|part| &*part).collect();
            let find = |input: &usize| inputs.binary_search(&Region::Map(*input)).map_or(&[][..], |at| parts[at]);
            let inputs: Vec<&[E]> = map.inputs.iter().map(find).collect();
            fixed.forward(j, &inputs, to, scratch);
        }
        for output in &plan.outputs {
            let x = &arena[self.memory.range(Region::Map(output.map), 1)];
            write_planes(*s, &plan.maps[output.map].site, &sites[output.map], x, output.first, out);
        }
    }
}

impl EvalEngine {
    /// Bytes that running a network takes on `n_threads` threads, beside images and scores.
    pub(crate) fn bytes(network: &Network, n_threads: usize) -> usize {
        let plan = Plan::compile(network, false);
        let arena = Memory::forward(&plan).per_image * size_of::<f32>();
        Pack::<f32>::new(&plan, false).bytes() + n_threads * (arena + Scratch::<f32>::bytes(ScratchSizes::of(&plan)))
    }
}
