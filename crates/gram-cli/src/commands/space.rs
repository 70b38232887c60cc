//! `gram space`: what limits a space can meet, before any training.

use gram_ir::{Limits, Shape, Space, grouped};
use gram_search::{CostRange, Feasibility, PeakRange, Preflight, PreflightError};
use serde::Serialize;

use crate::args::SpaceArgs;
use crate::failure::{Failure, Kind, Result};
use crate::output;
use crate::study::load::{SearchOptions, load, load_without_data, shape_of};

#[derive(Serialize)]
struct Report<'a> {
    space: &'a str,
    input: Shape,
    num_classes: usize,
    #[serde(flatten)]
    preflight: &'a Preflight,
}

pub(crate) fn run(args: &SpaceArgs) -> Result<()> {
    let (config, space, input, num_classes) = match args.input {
        Some(input) => {
            let (config, space) = load_without_data(&args.selectors, input)?;
            (config, space, input, args.classes.unwrap_or(10))
        }
        None => {
            let loaded = load(&args.selectors, SearchOptions::default())?;
            let (input, num_classes) = (shape_of(&loaded.dataset), loaded.dataset.classes.len());
            (loaded.config, loaded.space, input, args.classes.unwrap_or(num_classes))
        }
    };
    let preflight = preflight(&space, input, num_classes, &config.limits, config.seed)?;
    let report = Report { space: &space.name, input, num_classes, preflight: &preflight };
    if args.json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    // Shown first: the figures say by how much the limits would have to give.
    preflight.require().map_err(preflight_failure)
}

/// What the space can cost; a space that cannot be built is refused with exit code 2.
pub(crate) fn preflight(
    space: &Space,
    input: Shape,
    num_classes: usize,
    limits: &Limits,
    seed: u64,
) -> Result<Preflight> {
    gram_search::preflight(space, input, num_classes, limits, seed).map_err(preflight_failure)
}

pub(crate) fn preflight_failure(error: PreflightError) -> Failure {
    Failure { kind: preflight_kind(&error), error: error.into() }
}

/// Exit code 3 for limits that nothing meets, 2 for a space that does not suit the images.
pub(crate) fn preflight_kind(error: &PreflightError) -> Kind {
    if matches!(error, PreflightError::Unmeetable { .. }) { Kind::Limits } else { Kind::Usage }
}

fn print(report: &Report<'_>) {
    let Preflight { macs, params, peak_bytes, stages, log10_children, limits, feasibility } = report.preflight;
    output::line(format_args!("{} on {}, {} classes", report.space, report.input, report.num_classes));
    let header = ["", "min", "p10", "median", "p90", "max", "limit"].map(String::from).to_vec();
    let row = |name: &str, range: &CostRange, limit: Option<u64>| {
        let counts = [range.min, range.p10, range.p50, range.p90, range.max].map(grouped);
        let limit = limit.map_or("-".into(), grouped);
        std::iter::once(name.to_owned()).chain(counts).chain([limit]).collect::<Vec<_>>()
    };
    let (max_macs, max_params) = (limits.max_macs.map(|most| most.0), limits.max_params.map(|most| most.0));
    let PeakRange { at_least, p10, p50, p90 } = *peak_bytes;
    let peak = std::iter::once(format!("peak bytes ({})", limits.memory.dtype))
        .chain([format!(">= {}", grouped(at_least))])
        .chain([p10, p50, p90].map(grouped))
        .chain(["-".into(), limits.max_peak_bytes.map_or("-".into(), grouped)]);
    output::table(&[header, row("MACs", macs, max_macs), row("params", params, max_params), peak.collect()]);
    let nodes: Vec<String> = stages.iter().map(|stage| stage.nodes.to_string()).collect();
    output::line(format_args!(
        "about 10^{log10_children:.1} children in {} stages of {} nodes",
        stages.len(),
        nodes.join(", ")
    ));
    output::line(match feasibility {
        Feasibility::Met => "the limits can be met",
        Feasibility::Unmeetable => "the limits cannot be met",
        Feasibility::Undecided if limits.max_peak_bytes.is_some() => {
            "whether one child meets all limits was not decided"
        }
        Feasibility::Undecided => "each limit can be met alone; whether one child meets all was not decided",
    });
}
