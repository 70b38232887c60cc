//! The exact search: over the sets of executed steps, from the proven lower bound upwards.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::bits::Bits;
use crate::problem::Problem;

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An order, and none has a lower peak that is at least the floor.
    Order(Vec<u32>),
    /// No order stays below the ceiling.
    NoneBelowCeiling,
    /// The allowance is spent.
    OutOfStates,
}

/// An outcome with what was learnt on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Searched {
    pub(crate) outcome: Outcome,
    /// No order has a peak below this, unless it is below the floor.
    pub(crate) level: u64,
    /// Sets of executed steps that were visited.
    pub(crate) states: u64,
}

/// Looks for an order of the part whose peak is at least `floor` and below `ceiling`: the lowest such peak. Peaks below `floor` count as `floor`.
///
/// Dynamic programming over down-sets: all orders of the same steps leave the same bytes alive, so a set of executed steps is reached best
/// with the lowest peak. Sets are visited in the order of that peak (the *level*), depth first and by smallest bytes and smallest step
/// within a level; every set within a level is visited before the level rises, so that the level is a lower bound at any time, and
/// the first order that is complete has the least peak. It visits the sets that the published algorithm visits when its soft budget is
/// exactly the optimum.
///
/// A step that leaves no more bytes alive than before, and does not exceed the level while it runs, is executed at once, without
/// alternatives \[ours\]: bytes that it frees in a set it frees in every larger set, so moving it to the front of any order leaves, at any
/// time, at most as many bytes alive as before. Of steps that are alike (same reads, equally large outputs with the same readers) the first
/// comes first, and a sum is begun by the first of its parts that is ready \[ours\].
///
/// # Source
/// Ahn et al., [arXiv:2003.02369](https://arxiv.org/abs/2003.02369), sections 3.1 and 3.2 (ALGORITHMS 5.2).
/// # Complexity
/// At most `max_states` sets, each with its ready steps.
pub(crate) fn search<const N: usize>(problem: &Problem, floor: u64, ceiling: u64, max_states: u64) -> Searched {
    if problem.carry >= ceiling || floor >= ceiling {
        return Searched { outcome: Outcome::NoneBelowCeiling, level: ceiling, states: 0 };
    }
    let mut search = Search {
        tables: Tables::<N>::new(problem),
        level: floor.max(problem.carry),
        ceiling,
        visited: HashMap::default(),
        stack: Vec::new(),
        deferred: BinaryHeap::new(),
        path: Path::default(),
        within: Vec::new(),
    };
    let start = search.tables.start(problem.carry);
    search.visit(start);
    let outcome = search.run(max_states);
    let level = if outcome == Outcome::NoneBelowCeiling { ceiling } else { search.level };
    Searched { outcome, level, states: search.visited.len() as u64 }
}

struct Search<const N: usize> {
    tables: Tables<N>,
    level: u64,
    ceiling: u64,
    /// For each set the lowest peak with which it was queued.
    visited: HashMap<Bits<N>, u64, BuildHasherDefault<MixHasher>>,
    /// Sets within the level that are still to be expanded.
    stack: Vec<State<N>>,
    /// Sets beyond the level.
    deferred: BinaryHeap<Reverse<Deferred<N>>>,
    path: Path,
    /// Scratch space: bytes alive after and during a step, and the step.
    within: Vec<(u64, u64, usize)>,
}

/// A set of executed steps.
#[derive(Clone, Copy)]
struct State<const N: usize> {
    done: Bits<N>,
    ready: Bits<N>,
    live: u64,
    /// End of its path.
    path: u32,
}

impl<const N: usize> Search<N> {
    fn run(&mut self, max_states: u64) -> Outcome {
        loop {
            while let Some(state) = self.stack.pop() {
                if state.done == self.tables.all {
                    return Outcome::Order(self.path.steps(state.path));
                }
                if self.visited.len() as u64 > max_states {
                    return Outcome::OutOfStates;
                }
                self.expand(state);
            }
            let Some(Reverse(next)) = self.deferred.pop() else { return Outcome::NoneBelowCeiling };
            self.level = next.peak;
            // Reached with a lower peak since it was put off?
            if self.visited[&next.state.done] == next.peak {
                self.settle(next.state);
            }
        }
    }

