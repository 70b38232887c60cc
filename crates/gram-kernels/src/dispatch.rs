//! Kernels behind a pointer: compiled here once for every instruction set, chosen at run time.

use std::fmt::Debug;
use std::ops::Range;

use crate::{
    Block, Coefficients, Depthwise, Element, Frame, GradientSums, Isa, IsaKind, LANES, Lift, Portable, SepGradient,
    ShiftedSums, TransposedWeights, Weights, Window,
};

/// Declares the trait and its implementation for all instruction sets, out of the signatures of this crate's functions.
macro_rules! kernels {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)?;)*) => {
        /// All kernels on one instruction set, for f32 or f64.
        pub trait Kernels<E: Element>: Debug + Send + Sync {
            $(
                #[doc = concat!("See [`", stringify!($name), "`](crate::", stringify!($name), "()).")]
                fn $name(&self, $($argument: $type),*) $(-> $output)?;
            )*
        }

        impl<E: Element, S: Isa<E = E>> Kernels<E> for S {
            $(
                fn $name(&self, $($argument: $type),*) $(-> $output)? {
                    crate::$name(*self, $($argument),*)
                }
            )*
        }
    };
}

kernels! {
    fn fill_frame(x: Block<'_, E>, lift: &Lift<'_, E>, frame: Frame, border: E, out: &mut [E]);
    fn fill_rows(x: (Block<'_, E>, &Lift<'_, E>), frame: (Frame, E), rows: Range<usize>, out: &mut [E]);
    fn add_frame(frame: Frame, data: &[E], store: bool, out: &mut [E], stride: usize, at: usize);
    fn pointwise(x: (Block<'_, E>, &Lift<'_, E>), pixels: usize, weights: Weights<'_, E>, scratch: &mut [E], z: (&mut [E], bool));
    fn pointwise_weights(x: (Block<'_, E>, &Lift<'_, E>), pixels: usize, g: &[E], sizes: (usize, usize), scratch: &mut [E], dw: &mut [E]);
    fn pointwise_input(g: (&[E], usize), weights: TransposedWeights<'_, E>, pixels: usize, dx: (&mut [E], bool));
    fn conv(x: (Frame, &[E]), window: Window, weights: &[E], sizes: (usize, usize), z: (&mut [E], bool));
    fn conv_weights(x: (Frame, &[E]), window: Window, g: &[E], sizes: (usize, usize), dw: &mut [E]);
    fn conv_input(frame: Frame, window: Window, g: (&[E], usize), weights: (&[E], usize), dx: &mut [E]);
    fn depthwise(x: (Frame, &[E]), window: Window, weights: &[E], out: (&mut [E], usize, usize));
    fn depthwise_weights(x: (Frame, &[E]), window: Window, g: Block<'_, E>, dw: &mut [[E; LANES]]);
    fn depthwise_input(frame: Frame, window: Window, g: Block<'_, E>, weights: &[E], dx: &mut [E]);
    fn sep_centre(dw: Depthwise<'_, E>) -> [E; LANES];
    fn sep_moments(dw: Depthwise<'_, E>, sums: &mut ShiftedSums<E>);
    fn sep(dw: (Depthwise<'_, E>, Range<usize>), lift: &Lift<'_, E>, weights: Weights<'_, E>, scratch: &mut [E], z: (&mut [E], bool));
    fn sep_weights(gradient: (SepGradient<'_, E>, Range<usize>), depth: usize, scratch: &mut [E], dw: &mut [E], sums: &mut GradientSums<E>);
    fn sep_input(gradient: SepGradient<'_, E>, norm: Coefficients<'_, E>, scratch: (&mut [E], &mut [E]), dw: &mut [[E; LANES]], dx: (&mut [E], bool));
    fn max_pool(x: (Frame, &[E]), window: Window, out: (&mut [E], usize, usize));
    fn max_pool_input(x: (Frame, &[E]), window: Window, g: Block<'_, E>, dx: &mut [E]);
    fn avg_pool(x: (Frame, &[E]), window: Window, out: (&mut [E], usize, usize));
    fn avg_pool_input(frame: Frame, window: Window, g: Block<'_, E>, dx: &mut [E]);
    fn global_average(x: (Block<'_, E>, &Lift<'_, E>), pixels: usize) -> [E; LANES];
    fn global_average_input(g: &[E; LANES], pixels: usize, dx: (&mut [E], bool));
    fn lift_block(x: (Block<'_, E>, &Lift<'_, E>), pixels: usize, out: (&mut [E], usize, usize), add: bool);
    fn take_block(g: Block<'_, E>, pixels: usize, dx: (&mut [E], bool));
    fn add_moments(image: Block<'_, E>, pixels: usize, sums: &mut ShiftedSums<E>);
    fn lower_gradient(z: Block<'_, E>, lift: &Lift<'_, E>, g: &[E], pixels: usize, out: &mut [E], sums: &mut GradientSums<E>);
    fn norm_gradient(z: Block<'_, E>, coefficients: Coefficients<'_, E>, pixels: usize, g: &mut [E]);
    fn peak_gflops(seconds: f64) -> f64;
}

impl IsaKind {
    /// The kernels, if this machine has the instruction set.
    pub fn kernels(self) -> Option<&'static dyn Kernels<f32>> {
        static PORTABLE: Portable<f32> = Portable::new();
        match self {
            Self::Portable => Some(&PORTABLE),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => crate::Avx2::detect_static().map(|isa| isa as &dyn Kernels<f32>),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => crate::Avx512::detect_static().map(|isa| isa as &dyn Kernels<f32>),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }
}

/// The kernels in f64, to check gradients with.
pub fn exact_kernels() -> &'static dyn Kernels<f64> {
    static EXACT: Portable<f64> = Portable::new();
    &EXACT
}
