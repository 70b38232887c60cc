//! Arguments of every command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gram_ir::{Concat, Dtype, MemoryModel, Separable, Shape};
use gram_train::DeviceChoice;

use crate::commands::bench::tabular::TabularArgs;
use crate::commands::latency::LatencyCommand;

/// Hardware-aware neural architecture search: small fast networks from labelled images and hard limits.
#[derive(Debug, Parser)]
#[command(name = "gram", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Search, prune, train and export a network; run the same command again to continue
    Search(SearchArgs),
    /// Show what limits a space can meet, before any training
    Space(SpaceArgs),
    /// The best architectures of a study within limits, without any training; limits that are not given are the study's own
    Prune(PruneArgs),
    /// Train an architecture, or continue its training
    Train(TrainArgs),
    /// Evaluate a trained model on one split of a dataset
    Eval(EvalArgs),
    /// Classify images
    Predict(PredictArgs),
    /// MACs, params and peak bytes of an architecture, in all and per node
    Cost(CostArgs),
    /// The order of operators in which feature maps take the least memory
    Schedule(ScheduleArgs),
    /// Write a model or an architecture in another format
    Export(ExportArgs),
    /// Latency on a device: measured, predicted with an interval, transferred to new devices
    #[command(subcommand)]
    Latency(LatencyCommand),
    /// Look at datasets
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure training steps, side by side with other frameworks
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// What is searched, on what, within which limits.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selectors {
    /// Study file (TOML); the options below override it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Dataset: a folder, or `optdigits`, which is built in
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<String>,
    /// Search space: a preset's name or a TOML file
    #[arg(long, value_name = "SPACE")]
    pub(crate) space: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Seed of everything random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) seed: Option<u64>,
    /// Override one value of the study file, e.g. `proxy.train.epochs=8`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Hard limits.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LimitArgs {
    /// Most multiply–accumulates of one forward pass (10M, 400k)
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) max_macs: Option<u64>,
    /// Most trainable parameters (500k)
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) max_params: Option<u64>,
    /// Most bytes of feature maps that are alive at one time, in the best order of operators (256k is 256 KiB); see `gram schedule`
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) max_peak_bytes: Option<u64>,
    /// Element type that peak bytes are counted for: f32, f16, u8 or i8 [default: f32]; more under [limits.memory] of the study file
    #[arg(long, value_name = "TYPE")]
    pub(crate) peak_dtype: Option<Dtype>,
}

#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    pub(crate) selectors: Selectors,
    /// How children are proposed
    #[arg(long, value_enum)]
    pub(crate) strategy: Option<StrategyArg>,
    /// Start from what another study learnt: its folder or meta-graph.json, also of another space or data. It is on trial first
    #[arg(long, value_name = "STUDY|FILE")]
    pub(crate) warm_start: Option<String>,
    /// Most milliseconds a forward pass may be predicted to take, at the upper end of the prediction's interval
    #[arg(long, value_name = "MS", requires = "latency_device")]
    pub(crate) max_latency_ms: Option<f64>,
    /// Device that --max-latency-ms is about: a file that `gram latency profile` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) latency_device: Option<String>,
    /// Distinct children to train
    #[arg(long, value_name = "N")]
    pub(crate) children: Option<usize>,
    /// Cores to keep busy: N children at a time, or fewer on more threads each, whichever is measured to be faster [default: all; on a GPU
    /// always 1]
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Threads of each child, instead of measuring; `--jobs` is then the number of children at a time [default: cores / T]
    #[arg(long, value_name = "T")]
    pub(crate) threads: Option<usize>,
    /// Most memory for trainings and images together (512M, 4G; binary: 4G is 4 GiB) [default: 80 % of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) max_memory: Option<u64>,
    /// Where networks are trained: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Folder of the study; an unfinished study in it is continued
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// How children are proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StrategyArg {
    /// Graph propagation into a meta-graph; a surrogate picks children around the best ones and out of its draws
    Gram,
    /// Removes, for good, the edge whose removal scores best
    Autoshrink,
    /// Regularised evolution: the oldest of a population goes
    Evolution,
    /// The best neighbour by one edit, over and over, from new starts
    Local,
    /// Independent draws from the untouched meta-graph
    Random,
}

