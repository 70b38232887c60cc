//! MobileNet-V2, [arXiv:1801.04381](https://arxiv.org/abs/1801.04381), table 2.

use super::layers::Layers;
use crate::{Activation, Conv2d, Network, NetworkError, NodeId, Op, Shape};

/// Expansion, output channels, repeats and stride of the first repeat.
const BLOCKS: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// Width multipliers in hundredths, as the presets name them.
pub(super) const WIDTHS: [(&str, usize); 6] =
    [("1.4", 140), ("1.3", 130), ("1.0", 100), ("0.75", 75), ("0.5", 50), ("0.35", 35)];

/// MobileNet-V2 with channels multiplied by `width` hundredths; the last convolution is not made narrower than 1280.
pub(super) fn mobilenet_v2(width: usize, input: Shape, num_classes: usize) -> Result<Network, NetworkError> {
    let mut layers = Layers::new(input)?;
    let stem = Conv2d::new(input.c, scaled(32, width), 3).stride(2);
    let mut tip = layers.conv_bn_act("stem.conv", stem, Activation::Relu6, layers.input())?;
    let repeated = BLOCKS.iter().flat_map(|&(expansion, channels, repeats, stride)| {
        (0..repeats).map(move |i| (expansion, channels, if i == 0 { stride } else { 1 }))
    });
    for (i, (expansion, channels, stride)) in repeated.enumerate() {
        let block = Block { expansion, channels: scaled(channels, width), stride };
        tip = inverted_residual(&mut layers, &format!("blocks.{i}"), block, tip)?;
    }
    let head = Conv2d::new(layers.channels(tip), scaled(1280, width.max(100)), 1);
    tip = layers.conv_bn_act("head.conv", head, Activation::Relu6, tip)?;
    layers.classifier(num_classes, tip)
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
fn scaled(channels: usize, width: usize) -> usize {
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
        let network = mobilenet_v2(100, Shape::chw(3, 224, 224), 1000).unwrap();
        let cost = network.cost();
        assert_eq!(cost.params.0, 3_504_872);
        assert_eq!(cost.macs.0, 300_774_272);
    }
}
