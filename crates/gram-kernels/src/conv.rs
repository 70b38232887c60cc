//! Dense convolutions of one block of channels, any window.
//!
//! Sums of some pixels of two rows stay in registers over all taps.

use crate::block::{Frame, Plane};
use crate::isa::{Isa, LANES};
use crate::pointwise::Weights;
use crate::raw::{Source, Target};
use crate::window::{Steps, Window};

/// The part that one block of the input has in the output `z` `[output pixels][width]`: replaces it, or with `add` is added to it.
///
/// The block has `depth` channels; `weights` are `[kernel²][depth][width]`.
///
/// # Panics
/// If a slice is too short, the block has more than 16 channels, or `width` is no multiple of 16.
pub fn conv<S: Isa>(
    s: S,
    (frame, x): (Frame, &[S::E]),
    window: Window,
    weights: &[S::E],
    (depth, width): (usize, usize),
    (z, add): (&mut [S::E], bool),
) {
    let plane = window.check(frame, x.len());
    check_weights(window, weights, (depth, width));
    assert!(z.len() >= plane.pixels().saturating_mul(width), "invariant: full length");
    s.run(
        #[inline(always)]
        || {
            let steps = Steps::new(window, frame);
            let product = Product {
                a: (Source::new(x), Grid { at: 0, right: steps.position.0, down: steps.position.1 }),
                taps: (window.kernel, steps.tap),
                w: (Source::new(weights), width),
                out: (Target::new(z), Grid { at: 0, right: width, down: plane.w * width }),
                depth,
                add,
            };
            // SAFETY: frame and thus all windows, weights and z were checked.
            unsafe { product.planes(s, plane, width) }
        },
    );
}

/// Adds the gradient of a block's weights to `dw` `[kernel²][depth][width]`, given that of the output, `g` `[output pixels][width]`.
///
/// # Panics
/// If a slice is too short, the block has more than 16 channels, or `width` is no multiple of 16.
pub fn conv_weights<S: Isa>(
    s: S,
    (frame, x): (Frame, &[S::E]),
    window: Window,
    g: &[S::E],
    (depth, width): (usize, usize),
    dw: &mut [S::E],
) {
    let plane = window.check(frame, x.len());
    check_weights(window, dw, (depth, width));
    assert!(g.len() >= plane.pixels().saturating_mul(width), "invariant: full length");
    s.run(
        #[inline(always)]
        || {
            let (steps, row) = (Steps::new(window, frame), depth * width);
            for tap in 0..window.taps() {
                let (ky, kx) = (tap / window.kernel, tap % window.kernel);
                let few = S::WIDE && depth <= 3;
                if few && kx % 3 != 0 && kx - kx % 3 + 3 <= window.kernel {
                    continue; // done together with the first one of three
                }
                let correlation = Correlation {
                    x: (
                        Source::new(x),
                        Grid { at: steps.to_tap(ky, kx), right: steps.position.0, down: steps.position.1 },
                    ),
                    tap: steps.tap.0,
                    g: (Source::new(g), width),
                    out: (Target::new(&mut *dw), tap * row, width),
                    plane,
                    depth,
                };
                // SAFETY: frame and thus all windows, g and dw were checked.
                unsafe {
                    if few && kx + 3 <= window.kernel {
                        correlation.columns_of_few::<S, 3>(s, width);
                    } else if few {
                        correlation.columns_of_few::<S, 1>(s, width);
                    } else {
                        correlation.columns(s, width);
                    }
                }
            }
        },
    );
}

