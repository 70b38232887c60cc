//! Pruning from limits alone, in a space in which nothing was trained.

use std::path::PathBuf;

use gram_ir::{Architecture, space_preset_io};
use gram_meta::MetaConfig;
use gram_prune::{AccuracyModel, Expectation};
use gram_search::{Sampler, StrategyKind, StudyConfig};

use crate::args::PruneArgs;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::study::load::{limits, named_space};

use super::study::StudyOf;

/// The place of an accuracy where nothing is known: of two networks the one that takes more MACs and params counts as the better one.
pub(super) struct Fullness;

impl AccuracyModel for Fullness {
    /// `ln(MACs · params)` as a share of the largest that there can be; no top-1.
    fn expected(&self, architecture: &Architecture) -> Expectation {
        let logarithm = |count: u64| (count.max(1) as f64).ln() / (u64::MAX as f64).ln() / 2.0;
        let cost = architecture.lower().map(|network| network.cost());
        let mean = cost.map_or(0.0, |cost| logarithm(cost.macs.0) + logarithm(cost.params.0));
        Expectation { mean, sd: 0.0, low: mean, high: mean }
    }
}

/// A study without children in the space that `args` name.
///
/// # Errors
/// Exit code 2 for a space that is none, or for which shape or classes are missing.
pub(super) fn study(args: &PruneArgs, name: &str) -> Result<StudyOf> {
    let space = named_space(name)?;
    space.verify().or_fail(Kind::Usage)?;
    let (own_input, own_classes) = space_preset_io(name).unzip();
    let missing =
        |option| Failure::new(Kind::Usage, format!("`{name}` was made for no images: say which with {option}"));
    let config = StudyConfig {
        space,
        input: args.input.or(own_input).ok_or_else(|| missing("--input CxHxW"))?,
        num_classes: args.classes.or(own_classes).ok_or_else(|| missing("--classes N"))?,
        limits: limits(&args.limits, &gram_ir::Limits::default()),
        latency: None,
        strategy: StrategyKind::Gram,
        sampler: Sampler::default(),
        warm_start: None,
        n_children: 0,
        children_per_round: 1,
        seed: 0,
        meta: MetaConfig::default(),
    };
    let meta = config.initial_meta_graph().or_fail_with(Kind::Usage, name)?;
    Ok(StudyOf { dir: PathBuf::from(name), config, meta, children: Vec::new() })
}
