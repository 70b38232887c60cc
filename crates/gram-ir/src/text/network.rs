//! Text form of a lowered network.

use std::fmt;
use std::str::FromStr;

use super::line::{Line, TextError, check_length, digits, lines, node_number, square, window_and_channels};
use crate::verify::is_name;
use crate::{Activation, Conv2d, Network, Node, NodeId, Op, Pool, Shape};

impl fmt::Display for Network {
    /// One line for each node and one for the output; with `{:#}` each node's shape stands behind it as a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            for (id, node) in self.iter() {
                writeln!(f, "{}", NodeText { id, node })?;
            }
        } else {
            let texts: Vec<String> = self.iter().map(|(id, node)| NodeText { id, node }.to_string()).collect();
            let width = texts.iter().map(String::len).max().unwrap_or(0).min(80);
            for (text, node) in texts.iter().zip(self.nodes()) {
                writeln!(f, "{text:width$}  # {}", node.shape)?;
            }
        }
        writeln!(f, "output {}", self.output())
    }
}

impl FromStr for Network {
    type Err = TextError;

    /// Reads what `Display` writes; every shape is inferred again.
    fn from_str(text: &str) -> Result<Self, TextError> {
        check_length(text)?;
        read_network(lines(text))
    }
}

/// The name that a node has where the text gives none.
fn default_name(id: NodeId) -> String {
    if id.index() == 0 { "input".into() } else { id.to_string() }
}

struct NodeText<'a> {
    id: NodeId,
    node: &'a Node,
}

impl fmt::Display for NodeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, node } = self;
        write!(f, "{id} = ")?;
        match node.op {
            Op::Input { shape } => write!(f, "input {shape}")?,
            Op::Conv(conv) if conv.is_depthwise() => write!(f, "dwconv{0}x{0}", conv.kernel)?,
            Op::Conv(conv) => write!(f, "conv{0}x{0}/{1}", conv.kernel, conv.c_out)?,
            Op::MaxPool(pool) | Op::AvgPool(pool) => write!(f, "{0}{1}x{1}", node.op.kind(), pool.kernel)?,
            Op::Linear { c_out, .. } => write!(f, "linear/{c_out}")?,
            _ => f.write_str(node.op.kind())?,
        }
        for input in &node.inputs {
            write!(f, " {input}")?;
        }
        match node.op {
            Op::Conv(conv) => write_conv(f, &conv)?,
            Op::MaxPool(pool) | Op::AvgPool(pool) => {
                attribute(f, "stride", pool.stride, 1)?;
                attribute(f, "pad", pool.padding, default_pool_padding(pool.kernel))?;
            }
            Op::Linear { bias: true, .. } => f.write_str(" bias")?,
            _ => {}
        }
        if node.name == default_name(*id) { Ok(()) } else { write!(f, " name={}", node.name) }
    }
}

fn write_conv(f: &mut fmt::Formatter<'_>, conv: &Conv2d) -> fmt::Result {
    attribute(f, "stride", conv.stride, 1)?;
    attribute(f, "pad", conv.padding, conv.kernel / 2)?;
    attribute(f, "dilation", conv.dilation, 1)?;
    attribute(f, "groups", conv.groups, if conv.is_depthwise() { conv.groups } else { 1 })?;
    if conv.bias { f.write_str(" bias") } else { Ok(()) }
}

fn attribute(f: &mut fmt::Formatter<'_>, key: &str, value: usize, default: usize) -> fmt::Result {
    if value == default { Ok(()) } else { write!(f, " {key}={value}") }
}

/// "Same" padding of an odd pool, none of a 2x2 pool.
fn default_pool_padding(kernel: usize) -> usize {
    kernel.saturating_sub(1) / 2
}

/// Reads node lines and the output line.
pub(crate) fn read_network<'a>(mut lines: impl Iterator<Item = Line<'a>>) -> Result<Network, TextError> {
    let missing = |expected: &str| TextError::End { expected: expected.into() };
    let mut network = input(lines.next().ok_or_else(|| missing("a line such as `n0 = input 3x32x32`"))?)?;
    for mut line in lines.by_ref() {
        if line.peek() == Some("output") {
            line.literal("output")?;
            let id = existing(&network, &mut line)?;
            line.end()?;
            let number = line.number;
            network.set_output(id).map_err(|source| TextError::Network { line: number, source })?;
            return match lines.next() {
                Some(mut line) => Err(match line.take() {
                    Some(word) => line.unexpected(word, "nothing behind the output"),
                    None => missing("an output"),
                }),
                None => Ok(network),
            };
        }
        node(&mut network, line)?;
    }
    Err(missing("a line such as `output n7`"))
}

/// Reads `n0 = input 3x32x32`.
fn input(mut line: Line<'_>) -> Result<Network, TextError> {
    line.literal("n0")?;
    line.literal("=")?;
    line.literal("input")?;
    let shape: Shape = line.parse("a shape such as 3x224x224", |word| word.parse().ok())?;
    line.end()?;
    Ok(Network::new(shape))
}

