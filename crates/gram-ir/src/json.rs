//! JSON form of architectures and networks: one object with `format_version` and `kind`.
//!
//! The types that stand in files are separate from those in memory, so either can change alone. Numbers that follow from others
//! (shapes, costs) are not written; what is read is checked like any other edit.

mod file;
mod pretty;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::verify::{is_name, verify_fields};
use crate::{Architecture, CellError, MAX_TEXT_BYTES, Network, NetworkError, Violations};
use file::{ArchitectureFile, NetworkFile};

/// The version of the JSON form that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Why a JSON form could not be read; says line and column, or the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text is longer than [`MAX_TEXT_BYTES`].
    #[error("the text has {bytes} bytes, more than the {MAX_TEXT_BYTES} that are read")]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// Not JSON, or not the fields that are expected; names line and column.
    #[error("line {line} column {column}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// Written by another version.
    #[error("format_version is {found}; this version reads {FORMAT_VERSION} only")]
    Version {
        /// What the file says.
        found: u64,
    },
    /// Neither an architecture nor a network, or not the one that was asked for.
    #[error("kind is `{found}`, expected {expected}")]
    Kind {
        /// What the file says.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A cell that is not well-formed.
    #[error("stages[{stage}].cell: {source}")]
    Cell {
        /// Index of the stage, from 0.
        stage: usize,
        /// Why.
        source: CellError,
    },
    /// An architecture that is not well-formed.
    #[error("not a well-formed architecture: {0}")]
    Architecture(Violations),
    /// The name of a network that is none.
    #[error("`{name}` is no name: use letters, digits, `.`, `_` and `-`")]
    Name {
        /// The name; long ones are cut.
        name: String,
    },
    /// An input whose shape is out of range.
    #[error("{source}")]
    Input {
        /// Why.
        source: NetworkError,
    },
    /// A network's node that does not fit.
    #[error("nodes[{index}]: {source}")]
    Node {
        /// Index of the node in the file, from 0.
        index: usize,
        /// Why.
        source: NetworkError,
    },
    /// A node that reads a node which does not stand before it, or an output that does not exist.
    #[error("{reader} reads `{name}`, and no node before it has that name")]
    NoSuchNode {
        /// Who reads it, e.g. `nodes[3] (fc)` or `output`.
        reader: String,
        /// The name.
        name: String,
    },
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let message = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        // It may quote what stands in the file.
        let message = message.chars().take(400).flat_map(printable).collect();
        Self::Syntax { line, column, message }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Architecture,
    Network,
}

#[derive(Deserialize)]
struct Header {
    format_version: u64,
    kind: String,
}

/// Reads version and kind alone.
pub(crate) fn kind_of(text: &str) -> Result<Kind, JsonError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(JsonError::TooLong { bytes: text.len() });
    }
    let header: Header = serde_json::from_str(text)?;
    if header.format_version != u64::from(FORMAT_VERSION) {
        return Err(JsonError::Version { found: header.format_version });
    }
    match header.kind.as_str() {
        "architecture" => Ok(Kind::Architecture),
        "network" => Ok(Kind::Network),
        _ => Err(JsonError::Kind { found: clip(&header.kind), expected: "architecture or network" }),
    }
}

fn read<T: DeserializeOwned>(text: &str, kind: Kind) -> Result<T, JsonError> {
    let (found, expected) = match (kind_of(text)?, kind) {
        (Kind::Network, Kind::Architecture) => ("network", "architecture"),
        (Kind::Architecture, Kind::Network) => ("architecture", "network"),
        _ => return Ok(serde_json::from_str(text)?),
    };
    Err(JsonError::Kind { found: found.into(), expected })
}

fn write(file: &impl Serialize) -> String {
    let compact =
        serde_json::to_string(file).expect("invariant: file types have string keys and no failing serialisers");
    pretty::pretty(&compact)
}

/// Escapes of control characters, all else as it is.
fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = if c.is_control() { None } else { Some(c) };
    escaped.into_iter().flatten().chain(plain)
}

fn clip(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

impl Architecture {
    /// The JSON form, indented, `"kind": "architecture"`.
    pub fn to_json(&self) -> String {
        write(&ArchitectureFile::from(self))
    }

    /// Reads [`Architecture::to_json`]'s form and checks all but whether the layers fit the input (A1 to A5 of [`Verify`](crate::Verify)).
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        let architecture = read::<ArchitectureFile>(text, Kind::Architecture)?.into_memory()?;
        verify_fields(&architecture).map_err(JsonError::Architecture)?;
        Ok(architecture)
    }
}

impl Network {
    /// The JSON form, indented, `"kind": "network"`, with a name for people (letters, digits, `.`, `_` and `-`).
    pub fn to_json(&self, name: &str) -> String {
        write(&NetworkFile::new(name, self))
    }

