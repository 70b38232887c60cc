//! Blocks that are copied or added up: sums of maps, and their gradients.

use crate::block::Block;
use crate::isa::{Isa, LANES};
use crate::lift::{Activate, ForActivation, Lift, Lifter, with_activation};
use crate::raw::{Source, Target};

/// Writes the lifted block `x` into the block of `out` `[pixels][stride]` from channel `at` on, or with `add` adds it.
///
/// # Panics
/// If a block does not lie inside its image.
pub fn lift_block<S: Isa>(
    s: S,
    (x, lift): (Block<'_, S::E>, &Lift<'_, S::E>),
    pixels: usize,
    (out, stride, at): (&mut [S::E], usize, usize),
    add: bool,
) {
    struct Copy<'a, S: Isa>(S, Block<'a, S::E>, &'a Lift<'a, S::E>, usize, (&'a mut [S::E], usize, usize), bool);
    impl<S: Isa> ForActivation<S> for Copy<'_, S> {
        type Output = ();
        #[inline(always)]
        fn call<A: Activate<S>>(self, activation: A) {
            let Self(s, x, lift, pixels, (out, stride, at), add) = self;
            let (lift, source, target) = (Lifter::new(s, lift, activation), Source::new(x.data), Target::new(out));
            for p in 0..pixels {
                // SAFETY: pixel p is one of `pixels`, all of which lie inside both images.
                unsafe {
                    let v = lift.value(s, source.lanes(s, p * x.stride + x.at));
                    let to = p * stride + at;
                    target.put(s, to, if add { s.add(target.lanes(s, to), v) } else { v });
                }
            }
        }
    }
    x.check(pixels);
    Block { data: &*out, stride, at }.check(pixels);
    s.run(
        #[inline(always)]
        || with_activation(s, lift.activation, Copy(s, x, lift, pixels, (out, stride, at), add)),
    );
}

/// Writes the block `g` to `dx` `[pixels][16]`, or with `add` adds it.
///
/// # Panics
/// If the block does not lie inside its image, or `dx` is too short.
pub fn take_block<S: Isa>(s: S, g: Block<'_, S::E>, pixels: usize, (dx, add): (&mut [S::E], bool)) {
    g.check(pixels);
    assert!(dx.len() / LANES >= pixels, "invariant: {} elements for {pixels} pixels", dx.len());
    s.run(
        #[inline(always)]
        || {
            let (source, target) = (Source::new(g.data), Target::new(dx));
            for p in 0..pixels {
                // SAFETY: pixel p is one of `pixels`, all of which lie inside.
                unsafe {
                    let v = source.lanes(s, p * g.stride + g.at);
                    target.put(s, p * LANES, if add { s.add(target.lanes(s, p * LANES), v) } else { v });
                }
            }
        },
    );
}
