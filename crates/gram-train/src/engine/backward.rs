//! The backward pass.
//!
//! Maps are differentiated from the last to the first, each in two passes over the batch. The first *pulls*: image by image it collects the
//! gradient of the map's lifted value from everyone who reads it, in cache, takes it through the activation and sums up what the norm's gradient
//! needs. The second *pushes*: with those sums it turns the gradient into that of the raw map, in place, and takes the gradients of the
//! operator's weights. Nobody adds to gradients in memory, and what readers send back is computed where it is needed, not stored.

use gram_kernels::{
    self as kernels, Ahead, Block, Depthwise, Element, Frame, GradientSums, LANES, SepGradient, TransposedWeights,
};
use rayon::prelude::*;

use super::executor::{Executor, Parts, chunk_sizes, image_of, images_per_chunk};
use super::image::{Fixed, Scratch};
use super::memory::Region;
use super::pack::{Shape, unpack_dense, unpack_depthwise};
use super::plan::{Kind, Map, MapId, Plan, Slice};
use super::site::total;

/// Gradient of depthwise weights, `[taps][16]`.
type Taps<E> = Vec<[E; LANES]>;

/// What a chunk of the first pass sums up.
struct Pulled<E> {
    /// For each block.
    sums: Vec<GradientSums<E>>,
    /// For each block and separable reader.
    taps: Vec<Taps<E>>,
}

/// What a chunk of the second pass sums up, beside dense weights.
struct Pushed<E> {
    /// Inside of a separable convolution: for each slice.
    sums: Vec<GradientSums<E>>,
    /// Of a depthwise convolution: for each slice.
    taps: Vec<Taps<E>>,
}

impl<E: Element> Executor<E> {
    /// Gradients of all tensors, after [`forward`](Self::forward), given that of the output `[n, c, h, w]`.
    ///
    /// Those of tensors that the output does not depend on are 0.
    pub(crate) fn backward(&mut self, output: &[E]) {
        self.gradient.fill(E::default());
        for j in (0..self.plan.maps.len()).rev() {
            if self.plan.maps[j].differentiated {
                self.pull(j, output);
                self.push(j);
            }
        }
    }

    /// The gradient of the images of the last pass, `[n, c, h, w]`, where it was asked for.
    pub(crate) fn input_gradient(&self) -> Option<Vec<E>> {
        let map = self.plan.maps.first().filter(|map| map.differentiated)?;
        let range = self.memory.range(Region::Gradient(0), self.n);
        let channels = map.site.blocks.last().map_or(0, |lanes| lanes.first + lanes.depth);
        let mut out = vec![E::default(); self.n * channels * map.site.pixels];
        let images = self.arena[range].chunks_exact(map.site.image_len());
        for (g, out) in images.zip(out.chunks_exact_mut(channels * map.site.pixels)) {
            for (c, place) in map.places(super::plan::Lanes { first: 0, depth: channels }).enumerate() {
                let plane = &mut out[c * map.site.pixels..][..map.site.pixels];
                plane.iter_mut().zip(g.iter().skip(place).step_by(map.site.stride())).for_each(|(to, &g)| *to = g);
            }
        }
        Some(out)
    }

    fn pull(&mut self, i: MapId, output: &[E]) {
        let Self { s, plan, memory, arena, pack, sites, inner, scratch, n, .. } = self;
        let (s, n, map) = (*s, *n, &plan.maps[i]);
        let pull = Pull { fixed: Self::fixed(s, plan, pack, sites, inner), i, map, output };
        let readers = map.readers.iter().map(|&(j, _)| Region::Gradient(j));
        let reads = readers.chain([Region::Map(i)]);
        let (g, read) = Parts::take(arena, memory, n, Region::Gradient(i), reads).split();
        let batch = Parts::find(&read, Region::Map(i));
        let gradients: Vec<&[E]> = map.readers.iter().map(|&(j, _)| Parts::find(&read, Region::Gradient(j))).collect();
        let (len, per_chunk) = (map.site.image_len(), images_per_chunk(n));
        let chunks = g.par_chunks_mut(per_chunk * len).enumerate().map(|(chunk, g)| {
            let mut scratch = scratch.get();
            let mut pulled = pull.nothing();
            for (k, g) in g.chunks_exact_mut(len).enumerate() {
                let image = chunk * per_chunk + k;
                let gradients: Vec<&[E]> = gradients.iter().map(|all| image_of(all, n, image)).collect();
                pull.image(image, image_of(batch, n, image), &gradients, g, &mut scratch, &mut pulled);
            }
            pulled
        });
        let chunks: Vec<Pulled<E>> = chunks.collect();
        self.note_pulled(i, &chunks);
    }

