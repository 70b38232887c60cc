//! What a training takes of memory, known before it starts.

use gram_ir::Network;

use crate::TrainConfig;
use crate::engine::{Engine, EvalEngine};
use crate::prefetch::BATCHES_AT_ONCE;
use crate::train::EVALUATION_BATCH;

/// Bytes that one [`train`](crate::train) of `network` takes at most on `n_threads` threads, beside its images and its
/// [teacher](teacher_bytes).
///
/// Counted are the engine's buffers, gradients, optimiser, moving average, batches that are prepared ahead, scores, and an evaluation at the
/// same time; to these come stacks, what the allocator keeps for each thread, and a 64th for what it rounds up. Nothing of it is allocated here
/// but the tensors.
///
/// # Example
/// ```
/// use gram_ir::{Network, Op, Shape};
/// use gram_train::{TrainConfig, training_bytes};
///
/// let mut network = Network::new(Shape::chw(3, 32, 32));
/// let pool = network.add("pool", Op::GlobalAvgPool, &[network.input()])?;
/// let fc = network.add("fc", Op::Linear { c_in: 3, c_out: 10, bias: true }, &[pool])?;
/// network.set_output(fc)?;
/// let bytes = |batch_size| training_bytes(&network, &TrainConfig { batch_size, ..TrainConfig::default() }, 1);
/// assert!(bytes(128) > bytes(64) + 64 * 3 * 32 * 32 * 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn training_bytes(network: &Network, config: &TrainConfig, n_threads: usize) -> usize {
    let engine = Engine::new(network, None, false);
    let (n, elements) = (config.batch_size, engine.layout().elements());
    // No optimiser has more than two.
    let buffers = 2 + usize::from(config.ema_decay.is_some());
    let always = engine.bytes(n, n_threads) + buffers * elements * size_of::<f32>();
    let step = scores(network, n);
    // Weights as they are handed over, in double precision, and as the evaluation takes them.
    let weights = elements * (size_of::<f64>() + size_of::<f32>());
    let evaluation = weights + EvalEngine::bytes(network, n_threads) + images(network, EVALUATION_BATCH);
    let evaluation = evaluation + scores(network, EVALUATION_BATCH);
    // A batch is copied while it is mixed.
    let ahead = (BATCHES_AT_ONCE + usize::from(config.mixup.is_some())) * images(network, n);
    let counted = always + ahead + step.max(evaluation) + sums(network) + n_threads * PER_THREAD;
    counted + counted / 64 + PER_TRAINING
}

/// Bytes that a teacher adds to [`training_bytes`]: its weights in double precision, its engine, its scores, and a batch whose pixels it was
/// used to otherwise.
pub fn teacher_bytes(teacher: &Network, config: &TrainConfig, n_threads: usize) -> usize {
    let elements: usize = teacher.tensors().iter().map(|spec| spec.elements()).sum();
    // In double precision, and in single precision while the engine is made.
    let weights = elements * (size_of::<f64>() + size_of::<f32>());
    let n = config.batch_size;
    let counted =
        weights + EvalEngine::bytes(teacher, n_threads) + images(teacher, n) + scores(teacher, n) + sums(teacher);
    counted + counted / 64
}

/// Normalised pixels and labels of a batch.
fn images(network: &Network, n: usize) -> usize {
    n * (network.input_shape().elements() * size_of::<f32>() + size_of::<u32>())
}

/// Scores of a batch, their gradient and their report.
fn scores(network: &Network, n: usize) -> usize {
    3 * n * network.output_shape().c * size_of::<f32>()
}

/// Statistics of all channels, and what the chunks of a batch sum up for those of one operator: for each of 16 chunks up to 25 depthwise
/// weights and some double precision numbers.
fn sums(network: &Network) -> usize {
    let channels = || network.nodes().iter().map(|node| node.shape.c);
    64 * channels().sum::<usize>() + 16 * 128 * channels().max().unwrap_or(0)
}

/// Plans, lists of batches, and the stack of the thread that prepares them: small things that are not counted one by one. Measured.
const PER_TRAINING: usize = 1 << 20;

/// A worker's stack and what the allocator keeps for it. Measured.
const PER_THREAD: usize = 256 << 10;
