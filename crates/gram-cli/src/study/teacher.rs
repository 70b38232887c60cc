//! The teacher of a study's winner: a larger network out of the same meta-graph, trained first.

use gram_ir::{Architecture, Design, Limits, Macs, Params, Shape};
use gram_meta::MetaGraph;
use gram_prune::PruneError;
use gram_search::{StrategyKind, StudyReport};
use gram_train::{Distillation, TrainConfig};

use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{Metrics, ModelDir};
use crate::output;
use crate::study::config::{StudyConfig, TeacherConfig};
use crate::study::finish::{Finish, Role, canonical, prune_failure};
use crate::study::prune::largest;

impl TeacherConfig {
    /// How the teacher is trained: as the winner, but from labels alone.
    fn training(&self, winner: &TrainConfig) -> TrainConfig {
        let epochs = self.epochs.unwrap_or(winner.epochs);
        let warmup_epochs = winner.warmup_epochs.min(epochs);
        TrainConfig { epochs, warmup_epochs, distillation: None, ..winner.clone() }
    }

    /// What the teacher may cost.
    fn limits(&self, study: &Limits) -> Limits {
        let grown = |most: u64| (most as f64 * self.growth) as u64;
        Limits {
            max_macs: study.max_macs.map(|most| Macs(grown(most.0))),
            max_params: study.max_params.map(|most| Params(grown(most.0))),
            max_peak_bytes: study.max_peak_bytes.map(grown),
            memory: study.memory,
        }
    }
}

/// Decides what a study leaves open about its teacher, and refuses what cannot be, before anything is trained.
///
/// # Errors
/// Exit code 2.
pub(crate) fn settle(config: &mut StudyConfig) -> Result<()> {
    let refuse = |message: String| Err(Failure::new(Kind::Usage, message));
    if config.proxy.train.distillation.is_some() {
        return refuse("[proxy.train.distillation]: children have no teacher, only the winner can".into());
    }
    let Some(teacher) = &config.teacher else {
        return match config.final_training.distillation {
            Some(_) => refuse("[final.distillation] is for a winner with a teacher: add a table [teacher]".into()),
            None => Ok(()),
        };
    };
    if !(teacher.growth.is_finite() && teacher.growth > 1.0) {
        return refuse(format!("teacher.growth is {}, it must be finite and above 1", teacher.growth));
    }
    if config.search.strategy != StrategyKind::Gram {
        let strategy = config.search.strategy;
        return refuse(format!(
            "[teacher] is cut out of the study's meta-graph, and strategy {strategy} keeps none: use gram, or leave [teacher] out"
        ));
    }
    let Limits { max_macs, max_params, max_peak_bytes, .. } = config.limits;
    if max_macs.is_none() && max_params.is_none() && max_peak_bytes.is_none() {
        return refuse(
            "[teacher] may cost so many times the limits, and there are none: give --max-macs or another".into(),
        );
    }
    teacher.training(&config.final_training).validate().or_fail_with(Kind::Usage, "[teacher]")?;
    config.final_training.distillation.get_or_insert_with(Distillation::default);
    Ok(())
}

impl Finish<'_> {
    /// The trained teacher of a winner, in `teacher/`; one that an earlier run trained is not trained again.
    pub(super) fn teacher(
        &self,
        config: &TeacherConfig,
        report: &StudyReport,
        winner: &Design,
    ) -> Result<(ModelDir, Metrics)> {
        let meta = report.meta_graph.as_ref();
        let meta = meta.ok_or_else(|| Failure::new(Kind::Internal, "a study with a teacher keeps a meta-graph"))?;
        let architecture = self.larger(meta, &config.limits(&self.config.limits), winner.input_shape())?;
        let design = Design::Architecture(architecture);
        let macs = |design: &Design| Ok::<_, Failure>(design.lower().or_fail(Kind::Internal)?.cost().macs);
        if macs(&design)? <= macs(winner)? {
            output::note(
                "the teacher is no larger than the winner: the space has little more to offer, or raise teacher.growth",
            );
        }
        let dir = self.dir.join("teacher");
        let training = config.training(&self.config.final_training);
        let metrics = self.train(&design, &training, Role::Teacher, &dir)?;
        Ok((ModelDir::open(&dir)?, metrics))
    }

    /// The largest network that the meta-graph believes in within the teacher's limits, for images of the winner's size.
    ///
    /// Belief, not expected accuracy, ranks it: so far beyond the limits no child was trained that an expectation could rest on.
    fn larger(&self, meta: &MetaGraph, limits: &Limits, input: Shape) -> Result<Architecture> {
        let preprocessing = &self.images.own().preprocessing;
        let (own, num_classes) = (preprocessing.input.into(), preprocessing.classes.len());
        match largest(self.space, own, num_classes, meta, limits, input) {
            Ok(Some(pruned)) => Ok(canonical(&pruned.best.architecture)),
            Ok(None) => Err(Failure::new(
                Kind::Limits,
                "no likely layout of the space has the winner's images: leave [teacher] out",
            )),
            Err(error @ PruneError::LimitsUnmeetable { .. }) => {
                Err(error).or_fail_with(Kind::Limits, "the teacher; raise teacher.growth or leave [teacher] out")
            }
            Err(error) => Err(prune_failure(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Selectors;
    use crate::study::load::load_without_data;

    fn config(set: &[&str]) -> Result<StudyConfig> {
        let selectors = Selectors { set: set.iter().map(ToString::to_string).collect(), ..Selectors::default() };
        Ok(load_without_data(&selectors, Shape::chw(1, 8, 8))?.0)
    }

    #[test]
    fn what_is_left_open_is_decided() {
        let config = config(&["limits.max_macs=100", "teacher.epochs=3", "final.warmup_epochs=5"]).unwrap();
        let teacher = config.teacher.as_ref().unwrap();
        assert_eq!((teacher.growth, config.final_training.distillation), (4.0, Some(Distillation::default())));
        assert_eq!(teacher.limits(&config.limits), Limits { max_macs: Some(Macs(400)), ..Limits::default() });
        let TrainConfig { epochs, warmup_epochs, distillation, .. } = teacher.training(&config.final_training);
        assert_eq!((epochs, warmup_epochs, distillation), (3, 3, None));
    }

    #[test]
    fn without_a_teacher_nothing_is_written_of_one() {
        let text = toml::to_string_pretty(&config(&[]).unwrap()).unwrap();
        assert!(!text.contains("teacher") && !text.contains("distillation"), "{text}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let limited = "limits.max_macs=100";
        let cases: [(&[&str], &str); 8] = [
            (&["teacher.growth=4.0"], "there are none"),
            (&[limited, "teacher.growth=1.0"], "teacher.growth is 1"),
            (&[limited, "teacher.growth=nan"], "teacher.growth is NaN"),
            (&[limited, "teacher.epochs=0"], "epochs is 0"),
            (&[limited, "teacher.grow=2.0"], "grow"),
            (&[limited, "teacher.growth=4.0", "search.strategy=random"], "strategy random keeps none"),
            (&["final.distillation.weight=0.3"], "[teacher]"),
            (&["proxy.train.distillation.weight=0.3"], "children have no teacher"),
        ];
        for (set, reason) in cases {
            let failure = config(set).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage);
            assert!(format!("{:#}", failure.error).contains(reason), "{set:?}: {:#}", failure.error);
        }
    }
}
