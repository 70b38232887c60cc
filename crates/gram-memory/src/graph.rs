//! What is scheduled: steps that read and write buffers.

use std::fmt;

use gram_ir::NodeId;

use crate::MemoryError;

/// No graph may have more steps, buffers or reads of buffers.
pub const MAX_READS: usize = 1 << 22;

/// A buffer of one [`MemoryGraph`]; prints as `b7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// A step of one [`MemoryGraph`], in plain order; prints as `s7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

impl BufferId {
    /// Position among the buffers.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl StepId {
    /// Position in the plain order.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BufferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// Which of several steps that together compute one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// From 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

/// What an engine runs at once: one operator with what is fused into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The network's nodes that are computed, in execution order: a convolution with its norm and activation, say.
    pub nodes: Vec<NodeId>,
    /// Set if the nodes are split over several steps.
    pub fragment: Option<Fragment>,
    /// Buffers that must be complete: every step that writes one comes before. Ascending, each once.
    pub reads: Vec<BufferId>,
    /// The buffer that is written, or accumulated into if other steps write it too.
    pub writes: BufferId,
}

/// Buffers and steps; the steps stand in an order that can be executed, the *plain* order.
///
/// A buffer comes into being with the first step that writes it, and goes with the last step that reads or writes it. Buffers that nobody
/// writes are there from the start, outputs stay to the end. Several steps may write one buffer: they accumulate, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryGraph {
    bytes: Vec<u64>,
    steps: Vec<Step>,
    is_output: Vec<bool>,
    readers: Vec<Vec<u32>>,
    writers: Vec<Vec<u32>>,
}

impl MemoryGraph {
    /// A graph of buffers with so many bytes.
    ///
    /// # Errors
    /// [`MemoryError`] where a buffer does not exist, a step reads what is not complete before it, or the sizes cannot be added up.
    /// # Example
    /// ```
    /// use gram_memory::{BufferId, MemoryGraph, Step};
    /// let step = |reads: &[u32], writes| Step {
    ///     nodes: Vec::new(),
    ///     fragment: None,
    ///     reads: reads.iter().copied().map(BufferId).collect(),
    ///     writes: BufferId(writes),
    /// };
    /// // Two maps of 10 bytes are made of an input of 4 and joined in 1 byte.
    /// let graph = MemoryGraph::new(vec![4, 10, 10, 1], vec![step(&[0], 1), step(&[0], 2), step(&[1, 2], 3)], &[BufferId(3)])?;
    /// assert_eq!(graph.plain_peak_bytes(), 4 + 10 + 10);
    /// # Ok::<(), gram_memory::MemoryError>(())
    /// ```
    pub fn new(bytes: Vec<u64>, mut steps: Vec<Step>, outputs: &[BufferId]) -> Result<Self, MemoryError> {
        let total = bytes.iter().try_fold(0u64, |sum, &bytes| sum.checked_add(bytes));
        total.ok_or(MemoryError::TooManyBytes)?;
        let reads: usize = steps.iter().map(|step| step.reads.len() + 1).sum();
        if reads > MAX_READS || bytes.len() > MAX_READS {
            return Err(MemoryError::TooManyReads);
        }
        for step in &mut steps {
            step.reads.sort_unstable();
            step.reads.dedup();
        }
        let mut is_output = vec![false; bytes.len()];
        for &buffer in outputs {
            let missing = || MemoryError::NoSuchBuffer { at: "outputs".into(), buffer };
            *is_output.get_mut(buffer.index()).ok_or_else(missing)? = true;
        }
        let (mut readers, mut writers) = (vec![Vec::new(); bytes.len()], vec![Vec::new(); bytes.len()]);
        for (i, step) in (0u32..).zip(&steps) {
            let missing = |&&buffer: &&BufferId| buffer.index() >= bytes.len();
            if let Some(&buffer) = step.reads.iter().chain([&step.writes]).find(missing) {
                return Err(MemoryError::NoSuchBuffer { at: StepId(i).to_string(), buffer });
            }
            step.reads.iter().for_each(|buffer| readers[buffer.index()].push(i));
            writers[step.writes.index()].push(i);
        }
        let graph = Self { bytes, steps, is_output, readers, writers };
        graph.check_plain_order()?;
        Ok(graph)
    }

