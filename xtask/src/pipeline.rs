//! Pipelines: lists of `gram` commands over files, ending with a table and `summary.json`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::shell::{self, capture, root, usage};

/// One job that the project can do from end to end.
struct Pipeline {
    name: &'static str,
    /// Study file under `examples/`.
    config: &'static str,
    /// Folder under the data directory; none: the dataset is built in.
    folder: Option<&'static str>,
}

const PIPELINES: &[Pipeline] = &[
    Pipeline { name: "quickstart", config: "examples/optdigits.toml", folder: None },
    Pipeline { name: "fashion-mnist", config: "examples/fashion-mnist.toml", folder: Some("fashion-mnist") },
    Pipeline { name: "cifar-10", config: "examples/cifar-10.toml", folder: Some("cifar-10-batches-bin") },
];

struct Options {
    pipeline: &'static Pipeline,
    data: String,
    output: PathBuf,
    jobs: Option<String>,
}

/// Runs one pipeline; running it again continues it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    shell::run("cargo", &["build", "--release", "-p", "gram-cli"])?;
    let gram = gram_binary();
    let started = Instant::now();
    let (config, data) = (options.pipeline.config, options.data.as_str());
    let study = options.output.to_string_lossy().into_owned();
    shell::run(&gram, &["data", "info", data])?;
    shell::run(&gram, &["space", "-c", config, "--data", data])?;
    let mut search = vec!["search", "-c", config, "--data", data, "-o", &study, "--json"];
    search.extend(options.jobs.as_deref().map(|jobs| ["--jobs", jobs]).iter().flatten());
    let report: Value =
        serde_json::from_str(&capture(&gram, &search)?).context("reading what `gram search` printed")?;
    shell::run(&gram, &["cost", &format!("{study}/best/architecture.json")])?;
    shell::run(&gram, &["eval", &format!("{study}/best"), "--data", data, "--split", "validation"])?;
    summarise(&options, &report, started.elapsed().as_secs_f64())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let (mut name, mut data, mut output, mut jobs) = (None, None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| usage(format!("{argument} needs a value")));
        match argument.as_str() {
            "--data" => data = Some(value()?),
            "--output" | "-o" => output = Some(PathBuf::from(value()?)),
            "--jobs" => jobs = Some(value()?),
            word if !word.starts_with('-') && name.is_none() => name = Some(word.to_owned()),
            other => return Err(usage(format!("`cargo xtask pipeline` does not know `{other}`"))),
        }
    }
    let name = name.unwrap_or_else(|| "quickstart".into());
    let names = || PIPELINES.iter().map(|pipeline| pipeline.name).collect::<Vec<_>>().join(", ");
    let pipeline = PIPELINES.iter().find(|pipeline| pipeline.name == name);
    let pipeline =
        pipeline.ok_or_else(|| usage(format!("there is no pipeline `{name}`: choose one of {}", names())))?;
    let output = output.unwrap_or_else(|| Path::new("runs").join(pipeline.name));
    Ok(Options { data: data.map_or_else(|| default_data(pipeline), Ok)?, pipeline, output, jobs })
}

/// Built-in data, or the pipeline's folder in `GRAM_DATA` or in `../shared/data`.
fn default_data(pipeline: &Pipeline) -> Result<String> {
    let Some(folder) = pipeline.folder else {
        return Ok("optdigits".into());
    };
    let bases = [std::env::var_os("GRAM_DATA").map(PathBuf::from), Some(root().join("../shared/data"))];
    let found = bases.into_iter().flatten().map(|base| base.join(folder)).find(|path| path.is_dir());
    let missing = || {
        usage(format!("no folder `{folder}`: say where the data is with --data DIR, or set GRAM_DATA to its parent"))
    };
    found.map(|path| path.to_string_lossy().into_owned()).ok_or_else(missing)
}

/// Where cargo put the release binary.
pub(crate) fn gram_binary() -> String {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("release").join(format!("gram{}", std::env::consts::EXE_SUFFIX)).to_string_lossy().into_owned()
}

/// Prints the table and writes `summary.json` beside the study.
fn summarise(options: &Options, report: &Value, seconds: f64) -> Result<()> {
    let fields = ["macs", "params", "validation_top1", "test_top1", "n_children"];
    let mut summary = json!({ "format_version": 1, "pipeline": options.pipeline.name });
    for field in fields {
        let value = report.get(field).with_context(|| format!("`gram search` gave no `{field}`"))?;
        summary[field] = value.clone();
    }
    summary["seconds"] = json!((seconds * 10.0).round() / 10.0);
    println!("\n{}", options.pipeline.name);
    for field in fields.iter().chain(&["seconds"]) {
        println!("  {field:<16} {:>12}", summary[*field].to_string());
    }
    let file = root().join(&options.output).join("summary.json");
    std::fs::write(&file, serde_json::to_string_pretty(&summary)? + "\n")
        .with_context(|| format!("writing {}", file.display()))?;
    println!("  {}", options.output.join("summary.json").display());
    println!("  {}", options.output.join("best/model.onnx").display());
    Ok(())
}
