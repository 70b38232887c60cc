//! Units as types: shapes, multiply–accumulates, parameters.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The shape `[c, h, w]` of one image's feature map; prints and parses as `3x224x224`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 3]", into = "[usize; 3]")]
pub struct Shape {
    /// Channels.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
}

/// No axis of a shape may exceed this, so that sizes of maps and weights cannot overflow.
pub const MAX_AXIS: usize = 1 << 16;

impl Shape {
    /// A shape of `c` channels, height `h`, width `w`.
    pub const fn chw(c: usize, h: usize, w: usize) -> Self {
        Self { c, h, w }
    }

    /// Pixels of one channel, `h·w`.
    pub const fn pixels(self) -> usize {
        self.h * self.w
    }

    /// Elements of the whole map, `c·h·w`.
    pub const fn elements(self) -> usize {
        self.c * self.h * self.w
    }
}

impl From<[usize; 3]> for Shape {
    fn from([c, h, w]: [usize; 3]) -> Self {
        Self { c, h, w }
    }
}

impl From<Shape> for [usize; 3] {
    fn from(shape: Shape) -> Self {
        [shape.c, shape.h, shape.w]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.c, self.h, self.w)
    }
}

/// A shape that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a shape: expected CxHxW such as 3x224x224, every axis between 1 and 65536")]
pub struct ShapeParseError(pub String);

impl FromStr for Shape {
    type Err = ShapeParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ShapeParseError(text.chars().take(80).collect());
        let axes = text.split('x').map(|axis| axis.parse::<usize>().ok()).collect::<Option<Vec<_>>>();
        match axes.as_deref() {
            Some(&[c, h, w]) if [c, h, w].iter().all(|axis| (1..=MAX_AXIS).contains(axis)) => Ok(Self { c, h, w }),
            _ => Err(fail()),
        }
    }
}

macro_rules! count_unit {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::default(), Add::add)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", grouped(self.0), $unit)
            }
        }
    };
}

count_unit!(
    /// Multiply–accumulates of one forward pass at batch 1; convolutions and linear layers only.
    Macs,
    "MACs"
);
count_unit!(
    /// A number of trainable scalars.
    Params,
    "params"
);

/// `56156504` as `56,156,504`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_prints_and_parses() {
        let shape = Shape::chw(3, 224, 192);
        assert_eq!(shape.to_string(), "3x224x192");
        assert_eq!("3x224x192".parse(), Ok(shape));
        assert_eq!((shape.pixels(), shape.elements()), (224 * 192, 3 * 224 * 192));
    }

    #[test]
    fn bad_shapes_are_refused() {
        for text in ["", "3x224", "0x8x8", "3x8x8x8", "ax8x8", "3x-1x8", "1x1x65537", "99999999999999999999x1x1"] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_grouped_in_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(Macs(56_156_504).to_string(), "56,156,504 MACs");
    }
}
