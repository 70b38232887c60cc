//! What blocks an engine works in.

use gram_ir::{Conv2d, Network, NetworkError, Op, Shape};
use gram_latency_runner::{Engine, EngineError, NodeTime, Profiling};

use crate::Layout;
use crate::bench::timing_model;

/// Channels to which the probe's one output channel would be padded by no engine.
const MAX_BLOCK: usize = 64;

/// Asks an engine for its layout: a convolution to a single channel shows what its output is padded to.
///
/// # Errors
/// [`EngineError`] where the probe does not run.
pub fn engine_layout(engine: &dyn Engine) -> Result<Layout, EngineError> {
    let failed = |error: &dyn std::fmt::Display| EngineError::Failed(format!("the layout probe: {error}"));
    let network = probe().map_err(|error| failed(&error))?;
    let model = timing_model(&network).map_err(|error| failed(&error))?;
    let mut session = engine.load(&model, network.input_shape().into(), Profiling::On)?;
    session.run()?;
    let nodes = session.into_node_runs()?;
    Ok(layout_of(nodes.iter().map(|node| (node.op.as_str(), node.name.as_str(), node.output.as_slice()))))
}

/// A 3x3 convolution of 3 channels to 1.
pub(crate) fn probe() -> Result<Network, NetworkError> {
    let mut network = Network::new(Shape::chw(3, 8, 8));
    let conv = network.add("conv", Op::Conv(Conv2d::new(3, 1, 3)), &[network.input()])?;
    network.set_output(conv)?;
    Ok(network)
}

/// The layout that a profile of the probe shows.
pub(crate) fn layout_of_times(nodes: &[NodeTime]) -> Layout {
    layout_of(nodes.iter().map(|node| (node.op.as_str(), node.name.as_str(), node.output.as_slice())))
}

/// Of operators, names and outputs of the nodes.
fn layout_of<'a>(mut nodes: impl Iterator<Item = (&'a str, &'a str, &'a [usize])>) -> Layout {
    let conv = nodes.find(|(op, name, _)| *op == "Conv" && name.ends_with("_nchwc"));
    let channels = conv.and_then(|(_, _, output)| output.get(1)).copied().unwrap_or(1);
    if channels <= MAX_BLOCK { Layout::blocked(channels) } else { Layout::PLAIN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeEngine;

    #[test]
    fn engines_show_their_blocks() {
        for layout in [Layout::PLAIN, Layout::blocked(8), Layout::blocked(16)] {
            let mut engine = FakeEngine::new("probe", 1.0, 1);
            engine.layout = layout;
            assert_eq!(engine_layout(&engine), Ok(layout));
        }
        assert_eq!(layout_of([("Conv", "conv", [1, 1, 8, 8].as_slice())].into_iter()), Layout::PLAIN);
    }
}
