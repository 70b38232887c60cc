//! What is done to a stored number when it is read: batch norm as an affine map, then the activation.

use crate::isa::{Element, Isa, LANES};

/// Element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `min(max(x, low), high)`; slope 1 strictly between the two, else 0.
    Clamp {
        /// Lower bound, −∞ for none.
        low: f64,
        /// Upper bound, ∞ for none.
        high: f64,
    },
    /// `x · min(max(x + 3, 0), 6) / 6`; slope `(2x + 3) / 6` strictly between −3 and 3.
    HardSwish,
}

impl Activation {
    /// Gives its argument.
    pub const IDENTITY: Self = Self::Clamp { low: f64::NEG_INFINITY, high: f64::INFINITY };
    /// `max(0, x)`.
    pub const RELU: Self = Self::Clamp { low: 0.0, high: f64::INFINITY };
    /// `min(max(0, x), 6)`.
    pub const RELU6: Self = Self::Clamp { low: 0.0, high: 6.0 };
}

/// How the 16 channels of a block are lifted: `activation(x · scale + shift)`.
#[derive(Clone, Copy, Debug)]
pub struct Lift<'a, E> {
    /// Factor of each channel.
    pub scale: &'a [E; LANES],
    /// Added to each channel behind it.
    pub shift: &'a [E; LANES],
    /// Applied last.
    pub activation: Activation,
}

/// An activation in registers.
pub(crate) trait Activate<S: Isa>: Copy {
    fn value(self, s: S, x: S::V) -> S::V;
    /// The gradient `g` of the value as one of `x`.
    fn gradient(self, s: S, x: S::V, g: S::V) -> S::V;
}

#[derive(Clone, Copy)]
pub(crate) struct Clamp<V> {
    low: V,
    high: V,
}

impl<S: Isa> Activate<S> for Clamp<S::V> {
    // What is no number is kept: maximum and minimum give their second operand then.
    #[inline(always)]
    fn value(self, s: S, x: S::V) -> S::V {
        s.min(self.high, s.max(self.low, x))
    }

    #[inline(always)]
    fn gradient(self, s: S, x: S::V, g: S::V) -> S::V {
        s.select_gt(x, self.low, s.select_gt(self.high, x, g, s.zero()), s.zero())
    }
}

#[derive(Clone, Copy)]
pub(crate) struct HardSwish;

impl<S: Isa> Activate<S> for HardSwish {
    #[inline(always)]
    fn value(self, s: S, x: S::V) -> S::V {
        let three = s.splat(S::E::from_f64(3.0));
        let gate = s.min(s.splat(S::E::from_f64(6.0)), s.max(s.zero(), s.add(x, three)));
        s.mul(s.mul(x, gate), s.splat(S::E::from_f64(1.0 / 6.0)))
    }

    #[inline(always)]
    fn gradient(self, s: S, x: S::V, g: S::V) -> S::V {
        let slope = s.fma(x, s.splat(S::E::from_f64(1.0 / 3.0)), s.splat(S::E::from_f64(0.5)));
        let low = s.splat(S::E::from_f64(-3.0));
        let high = s.splat(S::E::from_f64(3.0));
        s.select_gt(x, low, s.select_gt(high, x, s.mul(g, slope), g), s.zero())
    }
}

/// Code that is compiled for each kind of activation.
pub(crate) trait ForActivation<S: Isa> {
    type Output;
    fn call<A: Activate<S>>(self, activation: A) -> Self::Output;
}

#[inline(always)]
pub(crate) fn with_activation<S: Isa, F: ForActivation<S>>(s: S, activation: Activation, f: F) -> F::Output {
    match activation {
        Activation::Clamp { low, high } => {
            f.call(Clamp { low: s.splat(S::E::from_f64(low)), high: s.splat(S::E::from_f64(high)) })
        }
        Activation::HardSwish => f.call(HardSwish),
    }
}

/// A [`Lift`] in registers.
#[derive(Clone, Copy)]
pub(crate) struct Lifter<S: Isa, A> {
    pub(crate) scale: S::V,
    pub(crate) shift: S::V,
    pub(crate) activation: A,
}

impl<S: Isa, A: Activate<S>> Lifter<S, A> {
    #[inline(always)]
    pub(crate) fn new(s: S, lift: &Lift<'_, S::E>, activation: A) -> Self {
        Self { scale: s.lanes(lift.scale), shift: s.lanes(lift.shift), activation }
    }

    /// What the activation is applied to.
    #[inline(always)]
    pub(crate) fn affine(&self, s: S, x: S::V) -> S::V {
        s.fma(x, self.scale, self.shift)
    }

    #[inline(always)]
    pub(crate) fn value(&self, s: S, x: S::V) -> S::V {
        self.activation.value(s, self.affine(s, x))
    }

    /// The gradient `g` of [`value`](Self::value) as one of the affine map's result.
    #[inline(always)]
    pub(crate) fn gradient(&self, s: S, x: S::V, g: S::V) -> S::V {
        self.activation.gradient(s, self.affine(s, x), g)
    }
}
