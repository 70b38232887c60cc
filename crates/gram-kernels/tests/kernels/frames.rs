//! Frames, and blocks that are copied.

use std::fmt;

use gram_kernels::{
    Activation, Block, Element, Frame, Isa, LANES, add_frame, fill_frame, fill_rows, lift_block, take_block, to_pixels,
};
use proptest::prelude::*;

use crate::check::{Checked, Sum, close, config, on_every_isa};
use crate::draw::{Draw, Image, Lifting, arb_activation, arb_place, arb_plane, cast, stale};

struct Case {
    frame: Frame,
    image: Image,
    lifting: Lifting<f64>,
    /// A frame, `[pixels][16]` and a second image.
    data: Vec<f64>,
    alone: Vec<f64>,
    target: Image,
}

/// Without the numbers.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("frame", &self.frame)
            .field("lifting", &self.lifting)
            .field("from", &self.image)
            .field("to", &self.target)
            .finish_non_exhaustive()
    }
}

fn arb_case() -> impl Strategy<Value = Case> {
    let shape = (arb_plane(), 0..=3usize, arb_place(), arb_place());
    (shape, arb_activation(), any::<u64>()).prop_map(|((inner, pad, (stride, at), (to, to_at)), activation, seed)| {
        let (frame, mut draw) = (Frame { inner, pad }, Draw(seed));
        Case {
            frame,
            image: Image { data: draw.reals(inner.pixels() * stride), stride, at },
            lifting: Lifting::draw(&mut draw, activation),
            data: draw.reals(frame.len()),
            alone: draw.reals(inner.pixels() * LANES),
            target: Image { data: draw.reals(inner.pixels() * to), stride: to, at: to_at },
        }
    })
}

impl Case {
    /// Element of the frame for each pixel and lane of the image.
    fn inside(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let (w, pad, row) = (self.frame.inner.w, self.frame.pad, self.frame.w());
        (0..self.frame.inner.pixels()).flat_map(move |p| {
            (0..LANES).map(move |lane| (p, lane, ((p / w + pad) * row + p % w + pad) * LANES + lane))
        })
    }

    /// The second image after its block was replaced by, or with `add` added to, `f(pixel, lane)`.
    fn written(&self, add: bool, f: impl Fn(usize, usize) -> f64) -> Vec<Sum> {
        let mut out: Vec<Sum> = self.target.data.iter().map(|&x| Sum::of(x)).collect();
        for (p, lane, _) in self.inside() {
            let sum = &mut out[p * self.target.stride + self.target.at + lane];
            if !add {
                *sum = Sum::default();
            }
            sum.add(f(p, lane));
        }
        out
    }
}

/// K1 inside a frame is the lifted block, K2 around it the border.
fn fills<S: Isa>(s: S, case: &Case) -> Checked {
    const BEHIND: usize = 5;
    let (x, lifting) = (cast::<S::E>(&case.image.data), case.lifting.cast());
    let border = -3.5;
    let mut out = stale(case.frame.len() + BEHIND);
    fill_frame(s, case.image.block(&x), &lifting.lift(), case.frame, S::E::from_f64(border), &mut out);
    let mut expected = vec![Sum::of(border); case.frame.len()]; // K2
    expected.extend([Sum::of(f64::NAN); BEHIND]); // A3
    for (p, lane, i) in case.inside() {
        let x = case.image.get(p, lane);
        expected[i] = Sum { value: case.lifting.value(lane, x), size: 4.0 }; // K1
    }
    close("fill_frame", &out, &expected)
}

/// K1 rows of a frame are filled as the whole is, K2 no others are touched.
fn fills_rows<S: Isa>(s: S, case: &Case) -> Checked {
    let (x, lifting) = (cast::<S::E>(&case.image.data), case.lifting.cast());
    let (from, border) = ((case.image.block(&x), &lifting.lift()), (case.frame, S::E::from_f64(-3.5)));
    let [mut whole, mut parts] = [stale(case.frame.len()), stale(case.frame.len())];
    fill_frame(s, from.0, from.1, border.0, border.1, &mut whole);
    let (row, cut) = (case.frame.w() * LANES, case.frame.h() / 3);
    fill_rows(s, from, border, cut..case.frame.h(), &mut parts);
    prop_assert!(parts[..cut * row].iter().all(|x| x.to_f64().is_nan()), "rows before {}", cut); // K2
    prop_assert!(parts[cut * row..] == whole[cut * row..], "rows from {} on", cut); // K1
    fill_rows(s, from, border, 0..cut, &mut parts);
    prop_assert!(parts == whole, "rows before {}", cut); // K1
    Ok(())
}

