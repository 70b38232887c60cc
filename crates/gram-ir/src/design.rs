//! Anything that a user can name as a model: an architecture or a network, read from JSON or text.

use std::fmt;
use std::str::FromStr;

use crate::json::{Kind, kind_of};
use crate::text::{check_length, lines, read_network};
use crate::verify::{is_name, network_with_input, verify_fields};
use crate::{
    Architecture, Conv2d, JsonError, LowerError, Network, NetworkError, NodeId, Op, Shape, TextError, Violations,
};

/// An architecture, or a network that was never one (MobileNet, a benchmark's cell, a rewritten network).
///
/// # Example
/// ```
/// use gram_ir::{Design, Shape};
/// let design = Design::parse("network tiny\nn0 = input 3x8x8\nn1 = global-avgpool n0\nn2 = linear/2 n1 bias\noutput n2")?;
/// assert_eq!((design.name(), design.num_classes()), ("tiny", 2));
/// let grey = design.with_io(Shape::chw(1, 28, 28), 10)?;
/// assert_eq!(grey.lower()?.params().0, 1 * 10 + 10);
/// assert_eq!(Design::parse(&grey.to_json())?, grey);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Design {
    /// Stem, stages, head.
    Architecture(Architecture),
    /// Primitive operators.
    Network {
        /// A name for people; letters, digits, `.`, `_` and `-`.
        name: String,
        /// The network.
        network: Network,
    },
}

/// Why a design could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DesignError {
    /// In the JSON form.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// In the text form.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// Why a design cannot have another input or number of classes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetargetError {
    /// The input's shape or the number of classes is out of range.
    #[error("{0}")]
    OutOfRange(Violations),
    /// The layers do not fit the input.
    #[error("an input of {input} does not fit: {source}")]
    Input {
        /// The input that was asked for.
        input: Shape,
        /// The layer that does not fit.
        source: Box<LowerError>,
    },
    /// The network does not end in a linear layer, so its number of classes is fixed.
    #[error("the network gives {has} and does not end in a linear layer, so it cannot have {wanted} classes")]
    NoClassifier {
        /// Shape of the output.
        has: Shape,
        /// Number of classes that was asked for.
        wanted: usize,
    },
}

impl Design {
    /// Reads JSON, if the first mark is `{`, or else text.
    ///
    /// # Errors
    /// [`DesignError`] with line and column, or the node.
    pub fn parse(text: &str) -> Result<Self, DesignError> {
        let text = text.trim_start_matches('\u{feff}');
        if text.trim_start().starts_with('{') { Ok(Self::from_json(text)?) } else { Ok(Self::from_text(text)?) }
    }

    /// Reads the JSON form of an architecture or a network.
    ///
    /// # Errors
    /// [`JsonError`] with line and column, or the node.
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        match kind_of(text)? {
            Kind::Architecture => Architecture::from_json(text).map(Self::Architecture),
            Kind::Network => Network::from_json(text).map(|(name, network)| Self::Network { name, network }),
        }
    }

    /// The JSON form, indented.
    pub fn to_json(&self) -> String {
        match self {
            Self::Architecture(architecture) => architecture.to_json(),
            Self::Network { name, network } => network.to_json(name),
        }
    }

    /// Reads the text form of an architecture (`architecture NAME` …) or a network (`network NAME` and its nodes, or the nodes alone).
    ///
    /// # Errors
    /// [`TextError`] with line and word.
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        const FIRST: &str = "`architecture` or `network` and a name, or `n0 = input` and a shape";
        check_length(text)?;
        let mut rest = lines(text);
        let Some(mut line) = rest.next() else { return Err(TextError::End { expected: FIRST.into() }) };
        match line.word(FIRST)? {
            "architecture" => text.parse().map(Self::Architecture),
            "network" => {
                let expected = "a name of letters, digits, `.`, `_` and `-`";
                let name = line.parse(expected, |word| is_name(word).then(|| word.to_owned()))?;
                line.end()?;
                Ok(Self::Network { name, network: read_network(rest)? })
            }
            "n0" => Ok(Self::Network { name: "network".into(), network: text.parse()? }),
            word => Err(line.unexpected(word, FIRST)),
        }
    }

    /// The network of primitive operators.
    ///
    /// # Errors
    /// [`LowerError`] where a layer of the architecture does not fit.
    pub fn lower(&self) -> Result<Network, LowerError> {
        match self {
            Self::Architecture(architecture) => architecture.lower(),
            Self::Network { network, .. } => Ok(network.clone()),
        }
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        match self {
            Self::Architecture(architecture) => &architecture.name,
            Self::Network { name, .. } => name,
        }
    }

    /// Shape of one image.
    pub fn input_shape(&self) -> Shape {
        match self {
            Self::Architecture(architecture) => architecture.input,
            Self::Network { network, .. } => network.input_shape(),
        }
    }

    /// Number of classes: the channels of the output.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::Architecture(architecture) => architecture.num_classes,
            Self::Network { network, .. } => network.output_shape().c,
        }
    }

    /// The same design for images of another shape and another number of classes.
    ///
    /// A network keeps its layers; those that read other channels than before are widened or narrowed (depthwise convolutions with
    /// their outputs), and the linear layer at its end gets `num_classes` outputs.
    /// # Errors
    /// [`RetargetError`] where a layer does not fit the new input, or there is no linear layer at the end to change.
    pub fn with_io(&self, input: Shape, num_classes: usize) -> Result<Self, RetargetError> {
        match self {
            Self::Architecture(architecture) => {
                let architecture = Architecture { input, num_classes, ..architecture.clone() };
                verify_fields(&architecture).map_err(RetargetError::OutOfRange)?;
                architecture.lower().map_err(|source| RetargetError::Input { input, source: Box::new(source) })?;
                Ok(Self::Architecture(architecture))
            }
            Self::Network { name, network } => {
                Ok(Self::Network { name: name.clone(), network: retarget(network, input, num_classes)? })
            }
        }
    }
}

