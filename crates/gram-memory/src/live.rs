//! Following an order step by step: what is alive, and the peak.

use crate::{BufferId, MemoryError, MemoryGraph, StepId};

/// What is alive after some steps of a graph.
pub(crate) struct Tracker<'a> {
    graph: &'a MemoryGraph,
    started: Vec<bool>,
    /// Reads and writes that are still to come, per buffer.
    remaining: Vec<u32>,
    /// Writes that are still to come, per buffer.
    unwritten: Vec<u32>,
    live: u64,
}

impl<'a> Tracker<'a> {
    /// Nothing is executed; buffers that nobody writes are alive, unless nobody reads them either.
    pub(crate) fn new(graph: &'a MemoryGraph) -> Self {
        let n = graph.n_buffers();
        let count = |steps: &[u32]| steps.len() as u32;
        let mut tracker = Self {
            graph,
            started: (0..n).map(|b| graph.writers(b).is_empty()).collect(),
            remaining: (0..n).map(|b| count(graph.readers(b)) + count(graph.writers(b))).collect(),
            unwritten: (0..n).map(|b| count(graph.writers(b))).collect(),
            live: 0,
        };
        let stays =
            |b: &usize| tracker.started[*b] && (tracker.remaining[*b] > 0 || graph.is_output(BufferId(*b as u32)));
        tracker.live = (0..n).filter(stays).map(|b| graph.bytes(BufferId(b as u32))).sum();
        tracker
    }

    /// Bytes that are alive now, between two steps.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// Whether a step has begun to write `buffer`, or it was there from the start.
    pub(crate) fn started(&self, buffer: BufferId) -> bool {
        self.started[buffer.index()]
    }

    /// Whether everything that `step` reads is complete.
    fn is_ready(&self, step: StepId) -> bool {
        self.graph.steps()[step.index()].reads.iter().all(|buffer| self.unwritten[buffer.index()] == 0)
    }

    /// Executes `step` and gives the bytes that are alive meanwhile.
    pub(crate) fn execute(&mut self, step: StepId) -> u64 {
        let graph = self.graph;
        let step = &graph.steps()[step.index()];
        let written = step.writes.index();
        if !self.started[written] {
            self.started[written] = true;
            self.live += graph.bytes(step.writes);
        }
        self.unwritten[written] -= 1;
        let during = self.live;
        for &buffer in step.reads.iter().chain([&step.writes]) {
            let remaining = &mut self.remaining[buffer.index()];
            *remaining -= 1;
            if *remaining == 0 && !graph.is_output(buffer) {
                self.live -= graph.bytes(buffer);
            }
        }
        during
    }
}

impl MemoryGraph {
    /// Bytes of the buffers that nobody writes: what is alive before the first step.
    pub fn input_bytes(&self) -> u64 {
        let inputs = (0..self.n_buffers()).filter(|&b| self.writers(b).is_empty());
        inputs.map(|b| self.bytes(BufferId(b as u32))).sum()
    }

    /// For each step of `order` the bytes that are alive while it runs: what was alive before, and what it writes.
    ///
    /// # Errors
    /// [`MemoryError::NotAnOrder`] if a step is missing, stands twice or before what it needs.
    /// # Complexity
    /// One pass over steps and reads.
    /// # Source
    /// Ahn et al., [arXiv:2003.02369](https://arxiv.org/abs/2003.02369), section 3.1 (ALGORITHMS 5.1).
    pub fn live_bytes(&self, order: &[StepId]) -> Result<Vec<u64>, MemoryError> {
        let mut tracker = Tracker::new(self);
        let mut executed = vec![false; self.steps().len()];
        let mut live = Vec::with_capacity(order.len());
        for (position, &step) in order.iter().enumerate() {
            let fits = executed.get(step.index()) == Some(&false) && tracker.is_ready(step);
            if !fits {
                return Err(MemoryError::NotAnOrder { position, step });
            }
            executed[step.index()] = true;
            live.push(tracker.execute(step));
        }
        match executed.iter().position(|executed| !executed) {
            Some(missing) => Err(MemoryError::NotAnOrder { position: order.len(), step: StepId(missing as u32) }),
            None => Ok(live),
        }
    }

    /// The most bytes that are alive at one time in `order`.
    ///
    /// # Errors
    /// As [`MemoryGraph::live_bytes`].
    pub fn peak_bytes(&self, order: &[StepId]) -> Result<u64, MemoryError> {
        Ok(self.live_bytes(order)?.into_iter().max().unwrap_or(0).max(self.input_bytes()))
    }

    /// The most bytes that are alive at one time in the plain order.
    pub fn plain_peak_bytes(&self) -> u64 {
        let mut tracker = Tracker::new(self);
        let peak = self.plain_order().map(|step| tracker.execute(step)).max();
        peak.unwrap_or(0).max(self.input_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Step;

    fn step(reads: &[u32], writes: u32) -> Step {
        let reads = reads.iter().copied().map(BufferId).collect();
        Step { nodes: Vec::new(), fragment: None, reads, writes: BufferId(writes) }
    }

    fn ids(order: &[u32]) -> Vec<StepId> {
        order.iter().copied().map(StepId).collect()
    }

    /// b0 → s0 → b1, b0 → s1 → b2, b1 → s2 ↘ b3 ↙ s3 ← b2 (accumulated), all of other sizes.
    fn diamond() -> MemoryGraph {
        let steps = vec![step(&[0], 1), step(&[0], 2), step(&[1], 3), step(&[2], 3)];
        MemoryGraph::new(vec![1, 10, 100, 1000], steps, &[BufferId(3)]).unwrap()
    }

    #[test]
    fn live_bytes_by_hand() {
        let graph = diamond();
        // 1+10; +100; b0 is gone: 10+100+1000; b1 is gone: 100+1000.
        assert_eq!(graph.live_bytes(&ids(&[0, 1, 2, 3])), Ok(vec![11, 111, 1110, 1100]));
        // b1 goes before b2 comes.
        assert_eq!(graph.live_bytes(&ids(&[0, 2, 1, 3])), Ok(vec![11, 1011, 1101, 1100]));
        assert_eq!((graph.plain_peak_bytes(), graph.peak_bytes(&ids(&[0, 2, 1, 3]))), (1110, Ok(1101)));
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let graph = diamond();
        let refused = |order: &[u32]| graph.live_bytes(&ids(order)).unwrap_err().to_string();
        assert_eq!(refused(&[2, 0, 1, 3]), "not an order of the graph: position 0 cannot be s2");
        assert_eq!(refused(&[0, 0, 1, 3]), "not an order of the graph: position 1 cannot be s0");
        assert_eq!(refused(&[0, 1, 2]), "not an order of the graph: position 3 cannot be s3");
        assert_eq!(refused(&[0, 9]), "not an order of the graph: position 1 cannot be s9");
    }

    #[test]
    fn an_input_that_nobody_reads_goes_at_once() {
        let graph = MemoryGraph::new(vec![50, 2, 3], vec![step(&[1], 2)], &[BufferId(2)]).unwrap();
        assert_eq!((graph.live_bytes(&ids(&[0])), graph.plain_peak_bytes()), (Ok(vec![5]), 52));
    }
}
