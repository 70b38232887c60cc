//! Plain Rust that compilers vectorise.

use std::marker::PhantomData;

use super::{Element, Isa, LANES};

/// Every machine has this one, for f32 and f64. Multiply–adds are rounded twice: fused ones are a slow library call without hardware.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable<E>(PhantomData<E>);

impl<E> Portable<E> {
    /// Needs no proof.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

#[inline(always)]
fn zip<E: Copy>(a: [E; LANES], b: [E; LANES], f: impl Fn(E, E) -> E) -> [E; LANES] {
    let mut out = a;
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl<E: Element> Isa for Portable<E> {
    type E = E;
    type V = [E; LANES];

    const WIDE: bool = false;

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    unsafe fn load(self, p: *const E) -> [E; LANES] {
        // SAFETY: the caller grants LANES readable elements; an array has their alignment.
        unsafe { p.cast::<[E; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut E, v: [E; LANES]) {
        // SAFETY: the caller grants LANES writable elements; an array has their alignment.
        unsafe { p.cast::<[E; LANES]>().write(v) }
    }

    #[inline(always)]
    fn splat(self, x: E) -> [E; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: [E; LANES], b: [E; LANES]) -> [E; LANES] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [E; LANES], b: [E; LANES]) -> [E; LANES] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [E; LANES], b: [E; LANES]) -> [E; LANES] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn fma(self, a: [E; LANES], b: [E; LANES], c: [E; LANES]) -> [E; LANES] {
        let mut out = c;
        for i in 0..LANES {
            out[i] = a[i] * b[i] + c[i];
        }
        out
    }

    #[inline(always)]
    fn max(self, a: [E; LANES], b: [E; LANES]) -> [E; LANES] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [E; LANES], b: [E; LANES]) -> [E; LANES] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn select_gt(self, a: [E; LANES], b: [E; LANES], x: [E; LANES], y: [E; LANES]) -> [E; LANES] {
        let mut out = y;
        for i in 0..LANES {
            out[i] = if a[i] > b[i] { x[i] } else { y[i] };
        }
        out
    }
}