impl fmt::Display for Design {
    /// The text form; `{:#}` adds shapes to a network.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Architecture(architecture) => architecture.fmt(f),
            Self::Network { name, network } => {
                writeln!(f, "network {name}\n")?;
                network.fmt(f)
            }
        }
    }
}

impl FromStr for Design {
    type Err = DesignError;

    fn from_str(text: &str) -> Result<Self, DesignError> {
        Self::parse(text)
    }
}

fn retarget(network: &Network, input: Shape, num_classes: usize) -> Result<Network, RetargetError> {
    let misfit = |source: NetworkError| RetargetError::Input { input, source: Box::new(source.into()) };
    let classifier = classifier(network);
    let mut out = network_with_input(input).map_err(misfit)?;
    for (id, node) in network.iter().skip(1) {
        let mut op = node.op;
        if let Some(&source) = node.inputs.first() {
            let (before, after) = (network.node(source).shape.c, out.node(source).shape.c);
            op = if before == after { op } else { with_channels(op, after) };
        }
        if let (true, Op::Linear { c_out, .. }) = (Some(id) == classifier, &mut op) {
            *c_out = num_classes;
        }
        out.add(node.name.clone(), op, &node.inputs).map_err(misfit)?;
    }
    out.set_output(network.output()).map_err(misfit)?;
    let has = out.output_shape();
    if has.c == num_classes { Ok(out) } else { Err(RetargetError::NoClassifier { has, wanted: num_classes }) }
}

/// The linear layer whose output is the network's.
fn classifier(network: &Network) -> Option<NodeId> {
    let mut id = network.output();
    while network.node(id).op == Op::Identity {
        id = network.node(id).inputs[0];
    }
    matches!(network.node(id).op, Op::Linear { .. }).then_some(id)
}

/// `op` for inputs of `c` channels, where that makes sense.
fn with_channels(op: Op, c: usize) -> Op {
    match op {
        Op::Conv(conv) if conv.is_depthwise() => Op::Conv(Conv2d { c_in: c, c_out: c, groups: c, ..conv }),
        Op::Conv(conv) if conv.groups == 1 => Op::Conv(Conv2d { c_in: c, ..conv }),
        Op::BatchNorm { .. } => Op::BatchNorm { channels: c },
        Op::Linear { c_out, bias, .. } => Op::Linear { c_in: c, c_out, bias },
        _ => op,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "\
network net

n0 = input 3x8x8
n1 = dwconv3x3 n0
n2 = batchnorm n1
n3 = conv1x1/8 n2
n4 = global-avgpool n3
n5 = linear/10 n4 bias name=fc
n6 = identity n5
output n6
";

    #[test]
    fn text_and_json_are_told_apart() {
        let design = Design::parse(NETWORK).unwrap();
        assert_eq!(design.to_string(), NETWORK);
        assert_eq!(Design::parse(&format!("\u{feff} \n{}", design.to_json())).unwrap(), design);
        let bare = Design::parse(NETWORK.strip_prefix("network net\n").unwrap()).unwrap();
        assert_eq!((bare.name(), bare.lower()), ("network", design.lower()));
        let message = |text: &str| Design::parse(text).unwrap_err().to_string();
        assert_eq!(
            message("hello"),
            "line 1: `hello`: expected `architecture` or `network` and a name, or `n0 = input` and a shape"
        );
        assert_eq!(
            message(""),
            "the text ends without `architecture` or `network` and a name, or `n0 = input` and a shape"
        );
        assert_eq!(message("{}"), "line 1 column 2: missing field `format_version`");
        assert_eq!(message("network a/b"), "line 1: `a/b`: expected a name of letters, digits, `.`, `_` and `-`");
    }

    #[test]
    fn networks_get_other_channels_and_classes() {
        let design = Design::parse(NETWORK).unwrap();
        let retargeted = design.with_io(Shape::chw(1, 28, 28), 3).unwrap();
        let network = retargeted.lower().unwrap();
        assert_eq!((retargeted.input_shape(), retargeted.num_classes()), (Shape::chw(1, 28, 28), 3));
        assert_eq!(network.params().0, 9 + 2 + 8 + 8 * 3 + 3);
        assert_eq!(retargeted.with_io(Shape::chw(5, 8, 8), 10).unwrap().num_classes(), 10);
        assert_eq!(design.with_io(Shape::chw(3, 8, 8), 10), Ok(design.clone()));
    }

    #[test]
    fn what_cannot_be_retargeted_is_refused() {
        let design = Design::parse(&NETWORK.replace("conv1x1/8 n2", "conv5x5/8 n2 pad=0")).unwrap();
        let message = |input, classes| design.with_io(input, classes).unwrap_err().to_string();
        assert_eq!(
            message(Shape::chw(3, 4, 4), 10),
            "an input of 3x4x4 does not fit: node `n3`: a window of 5 pixels does not fit into 3x4x4 padded by 0"
        );
        assert!(message(Shape::chw(0, 8, 8), 10).contains("node `input`"));
        assert!(message(Shape::chw(3, 8, 8), 0).contains("node `fc`"));
        let headless = Design::parse("n0 = input 3x8x8\nn1 = global-avgpool n0\noutput n1").unwrap();
        assert_eq!(
            headless.with_io(Shape::chw(3, 8, 8), 7),
            Err(RetargetError::NoClassifier { has: Shape::chw(3, 1, 1), wanted: 7 })
        );
        assert!(headless.with_io(Shape::chw(7, 9, 9), 7).is_ok());
    }
}
