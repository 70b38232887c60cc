//! `gram prune DIR`: another network out of a study, within other limits, without any training.

use std::path::Path;

use gram_ir::{Architecture, Cost, Design, MemoryModel, grouped};
use gram_meta::MetaGraph;
use gram_prune::Candidate;
use gram_search::{Record, read_journal};
use serde::Serialize;

use crate::args::PruneArgs;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{read_text, save};
use crate::output;
use crate::study::finish::{canonical, prune_failure};
use crate::study::load::limits;
use crate::study::prune::prune;

#[derive(Serialize)]
struct Report {
    best: Line,
    /// The networks that no other beats in retained weight, MACs and params at once; best first.
    front: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    cost: Cost,
    /// For the engine that the study's limits describe.
    peak_bytes: u64,
    /// Sum of log-odds of the edges that are kept.
    retained_weight: f64,
    architecture: serde_json::Value,
}

pub(crate) fn run(args: &PruneArgs) -> Result<()> {
    let study = study_of(&args.study)?;
    let file = args.study.join("meta-graph.json");
    if !file.is_file() {
        let file = file.display();
        return Err(Failure::new(
            Kind::Data,
            format!("{file}: no such file; only a study of strategy gram that finished a round has one"),
        ));
    }
    let meta = MetaGraph::from_json(&read_text(&file)?).or_fail_with(Kind::Data, file.display())?;
    meta.check_space(&study.space).or_fail_with(Kind::Data, file.display())?;
    let within = limits(&args.limits, &study.limits);
    let pruned = prune(&study.space, study.input, study.num_classes, &meta, &within).map_err(prune_failure)?;
    let best = Design::Architecture(named(&pruned.best.architecture));
    if let Some(path) = &args.output {
        save(path, best.to_json().as_bytes())?;
    }
    if args.json {
        let line = |candidate| line(candidate, &within.memory);
        let front = pruned.front.iter().map(line).collect::<Result<Vec<_>>>()?;
        return output::json(&Report { best: line(&pruned.best)?, front });
    }
    print(&pruned.front, &pruned.best, &within.memory)?;
    match &args.output {
        Some(path) => output::line(path.display()),
        None => output::line(format_args!("\n{best}")),
    }
    Ok(())
}

/// The study's configuration as its journal has it.
fn study_of(dir: &Path) -> Result<gram_search::StudyConfig> {
    let file = dir.join("journal.jsonl");
    let records = read_journal(&file).or_fail(Kind::Data)?;
    let Some(Record::Header { config, .. }) = records.first() else {
        return Err(Failure::new(Kind::Data, format!("{}: no study", dir.display())));
    };
    serde_json::from_value(config["study"].clone()).or_fail_with(Kind::Data, file.display())
}

fn named(architecture: &Architecture) -> Architecture {
    let canonical = canonical(architecture);
    Architecture { name: format!("{}-pruned", canonical.name), ..canonical }
}

fn line(candidate: &Candidate, engine: &MemoryModel) -> Result<Line> {
    let text = Design::Architecture(named(&candidate.architecture)).to_json();
    let architecture = serde_json::from_str(&text).or_fail(Kind::Internal)?;
    let peak_bytes = peak_of(candidate, engine)?;
    Ok(Line { cost: candidate.cost, peak_bytes, retained_weight: candidate.retained_weight, architecture })
}

fn peak_of(candidate: &Candidate, engine: &MemoryModel) -> Result<u64> {
    let network = candidate.architecture.lower().or_fail(Kind::Internal)?;
    gram_memory::peak_bytes(&network, engine).or_fail(Kind::Internal)
}

fn print(front: &[Candidate], best: &Candidate, engine: &MemoryModel) -> Result<()> {
    let peak = format!("peak bytes ({})", engine.dtype);
    let mut rows = vec![["", "MACs", "params", &peak, "retained weight"].map(String::from).to_vec()];
    for candidate in front {
        let mark = if candidate.architecture == best.architecture { "best" } else { "" };
        let (macs, params) = (grouped(candidate.cost.macs.0), grouped(candidate.cost.params.0));
        let peak = grouped(peak_of(candidate, engine)?);
        rows.push(vec![mark.into(), macs, params, peak, format!("{:.3}", candidate.retained_weight)]);
    }
    output::table(&rows);
    Ok(())
}
