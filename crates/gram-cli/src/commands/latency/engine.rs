//! The engine of this machine, and measuring with it while progress is shown.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gram_latency::profile::Prepared;
use gram_latency::{Layout, engine_layout, measure_here};
use gram_latency_runner::{Device, Engine, EngineError, Record};

use super::place::{EngineArgs, EngineKind, Place, transport};
use super::{engine_failure, measure_failure, remote_failure};
use crate::failure::Result;
use crate::progress::Progress;
use crate::{interrupt, output};

type Opened = std::result::Result<Box<dyn Engine>, EngineError>;

/// A device that can measure.
pub(crate) enum Bench {
    Here { engine: Box<dyn Engine>, stop: &'static AtomicBool },
    There { transport: Box<dyn gram_latency::remote::Transport>, device: Device, layout: Layout },
}

impl Bench {
    /// Reaches the device; `work` is where files of remote jobs go.
    pub(crate) fn open(place: &Place, args: &EngineArgs, work: &Path) -> Result<Self> {
        if let Some(transport) = transport(place, args)? {
            output::note(format_args!("asking {} for its engine", transport.describe()));
            let asked = gram_latency::remote::layout_there(transport.as_ref(), args.threads, work);
            let (device, layout) = asked.map_err(remote_failure)?;
            return Ok(Self::There { transport, device, layout });
        }
        let engine = open_engine(args)?;
        Ok(Self::Here { engine, stop: interrupt::flag()? })
    }

    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Here { engine, .. } => engine.device(),
            Self::There { device, .. } => device,
        }
    }

    /// What blocks the engine works in; only kernels depend on it.
    pub(crate) fn layout(&self) -> Result<Layout> {
        match self {
            Self::Here { engine, .. } => engine_layout(engine.as_ref()).map_err(engine_failure),
            Self::There { layout, .. } => Ok(*layout),
        }
    }

    /// Measures; here with `journal`, there with a job folder inside `work`.
    pub(crate) fn measure(&self, prepared: &Prepared, journal: Option<&Path>, work: &Path) -> Result<Vec<Record>> {
        match self {
            Self::Here { engine, stop } => measure(engine.as_ref(), prepared, journal, stop),
            Self::There { transport, .. } => {
                let folder = work.join("jobs");
                let measured = gram_latency::remote::measure_there(transport.as_ref(), prepared, &folder);
                measured.map(|measured| measured.records).map_err(remote_failure)
            }
        }
    }
}

fn open_engine(args: &EngineArgs) -> Result<Box<dyn Engine>> {
    match args.engine {
        EngineKind::Onnxruntime => onnxruntime(args),
        EngineKind::Tract => tract(args),
    }
    .map_err(engine_failure)
}

#[cfg(feature = "onnxruntime")]
fn onnxruntime(args: &EngineArgs) -> Opened {
    Ok(Box::new(gram_latency_runner::OnnxRuntime::open(args.library.as_deref(), args.threads)?))
}

#[cfg(not(feature = "onnxruntime"))]
fn onnxruntime(_: &EngineArgs) -> Opened {
    Err(not_built("onnxruntime"))
}

#[cfg(feature = "tract")]
fn tract(args: &EngineArgs) -> Opened {
    Ok(Box::new(gram_latency_runner::Tract::open(args.threads)?))
}

#[cfg(not(feature = "tract"))]
fn tract(_: &EngineArgs) -> Opened {
    Err(not_built("tract"))
}

#[cfg(not(all(feature = "onnxruntime", feature = "tract")))]
fn not_built(engine: &str) -> EngineError {
    EngineError::NotFound(format!("this gram was built without {engine}; build it with `--features {engine}`"))
}

fn measure(engine: &dyn Engine, prepared: &Prepared, journal: Option<&Path>, stop: &AtomicBool) -> Result<Vec<Record>> {
    let started = Instant::now();
    let mut bar: Option<Progress> = None;
    let mut show = |progress: gram_latency_runner::Progress<'_>| {
        let before = progress.done.saturating_sub(1);
        let bar = bar.get_or_insert_with(|| Progress::new("measured", progress.total, before, started));
        bar.step(progress.done, progress.message);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    measure_here(engine, prepared, journal, &mut show).map_err(measure_failure)
}