    fn check_plain_order(&self) -> Result<(), MemoryError> {
        for (i, step) in (0u32..).zip(&self.steps) {
            for &buffer in &step.reads {
                if let Some(&writer) = self.writers[buffer.index()].last().filter(|&&writer| writer >= i) {
                    return Err(MemoryError::NotInOrder { step: StepId(i), buffer, writer: StepId(writer) });
                }
            }
        }
        Ok(())
    }

    /// Number of buffers.
    pub fn n_buffers(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of a buffer.
    ///
    /// # Panics
    /// If the buffer is of another graph and out of range here.
    pub fn bytes(&self, buffer: BufferId) -> u64 {
        self.bytes[buffer.index()]
    }

    /// Whether a buffer stays to the end.
    ///
    /// # Panics
    /// If the buffer is of another graph and out of range here.
    pub fn is_output(&self, buffer: BufferId) -> bool {
        self.is_output[buffer.index()]
    }

    /// All steps in plain order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Steps that read the buffer at `index`, ascending.
    pub(crate) fn readers(&self, index: usize) -> &[u32] {
        &self.readers[index]
    }

    /// Steps that write the buffer at `index`, ascending.
    pub(crate) fn writers(&self, index: usize) -> &[u32] {
        &self.writers[index]
    }

    pub(crate) fn plain_order(&self) -> impl Iterator<Item = StepId> + use<> {
        (0..self.steps.len() as u32).map(StepId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(reads: &[u32], writes: u32) -> Step {
        Step {
            nodes: Vec::new(),
            fragment: None,
            reads: reads.iter().copied().map(BufferId).collect(),
            writes: BufferId(writes),
        }
    }

    #[track_caller]
    fn refused(bytes: &[u64], steps: Vec<Step>, outputs: &[u32]) -> String {
        let outputs: Vec<BufferId> = outputs.iter().copied().map(BufferId).collect();
        MemoryGraph::new(bytes.to_vec(), steps, &outputs).unwrap_err().to_string()
    }

    #[test]
    fn bad_graphs_are_refused() {
        assert_eq!(refused(&[1, 1], vec![step(&[0], 2)], &[]), "s0: there is no buffer b2");
        assert_eq!(refused(&[1, 1], vec![step(&[7], 1)], &[]), "s0: there is no buffer b7");
        assert_eq!(refused(&[1], Vec::new(), &[1]), "outputs: there is no buffer b1");
        assert_eq!(
            refused(&[u64::MAX, 1], Vec::new(), &[]),
            "all maps together take more than 18446744073709551615 bytes"
        );
        let late = "step s0 reads b1, which s1 writes and which does not stand before it";
        assert_eq!(refused(&[1, 1, 1], vec![step(&[1], 2), step(&[0], 1)], &[]), late);
        let itself = "step s0 reads b0, which s0 writes and which does not stand before it";
        assert_eq!(refused(&[1], vec![step(&[0], 0)], &[]), itself);
        // An accumulation whose result is read before its last part.
        let early = "step s1 reads b1, which s2 writes and which does not stand before it";
        assert_eq!(refused(&[1, 1, 1], vec![step(&[0], 1), step(&[1], 2), step(&[0], 1)], &[]), early);
    }

    #[test]
    fn reads_are_sorted_and_counted_once() {
        let graph = MemoryGraph::new(vec![1, 2, 3], vec![step(&[1, 0, 1], 2)], &[BufferId(2)]).unwrap();
        assert_eq!(graph.steps()[0].reads, [BufferId(0), BufferId(1)]);
        assert_eq!((graph.readers(1), graph.writers(2)), (&[0][..], &[0][..]));
    }
}
