//! onnxruntime, through its shared library, which is looked for when the program runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session as OrtSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::Tensor;

use crate::engine::{Engine, EngineError, NodeRuns, Profiling, Session, noise};
use crate::{Device, jobs};

mod profile;

/// Environment variable with the path of the shared library.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// onnxruntime on this machine's processor.
#[derive(Debug)]
pub struct OnnxRuntime {
    environment: Environment,
    device: Device,
}

/// The process's one environment, with the library it was made of.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

impl OnnxRuntime {
    /// The engine of `library`, or of the one that [`find_library`] finds.
    ///
    /// A process can load one library only.
    /// # Errors
    /// [`EngineError::NotFound`] if there is none or it cannot be loaded, with what to install.
    pub fn open(library: Option<&Path>, threads: usize) -> Result<Self, EngineError> {
        let library = find_library(library)?;
        let mut loaded = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
        let environment = match &*loaded {
            Some((path, environment)) if *path == library => environment.clone(),
            Some((path, _)) => {
                let (path, other) = (path.display(), library.display());
                return Err(EngineError::NotFound(format!("{path} is loaded already, {other} cannot be as well")));
            }
            None => {
                let environment = load_library(&library)?;
                *loaded = Some((library.clone(), environment.clone()));
                environment
            }
        };
        let version = version(&library).unwrap_or_else(|| "unknown".into());
        Ok(Self { environment, device: Device::of_this_machine("onnxruntime", &version, threads) })
    }

    /// Writes the graph that the engine makes of a model, as ONNX with the engine's own operators.
    ///
    /// # Errors
    /// [`EngineError::Refused`] if the engine does not take the model.
    pub fn optimized(&self, model: &[u8]) -> Result<Vec<u8>, EngineError> {
        let refused = |error: ort::Error| EngineError::Refused(error.to_string());
        let folder = temporary()?;
        let path = folder.path().join("optimized.onnx");
        let options = self.options().map_err(refused)?;
        let mut options = options.with_optimized_model_path(&path).map_err(|error| refused(error.into()))?;
        options.commit_from_memory(model).map_err(refused)?;
        jobs::read_bounded(&path, jobs::MAX_MODEL_BYTES).map_err(|error| EngineError::Failed(error.to_string()))
    }

    fn options(&self) -> ort::Result<SessionBuilder> {
        let options = OrtSession::builder(&self.environment)?;
        Ok(options
            .with_intra_threads(self.device.threads)?
            .with_inter_threads(1)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_log_level(LogLevel::Error)?)
    }
}

fn load_library(library: &Path) -> Result<Environment, EngineError> {
    let unusable = |why: String| {
        EngineError::NotFound(format!("onnxruntime cannot be loaded from {}: {why}\n{ADVICE}", library.display()))
    };
    let builder = ort::init_from(library).map_err(|error| unusable(error.to_string()))?;
    let builder = builder.with_name("gram").with_telemetry(false);
    let environment = builder.build().map_err(|error| unusable(error.to_string()))?;
    environment.set_log_level(LogLevel::Error);
    Ok(environment)
}

fn temporary() -> Result<tempfile::TempDir, EngineError> {
    tempfile::tempdir().map_err(|error| EngineError::Failed(format!("no temporary folder: {error}")))
}

impl Engine for OnnxRuntime {
    fn device(&self) -> &Device {
        &self.device
    }

    fn load<'a>(
        &'a self,
        model: &[u8],
        input: [usize; 3],
        profiling: Profiling,
    ) -> Result<Box<dyn Session + 'a>, EngineError> {
        let refused = |error: ort::Error| EngineError::Refused(error.to_string());
        let mut options = self.options().map_err(refused)?;
        let profile = if profiling == Profiling::On { Some(temporary()?) } else { None };
        if let Some(folder) = &profile {
            let prefix = folder.path().join("profile");
            options = options.with_profiling(prefix).map_err(|error| refused(error.into()))?;
        }
        let session = options.commit_from_memory(model).map_err(refused)?;
        let shape: Vec<usize> = std::iter::once(1).chain(input).collect();
        let [c, h, w] = input;
        let image = Tensor::from_array((shape, noise(c * h * w))).map_err(refused)?;
        Ok(Box::new(Loaded { session, image, profile }))
    }
}

struct Loaded {
    session: OrtSession,
    image: Tensor<f32>,
    /// Where the engine writes its profile.
    profile: Option<tempfile::TempDir>,
}

impl Session for Loaded {
    fn run(&mut self) -> Result<f64, EngineError> {
        let failed = |error: ort::Error| EngineError::Failed(error.to_string());
        let start = Instant::now();
        let outputs = self.session.run(ort::inputs![self.image.view()]).map_err(failed)?;
        let took = start.elapsed();
        drop(outputs);
        Ok(took.as_secs_f64() * 1e6)
    }

