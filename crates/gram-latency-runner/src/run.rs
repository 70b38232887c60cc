//! The measuring loop: blocks of jobs between two looks at the reference.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use crate::engine::{Engine, EngineError, Profiling, Session};
use crate::jobs::{Job, JobFile, Plan};
use crate::journal::{NodeTime, Outcome, Record, References, Times};
use crate::stats::{Spread, lower_half_mean, median};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Measurements that are done, those of earlier runs among them.
    pub done: usize,
    /// Measurements in all.
    pub total: usize,
    /// The job that was measured last, or why a block is measured again.
    pub message: &'a str,
}

/// What a run ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything is measured.
    Complete,
    /// It was asked to stop; the same run can go on.
    Stopped,
}

/// Why a run ended early. What was measured before was handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E: std::error::Error + 'static> {
    /// The machine does other things at the same time.
    #[error(
        "too noisy to measure: {what}, {tries} times in a row. Stop other programs, fix the processor's frequency (governor \
         `performance`), plug in and cool the device, or pin the run to a core; then run the same command again"
    )]
    Noisy {
        /// What varied, by how much.
        what: String,
        /// How often it was tried.
        tries: usize,
    },
    /// The reference cannot be measured.
    #[error("measuring the reference: {0}")]
    Reference(EngineError),
    /// An engine that failed on a job.
    #[error("job `{id}`: {source}")]
    Engine {
        /// The job.
        id: String,
        /// What the engine said.
        source: EngineError,
    },
    /// A model could not be had, or a record not kept.
    #[error(transparent)]
    Host(E),
}

/// Where models come from and records go.
pub trait Host {
    /// What can go wrong there.
    type Error: std::error::Error + 'static;

    /// The ONNX bytes of a job.
    ///
    /// # Errors
    /// The host's own.
    fn model(&mut self, job: &Job) -> Result<Vec<u8>, Self::Error>;

    /// Keeps the records of a block.
    ///
    /// # Errors
    /// The host's own.
    fn keep(&mut self, records: Vec<Record>) -> Result<(), Self::Error>;

    /// Called after every measurement; may ask to stop.
    fn progress(&mut self, progress: Progress<'_>) -> ControlFlow<()>;
}

/// Measures what `file` asks for and is not `done` yet (job id and round).
///
/// Blocks of jobs stand between two measurements of the reference. A block over which it changes by more than the plan allows is dropped
/// and measured again; so is a job whose passes vary too much.
/// # Errors
/// [`RunError`]; records of whole blocks were kept. A model that the engine refuses is no error but a record.
pub fn run<H: Host>(
    engine: &dyn Engine,
    file: &JobFile,
    done: &BTreeSet<(String, u32)>,
    host: &mut H,
) -> Result<Ended, RunError<H::Error>> {
    let total = file.measurements().count();
    let pending: Vec<(&Job, u32)> =
        file.measurements().filter(|(job, round)| !done.contains(&(job.id.clone(), *round))).collect();
    let mut progress = Counter { done: total - pending.len(), total };
    if pending.is_empty() {
        return Ok(Ended::Complete);
    }
    let mut reference =
        |job| Ok(Reference { engine, job, model: host.model(job).map_err(RunError::Host)?, plan: &file.plan });
    let small = reference(&file.reference)?;
    let large = file.large_reference.as_ref().map(reference).transpose()?;
    let references = ReferenceNetworks { small, large };
    let mut before = references.measure().map_err(RunError::Reference)?;
    for block in pending.chunks(file.plan.block) {
        let mut tries = 0;
        loop {
            let measured = measure_block(engine, &file.plan, block, host, progress)?;
            let after = references.measure().map_err(RunError::Reference)?;
            let drift = (after.us / before.us - 1.0).abs();
            let around = before.mean(after);
            before = after;
            let Block::Measured(mut records) = measured else { return Ok(Ended::Stopped) };
            if drift <= file.plan.max_drift {
                records.iter_mut().for_each(|record| record.set_reference(around));
                host.keep(records).map_err(RunError::Host)?;
                break;
            }
            tries += 1;
            let what = format!("the reference drifted by {:.1} %", 100.0 * drift);
            if tries > file.plan.max_repeats {
                return Err(RunError::Noisy { what, tries });
            }
            if host.progress(progress.at(&what)).is_break() {
                return Ok(Ended::Stopped);
            }
            pause(&file.plan, tries);
        }
        progress.done += block.len();
    }
    Ok(Ended::Complete)
}

#[derive(Clone, Copy)]
struct Counter {
    done: usize,
    total: usize,
}

impl Counter {
    fn at(self, message: &str) -> Progress<'_> {
        Progress { done: self.done, total: self.total, message }
    }
}

impl Record {
    fn set_reference(&mut self, around: References) {
        if let Outcome::Measured(times) = &mut self.outcome {
            (times.reference_us, times.large_reference_us) = (around.us, around.large_us);
        }
    }
}

