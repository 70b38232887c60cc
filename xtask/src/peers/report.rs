//! The report: Markdown that stands between two marks of a document.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::figures::{Entry, NetFigures, Outcome, Role, least, median, most, ratios};
use super::machine::Machine;
use super::options::Options;

const BEGIN: &str = "<!-- peers: begin -->";
const END: &str = "<!-- peers: end -->";

/// A file whose part between the marks is replaced.
pub(crate) struct Document {
    path: PathBuf,
    before: String,
    after: String,
}

impl Document {
    /// Reads the file, if there is one, before anything is measured: it must have the marks.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fresh = || format!("{BEGIN}\n{END}\n");
        let text = if path.exists() { std::fs::read_to_string(path) } else { Ok(fresh()) };
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        let Some((before, after)) = split(&text) else {
            bail!("{} has no place for the report: the lines `{BEGIN}` and `{END}`", path.display());
        };
        Ok(Self { path: path.to_owned(), before: before.into(), after: after.into() })
    }

    pub(crate) fn write(&self, report: &str) -> Result<()> {
        let text = format!("{}{BEGIN}\n\n{}\n\n{END}{}", self.before, report.trim(), self.after);
        std::fs::write(&self.path, text).with_context(|| format!("writing {}", self.path.display()))?;
        eprintln!("written to {}", self.path.display());
        Ok(())
    }
}

/// What stands before and behind the marks.
fn split(text: &str) -> Option<(&str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some((before, after))
}

/// The whole report.
pub(crate) fn markdown(nets: &[NetFigures], machine: &Machine, options: &Options) -> String {
    let mut text = head(nets, machine, options);
    text += &summary(nets, options);
    for net in nets {
        text += &table(net, options);
    }
    text
}

fn head(nets: &[NetFigures], machine: &Machine, options: &Options) -> String {
    let load = |load: Option<f64>| load.map_or_else(|| "unknown".into(), |load| format!("{load:.1}"));
    let [start, end] = machine.loads.map(load);
    let peak = most(&nets.iter().map(|net| net.peak_gflops).collect::<Vec<_>>());
    let Machine { cpu, cores, torch, .. } = machine;
    let counted = options.rounds - 1;
    format!(
        "`{}`\n\n{cpu}, {cores} cores; torch {torch}. Load average {start} at the start, {end} at the end. FMA peak of {} threads: \
         {peak:.0} GFLOP/s.\nMedians of {counted} counted rounds of {} steps; batch {}, {} threads.\n\n",
        options.command(),
        options.threads,
        options.steps,
        options.batch,
        options.threads,
    )
}

fn summary(nets: &[NetFigures], options: &Options) -> String {
    let (batch, twice) = (options.batch, 2 * options.batch);
    let mut text = format!(
        "| net | ms a step | times the best torch mode of the round: median (least–most) | share of FMA peak: median (best) | \
         peak RSS MiB, batch {batch} | batch {twice} | 1 → {} threads |\n|---|---|---|---|---|---|---|\n",
        options.threads
    );
    for net in nets {
        let ours = net.ours();
        let rounds = ours.rounds().unwrap_or_default();
        let faster = ratios(&net.best_torch_rounds(), rounds);
        let spread = if faster.is_empty() {
            "no torch".into()
        } else {
            format!("**{:.2}** ({:.2}–{:.2})", median(&faster), least(&faster), most(&faster))
        };
        let one = net.ours_with(|role| role.threads() < options.threads).and_then(Entry::rounds);
        let scaling = one.map_or_else(|| "–".into(), |one| format!("{:.2}", median(&ratios(one, rounds))));
        let doubled = net.ours_with(|role| role.batch() == twice).map_or_else(|| "–".into(), rss);
        let (ms, share) = (median(rounds), share(net, ours, options));
        let _ =
            writeln!(text, "| {} | {ms:.1} | {spread} | {share} | {} | {doubled} | {scaling} |", net.name, rss(ours));
    }
    text
}

fn table(net: &NetFigures, options: &Options) -> String {
    let gflop = net.step_flop(options.batch) / 1e9;
    let mut text = format!(
        "\n### {}\n\n{:.1} MMAC an image, {} params, {gflop:.1} GFLOP a step of {} images.\n\n\
         | contender | ms: median | best | images/s | its time / ours | share of FMA peak: median (best) | peak RSS MiB |\n\
         |---|---|---|---|---|---|---|\n",
        net.name,
        net.macs as f64 / 1e6,
        net.params,
        options.batch,
    );
    for entry in &net.entries {
        text += &row(net, entry, options);
    }
    text
}

