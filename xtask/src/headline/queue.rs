//! Runs jobs: searches one after another, because each of them keeps all cores busy, and trainings side by side, one core each, because a
//! training of networks as small as these makes little of two.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::Options;
use super::plan::{DATASETS, Dataset, Job};
use super::record::{Record, commit};
use crate::pipeline::gram_binary;
use crate::shell::root;

/// Runs the jobs of a dataset that are wanted and have no record yet.
pub(super) fn run(options: &Options, dataset: &Dataset) -> Result<()> {
    let jobs = dataset.jobs();
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    anyhow::ensure!(names.len() == jobs.len(), "invariant: names of jobs are distinct");
    let wanted =
        |job: &&Job| options.only.is_empty() || options.only.iter().any(|word| job.name.contains(word.as_str()));
    let open: Vec<&Job> = jobs.iter().filter(wanted).filter(|job| !Record::is_there(job)).collect();
    let queue = Queue { options, dataset, n: open.len(), begun: AtomicUsize::new(0), committing: Mutex::new(()) };
    for phase in open.chunk_by(|a, b| a.is_search() == b.is_search()) {
        let n = if phase[0].is_search() { 1 } else { options.jobs.min(phase.len()) };
        queue.side_by_side(phase, n)?;
    }
    Ok(())
}

/// Runs the job with this name, whether or not it has a record.
pub(super) fn run_one(options: &Options, name: &str) -> Result<()> {
    for dataset in &DATASETS {
        if let Some(job) = dataset.jobs().iter().find(|job| job.name == name) {
            return record(options, dataset, job);
        }
    }
    Err(crate::shell::usage(format!("there is no job `{name}`")))
}

fn record(options: &Options, dataset: &Dataset, job: &Job) -> Result<()> {
    let data = options.data.join(dataset.folder);
    anyhow::ensure!(data.is_dir(), "{}: no such folder; say where the data is with --data DIR", data.display());
    job.run(&gram_binary(), &data, &options.output)?.save()
}

struct Queue<'a> {
    options: &'a Options,
    dataset: &'a Dataset,
    /// Jobs in all.
    n: usize,
    begun: AtomicUsize,
    committing: Mutex<()>,
}

impl Queue<'_> {
    /// Takes the jobs in their order, `n` at a time; after one that fails no more are taken.
    fn side_by_side(&self, jobs: &[&Job], n: usize) -> Result<()> {
        let left = Mutex::new(jobs.iter());
        let next = || left.lock().ok()?.next().copied();
        let work = || -> Result<()> {
            while let Some(job) = next() {
                let ended = if n == 1 { self.here(job) } else { self.in_a_process(job) };
                if ended.is_err() {
                    while next().is_some() {}
                }
                ended.and_then(|()| self.keep(job))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..n).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
        })
    }

    fn here(&self, job: &Job) -> Result<()> {
        self.announce(job, "");
        record(self.options, self.dataset, job)
    }

    /// In a process of its own, whose processor time is the job's, on one thread; what it prints goes to a file.
    fn in_a_process(&self, job: &Job) -> Result<()> {
        let log = root().join(&self.options.output).join(format!("{}.log", job.name));
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        self.announce(job, &format!(", see {}", log.display()));
        let printed = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let status = Command::new(std::env::current_exe()?)
            .args(["pipeline", "headline", "--job", &job.name, "--data"])
            .arg(&self.options.data)
            .arg("--output")
            .arg(&self.options.output)
            .env("RAYON_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(printed)
            .status()
            .with_context(|| format!("starting {}", job.name))?;
        anyhow::ensure!(status.success(), "{} failed; {} says why", job.name, log.display());
        Ok(())
    }

    /// Commits the record where that is wanted, one at a time: git locks its index.
    fn keep(&self, job: &Job) -> Result<()> {
        let _one_at_a_time = self.committing.lock();
        if self.options.commit { commit(job) } else { Ok(()) }
    }

    fn announce(&self, job: &Job, more: &str) {
        let begun = 1 + self.begun.fetch_add(1, Ordering::Relaxed);
        eprintln!("\n{}: job {begun} of {} that are left: {}{more}", self.dataset.name, self.n, job.name);
    }
}