    /// Reads [`Network::to_json`]'s form; gives the name too. Every shape is inferred again.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn from_json(text: &str) -> Result<(String, Self), JsonError> {
        let (name, network) = read::<NetworkFile>(text, Kind::Network)?.into_memory()?;
        if !is_name(&name) {
            return Err(JsonError::Name { name: clip(&name) });
        }
        Ok((name, network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHITECTURE: &str = r#"{
  "format_version": 1,
  "kind": "architecture",
  "name": "example",
  "input": [3, 32, 32],
  "num_classes": 10,
  "activation": "relu6",
  "stem": [{"layer": "conv", "channels": 16, "kernel": 3, "stride": 2}, {"layer": "maxpool2"}],
  "stages": [
    {
      "downsample": "none",
      "repeats": 2,
      "node_channels": 32,
      "cell": [
        {"id": 1, "op": "sep3x3", "inputs": [0]},
        {"id": 4, "op": "conv1x1", "inputs": [0, 1]}
      ],
      "output": {"project": 48, "residual": true, "linear_leaves": false, "activation": true}
    }
  ],
  "head": {"conv": 128}
}
"#;

    const NETWORK: &str = r#"{
  "format_version": 1,
  "kind": "network",
  "name": "example",
  "input": [3, 8, 8],
  "nodes": [
    {
      "name": "stem.conv",
      "inputs": ["input"],
      "op": {"kind": "conv", "c_in": 3, "c_out": 16, "kernel": 3, "stride": 2, "padding": 1, "dilation": 1, "groups": 1, "bias": false}
    },
    {"name": "bn", "inputs": ["stem.conv"], "op": {"kind": "batch-norm", "channels": 16}},
    {"name": "act", "inputs": ["bn"], "op": {"kind": "act", "activation": "hard-swish"}},
    {"name": "cat", "inputs": ["act", "bn"], "op": {"kind": "concat"}},
    {"name": "max", "inputs": ["cat"], "op": {"kind": "max-pool", "kernel": 2, "stride": 2, "padding": 0}},
    {"name": "gap", "inputs": ["max"], "op": {"kind": "global-avg-pool"}},
    {"name": "fc", "inputs": ["gap"], "op": {"kind": "linear", "c_in": 32, "c_out": 10, "bias": true}}
  ],
  "output": "fc"
}
"#;

    #[test]
    fn writes_what_it_read() {
        assert_eq!(Architecture::from_json(ARCHITECTURE).unwrap().to_json(), ARCHITECTURE);
        let (name, network) = Network::from_json(NETWORK).unwrap();
        assert_eq!(network.to_json(&name), NETWORK);
    }

    #[track_caller]
    fn check(text: &str, old: &str, new: &str, expected: &str) {
        let changed = text.replacen(old, new, 1);
        assert_ne!(changed, text);
        let error = match text.contains("architecture") {
            true => Architecture::from_json(&changed).unwrap_err(),
            false => Network::from_json(&changed).unwrap_err(),
        };
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_of_architectures_name_the_place() {
        let check = |old: &str, new: &str, expected: &str| check(ARCHITECTURE, old, new, expected);
        check("\"format_version\": 1", "\"format_version\": 2", "format_version is 2; this version reads 1 only");
        check("\"kind\": \"architecture\"", "\"kind\": \"cell\"", "kind is `cell`, expected architecture or network");
        check("\"kind\": \"architecture\"", "\"kind\": \"network\"", "kind is `network`, expected architecture");
        check(
            "\"num_classes\": 10",
            "\"num_classes\": -1",
            "line 6 column 19: invalid value: integer `-1`, expected usize",
        );
        check(
            "\"repeats\": 2",
            "\"repeat\": 2",
            "line 12 column 14: unknown field `repeat`, expected one of `downsample`, `repeats`, `node_channels`, `cell`, `output`",
        );
        check("\"inputs\": [0, 1]", "\"inputs\": [0, 2]", "stages[0].cell: n2 does not exist");
        check("\"kernel\": 3", "\"kernel\": 4", "not a well-formed architecture: A3: stem 0: kernel 4 is not odd");
        check("\"head\": {\"conv\": 128}", "\"head\": {}, \"head\": {}", "line 21 column 20: duplicate field `head`");
        check(
            "\"op\": \"sep3x3\"",
            "\"op\": \"pw1\"",
            "line 15 column 29: unknown variant `pw1`, expected one of `conv1x1`, `conv3x3`, `conv5x5`, `sep3x3`, `sep5x5`, `sep7x7`, `dw3x3`, `dw5x5`, `dw7x7`, `maxpool3x3`, `avgpool3x3`, `identity`",
        );
    }

    #[test]
    fn errors_of_networks_name_the_node() {
        let check = |old: &str, new: &str, expected: &str| check(NETWORK, old, new, expected);
        check(
            "[\"act\", \"bn\"]",
            "[\"act\", \"fc\"]",
            "nodes[3] (cat) reads `fc`, and no node before it has that name",
        );
        check("\"output\": \"fc\"", "\"output\": \"x\"", "output reads `x`, and no node before it has that name");
        check("\"name\": \"bn\"", "\"name\": \"stem.conv\"", "nodes[1]: node `stem.conv` exists already");
        check("\"c_in\": 3", "\"c_in\": 4", "nodes[0]: node `stem.conv`: expected 4 input channels, got 3x8x8");
        check(
            "[3, 8, 8]",
            "[3, 0, 8]",
            "node `input`: an axis of the output is out of range (axes 1 to 65536, windows 1 to 1024)",
        );
        check("\"name\": \"example\"", "\"name\": \"a b\"", "`a b` is no name: use letters, digits, `.`, `_` and `-`");
        let unknown = NETWORK.replace("\"channels\": 16", "\"channels\": 16, \"eps\": 1");
        assert!(
            Network::from_json(&unknown).unwrap_err().to_string().ends_with("unknown field `eps`, expected `channels`")
        );
    }
}
