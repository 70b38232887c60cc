//! `gram prune DIR`: the best networks out of a study within any limits, without any training.

mod device;
mod report;
mod study;

use gram_ir::{Architecture, Cell, Design};
use gram_prune::{
    AccuracyModel, Choice, ChooseError, Chosen, Expectation, Origin, PrunableStage, Setting, Step, choose, pareto,
    repair,
};
use gram_search::ExpectedAccuracy;

use crate::args::PruneArgs;
use crate::failure::{Failure, Kind, Result};
use crate::model_dir::save;
use crate::output;
use crate::study::finish::{canonical, prune_failure};
use crate::study::load::limits;

use device::{Clock, Device};
use report::Report;
use study::StudyOf;

pub(crate) fn run(args: &PruneArgs) -> Result<()> {
    let study = StudyOf::open(&args.study)?;
    let Device { clock, max_ms } = device::open(args, &study)?;
    let accuracy = study.expected_accuracy()?;
    let (meta, config) = (&study.meta, &study.config);
    let stages: Vec<PrunableStage<'_>> =
        meta.stages().iter().map(|stage| PrunableStage { ops: stage.ops(), weights: stage.weights() }).collect();
    let within = limits(&args.limits, &config.limits);
    let expecting = accuracy.as_ref().map(Expecting);
    let setting = Setting {
        space: &config.space,
        input: config.input,
        num_classes: config.num_classes,
        stages: &stages,
        limits: &within,
        max_latency_ms: max_ms,
        latency: clock.as_ref().map(|clock| clock as &dyn gram_prune::LatencyModel),
        accuracy: expecting.as_ref().map(|model| model as &dyn AccuracyModel),
    };
    clock.as_ref().map_or(Ok(()), |clock: &Clock| clock.require(&study))?;
    let given: Vec<(usize, Vec<Cell>)> =
        study.children.iter().map(|child| (child.child, cells(&child.architecture))).collect();
    let mut chosen = choose(&setting, &given).map_err(choose_failure)?;
    let steps = args.repair.map(|most| improve(&setting, &mut chosen, most)).transpose()?;

    let report = Report::new(&study, &setting, accuracy.as_ref(), &chosen, steps.as_deref())?;
    if let Some(path) = &args.front {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::new(Kind::Internal, error))?;
        save(path, (text + "\n").as_bytes())?;
    }
    let best = Design::Architecture(named(&chosen.front[0]));
    if let Some(path) = &args.output {
        save(path, best.to_json().as_bytes())?;
    }
    if args.json {
        return output::json(&report);
    }
    report.print(&within.memory);
    match &args.output {
        Some(path) => output::line(path.display()),
        None => output::line(format_args!("\n{best}")),
    }
    Ok(())
}

/// Adds what repair makes of the best network.
fn improve(setting: &Setting<'_>, chosen: &mut Chosen, most_steps: usize) -> Result<Vec<Step>> {
    if setting.accuracy.is_none() {
        let message = "--repair goes by expected accuracy, of which too little is known in this study; leave it out";
        return Err(Failure::new(Kind::Usage, message));
    }
    let steps = repair(setting, &chosen.front[0], most_steps).map_err(choose_failure)?;
    if !steps.is_empty() {
        let found = steps.iter().map(|step| step.choice.clone());
        chosen.front = pareto(chosen.front.drain(..).chain(found).collect());
    }
    Ok(steps)
}

/// The search's surrogate as the pruner wants it.
struct Expecting<'a>(&'a ExpectedAccuracy);

impl AccuracyModel for Expecting<'_> {
    fn expected(&self, architecture: &Architecture) -> Expectation {
        let gram_search::surrogate::Expected { mean, sd, low, high } = self.0.predict(architecture);
        Expectation { mean, sd, low, high }
    }
}

fn cells(architecture: &Architecture) -> Vec<Cell> {
    architecture.stages.iter().map(|stage| stage.cell.clone()).collect()
}

/// As it is trained, and with a name that says where it comes from.
fn named(choice: &Choice) -> Architecture {
    let canonical = canonical(&choice.architecture);
    let origin = match &choice.origin {
        Origin::Thresholds(_) => "pruned".to_owned(),
        Origin::Given(child) => format!("child-{child}"),
        Origin::Repaired(steps) => format!("repaired-{steps}"),
    };
    Architecture { name: format!("{}-{origin}", canonical.name), ..canonical }
}

/// Exit code 3 for limits that nothing keeps.
fn choose_failure(error: ChooseError) -> Failure {
    match error {
        ChooseError::Prune(error) => prune_failure(error),
        ChooseError::Unmeetable(_) => Failure { kind: Kind::Limits, error: error.into() },
        _ => Failure { kind: Kind::Internal, error: error.into() },
    }
}
