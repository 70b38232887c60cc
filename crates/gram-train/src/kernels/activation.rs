//! Element-wise non-linearities and their slopes.

use gram_ir::Activation;
use rayon::prelude::*;

use super::{Real, vectorised};

/// Elements that one parallel task handles.
const TASK: usize = 1 << 14;

/// A scalar function with a derivative.
pub(crate) trait Scalar: Copy + Send + Sync {
    /// The function's value.
    fn value<T: Real>(self, x: T) -> T;
    /// Its derivative; at a kink that of the flat side, as torch has it.
    fn slope<T: Real>(self, x: T) -> T;
}

/// Gives its argument.
#[derive(Clone, Copy)]
pub(crate) struct Linear;

/// `max(0, x)`; slope 0 at 0.
#[derive(Clone, Copy)]
pub(crate) struct Relu;

/// `min(max(0, x), 6)`; slope 0 at 0 and 6.
#[derive(Clone, Copy)]
pub(crate) struct Relu6;

/// `x · min(max(0, x + 3), 6) / 6`; slope 0 at -3 and 1 at 3.
#[derive(Clone, Copy)]
pub(crate) struct HardSwish;

impl Scalar for Linear {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x
    }

    #[inline(always)]
    fn slope<T: Real>(self, _: T) -> T {
        T::one()
    }
}

// Comparisons are written so that NaN comes out as NaN: a diverged network must not look like a dead one.
impl Scalar for Relu {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        if x < T::zero() { T::zero() } else { x }
    }

    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        if x <= T::zero() { T::zero() } else { T::one() }
    }
}

impl Scalar for Relu6 {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        let six = T::from_f64(6.0);
        let x = if x < T::zero() { T::zero() } else { x };
        if x > six { six } else { x }
    }

    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        if x <= T::zero() || x >= T::from_f64(6.0) { T::zero() } else { T::one() }
    }
}

impl Scalar for HardSwish {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x * Relu6.value(x + T::from_f64(3.0)) * T::from_f64(1.0 / 6.0)
    }

    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let three = T::from_f64(3.0);
        let inner = x * T::from_f64(1.0 / 3.0) + T::from_f64(0.5);
        let above = if x >= three { T::one() } else { inner };
        if x <= T::zero() - three { T::zero() } else { above }
    }
}

/// Something that is done with a [`Scalar`] known at compile time.
pub(crate) trait Visitor {
    type Output;
    fn visit(self, scalar: impl Scalar) -> Self::Output;
}

/// Calls `visitor` with the function of `activation`, the identity if there is none.
pub(crate) fn visit<V: Visitor>(activation: Option<Activation>, visitor: V) -> V::Output {
    match activation {
        None => visitor.visit(Linear),
        Some(Activation::Relu) => visitor.visit(Relu),
        Some(Activation::Relu6) => visitor.visit(Relu6),
        Some(Activation::HardSwish) => visitor.visit(HardSwish),
    }
}

/// The activation of every element.
pub(crate) fn forward<T: Real>(activation: Activation, x: &[T]) -> Vec<T> {
    visit(Some(activation), Forward { x })
}

/// The gradient for the input, given the output's gradient `g`.
pub(crate) fn backward<T: Real>(activation: Activation, x: &[T], g: &[T]) -> Vec<T> {
    visit(Some(activation), Backward { x, g })
}

struct Forward<'a, T> {
    x: &'a [T],
}

impl<T: Real> Visitor for Forward<'_, T> {
    type Output = Vec<T>;

    fn visit(self, scalar: impl Scalar) -> Vec<T> {
        let mut y = vec![T::zero(); self.x.len()];
        y.par_chunks_mut(TASK).zip(self.x.par_chunks(TASK)).for_each(|(y, x)| vectorised(Values { scalar, x, y }));
        y
    }
}

struct Backward<'a, T> {
    x: &'a [T],
    g: &'a [T],
}

impl<T: Real> Visitor for Backward<'_, T> {
    type Output = Vec<T>;

    fn visit(self, scalar: impl Scalar) -> Vec<T> {
        let mut dx = vec![T::zero(); self.x.len()];
        dx.par_chunks_mut(TASK)
            .zip(self.x.par_chunks(TASK).zip(self.g.par_chunks(TASK)))
            .for_each(|(dx, (x, g))| vectorised(Slopes { scalar, x, g, dx }));
        dx
    }
}

struct Values<'a, T, S> {
    scalar: S,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real, S: Scalar> pulp::NullaryFnOnce for Values<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y = self.scalar.value(x);
        }
    }
}

struct Slopes<'a, T, S> {
    scalar: S,
    x: &'a [T],
    g: &'a [T],
    dx: &'a mut [T],
}

impl<T: Real, S: Scalar> pulp::NullaryFnOnce for Slopes<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for ((dx, &x), &g) in self.dx.iter_mut().zip(self.x).zip(self.g) {
            *dx = g * self.scalar.slope(x);
        }
    }
}
