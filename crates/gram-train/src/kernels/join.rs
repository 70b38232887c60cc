//! Sums and concatenation of tensors.

use rayon::prelude::*;

use super::{Real, images_per_chunk, vectorised};

/// Elements that one parallel task adds.
const TASK: usize = 1 << 14;

/// Puts the images of `parts` behind each other; `lens` are the elements of one image of each part.
pub(crate) fn concat<T: Real>(n: usize, parts: &[&[T]], lens: &[usize]) -> Vec<T> {
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

/// The element-wise sum of `terms`, from the first to the last.
pub(crate) fn sum<T: Real>(terms: &[&[T]]) -> Vec<T> {
    let Some((first, rest)) = terms.split_first() else { return Vec::new() };
    let mut total = first.to_vec();
    total.par_chunks_mut(TASK).enumerate().for_each(|(task, total)| {
        for term in rest {
            let start = task * TASK;
            vectorised(AddTo { term: &term[start..start + total.len()], total: &mut *total });
        }
    });
    total
}

struct AddTo<'a, T> {
    term: &'a [T],
    total: &'a mut [T],
}

impl<T: Real> pulp::NullaryFnOnce for AddTo<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (total, &term) in self.total.iter_mut().zip(self.term) {
            *total += term;
        }
    }
}
