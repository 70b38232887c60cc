//! Properties of kernels and fusion.

use gram_ir::strategies::arb_architecture;
use gram_ir::{Activation, Op};
use gram_latency::{Kernel, KernelOp, Layout, fused_kernels};
use proptest::prelude::*;

fn arb_kernel() -> impl Strategy<Value = String> {
    let axis = || 1usize..300;
    let window = (1usize..6, 1usize..3, 0usize..3);
    let act = prop::option::of(prop::sample::select(Activation::ALL.to_vec()));
    (
        prop::sample::select(KernelOp::ALL.to_vec()),
        axis(),
        6usize..64,
        axis(),
        window,
        act,
        any::<(bool, bool)>(),
        2usize..5,
    )
        .prop_map(|(op, c, side, c_out, (k, s, p), act, (residual, blocked), n)| {
            let mut text = format!("{op} {c}x{side}x{side}");
            let has_channels = matches!(op, KernelOp::Conv | KernelOp::Linear);
            if has_channels && c != c_out {
                text += &format!(">{c_out}");
            }
            if matches!(op, KernelOp::Conv | KernelOp::DepthwiseConv | KernelOp::MaxPool | KernelOp::AvgPool) {
                text += &format!(" k{k} s{s} p{p}");
            }
            if matches!(op, KernelOp::Concat | KernelOp::Add) {
                text += &format!(" n{n}");
            }
            if op == KernelOp::Conv && residual {
                text += " +add";
            }
            let act = if op == KernelOp::Act { act.or(Some(Activation::Relu)) } else { act };
            if let Some(act) = act {
                text += &format!(" +{act}");
            }
            if blocked { text + " blocked" } else { text }
        })
}

proptest! {
    #[test]
    fn kernels_read_as_they_print(text in arb_kernel()) {
        // A depthwise convolution has two channels or more.
        prop_assume!(!text.starts_with("dwconv 1x"));
        let kernel: Kernel = text.parse().map_err(|error| TestCaseError::fail(format!("{error}")))?;
        prop_assert_eq!(kernel.to_string(), text.clone());                    // I8 parse and print are inverse
        let json = serde_json::to_string(&kernel).unwrap();
        prop_assert_eq!(serde_json::from_str::<Kernel>(&json).unwrap(), kernel);
        prop_assert!(kernel.macs() > 0 && kernel.elements_in() > 0 && kernel.elements_out() > 0);
    }

    #[test]
    fn no_text_makes_the_parser_fall_over(text in "\\PC{0,40}") {
        let _ = text.parse::<Kernel>();
    }

    #[test]
    fn fusion_keeps_what_is_computed(architecture in arb_architecture(), block in prop::sample::select(vec![1usize, 8, 16])) {
        let Ok(network) = architecture.lower() else { return Ok(()) };
        let kernels = fused_kernels(&network, Layout::blocked(block));
        let of_layers = |op: KernelOp| matches!(op, KernelOp::Conv | KernelOp::DepthwiseConv | KernelOp::Linear);
        // The network's multiply–accumulates, once each: an unfolded norm is counted as a convolution where maps are blocked.
        let macs: u64 = kernels
            .iter()
            .filter(|placed| of_layers(placed.kernel.op) && !matches!(network.node(placed.node).op, Op::BatchNorm { .. }))
            .map(|placed| placed.kernel.macs())
            .sum();
        prop_assert_eq!(macs, network.cost().macs.0);
        // Every value is computed by one kernel, and reordered in each direction once at most.
        let mut places: Vec<_> = kernels
            .iter()
            .map(|placed| (placed.node, placed.kernel.op.is_reorder().then_some(placed.kernel.op)))
            .collect();
        places.sort();
        let n = places.len();
        places.dedup();
        prop_assert_eq!(places.len(), n);
        // Without blocks there is nothing to reorder.
        prop_assert!(block > 1 || kernels.iter().all(|placed| !placed.kernel.blocked && !placed.kernel.op.is_reorder()));
        prop_assert_eq!(&kernels, &fused_kernels(&network, Layout::blocked(block)));
    }
}
