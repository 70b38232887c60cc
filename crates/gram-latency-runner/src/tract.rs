//! tract, an engine written in Rust that is part of the program, so that no library is looked for. It is slower than onnxruntime, by other
//! factors for other kernels: its times say nothing about onnxruntime's.

use std::fmt::Display;
use std::io::Cursor;
use std::time::Instant;

use tract_onnx::prelude::{
    DatumExt, Framework, InferenceModelExt, IntoRunnable, TValue, Tensor, TypedSimpleState, tvec,
};

use crate::Device;
use crate::engine::{Engine, EngineError, NodeRuns, Profiling, Session, noise};

/// The version that the workspace asks for; the crate does not tell its own.
const VERSION: &str = "0.23.9";

/// tract on one thread of this machine's processor.
#[derive(Debug)]
pub struct Tract {
    device: Device,
}

impl Tract {
    /// The engine.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for more than one thread, which this engine does not have.
    pub fn open(threads: usize) -> Result<Self, EngineError> {
        if threads != 1 {
            return Err(EngineError::NotFound(format!("tract runs on one thread, not on {threads}")));
        }
        Ok(Self { device: Device::of_this_machine("tract", VERSION, threads) })
    }
}

impl Engine for Tract {
    fn device(&self) -> &Device {
        &self.device
    }

    fn load<'a>(
        &'a self,
        model: &[u8],
        input: [usize; 3],
        profiling: Profiling,
    ) -> Result<Box<dyn Session + 'a>, EngineError> {
        if profiling == Profiling::On {
            return Err(no_node_times());
        }
        let [c, h, w] = input;
        let shape = [1, c, h, w];
        // Exported models leave the batch open; it is fixed here, and what they say of the shapes of their maps no longer holds then.
        let state = tract_onnx::onnx()
            .with_ignore_output_shapes(true)
            .with_ignore_value_info(true)
            .model_for_read(&mut Cursor::new(model))
            .and_then(|model| model.with_input_fact(0, f32::fact(shape).into()))
            .and_then(InferenceModelExt::into_optimized)
            .and_then(IntoRunnable::into_runnable)
            .and_then(|plan| plan.spawn())
            .map_err(|error| EngineError::Refused(chain(&error)))?;
        let image =
            Tensor::from_shape(&shape, &noise(c * h * w)).map_err(|error| EngineError::Failed(chain(&error)))?;
        Ok(Box::new(Loaded { state, image: image.into() }))
    }
}

fn no_node_times() -> EngineError {
    EngineError::NoProfile("tract tells the time of whole passes only".into())
}

/// An error with its causes, on one line.
fn chain(error: &impl Display) -> String {
    format!("{error:#}").replace('\n', " ")
}

struct Loaded {
    state: TypedSimpleState,
    image: TValue,
}

impl Session for Loaded {
    fn run(&mut self) -> Result<f64, EngineError> {
        let start = Instant::now();
        let outputs = self.state.run(tvec![self.image.clone()]);
        let took = start.elapsed();
        outputs.map_err(|error| EngineError::Failed(chain(&error)))?;
        Ok(took.as_secs_f64() * 1e6)
    }

    fn output(&mut self) -> Result<Vec<f32>, EngineError> {
        let outputs = self.state.run(tvec![self.image.clone()]).map_err(|error| EngineError::Failed(chain(&error)))?;
        let output = outputs.first().ok_or_else(|| EngineError::Failed("the model has no output".into()))?;
        let values = output.to_plain_array_view::<f32>().map_err(|error| EngineError::Failed(chain(&error)))?;
        Ok(values.iter().copied().collect())
    }

    fn into_node_runs(self: Box<Self>) -> Result<Vec<NodeRuns>, EngineError> {
        Err(no_node_times())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_built() {
        let workspace = include_str!("../../../Cargo.toml");
        assert!(workspace.contains(&format!("tract-onnx = {{ version = \"={VERSION}\"")));
    }

    #[test]
    fn what_it_cannot_do_is_said() {
        assert!(Tract::open(2).unwrap_err().to_string().contains("one thread, not on 2"));
        let engine = Tract::open(1).unwrap();
        assert_eq!((engine.device().engine.as_str(), engine.device().threads), ("tract", 1));
        let refused = engine.load(b"no model", [3, 8, 8], Profiling::Off).err().unwrap();
        assert!(matches!(refused, EngineError::Refused(_)), "{refused}");
        let profiled = engine.load(b"no model", [3, 8, 8], Profiling::On).err().unwrap();
        assert!(matches!(profiled, EngineError::NoProfile(_)), "{profiled}");
    }
}
