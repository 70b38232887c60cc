//! An engine that computes nothing: its times follow a formula, with noise from a seed. For tests, and for trying out commands.

use std::cell::RefCell;
use std::rc::Rc;

use gram_export::from_onnx;
use gram_ir::{Network, Shape};
use gram_latency_runner::{Device, Engine, EngineError, NodeRuns, Profiling, Session};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Layout;
use crate::fit::Terms;
use crate::fuse::{PlacedKernel, fuse};
use crate::kernel::{Kernel, KernelOp};

/// A made-up device.
///
/// A kernel takes `overhead + max(MACs / rate, bytes / bandwidth)`, depthwise convolutions at a quarter of the rate; a pass takes the sum of
/// its kernels and [`Self::PASS_US`]; profiling adds [`Self::PROFILER_US`] to every node. Where its caches are shared, every megabyte of weights
/// and outputs costs up to [`Self::shared_us_per_mb`], the more the longer the kernels take.
#[derive(Clone, Debug)]
pub struct FakeEngine {
    /// What it claims to be.
    pub device: Device,
    /// Its blocked layout.
    pub layout: Layout,
    /// Multiply–accumulates in a microsecond.
    pub macs_per_us: f64,
    /// Bytes in a microsecond.
    pub bytes_per_us: f64,
    /// Microseconds of every kernel.
    pub kernel_us: f64,
    /// Microseconds for each megabyte that others have pushed out of the caches.
    pub shared_us_per_mb: f64,
    /// Standard deviation of the relative noise of a pass.
    pub noise: f64,
    /// An operator that it refuses.
    pub refuses: Option<KernelOp>,
    /// Random numbers of all sessions together, in the order in which they run.
    random: Rc<RefCell<ChaCha8Rng>>,
}

impl FakeEngine {
    /// Microseconds of a pass besides its kernels.
    pub const PASS_US: f64 = 5.0;
    /// Microseconds that profiling adds to a node.
    pub const PROFILER_US: f64 = 1.5;

    /// A device named `host`, without noise; `speed` 1 is a desktop's core.
    pub fn new(host: &str, speed: f64, seed: u64) -> Self {
        let device = Device {
            host: host.into(),
            cpu: "made up".into(),
            engine: "fake".into(),
            engine_version: "1".into(),
            threads: 1,
            dtype: "f32".into(),
            frequency_policy: "performance".into(),
        };
        Self {
            device,
            layout: Layout::blocked(16),
            macs_per_us: 4e4 * speed,
            bytes_per_us: 2e4 * speed,
            kernel_us: 0.4 / speed,
            shared_us_per_mb: 0.0,
            noise: 0.0,
            refuses: None,
            random: Rc::new(RefCell::new(ChaCha8Rng::seed_from_u64(seed))),
        }
    }

    /// Microseconds of one kernel.
    pub fn kernel_time(&self, kernel: &Kernel) -> f64 {
        let rate = if kernel.op == KernelOp::DepthwiseConv { 0.25 * self.macs_per_us } else { self.macs_per_us };
        let bytes = 4.0 * (kernel.elements_in() + kernel.elements_out() + kernel.weights()) as f64;
        self.kernel_us + (kernel.macs() as f64 / rate).max(bytes / self.bytes_per_us)
    }

    /// Microseconds of one pass of a network.
    pub fn network_time(&self, network: &Network) -> f64 {
        let kernels = fuse(network, self.layout).kernels;
        let us = kernels.iter().map(|placed| self.kernel_time(&placed.kernel)).sum::<f64>();
        Self::PASS_US + us + self.evicted_us(&kernels)
    }

    fn evicted_us(&self, kernels: &[PlacedKernel]) -> f64 {
        let mut terms = Terms::default();
        kernels.iter().for_each(|placed| terms.add(&placed.kernel, 1, self.kernel_time(&placed.kernel), 0.0));
        self.shared_us_per_mb * terms.evicted_mb()
    }
}

impl Engine for FakeEngine {
    fn device(&self) -> &Device {
        &self.device
    }

