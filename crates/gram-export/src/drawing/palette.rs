//! One colour for each kind of operator, the same in every picture.

use gram_ir::CellOp;

/// Fill and outline of a node, as `#rrggbb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colours {
    pub(super) fill: &'static str,
    pub(super) line: &'static str,
}

/// Kinds of operators that share a colour, with their names in the legend.
pub(super) const KINDS: [(&str, Colours); 5] =
    [("convolution", CONV), ("separable", SEPARABLE), ("depthwise", DEPTHWISE), ("pool", POOL), ("identity", IDENTITY)];

const CONV: Colours = Colours { fill: "#dbe9fb", line: "#2f6cb5" };
const SEPARABLE: Colours = Colours { fill: "#d5f0e2", line: "#1f8a5b" };
const DEPTHWISE: Colours = Colours { fill: "#ece2fa", line: "#7a4bbf" };
const POOL: Colours = Colours { fill: "#fde7cf", line: "#c2701c" };
const IDENTITY: Colours = Colours { fill: "#eceff2", line: "#77818c" };

/// Input and output of a cell.
pub(super) const TERMINAL: Colours = Colours { fill: "#34404d", line: "#34404d" };

/// The colours of an operator.
pub(super) const fn colours(op: CellOp) -> Colours {
    match op {
        CellOp::Conv1x1 | CellOp::Conv3x3 | CellOp::Conv5x5 => CONV,
        CellOp::Sep3x3 | CellOp::Sep5x5 | CellOp::Sep7x7 => SEPARABLE,
        CellOp::Dw3x3 | CellOp::Dw5x5 | CellOp::Dw7x7 => DEPTHWISE,
        CellOp::MaxPool3x3 | CellOp::AvgPool3x3 => POOL,
        CellOp::Identity => IDENTITY,
    }
}
