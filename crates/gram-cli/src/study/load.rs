//! From arguments to a configuration: defaults for the data at hand, a study file, options, `--set`.

use std::path::Path;

use gram_data::{Augmentation, Dataset, ImageShape};
use gram_ir::{Limits, Macs, MemoryModel, Params, SPACE_PRESET_NAMES, Shape, Space, space_preset};
use gram_search::StrategyKind;
use gram_train::{Optimizer, TrainConfig};
use toml::{Table, Value};

use crate::args::{LimitArgs, Selectors};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::read_text;
use crate::study::config::{
    DataConfig, FORMAT_VERSION, ProxyConfig, ProxyScore, RungConfig, SearchConfig, SpaceChoice, StudyConfig, StudyFile,
};
use crate::study::teacher::settle;
use crate::study::{merge, parse_set};

/// A configuration with everything decided, and the data it is about.
pub(crate) struct Loaded {
    pub(crate) config: StudyConfig,
    pub(crate) space: Space,
    pub(crate) dataset: Dataset,
}

/// What only `gram search` can choose.
#[derive(Clone, Default)]
pub(crate) struct SearchOptions {
    pub(crate) strategy: Option<StrategyKind>,
    pub(crate) children: Option<usize>,
    pub(crate) warm_start: Option<String>,
    pub(crate) max_latency_ms: Option<f64>,
    pub(crate) latency_device: Option<String>,
}

/// Reads the study file, the data and the options, later ones on top.
///
/// # Errors
/// Exit code 2 for the configuration, 4 for the data.
pub(crate) fn load(selectors: &Selectors, search: SearchOptions) -> Result<Loaded> {
    let over = overrides(selectors, search)?;
    let data = data_config(&over)?;
    if data.path.is_empty() {
        return Err(Failure::new(
            Kind::Usage,
            "no dataset: say which with --data PATH, or path = … under [data] in the study file",
        ));
    }
    let dataset = data.open()?;
    let shape = shape_of(&dataset);
    let (config, space) = resolve(over, shape)?;
    Ok(Loaded { config, space, dataset })
}

/// As [`load`], for images of a given shape instead of a dataset.
pub(crate) fn load_without_data(selectors: &Selectors, shape: Shape) -> Result<(StudyConfig, Space)> {
    resolve(overrides(selectors, SearchOptions::default())?, shape)
}

/// Shape of a dataset's images.
pub(crate) fn shape_of(dataset: &Dataset) -> Shape {
    let shape = dataset.train.shape();
    Shape::chw(shape.c, shape.h, shape.w)
}

/// The study file, the options and `--set`, as one table on top of the defaults.
fn overrides(selectors: &Selectors, search: SearchOptions) -> Result<Table> {
    let mut over = match &selectors.config {
        Some(path) => study_file(path)?,
        None => Table::new(),
    };
    let mut set = |path: &[&str], value: Option<Value>| {
        if let Some(value) = value {
            merge(&mut over, nested(path, value));
        }
    };
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    set(&["data", "path"], selectors.data.clone().map(Value::String));
    set(&["space"], selectors.space.clone().map(Value::String));
    set(&["seed"], selectors.seed.map(|seed| Value::Integer(count(seed))));
    set(&["limits", "max_macs"], selectors.limits.max_macs.map(|most| Value::Integer(count(most))));
    set(&["limits", "max_params"], selectors.limits.max_params.map(|most| Value::Integer(count(most))));
    set(&["limits", "max_peak_bytes"], selectors.limits.max_peak_bytes.map(|most| Value::Integer(count(most))));
    set(&["limits", "memory", "dtype"], selectors.limits.peak_dtype.map(|dtype| Value::String(dtype.name().into())));
    set(&["search", "strategy"], search.strategy.map(|strategy| Value::String(strategy.name().into())));
    set(&["search", "children"], search.children.map(|children| Value::Integer(count(children as u64))));
    set(&["latency", "max_ms"], search.max_latency_ms.map(Value::Float));
    set(&["latency", "device"], search.latency_device.map(Value::String));
    set(&["search", "warm_start", "path"], search.warm_start.map(Value::String));
    for text in &selectors.set {
        merge(&mut over, parse_set(text)?);
    }
    Ok(over)
}

fn nested(path: &[&str], value: Value) -> Table {
    match path {
        [] => Table::new(),
        [key] => Table::from_iter([((*key).to_owned(), value)]),
        [key, rest @ ..] => Table::from_iter([((*key).to_owned(), Value::Table(nested(rest, value)))]),
    }
}

/// Reads a study file as a table to be merged, after checking it on its own, because only then an error names its line.
fn study_file(path: &Path) -> Result<Table> {
    let text = read_text(path).map_err(|failure| Failure { kind: Kind::Usage, ..failure })?;
    toml::from_str::<StudyFile>(&text).or_fail_with(Kind::Usage, path.display())?;
    toml::from_str(&text).or_fail_with(Kind::Usage, path.display())
}

