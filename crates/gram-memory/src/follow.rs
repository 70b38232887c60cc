//! Executing the steps of one part in some order.

use crate::problem::Problem;

/// What has been executed of a part, and what is alive.
#[derive(Clone)]
pub(crate) struct Follower<'a> {
    problem: &'a Problem,
    started: Vec<bool>,
    /// Reads and writes that are still to come, per buffer.
    remaining: Vec<u32>,
    /// Writes that are still to come, per buffer.
    unwritten: Vec<u32>,
    /// Incomplete buffers that it reads, per step.
    waiting: Vec<u32>,
    /// Steps that can be executed, ascending.
    ready: Vec<u32>,
    order: Vec<u32>,
    live: u64,
    peak: u64,
}

/// What executing a step would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Move {
    /// Bytes that are alive while it runs.
    pub(crate) during: u64,
    /// Bytes that are alive afterwards.
    pub(crate) after: u64,
    pub(crate) step: u32,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        let buffers = &problem.buffers;
        let unwritten: Vec<u32> = buffers.iter().map(|buffer| buffer.writers.len() as u32).collect();
        let waiting: Vec<u32> = problem
            .steps
            .iter()
            .map(|step| step.reads.iter().filter(|&&buffer| unwritten[buffer as usize] > 0).count() as u32)
            .collect();
        Self {
            problem,
            started: buffers.iter().map(|buffer| buffer.started).collect(),
            remaining: buffers.iter().map(|buffer| (buffer.readers.len() + buffer.writers.len()) as u32).collect(),
            unwritten,
            ready: (0..problem.len() as u32).filter(|&step| waiting[step as usize] == 0).collect(),
            waiting,
            order: Vec::with_capacity(problem.len()),
            live: problem.carry,
            peak: problem.carry,
        }
    }

    /// What executing the ready step `step` would do now.
    fn look(&self, step: u32) -> Move {
        let LocalStepRef { reads, writes } = self.step(step);
        let frees = |buffer: u32| self.remaining[buffer as usize] == 1 && !self.problem.buffers[buffer as usize].kept;
        let bytes = |buffer: u32| self.problem.buffers[buffer as usize].bytes;
        let during = if self.started[writes as usize] { self.live } else { self.live + bytes(writes) };
        let freed: u64 = reads.iter().copied().chain([writes]).filter(|&buffer| frees(buffer)).map(bytes).sum();
        Move { during, after: during - freed, step }
    }

    /// Executes a ready step.
    pub(crate) fn execute(&mut self, step: u32) {
        let Move { during, after, .. } = self.look(step);
        let problem = self.problem;
        let LocalStepRef { reads, writes } = self.step(step);
        reads.iter().for_each(|&buffer| self.remaining[buffer as usize] -= 1);
        let written = writes as usize;
        self.started[written] = true;
        self.remaining[written] -= 1;
        self.unwritten[written] -= 1;
        self.live = after;
        self.peak = self.peak.max(during);
        self.order.push(step);
        self.ready.retain(|&other| other != step);
        if self.unwritten[written] == 0 {
            for &reader in &problem.buffers[written].readers {
                self.waiting[reader as usize] -= 1;
                if self.waiting[reader as usize] == 0 {
                    self.ready.push(reader);
                }
            }
            self.ready.sort_unstable();
        }
    }

    /// What each ready step would do, by step.
    pub(crate) fn moves(&self) -> impl Iterator<Item = Move> {
        self.ready.iter().map(|&step| self.look(step))
    }

    /// Most bytes so far.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Bytes that are alive now.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// The steps that were executed, and the most bytes meanwhile.
    pub(crate) fn finish(self) -> (Vec<u32>, u64) {
        (self.order, self.peak)
    }

    fn step(&self, step: u32) -> LocalStepRef<'a> {
        let step = &self.problem.steps[step as usize];
        LocalStepRef { reads: &step.reads, writes: step.writes }
    }
}

#[derive(Clone, Copy)]
struct LocalStepRef<'a> {
    reads: &'a [u32],
    writes: u32,
}

/// The most bytes that are alive at one time in an order of the part.
pub(crate) fn peak_of(problem: &Problem, order: impl IntoIterator<Item = u32>) -> u64 {
    let mut follower = Follower::new(problem);
    order.into_iter().for_each(|step| follower.execute(step));
    follower.peak
}
