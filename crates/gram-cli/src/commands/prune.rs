//! `gram prune DIR`: the best networks out of a study within any limits, without any training.

mod device;
mod report;
mod study;
mod untrained;

use std::collections::BTreeSet;

use gram_ir::{Architecture, Cell, Design, Layout, Shape, Space};
use gram_prune::{
    AccuracyModel, Choice, ChooseError, Chosen, Expectation, Origin, PrunableStage, PruneError, Setting, Step, choose,
    pareto, repair,
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
use untrained::Fullness;

pub(crate) fn run(args: &PruneArgs) -> Result<()> {
    let is_untrained = args.space.is_some();
    let study = match (&args.study, &args.space) {
        (_, Some(space)) => untrained::study(args, space)?,
        (Some(dir), None) => StudyOf::open(dir)?,
        (None, None) => return Err(Failure::new(Kind::Internal, "the arguments name a study or a space")),
    };
    let Device { clock, max_ms } = device::open(args, &study)?;
    let accuracy = if is_untrained { None } else { study.expected_accuracy()? };
    let (meta, config) = (&study.meta, &study.config);
    let stages: Vec<PrunableStage<'_>> =
        meta.stages().iter().map(|stage| PrunableStage { ops: stage.ops(), weights: stage.weights() }).collect();
    let within = limits(&args.limits, &config.limits);
    let expecting = accuracy.as_ref().map(Expecting);
    clock.as_ref().map_or(Ok(()), |clock: &Clock| clock.require(&study))?;
    let setting = |space, input| Setting {
        space,
        input,
        num_classes: config.num_classes,
        stages: &stages,
        limits: &within,
        max_latency_ms: max_ms,
        latency: clock.as_ref().map(|clock| clock as &dyn gram_prune::LatencyModel),
        accuracy: match &expecting {
            Some(model) => Some(model),
            None => is_untrained.then_some(&Fullness),
        },
    };
    let layouts = layouts(&study);
    let mut chosen = choose_in_layouts(&study, &layouts, &setting)?;
    if is_untrained {
        // What ranked them is no top-1.
        chosen.front.iter_mut().for_each(|choice| choice.expected = None);
    }
    let own = config.space.layout_of(&chosen.front[0].architecture);
    let InLayout { space, input, .. } = layouts
        .iter()
        .find(|place| Some(&place.layout) == own.as_ref())
        .ok_or_else(|| Failure::new(Kind::Internal, "the best network has none of the study's layouts"))?;
    let setting = setting(space, *input);
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

/// The likeliest layouts are gone through, whether children chose them or not.
const LIKELIEST_LAYOUTS: usize = 8;

/// The study's space in one layout.
struct InLayout {
    layout: Layout,
    space: Space,
    input: Shape,
}

/// Every layout that a child chose, and those that the meta-graph believes in most.
fn layouts(study: &StudyOf) -> Vec<InLayout> {
    let config = &study.config;
    let chosen = study.children.iter().filter_map(|child| config.space.layout_of(&child.architecture));
    let likeliest = study.meta.likeliest_layouts(LIKELIEST_LAYOUTS).into_iter().map(|(layout, _)| layout);
    let all: BTreeSet<Layout> = chosen.chain(likeliest).collect();
    let in_layout = |layout: Layout| {
        let (space, input) = config.space.plain(&layout, config.input);
        InLayout { layout, space, input }
    };
    all.into_iter().map(in_layout).collect()
}

/// The best networks over all layouts.
fn choose_in_layouts<'a>(
    study: &StudyOf,
    layouts: &'a [InLayout],
    setting: &dyn Fn(&'a Space, Shape) -> Setting<'a>,
) -> Result<Chosen> {
    let (mut all, mut refused): (Option<Chosen>, Option<ChooseError>) = (None, None);
    for InLayout { layout, space, input } in layouts {
        let own = study
            .children
            .iter()
            .filter(|child| study.config.space.layout_of(&child.architecture).as_ref() == Some(layout));
        let given: Vec<(usize, Vec<Cell>)> = own.map(|child| (child.child, cells(&child.architecture))).collect();
        match choose(&setting(space, *input), &given) {
            Ok(chosen) => all = Some(all.map_or_else(|| chosen.clone(), |other| joined(other, chosen.clone()))),
            Err(
                error @ (ChooseError::Unmeetable(_)
                | ChooseError::Prune(PruneError::LimitsUnmeetable { .. } | PruneError::Lower(_))),
            ) => {
                refused = Some(refused.map_or_else(|| error.clone(), |other| nearer(other, error.clone())));
            }
            Err(error) => return Err(choose_failure(error)),
        }
    }
    match (all, refused) {
        (Some(chosen), _) => Ok(chosen),
        (None, Some(error)) => Err(choose_failure(error)),
        (None, None) => Err(Failure::new(Kind::Internal, "a study without layouts")),
    }
}

fn joined(a: Chosen, b: Chosen) -> Chosen {
    let front = pareto(a.front.into_iter().chain(b.front).collect());
    Chosen { front, n_candidates: a.n_candidates + b.n_candidates, n_within: a.n_within + b.n_within }
}

/// Of two refusals the one of the layout that comes with fewer MACs.
fn nearer(a: ChooseError, b: ChooseError) -> ChooseError {
    let least = |error: &ChooseError| match error {
        ChooseError::Unmeetable(unmeetable) => unmeetable.least.macs.0,
        ChooseError::Prune(PruneError::LimitsUnmeetable { smallest_macs, .. }) => smallest_macs.0,
        _ => u64::MAX,
    };
    if least(&b) < least(&a) { b } else { a }
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
