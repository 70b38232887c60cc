//! `docs/headline.md`, its charts, and the table of the README, out of the records alone.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::chart;
use super::compare::{Cost, Variant, cost_at};
use super::plan::{DATASETS, Dataset, Job, OURS, RANDOM};
use super::record::Record;
use crate::shell::root;

/// Families that "the best MobileNet-V2 variant" is taken from.
const MOBILENET_V2: [&str; 2] = ["mobilenet-v2", "mobilenet-v2-shallow"];

/// Ends of what is generated in the README.
const MARKS: (&str, &str) = ("<!-- headline: begin -->", "<!-- headline: end -->");

/// What the tables of ratios mean.
const RATIOS: &str = "The last four columns: how many times more the best MobileNet-V2 variant takes at the same top-1, interpolated on its curve, \
for each cost the curve that is best in this cost and that no weak variant lowers (– where no variant is as low, or as high). Each line is one \
`gram` command with seed 1, or with as many seeds as it says, or so many trainings of what its seeds found; the commands stand with all figures in the records in `docs/headline/`.\n";

/// Writes the document, the charts and the README's table.
pub(super) fn write(records: &[Record]) -> Result<()> {
    let docs = root().join("docs");
    let mut text = fs::read_to_string(docs.join("headline-method.md")).context("reading docs/headline-method.md")?;
    let mut readme = String::new();
    for dataset in &DATASETS {
        let own: Vec<&Record> = records.iter().filter(|record| record.dataset == dataset.name).collect();
        if own.is_empty() {
            continue;
        }
        let variants = Variant::all(own.iter().copied());
        let chart = format!("headline-{}.svg", dataset.name);
        fs::write(docs.join(&chart), chart::svg(dataset.title, &variants))?;
        let _ = writeln!(
            text,
            "\n## {}\n\n{}.\n\n{}\n![{} against four costs]({chart})\n",
            dataset.title,
            left(records, dataset),
            machine(&own),
            dataset.title
        );
        let ratios = ratios(&variants);
        let _ =
            writeln!(text, "{ratios}\n{RATIOS}\n{}\n{}\n{}", against_random(&own), every(&variants), search_cost(&own));
        let (left, machine) = (left(records, dataset), machine(&own));
        let _ = writeln!(readme, "\n{}, test top-1; {left}. {machine}\n{ratios}", dataset.title);
    }
    readme.push_str(RATIOS);
    fs::write(docs.join("headline.md"), text)?;
    let path = root().join("README.md");
    let old = fs::read_to_string(&path)?;
    if let Some(new) = between(&old, &readme) {
        fs::write(&path, new)?;
    }
    eprintln!("docs/headline.md and its charts are written from {} records", records.len());
    for dataset in &DATASETS {
        eprintln!("{}: {}", dataset.name, left(records, dataset));
    }
    Ok(())
}

/// How much of a dataset's jobs is done.
fn left(records: &[Record], dataset: &Dataset) -> String {
    let jobs = dataset.jobs();
    let is_done = |job: &&Job| records.iter().any(|record| record.name == job.name && record.command == job.command());
    let open = jobs.len() - jobs.iter().filter(is_done).count();
    match open {
        0 => format!("all {} trainings are done", jobs.len()),
        _ => format!("{open} of {} trainings are not done yet", jobs.len()),
    }
}

/// The README with other text between the marks; none if it has no marks.
fn between(readme: &str, text: &str) -> Option<String> {
    let (head, rest) = readme.split_once(MARKS.0)?;
    let (_, tail) = rest.split_once(MARKS.1)?;
    Some(format!("{head}{}\n{}\n{}{tail}", MARKS.0, text.trim(), MARKS.1))
}

