//! Instruction sets to test on, and comparison.

use std::env;

use gram_kernels::{Element, LANES};
use proptest::prelude::*;

/// Calls a generic test with every instruction set of this machine, or those that `GRAM_ISA` names.
macro_rules! on_every_isa {
    ($test:ident($($argument:expr),*)) => {{
        use gram_kernels::IsaKind;
        if crate::check::is_wanted(IsaKind::Portable) {
            $test(gram_kernels::Portable::<f32>::new(), $($argument),*)?;
            $test(gram_kernels::Portable::<f64>::new(), $($argument),*)?;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(s) = gram_kernels::Avx2::detect().filter(|_| crate::check::is_wanted(IsaKind::Avx2)) {
                $test(s, $($argument),*)?;
            }
            if let Some(s) = gram_kernels::Avx512::detect().filter(|_| crate::check::is_wanted(IsaKind::Avx512)) {
                $test(s, $($argument),*)?;
            }
        }
    }};
}
pub(crate) use on_every_isa;

pub(crate) type Checked = Result<(), TestCaseError>;

pub(crate) fn is_wanted(kind: gram_kernels::IsaKind) -> bool {
    let Ok(name) = env::var("GRAM_ISA") else { return true };
    assert!(gram_kernels::IsaKind::ALL.iter().any(|kind| kind.name() == name), "GRAM_ISA={name} is no instruction set");
    kind.name() == name
}

/// `PROPTEST_CASES`, or else `cases`.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..default }
}

/// A sum and that of its absolute terms, which bounds what rounding can do to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) value: f64,
    pub(crate) size: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, term: f64) {
        self.value += term;
        self.size += term.abs();
    }

    /// Adds `factor` times another sum.
    pub(crate) fn add_sum(&mut self, factor: f64, other: Self) {
        self.value += factor * other.value;
        self.size += factor.abs() * other.size;
    }

    /// Of numbers that no sum was needed for.
    pub(crate) fn of(value: f64) -> Self {
        Self { value, size: value.abs() }
    }
}

/// Relative to the sum of absolute terms: f64 keeps 1e-12, f32 as many ulps.
fn tolerance<E: Element>() -> f64 {
    if E::from_f64(0.1).to_f64() == 0.1 { 1e-12 } else { 4e-6 }
}

#[track_caller]
pub(crate) fn close<E: Element>(what: &str, got: &[E], expected: &[Sum]) -> Checked {
    let got: Vec<f64> = got.iter().map(|x| x.to_f64()).collect();
    close_wide::<E>(what, &got, expected)
}

/// As [`close`], for sums of `E` that are kept as f64.
#[track_caller]
pub(crate) fn close_wide<E: Element>(what: &str, got: &[f64], expected: &[Sum]) -> Checked {
    prop_assert_eq!(got.len(), expected.len(), "{}: length", what);
    for (i, (&got, expected)) in got.iter().zip(expected).enumerate() {
        let room = tolerance::<E>() * (expected.size + 1e-3);
        let same = (got - expected.value).abs() <= room || got.is_nan() && expected.value.is_nan();
        prop_assert!(
            same || got == expected.value,
            "{} [{}]: {} instead of {} ± {}",
            what,
            i,
            got,
            expected.value,
            room
        );
    }
    Ok(())
}

#[track_caller]
pub(crate) fn close_lanes<E: Element>(what: &str, got: &[[E; LANES]], expected: &[[Sum; LANES]]) -> Checked {
    close(what, got.as_flattened(), expected.as_flattened())
}
