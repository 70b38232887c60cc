//! Designs that come with the project, by name.

mod dsconv;
mod layers;
mod mobilenet;
mod mobilenet_v3;
mod nasbench101;
mod nasbench201;

use crate::{Architecture, Design, LowerError, Network, NetworkError, Op, RetargetError, Shape};
pub use nasbench101::{NasBench101Cell, NasBench101Error, NasBench101Op};
pub use nasbench201::{NasBench201Cell, NasBench201Error, NasBench201Op};

/// The names that [`preset`] knows; `<…>` stands for a cell that is part of the name.
pub const PRESET_NAMES: [&str; 16] = [
    "swiftnet-vww",
    "swiftnet-imagenet",
    "shrinkcnn-a",
    "mobilenet-v2-1.4",
    "mobilenet-v2-1.3",
    "mobilenet-v2-1.0",
    "mobilenet-v2-0.75",
    "mobilenet-v2-0.5",
    "mobilenet-v2-0.35",
    "mobilenet-v2-<1.0, 0.75, 0.5, 0.35, 0.25, 0.15 or 0.1>-32",
    "mobilenet-v2-<1.0, 0.75, 0.5, 0.35, 0.25, 0.15 or 0.1>-32-shallow",
    "mobilenet-v3-small-minimalistic-<1.0 or 0.75>",
    "mobilenet-v3-small-minimalistic-<1.0, 0.75, 0.5, 0.35, 0.25, 0.15 or 0.1>-32",
    "dsconv-<channels, 4 to 256>",
    "nasbench201:<|op~0|+|op~0|op~1|+|op~0|op~1|op~2|>",
    "nasbench101:<rows/of/the/matrix:input;op;…;output>",
];

/// Why a preset cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// No preset of that name.
    #[error("`{name}` is no preset; there are {}", PRESET_NAMES.join(", "))]
    Unknown {
        /// The name; long ones are cut.
        name: String,
    },
    /// A cell of NAS-Bench-101 that is none.
    #[error("nasbench101: {0}")]
    NasBench101(#[from] NasBench101Error),
    /// A cell of NAS-Bench-201 that is none.
    #[error("nasbench201: {0}")]
    NasBench201(#[from] NasBench201Error),
    /// The preset shrinks the image more often than it can be shrunk, or does not fit it otherwise.
    #[error("preset {name} does not take images of {input}: {reason}{}", hint(*.smallest))]
    Input {
        /// The preset.
        name: String,
        /// The input that was asked for.
        input: Shape,
        /// The layer that does not fit, and why.
        reason: String,
        /// Height and width of the smallest square image that fits, where the one asked for is smaller.
        smallest: Option<usize>,
    },
}

fn hint(smallest: Option<usize>) -> String {
    smallest.map_or_else(String::new, |side| format!("; it needs {side}x{side} pixels or more"))
}

/// A design by name, for images of `input` and `num_classes` classes, or for its own if none are given.
///
/// | name | | images, classes |
/// |---|---|---|
/// | `swiftnet-imagenet` | within the size of the paper's ImageNet network, which is not published: the space of that name pruned to 53 M MACs and 2.07 M params \[ours\] | 3x224x224, 1000 |
/// | `swiftnet-vww` | the SwiftNet of the Visual Wake Words challenge, ALGORITHMS 1.9; that its cells end in an activation is \[ours\] | 3x224x224, 2 |
/// | `shrinkcnn-a` | ShrinkCNN-A of AutoShrink, ALGORITHMS 2.3; where channels differ, the identity map is a 1x1 convolution with norm \[ours\] | 3x224x224, 1001 |
/// | `mobilenet-v2-1.0` | MobileNet-V2, [arXiv:1801.04381](https://arxiv.org/abs/1801.04381); also 1.4, 1.3, 0.75, 0.5, 0.35 | 3x224x224, 1000 |
/// | `mobilenet-v2-0.35-32` | the same for small images: of the five strides the first two are left out, as is usual on CIFAR-10; also 1.0, 0.75, 0.5, 0.25, 0.15, 0.1 | 3x32x32, 10 |
/// | `mobilenet-v2-0.35-32-shallow` | … with one block a stage and a head as narrow as the rest \[ours\] | 3x32x32, 10 |
/// | `mobilenet-v3-small-minimalistic-1.0` | MobileNet-V3-small, [arXiv:1905.02244](https://arxiv.org/abs/1905.02244), without squeeze-and-excite, hard-swish and 5x5 kernels, as its authors published it as well; also 0.75 | 3x224x224, 1000 |
/// | `mobilenet-v3-small-minimalistic-0.35-32` | the same for small images, as with MobileNet-V2; its hidden layer is as narrow as the rest \[ours\]; also 1.0, 0.75, 0.5, 0.25, 0.15, 0.1 | 3x32x32, 10 |
/// | `dsconv-16` | a chain of seven depthwise-separable convolutions that starts with 16 channels \[ours\], after MobileNet-V1, [arXiv:1704.04861](https://arxiv.org/abs/1704.04861) | 3x32x32, 10 |
/// | `nasbench201:…` | a cell of NAS-Bench-201 in its network ([`NasBench201Cell`]) | 3x32x32, 10 |
/// | `nasbench101:…` | a cell of NAS-Bench-101 in its network ([`NasBench101Cell`]) | 3x32x32, 10 |
///
/// # Errors
/// [`PresetError`] if there is no such preset, or it does not take such images: a layer must not exceed its input, and none may shrink a map
/// that is one pixel high or wide.
/// # Example
/// ```
/// use gram_ir::preset;
/// let cost = preset("swiftnet-vww", None, None)?.lower()?.cost();
/// assert_eq!((cost.macs.0, cost.params.0, cost.deployed_params.0), (56_156_504, 219_786, 216_722));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn preset(name: &str, input: Option<Shape>, num_classes: Option<usize>) -> Result<Design, PresetError> {
    let recipe = Recipe::find(name)?;
    let (default_input, default_classes) = recipe.default_io();
    let (input, num_classes) = (input.unwrap_or(default_input), num_classes.unwrap_or(default_classes));
    recipe.build(input, num_classes).map_err(|reason| {
        let fits = |side: &usize| recipe.build(Shape::chw(input.c, *side, *side), num_classes).is_ok();
        let smallest = (1..=256).find(fits).filter(|&side| input.h.min(input.w) < side);
        PresetError::Input { name: recipe.name(), input, reason, smallest }
    })
}