    fn load<'a>(
        &'a self,
        model: &[u8],
        input: [usize; 3],
        profiling: Profiling,
    ) -> Result<Box<dyn Session + 'a>, EngineError> {
        let network = from_onnx(model).map_err(|error| EngineError::Refused(error.to_string()))?.network;
        if <[usize; 3]>::from(network.input_shape()) != input {
            return Err(EngineError::Refused(format!("it takes {}, not {input:?}", network.input_shape())));
        }
        let fused = fuse(&network, self.layout);
        if let Some(placed) = fused.kernels.iter().find(|placed| Some(placed.kernel.op) == self.refuses) {
            return Err(EngineError::Refused(format!("operator {} is not supported", placed.kernel.op)));
        }
        let node = |placed: &PlacedKernel| {
            let kernel = &placed.kernel;
            let blocked = kernel.blocked || kernel.op == KernelOp::ReorderInput;
            let [c, h, w] = kernel.output();
            let c = if blocked { c.next_multiple_of(self.layout.block) } else { c };
            let (op, name) = match kernel.op {
                KernelOp::ReorderInput => ("ReorderInput", "ReorderInput".to_owned()),
                KernelOp::ReorderOutput => ("ReorderOutput", "ReorderOutput".to_owned()),
                KernelOp::Conv | KernelOp::DepthwiseConv => ("Conv", network.node(placed.node).name.clone()),
                _ => (kernel.op.name(), network.node(placed.node).name.clone()),
            };
            let name = if kernel.blocked { format!("{name}_nchwc") } else { name };
            (NodeRuns { name, op: op.into(), output: vec![1, c, h, w], us: Vec::new() }, self.kernel_time(kernel))
        };
        let nodes = fused.kernels.iter().map(node).collect();
        let Shape { c, h, w } = network.output_shape();
        Ok(Box::new(FakeSession {
            engine: self,
            nodes,
            evicted_us: self.evicted_us(&fused.kernels),
            profiling,
            n_outputs: c * h * w,
        }))
    }
}

struct FakeSession<'a> {
    engine: &'a FakeEngine,
    nodes: Vec<(NodeRuns, f64)>,
    evicted_us: f64,
    profiling: Profiling,
    n_outputs: usize,
}

impl Session for FakeSession<'_> {
    fn run(&mut self) -> Result<f64, EngineError> {
        let profiler = if self.profiling == Profiling::On { FakeEngine::PROFILER_US } else { 0.0 };
        // Noise makes passes slower, never faster than the machine can.
        let slow = |random: &mut ChaCha8Rng| 1.0 + self.engine.noise * (-random.random_range(1e-9..1.0f64).ln());
        let mut random = self.engine.random.borrow_mut();
        let factor = slow(&mut random);
        let mut us = (FakeEngine::PASS_US + self.evicted_us) * factor;
        for (node, own) in &mut self.nodes {
            let took = (*own + profiler) * factor;
            node.us.push(took);
            us += took;
        }
        Ok(us)
    }

    /// Zeros, as many as the network has outputs.
    fn output(&mut self) -> Result<Vec<f32>, EngineError> {
        Ok(vec![0.0; self.n_outputs])
    }

    fn into_node_runs(self: Box<Self>) -> Result<Vec<NodeRuns>, EngineError> {
        match self.profiling {
            Profiling::On => Ok(self.nodes.into_iter().map(|(node, _)| node).collect()),
            Profiling::Off => Err(EngineError::NoProfile("the session was loaded without".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::timing_model;
    use gram_ir::Op;

    #[test]
    fn outputs_are_as_many_as_the_networks() {
        let mut network = Network::new(Shape::chw(3, 4, 4));
        let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()]).unwrap();
        let classes = network.add("classes", Op::Linear { c_in: 3, c_out: 5, bias: true }, &[pool]).unwrap();
        network.set_output(classes).unwrap();
        let engine = FakeEngine::new("test", 1.0, 1);
        let model = timing_model(&network).unwrap();
        let mut session = engine.load(&model, [3, 4, 4], Profiling::Off).unwrap();
        assert_eq!(session.output().unwrap(), [0.0; 5]);
    }
}