/// Adds the part of the output's gradient `g` `[output pixels][width]` in that of a block of the input to `dx`, a whole frame.
///
/// `weights` are `[kernel²][n_out][16]`.
///
/// # Panics
/// If a slice is too short, or `n_out` above `width`.
pub fn conv_input<S: Isa>(
    s: S,
    frame: Frame,
    window: Window,
    (g, width): (&[S::E], usize),
    (weights, n_out): (&[S::E], usize),
    dx: &mut [S::E],
) {
    let plane = window.check(frame, dx.len());
    let rows = window.taps().saturating_mul(n_out);
    assert!(weights.len() >= rows.saturating_mul(LANES) && n_out <= width, "invariant: {n_out} of {width} channels");
    assert!(g.len() >= plane.pixels().saturating_mul(width), "invariant: full length");
    s.run(
        #[inline(always)]
        || {
            let steps = Steps::new(window, frame);
            let (high, step) = (plane.h, if S::WIDE { 2 } else { 1 });
            for y in (0..high).step_by(step) {
                for tap in 0..window.taps() {
                    let (ky, kx) = (tap / window.kernel, tap % window.kernel);
                    let to = steps.at(y, 0) + steps.to_tap(ky, kx);
                    let product = Product {
                        a: (Source::new(g), Grid { at: y * plane.w * width, right: width, down: plane.w * width }),
                        taps: (1, (0, 0)),
                        w: (Source::new(&weights[tap * n_out * LANES..]), LANES),
                        out: (Target::new(&mut *dx), Grid { at: to, right: steps.position.0, down: steps.position.1 }),
                        depth: n_out,
                        add: true,
                    };
                    let rows = Plane { h: step.min(high - y), w: plane.w };
                    // SAFETY: frame and thus all windows, weights and g were checked.
                    unsafe { product.planes(s, rows, LANES) }
                }
            }
        },
    );
}

fn check_weights<E>(window: Window, weights: &[E], (depth, width): (usize, usize)) {
    let needed = window.taps().saturating_mul(depth).saturating_mul(width);
    assert!(weights.len() >= needed, "invariant: {} weights for {depth}x{width} and {window:?}", weights.len());
    Weights { data: weights, depth, width }.check();
}

/// Pixels in rows: pixel (y, x) begins at element `at + y · down + x · right`.
#[derive(Clone, Copy)]
struct Grid {
    at: usize,
    right: usize,
    down: usize,
}

impl Grid {
    #[inline(always)]
    const fn pixel(self, y: usize, x: usize) -> usize {
        self.at + y * self.down + x * self.right
    }

    #[inline(always)]
    const fn moved(self, at: usize) -> Self {
        Self { at, ..self }
    }
}

