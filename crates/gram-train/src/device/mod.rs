//! Networks on any candle device, on candle's own operators; those of them that are wrong or missing are put together of others.
//!
//! Forward and backward are lists of whole-tensor operations, so that nothing but the scores of a batch leaves the device in a step. Inside,
//! maps are `[c, n, h, w]`.

mod choice;
mod conv;
mod model;
mod norm;
mod optim;
mod pointwise;
mod pool;
mod state;
mod store;
mod sums;
mod tape;
mod teacher;
mod train;
mod trainer;
mod windows;

pub use choice::{DeviceChoice, DeviceNameError, numerics_on};
pub use model::DeviceModel;
pub use train::{train_on, train_on_device};

use choice::numerics_of_operators;
