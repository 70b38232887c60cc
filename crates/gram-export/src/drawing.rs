//! Pictures of graphs: DOT for Graphviz and a finished SVG; charts of what they take.

mod dot;
mod layout;
mod live_bytes;
mod palette;
mod svg;

pub use dot::{architecture_to_dot, cell_to_dot, network_to_dot};
pub use live_bytes::{LiveBytes, live_bytes_to_svg};
pub use svg::architecture_to_svg;
