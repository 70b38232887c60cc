//! What is trained and searched: families, sizes, seeds, and the one recipe.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use super::record::{Record, architecture_file, core_seconds};
use crate::shell::{capture, root};

/// One data set of the comparison.
pub(super) struct Dataset {
    /// Name in records and file names.
    pub(super) name: &'static str,
    /// Name for people.
    pub(super) title: &'static str,
    /// Folder under the data folder.
    pub(super) folder: &'static str,
    /// Shape of its images, as `gram` takes it.
    pub(super) input: &'static str,
    /// Passes of the final training over the training images.
    epochs: &'static str,
    /// Settings of `[data]`.
    splits: &'static [(&'static str, &'static str)],
    /// Whether the dataset's own test images are apart from the test split.
    own_test: bool,
    /// Name of the size that is searched with three seeds, beside random search.
    finalist: &'static str,
}

/// Limits of one searched network.
struct Size {
    name: &'static str,
    max_macs: &'static str,
    max_params: &'static str,
    /// Of f32 feature maps.
    max_peak_bytes: &'static str,
}

pub(super) const DATASETS: [Dataset; 2] = [
    Dataset {
        name: "cifar-10",
        title: "CIFAR-10",
        folder: "cifar-10-batches-bin",
        input: "3x32x32",
        epochs: "10",
        splits: &[("validation_per_class", "500"), ("test_per_class", "500")],
        own_test: true,
        finalist: "1.6M",
    },
    Dataset {
        name: "fashion-mnist",
        title: "Fashion-MNIST",
        folder: "fashion-mnist",
        input: "1x28x28",
        epochs: "6",
        splits: &[("validation_per_class", "500")],
        own_test: false,
        finalist: "2M",
    },
];

const SIZES: [Size; 5] = [
    size("0.7M", "700k", "12k", "64k"),
    size("1M", "1M", "16k", "80k"),
    size("1.6M", "1600k", "25k", "96k"),
    size("2M", "2M", "48k", "112k"),
    size("2.6M", "2600k", "80k", "128k"),
];

const fn size(
    name: &'static str,
    max_macs: &'static str,
    max_params: &'static str,
    max_peak_bytes: &'static str,
) -> Size {
    Size { name, max_macs, max_params, max_peak_bytes }
}

/// Children of searches for the curves alone, half of a finalist's or less: all else would take a day.
const CHILDREN_OF_CURVES: &str = "24";

/// The recipe of every training, chosen on validation images; see `docs/headline.md`. What is not here is the default.
const RECIPE: [(&str, &str); 2] = [("learning_rate", "0.016"), ("batch_size", "64")];

/// Seeds of finalists; the first is that of the curves.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Trainings of every searched finalist: one is off by as much as searches differ.
const TRAININGS: u64 = 3;

/// Baselines: family, architectures from small to large, up to about 12 M MACs, and those that are compared over three seeds. Dear ones first.
const BASELINES: [(&str, &[&str], &[&str]); 5] = [
    // 0.35 and 0.5 have 15.6 and 28.0 M MACs at full depth, where the shallow ones have 6.2 and 11.1.
    ("mobilenet-v2", &["mobilenet-v2-0.1-32", "mobilenet-v2-0.15-32", "mobilenet-v2-0.25-32"], &[]),
    (
        "shrinkcnn",
        &[
            "examples/headline/shrinkcnn-4.txt",
            "examples/headline/shrinkcnn-6.txt",
            "examples/headline/shrinkcnn-8.txt",
            "examples/headline/shrinkcnn-10.txt",
            "examples/headline/shrinkcnn-12.txt",
        ],
        &[],
    ),
    (
        "mobilenet-v2-shallow",
        &[
            "mobilenet-v2-0.1-32-shallow",
            "mobilenet-v2-0.15-32-shallow",
            "mobilenet-v2-0.25-32-shallow",
            "mobilenet-v2-0.35-32-shallow",
            "mobilenet-v2-0.5-32-shallow",
        ],
        // Those around what is searched: 0.15 to 0.35 on CIFAR-10, 0.35 and 0.5 on Fashion-MNIST.
        &[
            "mobilenet-v2-0.15-32-shallow",
            "mobilenet-v2-0.25-32-shallow",
            "mobilenet-v2-0.35-32-shallow",
            "mobilenet-v2-0.5-32-shallow",
        ],
    ),
    (
        "mobilenet-v3-small",
        &[
            "mobilenet-v3-small-minimalistic-0.1-32",
            "mobilenet-v3-small-minimalistic-0.15-32",
            "mobilenet-v3-small-minimalistic-0.25-32",
            "mobilenet-v3-small-minimalistic-0.35-32",
            "mobilenet-v3-small-minimalistic-0.5-32",
        ],
        &[],
    ),
    ("dsconv", &["dsconv-8", "dsconv-12", "dsconv-16", "dsconv-24", "dsconv-32"], &["dsconv-16"]),
];