    /// Queues all that can follow `state`, of which no step is free.
    fn expand(&mut self, state: State<N>) {
        let mut within = std::mem::take(&mut self.within);
        let mut begun = Bits::<N>::EMPTY;
        for step in state.ready.iter() {
            // Once a sum is begun, all its parts that are ready are free: it does not matter which of them begins it.
            let first_writer = self.tables.steps[step].first_writer;
            if begun.contains(first_writer) {
                continue;
            }
            begun = begun.with(first_writer);
            let (during, after) = self.tables.effect(&state, step);
            if during <= self.level {
                within.push((after, during, step));
            } else if during < self.ceiling {
                let next = self.tables.execute(&state, step, after, &mut self.path);
                self.defer(next, during);
            }
        }
        // The stack gives the last first.
        within.sort_unstable_by(|a, b| b.cmp(a));
        for (after, _, step) in within.drain(..) {
            let next = self.tables.execute(&state, step, after, &mut self.path);
            self.visit(next);
        }
        self.within = within;
    }

    fn defer(&mut self, state: State<N>, peak: u64) {
        let known = self.visited.get(&state.done).is_some_and(|&known| known <= peak);
        if !known {
            self.visited.insert(state.done, peak);
            let sequence = self.path.len();
            self.deferred.push(Reverse(Deferred { peak, sequence, state }));
        }
    }

    /// Executes what is free and queues the set that it ends in, unless that is known already.
    fn visit(&mut self, state: State<N>) {
        let state = self.close(state);
        let known = self.visited.get(&state.done).is_some_and(|&known| known <= self.level);
        if !known {
            self.visited.insert(state.done, self.level);
            self.stack.push(state);
        }
    }

    /// Like [`Search::visit`], for a set that was put off and is within the level now.
    fn settle(&mut self, state: State<N>) {
        let closed = self.close(state);
        if closed.done == state.done {
            self.stack.push(closed);
        } else {
            self.visit(closed);
        }
    }

    /// Executes free steps until there is none; the set that it ends in does not depend on their order.
    fn close(&mut self, mut state: State<N>) -> State<N> {
        loop {
            let before = state.done;
            for step in state.ready.iter() {
                let (during, after) = self.tables.effect(&state, step);
                if during <= self.level && after <= state.live {
                    state = self.tables.execute(&state, step, after, &mut self.path);
                }
            }
            if state.done == before {
                return state;
            }
        }
    }
}

/// The part's steps and buffers as sets.
struct Tables<const N: usize> {
    all: Bits<N>,
    steps: Vec<StepTable<N>>,
    buffers: Vec<BufferTable<N>>,
}

struct StepTable<const N: usize> {
    /// What must be executed before.
    needs: Bits<N>,
    /// Steps that may become ready by this one.
    wakes: Bits<N>,
    reads: Vec<u32>,
    writes: u32,
    /// First of the steps that write the same buffer.
    first_writer: usize,
}

struct BufferTable<const N: usize> {
    bytes: u64,
    readers: Bits<N>,
    writers: Bits<N>,
    started: bool,
    kept: bool,
}

impl<const N: usize> Tables<N> {
    fn new(problem: &Problem) -> Self {
        let members = |steps: &[u32]| Bits::from_members(steps.iter().map(|&step| step as usize));
        let table = |buffer: &crate::problem::LocalBuffer| BufferTable {
            bytes: buffer.bytes,
            readers: members(&buffer.readers),
            writers: members(&buffer.writers),
            started: buffer.started,
            kept: buffer.kept,
        };
        let buffers: Vec<BufferTable<N>> = problem.buffers.iter().map(table).collect();
        let step = |step: &crate::problem::LocalStep| StepTable {
            needs: step.reads.iter().fold(Bits::EMPTY, |all, &buffer| all.or(buffers[buffer as usize].writers)),
            wakes: buffers[step.writes as usize].readers,
            reads: step.reads.clone(),
            writes: step.writes,
            first_writer: problem.buffers[step.writes as usize].writers[0] as usize,
        };
        let steps = problem.steps.iter().map(step).collect();
        let mut tables = Self { all: Bits::from_members(0..problem.len()), steps, buffers };
        tables.order_twins(problem);
        tables
    }