struct ReferenceNetworks<'a> {
    small: Reference<'a>,
    large: Option<Reference<'a>>,
}

impl ReferenceNetworks<'_> {
    fn measure(&self) -> Result<References, EngineError> {
        let Plan { warmups, runs, .. } = *self.small.plan;
        let us = lower_half_mean(&self.small.times(warmups, runs)?);
        // It stands for median passes, and takes longer.
        let large = |large: &Reference<'_>| Ok(median(&large.times(warmups.div_ceil(2), runs.div_ceil(2))?));
        Ok(References { us, large_us: self.large.as_ref().map(large).transpose()? })
    }
}

impl References {
    fn mean(self, other: Self) -> Self {
        let mean = |a: f64, b: f64| 0.5 * (a + b);
        Self { us: mean(self.us, other.us), large_us: self.large_us.zip(other.large_us).map(|(a, b)| mean(a, b)) }
    }
}

struct Reference<'a> {
    engine: &'a dyn Engine,
    job: &'a Job,
    model: Vec<u8>,
    plan: &'a Plan,
}

impl Reference<'_> {
    /// Loads the reference anew: where its buffers lie in memory is worth a percent or two, and should not be the same for a whole run.
    fn times(&self, warmups: usize, runs: usize) -> Result<Vec<f64>, EngineError> {
        let mut session = self.engine.load(&self.model, self.job.input, Profiling::Off)?;
        for _ in 0..warmups {
            session.run()?;
        }
        (0..runs).map(|_| session.run()).collect()
    }
}

enum Block {
    Measured(Vec<Record>),
    Stopped,
}

fn measure_block<H: Host>(
    engine: &dyn Engine,
    plan: &Plan,
    block: &[(&Job, u32)],
    host: &mut H,
    mut progress: Counter,
) -> Result<Block, RunError<H::Error>> {
    let mut records = Vec::with_capacity(block.len());
    for &(job, round) in block {
        let model = host.model(job).map_err(RunError::Host)?;
        let outcome = measure_quietly(engine, plan, job, &model)?;
        records.push(Record { id: job.id.clone(), round, outcome });
        progress.done += 1;
        if host.progress(progress.at(&job.id)).is_break() {
            return Ok(Block::Stopped);
        }
    }
    Ok(Block::Measured(records))
}

/// Measures a job until its passes agree.
fn measure_quietly<E: std::error::Error>(
    engine: &dyn Engine,
    plan: &Plan,
    job: &Job,
    model: &[u8],
) -> Result<Outcome, RunError<E>> {
    let mut spread = f64::NAN;
    for repeats in 0..=plan.max_repeats {
        pause(plan, repeats);
        match measure(engine, plan, job, model) {
            Ok(times) => {
                spread = times.p90_us / times.min_us;
                if spread <= plan.max_spread {
                    return Ok(Outcome::Measured(times));
                }
            }
            Err(EngineError::Refused(reason)) => return Ok(Outcome::Refused(reason)),
            Err(source) => return Err(RunError::Engine { id: job.id.clone(), source }),
        }
    }
    let what = format!("the slowest tenth of the passes of `{}` took {spread:.2} times the fastest", job.id);
    Err(RunError::Noisy { what, tries: plan.max_repeats + 1 })
}

fn pause(plan: &Plan, repeats: usize) {
    thread::sleep(Duration::from_millis(plan.pause_ms.saturating_mul(repeats as u64)));
}

fn measure(engine: &dyn Engine, plan: &Plan, job: &Job, model: &[u8]) -> Result<Times, EngineError> {
    let profiling = if job.profiled { Profiling::On } else { Profiling::Off };
    let mut session = engine.load(model, job.input, profiling)?;
    for _ in 0..plan.warmups {
        session.run()?;
    }
    let times: Vec<f64> = (0..plan.runs).map(|_| session.run()).collect::<Result<_, _>>()?;
    let nodes = if job.profiled { node_times(session, plan.runs)? } else { Vec::new() };
    let spread = Spread::of(&times).ok_or_else(|| EngineError::Failed("no passes were measured".into()))?;
    let Spread { min, p50, p90 } = spread;
    Ok(Times {
        n: times.len(),
        min_us: min,
        p50_us: p50,
        p90_us: p90,
        reference_us: 0.0,
        large_reference_us: None,
        nodes,
    })
}

fn node_times(session: Box<dyn Session + '_>, runs: usize) -> Result<Vec<NodeTime>, EngineError> {
    let of_node = |node: crate::NodeRuns| {
        // Warm-ups come first.
        let us = lower_half_mean(&node.us[node.us.len().saturating_sub(runs)..]);
        NodeTime { name: node.name, op: node.op, output: node.output, us }
    };
    Ok(session.into_node_runs()?.into_iter().filter(|node| !node.us.is_empty()).map(of_node).collect())
}
