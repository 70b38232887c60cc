//! NAS-Bench-201, [arXiv:2001.00326](https://arxiv.org/abs/2001.00326): cells of four nodes with an operator on each edge.

use std::fmt;
use std::str::FromStr;

use super::layers::Layers;
use crate::{Activation, Conv2d, Network, NetworkError, NodeId, Op, Pool, Shape};

/// The operator on an edge of a [`NasBench201Cell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NasBench201Op {
    /// No edge.
    None,
    /// The source as it is.
    SkipConnect,
    /// ReLU, 1x1 convolution, batch norm.
    Conv1x1,
    /// ReLU, 3x3 convolution, batch norm.
    Conv3x3,
    /// 3x3 mean over the pixels inside the image.
    AvgPool3x3,
}

impl NasBench201Op {
    /// All operators, in the benchmark's order.
    pub const ALL: [Self; 5] = [Self::None, Self::SkipConnect, Self::Conv1x1, Self::Conv3x3, Self::AvgPool3x3];

    /// The benchmark's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SkipConnect => "skip_connect",
            Self::Conv1x1 => "nor_conv_1x1",
            Self::Conv3x3 => "nor_conv_3x3",
            Self::AvgPool3x3 => "avg_pool_3x3",
        }
    }
}

/// A cell of NAS-Bench-201; prints and parses as `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.
///
/// Node 0 is the input, node 3 the output; every node is the sum of its edges.
///
/// # Example
/// ```
/// use gram_ir::{NasBench201Cell, Shape};
/// let text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|";
/// let cell: NasBench201Cell = text.parse()?;
/// assert_eq!(cell.to_string(), text);
/// assert_eq!(cell.network(Shape::chw(3, 32, 32), 10)?.params().0, 1_531_546); // the benchmark's largest
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NasBench201Cell {
    /// Operators of the edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3.
    pub ops: [NasBench201Op; 6],
}

/// Sources of the edges into nodes 1, 2 and 3.
const EDGES: [(usize, usize); 6] = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];
/// Cells of a stage.
const CELLS: usize = 5;
/// Channels of the first stage; doubled for each further one.
const CHANNELS: usize = 16;

impl NasBench201Cell {
    /// The network that the benchmark trains: 3x3 stem of 16 channels, three stages of five cells with 16, 32 and 64 channels, a residual
    /// block with stride 2 before the second and third, norm, ReLU, global pool and classifier.
    ///
    /// A node without edges is zero. Operators whose results the output does not need are part of the network, as in the benchmark.
    /// Its `params` are the benchmark's; the benchmark's FLOPs are the MACs and, on top, the classifier's bias.
    /// # Errors
    /// [`NetworkError`] where a layer does not fit the input: height and width must be multiples of 4, or odd halves would not add up.
    pub fn network(&self, input: Shape, num_classes: usize) -> Result<Network, NetworkError> {
        let mut layers = Layers::new(input)?;
        let mut tip = layers.conv_bn("stem.conv", Conv2d::new(input.c, CHANNELS, 3), layers.input())?;
        for stage in 0..3 {
            if stage > 0 {
                tip = reduction(&mut layers, &format!("reductions.{}", stage - 1), tip)?;
            }
            for i in 0..CELLS {
                tip = self.cell(&mut layers, &format!("stages.{stage}.cells.{i}"), tip)?;
            }
        }
        let channels = layers.channels(tip);
        tip = layers.add("head.bn", Op::BatchNorm { channels }, &[tip])?;
        tip = layers.act("head.act", Activation::Relu, tip)?;
        layers.classifier(num_classes, tip)
    }

