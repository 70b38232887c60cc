//! Text form of an architecture.

use std::fmt;
use std::str::FromStr;

use super::cell::{CellText, write_cell};
use super::line::{Line, TextError, check_length, digits, lines, node_number, window_and_channels};
use crate::verify::verify_fields;
use crate::{Activation, Architecture, CellOutput, Downsample, Head, Shape, Stage, StemLayer};

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "architecture {}", self.name)?;
        writeln!(f, "input {}", self.input)?;
        writeln!(f, "classes {}", self.num_classes)?;
        writeln!(f, "activation {}", self.activation)?;
        for (i, layer) in self.stem.iter().enumerate() {
            let gap = if i == 0 { "\n" } else { "" };
            writeln!(f, "{gap}stem {}", StemText(*layer))?;
        }
        for stage in &self.stages {
            write_stage(f, stage)?;
        }
        match self.head.conv {
            Some(channels) => writeln!(f, "\nhead conv1x1/{channels}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Architecture {
    type Err = TextError;

    /// Reads what `Display` writes, and checks all but whether the layers fit the input (A1 to A5 of [`Verify`](crate::Verify)).
    fn from_str(text: &str) -> Result<Self, TextError> {
        check_length(text)?;
        let mut read = Reading::default();
        for line in lines(text) {
            read.line(line)?;
        }
        read.finish()
    }
}

struct StemText(StemLayer);

impl fmt::Display for StemText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, channels, kernel, stride) = match self.0 {
            StemLayer::Conv { channels, kernel, stride } => ("conv", channels, kernel, stride),
            StemLayer::Sep { channels, kernel, stride } => ("sep", channels, kernel, stride),
            StemLayer::Maxpool2 => return f.write_str("maxpool2"),
        };
        write!(f, "{kind}{kernel}x{kernel}/{channels}")?;
        if stride == 1 { Ok(()) } else { write!(f, " stride={stride}") }
    }
}

fn write_stage(f: &mut fmt::Formatter<'_>, stage: &Stage) -> fmt::Result {
    write!(f, "\nstage channels={}", stage.node_channels)?;
    if stage.downsample == Downsample::Maxpool2 {
        write!(f, " downsample=maxpool2")?;
    }
    if stage.repeats != 1 {
        write!(f, " repeats={}", stage.repeats)?;
    }
    writeln!(f)?;
    write_cell(f, &stage.cell, "  ")?;
    let CellOutput { project, residual, linear_leaves, activation } = stage.output;
    let project = project.map(|channels| format!(" project={channels}"));
    let words: String = project
        .as_deref()
        .into_iter()
        .chain(residual.then_some(" residual"))
        .chain(linear_leaves.then_some(" linear-leaves"))
        .chain(activation.then_some(" activation"))
        .collect();
    if words.is_empty() { Ok(()) } else { writeln!(f, "  output{words}") }
}

#[derive(Default)]
struct Reading {
    name: Option<String>,
    input: Option<Shape>,
    num_classes: Option<usize>,
    activation: Option<Activation>,
    stem: Vec<StemLayer>,
    stages: Vec<Stage>,
    open: Option<OpenStage>,
    head: Option<Head>,
}

/// The stage whose lines are being read.
struct OpenStage {
    repeats: usize,
    node_channels: usize,
    downsample: Downsample,
    cell: CellText,
    output: Option<CellOutput>,
}

const KEYWORDS: &str =
    "one of architecture, input, classes, activation, stem, stage, head, or in a stage: output, or a node such as n14";

impl Reading {
    fn line(&mut self, mut line: Line<'_>) -> Result<(), TextError> {
        let whole = line;
        let word = line.word(KEYWORDS)?;
        if self.name.is_none() && word != "architecture" {
            return Err(line.unexpected(word, "`architecture` and a name on the first line"));
        }
        match word {
            "architecture" => {
                let name = line.word("a name")?.to_owned();
                once(&mut self.name, name, &line, word)?;
            }
            "input" => {
                let shape = line.parse("a shape such as 3x224x224", |word| word.parse().ok())?;
                once(&mut self.input, shape, &line, word)?;
            }
            "classes" => {
                let classes = line.parse("a number of classes", digits)?;
                once(&mut self.num_classes, classes, &line, word)?;
            }
            "activation" => {
                let activation = line.parse("relu, relu6 or hard-swish", activation)?;
                once(&mut self.activation, activation, &line, word)?;
            }
            "stem" => self.stem.push(stem_layer(&mut line)?),
            "head" => {
                let conv = line.parse("conv1x1/ and a number of channels", head_conv)?;
                once(&mut self.head, Head { conv: Some(conv) }, &line, word)?;
            }
            "stage" => {
                self.close_stage()?;
                self.open = Some(open_stage(&mut line)?);
            }
            "output" => {
                let words = cell_output(&mut line)?;
                once(&mut stage_of(&mut self.open, &line, word)?.output, words, &line, word)?;
            }
            _ if node_number::<u64>(word).is_some() => {
                stage_of(&mut self.open, &line, word)?.cell.line(whole)?;
                return Ok(());
            }
            _ => return Err(line.unexpected(word, KEYWORDS)),
        }
        line.end()
    }