#[derive(Args, Debug)]
pub(crate) struct SpaceArgs {
    #[command(flatten)]
    pub(crate) selectors: Selectors,
    /// Image shape, where there is no dataset yet
    #[arg(long, value_name = "CxHxW", conflicts_with = "data")]
    pub(crate) input: Option<Shape>,
    /// Number of classes, where there is no dataset yet
    #[arg(long, value_name = "N", conflicts_with = "data")]
    pub(crate) classes: Option<usize>,
    /// Most milliseconds a forward pass may be predicted to take, at the upper end of the prediction's interval
    #[arg(long, value_name = "MS")]
    pub(crate) max_latency_ms: Option<f64>,
    /// Device that latencies are predicted for: a file that `gram latency profile` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) latency_device: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Folder of the study
    #[arg(required_unless_present = "space")]
    pub(crate) study: Option<PathBuf>,
    /// Instead of a study: a space, a preset's name or a TOML file, in which nothing was trained; the network that makes the most of the
    /// limits is taken
    #[arg(long, value_name = "SPACE", conflicts_with_all = ["study", "repair"])]
    pub(crate) space: Option<String>,
    /// Image shape, with --space [default: what a preset was made for]
    #[arg(long, value_name = "CxHxW", requires = "space")]
    pub(crate) input: Option<Shape>,
    /// Number of classes, with --space [default: what a preset was made for]
    #[arg(long, value_name = "N", requires = "space")]
    pub(crate) classes: Option<usize>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Most milliseconds a forward pass may be predicted to take, at the upper end of the prediction's interval
    #[arg(long, value_name = "MS")]
    pub(crate) max_latency_ms: Option<f64>,
    /// Device that latencies are predicted for: a file that `gram latency profile` wrote [default: the study's, if it has a limit on latency]
    #[arg(long, value_name = "FILE")]
    pub(crate) latency_device: Option<PathBuf>,
    /// Then improve the best architecture by at most N single-edge swaps, each the one with the highest expected accuracy within the limits
    #[arg(long, value_name = "N", value_parser = parse_small)]
    pub(crate) repair: Option<usize>,
    /// Architecture file to write: the one with the highest expected accuracy
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// JSON file to write: all architectures that no other beats, with costs and expected accuracy
    #[arg(long, value_name = "FILE")]
    pub(crate) front: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    /// `architecture.json`, a text form, or a preset's name
    pub(crate) architecture: String,
    /// Dataset: a folder, or `optdigits`
    #[arg(long, value_name = "PATH")]
    pub(crate) data: String,
    /// Training file (TOML)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Override one value of the training file, e.g. `train.epochs=30`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed of everything random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) seed: Option<u64>,
    /// Trained model to learn from too: of the same classes and input (`train.distillation.weight`, `.temperature`)
    #[arg(long, value_name = "MODELDIR")]
    pub(crate) teacher: Option<PathBuf>,
    /// Where the network is trained: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub(crate) device: DeviceChoice,
    /// Folder of the model; an unfinished training in it is continued
    #[arg(short, long, value_name = "MODELDIR")]
    pub(crate) output: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    /// Folder of a trained model
    pub(crate) model: PathBuf,
    /// Dataset: a folder, or `optdigits`
    #[arg(long, value_name = "PATH")]
    pub(crate) data: String,
    /// Which images
    #[arg(long, value_enum, default_value_t = SplitArg::Validation)]
    pub(crate) split: SplitArg,
    /// Also write the normalised images and the model's outputs as safetensors, to compare a deployment with
    #[arg(long, value_name = "FILE")]
    pub(crate) outputs: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// One of the three splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitArg {
    /// What the model was trained on
    Train,
    /// Held out of the training images
    Validation,
    /// To be read once, at the end
    Test,
    /// The dataset's own test images, where the test split was drawn out of its training images
    OwnTest,
}

