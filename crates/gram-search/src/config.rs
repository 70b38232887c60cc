//! What a study is: space, limits, strategy, budget, seed.

use std::fmt;
use std::str::FromStr;

use gram_ir::{Limits, Shape, Space};
use gram_meta::{MetaConfig, MetaFileError, MetaGraph, MetaGraphError, WarmStartError};
use serde::{Deserialize, Serialize};

use crate::strategies::{AutoShrink, EvolutionConfig, LocalSearch, RegularisedEvolution};
use crate::{DomainSearch, GramStrategy, LatencyConfig, RandomStrategy, Strategy};

/// Everything that decides a study's course, besides its evaluator. How many evaluations run at a time is not part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// The search space.
    pub space: Space,
    /// Shape of one image.
    pub input: Shape,
    /// Number of classes.
    pub num_classes: usize,
    /// Hard limits: no child that breaks one is evaluated.
    #[serde(default)]
    pub limits: Limits,
    /// Hard limit on predicted latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyConfig>,
    /// Who proposes children.
    #[serde(default)]
    pub strategy: StrategyKind,
    /// Where the children of [`StrategyKind::Gram`] come from.
    #[serde(default)]
    pub sampler: Sampler,
    /// An earlier study's meta-graph to start from; for [`StrategyKind::Gram`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_start: Option<WarmStart>,
    /// Distinct children to evaluate.
    pub n_children: usize,
    /// New children per round, asked for and told together; 8 (ours): fewer teach sooner, more keep more cores busy.
    #[serde(default = "default_children_per_round")]
    pub children_per_round: usize,
    /// All randomness comes from here.
    pub seed: u64,
    /// Hyper-parameters of the meta-graph.
    #[serde(default)]
    pub meta: MetaConfig,
}

fn default_children_per_round() -> usize {
    8
}

/// Where the children of a GRAM study come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// The first quarter, at most 16, is drawn from the meta-graph, then a surrogate picks children among moves of one and two edits of the best
    /// ones and draws from the meta-graph; see [`GramSearch`](crate::strategies::GramSearch).
    #[default]
    Screened,
    /// Sampler A: all children are drawn from the meta-graph.
    Ancestral,
}

/// A warm start from an earlier study; it must prove itself in the first lesson, see [`gram_meta::WarmTrial`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// [`digest`](Self::digest_of) of the meta-graph, which is given to the study when it runs.
    pub digest: String,
    /// ρ: share of its evidence that is taken over, `0..=1`; see [`MetaGraph::warm_start`].
    pub rho: f64,
}

impl WarmStart {
    /// blake3 of the meta-graph's file.
    ///
    /// # Errors
    /// As for [`MetaGraph::to_json`].
    pub fn digest_of(source: &MetaGraph) -> Result<String, MetaFileError> {
        Ok(blake3::hash(source.to_json()?.as_bytes()).to_hex().to_string())
    }
}

/// The strategies of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyKind {
    /// [`GramStrategy`].
    #[default]
    Gram,
    /// [`RandomStrategy`].
    Random,
    /// [`RegularisedEvolution`].
    Evolution,
    /// [`LocalSearch`].
    Local,
    /// [`AutoShrink`].
    Autoshrink,
}

impl StrategyKind {
    /// Every strategy, in the order of the command line's help.
    pub const ALL: [Self; 5] = [Self::Gram, Self::Autoshrink, Self::Evolution, Self::Local, Self::Random];

    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gram => "gram",
            Self::Random => "random",
            Self::Evolution => "evolution",
            Self::Local => "local",
            Self::Autoshrink => "autoshrink",
        }
    }
}

impl fmt::Display for StrategyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for StrategyKind {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| UnknownStrategy(text.chars().take(40).collect()))
    }
}

/// A strategy that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a strategy; there are gram, autoshrink, evolution, local and random")]
pub struct UnknownStrategy(pub String);

