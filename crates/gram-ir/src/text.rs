//! Text forms: what people read, write and compare, and what parses back.
//!
//! Both forms are made of lines; `#` starts a comment, blank lines and indentation mean nothing.
//!
//! A cell has a line for each operator node; its inputs are `n0`, the cell's input, and other nodes:
//! ```text
//! n1 = sep3x3 n0
//! n2 = conv1x1 n0 n1
//! ```
//! An architecture names its parts; `repeats=1` and `downsample=none` are not written, nor is an `output` line without words:
//! ```text
//! architecture example
//! input 3x32x32
//! classes 10
//! activation relu6
//!
//! stem conv3x3/16 stride=2
//! stem sep3x3/24
//! stem maxpool2
//!
//! stage channels=32 downsample=maxpool2 repeats=2
//!   n1 = sep3x3 n0
//!   n2 = conv1x1 n0 n1
//!   output project=48 residual linear-leaves activation
//!
//! head conv1x1/128
//! ```
//! A network has a line for each node in execution order. Channels that follow from the inputs are not written, nor are the
//! defaults `stride=1`, `pad` (half the kernel for convolutions, half of one less for pools), `dilation=1`, `groups=1` and the names
//! `input` of `n0` and `n7` of `n7`:
//! ```text
//! n0 = input 3x32x32
//! n1 = conv3x3/16 n0 stride=2 name=stem.conv
//! n2 = batchnorm n1
//! n3 = relu6 n2
//! n4 = dwconv3x3 n3
//! n5 = concat n3 n4
//! n6 = maxpool2x2 n5 stride=2
//! n7 = global-avgpool n6
//! n8 = linear/10 n7 bias
//! output n8
//! ```
//! With the alternate flag (`{network:#}`) each line ends in a comment with the node's shape.

mod architecture;
mod cell;
mod line;
mod network;

pub use line::{MAX_TEXT_BYTES, TextError};
pub(crate) use line::{check_length, lines};
pub(crate) use network::read_network;
