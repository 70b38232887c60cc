//! Divide and conquer: where every order of a graph passes through the same step.

use crate::{BufferId, MemoryGraph};

/// Ends of the parts, ascending; the last is the number of steps. Empty for a graph without steps.
///
/// A step that is comparable with all others (each comes before it in every order, or behind it in every order) splits every order into
/// the same two halves, so the halves are scheduled alone: the least peak of the whole is the highest of the parts'. A cell's input and
/// output are such steps, and everything in a chain. The step itself ends a part.
///
/// # Complexity
/// One pass over steps and reads: at position `k` stands such a step iff everything before has a reader up to `k`, and everything behind
/// reads something that is written at `k` or behind.
/// # Source
/// Ahn et al., [arXiv:2003.02369](https://arxiv.org/abs/2003.02369), section 3.2 (divide and conquer at single-tensor bottlenecks); any
/// number of tensors may be alive across the cut here.
pub(crate) fn part_ends(graph: &MemoryGraph) -> Vec<usize> {
    let n = graph.steps().len();
    let first_reader = |step: usize| {
        let written = graph.steps()[step].writes;
        graph.readers(written.index()).first().map_or(usize::MAX, |&reader| reader as usize)
    };
    let last_source = |step: usize| {
        let last_writer = |buffer: &BufferId| graph.writers(buffer.index()).last().map(|&writer| writer as usize);
        graph.steps()[step].reads.iter().filter_map(last_writer).max()
    };
    // Element k: where the earliest position is that something behind k is tied to; none: something behind k reads only what was there.
    let mut tied_behind = vec![Some(usize::MAX); n];
    for k in (1..n).rev() {
        tied_behind[k - 1] = tied_behind[k].min(last_source(k));
    }
    let mut ends = Vec::new();
    let mut reach = 0;
    for (k, tied) in tied_behind.iter().enumerate() {
        if reach <= k && tied.is_some_and(|source| source >= k) {
            ends.push(k + 1);
        }
        reach = reach.max(first_reader(k));
    }
    if n > 0 && ends.last() != Some(&n) {
        ends.push(n);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Step;

    fn ends(n_buffers: u64, steps: &[(&[u32], u32)], output: u32) -> Vec<usize> {
        let step = |&(reads, writes): &(&[u32], u32)| Step {
            nodes: Vec::new(),
            fragment: None,
            reads: reads.iter().copied().map(BufferId).collect(),
            writes: BufferId(writes),
        };
        let bytes = (1..=n_buffers).collect();
        part_ends(&MemoryGraph::new(bytes, steps.iter().map(step).collect(), &[BufferId(output)]).unwrap())
    }

    #[test]
    fn chains_are_cut_everywhere_and_diamonds_around() {
        assert_eq!(ends(4, &[(&[0], 1), (&[1], 2), (&[2], 3)], 3), [1, 2, 3]);
        // s0, then s1 and s2 side by side and s3 that joins them, then s4.
        assert_eq!(ends(6, &[(&[0], 1), (&[1], 2), (&[1], 3), (&[2, 3], 4), (&[4], 5)], 5), [1, 4, 5]);
    }

    #[test]
    fn what_is_alive_across_a_cut_does_not_matter() {
        // s2 reads what s0 and s1 wrote; s1 is comparable with both all the same.
        assert_eq!(ends(4, &[(&[0], 1), (&[1], 2), (&[1, 2], 3)], 3), [1, 2, 3]);
    }

    #[test]
    fn side_branches_of_the_input_and_dead_ends_are_not_cut() {
        // s1 reads the input only: it may run before s0.
        assert_eq!(ends(4, &[(&[0], 1), (&[0], 2), (&[1, 2], 3)], 3), [3]);
        // Nobody reads what s1 writes: it may run last.
        assert_eq!(ends(5, &[(&[0], 1), (&[1], 2), (&[1], 3), (&[3], 4)], 4), [1, 4]);
    }
}
