//! Shapes come from proptest, which makes them smaller when a test fails; numbers from a seed.

use std::fmt;

use gram_kernels::{Activation, Block, Element, Frame, LANES, Lift, Plane, Window};
use proptest::prelude::*;

use crate::check::Sum;

/// Numbers out of a seed (SplitMix64).
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between −1 and 1, as f32 has it.
    pub(crate) fn real(&mut self) -> f64 {
        f64::from((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0)
    }

    pub(crate) fn reals(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.real()).collect()
    }

    /// Eighths between −1 and 1: few different numbers, whose products f32 adds up exactly.
    pub(crate) fn grid(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| (self.next() % 17) as f64 / 8.0 - 1.0).collect()
    }

    pub(crate) fn lanes(&mut self) -> [f64; LANES] {
        std::array::from_fn(|_| self.real())
    }

    pub(crate) fn grid_lanes(&mut self) -> [f64; LANES] {
        self.grid(LANES).try_into().unwrap()
    }

    /// About normal numbers: sums of twelve uniform ones.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.real() / 2.0).sum()
    }
}

pub(crate) fn cast<E: Element>(numbers: &[f64]) -> Vec<E> {
    numbers.iter().map(|&x| E::from_f64(x)).collect()
}

pub(crate) fn cast_lanes<E: Element>(numbers: &[f64; LANES]) -> [E; LANES] {
    numbers.map(E::from_f64)
}

/// What is in results before they are replaced.
pub(crate) fn stale<E: Element>(n: usize) -> Vec<E> {
    vec![E::from_f64(f64::NAN); n]
}

pub(crate) fn arb_activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::IDENTITY),
        Just(Activation::RELU),
        Just(Activation::RELU6),
        Just(Activation::Clamp { low: -0.5, high: 0.25 }),
        Just(Activation::HardSwish),
    ]
}

pub(crate) fn arb_plane() -> impl Strategy<Value = Plane> {
    (1..=19usize, 1..=19usize).prop_map(|(h, w)| Plane { h, w })
}

/// An image and a window that fits at least once.
pub(crate) fn arb_window() -> impl Strategy<Value = (Frame, Window)> {
    let window = (1..=7usize, 1..=3usize, 1..=2usize);
    let window = window.prop_map(|(kernel, stride, dilation)| Window { kernel, stride, dilation });
    let fits = |&(frame, window): &(Frame, Window)| window.output(frame).pixels() > 0;
    (arb_plane(), 0..=4usize, window)
        .prop_map(|(inner, pad, window)| (Frame { inner, pad }, window))
        .prop_filter("too small", fits)
}

/// Whether an element of a frame belongs to the image.
pub(crate) fn is_inside(frame: Frame, element: usize) -> bool {
    let Frame { inner, pad } = frame;
    let (y, x) = (element / LANES / frame.w(), element / LANES % frame.w());
    (pad..pad + inner.h).contains(&y) && (pad..pad + inner.w).contains(&x)
}

/// Channels of an image, padding included, and the first one of a block.
pub(crate) fn arb_place() -> impl Strategy<Value = (usize, usize)> {
    (1..=4usize).prop_flat_map(|blocks| (Just(blocks * LANES), (0..blocks).prop_map(|block| block * LANES)))
}

/// A [`Lift`] with its numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifting<E> {
    pub(crate) scale: [E; LANES],
    pub(crate) shift: [E; LANES],
    pub(crate) activation: Activation,
}

impl Lifting<f64> {
    /// Numbers on a grid, so that f32 decides as f64 does where the activation bends.
    pub(crate) fn draw(draw: &mut Draw, activation: Activation) -> Self {
        Self { scale: draw.grid_lanes(), shift: draw.grid_lanes(), activation }
    }

    pub(crate) fn identity() -> Self {
        Self { scale: [1.0; LANES], shift: [0.0; LANES], activation: Activation::IDENTITY }
    }

    pub(crate) fn cast<E: Element>(&self) -> Lifting<E> {
        Lifting { scale: cast_lanes(&self.scale), shift: cast_lanes(&self.shift), activation: self.activation }
    }

    pub(crate) fn affine(&self, lane: usize, x: f64) -> f64 {
        x * self.scale[lane] + self.shift[lane]
    }

    pub(crate) fn value(&self, lane: usize, x: f64) -> f64 {
        let y = self.affine(lane, x);
        match self.activation {
            _ if y.is_nan() => y,
            Activation::Clamp { low, high } => y.clamp(low, high),
            Activation::HardSwish => y * (y + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    /// Of the value by what the activation is applied to.
    pub(crate) fn slope(&self, lane: usize, x: f64) -> Sum {
        let y = self.affine(lane, x);
        match self.activation {
            Activation::Clamp { low, high } => Sum::of(f64::from(u8::from(y > low && y < high))),
            Activation::HardSwish if y > -3.0 && y < 3.0 => {
                Sum { value: (2.0 * y + 3.0) / 6.0, size: y.abs() / 3.0 + 0.5 }
            }
            Activation::HardSwish => Sum::of(f64::from(u8::from(y >= 3.0))),
        }
    }
}

impl<E> Lifting<E> {
    pub(crate) fn lift(&self) -> Lift<'_, E> {
        Lift { scale: &self.scale, shift: &self.shift, activation: self.activation }
    }
}

/// Channels `[pixels][stride]` from `at` on.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) data: Vec<f64>,
    pub(crate) stride: usize,
    pub(crate) at: usize,
}

/// Without the numbers.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.at, self.stride)
    }
}

impl Image {
    pub(crate) fn get(&self, pixel: usize, lane: usize) -> f64 {
        self.data[pixel * self.stride + self.at + lane]
    }

    pub(crate) fn block<'a, E: Element>(&self, cast: &'a [E]) -> Block<'a, E> {
        Block { data: cast, stride: self.stride, at: self.at }
    }
}
