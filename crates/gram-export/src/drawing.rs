//! Pictures of graphs: DOT for Graphviz and a finished SVG.

mod dot;
mod layout;
mod palette;
mod svg;

pub use dot::{architecture_to_dot, cell_to_dot, network_to_dot};
pub use svg::architecture_to_svg;