    fn cell(&self, layers: &mut Layers, name: &str, input: NodeId) -> Result<NodeId, NetworkError> {
        let mut nodes = vec![input];
        for target in 1..=3 {
            let mut terms = Vec::new();
            for (&(source, _), &op) in EDGES.iter().zip(&self.ops).filter(|((_, to), _)| *to == target) {
                terms.extend(edge(layers, &format!("{name}.e{source}{target}"), op, nodes[source])?);
            }
            let node = match terms.is_empty() {
                true => layers.add(&format!("{name}.n{target}.zero"), Op::Zero, &[input])?,
                false => layers.sum(&format!("{name}.n{target}"), &terms)?,
            };
            nodes.push(node);
        }
        Ok(nodes[3])
    }

    /// A short name: the operators as digits in the order of [`NasBench201Op::ALL`], e.g. `nasbench201-3-33-333`.
    pub(super) fn short_name(&self) -> String {
        let digit = |op| NasBench201Op::ALL.iter().position(|other| *other == op).unwrap_or(0);
        let [a, b, c, d, e, f] = self.ops.map(digit);
        format!("nasbench201-{a}-{b}{c}-{d}{e}{f}")
    }
}

/// What an edge adds to its target; nothing for `none`.
fn edge(layers: &mut Layers, name: &str, op: NasBench201Op, source: NodeId) -> Result<Option<NodeId>, NetworkError> {
    let channels = layers.channels(source);
    let kernel = match op {
        NasBench201Op::None => return Ok(None),
        NasBench201Op::SkipConnect => return Ok(Some(source)),
        NasBench201Op::AvgPool3x3 => {
            return layers.add(&format!("{name}.pool"), Op::AvgPool(Pool::new(3, 1, 1)), &[source]).map(Some);
        }
        NasBench201Op::Conv1x1 => 1,
        NasBench201Op::Conv3x3 => 3,
    };
    relu_conv_bn(layers, name, Conv2d::new(channels, channels, kernel), source).map(Some)
}

fn relu_conv_bn(layers: &mut Layers, name: &str, conv: Conv2d, source: NodeId) -> Result<NodeId, NetworkError> {
    let relu = layers.act(&format!("{name}.relu"), Activation::Relu, source)?;
    layers.conv_bn(&format!("{name}.conv"), conv, relu)
}

/// Two 3x3 convolutions, the first with stride 2; 2x2 mean and 1x1 convolution without norm as shortcut; channels are doubled.
fn reduction(layers: &mut Layers, name: &str, input: NodeId) -> Result<NodeId, NetworkError> {
    let c_in = layers.channels(input);
    let c_out = 2 * c_in;
    let first = relu_conv_bn(layers, &format!("{name}.a"), Conv2d::new(c_in, c_out, 3).stride(2), input)?;
    let second = relu_conv_bn(layers, &format!("{name}.b"), Conv2d::new(c_out, c_out, 3), first)?;
    let pooled = layers.add(&format!("{name}.shortcut.pool"), Op::AvgPool(Pool::new(2, 2, 0)), &[input])?;
    let shortcut = layers.add(&format!("{name}.shortcut.conv"), Op::Conv(Conv2d::new(c_in, c_out, 1)), &[pooled])?;
    layers.add(&format!("{name}.add"), Op::Add, &[shortcut, second])
}

impl fmt::Display for NasBench201Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((source, target), op) in EDGES.iter().zip(&self.ops) {
            match (source, target) {
                (0, 1) => f.write_str("|")?,
                (0, _) => f.write_str("+|")?,
                _ => {}
            }
            write!(f, "{}~{source}|", op.name())?;
        }
        Ok(())
    }
}

/// Why a text is no cell of NAS-Bench-201.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {expected} in a cell of the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")]
pub struct NasBench201Error {
    /// The part that does not belong; long ones are cut.
    pub found: String,
    /// What could stand there.
    pub expected: String,
}

