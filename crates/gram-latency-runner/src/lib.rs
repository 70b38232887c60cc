//! Measures latencies on one device: an engine, a list of jobs, a loop that distrusts the machine, a file of results.
//!
//! The `gram-latency-runner` program of this crate measures a job folder and needs nothing but itself and the engine's shared library,
//! so it can be copied to a phone. `gram-latency` uses the same loop on the machine it runs on. The crate knows neither graphs nor
//! predictions.

mod device;
mod engine;
mod folder;
pub mod jobs;
pub mod journal;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod outputs;
mod run;
pub mod stats;
#[cfg(feature = "tract")]
mod tract;

pub use device::Device;
pub use engine::{Engine, EngineError, NodeRuns, Profiling, Session};
pub use folder::{FolderError, measure_folder};
pub use jobs::{FORMAT_VERSION, Job, JobError, JobFile, Plan};
pub use journal::{Header, Journal, JournalError, NodeTime, Outcome, Record, References, Times};
#[cfg(feature = "onnxruntime")]
pub use onnxruntime::{LIBRARY_VARIABLE, OnnxRuntime, find_library};
pub use outputs::{Computed, Output, Outputs};
pub use run::{Ended, Host, Progress, RunError, run};
#[cfg(feature = "tract")]
pub use tract::Tract;
