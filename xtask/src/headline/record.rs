//! What a finished job leaves: one small JSON file in `docs/headline/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::plan::Job;
use crate::shell::{root, run};

/// A trained network and what was measured of it. Fractions, not percent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) dataset: String,
    pub(super) family: String,
    pub(super) variant: String,
    /// Of the search, where the network was searched.
    pub(super) seed: u64,
    /// From 1: which training of a searched network.
    pub(super) training: u64,
    pub(super) command: String,
    /// What `gram` knows the network by: a preset's name, or a file in the repository.
    pub(super) architecture: String,
    pub(super) macs: f64,
    pub(super) params: f64,
    /// Of f32 feature maps, in the best order of operators.
    pub(super) peak_bytes: f64,
    /// Median of a forward pass at batch 1, the least of the rounds in which all networks take turns; none before it is measured.
    pub(super) latency_ms: Option<f64>,
    /// What it was measured on.
    pub(super) device: Value,
    pub(super) validation_top1: f64,
    pub(super) test_top1: f64,
    /// On the dataset's own test images, where those are not the test split.
    pub(super) own_test_top1: Option<f64>,
    /// Children of a search.
    pub(super) n_children: Option<f64>,
    /// Of the run that finished the job.
    pub(super) seconds: f64,
    /// Time of processors, of the run that finished the job; none where the system does not tell.
    pub(super) core_seconds: Option<f64>,
}

/// Where the records are kept.
fn folder() -> PathBuf {
    root().join("docs/headline")
}

fn file(name: &str) -> PathBuf {
    folder().join(format!("{}.json", name.replace('/', "--")))
}

/// Where the architecture of a searched network is kept, relative to the repository.
pub(super) fn architecture_file(name: &str) -> String {
    format!("docs/headline/architectures/{}.txt", name.replace('/', "--"))
}

impl Record {
    /// Whether the job has a record, made by the same command.
    pub(super) fn is_there(job: &Job) -> bool {
        Self::read(&file(&job.name)).is_ok_and(|record| record.command == job.command())
    }

    /// All records, by name.
    pub(super) fn read_all() -> Result<Vec<Self>> {
        let Ok(entries) = fs::read_dir(folder()) else { return Ok(Vec::new()) };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Self::from_json(&value).with_context(|| path.display().to_string())
    }

    fn from_json(value: &Value) -> Result<Self> {
        let text = |field: &str| value[field].as_str().map(str::to_owned).with_context(|| format!("no text `{field}`"));
        let number = |field: &str| value[field].as_f64().with_context(|| format!("no number `{field}`"));
        anyhow::ensure!(value["format_version"] == 1, "format_version is not 1");
        Ok(Self {
            name: text("name")?,
            dataset: text("dataset")?,
            family: text("family")?,
            variant: text("variant")?,
            seed: value["seed"].as_u64().context("no number `seed`")?,
            training: value["training"].as_u64().unwrap_or(1),
            command: text("command")?,
            architecture: text("architecture")?,
            macs: number("macs")?,
            params: number("params")?,
            peak_bytes: number("peak_bytes")?,
            latency_ms: value["latency_ms"].as_f64(),
            device: value["device"].clone(),
            validation_top1: number("validation_top1")?,
            test_top1: number("test_top1")?,
            own_test_top1: value["own_test_top1"].as_f64(),
            n_children: value["n_children"].as_f64(),
            seconds: number("seconds")?,
            core_seconds: value["core_seconds"].as_f64(),
        })
    }

    fn to_json(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
        put("format_version", json!(1));
        for (key, text) in [
            ("name", &self.name),
            ("dataset", &self.dataset),
            ("family", &self.family),
            ("variant", &self.variant),
            ("command", &self.command),
            ("architecture", &self.architecture),
        ] {
            put(key, json!(text));
        }
        put("seed", json!(self.seed));
        put("training", json!(self.training));
        put("device", self.device.clone());
        for (key, number) in [("macs", self.macs), ("params", self.params), ("peak_bytes", self.peak_bytes)] {
            put(key, json!(number as u64));
        }
        for (key, number) in [
            ("validation_top1", self.validation_top1),
            ("test_top1", self.test_top1),
            ("seconds", (self.seconds * 10.0).round() / 10.0),
        ] {
            put(key, json!(number));
        }
        let core_seconds = self.core_seconds.map(|seconds| (seconds * 10.0).round() / 10.0);
        for (key, number) in [
            ("latency_ms", self.latency_ms),
            ("own_test_top1", self.own_test_top1),
            ("n_children", self.n_children),
            ("core_seconds", core_seconds),
        ] {
            put(key, number.map_or(Value::Null, |number| json!(number)));
        }
        Value::Object(fields)
    }

    /// Writes the record whole or not at all.
    pub(super) fn save(&self) -> Result<()> {
        let path = file(&self.name);
        fs::create_dir_all(folder())?;
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, serde_json::to_string_pretty(&self.to_json())? + "\n")?;
        fs::rename(&temporary, &path).with_context(|| format!("writing {}", path.display()))
    }
}

/// Commits the record of a job and what it found, and nothing else that may lie in the tree.
pub(super) fn commit(job: &Job) -> Result<()> {
    let record = file(&job.name).to_string_lossy().into_owned();
    let architecture = architecture_file(&job.name);
    let mut paths = vec!["--", &record];
    paths.extend(root().join(&architecture).is_file().then_some(architecture.as_str()));
    run("git", &[&["add"], paths.as_slice()].concat())?;
    let message = format!("headline: {}", job.name);
    run("git", &[&["commit", "--quiet", "--message", &message], paths.as_slice()].concat())
}

/// Seconds that processors worked for the commands that this program has run; none where the system does not tell.
pub(super) fn core_seconds() -> Option<f64> {
    /// Ticks of `/proc` per second, on every Linux that Rust runs on.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold blanks: cutime and cstime are fields 16 and 17 of all.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(13)? + ticks(14)?) / TICKS)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::headline) fn record(family: &str, seed: u64, macs: f64, top1: f64) -> Record {
        Record {
            name: format!("cifar-10/{family}/{macs}-seed{seed}"),
            dataset: "cifar-10".into(),
            family: family.into(),
            variant: format!("{macs}"),
            seed,
            training: 1,
            command: "gram train x".into(),
            architecture: "x".into(),
            macs,
            params: macs / 50.0,
            peak_bytes: macs / 10.0,
            latency_ms: Some(macs / 1e7),
            device: json!({"cpu": "x", "engine": "onnxruntime"}),
            validation_top1: top1,
            test_top1: top1,
            own_test_top1: Some(top1),
            n_children: None,
            seconds: 10.0,
            core_seconds: Some(20.0),
        }
    }

    #[test]
    fn records_read_back() {
        let record = record("dsconv", 1, 1e6, 0.75);
        assert_eq!(Record::from_json(&record.to_json()).unwrap(), record);
        let mut bad = record.to_json();
        bad["macs"] = json!("many");
        assert!(Record::from_json(&bad).unwrap_err().to_string().contains("macs"));
    }
}
