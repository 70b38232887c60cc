//! Register-blocked products on panels of [`LANES`] columns.

use super::{LANES, Lanes, Real, add_products, add_scaled, sum_lanes};

/// Rows of the left operand that are multiplied together.
pub(crate) const ROWS: usize = 4;

/// A matrix `[rows, depth]` stored as `[rows / ROWS][depth][ROWS]`, padded with zero rows.
pub(crate) struct PackedRows<T> {
    data: Vec<T>,
    rows: usize,
    depth: usize,
}

impl<T: Real> PackedRows<T> {
    /// Packs the matrix whose elements `at(row, column)` gives.
    pub(crate) fn pack(rows: usize, depth: usize, at: impl Fn(usize, usize) -> T) -> Self {
        let mut data = vec![T::zero(); rows.div_ceil(ROWS) * depth * ROWS];
        for (block, chunk) in data.chunks_exact_mut((depth * ROWS).max(1)).enumerate() {
            for (d, quad) in chunk.chunks_exact_mut(ROWS).enumerate() {
                for (r, value) in quad.iter_mut().enumerate() {
                    if block * ROWS + r < rows {
                        *value = at(block * ROWS + r, d);
                    }
                }
            }
        }
        Self { data, rows, depth }
    }

    /// Blocks of [`ROWS`] rows for [`block_product`]: first row, number of rows, elements.
    #[inline(always)]
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (usize, usize, &[T])> {
        let blocks = self.data.chunks_exact(self.depth * ROWS).enumerate();
        blocks.map(|(block, quads)| (block * ROWS, ROWS.min(self.rows - block * ROWS), quads))
    }
}

/// A block `[depth][ROWS]` times a panel `[depth][LANES]`.
#[inline(always)]
pub(crate) fn block_product<T: Real>(quads: &[T], panel: &[T]) -> [Lanes<T>; ROWS] {
    let mut sums = [[T::zero(); LANES]; ROWS];
    for (quad, lanes) in quads.as_chunks::<ROWS>().0.iter().zip(panel.as_chunks::<LANES>().0) {
        for r in 0..ROWS {
            sums[r] = add_scaled(sums[r], quad[r], lanes);
        }
    }
    sums
}

/// Adds `left · rightᵀ`, contracted over columns, to `out` `[m, k]`; `left` is `[panels][m][LANES]`, `right` is `[panels][k][LANES]`.
#[inline(always)]
pub(crate) fn add_transposed_product<T: Real>(left: &[T], right: &[T], m: usize, k: usize, out: &mut [T]) {
    let operands = Panels { left, right, m, k };
    let mut row = 0;
    while row + 2 <= m {
        operands.add_rows::<2>(row, out);
        row += 2;
    }
    if row < m {
        operands.add_rows::<1>(row, out);
    }
}

#[derive(Clone, Copy)]
struct Panels<'a, E> {
    left: &'a [E],
    right: &'a [E],
    m: usize,
    k: usize,
}

impl<E: Real> Panels<'_, E> {
    #[inline(always)]
    fn add_rows<const M: usize>(self, row: usize, out: &mut [E]) {
        let mut column = 0;
        while column + 2 <= self.k {
            self.add_block::<M, 2>(row, column, out);
            column += 2;
        }
        if column < self.k {
            self.add_block::<M, 1>(row, column, out);
        }
    }

    #[inline(always)]
    fn add_block<const M: usize, const K: usize>(self, row: usize, column: usize, out: &mut [E]) {
        let mut sums = [[[E::zero(); LANES]; K]; M];
        let left = self.left.chunks_exact(self.m * LANES);
        let right = self.right.chunks_exact(self.k * LANES);
        for (left, right) in left.zip(right) {
            let left: &[Lanes<E>] = left[row * LANES..(row + M) * LANES].as_chunks().0;
            let right: &[Lanes<E>] = right[column * LANES..(column + K) * LANES].as_chunks().0;
            let (Ok(left), Ok(right)) = (<&[_; M]>::try_from(left), <&[_; K]>::try_from(right)) else { return };
            for r in 0..M {
                for c in 0..K {
                    sums[r][c] = add_products(sums[r][c], &left[r], &right[c]);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (c, lanes) in sums.into_iter().enumerate() {
                out[(row + r) * self.k + column + c] += sum_lanes(lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, noise};
    use super::*;

    #[test]
    fn products_equal_the_obvious_loops() {
        for (rows, depth) in [(1, 1), (3, 5), (4, 2), (9, 7)] {
            let (a, x) = (noise(1, rows * depth), noise(2, depth * LANES));
            let packed = PackedRows::pack(rows, depth, |r, d| a[r * depth + d]);
            let mut seen = 0;
            for (first, n_rows, quads) in packed.blocks() {
                for (i, lanes) in block_product(quads, &x)[..n_rows].iter().enumerate() {
                    let r = first + i;
                    let expected: Vec<f64> =
                        (0..LANES).map(|l| (0..depth).map(|d| a[r * depth + d] * x[d * LANES + l]).sum()).collect();
                    assert_close(lanes, &expected, 1e-12);
                    assert_eq!(r, seen);
                    seen += 1;
                }
            }
            assert_eq!(seen, rows);
        }
    }

    #[test]
    fn transposed_products_equal_the_obvious_loops() {
        let panels = 3;
        for (m, k) in [(1, 1), (2, 2), (5, 3), (4, 7)] {
            let (left, right) = (noise(3, panels * m * LANES), noise(4, panels * k * LANES));
            let mut out = vec![1.0; m * k];
            add_transposed_product(&left, &right, m, k, &mut out);
            let at = |data: &[f64], width: usize, row: usize, column: usize| {
                data[(column / LANES * width + row) * LANES + column % LANES]
            };
            let expected: Vec<f64> = (0..m * k)
                .map(|i| {
                    1.0 + (0..panels * LANES).map(|c| at(&left, m, i / k, c) * at(&right, k, i % k, c)).sum::<f64>()
                })
                .collect();
            assert_close(&out, &expected, 1e-12);
        }
    }
}
