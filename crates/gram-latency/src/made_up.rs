//! What a profile measures besides the networks of its families: two reference networks, and kernels at random.

use gram_ir::{Activation, Conv2d, Network, NetworkError, NodeId, Op, Pool, Shape, preset};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::Layout;
use crate::kernel::{Kernel, KernelOp};
use crate::profile::ProfileError;

/// Some tenths of a millisecond of what networks for small devices spend their time on: convolutions of all kinds, concatenations, pools
/// and reorders, on large and small maps.
pub(crate) fn reference() -> Result<Network, NetworkError> {
    let mut network = Network::new(Shape::chw(3, 96, 96));
    let mut add = |name: String, op: Op, inputs: &[NodeId]| network.add(name, op, inputs);
    let relu6 = Op::Act { activation: Activation::Relu6 };
    let stem = add("stem".into(), Op::Conv(Conv2d::new(3, 16, 3).stride(2).bias(true)), &[NodeId(0)])?;
    let (mut tip, mut width) = (add("stem.act".into(), relu6, &[stem])?, 16);
    for stage in 0..4 {
        let name = |what: &str| format!("stages.{stage}.{what}");
        tip = add(name("pool"), Op::MaxPool(Pool::new(2, 2, 0)), &[tip])?;
        let wide = 3 * width;
        let expand = add(name("expand"), Op::Conv(Conv2d::new(width, wide, 1).bias(true)), &[tip])?;
        let expand = add(name("expand.act"), relu6, &[expand])?;
        let depthwise = add(name("dw"), Op::Conv(Conv2d::depthwise(wide, 3).bias(true)), &[expand])?;
        let depthwise = add(name("dw.act"), relu6, &[depthwise])?;
        let narrow = add(name("narrow"), Op::Conv(Conv2d::new(wide, width, 1).bias(true)), &[depthwise])?;
        let dense = add(name("dense"), Op::Conv(Conv2d::new(width, width, 3).bias(true)), &[narrow])?;
        let joined = add(name("concat"), Op::Concat, &[tip, narrow, dense])?;
        let project = add(name("project"), Op::Conv(Conv2d::new(3 * width, 2 * width, 1).bias(true)), &[joined])?;
        tip = add(name("act"), relu6, &[project])?;
        width *= 2;
    }
    network.set_output(tip)?;
    Ok(network)
}

/// A network with 14 MB of weights, some milliseconds long: far more than a core has caches of its own.
pub(crate) fn large_reference() -> Result<Network, ProfileError> {
    Ok(preset("mobilenet-v2-1.0", Some(Shape::chw(3, 128, 128)), None)?.lower()?)
}

/// A kernel such as networks for small devices have: channels log-uniform to 512, maps of 4 to 64 pixels.
pub(crate) fn random_kernel(layout: Layout, rng: &mut ChaCha8Rng) -> Kernel {
    let unit = layout.block.max(8);
    let mut channels = || unit * (2f64.powf(rng.random_range(0.0..=5.0)).round() as usize).clamp(1, 512 / unit);
    let (c_in, c_out) = (channels(), channels());
    let side = *[4, 7, 8, 14, 16, 28, 32, 56, 64].choose(rng).unwrap_or(&16);
    let blocked = layout.block > 1;
    let op = *[
        KernelOp::Conv,
        KernelOp::Conv,
        KernelOp::Conv,
        KernelOp::DepthwiseConv,
        KernelOp::DepthwiseConv,
        KernelOp::MaxPool,
        KernelOp::Concat,
        KernelOp::ReorderInput,
        KernelOp::ReorderOutput,
    ]
    .choose(rng)
    .unwrap_or(&KernelOp::Conv);
    let keeping = Kernel { blocked: blocked && !op.is_reorder(), ..Kernel::keeping(op, [c_in, side, side]) };
    let act = [None, Some(Activation::Relu), Some(Activation::Relu6)][rng.random_range(0..3)];
    match op {
        KernelOp::Conv => {
            let kernel = *[1, 1, 1, 3].choose(rng).unwrap_or(&1);
            let stride = if kernel > 1 && rng.random_bool(0.3) { 2 } else { 1 };
            let residual = act.is_none() && blocked && rng.random_bool(0.3);
            Kernel { c_out, kernel, stride, padding: kernel / 2, residual, act, ..keeping }
        }
        KernelOp::DepthwiseConv => {
            let kernel = *[3, 3, 5, 7].choose(rng).unwrap_or(&3);
            let stride = if rng.random_bool(0.3) { 2 } else { 1 };
            Kernel { kernel, stride, padding: kernel / 2, groups: c_in, act, ..keeping }
        }
        KernelOp::MaxPool => {
            let [kernel, stride, padding] = [[2, 2, 0], [3, 1, 1]][rng.random_range(0..2)];
            Kernel { kernel, stride, padding, ..keeping }
        }
        KernelOp::Concat => {
            let inputs = rng.random_range(2..=4).min(c_in / unit).max(2);
            Kernel { inputs, c_in: c_in.max(2 * unit), c_out: c_in.max(2 * unit), ..keeping }
        }
        _ => keeping,
    }
}