impl StudyConfig {
    /// Everything about the configuration that is out of range, apart from its space and meta-graph, which check themselves.
    ///
    /// # Errors
    /// [`ConfigError`] with one line per broken rule, naming the field.
    pub fn verify(&self) -> Result<(), ConfigError> {
        let rules = [
            (self.n_children >= 1, "n_children: must be 1 or more"),
            (self.children_per_round >= 2, "children_per_round: must be 2 or more, for a round compares its children"),
            (self.children_per_round <= 4096, "children_per_round: must be 4096 or less"),
            (
                self.latency.as_ref().is_none_or(|limit| limit.max_ms > 0.0 && limit.max_ms.is_finite()),
                "latency.max_ms: must be above 0",
            ),
            (self.num_classes >= 2, "num_classes: must be 2 or more"),
            (
                self.warm_start.is_none() || self.strategy == StrategyKind::Gram,
                "warm_start: is for the strategy gram, the only one that keeps a meta-graph",
            ),
        ];
        let broken: Vec<String> =
            rules.iter().filter(|(holds, _)| !holds).map(|(_, message)| (*message).to_owned()).collect();
        if broken.is_empty() { Ok(()) } else { Err(ConfigError(broken)) }
    }

    /// The meta-graph that the study starts from.
    ///
    /// # Errors
    /// [`MetaGraphError`] if space or hyper-parameters are not usable.
    pub fn initial_meta_graph(&self) -> Result<MetaGraph, MetaGraphError> {
        MetaGraph::new(&self.space, self.meta, self.seed)
    }

    /// The strategy that the configuration names, at its start; `warm_source` is the meta-graph of its warm start.
    ///
    /// # Errors
    /// [`StrategyError`].
    pub fn build_strategy(&self, warm_source: Option<&MetaGraph>) -> Result<Box<dyn Strategy>, StrategyError> {
        let meta = self.initial_meta_graph()?;
        let on_children = |meta, inner| Box::new(DomainSearch::new(meta, inner));
        Ok(match self.strategy {
            StrategyKind::Gram => Box::new(self.build_gram(meta, warm_source)?),
            StrategyKind::Random => Box::new(RandomStrategy::new(meta)),
            StrategyKind::Evolution => {
                on_children(meta, Box::new(RegularisedEvolution::new(self.seed, EvolutionConfig::default())))
            }
            StrategyKind::Local => on_children(meta, Box::new(LocalSearch::new(self.seed))),
            StrategyKind::Autoshrink => on_children(meta, Box::new(AutoShrink::new(self.seed))),
        })
    }

    fn build_gram(&self, meta: MetaGraph, warm_source: Option<&MetaGraph>) -> Result<GramStrategy, StrategyError> {
        let gram = |meta| match self.sampler {
            Sampler::Screened => GramStrategy::screened(meta, self.seed, self.n_children),
            Sampler::Ancestral => GramStrategy::ancestral(meta),
        };
        let Some(WarmStart { digest, rho }) = &self.warm_start else { return Ok(gram(meta)) };
        let source = warm_source.ok_or_else(|| StrategyError::NoSource { digest: digest.clone() })?;
        let got = WarmStart::digest_of(source)?;
        if got != *digest {
            return Err(StrategyError::Source { expected: digest.clone(), got });
        }
        // Before the study begins, not in its first round.
        meta.warm_start(source, *rho)?;
        Ok(gram(meta).warm(source.clone(), *rho))
    }
}

/// Why a configuration's strategy cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StrategyError {
    /// Space or hyper-parameters of the meta-graph are not usable.
    #[error(transparent)]
    Meta(#[from] MetaGraphError),
    /// An earlier study's meta-graph that does not fit.
    #[error("warm start: {0}")]
    WarmStart(#[from] WarmStartError),
    /// It is not there.
    #[error("the study starts from the meta-graph {digest}, which was not given")]
    NoSource {
        /// Of the file that is missing.
        digest: String,
    },
    /// It is another one.
    #[error("the study starts from the meta-graph {expected}, not from {got}")]
    Source {
        /// Digest in the configuration.
        expected: String,
        /// Digest of what was given.
        got: String,
    },
    /// It cannot be written as a file, and so has no digest.
    #[error(transparent)]
    File(#[from] MetaFileError),
}

/// What is wrong with a [`StudyConfig`], one line per broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the study's configuration is not usable: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);
