//! `gram schedule ARCH`: the order of operators with the least peak of live feature maps.

use gram_export::{LiveBytes, live_bytes_to_svg};
use gram_ir::{Concat, MemoryModel, Network, NodeId, Op, Shape, grouped};
use gram_memory::{Allocation, Part, Plan, PlannedStep, plan};
use serde::Serialize;

use crate::args::ScheduleArgs;
use crate::failure::{Kind, OrFail, Result};
use crate::model_dir::save;
use crate::{output, source};

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    input: Shape,
    num_classes: usize,
    /// What is assumed of the engine.
    #[serde(flatten)]
    engine: MemoryModel,
    peak_bytes: u64,
    /// No order has a lower peak than this.
    lower_bound_bytes: u64,
    /// Whether the peak is the least one; else it is at most `peak_bytes - lower_bound_bytes` above.
    exact: bool,
    /// In the network's own order.
    plain_peak_bytes: u64,
    arena_bytes: u64,
    plain_arena_bytes: u64,
    parts: Vec<PartLine>,
    steps: Vec<StepLine<'a>>,
    allocations: &'a [Allocation],
}

#[derive(Serialize)]
struct PartLine {
    name: String,
    #[serde(flatten)]
    part: Part,
    exact: bool,
}

#[derive(Serialize)]
struct StepLine<'a> {
    /// Names of the nodes that are computed at once.
    nodes: Vec<&'a str>,
    /// The first of them, and the second half of a separable convolution.
    #[serde(skip)]
    label: String,
    /// From 1, of how many, where the nodes are split over several steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<[u32; 2]>,
    output_bytes: u64,
    live_bytes: u64,
}

pub(crate) fn run(args: &ScheduleArgs) -> Result<()> {
    let design = source::load(&args.architecture, args.input, args.classes)?;
    let is_file = std::path::Path::new(&args.architecture).exists();
    let kind = if is_file { Kind::Data } else { Kind::Usage };
    let network = design.lower().or_fail_with(kind, &args.architecture)?;
    let engine = args.memory.engine();
    let plan = plan(&network, &engine).or_fail_with(kind, &args.architecture)?;
    if let Some(path) = &args.svg {
        save(path, draw(design.name(), &network, &engine, &plan).as_bytes())?;
    }
    let report = Report {
        name: design.name(),
        input: network.input_shape(),
        num_classes: network.output_shape().c,
        engine,
        peak_bytes: plan.peak_bytes,
        lower_bound_bytes: plan.lower_bound_bytes,
        exact: plan.is_exact(),
        plain_peak_bytes: plan.plain_peak_bytes,
        arena_bytes: plan.arena.bytes,
        plain_arena_bytes: plan.plain_arena_bytes,
        parts: plan.parts.iter().map(|part| part_line(&network, &plan, part)).collect(),
        steps: plan.steps.iter().map(|step| step_line(&network, step)).collect(),
        allocations: &plan.arena.allocations,
    };
    if args.json {
        return output::json(&report);
    }
    print(&report);
    if let Some(path) = &args.svg {
        output::line(format_args!("\n{}", path.display()));
    }
    Ok(())
}

fn step_line<'a>(network: &'a Network, step: &PlannedStep) -> StepLine<'a> {
    let nodes: Vec<&str> = step.nodes.iter().map(|&node| network.node(node).name.as_str()).collect();
    let mut label = nodes.first().copied().unwrap_or_default().to_owned();
    let others = step.nodes.iter().skip(1).map(|&node| network.node(node));
    for node in others.filter(|node| matches!(node.op, Op::Conv(_))) {
        label = format!("{label}+{}", node.name.rsplit('.').next().unwrap_or_default());
    }
    StepLine {
        nodes,
        label,
        fragment: step.fragment.map(|fragment| [fragment.index + 1, fragment.of]),
        output_bytes: step.output_bytes,
        live_bytes: step.live_bytes,
    }
}

fn part_line(network: &Network, plan: &Plan, part: &Part) -> PartLine {
    let steps = &plan.steps[part.first_step..][..part.steps];
    PartLine { name: part_name(network, steps), part: *part, exact: part.is_exact() }
}

/// The dotted words that all names of the steps' nodes begin with: `stages.0.cells.0`. Where there are none, the last name.
fn part_name(network: &Network, steps: &[PlannedStep]) -> String {
    let words = |node: &NodeId| network.node(*node).name.split('.');
    let mut nodes = steps.iter().flat_map(|step| &step.nodes);
    let Some(first) = nodes.next() else { return String::new() };
    let mut common: Vec<&str> = words(first).collect();
    let mut last = first;
    for node in nodes {
        let n_equal = common.iter().zip(words(node)).take_while(|(a, b)| *a == b).count();
        common.truncate(n_equal);
        last = node;
    }
    if common.is_empty() { network.node(*last).name.clone() } else { common.join(".") }
}

fn print(report: &Report<'_>) {
    output::line(format_args!("{} on {}, {}", report.name, report.input, assumptions(&report.engine)));
    let row = |name: &str, least: u64, plain: u64| {
        let gain = format!("{:.1} %", 100.0 * (plain as f64 - least as f64) / plain.max(1) as f64);
        vec![name.to_owned(), grouped(least), grouped(plain), gain]
    };
    output::table(&[
        ["", "scheduled", "own order", "gain"].map(String::from).to_vec(),
        row("peak_bytes", report.peak_bytes, report.plain_peak_bytes),
        row("arena_bytes", report.arena_bytes, report.plain_arena_bytes),
    ]);
    output::line(if report.exact {
        "no order has a lower peak".to_owned()
    } else {
        format!("no order is known to have a lower peak; none is below {} bytes", grouped(report.lower_bound_bytes))
    });
    output::line("");
    let mut rows = vec![["part", "steps", "peak", "own order", "at least"].map(String::from).to_vec()];
    for PartLine { name, part, .. } in report.parts.iter().filter(|line| line.part.steps > 1) {
        let bytes = [part.peak_bytes, part.plain_peak_bytes, part.lower_bound_bytes].map(grouped);
        rows.push([name.clone(), part.steps.to_string()].into_iter().chain(bytes).collect());
    }
    if rows.len() > 1 {
        output::table(&rows);
        output::line("");
    }
    let mut rows = vec![["step", "output", "live"].map(String::from).to_vec()];
    for step in &report.steps {
        let name = match step.fragment {
            Some([index, of]) => format!("{} ({index} of {of})", step.label),
            None => step.label.clone(),
        };
        rows.push(vec![name, grouped(step.output_bytes), grouped(step.live_bytes)]);
    }
    output::table(&rows);
}

fn assumptions(engine: &MemoryModel) -> String {
    let concat = match engine.concat {
        Concat::Copy => "concatenations copied",
        Concat::View => "concatenations as views",
    };
    let partial = if engine.partial { ", convolutions of them in parts" } else { "" };
    format!("{}, {concat}{partial}", engine.dtype)
}

fn draw(name: &str, network: &Network, engine: &MemoryModel, plan: &Plan) -> String {
    let scheduled: Vec<u64> = plan.steps.iter().map(|step| step.live_bytes).collect();
    let subtitle = format!("input {}, {}", network.input_shape(), assumptions(engine));
    live_bytes_to_svg(&LiveBytes {
        title: name,
        subtitle: &subtitle,
        plain: &plan.plain_live_bytes,
        scheduled: &scheduled,
    })
}