fn machine(records: &[&Record]) -> String {
    let mut devices: Vec<String> = records
        .iter()
        .filter(|record| record.latency_ms.is_some())
        .map(|record| {
            let text = |field: &str| record.device[field].as_str().unwrap_or("?").to_owned();
            format!("{}, {} {}, one thread", text("cpu"), text("engine"), text("engine_version"))
        })
        .collect();
    devices.sort();
    devices.dedup();
    if devices.is_empty() {
        return "Latencies have not been measured yet.\n".into();
    }
    format!("Latency: {}.\n", devices.join("; "))
}

/// Ours beside the best MobileNet-V2 variant at equal accuracy.
fn ratios(variants: &[Variant<'_>]) -> String {
    let baseline: Vec<&Variant<'_>> =
        variants.iter().filter(|variant| MOBILENET_V2.contains(&variant.family)).collect();
    let mut text = String::from(
        "| searched network | top-1 (%) | params | MACs | latency | peak | top-1 per M params | per M MACs | latency | peak |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut ours: Vec<&Variant<'_>> = variants.iter().filter(|variant| variant.family == OURS).collect();
    ours.sort_by(|a, b| by_macs(a, b));
    for variant in ours {
        let ratio = |cost: Cost| {
            let ratio = cost_at(&baseline, cost, variant.top1().0).zip(variant.cost(cost));
            ratio.map_or("–".to_owned(), |(theirs, ours)| format!("{:.2}x", theirs / ours))
        };
        let _ = writeln!(
            text,
            "| within {} MACs | {} | {} k | {} M | {} ms | {} KiB | {} | {} | {} | {} |",
            variant.name,
            percent(variant),
            shown(variant, Cost::Params),
            shown(variant, Cost::Macs),
            shown(variant, Cost::LatencyMs),
            shown(variant, Cost::PeakBytes),
            ratio(Cost::Params),
            ratio(Cost::Macs),
            ratio(Cost::LatencyMs),
            ratio(Cost::PeakBytes),
        );
    }
    text
}

/// Seed by seed, at the same limits.
fn against_random(records: &[&Record]) -> String {
    let mut text = String::from(
        "| limit, seed | gram: MACs (M) | top-1 (%) | random: MACs (M) | top-1 (%) |\n|---|---|---|---|---|\n",
    );
    let of = |family: &str| {
        let mut found: BTreeMap<(&str, u64), Vec<&Record>> = BTreeMap::new();
        for record in records.iter().filter(|record| record.family == family) {
            found.entry((&record.variant, record.seed)).or_default().push(record);
        }
        found
    };
    let random = of(RANDOM);
    for ((name, seed), ours) in of(OURS) {
        let Some(theirs) = random.get(&(name, seed)) else { continue };
        let _ = write!(text, "| {name}, {seed} |");
        for (family, records) in [(OURS, ours), (RANDOM, theirs.clone())] {
            let variant = Variant { family, name, records };
            let _ = write!(text, " {} | {} |", shown(&variant, Cost::Macs), percent(&variant));
        }
        text.push('\n');
    }
    format!("### Random search with the same budget\n\n{text}")
}

/// Mean, deviation, and of how many trainings.
fn percent(variant: &Variant<'_>) -> String {
    let (mean, deviation) = variant.top1();
    let Some(deviation) = deviation else { return format!("{:.2}", 100.0 * mean) };
    let again = variant.records.iter().any(|record| record.training > 1);
    let of = if again { "trainings" } else { "seeds" };
    format!("{:.2} ± {:.2} ({} {of})", 100.0 * mean, 100.0 * deviation, variant.records.len())
}

fn by_macs(a: &Variant<'_>, b: &Variant<'_>) -> Ordering {
    a.cost(Cost::Macs).unwrap_or(0.0).total_cmp(&b.cost(Cost::Macs).unwrap_or(0.0))
}

/// A cost in its unit; a dash where it was not measured.
fn shown(variant: &Variant<'_>, cost: Cost) -> String {
    let decimals = match cost {
        Cost::Macs => 2,
        Cost::Params => 1,
        Cost::LatencyMs => 3,
        Cost::PeakBytes => 0,
    };
    variant.cost(cost).map_or("–".to_owned(), |value| format!("{:.decimals$}", cost.in_unit(value)))
}

fn every(variants: &[Variant<'_>]) -> String {
    let mut text = String::from(
        "### Every network\n\n| family | network | top-1 (%) | own test images (%) | MACs (M) | params (k) | latency (ms) | peak (KiB) |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut sorted: Vec<&Variant<'_>> = variants.iter().collect();
    sorted.sort_by(|a, b| a.family.cmp(b.family).then_with(|| by_macs(a, b)));
    for variant in sorted {
        let own: Option<Vec<f64>> = variant.records.iter().map(|record| record.own_test_top1).collect();
        let own =
            own.map_or("–".to_owned(), |own| format!("{:.1}", 100.0 * own.iter().sum::<f64>() / own.len() as f64));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {own} | {} | {} | {} | {} |",
            variant.family,
            variant.name,
            percent(variant),
            shown(variant, Cost::Macs),
            shown(variant, Cost::Params),
            shown(variant, Cost::LatencyMs),
            shown(variant, Cost::PeakBytes),
        );
    }
    text
}

/// Of each family: what all its trainings took, and the dearest of them.
fn search_cost(records: &[&Record]) -> String {
    let mut text = String::from(
        "### What it cost\n\n| family | trainings | children | core-hours | of the dearest training |\n|---|---|---|---|---|\n",
    );
    let families: BTreeSet<&str> = records.iter().map(|record| record.family.as_str()).collect();
    for family in families {
        let own: Vec<&&Record> = records.iter().filter(|record| record.family == family).collect();
        let hours: Option<Vec<f64>> = own.iter().map(|record| Some(record.core_seconds? / 3600.0)).collect();
        let [all, dearest] = match hours {
            Some(hours) => {
                [hours.iter().sum(), hours.iter().copied().fold(0.0, f64::max)].map(|h: f64| format!("{h:.2}"))
            }
            None => ["–".into(), "–".into()],
        };
        // An empty sum of floats is -0.
        let children = own.iter().filter_map(|record| record.n_children).sum::<f64>() + 0.0;
        let _ = writeln!(text, "| {family} | {} | {children:.0} | {all} | {dearest} |", own.len());
    }
    let all: f64 = records.iter().filter_map(|record| record.core_seconds).sum::<f64>() / 3600.0;
    let _ = writeln!(
        text,
        "\nCore-hours of searched families are those of search and final training together. All that is done so far: {all:.2}."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn ratios_are_at_equal_accuracy() {
        let records = [
            record("gram", 1, 1e6, 0.75),
            record("mobilenet-v2", 1, 2e6, 0.7),
            record("mobilenet-v2-shallow", 1, 8e6, 0.8),
        ];
        let text = ratios(&Variant::all(&records));
        // Half of the way between 2 M and 8 M on a logarithmic axis.
        assert!(
            text.contains("| 75.00 | 20.0 k | 1.00 M | 0.100 ms | 98 KiB | 4.00x | 4.00x | 4.00x | 4.00x |"),
            "{text}"
        );
    }

    #[test]
    fn random_search_is_compared_seed_by_seed_over_all_trainings() {
        let again = |family, top1| Record { training: 2, ..record(family, 1, 1e6, top1) };
        let records = [
            record("gram", 1, 1e6, 0.75),
            again("gram", 0.77),
            record("random", 1, 1e6, 0.7),
            record("gram", 2, 1e6, 0.8),
        ];
        let text = against_random(&records.iter().collect::<Vec<_>>());
        assert!(text.ends_with("| 1000000, 1 | 1.00 | 76.00 ± 1.41 (2 trainings) | 1.00 | 70.00 |\n"), "{text}");
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let readme = format!("a\n{}\nold\n{}\nb", MARKS.0, MARKS.1);
        assert_eq!(between(&readme, "new").unwrap(), format!("a\n{}\nnew\n{}\nb", MARKS.0, MARKS.1));
        assert_eq!(between("a", "new"), None);
    }
}