/// The family of searched networks, and that of random search with the same budget.
pub(super) const OURS: &str = "gram";
pub(super) const RANDOM: &str = "random";

/// One command that ends with a trained model.
pub(super) struct Job {
    pub(super) name: String,
    dataset: &'static str,
    family: &'static str,
    variant: String,
    seed: u64,
    /// From 1: which training of the network that the search with this seed found.
    training: u64,
    own_test: bool,
    what: What,
    /// `gram` and its arguments, apart from data and output.
    arguments: Vec<String>,
    /// What is trained; none where it is searched first.
    architecture: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Train,
    Search,
}

impl Dataset {
    /// All jobs: baselines, the dear ones first, then searches, then further trainings of what these found. Random search runs beside the
    /// finalist only: a whole curve of it would take a fifth of all the time.
    pub(super) fn jobs(&self) -> Vec<Job> {
        let wanted = |seed: u64, finalist: bool| seed == SEEDS[0] || finalist;
        let mut jobs = Vec::new();
        for (family, architectures, finalists) in &BASELINES {
            for seed in SEEDS {
                let own = architectures.iter().filter(|architecture| wanted(seed, finalists.contains(architecture)));
                jobs.extend(own.map(|architecture| self.train(family, architecture, seed)));
            }
        }
        for seed in SEEDS {
            for size in SIZES.iter().filter(|size| wanted(seed, size.name == self.finalist)) {
                jobs.push(self.search(OURS, size, seed));
                if size.name == self.finalist {
                    jobs.push(self.search(RANDOM, size, seed));
                }
            }
        }
        for size in SIZES.iter().filter(|size| size.name == self.finalist) {
            let again = SEEDS.into_iter().flat_map(|seed| (2..=TRAININGS).map(move |training| (seed, training)));
            jobs.extend(again.flat_map(|(seed, training)| {
                [OURS, RANDOM].map(|strategy| self.train_again(strategy, size, seed, training))
            }));
        }
        jobs
    }

    fn job(&self, what: What, family: &'static str, variant: String, seed: u64, mut arguments: Vec<String>) -> Job {
        let (table, set) = (if what == What::Train { "train" } else { "final" }, "--set".to_owned());
        let splits = self.splits.iter().map(|(key, value)| format!("data.{key}={value}"));
        let recipe =
            RECIPE.into_iter().chain([("epochs", self.epochs)]).map(|(key, value)| format!("{table}.{key}={value}"));
        arguments.extend(splits.chain(recipe).flat_map(|setting| [set.clone(), setting]));
        arguments.extend(["--seed".into(), seed.to_string(), "--json".into()]);
        let name = format!("{}/{family}/{variant}-seed{seed}", self.name);
        let architecture = (what == What::Train).then(|| arguments[1].clone());
        let (dataset, own_test) = (self.name, self.own_test);
        Job { name, dataset, family, variant, seed, training: 1, own_test, what, arguments, architecture }
    }

    /// One more training of what a search found, with a seed of its own.
    fn train_again(&self, strategy: &'static str, size: &Size, seed: u64, training: u64) -> Job {
        let searched = self.search(strategy, size, seed).name;
        let arguments = vec!["train".into(), architecture_file(&searched)];
        let job = self.job(What::Train, strategy, size.name.to_owned(), 10 * training + seed, arguments);
        Job { name: format!("{searched}-training{training}"), seed, training, ..job }
    }

    fn train(&self, family: &'static str, architecture: &str, seed: u64) -> Job {
        let variant = Path::new(architecture).file_name().map_or(architecture.into(), |name| name.to_string_lossy());
        let variant = variant.strip_suffix(".txt").unwrap_or(&variant).to_owned();
        self.job(What::Train, family, variant, seed, vec!["train".into(), architecture.into()])
    }

    fn search(&self, strategy: &'static str, size: &Size, seed: u64) -> Job {
        let config = format!("examples/headline/{}.toml", self.name);
        let limits = [
            ("--max-macs", size.max_macs),
            ("--max-params", size.max_params),
            ("--max-peak-bytes", size.max_peak_bytes),
        ];
        let mut arguments: Vec<String> = ["search", "-c", &config, "--strategy", strategy].map(str::to_owned).into();
        let children = (size.name != self.finalist).then_some(("--children", CHILDREN_OF_CURVES));
        let given = limits.into_iter().chain(children);
        arguments.extend(given.flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]));
        self.job(What::Search, strategy, size.name.to_owned(), seed, arguments)
    }
}