enum Recipe {
    /// A text form.
    Architecture(Architecture),
    MobileNetV2 {
        name: String,
        member: mobilenet::MobileNetV2,
    },
    MobileNetV3 {
        name: String,
        member: mobilenet_v3::MobileNetV3Small,
    },
    DsConv {
        name: String,
        channels: usize,
    },
    NasBench101(NasBench101Cell),
    NasBench201(NasBench201Cell),
}

impl Recipe {
    fn find(name: &str) -> Result<Self, PresetError> {
        const WELL_FORMED: &str = "invariant: the text of a preset is well-formed";
        if let Some(cell) = name.strip_prefix("nasbench101:") {
            return Ok(Self::NasBench101(cell.parse()?));
        }
        if let Some(cell) = name.strip_prefix("nasbench201:") {
            return Ok(Self::NasBench201(cell.parse()?));
        }
        if let Some(member) = name.strip_prefix("mobilenet-v2-").and_then(mobilenet::MobileNetV2::named) {
            return Ok(Self::MobileNetV2 { name: name.into(), member });
        }
        let v3 = name.strip_prefix("mobilenet-v3-small-minimalistic-");
        if let Some(member) = v3.and_then(mobilenet_v3::MobileNetV3Small::named) {
            return Ok(Self::MobileNetV3 { name: name.into(), member });
        }
        if let Some(channels) = name.strip_prefix("dsconv-").and_then(dsconv::channels) {
            return Ok(Self::DsConv { name: name.into(), channels });
        }
        let text = match name {
            "swiftnet-vww" => include_str!("presets/swiftnet-vww.txt"),
            "swiftnet-imagenet" => include_str!("presets/swiftnet-imagenet.txt"),
            "shrinkcnn-a" => include_str!("presets/shrinkcnn-a.txt"),
            _ => {
                let name = name.chars().take(80).flat_map(char::escape_debug).collect();
                return Err(PresetError::Unknown { name });
            }
        };
        Ok(Self::Architecture(text.parse().expect(WELL_FORMED)))
    }