    fn output(&mut self) -> Result<Vec<f32>, EngineError> {
        let failed = |error: ort::Error| EngineError::Failed(error.to_string());
        let outputs = self.session.run(ort::inputs![self.image.view()]).map_err(failed)?;
        let output = outputs.values().next().ok_or_else(|| EngineError::Failed("the model has no output".into()))?;
        let (_, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
        Ok(values.to_vec())
    }

    fn into_node_runs(mut self: Box<Self>) -> Result<Vec<NodeRuns>, EngineError> {
        if self.profile.is_none() {
            return Err(EngineError::NoProfile("the session was loaded without".into()));
        }
        let path = self.session.end_profiling().map_err(|error| EngineError::NoProfile(error.to_string()))?;
        let bytes = jobs::read_bounded(Path::new(&path), jobs::MAX_MODEL_BYTES);
        profile::parse(&bytes.map_err(|error| EngineError::NoProfile(error.to_string()))?)
    }
}

const ADVICE: &str = "Install it with `pip install onnxruntime` into the active Python, or give the path of libonnxruntime (1.24 or newer, \
from https://github.com/microsoft/onnxruntime/releases) with --library or in ORT_DYLIB_PATH";

/// Path of onnxruntime's shared library: the given one, else the environment variable's, else that of the active Python's package
/// (its path is resolved through `python3`; for a package folder the library in it is taken).
///
/// # Errors
/// [`EngineError::NotFound`] with what to install.
pub fn find_library(given: Option<&Path>) -> Result<PathBuf, EngineError> {
    let variable = env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let named = given.map(|path| ("--library", path.to_owned())).or(variable.map(|path| (LIBRARY_VARIABLE, path)));
    if let Some((source, path)) = named {
        let missing = || EngineError::NotFound(format!("{source}: no onnxruntime at {}\n{ADVICE}", path.display()));
        let found = if path.is_dir() { library_in(&path) } else { path.is_file().then(|| path.clone()) };
        return found.and_then(|path| fs::canonicalize(path).ok()).ok_or_else(missing);
    }
    let package = ["python3", "python"].iter().find_map(|python| package_folder(python));
    let found = package.as_deref().and_then(library_in).and_then(|path| fs::canonicalize(path).ok());
    found.ok_or_else(|| EngineError::NotFound(format!("no onnxruntime was found\n{ADVICE}")))
}

/// Folder of the `onnxruntime` package of a Python; the package itself is not imported.
fn package_folder(python: &str) -> Option<PathBuf> {
    const ASK: &str = "import importlib.util as u; s = u.find_spec('onnxruntime'); print(list(s.submodule_search_locations)[0] if s else '')";
    let output = Command::new(python).args(["-c", ASK]).output().ok().filter(|output| output.status.success())?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    folder.is_dir().then_some(folder)
}

/// The shared library in a package's folder or in one that holds libraries.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let prefixed = name.starts_with("libonnxruntime.so") || name.starts_with("libonnxruntime.");
        (prefixed && (name.contains(".so") || name.contains(".dylib"))) || name == "onnxruntime.dll"
    };
    [folder.to_owned(), folder.join("capi"), folder.join("lib")].iter().find_map(|folder| {
        let mut found: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
        found.retain(is_library);
        found.sort();
        found.into_iter().next()
    })
}

/// `1.32.0` out of the build information or the library's name.
fn version(library: &Path) -> Option<String> {
    let in_name = library.file_name().and_then(|name| name.to_str()).and_then(version_in);
    in_name.or_else(|| version_in(ort::info()))
}

/// The first `A.B.C` in a text.
fn version_in(text: &str) -> Option<String> {
    let candidates = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_matches('.'));
    let is_version = |word: &&str| word.split('.').filter(|part| !part.is_empty()).count() == 3;
    candidates.into_iter().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_out_of_names() {
        assert_eq!(version_in("libonnxruntime.so.1.32.0").as_deref(), Some("1.32.0"));
        assert_eq!(
            version_in("ORT Build Info: git-branch=rel-1.19.0, git-commit-id=26250ae").as_deref(),
            Some("1.19.0")
        );
        assert_eq!(version_in("libonnxruntime.so"), None);
    }

    #[test]
    fn a_library_is_found_in_a_package() {
        let folder = tempfile::tempdir().unwrap();
        let capi = folder.path().join("capi");
        fs::create_dir(&capi).unwrap();
        fs::write(capi.join("_pybind_state.py"), "").unwrap();
        assert_eq!(library_in(folder.path()), None);
        fs::write(capi.join("libonnxruntime.so.1.32.0"), "").unwrap();
        assert_eq!(library_in(folder.path()), Some(capi.join("libonnxruntime.so.1.32.0")));
        let found = find_library(Some(folder.path())).unwrap();
        assert!(found.ends_with("capi/libonnxruntime.so.1.32.0"));
    }

    #[test]
    fn what_is_missing_is_said_with_advice() {
        let message = find_library(Some(Path::new("/no/such/library.so"))).unwrap_err().to_string();
        assert!(message.starts_with("--library: no onnxruntime at /no/such/library.so"), "{message}");
        assert!(message.contains("pip install onnxruntime"), "{message}");
    }
}