    /// Gradients of what belongs to map `i`'s site, and of depthwise weights in its readers.
    fn note_pulled(&mut self, i: MapId, chunks: &[Pulled<E>]) {
        let Self { plan, offsets, gradient, sites, n, .. } = self;
        let map = &plan.maps[i];
        let blocks = map.site.blocks.len();
        let sums: Vec<GradientSums<E>> = (0..blocks)
            .map(|block| total(&chunks.iter().map(|chunk| &chunk.sums[block]).collect::<Vec<_>>()))
            .collect();
        let mut put = |tensor: usize, c: usize, value: f64| gradient[offsets[tensor] + c] = E::from_f64(value);
        if let Some(norm) = map.site.norm {
            // A bias in front of a norm has no effect, and so no gradient.
            sites[i].differentiate(&map.site, norm, &sums, (*n * map.site.pixels) as f64, &mut put);
        } else if let Some(bias) = map.site.bias {
            for (lanes, sums) in map.site.blocks.iter().zip(&sums) {
                (0..lanes.depth).for_each(|k| put(bias, lanes.first + k, sums.g[k]));
            }
        }
        let separables = separables(plan, map);
        for (row, (block, (j, first))) in
            (0..blocks).flat_map(|block| separables.iter().map(move |&reader| (block, reader))).enumerate()
        {
            let taps = total_taps(chunks.iter().map(|chunk| &chunk.taps[row]));
            unpack_depthwise(&plan.maps[j], first + block, &taps, gradient, offsets);
        }
    }

    fn push(&mut self, j: MapId) {
        let Self { s, plan, memory, arena, pack, sites, inner, scratch, partials, n, .. } = self;
        let (s, n, map) = (*s, *n, &plan.maps[j]);
        let weightless =
            !matches!(map.kind, Kind::Pointwise { .. } | Kind::Conv { .. } | Kind::Depthwise { .. } | Kind::Sep { .. });
        if weightless && map.site.norm.is_none() {
            return;
        }
        let push = Push { fixed: Self::fixed(s, plan, pack, sites, inner), j, map };
        let inputs = if weightless { &[][..] } else { &map.inputs };
        let reads = inputs.iter().map(|&input| Region::Map(input)).chain([Region::Map(j)]);
        let (g, read) = Parts::take(arena, memory, n, Region::Gradient(j), reads).split();
        let batch = Parts::find(&read, Region::Map(j));
        let inputs: Vec<&[E]> = inputs.iter().map(|&input| Parts::find(&read, Region::Map(input))).collect();
        let (len, per_chunk, dense) = (map.site.image_len(), images_per_chunk(n), Shape::of(map).dense_len());
        let n_chunks = n.div_ceil(per_chunk);
        let mut rows: Vec<&mut [E]> = Vec::with_capacity(n_chunks);
        let mut rest = partials.as_mut_slice();
        for _ in 0..n_chunks {
            let (row, behind) = rest.split_at_mut(dense);
            rows.push(row);
            rest = behind;
        }
        let chunks = g.par_chunks_mut(per_chunk * len).zip(rows).enumerate().map(|(chunk, (g, dense))| {
            let mut scratch = scratch.get();
            dense.fill(E::default());
            let mut pushed = push.nothing();
            for (k, g) in g.chunks_exact_mut(len).enumerate() {
                let image = chunk * per_chunk + k;
                let inputs: Vec<&[E]> = inputs.iter().map(|all| image_of(all, n, image)).collect();
                push.image(image_of(batch, n, image), &inputs, g, &mut scratch, dense, &mut pushed);
            }
            pushed
        });
        let chunks: Vec<Pushed<E>> = chunks.collect();
        self.note_pushed(j, &chunks);
    }

    fn note_pushed(&mut self, j: MapId, chunks: &[Pushed<E>]) {
        let Self { plan, offsets, gradient, inner, partials, n, .. } = self;
        let map = &plan.maps[j];
        let dense = Shape::of(map).dense_len();
        sum_rows(&mut partials[..dense * chunks.len()], dense);
        unpack_dense(map, &partials[..dense], gradient, offsets);
        match (&map.kind, &mut inner[j]) {
            (Kind::Sep { inner: site, .. }, Some(state)) => {
                let sums: Vec<GradientSums<E>> = (0..map.slices.len())
                    .map(|q| total(&chunks.iter().map(|chunk| &chunk.sums[q]).collect::<Vec<_>>()))
                    .collect();
                let mut put = |tensor: usize, c: usize, value: f64| gradient[offsets[tensor] + c] = E::from_f64(value);
                if let Some(norm) = site.norm {
                    state.differentiate(site, norm, &sums, (*n * site.pixels) as f64, &mut put);
                }
            }
            (Kind::Depthwise { .. }, _) => {
                for q in 0..map.slices.len() {
                    let taps = total_taps(chunks.iter().map(|chunk| &chunk.taps[q]));
                    unpack_depthwise(map, q, &taps, gradient, offsets);
                }
            }
            _ => {}
        }
        debug_assert_eq!(chunks.len(), chunk_sizes(*n).len());
    }
}