#[derive(Args, Debug)]
pub(crate) struct PredictArgs {
    /// Folder of a trained model
    pub(crate) model: PathBuf,
    /// JPEG or PNG files
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Classes to show for each image
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub(crate) top: usize,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CostArgs {
    /// `architecture.json`, a text form, or a preset's name
    pub(crate) architecture: String,
    /// Image shape
    #[arg(long, value_name = "CxHxW")]
    pub(crate) input: Option<Shape>,
    /// Number of classes
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Show every node
    #[arg(long)]
    pub(crate) nodes: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ScheduleArgs {
    /// `architecture.json`, a text form, or a preset's name
    pub(crate) architecture: String,
    /// Image shape
    #[arg(long, value_name = "CxHxW")]
    pub(crate) input: Option<Shape>,
    /// Number of classes
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// Draw live bytes over the steps of both orders
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the engine stores and joins feature maps.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct MemoryArgs {
    /// Element type of feature maps: f32, f16, u8 or i8
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub(crate) dtype: Dtype,
    /// Concatenations: copy (into a map of their own, as usual engines do) or view (free, readers read the parts)
    #[arg(long, value_name = "HOW", default_value_t)]
    pub(crate) concat: Concat,
    /// Split convolutions of concatenations and accumulate their parts in place
    #[arg(long)]
    pub(crate) partial: bool,
    /// Store the whole map between the halves of a separable convolution, as engines without a kernel for both do
    #[arg(long)]
    pub(crate) split_separable: bool,
}

impl MemoryArgs {
    pub(crate) fn engine(self) -> MemoryModel {
        let separable = if self.split_separable { Separable::Split } else { Separable::Fused };
        let Self { dtype, concat, partial, .. } = self;
        MemoryModel { dtype, concat, partial, separable }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Folder of a trained model; for dot, svg, text and json also an architecture
    pub(crate) model: String,
    /// Format to write
    #[arg(long, value_enum)]
    pub(crate) format: FormatArg,
    /// Dataset whose validation images the ONNX file is checked on [default: the one of the training]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<String>,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// Formats of `gram export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// ONNX opset 17, batch norm folded, checked on validation images
    Onnx,
    /// Weights with torch's names
    Safetensors,
    /// Graphviz
    Dot,
    /// A drawing of the cells
    Svg,
    /// The readable text form
    Text,
    /// `architecture.json`
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Counts, shapes, classes and digest of a dataset
    Info {
        /// Dataset: a folder, or `optdigits`
        data: String,
        /// Resize every image so that it is HxW
        #[arg(long, value_name = "HxW", value_parser = parse_size)]
        image_size: Option<(usize, usize)>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Datasets that need no files, and formats that are recognised
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Training steps of one network, asked for line by line
    ///
    /// One step is forward, cross-entropy, backward and SGD with momentum 0.9 and weight decay 5e-4, always on the same made-up images. Prints
    /// `ready MODE params N` after two steps; then, for each line `go N` on standard input, takes N steps and prints `t MS... rss MIB
    /// loss L`: the time of each in milliseconds, the process's largest resident memory so far (Linux; 0 elsewhere), the last loss. Ends
    /// at the end of input or at any other line. Contenders that stay open and are asked in turn meet the same load of the machine.
    Step(StepArgs),
    /// Fused multiply-adds from registers that the cores can do: what shares of the peak are of
    Peak(PeakArgs),
    /// Searches on a table of trained architectures: evaluations until the best, regret, comparison of strategies
    ///
    /// A search sees the validation column alone and is judged by the test column. Searches differ by their seed.
    Tabular(TabularArgs),
    /// How well cheap trainings rank children: Kendall's tau between studies of the same children
    ///
    /// Studies with the same space, limits, seed and `--strategy random` have the same children, however they train them. Name one that
    /// trains them in full, then those whose [proxy] is to be judged.
    Proxy(ProxyBenchArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ProxyBenchArgs {
    /// Study that trains its children in full
    pub(crate) reference: PathBuf,
    /// Studies of the same children
    #[arg(required = true, value_name = "STUDY")]
    pub(crate) proxies: Vec<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StepArgs {
    /// Net file (lines `cell`, `sep P...`, `c1 P...`; 3x32x32 images, 10 classes), `architecture.json`, a text form, or a preset's name
    pub(crate) net: String,
    /// Images of a step
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = parse_small)]
    pub(crate) batch: usize,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_small)]
    pub(crate) threads: usize,
    /// Instruction set [default: the best one of this machine]
    #[arg(long, value_enum)]
    pub(crate) isa: Option<IsaArg>,
}

/// Instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsaArg {
    /// AVX-512
    Avx512,
    /// AVX2 with FMA
    Avx2,
    /// Plain code
    Portable,
}

#[derive(Args, Debug)]
pub(crate) struct PeakArgs {
    /// Threads, each on a core of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_small)]
    pub(crate) threads: usize,
    /// Instruction set [default: the best one of this machine]
    #[arg(long, value_enum)]
    pub(crate) isa: Option<IsaArg>,
    /// Time that is measured, in seconds
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// A count between 1 and 1024.
pub(crate) fn parse_small(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1024).contains(count));
    count.ok_or_else(|| format!("`{text}` is no number between 1 and 1024"))
}

/// `400000`, `400k`, `10M`, `1.5M`, `2G`.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let fail = || format!("`{text}` is not a count: write 400000, 400k, 10M or 1.5M");
    let (digits, places) = match text.trim().char_indices().last() {
        Some((at, 'k' | 'K')) => (&text.trim()[..at], 3_usize),
        Some((at, 'm' | 'M')) => (&text.trim()[..at], 6),
        Some((at, 'g' | 'G')) => (&text.trim()[..at], 9),
        _ => (text.trim(), 0),
    };
    // In decimal, because 2.07 times a million is no whole number in binary.
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let padding = places.checked_sub(fraction.len()).ok_or_else(fail)?;
    let plain = format!("{}{fraction}{:0<padding$}", whole.replace('_', ""), "");
    let is_count = whole.starts_with(|c: char| c.is_ascii_digit()) && plain.bytes().all(|byte| byte.is_ascii_digit());
    plain.parse().ok().filter(|count| is_count && *count < 9_000_000_000_000_000).ok_or_else(fail)
}

/// `4G`, `512M`, `1.5GiB`, `1048576`: k, M, G and T are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let fail = || format!("`{text}` is not a size of memory: write 512M, 4G or 1.5G, more than 0");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let units = [('k', 1_u64 << 10), ('m', 1 << 20), ('g', 1 << 30), ('t', 1 << 40)];
    let with_unit = units.iter().find_map(|&(unit, factor)| Some((digits.strip_suffix(unit)?, factor)));
    let (digits, factor) = match with_unit {
        Some((digits, factor)) => (digits.trim_end(), factor),
        None if lower.ends_with("ib") => return Err(fail()),
        None => (digits.trim_end(), 1),
    };
    let value = digits.parse::<f64>().map_err(|_| fail())? * factor as f64;
    if value.is_finite() && (1.0..9e15).contains(&value) && digits.starts_with(|c: char| c.is_ascii_digit()) {
        Ok(value as u64)
    } else {
        Err(fail())
    }
}

