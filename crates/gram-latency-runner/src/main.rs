//! `gram-latency-runner FOLDER [--library PATH]`: measures a job folder on the device that it runs on.
#![allow(clippy::print_stderr, reason = "a program says what it does")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use gram_latency_runner::{FolderError, JobError, JobFile, OnnxRuntime, Progress, RunError, measure_folder};

const USAGE: &str = "usage: gram-latency-runner FOLDER [--library PATH]

Measures the models that FOLDER/jobs.json lists and appends what it finds to FOLDER/results.jsonl; run again, it goes on where it
stopped. PATH is onnxruntime's shared library; without it ORT_DYLIB_PATH and the active Python's package are tried.

Exit codes: 0 everything is measured; 2 usage, or no engine was found; 4 bad files; 5 the device is too noisy or the engine failed.";

struct Arguments {
    folder: PathBuf,
    library: Option<PathBuf>,
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
    match arguments {
        [folder] if !folder.starts_with('-') => Some(Arguments { folder: folder.into(), library: None }),
        [folder, option, library] if option == "--library" && !folder.starts_with('-') => {
            Some(Arguments { folder: folder.into(), library: Some(library.into()) })
        }
        _ => None,
    }
}

fn run(arguments: &Arguments) -> Result<(), (u8, String)> {
    let jobs = JobFile::open(&arguments.folder).map_err(|error: JobError| (4, error.to_string()))?;
    let engine = OnnxRuntime::open(arguments.library.as_deref(), jobs.plan.threads);
    let engine = engine.map_err(|error| (2, error.to_string()))?;
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
    match measure_folder(&engine, &arguments.folder, &mut progress) {
        Ok(_) => Ok(()),
        Err(error) => {
            let code = match &error {
                FolderError::Jobs(_) | FolderError::Journal(_) | FolderError::Run(RunError::Host(_)) => 4,
                _ => 5,
            };
            Err((code, error.to_string()))
        }
    }
}
