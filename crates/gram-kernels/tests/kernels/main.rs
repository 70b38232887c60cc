//! Every kernel against slow, obvious loops in f64, on every instruction set of this machine.
//!
//! What must hold for each of them is listed as K1, K2, … above its test. Common to all:
//!
//! - A1 numbers agree within [`check::close`]'s tolerance, which grows with the sum of the absolute terms
//! - A2 results that are replaced depend on nothing that was there before (it is not a number), those that are added to do so once
//! - A3 neighbouring channels and whatever lies behind the result are left alone
//!
//! `GRAM_ISA=portable`, `avx2` or `avx512` restricts the instruction sets, `PROPTEST_CASES` the number of cases.

mod check;
mod conv;
mod draw;
mod frames;
mod norm;
mod pointwise;
mod pools;
mod sep;
mod spatial;
