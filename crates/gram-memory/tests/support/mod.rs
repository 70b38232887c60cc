//! Random graphs, and the slow obvious scheduler.
#![allow(dead_code, reason = "each test binary uses some of it")]

use gram_memory::{BufferId, MemoryGraph, Step, StepId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Graphs of 1 to `n_steps` steps with one or two inputs; buffers of 0 to 9 or 0 to 999 bytes, so that ties occur.
///
/// One step in five accumulates into the buffer of an earlier one, as far as nobody reads that yet. What nobody reads is an output, or
/// goes at once.
pub(crate) fn arb_graph(n_steps: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = MemoryGraph> {
    let step = (vec(any::<Index>(), 1..=3), 0..5u8, any::<Index>());
    let sizes = prop_oneof![vec(0..10u64, 40), vec(0..1000u64, 40)];
    (1..=2usize, vec(step, n_steps), sizes, any::<bool>()).prop_map(|(n_inputs, wishes, sizes, keep_all)| {
        let mut bytes: Vec<u64> = sizes[..n_inputs].to_vec();
        let mut steps: Vec<Step> = Vec::new();
        for (reads, kind, into) in wishes {
            let mut reads: Vec<BufferId> = reads.iter().map(|read| BufferId(read.index(bytes.len()) as u32)).collect();
            reads.sort_unstable();
            reads.dedup();
            let is_read =
                |buffer: &BufferId| steps.iter().any(|step| step.reads.contains(buffer)) || reads.contains(buffer);
            let open: Vec<BufferId> = steps.iter().map(|step| step.writes).filter(|buffer| !is_read(buffer)).collect();
            let writes = if kind == 0 && !open.is_empty() {
                open[into.index(open.len())]
            } else {
                bytes.push(sizes[bytes.len() % sizes.len()]);
                BufferId(bytes.len() as u32 - 1)
            };
            steps.push(Step { nodes: Vec::new(), fragment: None, reads, writes });
        }
        let unread = (0..bytes.len() as u32).map(BufferId).filter(|b| !steps.iter().any(|step| step.reads.contains(b)));
        let outputs: Vec<BufferId> = if keep_all { unread.collect() } else { vec![steps[steps.len() - 1].writes] };
        MemoryGraph::new(bytes, steps, &outputs).unwrap()
    })
}

/// The least peak of all orders.
pub(crate) fn brute_force(graph: &MemoryGraph) -> u64 {
    fn extend(graph: &MemoryGraph, order: &mut Vec<StepId>, best: &mut u64) {
        let n = graph.steps().len();
        if order.len() == n {
            *best = (*best).min(graph.peak_bytes(order).unwrap());
            return;
        }
        for step in (0..n as u32).map(StepId) {
            if !order.contains(&step) && is_ready(graph, order, step) {
                order.push(step);
                extend(graph, order, best);
                order.pop();
            }
        }
    }
    let mut best = u64::MAX;
    extend(graph, &mut Vec::new(), &mut best);
    best
}

fn is_ready(graph: &MemoryGraph, executed: &[StepId], step: StepId) -> bool {
    let writers = |buffer: &BufferId| {
        let writes = |(_, step): &(usize, &Step)| step.writes == *buffer;
        graph.steps().iter().enumerate().filter(writes).map(|(i, _)| StepId(i as u32)).collect::<Vec<_>>()
    };
    graph.steps()[step.index()].reads.iter().flat_map(writers).all(|writer| executed.contains(&writer))
}

/// A random order: at each point any of the steps that can be executed.
pub(crate) fn random_order(graph: &MemoryGraph, rng: &mut impl Rng) -> Vec<StepId> {
    let n = graph.steps().len();
    let mut order: Vec<StepId> = Vec::with_capacity(n);
    while order.len() < n {
        let ready: Vec<StepId> =
            (0..n as u32).map(StepId).filter(|step| !order.contains(step) && is_ready(graph, &order, *step)).collect();
        order.push(ready[rng.random_range(0..ready.len())]);
    }
    order
}

/// The same graph with its steps in another order that can be executed, and its buffers numbered anew.
pub(crate) fn relabelled(graph: &MemoryGraph, seed: u64) -> MemoryGraph {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let order = random_order(graph, &mut rng);
    let n = graph.n_buffers() as u32;
    let mut names: Vec<u32> = (0..n).collect();
    for i in (1..names.len()).rev() {
        names.swap(i, rng.random_range(0..=i));
    }
    let name = |buffer: BufferId| BufferId(names[buffer.index()]);
    let mut bytes = vec![0; n as usize];
    (0..n).map(BufferId).for_each(|buffer| bytes[name(buffer).index()] = graph.bytes(buffer));
    let steps = order.iter().map(|step| {
        let step = &graph.steps()[step.index()];
        Step { reads: step.reads.iter().copied().map(name).collect(), writes: name(step.writes), ..step.clone() }
    });
    let outputs: Vec<BufferId> = (0..n).map(BufferId).filter(|&buffer| graph.is_output(buffer)).map(name).collect();
    MemoryGraph::new(bytes, steps.collect(), &outputs).unwrap()
}