/// The separable convolutions among a map's readers.
fn separables(plan: &Plan, map: &Map) -> Vec<(MapId, usize)> {
    let is_separable = |&&(j, _): &&(MapId, usize)| matches!(plan.maps[j].kind, Kind::Sep { .. });
    map.readers.iter().filter(is_separable).copied().collect()
}

/// Adds all rows of `len` elements to the first one, in their order.
fn sum_rows<E: Element>(rows: &mut [E], len: usize) {
    /// Elements that one thread adds up at a time.
    const PIECE: usize = 1 << 12;
    if len == 0 {
        return;
    }
    let (first, rest) = rows.split_at_mut(len);
    first.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sums)| {
        for row in rest.chunks_exact(len) {
            add_to(sums, &row[piece * PIECE..][..sums.len()]);
        }
    });
}

fn add_to<E: Element>(sums: &mut [E], terms: &[E]) {
    sums.iter_mut().zip(terms).for_each(|(sum, &term)| *sum = *sum + term);
}

/// The taps of all chunks, in their order.
fn total_taps<'a, E: Element>(chunks: impl Iterator<Item = &'a Taps<E>>) -> Taps<E> {
    let mut total: Option<Taps<E>> = None;
    for taps in chunks {
        match &mut total {
            None => total = Some(taps.clone()),
            Some(total) => add_to(total.as_flattened_mut(), taps.as_flattened()),
        }
    }
    total.unwrap_or_default()
}

/// The first pass over one map.
struct Pull<'a, E: Element> {
    fixed: Fixed<'a, E>,
    i: MapId,
    map: &'a Map,
    /// Gradient of the network's output.
    output: &'a [E],
}

