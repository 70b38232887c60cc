//! A lower bound of the peak that needs no search.

use crate::bits::Bits;
use crate::problem::Problem;

/// Bytes that are alive at one time in every order of the part.
///
/// While a step runs, a buffer is alive in any order if something that comes before the step in every order has written to it, and the
/// step itself, or something that comes behind it in every order, still uses it.
///
/// # Complexity
/// Steps times buffers, with sets of `64·N` steps.
pub(crate) fn lower_bound<const N: usize>(problem: &Problem) -> u64 {
    let before = ancestors::<N>(problem);
    let mut behind = vec![Bits::<N>::EMPTY; problem.len()];
    for (step, before) in before.iter().enumerate() {
        before.iter().for_each(|earlier| behind[earlier] = behind[earlier].with(step));
    }
    let members = |steps: &[u32]| Bits::<N>::from_members(steps.iter().map(|&step| step as usize));
    let uses: Vec<(Bits<N>, Bits<N>)> =
        problem.buffers.iter().map(|buffer| (members(&buffer.writers), members(&buffer.readers))).collect();
    // Buffers that neither the part reads nor writes are in the carry; those that it does are looked at one by one.
    let touched = problem.buffers.iter().filter(|buffer| buffer.started).map(|buffer| buffer.bytes).sum::<u64>();
    let around = problem.carry - touched;
    let needed = |step: usize| -> u64 {
        let from_here = behind[step].with(step);
        let alive = |&(i, &(writers, readers)): &(usize, &(Bits<N>, Bits<N>))| {
            let buffer = &problem.buffers[i];
            let is_there = buffer.started || writers.meets(before[step].with(step));
            is_there && (buffer.kept || from_here.meets(readers) || from_here.meets(writers))
        };
        uses.iter().enumerate().filter(alive).map(|(i, _)| problem.buffers[i].bytes).sum()
    };
    let needed = (0..problem.len()).map(needed).max().unwrap_or(0);
    problem.carry.max(around + needed)
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
