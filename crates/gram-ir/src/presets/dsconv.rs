//! A hand-made chain of depthwise-separable convolutions: what a search must beat first.

use super::layers::Layers;
use crate::{Activation, Conv2d, Network, NetworkError, Shape};

/// Channels, in multiples of the stem's, and stride of each layer.
const LAYERS: [(usize, usize); 7] = [(1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)];

/// The stem's channels, from the preset's name.
pub(super) fn channels(text: &str) -> Option<usize> {
    text.parse().ok().filter(|channels: &usize| (4..=256).contains(channels) && text == channels.to_string())
}

/// 3x3 stem, seven times depthwise 3x3 and 1x1, pooled: maps shrink 8-fold, and channels double with each stride.
///
/// # Source
/// \[ours\], with the layers of MobileNet-V1, [arXiv:1704.04861](https://arxiv.org/abs/1704.04861).
pub(super) fn network(channels: usize, input: Shape, num_classes: usize) -> Result<Network, NetworkError> {
    let mut layers = Layers::new(input)?;
    let stem = Conv2d::new(input.c, channels, 3);
    let mut tip = layers.conv_bn_act("stem.conv", stem, Activation::Relu6, layers.input())?;
    for (i, (multiple, stride)) in LAYERS.into_iter().enumerate() {
        let c_in = layers.channels(tip);
        let depthwise = Conv2d::depthwise(c_in, 3).stride(stride);
        tip = layers.conv_bn_act(&format!("blocks.{i}.dw"), depthwise, Activation::Relu6, tip)?;
        let pointwise = Conv2d::new(c_in, multiple * channels, 1);
        tip = layers.conv_bn_act(&format!("blocks.{i}.pw"), pointwise, Activation::Relu6, tip)?;
    }
    layers.classifier(num_classes, tip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_by_hand() {
        let cost = network(4, Shape::chw(3, 32, 32), 10).unwrap().cost();
        // Map sizes 32², 16², 8², 4²: stem 3·9·4; then dw 9·c_in on the output's map and pw c_in·c_out.
        let stem = 108 * 1024;
        let blocks =
            (36 + 16) * 1024 + (36 + 32 + 72 + 64) * 256 + (72 + 128 + 144 + 256) * 64 + (144 + 512 + 288 + 1024) * 16;
        assert_eq!(cost.macs.0, stem + blocks + 320);
        assert_eq!((channels("16"), channels("016"), channels("3"), channels("x")), (Some(16), None, None, None));
    }
}
