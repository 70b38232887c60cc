//! MobileNet-V3-small, [arXiv:1905.02244](https://arxiv.org/abs/1905.02244), table 2, in its published variant "minimalistic": the same blocks
//! without squeeze-and-excite, hard-swish and 5x5 kernels.

use super::layers::Layers;
use super::mobilenet::{SMALL_WIDTHS, scaled};
use crate::{Activation, Conv2d, Network, NetworkError, NodeId, Op, Shape};

/// Expanded channels, output channels and stride.
const BLOCKS: [(usize, usize, usize); 11] = [
    (16, 16, 2),
    (72, 24, 2),
    (88, 24, 1),
    (96, 40, 2),
    (240, 40, 1),
    (240, 40, 1),
    (120, 48, 1),
    (144, 48, 1),
    (288, 96, 2),
    (576, 96, 1),
    (576, 96, 1),
];

const STEM: usize = 16;
const LAST_CONV: usize = 576;
const HIDDEN: usize = 1024;

/// Width multipliers in hundredths, as the presets name them.
const WIDTHS: [(&str, usize); 2] = [("1.0", 100), ("0.75", 75)];

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MobileNetV3Small {
    /// Width multiplier in hundredths.
    width: usize,
    /// For images of 32 pixels: the first two of the five strides are left out, and the hidden layer is as narrow as the rest \[ours\].
    is_small: bool,
}

impl MobileNetV3Small {
    /// The member that is called `mobilenet-v3-small-minimalistic-{name}`.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (widths, width, is_small) = match name.strip_suffix("-32") {
            Some(width) => (&SMALL_WIDTHS[..], width, true),
            None => (&WIDTHS[..], name, false),
        };
        widths.iter().find(|(text, _)| *text == width).map(|&(_, width)| Self { width, is_small })
    }

    /// Images and classes that it was made for.
    pub(super) fn default_io(self) -> (Shape, usize) {
        if self.is_small { (Shape::chw(3, 32, 32), 10) } else { (Shape::chw(3, 224, 224), 1000) }
    }

    pub(super) fn network(self, input: Shape, num_classes: usize) -> Result<Network, NetworkError> {
        let mut layers = Layers::new(input)?;
        let stem = Conv2d::new(input.c, scaled(STEM, self.width), 3).stride(if self.is_small { 1 } else { 2 });
        let mut tip = layers.conv_bn_act("stem.conv", stem, Activation::Relu, layers.input())?;
        for (i, (expanded, channels, stride)) in BLOCKS.into_iter().enumerate() {
            let stride = if self.is_small && i == 0 { 1 } else { stride };
            let sizes = (scaled(expanded, self.width), scaled(channels, self.width), stride);
            tip = block(&mut layers, &format!("blocks.{i}"), sizes, tip)?;
        }
        let last = Conv2d::new(layers.channels(tip), scaled(LAST_CONV, self.width), 1);
        tip = layers.conv_bn_act("head.conv", last, Activation::Relu, tip)?;
        // Without norm, on the pooled features, as in the paper.
        tip = layers.add("head.pool", Op::GlobalAvgPool, &[tip])?;
        let width = if self.is_small { self.width } else { self.width.max(100) };
        let hidden = scaled(HIDDEN, width);
        tip =
            layers.add("head.hidden", Op::Linear { c_in: layers.channels(tip), c_out: hidden, bias: true }, &[tip])?;
        tip = layers.act("head.hidden_act", Activation::Relu, tip)?;
        let classifier = Op::Linear { c_in: hidden, c_out: num_classes, bias: true };
        tip = layers.add("head.classifier", classifier, &[tip])?;
        layers.finish(tip)
    }
}

/// 1x1 expansion where there is one, depthwise 3x3, linear 1x1 projection; the input is added where shapes allow.
fn block(
    layers: &mut Layers,
    name: &str,
    (expanded, channels, stride): (usize, usize, usize),
    input: NodeId,
) -> Result<NodeId, NetworkError> {
    let c_in = layers.channels(input);
    let mut tip = input;
    if expanded != c_in {
        tip = layers.conv_bn_act(&format!("{name}.expand"), Conv2d::new(c_in, expanded, 1), Activation::Relu, tip)?;
    }
    let depthwise = Conv2d::depthwise(expanded, 3).stride(stride);
    tip = layers.conv_bn_act(&format!("{name}.dw"), depthwise, Activation::Relu, tip)?;
    tip = layers.conv_bn(&format!("{name}.project"), Conv2d::new(expanded, channels, 1), tip)?;
    if stride == 1 && c_in == channels {
        tip = layers.add(&format!("{name}.add"), Op::Add, &[input, tip])?;
    }
    Ok(tip)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nas/timm` has 2.04 M params and 1.41 M outputs of convolutions and linear layers for `tf_mobilenetv3_small_minimal_100`.
    ///
    /// The authors' table says 65 M multiply-adds, but also 66 M for the variant with squeeze-and-excite and 5x5 kernels, which torchvision
    /// and timm count as 57 M; without these two that leaves the 52 M that are counted here.
    #[test]
    fn full_width_has_the_published_size() {
        let network = MobileNetV3Small::named("1.0").unwrap().network(Shape::chw(3, 224, 224), 1000).unwrap();
        let cost = network.cost();
        assert_eq!((cost.macs, cost.params.0 / 10_000), (crate::Macs(52_288_448), 204));
        let outputs = |node: &crate::Node| match node.op {
            Op::Conv(_) | Op::Linear { .. } => node.shape.elements(),
            _ => 0,
        };
        assert_eq!(network.nodes().iter().map(outputs).sum::<usize>() / 10_000, 141);
    }

    #[test]
    fn small_images_leave_four_pixels_by_four() {
        for (name, _) in SMALL_WIDTHS {
            let member = MobileNetV3Small::named(&format!("{name}-32")).unwrap();
            let (input, num_classes) = member.default_io();
            let network = member.network(input, num_classes).unwrap();
            let pool = network.nodes().iter().find(|node| node.op == Op::GlobalAvgPool).unwrap();
            let last = network.node(pool.inputs[0]).shape;
            assert_eq!((last.h, last.w), (4, 4), "{name}");
        }
        assert!(MobileNetV3Small::named("1.4-32").is_none() && MobileNetV3Small::named("0.1").is_none());
    }
}
