//! Devices that are not this machine, without one: a folder stands for the device, a made-up engine for its own.

use std::cell::{Cell, RefCell};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gram_ir::Shape;
use gram_latency::FakeEngine;
use gram_latency::Layout;
use gram_latency::family::{Family, FamilyKind};
use gram_latency::profile::{Prepared, ProfileConfig};
use gram_latency::remote::{RemoteError, Transport, TransportError, layout_there, measure_there};
use gram_latency_runner::jobs::RESULTS_FILE;
use gram_latency_runner::{Ended, Plan, measure_folder};

/// A device in a folder, which may disappear after a number of measurements.
struct FakeDevice {
    engine: FakeEngine,
    root: PathBuf,
    /// Measurements until it disappears; none: it stays.
    lives: Cell<Option<usize>>,
    /// Whether its results can be fetched when it has disappeared.
    answers_afterwards: bool,
    log: RefCell<Vec<&'static str>>,
}

impl FakeDevice {
    fn new(root: &Path, lives: Option<usize>) -> Self {
        let engine = FakeEngine::new("board", 0.1, 4);
        Self {
            engine,
            root: root.join("device"),
            lives: Cell::new(lives),
            answers_afterwards: true,
            log: RefCell::default(),
        }
    }

    fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Transport for FakeDevice {
    fn describe(&self) -> String {
        "board".into()
    }

    fn send(&self, folder: &Path) -> Result<(), TransportError> {
        self.log.borrow_mut().push("send");
        let _ = fs::remove_dir_all(self.jobs());
        copy_folder(folder, &self.jobs());
        Ok(())
    }

    fn measure(&self) -> Result<(), TransportError> {
        self.log.borrow_mut().push("measure");
        let lost = || TransportError { step: "measuring there".into(), message: "connection reset".into() };
        let mut left = self.lives.get().unwrap_or(usize::MAX);
        let mut count = |_: gram_latency_runner::Progress<'_>| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match measure_folder(&self.engine, &self.jobs(), &mut count).unwrap() {
            Ended::Complete => Ok(()),
            Ended::Stopped => Err(lost()),
        }
    }

    fn fetch(&self, file: &Path) -> Result<bool, TransportError> {
        self.log.borrow_mut().push("fetch");
        if self.lives.get().is_some() && !self.answers_afterwards {
            return Err(TransportError { step: "fetching the results".into(), message: "no route to host".into() });
        }
        let results = self.jobs().join(RESULTS_FILE);
        Ok(results.exists() && fs::copy(results, file).is_ok())
    }
}

fn prepared(layout: Layout) -> Prepared {
    let chain = Family { name: "chain".into(), kind: FamilyKind::Chain, input: Shape::chw(3, 32, 32), num_classes: 10 };
    let config = ProfileConfig {
        networks: 8,
        kernel_networks: 0,
        random_kernels: 0,
        kernel_rounds: 1,
        network_rounds: 1,
        plan: Plan { runs: 3, warmups: 0, pause_ms: 0, ..Plan::default() },
        ..ProfileConfig::new(vec![chain])
    };
    Prepared::new(&config, layout).unwrap()
}

#[test]
fn a_device_is_asked_for_its_layout_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut device = FakeDevice::new(folder.path(), None);
    device.engine.layout = Layout::PLAIN;
    let work = folder.path().join("work");
    let (found, layout) = layout_there(&device, 1, &work).unwrap();
    assert_eq!((&found, layout), (&device.engine.device, Layout::PLAIN));
    let prepared = prepared(layout);
    let measured = measure_there(&device, &prepared, &work.join("jobs")).unwrap();
    assert_eq!(measured.records.len(), prepared.jobs.measurements().count());
    assert!(prepared.device_file(&measured.device, &measured.records).unwrap().kernels.len() > 50);
    // All is here: the device is not bothered again.
    let calls = device.log.borrow().len();
    assert_eq!(measure_there(&device, &prepared, &work.join("jobs")).unwrap(), measured);
    assert_eq!(device.log.borrow().len(), calls);
}

#[test]
fn a_device_that_disappears_costs_only_what_it_had_not_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let prepared = prepared(Layout::blocked(16));
    let total = prepared.jobs.measurements().count();
    let undisturbed = FakeDevice::new(&folder.path().join("other"), None);
    let expected = measure_there(&undisturbed, &prepared, &folder.path().join("other-work")).unwrap();

    let device = FakeDevice::new(folder.path(), Some(30));
    let error = measure_there(&device, &prepared, &work).unwrap_err();
    let RemoteError::Gone { n_kept: 24, .. } = error else { panic!("{error}") };
    assert!(error.to_string().contains("connection reset; 24 measurements are kept"), "{error}");

    // A board that lost its memory is sent what is known, and goes on behind it.
    fs::remove_dir_all(&device.root).unwrap();
    device.lives.set(Some(40));
    let error = measure_there(&device, &prepared, &work).unwrap_err();
    assert!(matches!(error, RemoteError::Gone { n_kept: 60, .. }), "{error}");

    device.lives.set(None);
    let measured = measure_there(&device, &prepared, &work).unwrap();
    assert_eq!((measured.records.len(), &measured), (total, &expected));
}

#[test]
fn a_device_that_cannot_be_asked_afterwards_costs_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let prepared = prepared(Layout::blocked(16));
    let mut device = FakeDevice::new(folder.path(), Some(30));
    assert!(matches!(measure_there(&device, &prepared, &work), Err(RemoteError::Gone { n_kept: 24, .. })));
    device.answers_afterwards = false;
    assert!(matches!(measure_there(&device, &prepared, &work), Err(RemoteError::Gone { n_kept: 24, .. })));
    device.lives.set(None);
    assert!(measure_there(&device, &prepared, &work).is_ok());
}

#[test]
fn results_of_other_jobs_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let device = FakeDevice::new(folder.path(), None);
    measure_there(&device, &prepared(Layout::PLAIN), &work).unwrap();
    // Another list in the same folder: what was there is measured anew.
    let other = prepared(Layout::blocked(16));
    let measured = measure_there(&device, &other, &work).unwrap();
    assert_eq!(measured.records.len(), other.jobs.measurements().count());
    assert_eq!(device.log.borrow().iter().filter(|step| **step == "measure").count(), 2);
    // A file that is damaged in the middle is named, not measured over.
    let results = work.join(RESULTS_FILE);
    let text = fs::read_to_string(&results).unwrap();
    fs::write(&results, text.replacen("\"round\"", "\"rnd\"", 1)).unwrap();
    let error = measure_there(&device, &other, &work).unwrap_err().to_string();
    assert!(error.contains("results.jsonl, line 2"), "{error}");
}
