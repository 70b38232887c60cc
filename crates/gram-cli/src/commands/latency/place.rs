//! Where to measure, and which networks.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use gram_ir::{SPACE_PRESET_NAMES, Shape, Space, space_preset, space_preset_io};
use gram_latency::family::{Family, FamilyKind, aligned_space, smaller_space};
use gram_latency::remote::{Adb, Ssh, Transport};

use crate::args::parse_small;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::read_text;

/// A device to measure on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host,
    Ssh(String),
    Adb(Option<String>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "host" => Ok(Self::Host),
            None if text == "adb" => Ok(Self::Adb(None)),
            Some(("adb", serial)) if !serial.is_empty() => Ok(Self::Adb(Some(serial.into()))),
            Some(("ssh", destination)) if !destination.is_empty() && !destination.starts_with('-') => {
                Ok(Self::Ssh(destination.into()))
            }
            _ => Err(format!("`{text}` is no device: write host, ssh:USER@HOST, adb or adb:SERIAL")),
        }
    }
}

/// What runs the networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineKind {
    /// Its shared library, which is looked for.
    #[default]
    Onnxruntime,
    /// A part of programs that are built with `--features tract`; tells the time of whole networks only.
    Tract,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct EngineArgs {
    /// Engine; tract measures whole networks only, on this machine, on one thread
    #[arg(long, value_enum, default_value_t)]
    pub(crate) engine: EngineKind,
    /// onnxruntime's shared library or a folder with it; for ssh on the device, for adb the file to send [default: ORT_DYLIB_PATH, else
    /// the active Python's package]
    #[arg(long, value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
    /// Threads of a forward pass
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_small)]
    pub(crate) threads: usize,
    /// For ssh and adb: the program gram-latency-runner, built for the device
    #[arg(long, value_name = "FILE")]
    pub(crate) runner: Option<PathBuf>,
    /// For ssh and adb: folder on the device [default: gram-latency in the home folder, /data/local/tmp/gram-latency]
    #[arg(long, value_name = "DIR")]
    pub(crate) remote_folder: Option<String>,
    /// For adb: cores to run on, a hexadecimal mask such as f0
    #[arg(long, value_name = "MASK")]
    pub(crate) cores: Option<String>,
}

impl EngineArgs {
    /// Refuses an engine out of whose times no table of kernels can be made.
    pub(crate) fn expect_kernel_times(&self) -> Result<()> {
        match self.engine {
            EngineKind::Onnxruntime => Ok(()),
            EngineKind::Tract => Err(Failure::new(
                Kind::Usage,
                "tract tells the time of whole networks only, so it has no table of kernels: `gram latency measure` takes it, \
                 nothing else",
            )),
        }
    }
}

/// The way to a device that is not this machine.
pub(crate) fn transport(place: &Place, args: &EngineArgs) -> Result<Option<Box<dyn Transport>>> {
    if *place != Place::Host && args.engine != EngineKind::Onnxruntime {
        return Err(Failure::new(Kind::Usage, "the program that measures elsewhere has onnxruntime only"));
    }
    let needed = |what: &str| Failure::new(Kind::Usage, format!("this device needs {what}; see docs/latency.md"));
    let runner = || {
        let runner = args.runner.clone().ok_or_else(|| needed("--runner, the program to send"))?;
        if runner.is_file() {
            Ok(runner)
        } else {
            Err(needed(&format!("a runner; there is none at {}", runner.display())))
        }
    };
    match place {
        Place::Host => Ok(None),
        Place::Ssh(destination) => Ok(Some(Box::new(Ssh {
            destination: destination.clone(),
            folder: args.remote_folder.clone().unwrap_or_else(|| "gram-latency".into()),
            runner: runner()?,
            library: args.library.as_ref().map(|path| path.display().to_string()),
        }))),
        Place::Adb(serial) => Ok(Some(Box::new(Adb {
            serial: serial.clone(),
            folder: args.remote_folder.clone().unwrap_or_else(|| "/data/local/tmp/gram-latency".into()),
            runner: runner()?,
            library: args.library.clone().ok_or_else(|| needed("--library, the file to send"))?,
            cores: args.cores.clone(),
        }))),
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct FamilyArgs {
    /// Space whose networks are measured: a preset's name, a TOML file, `chain` (inverted residuals) or `dag` (SwiftNets of other widths,
    /// sizes and operators); may be given several times [default: swiftnet-vww and chain]
    #[arg(long = "space", value_name = "SPACE")]
    pub(crate) spaces: Vec<String>,
    /// Image shape [default: the space's own; 3x224x224 for chain and dag]
    #[arg(long, value_name = "CxHxW")]
    pub(crate) input: Option<Shape>,
    /// Most nodes of a stage
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=128))]
    pub(crate) nodes: Option<u16>,
    /// Round channels of spaces up to multiples of this [default: spaces that are named stay as they are, swiftnet-vww and dag get 16]
    #[arg(long, value_name = "N", value_parser = parse_small)]
    pub(crate) align: Option<usize>,
}

