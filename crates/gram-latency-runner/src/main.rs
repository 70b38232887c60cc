//! `gram-latency-runner FOLDER [--library PATH] [--outputs FILE]`: measures a job folder on the device that it runs on.
#![allow(clippy::print_stderr, reason = "a program says what it does")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gram_latency_runner::{FolderError, JobError, JobFile, OnnxRuntime, Outputs, Progress, RunError, measure_folder};

const USAGE: &str = "usage: gram-latency-runner FOLDER [--library PATH] [--outputs FILE]

Measures the models that FOLDER/jobs.json lists and appends what it finds to FOLDER/results.jsonl; run again, it goes on where it
stopped. PATH is onnxruntime's shared library; without it ORT_DYLIB_PATH and the active Python's package are tried.

With --outputs nothing is measured: each model is run once, always on the same image, and what comes out is written to FILE as JSON, to
hold one device against another.

Exit codes: 0 everything is done; 2 usage, or no engine was found; 4 bad files; 5 the device is too noisy or the engine failed.";

struct Arguments {
    folder: PathBuf,
    library: Option<PathBuf>,
    outputs: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        eprintln!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

fn parse(arguments: &[String]) -> Option<Arguments> {
    let (folder, options) = arguments.split_first().filter(|(folder, _)| !folder.starts_with('-'))?;
    let mut parsed = Arguments { folder: folder.into(), library: None, outputs: None };
    for option in options.chunks(2) {
        let [name, value] = option else { return None };
        let place = match name.as_str() {
            "--library" => &mut parsed.library,
            "--outputs" => &mut parsed.outputs,
            _ => return None,
        };
        if place.replace(value.into()).is_some() {
            return None;
        }
    }
    Some(parsed)
}

fn run(arguments: &Arguments) -> Result<(), (u8, String)> {
    let jobs = JobFile::open(&arguments.folder).map_err(|error: JobError| (4, error.to_string()))?;
    let engine = OnnxRuntime::open(arguments.library.as_deref(), jobs.plan.threads);
    let engine = engine.map_err(|error| (2, error.to_string()))?;
    let done = match &arguments.outputs {
        Some(file) => write_outputs(&engine, &arguments.folder, file),
        None => measure(&engine, &arguments.folder),
    };
    done.map_err(|error| (code_of(&error), error.to_string()))
}

fn write_outputs(engine: &OnnxRuntime, folder: &Path, file: &Path) -> Result<(), FolderError> {
    Ok(Outputs::of_folder(engine, folder)?.write(file)?)
}

fn measure(engine: &OnnxRuntime, folder: &Path) -> Result<(), FolderError> {
    let mut last = usize::MAX;
    let mut progress = |progress: Progress<'_>| {
        // A line for every hundredth, so that a slow connection keeps up.
        let percent = 100 * progress.done / progress.total.max(1);
        if percent != last || progress.message.contains("drifted") {
            last = percent;
            eprintln!("{}/{}  {}", progress.done, progress.total, progress.message);
        }
        ControlFlow::Continue(())
    };
    measure_folder(engine, folder, &mut progress).map(|_| ())
}

fn code_of(error: &FolderError) -> u8 {
    match error {
        FolderError::Jobs(_) | FolderError::Journal(_) | FolderError::Run(RunError::Host(_)) => 4,
        _ => 5,
    }
}