/// Reads `n7 = conv3x3/16 n6 stride=2 name=stem.conv`.
fn node(network: &mut Network, mut line: Line<'_>) -> Result<(), TextError> {
    let id = NodeId(u32::try_from(network.nodes().len()).unwrap_or(u32::MAX));
    line.parse(&format!("`{id}` or `output`"), |word| (word == id.to_string()).then_some(()))?;
    line.literal("=")?;
    let kind = line.word(OPERATORS)?;
    let mut inputs = Vec::new();
    while line.peek().is_some_and(|word| node_number::<u64>(word).is_some()) {
        inputs.push(existing(network, &mut line)?);
    }
    let number = line.number;
    let mut attributes = Attributes { line, used: Vec::new() };
    let c_in = inputs.first().map_or(1, |&input| network.node(input).shape.c);
    let op = operator(kind, c_in, &mut attributes)?;
    let name = attributes.name()?.unwrap_or_else(|| default_name(id));
    attributes.end(kind)?;
    network.add(name, op, &inputs).map_err(|source| TextError::Network { line: number, source })?;
    Ok(())
}

fn existing(network: &Network, line: &mut Line<'_>) -> Result<NodeId, TextError> {
    let n_nodes = network.nodes().len();
    let expected = format!("a node from n0 to n{}", n_nodes - 1);
    line.parse(&expected, |word| node_number(word).map(NodeId).filter(|id| id.index() < n_nodes))
}

const OPERATORS: &str = "an operator: conv3x3/16, dwconv3x3, batchnorm, relu, relu6, hard-swish, concat, add, maxpool2x2, avgpool2x2, \
     global-avgpool, linear/10, identity or zero";

fn operator(kind: &str, c_in: usize, attributes: &mut Attributes<'_>) -> Result<Op, TextError> {
    let activation = Activation::ALL.into_iter().find(|activation| activation.name() == kind);
    Ok(match kind {
        "batchnorm" => Op::BatchNorm { channels: c_in },
        "concat" => Op::Concat,
        "add" => Op::Add,
        "global-avgpool" => Op::GlobalAvgPool,
        "identity" => Op::Identity,
        "zero" => Op::Zero,
        _ => match activation {
            Some(activation) => Op::Act { activation },
            None => sized_operator(kind, c_in, attributes)?,
        },
    })
}

/// Operators with numbers in their names.
fn sized_operator(kind: &str, c_in: usize, attributes: &mut Attributes<'_>) -> Result<Op, TextError> {
    let window = |prefix| kind.strip_prefix(prefix).and_then(square);
    if let Some(kernel) = window("dwconv") {
        return Ok(Op::Conv(attributes.conv(Conv2d::depthwise(c_in, kernel))?));
    }
    if let Some((kernel, c_out)) = window_and_channels(kind, "conv") {
        let groups = attributes.number("groups")?.unwrap_or(1);
        return Ok(Op::Conv(attributes.conv(Conv2d { groups, ..Conv2d::new(c_in, c_out, kernel) })?));
    }
    if let Some(kernel) = window("maxpool") {
        return Ok(Op::MaxPool(attributes.pool(kernel)?));
    }
    if let Some(kernel) = window("avgpool") {
        return Ok(Op::AvgPool(attributes.pool(kernel)?));
    }
    if let Some(c_out) = kind.strip_prefix("linear/").and_then(digits) {
        return Ok(Op::Linear { c_in, c_out, bias: attributes.flag("bias") });
    }
    Err(attributes.line.unexpected(kind, OPERATORS))
}

/// Words behind the inputs: `key=value`, each once, in any order, and `bias`.
struct Attributes<'a> {
    line: Line<'a>,
    used: Vec<&'a str>,
}

impl<'a> Attributes<'a> {
    fn number(&mut self, key: &str) -> Result<Option<usize>, TextError> {
        self.value(key, "a number", digits)
    }

    fn name(&mut self) -> Result<Option<String>, TextError> {
        let named = |word: &str| is_name(word).then(|| word.to_owned());
        self.value("name", "letters, digits, `.`, `_` and `-`", named)
    }

    fn value<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, TextError> {
        let mut rest = self.line;
        while let Some(word) = rest.take() {
            let Some((_, value)) = word.split_once('=').filter(|&(other, _)| other == key) else { continue };
            let value = parse(value).ok_or_else(|| self.line.unexpected(word, &format!("{key}= and {expected}")))?;
            self.used.push(word);
            return Ok(Some(value));
        }
        Ok(None)
    }

    fn flag(&mut self, flag: &str) -> bool {
        let mut rest = self.line;
        while let Some(word) = rest.take() {
            if word == flag {
                self.used.push(word);
                return true;
            }
        }
        false
    }

