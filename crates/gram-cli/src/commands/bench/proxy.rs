//! `gram bench proxy`: how well cheap trainings rank the children that a dear one ranks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gram_search::{Outcome, Record, kendall_tau, read_journal};
use serde::Serialize;

use crate::args::ProxyBenchArgs;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::read_text;
use crate::output;
use crate::study::evaluator::TRAIN_LOSS;

/// Children that two studies must have in common: fewer rank anything by chance.
const LEAST_CHILDREN: usize = 8;

#[derive(Serialize)]
struct Report {
    reference: String,
    /// Median seconds of training a child of the reference, on the machine that trained it.
    reference_seconds: Option<f64>,
    proxies: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    study: String,
    /// Children that both studies have trained.
    n_children: usize,
    /// How well the proxy's validation top-1 ranks.
    #[serde(flatten)]
    by_top1: Ranking,
    /// The same of its training loss, low ones first, where it is known of all children.
    by_train_loss: Option<Ranking>,
    /// Median seconds of training a child.
    seconds: Option<f64>,
}

/// How what a proxy says ranks children by the reference's validation top-1.
#[derive(Serialize)]
struct Ranking {
    /// Kendall's τ-b.
    kendall_tau: Option<f64>,
    /// Of the tenth (one at least) that the proxy likes best, the share that is in the reference's best quarter.
    top_precision: f64,
}

/// One study, and how long children took.
struct Trained {
    /// By graph.
    children: BTreeMap<String, Child>,
    seconds: Option<f64>,
}

struct Child {
    top1: f64,
    train_loss: Option<f64>,
}

pub(crate) fn run(args: &ProxyBenchArgs) -> Result<()> {
    let reference = read(&args.reference)?;
    let line = |study: &PathBuf| {
        let line = compare(&reference, &read(study)?, study.display().to_string());
        if line.n_children < LEAST_CHILDREN {
            let message = format!(
                "{}: {} children in common with {}, at least {LEAST_CHILDREN} are needed: give both studies the same space, limits, \
                 seed and `--strategy random`",
                study.display(),
                line.n_children,
                args.reference.display()
            );
            return Err(Failure::new(Kind::Usage, message));
        }
        Ok(line)
    };
    let proxies = args.proxies.iter().map(line).collect::<Result<Vec<_>>>()?;
    let report =
        Report { reference: args.reference.display().to_string(), reference_seconds: reference.seconds, proxies };
    if args.json {
        return output::json(&report);
    }
    print(&report);
    Ok(())
}

/// Children of a study with their top-1, a guess for those that were stopped; one that diverged counts as 0, its loss as infinite.
fn read(study: &Path) -> Result<Trained> {
    let journal = study.join("journal.jsonl");
    if !journal.is_file() {
        return Err(Failure::new(
            Kind::Data,
            format!("{}: no such file; name the folder of a study", journal.display()),
        ));
    }
    let records = read_journal(&journal).or_fail(Kind::Data)?;
    let children = records.into_iter().filter_map(|record| match record {
        Record::Child(child) => Some((child.graph, trained(&child.outcome))),
        _ => None,
    });
    Ok(Trained { children: children.collect(), seconds: seconds(&study.join("timings.jsonl"))? })
}

fn trained(outcome: &Outcome) -> Child {
    let train_loss = match outcome {
        Outcome::Scored { metrics, .. } => metrics.get(TRAIN_LOSS).copied(),
        // Losses of different epochs do not compare.
        Outcome::Stopped { .. } => None,
        Outcome::Diverged { .. } => Some(f64::INFINITY),
    };
    Child { top1: outcome.expected_top1().unwrap_or(0.0), train_loss }
}

/// Median seconds of a child; none where none are written down.
fn seconds(timings: &Path) -> Result<Option<f64>> {
    if !timings.is_file() {
        return Ok(None);
    }
    let text = read_text(timings)?;
    let of_line = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["seconds"].as_f64();
    let mut seconds: Vec<f64> = text.lines().filter_map(of_line).collect();
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(seconds.len() / 2).copied())
}

