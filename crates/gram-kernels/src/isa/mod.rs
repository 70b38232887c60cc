//! Vectors of [`LANES`] numbers on the instruction sets that kernels are compiled for.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::fmt::{self, Debug};
use std::ops::{Add, Mul, Sub};

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// Channels that kernels handle together: one AVX-512 register of f32, two of AVX2, four of NEON.
pub const LANES: usize = 16;

/// f32 or f64.
pub trait Element:
    Copy
    + Default
    + Debug
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Send
    + Sync
    + 'static
{
    /// The nearest number.
    fn from_f64(x: f64) -> Self;
    /// The same number.
    fn to_f64(self) -> f64;
}

impl Element for f32 {
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as Self
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for f64 {
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
}

/// An instruction set that this machine has: a value of such a type is the proof.
///
/// All operations work lane by lane and must be inlined into [`run`](Self::run)'s closure to be compiled for the instruction set.
pub trait Isa: Copy + Debug + Send + Sync + 'static {
    /// Numbers in the lanes.
    type E: Element;
    /// [`LANES`] numbers.
    type V: Copy;

    /// Whether there are 32 vector registers of all [`LANES`], so that larger blocks of sums stay in registers.
    const WIDE: bool;

    /// Runs `f` compiled for this instruction set.
    fn run<R>(self, f: impl FnOnce() -> R) -> R;

    /// The lanes at `p`.
    ///
    /// # Safety
    /// `p` must be valid for reading [`LANES`] elements.
    unsafe fn load(self, p: *const Self::E) -> Self::V;

    /// Writes the lanes to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing [`LANES`] elements.
    unsafe fn store(self, p: *mut Self::E, v: Self::V);

    /// `x` in every lane.
    fn splat(self, x: Self::E) -> Self::V;

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a · b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// The larger one; `b` if either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// The smaller one; `b` if either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;

    /// `x` where `a > b`, else `y`; `y` if either is not a number.
    fn select_gt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;

    /// Asks for the cache line of `p`, which need not be valid.
    #[inline(always)]
    fn prefetch(self, p: *const Self::E) {
        let _ = p;
    }

    /// Zeros.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(Self::E::default())
    }

    /// The lanes of an array.
    #[inline(always)]
    fn lanes(self, array: &[Self::E; LANES]) -> Self::V {
        // SAFETY: an array of LANES elements can be read in full.
        unsafe { self.load(array.as_ptr()) }
    }

    /// The lanes as an array.
    #[inline(always)]
    fn array(self, v: Self::V) -> [Self::E; LANES] {
        let mut array = [Self::E::default(); LANES];
        // SAFETY: an array of LANES elements can be written in full.
        unsafe { self.store(array.as_mut_ptr(), v) };
        array
    }
}

/// The instruction sets by name; what kernels compute may differ between them in the last bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IsaKind {
    /// Plain code that compilers vectorise for the base instruction set (SSE2, NEON).
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 (F, VL, DQ, BW).
    Avx512,
}

impl IsaKind {
    /// Every instruction set, the best one last.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The best one that this machine has.
    pub fn best() -> Self {
        Self::ALL.into_iter().rfind(|kind| kind.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The name in files and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for IsaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<S: Isa>(s: S) {
        let e = |x: f64| S::E::from_f64(x);
        let (a, b): ([S::E; LANES], [S::E; LANES]) =
            (std::array::from_fn(|i| e(i as f64 - 7.5)), std::array::from_fn(|i| e(3.0 - i as f64)));
        let binary = |f: fn(S, S::V, S::V) -> S::V| s.run(|| s.array(f(s, s.lanes(&a), s.lanes(&b))));
        let expect =
            |f: fn(f64, f64) -> f64| -> [S::E; LANES] { std::array::from_fn(|i| e(f(a[i].to_f64(), b[i].to_f64()))) };
        assert_eq!(binary(S::add), expect(|a, b| a + b));
        assert_eq!(binary(S::sub), expect(|a, b| a - b));
        assert_eq!(binary(S::mul), expect(|a, b| a * b));
        assert_eq!(binary(S::max), expect(f64::max));
        assert_eq!(binary(S::min), expect(f64::min));
        assert_eq!(binary(|s, a, b| s.fma(a, b, b)), expect(|a, b| a * b + b));
        assert_eq!(
            binary(|s, a, b| s.select_gt(a, b, s.splat(S::E::from_f64(2.0)), a)),
            expect(|a, b| if a > b { 2.0 } else { a })
        );
        let nan = s.run(|| s.array(s.max(s.zero(), s.splat(e(f64::NAN)))))[3];
        assert!(nan.to_f64().is_nan(), "a maximum gives its second operand where one is no number");
        let other = s.run(|| s.array(s.min(s.splat(e(f64::NAN)), s.splat(e(6.0)))))[3];
        assert_eq!(other, e(6.0));
        let kept = s.run(|| s.array(s.select_gt(s.splat(e(f64::NAN)), s.zero(), s.zero(), s.splat(e(1.0)))))[0];
        assert_eq!(kept, e(1.0));
    }

    #[test]
    fn every_operation_on_every_instruction_set() {
        check(Portable::<f32>::new());
        check(Portable::<f64>::new());
        #[cfg(target_arch = "x86_64")]
        {
            Avx2::detect().into_iter().for_each(check);
            Avx512::detect().into_iter().for_each(check);
        }
    }
}