fn data_config(over: &Table) -> Result<DataConfig> {
    let table = over.get("data").cloned().unwrap_or_else(|| Value::Table(Table::new()));
    table.try_into().or_fail_with(Kind::Usage, "[data]")
}

/// Puts everything on top of the defaults for images of `shape` and writes the space out.
fn resolve(over: Table, shape: Shape) -> Result<(StudyConfig, Space)> {
    let mut table = Table::try_from(defaults(shape)).or_fail_with(Kind::Internal, "writing the defaults")?;
    merge(&mut table, over);
    let mut config: StudyConfig = table.try_into().or_fail_with(Kind::Usage, "the study's configuration")?;
    check_version(config.format_version)?;
    let space = match &config.space {
        SpaceChoice::Named(name) => named_space(name)?,
        SpaceChoice::Inline(space) => space.clone(),
    };
    space.verify().or_fail(Kind::Usage)?;
    config.space = SpaceChoice::Inline(space.clone());
    check(&config)?;
    settle(&mut config)?;
    check_augmentation("[proxy.train]", &config.proxy.train, shape)?;
    check_augmentation("[final]", &config.final_training, shape)?;
    Ok((config, space))
}

/// Refuses files of another version.
pub(crate) fn check_version(got: u32) -> Result<()> {
    if got == FORMAT_VERSION {
        return Ok(());
    }
    let message = format!("format_version {got} is not {FORMAT_VERSION}, the one that this gram reads");
    Err(Failure::new(Kind::Usage, message))
}

/// A preset, or a TOML file with a space.
///
/// # Errors
/// Exit code 2 for a name that is neither and for a file that holds no space.
pub(crate) fn named_space(name: &str) -> Result<Space> {
    if let Some(space) = space_preset(name) {
        return Ok(space);
    }
    let path = Path::new(name);
    if !path.is_file() {
        let names = SPACE_PRESET_NAMES.join(", ");
        return Err(Failure::new(Kind::Usage, format!("there is no space `{name}`: choose {names}, or a TOML file")));
    }
    let text = read_text(path).map_err(|failure| Failure { kind: Kind::Usage, ..failure })?;
    toml::from_str(&text).or_fail_with(Kind::Usage, path.display())
}

fn check(config: &StudyConfig) -> Result<()> {
    config.proxy.train.validate().or_fail_with(Kind::Usage, "[proxy.train]")?;
    let halving = config.proxy.halving.as_ref();
    halving.map_or(Ok(()), |halving| halving.verify(config.proxy.train.epochs)).or_fail_with(Kind::Usage, "[proxy]")?;
    if halving.is_some() && config.proxy.score != ProxyScore::ValidationTop1 {
        let message = "[proxy]: halving compares children by validation top-1; leave out `halving`, or `score`";
        return Err(Failure::new(Kind::Usage, message));
    }
    config.final_training.validate().or_fail_with(Kind::Usage, "[final]")?;
    config.meta.verify().or_fail_with(Kind::Usage, "[meta]")?;
    let counts = [
        ("proxy.images_per_class", config.proxy.images_per_class),
        ("proxy.validation_images_per_class", config.proxy.validation_images_per_class),
        ("search.finalists", config.search.finalists),
    ];
    let mut last = usize::MAX;
    for (index, rung) in config.rungs.iter().enumerate() {
        let RungConfig { networks, images_per_class, validation_images_per_class, epochs } = *rung;
        if [networks, images_per_class, validation_images_per_class, epochs].contains(&0) {
            return Err(Failure::new(Kind::Usage, format!("rungs[{index}]: a value is 0, all must be 1 or more")));
        }
        if networks > last {
            let message = format!("rungs[{index}].networks is {networks}, more than the {last} of the rung before");
            return Err(Failure::new(Kind::Usage, message));
        }
        last = networks;
        rung.proxy(&config.proxy).train.validate().or_fail_with(Kind::Usage, format!("rungs[{index}]"))?;
    }
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((field, _)) => Err(Failure::new(Kind::Usage, format!("{field} is 0, it must be 1 or more"))),
        None => Ok(()),
    }
}

/// Refuses augmentation that does not suit the images before anything is trained.
pub(crate) fn check_augmentation(table: &str, config: &TrainConfig, shape: Shape) -> Result<()> {
    let shape = ImageShape::new(shape.c, shape.h, shape.w);
    config.augmentation.check(shape).or_fail_with(Kind::Usage, table)
}

/// The limits of a study, with those that are given as options in their place.
pub(crate) fn limits(args: &LimitArgs, study: &Limits) -> Limits {
    Limits {
        max_macs: args.max_macs.map(Macs).or(study.max_macs),
        max_params: args.max_params.map(Params).or(study.max_params),
        max_peak_bytes: args.max_peak_bytes.or(study.max_peak_bytes),
        memory: MemoryModel { dtype: args.peak_dtype.unwrap_or(study.memory.dtype), ..study.memory },
    }
}

