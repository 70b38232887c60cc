//! How an engine is assumed to store and join feature maps: what peak bytes are counted for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The element type of all maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 4 bytes: what is trained, and exported without quantisation.
    #[default]
    F32,
    /// 2 bytes.
    F16,
    /// 1 byte: what quantised networks store between operators.
    U8,
    /// 1 byte.
    I8,
}

impl Dtype {
    /// Every element type, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::U8, Self::I8];

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 | Self::I8 => 1,
        }
    }

    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U8 => "u8",
            Self::I8 => "i8",
        }
    }
}

/// What a concatenation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Concat {
    /// It copies its inputs into a buffer of its own, as the usual engines do.
    #[default]
    Copy,
    /// It is free: whoever reads it reads the parts, which stay until then. A network's output is still joined at the end.
    View,
}

impl Concat {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Copy, Self::View];

    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::View => "view",
        }
    }
}

/// What a separable convolution (depthwise, then 1x1) costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Separable {
    /// One step: what the depthwise part gives is consumed line by line and never stored as a whole. Its input and output are alive
    /// together then, which can take more than the map in between where that is smaller than both.
    ///
    /// # Source
    /// The nodes of the published SwiftNet schedules, [arXiv:2003.02369](https://arxiv.org/abs/2003.02369) (ALGORITHMS 5.4).
    #[default]
    Fused,
    /// Two steps with a whole map in between, as in engines without a kernel for both.
    Split,
}

/// How an engine stores and joins feature maps; what peak bytes are counted for. Schedules are `gram-memory`'s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryModel {
    /// Element type of all maps, the network's input among them.
    pub dtype: Dtype,
    /// What a concatenation costs.
    pub concat: Concat,
    /// Whether convolutions of a concatenation are split, and their parts accumulated in place: the concatenation goes away, and its
    /// inputs can be freed one by one.
    pub partial: bool,
    /// What a separable convolution costs.
    pub separable: Separable,
}

impl MemoryModel {
    /// Whether nothing was chosen.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A word that names no element type or way to join maps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is none of {}", expected.join(", "))]
pub struct UnknownWord {
    /// The word; long ones are cut.
    pub word: String,
    /// What would have been understood.
    pub expected: Vec<&'static str>,
}

fn unknown(word: &str, expected: Vec<&'static str>) -> UnknownWord {
    UnknownWord { word: word.chars().take(40).flat_map(char::escape_debug).collect(), expected }
}

impl FromStr for Dtype {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.name() == word);
        found.ok_or_else(|| unknown(word, Self::ALL.map(Self::name).to_vec()))
    }
}

impl FromStr for Concat {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|concat| concat.name() == word);
        found.ok_or_else(|| unknown(word, Self::ALL.map(Self::name).to_vec()))
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Concat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        assert!(Dtype::ALL.iter().all(|dtype| dtype.to_string().parse() == Ok(*dtype)));
        assert!(Concat::ALL.iter().all(|concat| concat.to_string().parse() == Ok(*concat)));
        assert_eq!("u9".parse::<Dtype>().unwrap_err().to_string(), "`u9` is none of f32, f16, u8, i8");
        assert!("free".parse::<Concat>().is_err());
    }
}