    /// Steps that are alike come in the order of their ids: swapping them changes nothing.
    fn order_twins(&mut self, problem: &Problem) {
        let mut last_of = std::collections::BTreeMap::new();
        for (i, step) in problem.steps.iter().enumerate() {
            let written = problem.written(i);
            if written.writers.len() > 1 || written.started {
                continue;
            }
            let mut reads = step.reads.clone();
            reads.sort_unstable();
            if let Some(twin) = last_of.insert((reads, written.bytes, written.kept, written.readers.clone()), i) {
                self.steps[i].needs = self.steps[i].needs.with(twin);
                self.steps[twin].wakes = self.steps[twin].wakes.with(i);
            }
        }
    }

    fn start(&self, carry: u64) -> State<N> {
        let ready = self.steps.iter().enumerate().filter(|(_, step)| step.needs == Bits::EMPTY);
        State { done: Bits::EMPTY, ready: Bits::from_members(ready.map(|(i, _)| i)), live: carry, path: Path::START }
    }

    /// Bytes that are alive while `step` runs, and afterwards.
    fn effect(&self, state: &State<N>, step: usize) -> (u64, u64) {
        let StepTable { reads, writes, .. } = &self.steps[step];
        let written = &self.buffers[*writes as usize];
        let is_new = !written.started && !written.writers.meets(state.done);
        let during = if is_new { state.live + written.bytes } else { state.live };
        let done = state.done.with(step);
        let goes =
            |buffer: &&BufferTable<N>| !buffer.kept && buffer.readers.is_within(done) && buffer.writers.is_within(done);
        let used = reads.iter().chain([writes]).map(|&buffer| &self.buffers[buffer as usize]);
        (during, during - used.filter(goes).map(|buffer| buffer.bytes).sum::<u64>())
    }

    fn execute(&self, state: &State<N>, step: usize, after: u64, path: &mut Path) -> State<N> {
        let done = state.done.with(step);
        let woken = self.steps[step].wakes.iter().filter(|&next| self.steps[next].needs.is_within(done));
        let ready = woken.fold(state.ready.without(step), Bits::with);
        State { done, ready, live: after, path: path.push(state.path, step) }
    }
}

/// How every visited set was reached: a tree of steps.
#[derive(Default)]
struct Path(Vec<(u32, u32)>);

impl Path {
    const START: u32 = u32::MAX;

    fn push(&mut self, from: u32, step: usize) -> u32 {
        self.0.push((from, step as u32));
        self.0.len() as u32 - 1
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn steps(&self, mut end: u32) -> Vec<u32> {
        let mut steps = Vec::new();
        while end != Self::START {
            let (from, step) = self.0[end as usize];
            steps.push(step);
            end = from;
        }
        steps.reverse();
        steps
    }
}

/// A set that is not within the level yet; those of the lowest peak come first, of these the oldest.
struct Deferred<const N: usize> {
    peak: u64,
    sequence: usize,
    state: State<N>,
}

impl<const N: usize> PartialEq for Deferred<N> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<const N: usize> Eq for Deferred<N> {}

impl<const N: usize> PartialOrd for Deferred<N> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<const N: usize> Ord for Deferred<N> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.peak, self.sequence).cmp(&(other.peak, other.sequence))
    }
}

/// Multiplies and folds: sets are words of bits that nobody chooses with ill will, and looking them up is most of the work.
#[derive(Default)]
struct MixHasher(u64);

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xff51_afd7_ed55_8ccd_u128;
        self.0 = (product ^ (product >> 64)) as u64;
    }
}