/// `out[p] = Σ_tap Σ_k a[p + tap][k] · w[tap · depth + k]` for pixels `p`; added to `out` with `add`.
///
/// Unsafe functions ask that all pixels, taps and rows of weights lie inside their slices.
#[derive(Clone, Copy)]
struct Product<'a, E> {
    a: (Source<'a, E>, Grid),
    /// Taps per side, and elements of `a` to the next one, right and down.
    taps: (usize, (usize, usize)),
    /// Rows of so many elements.
    w: (Source<'a, E>, usize),
    out: (Target<'a, E>, Grid),
    depth: usize,
    add: bool,
}

impl<E: crate::isa::Element> Product<'_, E> {
    /// All pixels of `plane`, `width` output channels.
    #[inline(always)]
    unsafe fn planes<S: Isa<E = E>>(self, s: S, plane: Plane, width: usize) {
        let mut column = 0;
        while column < width {
            // SAFETY: as granted; columns stay below `width`.
            unsafe {
                match (width - column) / LANES {
                    4.. if S::WIDE => {
                        self.rows::<S, 2, 2, 4>(s, plane, column);
                        column += 4 * LANES;
                    }
                    2.. if S::WIDE => {
                        self.rows::<S, 2, 4, 2>(s, plane, column);
                        column += 2 * LANES;
                    }
                    _ if S::WIDE => {
                        self.rows::<S, 2, 8, 1>(s, plane, column);
                        column += LANES;
                    }
                    _ => {
                        self.rows::<S, 1, 4, 1>(s, plane, column);
                        column += LANES;
                    }
                }
            }
        }
    }

    /// `Q` vectors of output channels from `column` on, for `R` rows of pixels at a time.
    #[inline(always)]
    unsafe fn rows<S: Isa<E = E>, const R: usize, const C: usize, const Q: usize>(
        self,
        s: S,
        plane: Plane,
        column: usize,
    ) {
        let mut y = 0;
        // SAFETY: as granted; rows stay inside the plane.
        unsafe {
            while y + R <= plane.h {
                self.row::<S, R, C, Q>(s, y, plane.w, column);
                y += R;
            }
            while y < plane.h {
                self.row::<S, 1, C, Q>(s, y, plane.w, column);
                y += 1;
            }
        }
    }

    /// The `w` pixels of each of `R` rows, `C` at a time.
    #[inline(always)]
    unsafe fn row<S: Isa<E = E>, const R: usize, const C: usize, const Q: usize>(
        self,
        s: S,
        y: usize,
        w: usize,
        column: usize,
    ) {
        let mut x = 0;
        // SAFETY: as granted; pixels stay inside the rows.
        unsafe {
            while x + C <= w {
                self.tile::<S, R, C, Q>(s, (y, x), column);
                x += C;
            }
            if C > 4 && x + 4 <= w {
                self.tile::<S, R, 4, Q>(s, (y, x), column);
                x += 4;
            }
            match w - x {
                3.. => self.tile::<S, R, 3, Q>(s, (y, x), column),
                2 => self.tile::<S, R, 2, Q>(s, (y, x), column),
                1 => self.tile::<S, R, 1, Q>(s, (y, x), column),
                0 => {}
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<S: Isa<E = E>, const R: usize, const C: usize, const Q: usize>(
        self,
        s: S,
        (y, x): (usize, usize),
        column: usize,
    ) {
        let Self { a: (a, a_grid), taps: (kernel, tap), w: (w, w_row), out: (out, out_grid), depth, add } = self;
        let (a_grid, out_grid) = (a_grid.moved(a_grid.pixel(y, x)), out_grid.moved(out_grid.pixel(y, x) + column));
        let mut sums = [[[s.zero(); Q]; C]; R];
        // SAFETY: as granted.
        unsafe {
            if add {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (c, sums) in sums.iter_mut().enumerate() {
                        for (q, sum) in sums.iter_mut().enumerate() {
                            *sum = out.lanes(s, out_grid.pixel(r, c) + q * LANES);
                        }
                    }
                }
            }
            let mut row = column;
            for ky in 0..kernel {
                for kx in 0..kernel {
                    let a_grid = a_grid.moved(a_grid.at + ky * tap.1 + kx * tap.0);
                    for k in 0..depth {
                        let mut weights = [s.zero(); Q];
                        for (q, weight) in weights.iter_mut().enumerate() {
                            *weight = w.lanes(s, row + q * LANES);
                        }
                        for (r, sums) in sums.iter_mut().enumerate() {
                            for (c, sums) in sums.iter_mut().enumerate() {
                                let x = s.splat(a.one(a_grid.pixel(r, c) + k));
                                for (sum, &weight) in sums.iter_mut().zip(&weights) {
                                    *sum = s.fma(x, weight, *sum);
                                }
                            }
                        }
                        row += w_row;
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (c, sums) in sums.into_iter().enumerate() {
                    for (q, sum) in sums.into_iter().enumerate() {
                        out.put(s, out_grid.pixel(r, c) + q * LANES, sum);
                    }
                }
            }
        }
    }
}

/// `out[k] += Σ_p x[p][k] · g[p]` for channels `k` below `depth`, and so for some neighbouring taps.
///
/// Unsafe functions ask that all pixels of `plane` lie inside, 16 channels of `x` each, and all rows of `out`.
#[derive(Clone, Copy)]
struct Correlation<'a, E> {
    x: (Source<'a, E>, Grid),
    /// Elements of `x` to the next tap.
    tap: usize,
    /// Pixels of so many elements.
    g: (Source<'a, E>, usize),
    /// First row, and elements of a row.
    out: (Target<'a, E>, usize, usize),
    plane: Plane,
    depth: usize,
}

impl<E: crate::isa::Element> Correlation<'_, E> {
    /// One tap, `width` output channels.
    #[inline(always)]
    unsafe fn columns<S: Isa<E = E>>(self, s: S, width: usize) {
        let mut column = 0;
        while column < width {
            // SAFETY: as granted; columns stay below `width`.
            unsafe {
                match (width - column) / LANES {
                    4.. if S::WIDE => {
                        self.channels::<S, 4, 4>(s, column);
                        column += 4 * LANES;
                    }
                    2.. if S::WIDE => {
                        self.channels::<S, 8, 2>(s, column);
                        column += 2 * LANES;
                    }
                    _ if S::WIDE && self.depth > 8 => {
                        self.channels::<S, 16, 1>(s, column);
                        column += LANES;
                    }
                    _ if S::WIDE => {
                        self.channels::<S, 8, 1>(s, column);
                        column += LANES;
                    }
                    _ => {
                        self.channels::<S, 4, 1>(s, column);
                        column += LANES;
                    }
                }
            }
        }
    }

    /// `T` taps of at most three channels each, `width` output channels.
    #[inline(always)]
    unsafe fn columns_of_few<S: Isa<E = E>, const T: usize>(self, s: S, width: usize) {
        let mut column = 0;
        while column < width {
            // SAFETY: as granted; columns stay below `width`.
            unsafe {
                if width - column >= 2 * LANES {
                    self.sums::<S, T, 3, 2>(s, 0, column);
                    column += 2 * LANES;
                } else {
                    self.sums::<S, T, 3, 1>(s, 0, column);
                    column += LANES;
                }
            }
        }
    }

    /// All channels, `M` at a time: a divisor of 16.
    #[inline(always)]
    unsafe fn channels<S: Isa<E = E>, const M: usize, const Q: usize>(self, s: S, column: usize) {
        for k in (0..self.depth).step_by(M) {
            // SAFETY: as granted; k + M is at most 16, as the depth is.
            unsafe { self.sums::<S, 1, M, Q>(s, k, column) }
        }
    }

    /// `M` channels from `k` on; sums of those that are not below `depth` are dropped.
    #[inline(always)]
    unsafe fn sums<S: Isa<E = E>, const T: usize, const M: usize, const Q: usize>(self, s: S, k: usize, column: usize) {
        let Self { x: (x, grid), tap, g: (g, g_row), out: (out, first, row), plane, depth } = self;
        let mut sums = [[[s.zero(); Q]; M]; T];
        // SAFETY: as granted.
        unsafe {
            let mut from = column;
            for y in 0..plane.h {
                for i in 0..plane.w {
                    let mut gradients = [s.zero(); Q];
                    for (q, gradient) in gradients.iter_mut().enumerate() {
                        *gradient = g.lanes(s, from + q * LANES);
                    }
                    from += g_row;
                    for (t, sums) in sums.iter_mut().enumerate() {
                        for (m, sums) in sums.iter_mut().enumerate() {
                            let x = s.splat(x.one(grid.pixel(y, i) + t * tap + k + m));
                            for (sum, &gradient) in sums.iter_mut().zip(&gradients) {
                                *sum = s.fma(x, gradient, *sum);
                            }
                        }
                    }
                }
            }
            for (t, sums) in sums.into_iter().enumerate() {
                for (m, sums) in sums.into_iter().enumerate().take(depth - k) {
                    for (q, sum) in sums.into_iter().enumerate() {
                        let to = first + (t * depth + k + m) * row + column + q * LANES;
                        out.put(s, to, s.add(out.lanes(s, to), sum));
                    }
                }
            }
        }
    }
}