impl<E: Element> Pull<'_, E> {
    fn nothing(&self) -> Pulled<E> {
        let site = &self.fixed.sites[self.i];
        let sums = (0..self.map.site.blocks.len()).map(|block| GradientSums::new(site.mean(block))).collect();
        let mut taps = Vec::new();
        for _ in &self.map.site.blocks {
            for (j, _) in separables(self.fixed.plan, self.map) {
                let Kind::Sep { kernel, .. } = self.fixed.plan.maps[j].kind else { continue };
                taps.push(vec![[E::default(); LANES]; kernel * kernel]);
            }
        }
        Pulled { sums, taps }
    }

    /// Writes the gradient of image number `image` of the map in front of its activation; `gradients` are those of its readers.
    fn image(
        &self,
        image: usize,
        x: &[E],
        gradients: &[&[E]],
        g: &mut [E],
        scratch: &mut Scratch<E>,
        pulled: &mut Pulled<E>,
    ) {
        let (site, stride) = (&self.map.site, self.map.site.stride());
        let state = &self.fixed.sites[self.i];
        let mut taps = pulled.taps.iter_mut();
        for block in 0..site.blocks.len() {
            // Whether `dx` holds something already, and with which border and border value `frame` holds the block.
            let mut add = self.output_gradient(image, block, &mut scratch.dx);
            let mut filled = None;
            for r in 0..gradients.len() {
                let is_separable = matches!(self.fixed.plan.maps[self.map.readers[r].0].kind, Kind::Sep { .. });
                let taps = if is_separable { taps.next() } else { None };
                self.reader((r, block), x, gradients, scratch, &mut filled, taps, add);
                add = true;
            }
            let z = Block { data: x, stride, at: block * LANES };
            let sums = &mut pulled.sums[block];
            self.fixed.s.lower_gradient(z, &state.lift(block), &scratch.dx, site.pixels, g, sums);
        }
    }

    /// Puts the block's part of the output's gradient into `dx`; false if it has none.
    fn output_gradient(&self, image: usize, block: usize, dx: &mut [E]) -> bool {
        let (plan, pixels, lanes) = (self.fixed.plan, self.map.site.pixels, self.map.site.blocks[block]);
        let mut any = false;
        for output in plan.outputs.iter().filter(|output| output.map == self.i) {
            if !any {
                dx[..pixels * LANES].fill(E::default());
                any = true;
            }
            for k in 0..lanes.depth {
                let c = output.first + lanes.first + k;
                let plane = &self.output[(image * plan.n_out + c) * pixels..][..pixels];
                for (to, g) in dx.iter_mut().skip(k).step_by(LANES).zip(plane) {
                    *to = *to + *g;
                }
            }
        }
        any
    }

    /// What reader number `r` sends back for a block of this map: into `dx`, or with `add` added to it.
    #[expect(clippy::too_many_arguments, reason = "scratch memory is lent out piece by piece")]
    fn reader(
        &self,
        (r, block): (usize, usize),
        x: &[E],
        gradients: &[&[E]],
        scratch: &mut Scratch<E>,
        filled: &mut Option<(usize, bool)>,
        taps: Option<&mut Taps<E>>,
        add: bool,
    ) {
        let Fixed { s, plan, pack, .. } = self.fixed;
        let ((j, first), g) = (self.map.readers[r], gradients[r]);
        let (map, q) = (&plan.maps[j], first + block);
        let (slice, shape, width) = (&map.slices[q], Shape::of(map), map.site.stride());
        let (n_out, pixels) = (shape.n_out(), self.map.site.pixels);
        let g_block = Block { data: g, stride: width, at: q * LANES };
        match &map.kind {
            Kind::Pointwise { .. } => {
                let weights = TransposedWeights { data: pack.transposed(j, shape, q), n_out };
                s.pointwise_input((g, width), weights, pixels, (&mut scratch.dx, add));
            }
            Kind::Sep { .. } => {
                let frame = self.filled(map, slice, x, scratch, filled);
                let weights = pack.depthwise(j, shape, q);
                // The next block begins with the first reader again.
                let next = (r + 1) % gradients.len();
                let ahead = Ahead::all(gradients[next], plan.maps[self.map.readers[next].0].site.stride());
                let dw = Depthwise { frame, x: &scratch.frame, kernel: 2 * frame.pad + 1, weights, ahead };
                let gradient = separable_gradient(&self.fixed, (j, q), dw, g);
                let norm = self.fixed.inner_site(j).coefficients(q);
                let Some(taps) = taps else { return };
                s.sep_input(gradient, norm, (&mut scratch.tile, &mut scratch.g_frame), taps, (&mut scratch.dx, add));
            }
            Kind::Conv { .. } => {
                let (frame, weights) = (self.fixed.frame(map, slice), (pack.transposed(j, shape, q), n_out));
                scratch.g_frame[..frame.len()].fill(E::default());
                s.conv_input(frame, map.window(), (g, width), weights, &mut scratch.g_frame);
                s.add_frame(frame, &scratch.g_frame, !add, &mut scratch.dx, LANES, 0);
            }
            Kind::Depthwise { .. } => {
                let (frame, weights) = (self.fixed.frame(map, slice), pack.depthwise(j, shape, q));
                scratch.g_frame[..frame.len()].fill(E::default());
                s.depthwise_input(frame, map.window(), g_block, weights, &mut scratch.g_frame);
                s.add_frame(frame, &scratch.g_frame, !add, &mut scratch.dx, LANES, 0);
            }
            Kind::MaxPool(_) | Kind::AvgPool(_) => {
                let frame = self.filled(map, slice, x, scratch, filled);
                scratch.g_frame[..frame.len()].fill(E::default());
                if let Kind::MaxPool(_) = map.kind {
                    let x = (frame, &scratch.frame[..]);
                    s.max_pool_input(x, map.window(), g_block, &mut scratch.g_frame);
                } else {
                    s.avg_pool_input(frame, map.window(), g_block, &mut scratch.g_frame);
                }
                s.add_frame(frame, &scratch.g_frame, !add, &mut scratch.dx, LANES, 0);
            }
            Kind::Global => {
                let mut lanes = [E::default(); LANES];
                lanes.copy_from_slice(&g[q * LANES..(q + 1) * LANES]);
                s.global_average_input(&lanes, pixels, (&mut scratch.dx, add));
            }
            Kind::Sum => self.term(map, slice, g, &mut scratch.dx, add),
            Kind::Input | Kind::Zero => {}
        }
    }

    /// Fills `frame` unless the block is there already, with the same border.
    fn filled(
        &self,
        map: &Map,
        slice: &Slice,
        x: &[E],
        scratch: &mut Scratch<E>,
        filled: &mut Option<(usize, bool)>,
    ) -> Frame {
        let frame = self.fixed.frame(map, slice);
        let wanted = Some((frame.pad, matches!(map.kind, Kind::MaxPool(_))));
        if *filled != wanted {
            self.fixed.fill(map, slice, x, &mut scratch.frame);
            *filled = wanted;
        }
        frame
    }

    fn term(&self, map: &Map, slice: &Slice, g: &[E], dx: &mut [E], add: bool) {
        let (stride, pixels) = (map.site.stride(), map.site.pixels);
        if let Some(block) = map.block_of(slice.lanes) {
            let g = Block { data: g, stride, at: block * LANES };
            return self.fixed.s.take_block(g, pixels, (dx, add));
        }
        if !add {
            dx[..pixels * LANES].fill(E::default());
        }
        for (k, place) in map.places(slice.lanes).enumerate() {
            for p in 0..pixels {
                let to = &mut dx[p * LANES + k];
                *to = *to + g[p * stride + place];
            }
        }
    }
}