/// Channels that engines compute at once, on AVX-512.
const BLOCK: usize = 16;

impl FamilyArgs {
    /// Families of networks for images of their own size, or of the given one.
    pub(crate) fn families(&self) -> Result<Vec<Family>> {
        if self.spaces.is_empty() {
            return ["swiftnet-vww", "chain"].iter().map(|name| self.family(name)).collect();
        }
        self.spaces.iter().map(|name| self.family(name)).collect()
    }

    fn family(&self, name: &str) -> Result<Family> {
        // A space that is named is one that is searched, as it is.
        let align = if self.spaces.is_empty() { BLOCK } else { 1 };
        let of_vww = || space_preset_io("swiftnet-vww").unwrap_or((Shape::chw(3, 224, 224), 2));
        let (kind, (input, num_classes)) = match name {
            "chain" => (FamilyKind::Chain, (of_vww().0, 1000)),
            "dag" => (FamilyKind::Mixed(self.fitted(&read_space("swiftnet-vww")?, BLOCK)), of_vww()),
            _ => {
                let io = space_preset_io(name).unwrap_or_else(of_vww);
                (FamilyKind::Space(self.fitted(&read_space(name)?, align)), io)
            }
        };
        let label = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
        let label = self.nodes.map_or_else(|| label.to_owned(), |nodes| format!("{label}-{nodes}"));
        Ok(Family { name: label, kind, input: self.input.unwrap_or(input), num_classes })
    }

    fn fitted(&self, space: &Space, align: usize) -> Space {
        let aligned = aligned_space(space, self.align.unwrap_or(align));
        self.nodes.map_or_else(|| aligned.clone(), |nodes| smaller_space(&aligned, nodes.into()))
    }
}

fn read_space(name: &str) -> Result<Space> {
    if let Some(space) = space_preset(name) {
        return Ok(space);
    }
    let path = Path::new(name);
    if !path.exists() {
        let presets = SPACE_PRESET_NAMES.join(", ");
        return Err(Failure::new(Kind::Usage, format!("`{name}` is neither a file nor one of chain, dag, {presets}")));
    }
    let space: Space = toml::from_str(&read_text(path)?).or_fail_with(Kind::Data, path.display())?;
    space.verify().or_fail_with(Kind::Data, path.display())?;
    Ok(space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!("host".parse(), Ok(Place::Host));
        assert_eq!("ssh:pi@board".parse(), Ok(Place::Ssh("pi@board".into())));
        assert_eq!("adb:R58M".parse(), Ok(Place::Adb(Some("R58M".into()))));
        for text in ["", "phone", "ssh:", "ssh:-oProxyCommand=x", "adb:", "host:1"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn families_are_aligned_and_named() {
        let args = FamilyArgs { spaces: vec!["swiftnet-vww".into()], input: None, nodes: Some(8), align: Some(16) };
        let families = args.families().unwrap();
        let FamilyKind::Space(space) = &families[0].kind else { panic!("it is a space") };
        assert_eq!((families[0].name.as_str(), families[0].num_classes), ("swiftnet-vww-8", 2));
        assert!(space.stages.iter().all(|stage| stage.nodes == 8 && stage.output.project.unwrap() % 16 == 0));
        let unknown = FamilyArgs { spaces: vec!["no-such".into()], ..args };
        assert_eq!(unknown.families().unwrap_err().kind, Kind::Usage);
    }
}