    fn name(&self) -> String {
        match self {
            Self::Architecture(architecture) => architecture.name.clone(),
            Self::MobileNetV2 { name, .. } | Self::MobileNetV3 { name, .. } | Self::DsConv { name, .. } => name.clone(),
            Self::NasBench101(cell) => cell.short_name(),
            Self::NasBench201(cell) => cell.short_name(),
        }
    }

    fn default_io(&self) -> (Shape, usize) {
        match self {
            Self::Architecture(architecture) => (architecture.input, architecture.num_classes),
            Self::MobileNetV2 { member, .. } => member.default_io(),
            Self::MobileNetV3 { member, .. } => member.default_io(),
            Self::DsConv { .. } | Self::NasBench101(_) | Self::NasBench201(_) => (Shape::chw(3, 32, 32), 10),
        }
    }

    /// The design, or what does not fit.
    fn build(&self, input: Shape, num_classes: usize) -> Result<Design, String> {
        let misfit = |error: NetworkError| error.to_string();
        let network = match self {
            Self::Architecture(architecture) => {
                let design = Design::Architecture(architecture.clone());
                let design = design.with_io(input, num_classes).map_err(|error| match error {
                    RetargetError::Input { source, .. } => source.to_string(),
                    other => other.to_string(),
                })?;
                shrinks_pixels(&design.lower().map_err(|error: LowerError| error.to_string())?)?;
                return Ok(design);
            }
            Self::MobileNetV2 { member, .. } => member.network(input, num_classes).map_err(misfit)?,
            Self::MobileNetV3 { member, .. } => member.network(input, num_classes).map_err(misfit)?,
            Self::DsConv { channels, .. } => dsconv::network(*channels, input, num_classes).map_err(misfit)?,
            Self::NasBench101(cell) => cell.network(input, num_classes).map_err(misfit)?,
            Self::NasBench201(cell) => cell.network(input, num_classes).map_err(misfit)?,
        };
        shrinks_pixels(&network)?;
        Ok(Design::Network { name: self.name(), network })
    }
}