impl FromStr for NasBench201Cell {
    type Err = NasBench201Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |found: &str, expected: String| NasBench201Error {
            found: found.chars().take(80).flat_map(char::escape_debug).collect(),
            expected,
        };
        let groups: Vec<&str> = text.split('+').collect();
        if groups.len() != 3 {
            return Err(fail(text, "three groups joined by `+`".into()));
        }
        let mut ops = Vec::new();
        for (i, group) in groups.into_iter().enumerate() {
            let inner = group.strip_prefix('|').and_then(|group| group.strip_suffix('|'));
            let edges: Vec<&str> = inner.ok_or_else(|| fail(group, "a group between `|`".into()))?.split('|').collect();
            if edges.len() != i + 1 {
                return Err(fail(group, format!("a group of {}", i + 1)));
            }
            for (source, edge) in edges.into_iter().enumerate() {
                let op = NasBench201Op::ALL.into_iter().find(|op| format!("{}~{source}", op.name()) == edge);
                let menu = NasBench201Op::ALL.map(NasBench201Op::name).join(", ");
                ops.push(op.ok_or_else(|| fail(edge, format!("one of {menu}, and ~{source},")))?);
            }
        }
        let ops = ops.try_into().map_err(|_| fail(text, "a cell of six edges".into()))?;
        Ok(Self { ops })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_cells() -> impl Iterator<Item = NasBench201Cell> {
        (0..5usize.pow(6)).map(|n| {
            let ops = std::array::from_fn(|i| NasBench201Op::ALL[n / 5usize.pow(i as u32) % 5]);
            NasBench201Cell { ops }
        })
    }

    #[test]
    fn all_cells_print_and_parse_back() {
        assert_eq!(all_cells().count(), 15_625);
        for cell in all_cells() {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
    }

    /// Extremes of the benchmark's own tables: params and FLOPs, which count the classifier's bias.
    #[test]
    fn extremes_of_the_published_tables() {
        let cost = |op, side, classes| {
            let network = NasBench201Cell { ops: [op; 6] }.network(Shape::chw(3, side, side), classes).unwrap();
            (network.params().0, network.cost().macs.0 + classes as u64)
        };
        let (least, most) = (NasBench201Op::None, NasBench201Op::Conv3x3);
        assert_eq!([cost(least, 32, 10), cost(most, 32, 10)], [(73_306, 7_783_050), (1_531_546, 220_119_690)]);
        assert_eq!([cost(least, 32, 100), cost(most, 32, 100)], [(79_156, 7_788_900), (1_537_396, 220_125_540)]);
        assert_eq!([cost(least, 16, 120).1, cost(most, 16, 120).1], [1_953_400, 55_037_560]);
    }

    #[test]
    fn nodes_without_edges_are_zero() {
        use NasBench201Op::{AvgPool3x3, Conv1x1, None, SkipConnect};
        let cell = NasBench201Cell { ops: [None, SkipConnect, Conv1x1, None, AvgPool3x3, None] };
        let network = cell.network(Shape::chw(3, 8, 8), 10).unwrap();
        let kind = |name: &str| network.find(name).map(|id| network.node(id).op.kind());
        assert_eq!(kind("stages.0.cells.0.n1.zero"), Some("zero"));
        assert_eq!(kind("stages.0.cells.0.n2"), Some("add"));
        assert_eq!(kind("stages.0.cells.0.n3"), Option::None, "one edge needs no sum");
        assert_eq!(cell.short_name(), "nasbench201-0-12-040");
    }

    #[test]
    fn bad_texts_are_refused() {
        let message = |text: &str| text.parse::<NasBench201Cell>().unwrap_err().to_string();
        assert!(message("").starts_with("`` is not three groups joined by `+`"));
        assert!(
            message("none~0+|none~0|none~1|+|none~0|none~1|none~2|").starts_with("`none~0` is not a group between `|`")
        );
        assert!(message("|none~0|none~1|+|none~0|+|none~0|").starts_with("`|none~0|none~1|` is not a group of 1"));
        assert!(message("|none~0|+|none~0|nore~1|+|none~0|none~1|none~2|").starts_with(
            "`nore~1` is not one of none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3, and ~1, in a cell"
        ));
    }
}
