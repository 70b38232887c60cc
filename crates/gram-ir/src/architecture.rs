//! Architectures: stem, stages with a cell each, head.

use serde::{Deserialize, Serialize};

use crate::{Activation, Cell, Shape};

/// A network as it is searched: input, stem, stages, head.
///
/// [`Architecture::lower`](crate::Architecture::lower) turns it into a [`Network`](crate::Network) of primitive operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// A name for people; letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Shape of one image.
    pub input: Shape,
    /// Number of classes, the outputs of the last layer.
    pub num_classes: usize,
    /// The non-linearity behind every norm that has one.
    pub activation: Activation,
    /// Layers before the first stage.
    pub stem: Vec<StemLayer>,
    /// The searched part.
    pub stages: Vec<Stage>,
    /// What follows the last stage.
    pub head: Head,
}

/// A layer before the first stage; convolutions are followed by batch norm and activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StemLayer {
    /// A full convolution.
    Conv {
        /// Output channels.
        channels: usize,
        /// Kernel height and width, odd.
        kernel: usize,
        /// Stride per axis.
        stride: usize,
    },
    /// A depthwise and a 1x1 convolution, each with norm and activation.
    Sep {
        /// Output channels.
        channels: usize,
        /// Kernel height and width of the depthwise part, odd.
        kernel: usize,
        /// Stride per axis of the depthwise part.
        stride: usize,
    },
    /// 2x2 max-pool with stride 2.
    Maxpool2,
}

/// How the resolution changes in front of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Downsample {
    /// It does not.
    #[default]
    None,
    /// 2x2 max-pool with stride 2, as in the shipped SwiftNet (ALGORITHMS 1.2).
    Maxpool2,
}

/// What a cell makes of its leaves.
///
/// Leaves are concatenated, projected if there is a projection, and the cell's input is added if the cell is residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellOutput {
    /// Channels of a linear 1x1 projection (with norm) of the concatenated leaves; none: they are the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<usize>,
    /// Whether the cell's input is added: as it is where channels agree, else through a linear 1x1 convolution with norm.
    #[serde(default)]
    pub residual: bool,
    /// Whether the last norm of a leaf has no activation behind it, as in AutoShrink's residual cells.
    #[serde(default)]
    pub linear_leaves: bool,
    /// Whether the activation follows the projection or the addition.
    #[serde(default)]
    pub activation: bool,
}

/// One stage: a cell, repeated, at one resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The DAG.
    pub cell: Cell,
    /// How often the cell is chained, 1 or more.
    pub repeats: usize,
    /// Channels that each operator of the cell gives.
    pub node_channels: usize,
    /// In front of the first repeat.
    pub downsample: Downsample,
    /// Behind each repeat.
    pub output: CellOutput,
}

/// What follows the last stage: an optional 1x1 convolution, global average pool, linear classifier with bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Channels of a 1x1 convolution with norm and activation before the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conv: Option<usize>,
}
