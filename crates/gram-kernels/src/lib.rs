//! CPU kernels for training convolutional networks: slices in, slices out.
//!
//! Images lie as `[pixels][channels]`, channels padded to multiples of [`LANES`]; kernels work on one image and one [`Block`] of 16 of its
//! channels. Only raw outputs of convolutions are stored: batch norm and activation are a [`Lift`] that is applied when they are read,
//! and a convolution of several maps simply adds up blocks, so that their concatenation never exists.
//!
//! Every kernel is generic over an instruction set ([`Isa`]): AVX-512, AVX2 and plain code that compilers vectorise, for f32, and for f64 to
//! check gradients with. A kernel runs on the thread that calls it and depends on nothing else, so results are the same bits however
//! images are spread over threads. They may differ between instruction sets, in the last bits.
//!
//! Unlike in the rest of the project there is `unsafe` here: kernels check the lengths of their slices once and then read them unchecked.

mod ahead;
mod block;
mod conv;
mod depthwise;
mod dispatch;
mod frame;
mod gemm;
mod isa;
mod lift;
mod norm;
mod pointwise;
mod pool;
mod raw;
mod sep;
mod spatial;
mod sum;
mod window;

pub use ahead::Ahead;
pub use block::{Block, Frame, Plane};
pub use conv::{conv, conv_input, conv_weights};
pub use dispatch::{Kernels, exact_kernels};
pub use frame::{add_frame, fill_frame, fill_rows, to_pixels};
pub use gemm::peak_gflops;
#[cfg(target_arch = "x86_64")]
pub use isa::{Avx2, Avx512};
pub use isa::{Element, Isa, IsaKind, LANES, Portable};
pub use lift::{Activation, Lift};
pub use norm::{Coefficients, GradientSums, ShiftedSums, add_moments, lower_gradient, norm_gradient};
pub use pointwise::{POINTWISE_SCRATCH, TransposedWeights, Weights, pointwise, pointwise_input, pointwise_weights};
pub use pool::{avg_pool, avg_pool_input, global_average, global_average_input, max_pool, max_pool_input};
pub use sep::{Depthwise, SepGradient, sep, sep_centre, sep_input, sep_moments, sep_scratch, sep_tiles, sep_weights};
pub use spatial::{depthwise, depthwise_input, depthwise_weights};
pub use sum::{lift_block, take_block};
pub use window::Window;
