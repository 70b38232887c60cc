//! A lower bound of the peak that needs no search.

use crate::bits::Bits;
use crate::problem::Problem;

/// Bytes that are alive at one time in every order of the part.
///
/// While a step runs, a buffer is alive in any order if something that comes before the step in every order has written to it, and the
/// step itself, or something that comes behind it in every order, still uses it. Of two buffers one is alive if a step accumulates the
/// one, which is complete in any order, into the other, which is not: either that step is still to come, or it has begun the other.
/// Such pairs are packed greedily \[ours\].
///
/// # Complexity
/// Steps times buffers and reads, with sets of `64·N` steps.
pub(crate) fn lower_bound<const N: usize>(problem: &Problem) -> u64 {
    let before = ancestors::<N>(problem);
    let mut behind = vec![Bits::<N>::EMPTY; problem.len()];
    for (step, before) in before.iter().enumerate() {
        before.iter().for_each(|earlier| behind[earlier] = behind[earlier].with(step));
    }
    let members = |steps: &[u32]| Bits::<N>::from_members(steps.iter().map(|&step| step as usize));
    let uses: Vec<Uses<N>> = problem
        .buffers
        .iter()
        .map(|buffer| Uses { writers: members(&buffer.writers), readers: members(&buffer.readers) })
        .collect();
    // Buffers that the part neither reads nor writes are in the carry; those that it does are looked at one by one.
    let touched = problem.buffers.iter().filter(|buffer| buffer.started).map(|buffer| buffer.bytes).sum::<u64>();
    let around = problem.carry - touched;
    let needed = |step: usize| needed_at(problem, &uses, before[step].with(step), behind[step].with(step));
    let needed = (0..problem.len()).map(needed).max().unwrap_or(0);
    problem.carry.max(around + needed)
}

/// Steps of the part that write and read one buffer.
struct Uses<const N: usize> {
    writers: Bits<N>,
    readers: Bits<N>,
}

/// Bytes that are alive while a step runs that stands behind all other steps of `until` and before all others of `since`.
fn needed_at<const N: usize>(problem: &Problem, uses: &[Uses<N>], until: Bits<N>, since: Bits<N>) -> u64 {
    let mut sum = 0;
    // What may be alive besides.
    let mut rest: Vec<u64> = Vec::with_capacity(uses.len());
    for (buffer, uses) in problem.buffers.iter().zip(uses) {
        let is_there = buffer.started || uses.writers.meets(until);
        let alive = is_there && (buffer.kept || since.meets(uses.readers) || since.meets(uses.writers));
        sum += if alive { buffer.bytes } else { 0 };
        rest.push(if alive { 0 } else { buffer.bytes });
    }
    for step in &problem.steps {
        let into = step.writes as usize;
        let is_open = rest[into] > 0 && uses[into].writers.meets(since);
        if !is_open {
            continue;
        }
        for &from in &step.reads {
            let from = from as usize;
            // The running step is the last of `until`, and what it writes is alive anyway.
            if rest[from] > 0 && uses[from].writers.is_within(until) {
                let either = rest[from].min(rest[into]);
                rest[from] -= either;
                rest[into] -= either;
                sum += either;
            }
        }
    }
    sum
}

/// What each step reads and writes: a bound for parts of any size.
pub(crate) fn working_set(problem: &Problem) -> u64 {
    let bytes = |step: usize| problem.read(step).map(|buffer| buffer.bytes).sum::<u64>() + problem.written(step).bytes;
    (0..problem.len()).map(bytes).max().unwrap_or(0).max(problem.carry)
}

/// For each step what must be executed before it.
pub(crate) fn ancestors<const N: usize>(problem: &Problem) -> Vec<Bits<N>> {
    let mut before: Vec<Bits<N>> = Vec::with_capacity(problem.len());
    for step in 0..problem.len() {
        let writers = problem.read(step).flat_map(|buffer| &buffer.writers);
        let all = writers.fold(Bits::EMPTY, |all, &writer| all.or(before[writer as usize]).with(writer as usize));
        before.push(all);
    }
    before
}