fn row(net: &NetFigures, entry: &Entry, options: &Options) -> String {
    let name = match entry.role {
        Role::Ours { threads, batch } if (threads, batch) == (options.threads, options.batch) => entry.mode.clone(),
        Role::Ours { threads, batch } if batch == options.batch => format!("{}, {threads} thread", entry.mode),
        Role::Ours { batch, .. } => format!("{}, batch {batch}", entry.mode),
        Role::Torch { mode, .. } => format!("torch {mode}"),
    };
    let rounds = match &entry.outcome {
        Outcome::Ran { rounds, .. } => rounds,
        Outcome::Absent(reason) => return format!("| {name} | absent: {} | | | | | |\n", reason.replace('|', "/")),
    };
    let (ms, best) = (median(rounds), least(rounds));
    let images = entry.role.batch() as f64 / ms * 1e3;
    let comparable = entry.role.batch() == options.batch;
    let ratio = if comparable {
        format!("{:.2}", median(&ratios(rounds, net.ours().rounds().unwrap_or_default())))
    } else {
        "–".into()
    };
    let share = share(net, entry, options);
    format!("| {name} | {ms:.1} | {best:.1} | {images:.0} | {ratio} | {share} | {} |\n", rss(entry))
}

/// FLOP of the network over FLOP that the threads could do in the same time, in percent.
fn share(net: &NetFigures, entry: &Entry, options: &Options) -> String {
    let peak = net.peak_gflops * entry.role.threads() as f64 / options.threads as f64;
    let percent = |ms: f64| net.step_flop(entry.role.batch()) / (ms / 1e3) / (peak * 1e9) * 100.0;
    let rounds = entry.rounds().unwrap_or_default();
    format!("{:.1} % ({:.1} %)", percent(median(rounds)), percent(least(rounds)))
}

fn rss(entry: &Entry) -> String {
    match entry.outcome {
        Outcome::Ran { rss_mib, .. } => rss_mib.to_string(),
        Outcome::Absent(_) => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::some_figures;
    use super::*;

    fn report() -> String {
        let machine = Machine { cpu: "Some CPU".into(), cores: 2, torch: "2.0".into(), loads: [Some(0.25), None] };
        let options = Options::parse(&["--rounds".into(), "3".into()]).unwrap();
        markdown(&[some_figures()], &machine, &options)
    }

    #[test]
    fn every_figure_by_hand() {
        let text = report();
        let has = |line: &str| assert!(text.contains(line), "no {line:?} in\n{text}");
        has("Some CPU, 2 cores; torch 2.0. Load average 0.2 at the start, unknown at the end.");
        // 64 GFLOP in 100 ms are half of 1280 GFLOP/s; the best modes took 150 and 200 ms.
        has("| some | 100.0 | **1.75** (1.50–2.00) | 50.0 % (50.0 %) | 140 | 260 | 1.90 |");
        has("| gram-avx2 | 100.0 | 100.0 | 640 | 1.00 | 50.0 % (50.0 %) | 140 |");
        has("| torch eager | 250.0 | 200.0 | 256 | 2.50 | 20.0 % (25.0 %) | 1700 |");
        has("| torch eager-cl | absent: it ended: no torch | | | | | |");
        // One thread has half of the peak; twice the batch is twice the work.
        has("| gram-avx2, 1 thread | 190.0 | 190.0 | 337 | 1.90 | 52.6 % (52.6 %) | 130 |");
        has("| gram-avx2, batch 128 | 200.0 | 190.0 | 640 | – | 50.0 % (52.6 %) | 260 |");
        has("166.7 MMAC an image, 1234 params, 64.0 GFLOP a step of 64 images.");
    }

    #[test]
    fn only_the_part_between_the_marks_changes() {
        let folder = std::env::temp_dir().join(format!("gram-xtask-report-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("report.md");
        Document::open(&path).unwrap().write("first").unwrap();
        std::fs::write(&path, format!("# Title\n\n{BEGIN}\nold\n{END}\n\n## More\n")).unwrap();
        Document::open(&path).unwrap().write("new\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\n## More\n"));
        std::fs::write(&path, "no marks").unwrap();
        assert!(Document::open(&path).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
