//! What a study is: space, limits, strategy, budget, seed.

use std::fmt;
use std::str::FromStr;

use gram_ir::{Limits, Shape, Space};
use gram_meta::{MetaConfig, MetaGraph, MetaGraphError};
use serde::{Deserialize, Serialize};

use crate::strategies::{AutoShrink, EvolutionConfig, LocalSearch, RegularisedEvolution};
use crate::{DomainSearch, GramStrategy, RandomStrategy, Strategy};

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
    /// Who proposes children.
    #[serde(default)]
    pub strategy: StrategyKind,
    /// Distinct children to evaluate.
    pub n_children: usize,
    /// K: new children per round; 16 (ALGORITHMS 1.5, ours).
    #[serde(default = "default_children_per_round")]
    pub children_per_round: usize,
    /// All randomness comes from here.
    pub seed: u64,
    /// Hyper-parameters of the meta-graph.
    #[serde(default)]
    pub meta: MetaConfig,
}

fn default_children_per_round() -> usize {
    16
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
            (self.num_classes >= 2, "num_classes: must be 2 or more"),
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

    /// The strategy that the configuration names, at its start.
    ///
    /// # Errors
    /// [`MetaGraphError`] if space or hyper-parameters are not usable.
    pub fn build_strategy(&self) -> Result<Box<dyn Strategy>, MetaGraphError> {
        let meta = self.initial_meta_graph()?;
        let on_children = |meta, inner| Box::new(DomainSearch::new(meta, inner));
        Ok(match self.strategy {
            StrategyKind::Gram => Box::new(GramStrategy::new(meta)),
            StrategyKind::Random => Box::new(RandomStrategy::new(meta)),
            StrategyKind::Evolution => {
                on_children(meta, Box::new(RegularisedEvolution::new(self.seed, EvolutionConfig::default())))
            }
            StrategyKind::Local => on_children(meta, Box::new(LocalSearch::new(self.seed))),
            StrategyKind::Autoshrink => on_children(meta, Box::new(AutoShrink::new(self.seed))),
        })
    }
}

/// What is wrong with a [`StudyConfig`], one line per broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the study's configuration is not usable: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);
