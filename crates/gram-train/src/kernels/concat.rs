//! Concatenation along channels.

use rayon::prelude::*;

use super::{Real, images_per_chunk};

/// Puts the images of `parts` behind each other; `lens` are the elements of one image of each part.
pub(crate) fn forward<T: Real>(n: usize, parts: &[&[T]], lens: &[usize]) -> Vec<T> {
    let total: usize = lens.iter().sum();
    let images = images_per_chunk(n);
    let mut y = vec![T::zero(); n * total];
    y.par_chunks_mut(images * total).enumerate().for_each(|(chunk, y)| {
        for (i, mut y) in y.chunks_exact_mut(total).enumerate() {
            let image = chunk * images + i;
            for (part, &len) in parts.iter().zip(lens) {
                let (head, tail) = y.split_at_mut(len);
                head.copy_from_slice(&part[image * len..(image + 1) * len]);
                y = tail;
            }
        }
    });
    y
}

/// The part of every image of `g` that starts `offset` elements into it and has `len` elements.
pub(crate) fn part<T: Real>(n: usize, g: &[T], offset: usize, len: usize) -> Vec<T> {
    let total = g.len() / n.max(1);
    let images = images_per_chunk(n);
    let mut out = vec![T::zero(); n * len];
    out.par_chunks_mut(images * len).zip(g.par_chunks(images * total)).for_each(|(out, g)| {
        for (out, g) in out.chunks_exact_mut(len).zip(g.chunks_exact(total)) {
            out.copy_from_slice(&g[offset..offset + len]);
        }
    });
    out
}
