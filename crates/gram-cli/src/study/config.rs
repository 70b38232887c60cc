//! Study files: everything that decides the outcome of a study, every default written out.

use std::fmt;

use gram_data::{DataError, Dataset, LoadOptions, SplitConfig, Splits, proxy_subset};
use gram_ir::{Limits, Space};
use gram_meta::{MetaConfig, WARM_START_RHO};
use gram_search::{Halving, Sampler, StrategyKind};
use gram_train::TrainConfig;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::failure::{Failure, Kind, Result};

/// The version of study files that this program writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// A whole study (`study.toml`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StudyConfig {
    pub(crate) format_version: u32,
    /// Seed of everything random but the splits.
    pub(crate) seed: u64,
    pub(crate) data: DataConfig,
    pub(crate) limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<LatencySettings>,
    pub(crate) search: SearchConfig,
    pub(crate) meta: MetaConfig,
    pub(crate) proxy: ProxyConfig,
    /// Dearer and dearer proxies for fewer and fewer of the best networks, when the search is over; none: the finalists are scored once more
    /// on the search's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rungs: Vec<RungConfig>,
    /// How the winner is trained.
    #[serde(rename = "final")]
    pub(crate) final_training: TrainConfig,
    /// A larger network of the same study that the winner learns from; none: the winner learns from labels alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) teacher: Option<TeacherConfig>,
    pub(crate) space: SpaceChoice,
}

/// Which images, and how they are split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// A folder, relative to where the command runs, or `optdigits`.
    pub(crate) path: String,
    /// Height and width to resize to; none: as stored, 64x64 for image folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_size: Option<(usize, usize)>,
    /// Validation images per class, drawn from the training images; none: `validation_fraction` decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation_per_class: Option<usize>,
    /// Fraction of the training images of each class that is held out for validation.
    pub(crate) validation_fraction: f64,
    /// Fraction held out for test where the dataset has no test split.
    pub(crate) test_fraction: f64,
    /// Test images per class drawn out of the training images, even where the dataset has a test split, which is then apart; none:
    /// the dataset's own, or `test_fraction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) test_per_class: Option<usize>,
    /// Most training images per class, for a quick trial on large data; none: all that are left after validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) train_per_class: Option<usize>,
    /// Apart from the study's seed, so that studies with other seeds see the same splits.
    pub(crate) split_seed: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        let split = SplitConfig::default();
        Self {
            path: String::new(),
            image_size: None,
            validation_per_class: split.validation_per_class,
            validation_fraction: split.validation_fraction,
            test_fraction: split.test_fraction,
            test_per_class: split.test_per_class,
            train_per_class: None,
            split_seed: split.seed,
        }
    }
}

impl DataConfig {
    /// What decides the outcome: everything but the path, for moved data is the same data (its digest says so).
    pub(crate) fn without_path(&self) -> Self {
        Self { path: String::new(), ..self.clone() }
    }

    /// Splits a dataset.
    ///
    /// # Errors
    /// Exit code 2 for fractions that leave nothing to train on.
    pub(crate) fn split(&self, dataset: &Dataset) -> Result<Splits> {
        let config = SplitConfig {
            validation_per_class: self.validation_per_class,
            validation_fraction: self.validation_fraction,
            test_fraction: self.test_fraction,
            test_per_class: self.test_per_class,
            seed: self.split_seed,
        };
        let mut splits = gram_data::split(dataset, &config).map_err(data_failure)?;
        if let Some(most) = self.train_per_class {
            splits.train = proxy_subset(&splits.train, most, self.split_seed);
        }
        for (name, set) in [("training", &splits.train), ("validation", &splits.validation), ("test", &splits.test)] {
            if set.is_empty() {
                return Err(Failure::new(
                    Kind::Usage,
                    format!("there are no {name} images; see [data] of the study file"),
                ));
            }
        }
        Ok(splits)
    }

    /// Opens the dataset.
    ///
    /// # Errors
    /// Exit code 4 for bad files, 2 for bad settings.
    pub(crate) fn open(&self) -> Result<Dataset> {
        let options = LoadOptions { image_size: self.image_size, ..LoadOptions::default() };
        gram_data::open(&self.path, &options).map_err(data_failure)
    }
}

/// Exit code 2 for a setting, 4 for files.
fn data_failure(error: DataError) -> Failure {
    let kind = if matches!(error, DataError::Setting { .. }) { Kind::Usage } else { Kind::Data };
    Failure { kind, error: error.into() }
}

/// A hard limit on latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LatencySettings {
    /// Most milliseconds, of the upper end of the prediction's 90 % interval.
    pub(crate) max_ms: f64,
    /// Device file; relative to where the command runs.
    #[serde(default)]
    pub(crate) device: String,
}

/// Where a warm start comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WarmStartConfig {
    /// A `meta-graph.json`, or the folder of a study that has one; relative to where the command runs.
    pub(crate) path: String,
    /// Share of its evidence that is taken over, 0 to 1.
    #[serde(default = "default_rho")]
    pub(crate) rho: f64,
}

fn default_rho() -> f64 {
    WARM_START_RHO
}

