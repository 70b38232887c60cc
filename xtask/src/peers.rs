//! `cargo xtask bench peers`: our training step beside torch's, on the same networks, in turns.
//!
//! All contenders of a network stay open and are asked one after the other, so that whatever else the machine does hits all alike; ratios are
//! medians of ratios of the same round. A contender that fails to start, or ends early, is reported as absent with its reason.

mod contender;
mod figures;
mod machine;
mod options;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::contender::Contender;
use self::figures::{Entry, NetFigures, Outcome, Role};
use self::machine::Machine;
use self::options::Options;
use crate::pipeline::gram_binary;
use crate::shell::{self, capture, usage};

const MODES: [&str; 4] = ["eager", "eager-cl", "compile", "compile-cl"];
/// Without these glibc returns every large tensor to the system, and torch is up to twice slower.
const MALLOC: [(&str, &str); 3] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "9999999999"), ("MALLOC_TOP_PAD_", "268435456")];
/// Between two contenders: threads of the last one that spin while they wait for work have gone to sleep then.
const PAUSE: Duration = Duration::from_millis(100);

/// Measures every network, prints the report and puts it into the output file.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let document = report::Document::open(&options.output)?;
    let nets = net_files(&options.nets)?;
    let torch = torch(&options)?;
    shell::run("cargo", &["build", "--release", "-p", "gram-cli"])?;
    let mut machine = Machine::look(torch);
    let mut measured = Vec::new();
    for net in &nets {
        measured.push(measure(net, &options)?);
    }
    machine.look_again();
    let text = report::markdown(&measured, &machine, &options);
    println!("{text}");
    document.write(&text)
}

/// The net files of a folder, by name.
fn net_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let missing = || usage(format!("no folder {}: name the one with the net files with --nets", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|_| missing())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "net") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(usage(format!("{} holds no .net files", folder.display())));
    }
    Ok(files)
}

/// Which torch it is, and on what.
fn torch(options: &Options) -> Result<String> {
    if !options.peer.is_file() {
        return Err(usage(format!("no file {}: name torch's side with --peer", options.peer.display())));
    }
    let script = "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability())";
    let python = &options.python;
    let output = Command::new(python).args(["-c", script]).output();
    let missing = |reason: &str| {
        let hint = "`pip install torch numpy`, and name that Python with --python or GRAM_PEER_PYTHON";
        usage(format!("`{python}` has no torch ({reason}): {hint}"))
    };
    let output = output.map_err(|error| missing(&error.to_string()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(missing(stderr.lines().last().unwrap_or("it ended without a word")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// All rounds of one network.
fn measure(net: &Path, options: &Options) -> Result<NetFigures> {
    let gram = gram_binary();
    let name = net.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let cost: Value = serde_json::from_str(&capture(&gram, &["cost", &net.to_string_lossy(), "--json"])?)?;
    let macs = cost["macs"].as_u64().context("`gram cost` gave no macs")?;
    let mut contenders: Vec<(Entry, Option<Contender>)> =
        roles(options).into_iter().map(|role| start(role, net, options)).collect();
    let params = agree_on_params(&name, &contenders)?;
    let mut peak_gflops = peak(&gram, options.threads)?;
    for round in 0..options.rounds {
        ask_all(&mut contenders, round, options);
        let told = contenders.iter().map(|(entry, _)| entry.last_round()).collect::<Vec<_>>().join("  ");
        eprintln!("{name}, round {} of {}: {told}", round + 1, options.rounds);
    }
    peak_gflops = peak_gflops.max(peak(&gram, options.threads)?);
    let entries: Vec<Entry> = contenders.into_iter().map(|(entry, _)| entry).collect();
    if let Some(Entry { outcome: Outcome::Absent(reason), .. }) = entries.iter().find(|entry| entry.role.is_ours()) {
        bail!("{name}: ours failed: {reason}");
    }
    Ok(NetFigures { name, macs, params, peak_gflops, entries })
}

/// Ours, torch's modes, and ours in other settings.
fn roles(options: &Options) -> Vec<Role> {
    let (threads, batch) = (options.threads, options.batch);
    let mut roles = vec![Role::Ours { threads, batch }];
    roles.extend(MODES.map(|mode| Role::Torch { mode, threads, batch }));
    if threads > 1 {
        roles.push(Role::Ours { threads: 1, batch });
    }
    roles.push(Role::Ours { threads, batch: 2 * batch });
    roles
}

fn start(role: Role, net: &Path, options: &Options) -> (Entry, Option<Contender>) {
    eprintln!("starting {role}");
    let mut command = match role {
        Role::Ours { .. } => {
            let mut command = Command::new(gram_binary());
            command.args(["bench", "step"]).arg(net);
            command
        }
        Role::Torch { mode, .. } => {
            let mut command = Command::new(&options.python);
            command.arg(&options.peer).arg(net).args(["--mode", mode]).envs(MALLOC);
            command
        }
    };
    let (threads, batch) = (role.threads(), role.batch());
    command.args(["--batch", &batch.to_string(), "--threads", &threads.to_string()]);
    let started = machine::check_memory(batch).and_then(|()| Contender::start(command));
    match started {
        Ok(contender) => (Entry::new(role, &contender.mode), Some(contender)),
        Err(reason) => {
            eprintln!("{role} is absent: {reason}");
            (Entry::absent(role, reason), None)
        }
    }
}

/// Asks every contender that still answers; every other round backwards, so that nobody always follows the same one.
fn ask_all(contenders: &mut [(Entry, Option<Contender>)], round: usize, options: &Options) {
    let n = contenders.len();
    for i in 0..n {
        let (entry, contender) = &mut contenders[if round.is_multiple_of(2) { i } else { n - 1 - i }];
        let Some(open) = contender else { continue };
        std::thread::sleep(PAUSE);
        match open.ask(options.steps) {
            Ok(answer) => entry.add(round, &answer),
            Err(reason) => {
                entry.outcome = Outcome::Absent(format!("round {}: {reason}", round + 1));
                *contender = None;
            }
        }
    }
}

/// The number of parameters, which all contenders must have counted alike: else they do not run the same network.
fn agree_on_params(net: &str, contenders: &[(Entry, Option<Contender>)]) -> Result<u64> {
    let counts: Vec<u64> = contenders.iter().filter_map(|(_, open)| open.as_ref()).map(|open| open.params).collect();
    let first = *counts.first().with_context(|| format!("{net}: no contender could be started"))?;
    ensure!(counts.iter().all(|&count| count == first), "{net}: contenders count different parameters: {counts:?}");
    Ok(first)
}

fn peak(gram: &str, threads: usize) -> Result<f64> {
    let text = capture(gram, &["bench", "peak", "--threads", &threads.to_string(), "--seconds", "2", "--json"])?;
    serde_json::from_str::<Value>(&text)?["gflops"].as_f64().context("`gram bench peak` gave no gflops")
}
