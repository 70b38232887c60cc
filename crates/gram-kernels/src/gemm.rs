//! Products of pixels and weights: a scalar of one operand times [`LANES`] of the other, sums in registers.

use crate::isa::{Element, Isa, LANES};
use crate::raw::{Source, Target};

/// Where the rows of an operand are: row `i` begins at `at + i · stride`.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) at: usize,
    pub(crate) stride: usize,
}

impl Rows {
    pub(crate) const fn new(at: usize, stride: usize) -> Self {
        Self { at, stride }
    }

    #[inline(always)]
    pub(crate) const fn row(self, i: usize) -> usize {
        self.at + i * self.stride
    }
}

/// `out[p][..] = Σ_k a[p][k] · w[k][..]` for `n` rows `p`, `width` columns (a multiple of [`LANES`]); added to `out` with `add`.
///
/// # Safety
/// Rows of `a` must hold `depth` elements, those of `w` and `out` `width`.
#[inline(always)]
pub(crate) unsafe fn product<S: Isa>(
    s: S,
    (a, a_rows): (Source<'_, S::E>, Rows),
    (w, w_rows): (Source<'_, S::E>, Rows),
    (out, out_rows): (Target<'_, S::E>, Rows),
    (n, depth, width): (usize, usize, usize),
    add: bool,
) {
    let mut column = 0;
    while column < width {
        let w_rows = Rows::new(w_rows.at + column, w_rows.stride);
        let out_rows = Rows::new(out_rows.at + column, out_rows.stride);
        let (a, w, out) = ((a, a_rows), (w, w_rows), (out, out_rows));
        // SAFETY: as granted; columns stay below `width`.
        unsafe {
            match (width - column) / LANES {
                1 if S::WIDE && depth.is_multiple_of(LANES) && depth > 0 => {
                    for k in (0..depth).step_by(LANES) {
                        let (a, w) =
                            ((a.0, Rows::new(a.1.at + k, a.1.stride)), (w.0, Rows::new(w.1.row(k), w.1.stride)));
                        stationary(s, a, w, out, n, add || k > 0);
                    }
                    column += LANES;
                }
                4.. if S::WIDE => {
                    panel::<S, 6, 4>(s, a, w, out, (n, depth), add);
                    column += 4 * LANES;
                }
                2.. if S::WIDE => {
                    panel::<S, 8, 2>(s, a, w, out, (n, depth), add);
                    column += 2 * LANES;
                }
                _ if S::WIDE => {
                    panel::<S, 12, 1>(s, a, w, out, (n, depth), add);
                    column += LANES;
                }
                _ => {
                    panel::<S, 4, 1>(s, a, w, out, (n, depth), add);
                    column += LANES;
                }
            }
        }
    }
}

/// A product with [`LANES`] rows of weights, which stay in registers.
///
/// Neighbouring rows of `a` are read from different places on: elements at equal distances from the start of their cache lines lie in the
/// same bank of the first-level cache, and could not be loaded together.
#[inline(always)]
unsafe fn stationary<S: Isa>(
    s: S,
    (a, a_rows): (Source<'_, S::E>, Rows),
    (w, w_rows): (Source<'_, S::E>, Rows),
    (out, out_rows): (Target<'_, S::E>, Rows),
    n: usize,
    add: bool,
) {
    const P: usize = 8;
    let mut weights = [s.zero(); LANES];
    // SAFETY: as granted; rows stay below `n`.
    unsafe {
        for (k, weight) in weights.iter_mut().enumerate() {
            *weight = w.lanes(s, w_rows.row(k));
        }
        let mut p = 0;
        while p + P <= n {
            let mut sums = [s.zero(); P];
            if add {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = out.lanes(s, out_rows.row(p + i));
                }
            }
            // Written out, because weights leave their registers in a loop.
            macro_rules! steps {
                ($($k:literal)*) => {$(
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let k = ($k + i * (LANES / P)) % LANES;
                        *sum = s.fma(s.splat(a.one(a_rows.row(p + i) + k)), weights[k], *sum);
                    }
                )*};
            }
            steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for (i, sum) in sums.into_iter().enumerate() {
                out.put(s, out_rows.row(p + i), sum);
            }
            p += P;
        }
        let (a_rows, out_rows) = (Rows::new(a_rows.row(p), a_rows.stride), Rows::new(out_rows.row(p), out_rows.stride));
        panel::<S, 4, 1>(s, (a, a_rows), (w, w_rows), (out, out_rows), (n - p, LANES), add);
    }
}

/// All rows of `Q` vectors of columns, `P` rows at a time.
#[inline(always)]
unsafe fn panel<S: Isa, const P: usize, const Q: usize>(
    s: S,
    (a, a_rows): (Source<'_, S::E>, Rows),
    w: (Source<'_, S::E>, Rows),
    (out, out_rows): (Target<'_, S::E>, Rows),
    (n, depth): (usize, usize),
    add: bool,
) {
    let mut p = 0;
    // SAFETY: as granted; rows stay below `n`.
    unsafe {
        while p + P <= n {
            let (a_rows, out_rows) =
                (Rows::new(a_rows.row(p), a_rows.stride), Rows::new(out_rows.row(p), out_rows.stride));
            tile::<S, P, Q>(s, (a, a_rows), w, (out, out_rows), depth, add);
            p += P;
        }
        while p + 4 <= n {
            let (a_rows, out_rows) =
                (Rows::new(a_rows.row(p), a_rows.stride), Rows::new(out_rows.row(p), out_rows.stride));
            tile::<S, 4, Q>(s, (a, a_rows), w, (out, out_rows), depth, add);
            p += 4;
        }
        while p < n {
            let (a_rows, out_rows) =
                (Rows::new(a_rows.row(p), a_rows.stride), Rows::new(out_rows.row(p), out_rows.stride));
            tile::<S, 1, Q>(s, (a, a_rows), w, (out, out_rows), depth, add);
            p += 1;
        }
    }
}

#[inline(always)]
unsafe fn tile<S: Isa, const P: usize, const Q: usize>(
    s: S,
    (a, a_rows): (Source<'_, S::E>, Rows),
    (w, w_rows): (Source<'_, S::E>, Rows),
    (out, out_rows): (Target<'_, S::E>, Rows),
    depth: usize,
    add: bool,
) {
    let mut sums = [[s.zero(); Q]; P];
    // SAFETY: as granted.
    unsafe {
        if add {
            for (p, sums) in sums.iter_mut().enumerate() {
                for (q, sum) in sums.iter_mut().enumerate() {
                    *sum = out.lanes(s, out_rows.row(p) + q * LANES);
                }
            }
        }
        for k in 0..depth {
            let mut weights = [s.zero(); Q];
            for (q, weight) in weights.iter_mut().enumerate() {
                *weight = w.lanes(s, w_rows.row(k) + q * LANES);
            }
            for (p, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(a.one(a_rows.row(p) + k));
                for (sum, &weight) in sums.iter_mut().zip(&weights) {
                    *sum = s.fma(x, weight, *sum);
                }
            }
        }
        for (p, sums) in sums.into_iter().enumerate() {
            for (q, sum) in sums.into_iter().enumerate() {
                out.put(s, out_rows.row(p) + q * LANES, sum);
            }
        }
    }
}

/// Adds `Σ_p a[p][k] · g[p][..]` over `n` rows to row `k` of `out` for `depth` rows, `width` columns (a multiple of [`LANES`]).
///
/// # Safety
/// Rows of `a` must hold `depth` elements, those of `g` and `out` `width`.
#[inline(always)]
pub(crate) unsafe fn transposed<S: Isa>(
    s: S,
    (a, a_rows): (Source<'_, S::E>, Rows),
    (g, g_rows): (Source<'_, S::E>, Rows),
    (out, out_rows): (Target<'_, S::E>, Rows),
    (n, depth, width): (usize, usize, usize),
) {
    let mut column = 0;
    while column < width {
        let g_rows = Rows::new(g_rows.at + column, g_rows.stride);
        let out_rows = Rows::new(out_rows.at + column, out_rows.stride);
        let (a, g, out) = ((a, a_rows), (g, g_rows), (out, out_rows));
        // SAFETY: as granted; columns stay below `width`.
        unsafe {
            match (width - column) / LANES {
                4.. if S::WIDE => {
                    outer_panel::<S, 4, 4>(s, a, g, out, (n, depth));
                    column += 4 * LANES;
                }
                2.. if S::WIDE => {
                    outer_panel::<S, 8, 2>(s, a, g, out, (n, depth));
                    column += 2 * LANES;
                }
                _ if S::WIDE => {
                    outer_panel::<S, 16, 1>(s, a, g, out, (n, depth));
                    column += LANES;
                }
                _ => {
                    outer_panel::<S, 4, 1>(s, a, g, out, (n, depth));
                    column += LANES;
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn outer_panel<S: Isa, const M: usize, const Q: usize>(
    s: S,
    (a, a_rows): (Source<'_, S::E>, Rows),
    g: (Source<'_, S::E>, Rows),
    (out, out_rows): (Target<'_, S::E>, Rows),
    (n, depth): (usize, usize),
) {
    let mut k = 0;
    // SAFETY: as granted; `k` stays below `depth`.
    unsafe {
        while k + M <= depth {
            let (a_rows, out_rows) =
                (Rows::new(a_rows.at + k, a_rows.stride), Rows::new(out_rows.row(k), out_rows.stride));
            outer::<S, M, Q>(s, (a, a_rows), g, (out, out_rows), n);
            k += M;
        }
        while k < depth {
            let (a_rows, out_rows) =
                (Rows::new(a_rows.at + k, a_rows.stride), Rows::new(out_rows.row(k), out_rows.stride));
            outer::<S, 1, Q>(s, (a, a_rows), g, (out, out_rows), n);
            k += 1;
        }
    }
}

#[inline(always)]
unsafe fn outer<S: Isa, const M: usize, const Q: usize>(
    s: S,
    (a, a_rows): (Source<'_, S::E>, Rows),
    (g, g_rows): (Source<'_, S::E>, Rows),
    (out, out_rows): (Target<'_, S::E>, Rows),
    n: usize,
) {
    let mut sums = [[s.zero(); Q]; M];
    // SAFETY: as granted.
    unsafe {
        for p in 0..n {
            let mut gradients = [s.zero(); Q];
            for (q, gradient) in gradients.iter_mut().enumerate() {
                *gradient = g.lanes(s, g_rows.row(p) + q * LANES);
            }
            for (k, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(a.one(a_rows.row(p) + k));
                for (sum, &gradient) in sums.iter_mut().zip(&gradients) {
                    *sum = s.fma(x, gradient, *sum);
                }
            }
        }
        for (k, sums) in sums.into_iter().enumerate() {
            for (q, sum) in sums.into_iter().enumerate() {
                let to = out_rows.row(k) + q * LANES;
                out.put(s, to, s.add(out.lanes(s, to), sum));
            }
        }
    }
}

/// GFLOP/s of fused multiply–adds from registers on one core: what shares of the peak are of. Takes about `seconds`.
pub fn peak_gflops<S: Isa>(s: S, seconds: f64) -> f64 {
    let (mut best, start) = (0.0f64, std::time::Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        // As many sums as hide the latency and stay in registers: of 16 lanes, 8 and 4.
        for gflops in [chains::<S, 12>(s), chains::<S, 5>(s), chains::<S, 3>(s)] {
            best = best.max(gflops);
        }
    }
    best
}

/// GFLOP/s of `N` sums that do not wait for each other.
fn chains<S: Isa, const N: usize>(s: S) -> f64 {
    const ROUNDS: usize = 100_000;
    let (a, b) = std::hint::black_box((S::E::from_f64(0.999), S::E::from_f64(0.001)));
    let start = std::time::Instant::now();
    let total = s.run(
        #[inline(always)]
        || {
            let (a, b) = (s.splat(a), s.splat(b));
            let mut sums = [s.zero(); N];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = s.fma(*sum, a, b);
                }
            }
            s.array(sums.into_iter().fold(s.zero(), |total, sum| s.add(total, sum)))
        },
    );
    let seconds = start.elapsed().as_secs_f64();
    // All lanes are looked at, or those of registers beyond the first would not be computed.
    std::hint::black_box(total);
    (2 * N * ROUNDS * LANES) as f64 / seconds / 1e9
}