fn separable_gradient<'x, E: Element>(
    fixed: &'x Fixed<'_, E>,
    (j, q): (MapId, usize),
    dw: Depthwise<'x, E>,
    g: &'x [E],
) -> SepGradient<'x, E> {
    let shape = Shape::of(&fixed.plan.maps[j]);
    let weights = TransposedWeights { data: fixed.pack.transposed(j, shape, q), n_out: shape.n_out() };
    SepGradient { dw, lift: fixed.inner_site(j).lift(q), g, width: shape.width(), weights }
}

/// The second pass over one map.
struct Push<'a, E: Element> {
    fixed: Fixed<'a, E>,
    j: MapId,
    map: &'a Map,
}

impl<E: Element> Push<'_, E> {
    fn nothing(&self) -> Pushed<E> {
        let n = self.map.slices.len();
        let taps = |n_taps: usize| vec![vec![[E::default(); LANES]; n_taps]; n];
        match &self.map.kind {
            Kind::Sep { .. } => {
                let state = self.fixed.inner_site(self.j);
                Pushed { sums: (0..n).map(|q| GradientSums::new(state.mean(q))).collect(), taps: Vec::new() }
            }
            Kind::Depthwise { conv, .. } => Pushed { sums: Vec::new(), taps: taps(conv.kernel * conv.kernel) },
            _ => Pushed { sums: Vec::new(), taps: Vec::new() },
        }
    }

    /// Takes one image's gradient `g` through the norm and adds to the gradients of the weights.
    fn image(
        &self,
        z: &[E],
        inputs: &[&[E]],
        g: &mut [E],
        scratch: &mut Scratch<E>,
        dense: &mut [E],
        pushed: &mut Pushed<E>,
    ) {
        let Fixed { s, sites, .. } = self.fixed;
        let (map, shape, width) = (self.map, Shape::of(self.map), self.map.site.stride());
        if map.site.norm.is_some() {
            for block in 0..map.site.blocks.len() {
                let z = Block { data: z, stride: width, at: block * LANES };
                s.norm_gradient(z, sites[self.j].coefficients(block), map.site.pixels, g);
            }
        }
        if inputs.is_empty() {
            return;
        }
        for (q, slice) in map.slices.iter().enumerate() {
            let (x, depth) = (inputs[slice.input], slice.lanes.depth);
            let dense = &mut dense[shape.dense_range(q)];
            match &map.kind {
                Kind::Pointwise { .. } => {
                    let lift = sites[slice.map].lift(slice.block);
                    let block = (self.fixed.block(slice, x), &lift);
                    s.pointwise_weights(block, map.site.pixels, g, (depth, width), &mut scratch.tile, dense);
                }
                Kind::Conv { .. } => {
                    let frame = self.fixed.fill(map, slice, x, &mut scratch.frame);
                    s.conv_weights((frame, &scratch.frame), map.window(), g, (depth, width), dense);
                }
                Kind::Depthwise { .. } => {
                    let frame = self.fixed.fill(map, slice, x, &mut scratch.frame);
                    let g = Block { data: &*g, stride: width, at: q * LANES };
                    s.depthwise_weights((frame, &scratch.frame), map.window(), g, &mut pushed.taps[q]);
                }
                Kind::Sep { .. } => {
                    for rows in kernels::sep_tiles(0..map.plane.h, map.plane.w) {
                        let dw = self.fixed.depthwise_rows((self.j, q), inputs, &rows, &mut scratch.frame);
                        let gradient = (separable_gradient(&self.fixed, (self.j, q), dw, g), rows);
                        s.sep_weights(gradient, depth, &mut scratch.tile, dense, &mut pushed.sums[q]);
                    }
                }
                _ => {}
            }
        }
    }
}
