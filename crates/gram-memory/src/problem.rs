//! One part of a graph on its own: what its steps read and write, and what is alive around them.

use crate::live::Tracker;
use crate::{BufferId, MemoryGraph};

/// A run of consecutive steps; ids of steps and buffers are local.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    /// Bytes that are alive before the first step.
    pub(crate) carry: u64,
    pub(crate) buffers: Vec<LocalBuffer>,
    pub(crate) steps: Vec<LocalStep>,
}

/// A buffer that the part reads or writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LocalBuffer {
    pub(crate) bytes: u64,
    /// Steps of the part that read it, ascending.
    pub(crate) readers: Vec<u32>,
    /// Steps of the part that write it, ascending.
    pub(crate) writers: Vec<u32>,
    /// Whether it is alive before the part.
    pub(crate) started: bool,
    /// Whether it is alive behind the part.
    pub(crate) kept: bool,
}

/// A step of the part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LocalStep {
    /// Buffers that it reads, each once.
    pub(crate) reads: Vec<u32>,
    /// The buffer that it writes.
    pub(crate) writes: u32,
}

/// Local ids of buffers, kept between parts so that each part costs only what it touches.
pub(crate) struct LocalIds(Vec<Option<u32>>);

impl LocalIds {
    pub(crate) fn new(graph: &MemoryGraph) -> Self {
        Self(vec![None; graph.n_buffers()])
    }
}

impl Problem {
    /// The steps `first..end` of `graph`; `before` has executed all steps in front of them.
    pub(crate) fn new(graph: &MemoryGraph, [first, end]: [usize; 2], before: &Tracker<'_>, ids: &mut LocalIds) -> Self {
        let mut problem = Self { carry: before.live(), buffers: Vec::new(), steps: Vec::with_capacity(end - first) };
        let steps = &graph.steps()[first..end];
        for (i, step) in (0u32..).zip(steps) {
            let mut local = |buffer: BufferId| {
                *ids.0[buffer.index()].get_or_insert_with(|| {
                    problem.buffers.push(LocalBuffer::new(graph, buffer, end, before));
                    problem.buffers.len() as u32 - 1
                })
            };
            let reads: Vec<u32> = step.reads.iter().map(|&buffer| local(buffer)).collect();
            let writes = local(step.writes);
            reads.iter().for_each(|&buffer| problem.buffers[buffer as usize].readers.push(i));
            problem.buffers[writes as usize].writers.push(i);
            problem.steps.push(LocalStep { reads, writes });
        }
        for buffer in steps.iter().flat_map(|step| step.reads.iter().chain([&step.writes])) {
            ids.0[buffer.index()] = None;
        }
        problem
    }

    /// Number of steps.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The buffer that `step` writes.
    pub(crate) fn written(&self, step: usize) -> &LocalBuffer {
        &self.buffers[self.steps[step].writes as usize]
    }

    /// Buffers that `step` reads.
    pub(crate) fn read(&self, step: usize) -> impl Iterator<Item = &LocalBuffer> {
        self.steps[step].reads.iter().map(|&buffer| &self.buffers[buffer as usize])
    }
}

impl LocalBuffer {
    fn new(graph: &MemoryGraph, buffer: BufferId, end: usize, before: &Tracker<'_>) -> Self {
        let uses = [graph.readers(buffer.index()).last(), graph.writers(buffer.index()).last()];
        let used_behind = uses.into_iter().flatten().any(|&last| last as usize >= end);
        Self {
            bytes: graph.bytes(buffer),
            readers: Vec::new(),
            writers: Vec::new(),
            started: before.started(buffer),
            kept: used_behind || graph.is_output(buffer),
        }
    }
}