    fn close_stage(&mut self) -> Result<(), TextError> {
        if let Some(open) = self.open.take() {
            let OpenStage { repeats, node_channels, downsample, cell, output } = open;
            let nothing = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
            let (cell, output) = (cell.finish()?, output.unwrap_or(nothing));
            self.stages.push(Stage { cell, repeats, node_channels, downsample, output });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Architecture, TextError> {
        self.close_stage()?;
        let missing = |what: &str| TextError::End { expected: what.into() };
        let architecture = Architecture {
            name: self.name.ok_or_else(|| missing("a line `architecture NAME`"))?,
            input: self.input.ok_or_else(|| missing("a line such as `input 3x224x224`"))?,
            num_classes: self.num_classes.ok_or_else(|| missing("a line such as `classes 10`"))?,
            activation: self.activation.ok_or_else(|| missing("a line such as `activation relu6`"))?,
            stem: self.stem,
            stages: self.stages,
            head: self.head.unwrap_or_default(),
        };
        verify_fields(&architecture).map_err(TextError::Architecture)?;
        Ok(architecture)
    }
}

fn once<T>(place: &mut Option<T>, value: T, line: &Line<'_>, word: &str) -> Result<(), TextError> {
    match place.replace(value) {
        Some(_) => Err(line.unexpected(word, "no second line of this kind")),
        None => Ok(()),
    }
}

fn stage_of<'a>(open: &'a mut Option<OpenStage>, line: &Line<'_>, word: &str) -> Result<&'a mut OpenStage, TextError> {
    open.as_mut().ok_or_else(|| line.unexpected(word, "a `stage` line before it"))
}

fn activation(word: &str) -> Option<Activation> {
    Activation::ALL.into_iter().find(|activation| activation.name() == word)
}

fn head_conv(word: &str) -> Option<usize> {
    window_and_channels(word, "conv").filter(|&(kernel, _)| kernel == 1).map(|(_, channels)| channels)
}

fn stem_layer(line: &mut Line<'_>) -> Result<StemLayer, TextError> {
    let expected = "a stem layer such as conv3x3/16, sep3x3/32 or maxpool2";
    let layer = line.parse(expected, |word| {
        let conv =
            window_and_channels(word, "conv").map(|(kernel, channels)| StemLayer::Conv { channels, kernel, stride: 1 });
        let sep = || {
            window_and_channels(word, "sep").map(|(kernel, channels)| StemLayer::Sep { channels, kernel, stride: 1 })
        };
        conv.or_else(sep).or_else(|| (word == "maxpool2").then_some(StemLayer::Maxpool2))
    })?;
    if line.peek().is_none() || layer == StemLayer::Maxpool2 {
        return Ok(layer);
    }
    let stride = line.parse("stride= and a number", |word| digits(word.strip_prefix("stride=")?))?;
    Ok(match layer {
        StemLayer::Conv { channels, kernel, .. } => StemLayer::Conv { channels, kernel, stride },
        StemLayer::Sep { channels, kernel, .. } => StemLayer::Sep { channels, kernel, stride },
        StemLayer::Maxpool2 => layer,
    })
}

fn open_stage(line: &mut Line<'_>) -> Result<OpenStage, TextError> {
    let (mut channels, mut downsample, mut repeats) = (None, None, None);
    while let Some(word) = line.take() {
        let expected = "channels=32, downsample=maxpool2, downsample=none or repeats=2, each once";
        let (key, value) = word.split_once('=').ok_or_else(|| line.unexpected(word, expected))?;
        let known = match key {
            "channels" if channels.is_none() => digits(value).map(|n| channels = Some(n)),
            "repeats" if repeats.is_none() => digits(value).map(|n| repeats = Some(n)),
            "downsample" if downsample.is_none() => parse_downsample(value).map(|how| downsample = Some(how)),
            _ => None,
        };
        known.ok_or_else(|| line.unexpected(word, expected))?;
    }
    let missing = || TextError::Missing { line: line.number, expected: "channels= and a number".into() };
    Ok(OpenStage {
        repeats: repeats.unwrap_or(1),
        node_channels: channels.ok_or_else(missing)?,
        downsample: downsample.unwrap_or_default(),
        cell: CellText::default(),
        output: None,
    })
}

fn parse_downsample(word: &str) -> Option<Downsample> {
    match word {
        "none" => Some(Downsample::None),
        "maxpool2" => Some(Downsample::Maxpool2),
        _ => None,
    }
}

fn cell_output(line: &mut Line<'_>) -> Result<CellOutput, TextError> {
    let mut output = CellOutput { project: None, residual: false, linear_leaves: false, activation: false };
    while let Some(word) = line.take() {
        let flag = match word {
            "residual" => &mut output.residual,
            "linear-leaves" => &mut output.linear_leaves,
            "activation" => &mut output.activation,
            _ => {
                let expected = "project=48, residual, linear-leaves or activation, each once";
                let channels = word.strip_prefix("project=").and_then(digits).filter(|_| output.project.is_none());
                output.project = Some(channels.ok_or_else(|| line.unexpected(word, expected))?);
                continue;
            }
        };
        if std::mem::replace(flag, true) {
            return Err(line.unexpected(word, "each word once"));
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "\
architecture example
input 3x32x32
classes 10
activation relu6

stem conv3x3/16 stride=2
stem sep3x3/24
stem maxpool2

stage channels=32 downsample=maxpool2 repeats=2
  n1 = sep3x3 n0
  n4 = conv1x1 n0 n1
  output project=48 residual linear-leaves activation

stage channels=8
  n2 = identity n0

head conv1x1/128
";

    #[test]
    fn prints_what_it_read() {
        let read: Architecture = EXAMPLE.parse().unwrap();
        assert_eq!(read.to_string(), EXAMPLE);
        let squeezed = EXAMPLE.replace("\n\n", "\n").replace("  n", "n").replace("stage", "  stage");
        assert_eq!(squeezed.parse(), Ok(read));
    }

    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        let text = EXAMPLE.replacen(old, new, 1);
        assert_ne!(text, EXAMPLE);
        assert_eq!(text.parse::<Architecture>().unwrap_err().to_string(), expected);
    }

    #[test]
    fn errors_name_line_word_and_expectation() {
        check("architecture example", "", "line 2: `input`: expected `architecture` and a name on the first line");
        check("3x32x32", "32x32", "line 2: `32x32`: expected a shape such as 3x224x224");
        check("classes 10", "", "the text ends without a line such as `classes 10`");
        check("classes 10", "classes ten", "line 3: `ten`: expected a number of classes");
        check("classes 10", "input 3x8x8", "line 3: `input`: expected no second line of this kind");
        check("relu6", "gelu", "line 4: `gelu`: expected relu, relu6 or hard-swish");
        check(
            "sep3x3/24",
            "sep3x5/24",
            "line 7: `sep3x5/24`: expected a stem layer such as conv3x3/16, sep3x3/32 or maxpool2",
        );
        check("stem maxpool2", "stem maxpool2 stride=2", "line 8: `stride=2`: expected the end of the line");
        check(
            "repeats=2",
            "repeats=two",
            "line 10: `repeats=two`: expected channels=32, downsample=maxpool2, downsample=none or repeats=2, each once",
        );
        check("stage channels=8", "stage", "line 15 ends where channels= and a number is expected");
        check(
            "activation\n\nstage",
            "output\n\nstage",
            "line 13: `output`: expected project=48, residual, linear-leaves or activation, each once",
        );
        check("stem maxpool2", "n3 = sep3x3", "line 8: `n3`: expected a `stage` line before it");
        check("conv1x1/128", "conv3x3/128", "line 18: `conv3x3/128`: expected conv1x1/ and a number of channels");
        check("n4 = conv1x1 n0 n1", "n4 = conv1x1 n3", "line 12: n3 does not exist");
    }

    #[test]
    fn fields_are_verified() {
        check("conv3x3/16", "conv2x2/16", "not a well-formed architecture: A3: stem 0: kernel 2 is not odd");
        check(
            "n2 = identity n0",
            "n2 = identity",
            "not a well-formed architecture: A5: stage 1: no node of the cell is reached from its input",
        );
    }
}