/// Defaults for images of a shape. All of them are ours, chosen so that a first study of small images takes minutes.
pub(crate) fn defaults(shape: Shape) -> StudyConfig {
    StudyConfig {
        format_version: FORMAT_VERSION,
        seed: 0,
        data: DataConfig::default(),
        limits: Limits::default(),
        latency: None,
        search: SearchConfig::default(),
        meta: gram_meta::MetaConfig::default(),
        proxy: ProxyConfig {
            images_per_class: 100,
            validation_images_per_class: 50,
            score: ProxyScore::default(),
            train: TrainConfig { epochs: 6, ..training(shape) },
            halving: None,
            inherit: false,
        },
        rungs: Vec::new(),
        final_training: TrainConfig { epochs: 40, ema_decay: Some(0.99), ..training(shape) },
        teacher: None,
        space: SpaceChoice::Named(default_space(shape).into()),
    }
}

/// Photographs are shifted and mirrored; grey images (digits, garments) are shifted only, for mirrored digits are none.
pub(crate) fn training(shape: Shape) -> TrainConfig {
    let augmentation = Augmentation { pad: shape.h.min(shape.w) / 8, flip: shape.c == 3, cutout: 0 };
    let optimizer = Optimizer::adamw();
    TrainConfig { optimizer, learning_rate: 4e-3, weight_decay: 0.02, augmentation, ..TrainConfig::default() }
}

fn default_space(shape: Shape) -> &'static str {
    match shape.h.min(shape.w) {
        0..32 => "swiftnet-small",
        32..64 => "swiftnet-cifar",
        _ => "swiftnet-vww",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gram_ir::Dtype;

    fn selectors(set: &[&str]) -> Selectors {
        Selectors { set: set.iter().map(ToString::to_string).collect(), ..Selectors::default() }
    }

    #[test]
    fn every_default_is_written_out_and_reads_back() {
        let (config, space) = load_without_data(&selectors(&[]), Shape::chw(1, 8, 8)).unwrap();
        assert_eq!(space.name, "swiftnet-small");
        let text = toml::to_string_pretty(&config).unwrap();
        let again: StudyConfig = toml::from_str(&text).unwrap();
        assert_eq!(toml::to_string_pretty(&again).unwrap(), text);
        for field in ["epochs", "beta_cap", "children_per_round", "label_smoothing", "[[space.stages]]"] {
            assert!(text.contains(field), "{field} is missing in\n{text}");
        }
    }

    #[test]
    fn options_and_sets_override() {
        let mut options =
            selectors(&["proxy.train.epochs=3", "final.optimizer={name=\"sgd\"}", "space=swiftnet-cifar"]);
        options.limits.max_macs = Some(7);
        options.limits.max_peak_bytes = Some(1 << 18);
        options.limits.peak_dtype = Some(Dtype::U8);
        let (config, space) = load_without_data(&options, Shape::chw(3, 8, 8)).unwrap();
        assert_eq!(config.proxy.train.epochs, 3);
        assert_eq!(config.final_training.optimizer, Optimizer::sgd());
        assert_eq!(config.limits.max_macs, Some(Macs(7)));
        let memory = MemoryModel { dtype: Dtype::U8, ..MemoryModel::default() };
        assert_eq!((config.limits.max_peak_bytes, config.limits.memory), (Some(262_144), memory));
        let given = LimitArgs { max_macs: Some(9), ..LimitArgs::default() };
        assert_eq!(limits(&given, &config.limits), Limits { max_macs: Some(Macs(9)), ..config.limits });
        assert_eq!(space.name, "swiftnet-cifar");
    }

    #[test]
    fn errors_in_a_file_name_their_line() {
        let check = |text: &str| toml::from_str::<StudyFile>(text).unwrap_err().to_string();
        assert!(check("seed = 1\n[proxy.train]\nepoch = 3").contains("line 3"));
        assert!(check("[space]\nname = \"x\"\noperators = [\"conv9x9\"]").contains("line 3"));
        assert!(check("[search]\nchildren = -1").contains("line 2"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("proxy.train.epoch=3", "epoch"),
            ("space=nowhere", "nowhere"),
            ("proxy.train.learning_rate=-1", "learning_rate"),
            ("search.strategy=magic", "magic"),
            ("format_version=2", "format_version"),
            ("proxy.halving.epochs=[3,2]", "halving.epochs"),
            ("proxy.halving.epochs=[6]", "halving.epochs"),
            ("proxy.halving={epochs=[1],keep=0.0}", "halving.keep"),
            ("proxy.halving={epochs=[1],keep_by=\"macs\"}", "macs"),
            ("proxy.halving.keep=0.5", "epochs"),
            ("proxy={score=\"train-loss\",halving={epochs=[1]}}", "leave out `halving`"),
            ("proxy.score=\"loss\"", "train-loss"),
        ];
        for (set, word) in cases {
            let failure = load_without_data(&selectors(&[set]), Shape::chw(1, 8, 8)).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage);
            assert!(format!("{:#}", failure.error).contains(word), "{set}: {:#}", failure.error);
        }
    }
}
