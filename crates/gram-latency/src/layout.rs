//! What blocks an engine works in.

use gram_export::{OnnxMetadata, to_onnx};
use gram_ir::{Conv2d, Network, Op, Shape, Weights};
use gram_latency_runner::{Engine, EngineError, NodeRuns, Profiling};

use crate::Layout;

/// Channels to which the probe's one output channel would be padded by no engine.
const MAX_BLOCK: usize = 64;

/// Asks an engine for its layout: a convolution to a single channel shows what its output is padded to.
///
/// # Errors
/// [`EngineError`] where the probe does not run.
pub fn engine_layout(engine: &dyn Engine) -> Result<Layout, EngineError> {
    let mut session = engine.load(&probe()?, [3, 8, 8], Profiling::On)?;
    session.run()?;
    Ok(layout_of(&session.into_node_runs()?))
}

/// A 3x3 convolution of 3 channels to 1.
pub(crate) fn probe() -> Result<Vec<u8>, EngineError> {
    let mut network = Network::new(Shape::chw(3, 8, 8));
    let failed = |error: &dyn std::fmt::Display| EngineError::Failed(format!("the layout probe: {error}"));
    let conv = network.add("conv", Op::Conv(Conv2d::new(3, 1, 3)), &[network.input()]);
    network.set_output(conv.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    let weights = Weights::arbitrary(&network, 1);
    to_onnx(&network, &weights, &OnnxMetadata::new("layout-probe")).map_err(|error| failed(&error))
}

/// The layout that the probe's nodes show.
pub(crate) fn layout_of(nodes: &[NodeRuns]) -> Layout {
    let conv = nodes.iter().find(|node| node.op == "Conv" && node.name.ends_with("_nchwc"));
    let channels = conv.and_then(|node| node.output.get(1)).copied().unwrap_or(1);
    if channels <= MAX_BLOCK { Layout::blocked(channels) } else { Layout::PLAIN }
}
