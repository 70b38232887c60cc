//! Differentiable operators on candle tensors, with kernels and gradients of their own.
//!
//! candle 0.11.1 has a wrong max-pool gradient, unusable depthwise convolutions and slow convolution gradients on the CPU, and
//! takes 1 for ReLU's slope at 0; these operators replace them. All take f32 or f64 tensors of any layout on the CPU and give
//! dense ones; maps are `[n, c, h, w]`. Results are the same bits for any number of threads, which are those of the present
//! rayon pool.

mod access;
mod conv;
mod loss;
mod norm;
mod operator;
mod pointwise;
mod pool;

pub use conv::{conv2d, linear};
pub use loss::cross_entropy;
pub use norm::{BatchMoments, batch_norm, batch_norm_fixed};
pub use pointwise::{activation, add, concat};
pub use pool::{avg_pool, global_avg_pool, max_pool};

pub(crate) use access::{dense, values};
pub(crate) use conv::ConvOp;
pub(crate) use loss::LossOp;
pub(crate) use norm::NormOp;
pub(crate) use operator::{Operator, compute};
pub(crate) use pointwise::{ActOp, AddOp, ConcatOp};
pub(crate) use pool::{GlobalOp, PoolOp};