/// K1 the frame's inside arrives in the block, its border nowhere.
fn folds<S: Isa>(s: S, case: &Case) -> Checked {
    let (data, mut at) = (cast::<S::E>(&case.data), vec![0; case.alone.len()]);
    case.inside().for_each(|(p, lane, i)| at[p * LANES + lane] = i);
    for store in [false, true] {
        let mut out = cast::<S::E>(&case.target.data);
        add_frame(s, case.frame, &data, store, &mut out, case.target.stride, case.target.at);
        close("add_frame", &out, &case.written(!store, |p, lane| case.data[at[p * LANES + lane]]))?; // K1, A2, A3
    }
    Ok(())
}

/// K1 a block arrives lifted in another image, K2 and as it is in one of 16 channels.
fn copies<S: Isa>(s: S, case: &Case) -> Checked {
    let (x, lifting, pixels) = (cast::<S::E>(&case.image.data), case.lifting.cast(), case.frame.inner.pixels());
    for add in [false, true] {
        let mut out = cast::<S::E>(&case.target.data);
        let to = (&mut out[..], case.target.stride, case.target.at);
        lift_block(s, (case.image.block(&x), &lifting.lift()), pixels, to, add);
        let lifted = |p, lane| case.lifting.value(lane, case.image.get(p, lane));
        let mut expected = case.written(add, lifted);
        expected.iter_mut().for_each(|sum| sum.size += 4.0);
        close("lift_block", &out, &expected)?; // K1

        let mut out = if add { cast(&case.alone) } else { stale::<S::E>(pixels * LANES) };
        take_block(s, case.image.block(&x), pixels, (&mut out, add));
        let old = |i: usize| if add { case.alone[i] } else { 0.0 };
        let expected = (0..out.len()).map(|i| Sum::of(old(i) + case.image.get(i / LANES, i % LANES)));
        let expected: Vec<_> = expected.map(|sum| Sum { size: 2.0, ..sum }).collect();
        close("take_block", &out, &expected)?; // K2
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn frames_and_blocks(case in arb_case()) {
        on_every_isa!(fills(&case));
        on_every_isa!(fills_rows(&case));
        on_every_isa!(folds(&case));
        on_every_isa!(copies(&case));
    }

    /// K1 channel by channel becomes pixel by pixel, K2 behind the last channel are zeros.
    #[test]
    fn planes_become_pixels(channels in 0..=20usize, pixels in 0..=30usize, padding in 0..=15usize, seed: u64) {
        let (image, stride) = (Draw(seed).reals(channels * pixels), channels + padding);
        let mut out = stale(pixels * stride);
        to_pixels(&image, channels, pixels, stride, &mut out);
        for (i, &got) in out.iter().enumerate() {
            let (p, c) = (i / stride, i % stride);
            prop_assert_eq!(got, if c < channels { image[c * pixels + p] } else { 0.0 });
        }
    }
}

/// K1 what is not a number stays so in all activations, K2 and in no other lane or pixel.
#[test]
fn what_is_no_number_is_not_hidden() -> Checked {
    fn check<S: Isa>(s: S, activation: Activation) -> Checked {
        let e = S::E::from_f64;
        let mut x = vec![e(0.5); 2 * LANES];
        x[LANES + 3] = e(f64::NAN);
        let lifting = Lifting { activation, ..Lifting::identity() }.cast();
        let mut out = stale(x.len());
        lift_block(s, (Block::alone(&x), &lifting.lift()), 2, (&mut out, LANES, 0), false);
        for (i, got) in out.iter().enumerate() {
            prop_assert_eq!(got.to_f64().is_nan(), i == LANES + 3, "element {}", i);
        }
        Ok(())
    }
    for activation in [Activation::IDENTITY, Activation::RELU, Activation::RELU6, Activation::HardSwish] {
        on_every_isa!(check(activation));
    }
    Ok(())
}