/// Refuses layers with a stride on maps that are one pixel high or wide: they read padding where the design expects an image.
fn shrinks_pixels(network: &Network) -> Result<(), String> {
    for node in network.nodes() {
        let stride = match node.op {
            Op::Conv(conv) => conv.stride,
            Op::MaxPool(pool) | Op::AvgPool(pool) => pool.stride,
            _ => continue,
        };
        let input = network.node(node.inputs[0]).shape;
        if stride > 1 && input.h.min(input.w) == 1 {
            return Err(format!("node `{}` would shrink a map of {input}", node.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cell, CellNodeId, Verify};

    fn costs(name: &str) -> [u64; 3] {
        let cost = preset(name, None, None).unwrap().lower().unwrap().cost();
        [cost.macs.0, cost.params.0, cost.deployed_params.0]
    }

    #[test]
    fn swiftnet_has_the_golden_costs() {
        assert_eq!(costs("swiftnet-vww"), [56_156_504, 219_786, 216_722]);
        let design = preset("swiftnet-vww", None, None).unwrap();
        let network = design.lower().unwrap();
        let weights: usize =
            network.tensors().iter().filter(|t| t.role == crate::TensorRole::Weight).map(|t| t.elements()).sum();
        assert_eq!(weights, 213_656);
        let macs = |part: &str| -> u64 {
            network.node_costs().iter().filter(|node| node.name.starts_with(part)).map(|node| node.macs.0).sum()
        };
        // ALGORITHMS 1.9: 9.43 M, 27.85 M, 13.74 M, 5.14 M.
        assert_eq!(
            ["stem", "stages.0", "stages.1", "stages.2"].map(|part| (macs(part) + 5_000) / 10_000),
            [943, 2785, 1374, 514]
        );
    }

    /// AutoShrink's README says 384 M and 3.6 M.
    #[test]
    fn shrinkcnn_has_the_published_costs() {
        assert_eq!(costs("shrinkcnn-a"), [383_677_672, 3_636_301, 3_618_641]);
    }

    #[test]
    fn swiftnet_has_the_original_cells() {
        let Design::Architecture(architecture) = preset("swiftnet-vww", None, None).unwrap() else { panic!() };
        let sizes = |cell: &Cell| (cell.ops().len(), cell.edges().len(), cell.leaves().len());
        let cells: Vec<_> = architecture.stages.iter().map(|stage| sizes(&stage.cell)).collect();
        assert_eq!(cells, [(13, 24, 5), (12, 18, 6), (11, 13, 8)]);
        let leaves = |stage: usize| architecture.stages[stage].cell.leaves();
        assert_eq!(leaves(0), [25, 26, 27, 28, 29].map(CellNodeId));
        assert_eq!(leaves(1), [20, 21, 22, 25, 27, 29].map(CellNodeId));
        assert_eq!(leaves(2), [20, 21, 22, 23, 24, 25, 27, 29].map(CellNodeId));
    }

    #[test]
    fn every_preset_is_well_formed_and_named() {
        let cells = [
            "nasbench201:|none~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|",
            "nasbench101:01/00:input;output",
        ];
        for name in PRESET_NAMES.into_iter().filter(|name| !name.contains('<')).chain(cells) {
            let design = preset(name, None, None).unwrap();
            assert_eq!(design.lower().unwrap().verify(), Ok(()), "{name}");
            assert_eq!(Design::parse(&design.to_string()).unwrap(), design, "{name}");
            assert_eq!(Design::parse(&design.to_json()).unwrap(), design, "{name}");
            assert_eq!(design.name(), if name.contains(':') { design.name() } else { name });
            let small = preset(name, Some(Shape::chw(1, 64, 64)), Some(7)).unwrap();
            assert_eq!((small.input_shape(), small.num_classes()), (Shape::chw(1, 64, 64), 7));
        }
    }

    #[track_caller]
    fn refused(name: &str, input: Shape, expected: &str) {
        assert_eq!(preset(name, Some(input), None).unwrap_err().to_string(), expected);
    }

    #[test]
    fn images_that_are_too_small_are_refused() {
        refused(
            "swiftnet-vww",
            Shape::chw(1, 28, 28),
            "preset swiftnet-vww does not take images of 1x28x28: node `stages.2.pool`: \
             a window of 2 pixels does not fit into 80x1x1 padded by 0; it needs 29x29 pixels or more",
        );
        refused(
            "mobilenet-v2-0.5",
            Shape::chw(1, 8, 8),
            "preset mobilenet-v2-0.5 does not take images of 1x8x8: node `blocks.6.dw` would shrink a map of 96x1x1; \
             it needs 17x17 pixels or more",
        );
        refused(
            "shrinkcnn-a",
            Shape::chw(1, 28, 28),
            "preset shrinkcnn-a does not take images of 1x28x28: node `stages.4.pool`: \
             a window of 2 pixels does not fit into 176x1x1 padded by 0; it needs 31x31 pixels or more",
        );
        refused(
            "nasbench201:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            Shape::chw(3, 30, 30),
            "preset nasbench201-0-00-000 does not take images of 3x30x30: node `reductions.1.add`: \
             add of 64x7x7 and 64x8x8: shapes must agree",
        );
        assert!(preset("mobilenet-v2-1.0", Some(Shape::chw(1, 28, 28)), Some(10)).is_ok());
    }

    #[test]
    fn unknown_names_and_bad_numbers_are_refused() {
        let message = preset("resnet-50", None, None).unwrap_err().to_string();
        assert!(
            message.starts_with("`resnet-50` is no preset; there are swiftnet-vww, swiftnet-imagenet, "),
            "{message}"
        );
        assert!(matches!(preset("nasbench201:|x|", None, None), Err(PresetError::NasBench201(_))));
        assert!(matches!(preset("nasbench101:", None, None), Err(PresetError::NasBench101(_))));
        assert!(matches!(preset("swiftnet-vww", None, Some(0)), Err(PresetError::Input { smallest: None, .. })));
        assert!(preset("mobilenet-v2-1.0", Some(Shape::chw(0, 224, 224)), None).is_err());
    }
}
