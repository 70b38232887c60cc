//! MobileNet-V2, [arXiv:1801.04381](https://arxiv.org/abs/1801.04381), table 2, and the variants that small images are usually given.

use super::layers::Layers;
use crate::{Activation, Conv2d, Network, NetworkError, NodeId, Op, Shape};

/// Expansion, output channels, repeats and stride of the first repeat.
const BLOCKS: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// Width multipliers in hundredths, as the presets name them.
const WIDTHS: [(&str, usize); 6] = [("1.4", 140), ("1.3", 130), ("1.0", 100), ("0.75", 75), ("0.5", 50), ("0.35", 35)];

/// … and those of the variants for small images.
pub(super) const SMALL_WIDTHS: [(&str, usize); 7] =
    [("1.0", 100), ("0.75", 75), ("0.5", 50), ("0.35", 35), ("0.25", 25), ("0.15", 15), ("0.1", 10)];

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MobileNetV2 {
    /// Width multiplier in hundredths.
    width: usize,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Table 2 of the paper, for images of 224 pixels: maps shrink 32-fold.
    Published,
    /// For images of 32 pixels: the first two of the five strides are left out, as is usual on CIFAR-10, so maps shrink 8-fold.
    Small,
    /// As `Small`, with one block a stage and a last convolution that is as narrow as the rest: the better one where little is allowed \[ours\].
    Shallow,
}

impl MobileNetV2 {
    /// The member that is called `mobilenet-v2-{name}`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (widths, layout, width) = match (name.strip_suffix("-32"), name.strip_suffix("-32-shallow")) {
            (Some(width), _) => (&SMALL_WIDTHS[..], Layout::Small, width),
            (_, Some(width)) => (&SMALL_WIDTHS[..], Layout::Shallow, width),
            _ => (&WIDTHS[..], Layout::Published, name),
        };
        widths.iter().find(|(text, _)| *text == width).map(|&(_, width)| Self { width, layout })
    }

    /// Images and classes that it was made for.
    pub(super) fn default_io(self) -> (Shape, usize) {
        match self.layout {
            Layout::Published => (Shape::chw(3, 224, 224), 1000),
            Layout::Small | Layout::Shallow => (Shape::chw(3, 32, 32), 10),
        }
    }

    /// Channels are multiplied by the width; the last convolution is not made narrower than 1280, but for the shallow ones.
    pub(super) fn network(self, input: Shape, num_classes: usize) -> Result<Network, NetworkError> {
        let mut layers = Layers::new(input)?;
        let is_small = self.layout != Layout::Published;
        let stem = Conv2d::new(input.c, scaled(32, self.width), 3).stride(if is_small { 1 } else { 2 });
        let mut tip = layers.conv_bn_act("stem.conv", stem, Activation::Relu6, layers.input())?;
        let stages = BLOCKS.iter().enumerate().flat_map(|(stage, &(expansion, channels, repeats, stride))| {
            let repeats = if self.layout == Layout::Shallow { 1 } else { repeats };
            let first = if is_small && stage == 1 { 1 } else { stride };
            (0..repeats).map(move |i| (expansion, channels, if i == 0 { first } else { 1 }))
        });
        for (i, (expansion, channels, stride)) in stages.enumerate() {
            let block = Block { expansion, channels: scaled(channels, self.width), stride };
            tip = inverted_residual(&mut layers, &format!("blocks.{i}"), block, tip)?;
        }
        let width = if self.layout == Layout::Shallow { self.width } else { self.width.max(100) };
        let head = Conv2d::new(layers.channels(tip), scaled(1280, width), 1);
        tip = layers.conv_bn_act("head.conv", head, Activation::Relu6, tip)?;
        layers.classifier(num_classes, tip)
    }
}

struct Block {
    expansion: usize,
    channels: usize,
    stride: usize,
}

/// 1x1 expansion, depthwise 3x3, linear 1x1 projection; the input is added where shapes allow.
fn inverted_residual(layers: &mut Layers, name: &str, block: Block, input: NodeId) -> Result<NodeId, NetworkError> {
    let c_in = layers.channels(input);
    let hidden = c_in * block.expansion;
    let mut tip = input;
    if block.expansion > 1 {
        tip = layers.conv_bn_act(&format!("{name}.expand"), Conv2d::new(c_in, hidden, 1), Activation::Relu6, tip)?;
    }
    let depthwise = Conv2d::depthwise(hidden, 3).stride(block.stride);
    tip = layers.conv_bn_act(&format!("{name}.dw"), depthwise, Activation::Relu6, tip)?;
    tip = layers.conv_bn(&format!("{name}.project"), Conv2d::new(hidden, block.channels, 1), tip)?;
    if block.stride == 1 && c_in == block.channels {
        tip = layers.add(&format!("{name}.add"), Op::Add, &[input, tip])?;
    }
    Ok(tip)
}

/// `channels · width / 100`, rounded to a multiple of 8, but not down by more than a tenth; at least 8.
///
/// # Source
/// `make_divisible` of the authors' release, in integers.
pub(super) fn scaled(channels: usize, width: usize) -> usize {
    let hundredfold = channels * width;
    let rounded = ((hundredfold + 400) / 800 * 8).max(8);
    if rounded * 1000 < hundredfold * 9 { rounded + 8 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_multiples_of_eight() {
        // 11.2 is nearest to 8, but that is less than nine tenths of it.
        assert_eq!((scaled(32, 35), scaled(16, 35), scaled(24, 35)), (16, 8, 8));
        assert_eq!((scaled(24, 75), scaled(1280, 140), scaled(1280, 100)), (24, 1792, 1280));
    }

    #[test]
    fn full_width_has_the_published_params() {
        let network = MobileNetV2::named("1.0").unwrap().network(Shape::chw(3, 224, 224), 1000).unwrap();
        let cost = network.cost();
        assert_eq!(cost.params.0, 3_504_872);
        assert_eq!(cost.macs.0, 300_774_272);
    }

    #[test]
    fn small_images_leave_four_pixels_by_four() {
        let built = |name| MobileNetV2::named(name).unwrap().network(Shape::chw(3, 32, 32), 10).unwrap();
        for (name, n_blocks) in [("1.0-32", 17), ("0.1-32-shallow", 7)] {
            let network = built(name);
            let pool = network.nodes().iter().find(|node| node.op == Op::GlobalAvgPool).unwrap();
            let last = network.node(pool.inputs[0]).shape;
            assert_eq!((last.h, last.w), (4, 4), "{name}");
            let n_depthwise = network.nodes().iter().filter(|node| node.name.ends_with(".dw")).count();
            assert_eq!(n_depthwise, n_blocks, "{name}");
        }
        // The published layers with a classifier of 10 classes.
        assert_eq!(built("1.0-32").cost().params.0, 3_504_872 - 990 * 1281);
        assert!(MobileNetV2::named("1.4-32").is_none() && MobileNetV2::named("0.1").is_none());
    }
}
