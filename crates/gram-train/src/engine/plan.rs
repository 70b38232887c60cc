//! A network as stored maps and what reads them.
//!
//! A map is what one operator stores: raw, in front of batch norm and activation. Those two belong to the map and are applied whenever it is
//! read, so each map has exactly one lifted value; where a network reads something in between, a copy is stored. A concatenation is no map but
//! a list of them.

use gram_ir::{Conv2d, Pool};
use gram_kernels::{Activation, LANES, Plane, Window};

/// Index of a map, which is also the index of the operator that stores it.
pub(crate) type MapId = usize;

/// Sixteen channels of a map, or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes {
    /// Number of the first one among the map's own channels, padding left out.
    pub(crate) first: usize,
    /// How many there are; the other lanes are zeros.
    pub(crate) depth: usize,
}

/// The blocks of a map with these numbers of channels side by side, each padded to whole blocks; those that need no padding are merged.
pub(crate) fn blocks(segments: impl IntoIterator<Item = usize>) -> Vec<Lanes> {
    let (mut blocks, mut first) = (Vec::new(), 0);
    for channels in segments {
        for at in (0..channels).step_by(LANES) {
            blocks.push(Lanes { first: first + at, depth: LANES.min(channels - at) });
        }
        first += channels;
    }
    blocks
}

/// The tensors of a batch norm, as indices into [`gram_ir::Network::tensors`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NormTensors {
    pub(crate) scale: usize,
    pub(crate) shift: usize,
    pub(crate) mean: usize,
    pub(crate) var: usize,
}

/// Blocks of channels with what is applied when they are read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Site {
    pub(crate) blocks: Vec<Lanes>,
    /// Pixels of one image.
    pub(crate) pixels: usize,
    /// Bias of the convolution that stores the map.
    pub(crate) bias: Option<usize>,
    pub(crate) norm: Option<NormTensors>,
    pub(crate) activation: Activation,
}

impl Site {
    /// Channels, padding included.
    pub(crate) fn stride(&self) -> usize {
        self.blocks.len() * LANES
    }

    /// Elements of one image.
    pub(crate) fn image_len(&self) -> usize {
        self.pixels * self.stride()
    }
}

/// What a map is computed from its inputs by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Input,
    Zero,
    /// 1x1 convolution with stride 1 and without border.
    Pointwise {
        conv: Conv2d,
        weight: usize,
    },
    /// Any other convolution but those that are depthwise.
    Conv {
        conv: Conv2d,
        weight: usize,
    },
    Depthwise {
        conv: Conv2d,
        weight: usize,
    },
    /// Depthwise with stride 1 and equal size, norm, activation, then 1x1; what lies in between, the inner site, is never stored.
    Sep {
        kernel: usize,
        depthwise: usize,
        inner: Site,
        conv: Conv2d,
        weight: usize,
    },
    MaxPool(Pool),
    AvgPool(Pool),
    /// Sum of terms of equal size; a single term is a copy.
    Sum,
    Global,
}

/// A block of one of an operator's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Index of the input.
    pub(crate) input: usize,
    pub(crate) map: MapId,
    /// The map's block.
    pub(crate) block: usize,
    /// Its channels among those of all inputs, concatenated; among those of its term for [`Kind::Sum`].
    pub(crate) lanes: Lanes,
}

/// A map and its operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Map {
    pub(crate) plane: Plane,
    pub(crate) site: Site,
    pub(crate) kind: Kind,
    pub(crate) inputs: Vec<MapId>,
    /// The blocks of all inputs, one input behind the other.
    pub(crate) slices: Vec<Slice>,
    /// Who reads it and is differentiated: the operator, and the slice of it at which this map's blocks begin.
    pub(crate) readers: Vec<(MapId, usize)>,
    /// The separable convolutions among all that read it, whether gradients pass them or not.
    pub(crate) separables: Vec<(MapId, usize)>,
    /// Whether its gradient is needed.
    pub(crate) differentiated: bool,
}

impl Map {
    /// Size of the lifted input of a block in scratch memory, where the operator needs one with a border.
    pub(crate) fn border(&self) -> Option<usize> {
        match self.kind {
            Kind::Conv { conv, .. } | Kind::Depthwise { conv, .. } => Some(conv.padding),
            Kind::Sep { kernel, .. } => Some(kernel / 2),
            Kind::MaxPool(pool) | Kind::AvgPool(pool) => Some(pool.padding),
            _ => None,
        }
    }

    /// Kernel, stride and dilation, where the operator has windows.
    pub(crate) fn window(&self) -> Window {
        match self.kind {
            Kind::Conv { conv, .. } | Kind::Depthwise { conv, .. } => {
                Window { kernel: conv.kernel, stride: conv.stride, dilation: conv.dilation }
            }
            Kind::MaxPool(pool) | Kind::AvgPool(pool) => {
                Window { kernel: pool.kernel, stride: pool.stride, dilation: 1 }
            }
            _ => Window { kernel: 1, stride: 1, dilation: 1 },
        }
    }

    /// The block of the map that has just these channels.
    pub(crate) fn block_of(&self, lanes: Lanes) -> Option<usize> {
        self.site.blocks.iter().position(|&own| own == lanes)
    }

    /// Where each of these channels stands in a pixel of the map.
    pub(crate) fn places(&self, lanes: Lanes) -> impl Iterator<Item = usize> + '_ {
        let place = |c: usize| {
            let block = self.site.blocks.partition_point(|own| own.first + own.depth <= c);
            block * LANES + c - self.site.blocks[block].first
        };
        (lanes.first..lanes.first + lanes.depth).map(place)
    }
}

/// Part of the network's output: a map and where its channels begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) map: MapId,
    pub(crate) first: usize,
}

/// All maps in execution order; the first one is the input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) maps: Vec<Map>,
    pub(crate) outputs: Vec<Output>,
    /// Channels of the output.
    pub(crate) n_out: usize,
    /// For each tensor whether a gradient reaches it.
    pub(crate) differentiated: Vec<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_pad_each_segment() {
        let of = |segments: &[usize]| -> Vec<(usize, usize)> {
            blocks(segments.iter().copied()).iter().map(|lanes| (lanes.first, lanes.depth)).collect()
        };
        assert_eq!(of(&[40]), [(0, 16), (16, 16), (32, 8)]);
        assert_eq!(of(&[16, 16]), of(&[32]));
        assert_eq!(of(&[3, 20]), [(0, 3), (3, 16), (19, 4)]);
    }
}