impl Job {
    /// Whether the network is searched first.
    pub(super) fn is_search(&self) -> bool {
        self.what == What::Search
    }

    /// The command as a person would type it.
    pub(super) fn command(&self) -> String {
        format!("gram {}", self.arguments.join(" "))
    }

    /// Runs the command, or continues it, and measures what came of it.
    pub(super) fn run(&self, gram: &str, data: &Path, output: &Path) -> Result<Record> {
        let (started, cores_before) = (Instant::now(), core_seconds());
        let folder = output.join(&self.name);
        std::fs::create_dir_all(root().join(&folder)).with_context(|| format!("creating {}", folder.display()))?;
        let (data, folder_text) = (data.to_string_lossy(), folder.to_string_lossy());
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend(["--data", &data, "-o", &folder_text]);
        let printed = read(gram, &arguments)?;
        let model = if self.what == What::Train { folder.clone() } else { folder.join("best") };
        let model = model.to_string_lossy();
        let top1 = |split| -> Result<f64> {
            let report = read(gram, &["eval", &model, "--data", &data, "--split", split, "--json"])?;
            number(&report, "top1")
        };
        let cost = read(gram, &["cost", &format!("{model}/architecture.json"), "--json"])?;
        let architecture = match &self.architecture {
            Some(architecture) => architecture.clone(),
            None => self.keep_architecture(gram, &model)?,
        };
        let seconds =
            (started.elapsed().as_secs_f64(), core_seconds().zip(cores_before).map(|(after, before)| after - before));
        Ok(Record {
            name: self.name.clone(),
            dataset: self.dataset.to_owned(),
            family: self.family.to_owned(),
            variant: self.variant.clone(),
            seed: self.seed,
            training: self.training,
            command: self.command(),
            architecture,
            macs: number(&cost, "macs")?,
            params: number(&cost, "params")?,
            peak_bytes: number(&cost, "peak_bytes")?,
            latency_ms: None,
            device: Value::Null,
            validation_top1: number(&printed, "validation_top1")?,
            test_top1: top1("test")?,
            own_test_top1: self.own_test.then(|| top1("own-test")).transpose()?,
            n_children: (self.what == What::Search).then(|| number(&printed, "n_children")).transpose()?,
            seconds: seconds.0,
            core_seconds: seconds.1,
        })
    }
}

impl Job {
    /// Copies the architecture of a searched network to where it stays.
    fn keep_architecture(&self, gram: &str, model: &str) -> Result<String> {
        let file = architecture_file(&self.name);
        if let Some(folder) = root().join(&file).parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        capture(gram, &["export", &format!("{model}/architecture.json"), "--format", "text", "-o", &file])?;
        Ok(file)
    }
}

pub(super) fn read(gram: &str, arguments: &[&str]) -> Result<Value> {
    serde_json::from_str(&capture(gram, arguments)?)
        .with_context(|| format!("reading what `gram {}` printed", arguments[0]))
}

pub(super) fn number(report: &Value, field: &str) -> Result<f64> {
    report[field].as_f64().with_context(|| format!("there is no number `{field}` in what gram printed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_the_curves_has_five_sizes_and_one_recipe() {
        for dataset in &DATASETS {
            let jobs = dataset.jobs();
            for family in [OURS, "dsconv", "mobilenet-v2", "mobilenet-v3-small", "shrinkcnn"] {
                let own: Vec<&Job> =
                    jobs.iter().filter(|job| job.family.starts_with(family) && job.seed == 1).collect();
                assert!(own.len() >= 5, "{family}");
                for job in own {
                    let table = if job.what == What::Train { "train" } else { "final" };
                    for (key, value) in RECIPE {
                        assert!(job.command().contains(&format!("--set {table}.{key}={value}")), "{}", job.command());
                    }
                }
            }
            for (index, job) in jobs.iter().enumerate().filter(|(_, job)| job.training > 1) {
                let searched = job.name.rsplit_once("-training").map(|(searched, _)| searched);
                let before =
                    jobs[..index].iter().any(|job| job.what == What::Search && Some(job.name.as_str()) == searched);
                assert!(before && job.architecture == searched.map(architecture_file), "{}", job.name);
            }
            let finalists = |family: &str| jobs.iter().filter(|job| job.family == family && job.seed == 3).count();
            assert!(
                finalists(OURS) == TRAININGS as usize
                    && finalists(OURS) == finalists(RANDOM)
                    && finalists("mobilenet-v2-shallow") >= 2
            );
        }
    }
}