fn compare(reference: &Trained, proxy: &Trained, study: String) -> Line {
    let both = proxy.children.iter().filter_map(|(graph, cheap)| Some((cheap, reference.children.get(graph)?.top1)));
    let both: Vec<(&Child, f64)> = both.collect();
    let losses = both.iter().map(|(cheap, full)| Some((-cheap.train_loss?, *full)));
    Line {
        study,
        n_children: both.len(),
        by_top1: ranking(both.iter().map(|(cheap, full)| (cheap.top1, *full)).collect()),
        by_train_loss: losses.collect::<Option<Vec<_>>>().map(ranking),
        seconds: proxy.seconds,
    }
}

fn ranking(both: Vec<(f64, f64)>) -> Ranking {
    let (cheap, full): (Vec<f64>, Vec<f64>) = both.iter().copied().unzip();
    Ranking { kendall_tau: kendall_tau(&cheap, &full), top_precision: top_precision(both) }
}

/// Of the best tenth by the first score, the share in the best quarter by the second.
fn top_precision(mut both: Vec<(f64, f64)>) -> f64 {
    let n = both.len();
    let mut full: Vec<f64> = both.iter().map(|(_, full)| *full).collect();
    full.sort_by(|a, b| b.total_cmp(a));
    let Some(&bar) = full.get((n / 4).max(1) - 1) else { return 0.0 };
    both.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.total_cmp(&b.1)));
    let picked = (n / 10).max(1);
    both[..picked].iter().filter(|(_, full)| *full >= bar).count() as f64 / picked as f64
}

fn print(report: &Report) {
    let seconds = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
    let titles = ["study", "children", "Kendall tau", "top precision", "tau of loss", "top precision", "a child"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let tau = |ranking: &Ranking| ranking.kendall_tau.map_or("-".to_owned(), |tau| format!("{tau:.3}"));
    let precision = |ranking: &Ranking| format!("{:.0} %", 100.0 * ranking.top_precision);
    for line in &report.proxies {
        rows.push(vec![
            line.study.clone(),
            line.n_children.to_string(),
            tau(&line.by_top1),
            precision(&line.by_top1),
            line.by_train_loss.as_ref().map_or("-".to_owned(), tau),
            line.by_train_loss.as_ref().map_or("-".to_owned(), precision),
            seconds(line.seconds),
        ]);
    }
    output::table(&rows);
    output::line(format_args!("{} takes {} a child", report.reference, seconds(report.reference_seconds)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_tenth_is_looked_up_among_the_best_quarter() {
        // Of twelve children one is picked, and three are the best quarter.
        let full = |i: usize| f64::from([5, 1, 2, 3, 4, 9, 8, 7, 6, 0, 10, 11][i]);
        let ranked = |best: usize| (0..12).map(|i| (f64::from(u8::from(i == best)), full(i))).collect::<Vec<_>>();
        assert_eq!(["11", "5", "6"].map(|i| top_precision(ranked(i.parse().unwrap()))), [1.0, 1.0, 0.0]);
        assert_eq!(top_precision(Vec::new()), 0.0);
    }

    #[test]
    fn only_common_children_are_compared() {
        let trained = |children: &[(&str, f64, Option<f64>)]| Trained {
            children: children
                .iter()
                .map(|&(graph, top1, train_loss)| (graph.to_owned(), Child { top1, train_loss }))
                .collect(),
            seconds: None,
        };
        let reference = trained(&[("a", 0.1, None), ("b", 0.2, None), ("c", 0.3, None)]);
        let line = |loss: Option<f64>| {
            compare(&reference, &trained(&[("a", 0.3, Some(2.0)), ("c", 0.1, loss), ("d", 1.0, None)]), "x".into())
        };
        let known = line(Some(1.0));
        assert_eq!((known.n_children, known.by_top1.kendall_tau), (2, Some(-1.0)));
        assert_eq!(known.by_train_loss.and_then(|ranking| ranking.kendall_tau), Some(1.0));
        assert!(line(None).by_train_loss.is_none());
    }
}