/// The search itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SearchConfig {
    pub(crate) strategy: StrategyKind,
    /// Where the children of the strategy gram come from.
    pub(crate) sampler: Sampler,
    /// An earlier study's meta-graph to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warm_start: Option<WarmStartConfig>,
    /// Distinct children to train.
    pub(crate) children: usize,
    /// Children asked for and told together: fewer teach sooner, more keep more cores busy.
    pub(crate) children_per_round: usize,
    /// Networks that are scored once more at the end, with a fresh seed, before the winner is named: the pruned one and the best children.
    pub(crate) finalists: usize,
}

impl Default for SearchConfig {
    /// All of them ours.
    fn default() -> Self {
        Self {
            strategy: StrategyKind::Gram,
            sampler: Sampler::default(),
            warm_start: None,
            children: 64,
            children_per_round: 8,
            finalists: 4,
        }
    }
}

/// What a child is trained on to be scored (ALGORITHMS 1.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyConfig {
    /// Training images of each class.
    pub(crate) images_per_class: usize,
    /// Validation images of each class.
    pub(crate) validation_images_per_class: usize,
    /// What children are ranked by.
    #[serde(default, skip_serializing_if = "ProxyScore::is_default")]
    pub(crate) score: ProxyScore,
    pub(crate) train: TrainConfig,
    /// Children that are behind the others of their round are not trained to the end; none: all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) halving: Option<Halving>,
    /// A child starts from the weights of the child of earlier rounds that shares most tensors with it, not from random ones. Off by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) inherit: bool,
}

/// What children are ranked by, after the last epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyScore {
    /// Top-1 on the validation images.
    #[default]
    ValidationTop1,
    /// `exp(−loss)` of the loss on the training images over the last epoch (TSE-E with E = 1 of Ru et al., arXiv:2006.04492). It is known more
    /// exactly than a top-1 of as many images, and ranks networks that are too small to learn their training images by heart.
    TrainLoss,
}

impl ProxyScore {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One step of successive halving behind the search (Jamieson and Talwalkar, arXiv:1502.07943): the best networks so far, each trained anew with
/// a fresh seed on a dearer proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RungConfig {
    /// Networks that are trained; at most as many as on the rung before.
    pub(crate) networks: usize,
    /// As in `[proxy]`.
    pub(crate) images_per_class: usize,
    /// As in `[proxy]`.
    pub(crate) validation_images_per_class: usize,
    /// Passes over the images; all else is `[proxy.train]`.
    pub(crate) epochs: usize,
}

impl RungConfig {
    /// The proxy of the rung.
    pub(crate) fn proxy(&self, search: &ProxyConfig) -> ProxyConfig {
        let Self { images_per_class, validation_images_per_class, epochs, .. } = *self;
        let warmup_epochs = search.train.warmup_epochs.min(epochs);
        let train = TrainConfig { epochs, warmup_epochs, ..search.train.clone() };
        let (score, halving, inherit) = (ProxyScore::ValidationTop1, None, false);
        ProxyConfig { images_per_class, validation_images_per_class, score, train, halving, inherit }
    }
}

/// The teacher of a study's winner (Hinton et al., arXiv:1503.02531): the study's meta-graph, cut to larger limits and trained before the winner
/// is. How much the winner learns from it is `[final.distillation]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TeacherConfig {
    /// So many times the limits on MACs, params and peak bytes is what it may cost, above 1. Default 4, ours. Its latency is not limited.
    pub(crate) growth: f64,
    /// Passes over the training images; none: as many as the winner's. All else is `[final]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epochs: Option<usize>,
}

impl Default for TeacherConfig {
    fn default() -> Self {
        Self { growth: 4.0, epochs: None }
    }
}

/// A study file as people write it: whatever it does not say is left to the defaults. Mirrors [`StudyConfig`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read only to check a file's fields and name the line of what is wrong")]
pub(crate) struct StudyFile {
    format_version: Option<u32>,
    seed: Option<u64>,
    data: Option<DataConfig>,
    limits: Option<Limits>,
    latency: Option<LatencySettings>,
    search: Option<SearchConfig>,
    meta: Option<MetaConfig>,
    proxy: Option<ProxyFile>,
    rungs: Option<Vec<RungConfig>>,
    r#final: Option<TrainConfig>,
    teacher: Option<TeacherConfig>,
    space: Option<SpaceChoice>,
}

/// `[proxy]` as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "as for StudyFile")]
struct ProxyFile {
    images_per_class: Option<usize>,
    validation_images_per_class: Option<usize>,
    score: Option<ProxyScore>,
    train: Option<TrainConfig>,
    halving: Option<Halving>,
    inherit: Option<bool>,
}

/// A space as a study file has it: a name or the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpaceChoice {
    /// A preset's name or a file.
    Named(String),
    /// Written out.
    Inline(Space),
}

impl Serialize for SpaceChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::Inline(space) => space.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SpaceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(SpaceVisitor)
    }
}

/// Keeps the place of an error inside an inline space, which an untagged enum would lose.
struct SpaceVisitor;

impl<'de> Visitor<'de> for SpaceVisitor {
    type Value = SpaceChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a space or a table that describes one")
    }

    fn visit_str<E: Error>(self, name: &str) -> std::result::Result<SpaceChoice, E> {
        Ok(SpaceChoice::Named(name.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<SpaceChoice, A::Error> {
        Space::deserialize(MapAccessDeserializer::new(map)).map(SpaceChoice::Inline)
    }
}
