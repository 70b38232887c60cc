//! `gram cost ARCH`: exact costs. Peak bytes are those of `gram schedule` without options.

use gram_ir::{Cost, MemoryModel, Network, NodeCost, Shape, grouped};
use serde::Serialize;

use crate::args::CostArgs;
use crate::failure::{Kind, OrFail, Result};
use crate::{output, source};

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    input: Shape,
    num_classes: usize,
    #[serde(flatten)]
    cost: Cost,
    /// Least peak of live feature maps as f32, concatenations copied.
    peak_bytes: u64,
    nodes: Vec<NodeCost>,
}

pub(crate) fn run(args: &CostArgs) -> Result<()> {
    let design = source::load(&args.architecture, args.input, args.classes)?;
    let is_file = std::path::Path::new(&args.architecture).exists();
    let network = design.lower().or_fail_with(if is_file { Kind::Data } else { Kind::Usage }, &args.architecture)?;
    let (input, num_classes) = (network.input_shape(), network.output_shape().c);
    let peak_bytes = gram_memory::peak_bytes(&network, &MemoryModel::default()).or_fail(Kind::Usage)?;
    let (cost, nodes) = (network.cost(), network.node_costs());
    let report = Report { name: design.name(), input, num_classes, cost, peak_bytes, nodes };
    if args.json {
        return output::json(&report);
    }
    print(&report, &network, args.nodes);
    Ok(())
}

fn print(report: &Report<'_>, network: &Network, with_nodes: bool) {
    let cost = report.cost;
    output::line(format_args!("{} on {}, {} classes", report.name, report.input, report.num_classes));
    let total = |name: &str, count: u64| vec![name.to_string(), grouped(count)];
    output::table(&[
        total("macs", cost.macs.0),
        total("params", cost.params.0),
        total("deployed_params", cost.deployed_params.0),
        total("peak_bytes", report.peak_bytes),
        total("nodes", network.nodes().len() as u64),
    ]);
    if !with_nodes {
        return;
    }
    output::line("");
    let mut rows = vec![["node", "op", "output", "macs", "params"].map(String::from).to_vec()];
    for node in &report.nodes {
        let (macs, params) = (grouped(node.macs.0), grouped(node.params.0));
        rows.push(vec![node.name.clone(), node.op.into(), node.shape.to_string(), macs, params]);
    }
    output::table(&rows);
}
