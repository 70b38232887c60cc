//! The runner built for ARM, in an emulator: what it computes, that it goes on where it was stopped, what it refuses. Never its times.
//!
//! Runs with `GRAM_ARM_RUNNER` (the runner built for aarch64), `GRAM_ARM_ONNXRUNTIME` (the engine's library for it) and `GRAM_QEMU` (the
//! command that runs it, with its arguments); `docs/latency.md` has the commands.

#![cfg(feature = "onnxruntime")]
#![allow(clippy::print_stderr, reason = "the test says what it found, or why it is skipped")]

mod support;

use std::cell::{Cell, RefCell};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use gram_ir::{Network, Shape, preset, space_preset};
use gram_latency::Layout;
use gram_latency::family::{Family, FamilyKind};
use gram_latency::profile::{Prepared, ProfileConfig};
use gram_latency::remote::{RemoteError, Transport, TransportError, layout_there, measure_there};
use gram_latency_runner::jobs::RESULTS_FILE;
use gram_latency_runner::{Outcome, Outputs, Plan};

/// Largest difference between values of two machines, relative to the largest of them: sums are taken in other orders there.
const TOLERANCE: f64 = 1e-4;

/// An ARM machine that sees the files of this one.
struct Emulator {
    command: Vec<String>,
    library: PathBuf,
    folder: RefCell<PathBuf>,
    /// Lines of results after which it is killed.
    lives: Cell<Option<usize>>,
}

impl Emulator {
    /// None, with a word why, where it was not named.
    fn of_environment() -> Option<Self> {
        let [runner, library, emulator] = ["GRAM_ARM_RUNNER", "GRAM_ARM_ONNXRUNTIME", "GRAM_QEMU"].map(|name| {
            let value = env::var(name).ok().filter(|value| !value.is_empty());
            value.or_else(|| {
                eprintln!("skipped: {name} is not set");
                None
            })
        });
        let (runner, library, emulator) = (runner?, library?, emulator?);
        let command = emulator.split_whitespace().map(String::from).chain([runner]).collect();
        Some(Self { command, library: library.into(), folder: RefCell::default(), lives: Cell::new(None) })
    }

