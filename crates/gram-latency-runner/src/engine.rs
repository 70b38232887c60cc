//! What can run a model and say how long that took.

use crate::Device;

/// An inference engine on one device.
pub trait Engine {
    /// What its times are times of.
    fn device(&self) -> &Device;

    /// Prepares an ONNX model for inputs of one image, `[c, h, w]`.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if the engine does not take the model.
    fn load<'a>(
        &'a self,
        model: &[u8],
        input: [usize; 3],
        profiling: Profiling,
    ) -> Result<Box<dyn Session + 'a>, EngineError>;
}

/// Whether a session keeps the time of every node, which costs time itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profiling {
    /// Times of whole forward passes only.
    Off,
    /// Times of nodes.
    On,
}

/// A model that is ready to run.
pub trait Session {
    /// One forward pass; the time it took, in microseconds.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    fn run(&mut self) -> Result<f64, EngineError>;

    /// Values of the network's output for the engine's fixed input.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    fn output(&mut self) -> Result<Vec<f32>, EngineError>;

    /// Times of the nodes in all passes so far, in the order in which they ran.
    ///
    /// # Errors
    /// [`EngineError::NoProfile`] if the session was not loaded with [`Profiling::On`].
    fn into_node_runs(self: Box<Self>) -> Result<Vec<NodeRuns>, EngineError>;
}

/// A node of the model as the engine runs it, which may be several of the model's nodes in one.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRuns {
    /// The engine's name of the node.
    pub name: String,
    /// The engine's operator.
    pub op: String,
    /// Axes of its first output, as the engine lays it out; empty if it does not say.
    pub output: Vec<usize>,
    /// Time of each pass, in microseconds.
    pub us: Vec<f64>,
}

/// Why an engine did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no engine on this machine.
    #[error("{0}")]
    NotFound(String),
    /// The engine does not take the model.
    #[error("the engine refuses the model: {0}")]
    Refused(String),
    /// A forward pass failed.
    #[error("the engine failed: {0}")]
    Failed(String),
    /// No times of nodes can be had.
    #[error("no times of nodes: {0}")]
    NoProfile(String),
}

/// The image that engines are run on: numbers between -1 and 1 that look random, so that no kernel meets a special case.
pub(crate) fn noise(count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}