/// `32x32`.
pub(crate) fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let axes: Option<Vec<usize>> = text.split('x').map(|axis| axis.parse().ok()).collect();
    match axes.as_deref() {
        Some(&[h, w]) if (1..=4096).contains(&h) && (1..=4096).contains(&w) => Ok((h, w)),
        _ => Err(format!("`{text}` is not a size: write 64x64, each between 1 and 4096")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn counts_with_suffixes() {
        let cases =
            [("400000", 400_000), ("400k", 400_000), ("2.07M", 2_070_000), ("2G", 2_000_000_000), ("10_000", 10_000)];
        for (text, count) in cases {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in ["", "k", "-1", "1.5", "0.0001k", "1e400", "1e3", "+1", ".5M", "1._5k", "99999999G", "ten", "1kk"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_of_memory_are_binary() {
        let cases = [
            ("4G", 4 << 30),
            ("4GiB", 4 << 30),
            ("4gb", 4 << 30),
            ("512M", 512 << 20),
            ("1.5g", 3 << 29),
            ("64 KiB", 64 << 10),
            ("1T", 1 << 40),
            ("1048576", 1 << 20),
            ("100B", 100),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "0", "0.1", "-4G", "4X", "4iB", "4GG", "1e400", "infG", "NaN", "+4G", "9000000T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("32x48"), Ok((32, 48)));
        assert!(parse_size("32").is_err() && parse_size("0x4").is_err() && parse_size("5000x4").is_err());
    }
}