    fn runner(&self, folder: &Path, library: &Path) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg(folder).arg("--library").arg(library).stdin(Stdio::null());
        command
    }

    fn outputs(&self, folder: &Path) -> Outputs {
        let file = folder.join("outputs.json");
        let ran = self.runner(folder, &self.library).arg("--outputs").arg(&file).output().unwrap();
        assert!(ran.status.success(), "{}", said(&ran));
        Outputs::read(&file).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn n_lines(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

impl Transport for Emulator {
    fn describe(&self) -> String {
        "emulator".into()
    }

    fn send(&self, folder: &Path) -> Result<(), TransportError> {
        self.folder.replace(folder.into());
        Ok(())
    }

    fn measure(&self) -> Result<(), TransportError> {
        let folder = self.folder.borrow();
        let mut child = self.runner(&folder, &self.library).stderr(Stdio::piped()).spawn().unwrap();
        while let Some(lives) = self.lives.get()
            && child.try_wait().unwrap().is_none()
        {
            if n_lines(&folder.join(RESULTS_FILE)) >= lives {
                child.kill().unwrap();
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let ended = child.wait_with_output().unwrap();
        let failed =
            || TransportError { step: "emulating".into(), message: format!("{} {}", ended.status, said(&ended)) };
        if ended.status.success() { Ok(()) } else { Err(failed()) }
    }

    fn fetch(&self, file: &Path) -> Result<bool, TransportError> {
        let results = self.folder.borrow().join(RESULTS_FILE);
        Ok(results.exists() && fs::copy(results, file).is_ok())
    }
}

/// Takes any time for an answer: in an emulator they say nothing.
fn any_time() -> Plan {
    Plan { runs: 2, warmups: 0, block: 4, max_drift: 1e9, max_spread: 1e9, pause_ms: 0, ..Plan::default() }
}

fn small_families() -> Vec<Family> {
    let space = |name: &str| space_preset(name).unwrap();
    let small = Shape::chw(3, 32, 32);
    let family =
        |name: &str, kind: FamilyKind, input: Shape| Family { name: name.into(), kind, input, num_classes: 10 };
    vec![
        family("chain", FamilyKind::Chain, small),
        family("dag", FamilyKind::Mixed(space("swiftnet-vww")), Shape::chw(3, 48, 48)),
        family("swiftnet-small", FamilyKind::Space(space("swiftnet-small")), small),
    ]
}

/// Whole networks of every kind: presets as they are shipped, and two of each family.
fn networks() -> Vec<(String, Network)> {
    let presets = [
        ("swiftnet-vww", Some(Shape::chw(3, 64, 64))),
        ("mobilenet-v2-0.25-32", None),
        ("mobilenet-v3-small-minimalistic-0.25-32", None),
        ("dsconv-16", None),
        ("shrinkcnn-a", Some(Shape::chw(3, 64, 64))),
    ];
    let lowered =
        |(name, input): (&str, Option<Shape>)| (name.into(), preset(name, input, None).unwrap().lower().unwrap());
    let of_family =
        |family: Family| [0, 1].map(|index| (format!("{} {index}", family.name), family.network(11, index).unwrap()));
    presets.into_iter().map(lowered).chain(small_families().into_iter().flat_map(of_family)).collect()
}

fn whole_networks(plan: &Plan) -> Prepared {
    Prepared::of_networks(networks(), 1, plan, Layout::PLAIN).unwrap()
}

/// Holds what the ARM runner computes against this machine, job for job.
#[track_caller]
fn computes_the_same(emulator: &Emulator, folder: &Path) {
    let Some(engine) = support::onnxruntime() else { return };
    let (here, there) = (Outputs::of_folder(&engine, folder).unwrap(), emulator.outputs(folder));
    for (ours, theirs) in here.outputs.iter().zip(&there.outputs) {
        let difference = ours.difference(theirs).unwrap_or(f64::INFINITY);
        assert!(difference <= TOLERANCE, "{}: {difference:e}", ours.id);
    }
    let largest = here.difference(&there).unwrap();
    eprintln!("{} models, largest relative difference {largest:.1e}", here.outputs.len());
    eprintln!("here: {}\nthere: {}", here.device, there.device);
}

#[test]
fn whole_networks_are_computed_as_here_and_measured_to_the_end() {
    let Some(emulator) = Emulator::of_environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let prepared = whole_networks(&any_time());
    let measured = measure_there(&emulator, &prepared, folder.path()).unwrap();
    assert_eq!(measured.records.len(), prepared.jobs.jobs.len());
    assert!(measured.records.iter().all(|record| matches!(record.outcome, Outcome::Measured(_))));
    let device = &measured.device;
    assert_eq!((device.engine.as_str(), device.threads, device.dtype.as_str()), ("onnxruntime", 1, "f32"));
    assert!(device.engine_version.starts_with("1.") && !device.host.is_empty(), "{device}");
    computes_the_same(&emulator, folder.path());
}

#[test]
fn kernels_are_computed_as_here_and_found_in_the_profile_there() {
    let Some(emulator) = Emulator::of_environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    // The question for the layout is measured like anything else, and an emulator may be too noisy for that.
    let layout = match layout_there(&emulator, 1, folder.path()) {
        Ok((_, layout)) => layout,
        Err(RemoteError::Gone { source, .. }) if source.message.contains("too noisy") => {
            return eprintln!("skipped: {source}");
        }
        Err(error) => panic!("{error}"),
    };
    let config = ProfileConfig {
        networks: 1,
        kernel_networks: 2,
        random_kernels: 30,
        kernel_rounds: 1,
        network_rounds: 1,
        plan: any_time(),
        ..ProfileConfig::new(small_families())
    };
    let prepared = Prepared::new(&config, layout).unwrap();
    let jobs = folder.path().join("jobs");
    let measured = measure_there(&emulator, &prepared, &jobs).unwrap();
    let file = prepared.device_file(&measured.device, &measured.records).unwrap();
    let asked: Vec<&str> = prepared.jobs.jobs.iter().filter_map(|job| job.id.strip_prefix("kernel ")).collect();
    let found: Vec<String> = file.kernels.keys().map(ToString::to_string).collect();
    let missing: Vec<&&str> = asked.iter().filter(|kernel| !found.contains(&(**kernel).to_string())).collect();
    eprintln!("{layout:?}, {} of {} kernels found in the profile", found.len(), asked.len());
    computes_the_same(&emulator, &jobs);
    assert!(asked.len() > 60 && missing.is_empty(), "{missing:?}");
}

#[test]
fn a_run_that_was_killed_goes_on_behind_what_it_had_measured() {
    let Some(emulator) = Emulator::of_environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let prepared = whole_networks(&any_time());
    // The header and the first block.
    emulator.lives.set(Some(5));
    let error = measure_there(&emulator, &prepared, folder.path()).unwrap_err();
    let RemoteError::Gone { n_kept, .. } = error else { panic!("{error}") };
    assert!(n_kept >= 4 && n_kept < prepared.jobs.jobs.len(), "{n_kept} kept");
    let before = fs::read_to_string(folder.path().join(RESULTS_FILE)).unwrap();
    emulator.lives.set(None);
    let measured = measure_there(&emulator, &prepared, folder.path()).unwrap();
    assert_eq!(measured.records.len(), prepared.jobs.jobs.len());
    assert!(fs::read_to_string(folder.path().join(RESULTS_FILE)).unwrap().starts_with(&before));
}

#[test]
fn refusals_have_the_same_exit_codes_there() {
    let Some(emulator) = Emulator::of_environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let ends_with = |library: &Path, code: i32, words: &str| {
        let output = emulator.runner(folder.path(), library).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    };
    ends_with(&emulator.library, 4, "jobs.json");
    // No two passes take the same time to a billionth, so this plan is never content.
    let strict = Plan { max_spread: 1.0 + 1e-9, max_repeats: 0, runs: 20, ..any_time() };
    let error = measure_there(&emulator, &whole_networks(&strict), folder.path()).unwrap_err().to_string();
    assert!(error.contains("exit status: 5") && error.contains("too noisy to measure"), "{error}");
    ends_with(Path::new("/no/such/libonnxruntime.so"), 2, "pip install onnxruntime");
    // This machine's own library is none for an ARM processor.
    if let Ok(library) = gram_latency_runner::find_library(None) {
        ends_with(&library, 2, "cannot be loaded from");
    }
}