    fn conv(&mut self, conv: Conv2d) -> Result<Conv2d, TextError> {
        Ok(Conv2d {
            stride: self.number("stride")?.unwrap_or(1),
            padding: self.number("pad")?.unwrap_or(conv.padding),
            dilation: self.number("dilation")?.unwrap_or(1),
            bias: self.flag("bias"),
            ..conv
        })
    }

    fn pool(&mut self, kernel: usize) -> Result<Pool, TextError> {
        let stride = self.number("stride")?.unwrap_or(1);
        let padding = self.number("pad")?.unwrap_or(default_pool_padding(kernel));
        Ok(Pool::new(kernel, stride, padding))
    }

    /// Every word must have been used, once.
    fn end(mut self, kind: &str) -> Result<(), TextError> {
        while let Some(word) = self.line.take() {
            match self.used.iter().position(|used| *used == word) {
                Some(i) => drop(self.used.swap_remove(i)),
                None => {
                    return Err(self.line.unexpected(word, &format!("an attribute of {kind} that is not given yet")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "\
n0 = input 3x32x32
n1 = conv3x3/16 n0 stride=2 name=stem.conv
n2 = batchnorm n1
n3 = relu6 n2
n4 = dwconv3x3 n3 stride=2 pad=0 dilation=2 bias
n5 = conv1x1/8 n3 groups=4 bias
n6 = concat n3 n5
n7 = maxpool2x2 n6 stride=2
n8 = avgpool3x3 n7 pad=0
n9 = avgpool3x3 n7
n10 = add n9 n9 n7
n11 = hard-swish n10
n12 = global-avgpool n11
n13 = linear/10 n12 bias name=fc
n14 = identity n13
n15 = zero n13
output n14
";

    #[test]
    fn prints_what_it_read() {
        let network: Network = EXAMPLE.parse().unwrap();
        assert_eq!(network.to_string(), EXAMPLE);
        assert_eq!(network.find("stem.conv"), Some(NodeId(1)));
        let commented = format!("{network:#}");
        assert!(commented.contains("n1 = conv3x3/16 n0 stride=2 name=stem.conv        # 16x16x16\n"), "{commented}");
        assert_eq!(commented.parse(), Ok(network));
    }

    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        let text = EXAMPLE.replacen(old, new, 1);
        assert_ne!(text, EXAMPLE);
        assert_eq!(text.parse::<Network>().unwrap_err().to_string(), expected);
    }

    #[test]
    fn errors_name_line_word_and_expectation() {
        check("n0 = input 3x32x32\n", "", "line 1: `n1`: expected `n0`");
        check("3x32x32", "3x32", "line 1: `3x32`: expected a shape such as 3x224x224");
        check("n2 =", "n3 =", "line 3: `n3`: expected `n2` or `output`");
        check("batchnorm n1", "batchnorm n2", "line 3: `n2`: expected a node from n0 to n1");
        check("stride=2", "stride=x", "line 2: `stride=x`: expected stride= and a number");
        check(
            "stride=2",
            "stride=2 stride=2",
            "line 2: `stride=2`: expected an attribute of conv3x3/16 that is not given yet",
        );
        check(
            "n2 = batchnorm n1",
            "n2 = batchnorm n1 bias",
            "line 3: `bias`: expected an attribute of batchnorm that is not given yet",
        );
        check("linear/10", "linear/", &format!("line 14: `linear/`: expected {OPERATORS}"));
        check("name=fc", "name=stem.conv", "line 14: node `stem.conv` exists already");
        check("name=fc", "name=", "line 14: `name=`: expected name= and letters, digits, `.`, `_` and `-`");
        check("add n9 n9 n7", "add n9 n8", "line 11: node `n10`: add of 24x8x8 and 24x6x6: shapes must agree");
        check("output n14", "output n16", "line 17: `n16`: expected a node from n0 to n15");
        check("output n14\n", "", "the text ends without a line such as `output n7`");
        check("output n14\n", "output n14\nn16 = relu n15", "line 18: `n16`: expected nothing behind the output");
        check("groups=4", "groups=5", "line 6: node `n5`: 5 groups do not divide 16 input and 8 output channels");
    }

    #[test]
    fn huge_numbers_are_refused_not_used() {
        for (old, new) in [
            ("3x32x32", "99999999x1x1"),
            ("conv3x3/16", "conv3x3/99999999999999999999"),
            ("conv3x3/16", "conv18446744073709551615x18446744073709551615/16"),
            ("dilation=2", "dilation=18446744073709551615"),
            ("pad=0", "pad=18446744073709551615"),
            ("maxpool2x2", "maxpool18446744073709551615x18446744073709551615"),
            ("linear/10", "linear/18446744073709551615"),
            ("output n14", "output n4294967296"),
        ] {
            assert!(EXAMPLE.replacen(old, new, 1).parse::<Network>().is_err(), "{new}");
        }
    }
}
