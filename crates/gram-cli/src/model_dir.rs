//! A folder with a trained model: `architecture.json`, `model.safetensors`, `preprocessing.json`, `metrics.json`, `model.onnx`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gram_data::{ImageSet, ImageShape, Normalisation, Splits};
use gram_export::files::write_atomic;
use gram_ir::{Design, Network, TensorRole, Weights};
use serde::{Deserialize, Serialize};

use crate::checked::{read_checked, save_checked};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::output;
use crate::study::config::{DataConfig, FORMAT_VERSION};

/// Larger files are refused before they are read.
const MAX_JSON_BYTES: u64 = 64 << 20;
const MAX_WEIGHT_BYTES: u64 = 4 << 30;

/// What must be done to an image before the model sees it, and what its outputs mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preprocessing {
    pub(crate) format_version: u32,
    /// Shape of the model's input, `[c, h, w]`.
    pub(crate) input: [usize; 3],
    pub(crate) classes: Vec<String>,
    /// Of pixels divided by 255, per channel, from the training images.
    pub(crate) normalisation: Normalisation,
    /// The dataset of the training, and how it was split.
    pub(crate) data: DataConfig,
    pub(crate) data_digest: String,
}

/// What a trained model reached. Fractions, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) format_version: u32,
    pub(crate) macs: u64,
    pub(crate) params: u64,
    pub(crate) deployed_params: u64,
    pub(crate) epochs: usize,
    pub(crate) seed: u64,
    pub(crate) validation_top1: f64,
    pub(crate) validation_top5: f64,
    pub(crate) validation_loss: f64,
    pub(crate) n_validation: usize,
    /// Only a study's winner has them: the test split is read once, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) test_top1: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) n_test: Option<usize>,
    /// blake3 of what decided the outcome: architecture, data and splits, training settings, seed.
    pub(crate) identity: String,
    /// blake3 of each of the folder's other files.
    pub(crate) digests: BTreeMap<String, String>,
}

/// The files of a model folder, besides `metrics.json`, which is written last and seals them.
const FILES: [&str; 4] = ["architecture.json", "model.onnx", "model.safetensors", "preprocessing.json"];
const WEIGHTS: &str = "model.safetensors";

impl Metrics {
    /// blake3 of `model.safetensors`.
    pub(crate) fn weights_digest(&self) -> &str {
        self.digests.get(WEIGHTS).map_or("", String::as_str)
    }
}

/// Writes `metrics.json`: the folder is complete.
pub(crate) fn seal(dir: &Path, metrics: &mut Metrics) -> Result<()> {
    metrics.digests = digests(dir)?;
    save_checked(&dir.join("metrics.json"), metrics)
}

/// The metrics of a complete and undamaged folder that holds the model of this identity.
///
/// # Errors
/// Exit code 2 if it holds another model; 4 if `metrics.json` is damaged.
pub(crate) fn sealed(dir: &Path, identity: &str) -> Result<Option<Metrics>> {
    let file = dir.join("metrics.json");
    if !file.exists() {
        return Ok(None);
    }
    let metrics: Metrics = read_checked(&file)?;
    if metrics.identity != identity {
        let dir = dir.display();
        return Err(Failure::new(Kind::Usage, format!("{dir} holds another model; use another folder, or remove it")));
    }
    let whole = FILES.iter().all(|name| dir.join(name).is_file()) && digests(dir)? == metrics.digests;
    if !whole {
        output::note(format_args!("{}: files are missing or damaged, the model is made anew", dir.display()));
    }
    Ok(whole.then_some(metrics))
}

fn digests(dir: &Path) -> Result<BTreeMap<String, String>> {
    let digest = |name: &&str| {
        let bytes = read_bytes(&dir.join(name), MAX_WEIGHT_BYTES)?;
        Ok(((*name).to_owned(), blake3::hash(&bytes).to_hex().to_string()))
    };
    FILES.iter().map(digest).collect()
}

/// The folder itself, or `best` in it where it is a study.
pub(crate) fn model_folder(dir: &Path) -> PathBuf {
    let best = best(dir);
    let is_study = !dir.join("architecture.json").exists() && best.join("architecture.json").exists();
    if is_study { best } else { dir.to_path_buf() }
}

/// A model as it lies in a folder.
pub(crate) struct ModelDir {
    pub(crate) design: Design,
    pub(crate) network: Network,
    pub(crate) weights: Weights,
    pub(crate) preprocessing: Preprocessing,
}

impl ModelDir {
    /// Reads a model and checks that its parts belong together.
    ///
    /// # Errors
    /// Exit code 4, naming the file.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let dir = &model_folder(dir);
        if !dir.is_dir() {
            return Err(Failure::new(
                Kind::Data,
                format!(
                    "{}: no such folder; a model folder is what `gram train -o` and a study's `best` are",
                    dir.display()
                ),
            ));
        }
        let file = dir.join("architecture.json");
        let design = Design::from_json(&read_text(&file)?).or_fail_with(Kind::Data, file.display())?;
        let network = design.lower().or_fail_with(Kind::Data, file.display())?;
        let file = dir.join("preprocessing.json");
        let preprocessing: Preprocessing =
            serde_json::from_str(&read_text(&file)?).or_fail_with(Kind::Data, file.display())?;
        preprocessing.check(&network).or_fail_with(Kind::Data, file.display())?;
        let file = dir.join(WEIGHTS);
        let bytes = read_bytes(&file, MAX_WEIGHT_BYTES)?;
        check_digest(dir, &bytes)?;
        let weights = gram_export::read_safetensors(&bytes).or_fail_with(Kind::Data, file.display())?;
        weights.check(&network).or_fail_with(Kind::Data, file.display())?;
        check_variances(&network, &weights).or_fail_with(Kind::Data, file.display())?;
        Ok(Self { design, network, weights, preprocessing })
    }

    /// Shape of the images that the model takes.
    pub(crate) fn image_shape(&self) -> ImageShape {
        let [c, h, w] = self.preprocessing.input;
        ImageShape::new(c, h, w)
    }

    /// Loads a dataset resized to the model's input and splits it as in the training.
    ///
    /// # Errors
    /// Exit code 4 if it cannot be read or has other channels or classes than the model.
    pub(crate) fn splits_of(&self, data: &str) -> Result<Splits> {
        let [c, h, w] = self.preprocessing.input;
        let mut config = DataConfig { path: data.into(), ..self.preprocessing.data.clone() };
        let mut dataset = config.open()?;
        if (dataset.train.shape().h, dataset.train.shape().w) != (h, w) {
            config.image_size = Some((h, w));
            dataset = config.open()?;
        }
        if dataset.train.shape().c != c {
            let got = dataset.train.shape().c;
            return Err(Failure::new(Kind::Data, format!("{data}: images have {got} channels, the model takes {c}")));
        }
        if dataset.classes != self.preprocessing.classes {
            let (got, expected) = (dataset.classes.join(", "), self.preprocessing.classes.join(", "));
            return Err(Failure::new(Kind::Data, format!("{data}: its classes are {got}; the model's are {expected}")));
        }
        config.split(&dataset)
    }
}

/// Weights that `metrics.json` was not written for are another model's; a folder without metrics has nothing to be held against.
fn check_digest(dir: &Path, weights: &[u8]) -> Result<()> {
    let file = dir.join("metrics.json");
    if !file.exists() {
        return Ok(());
    }
    let metrics: Metrics = read_checked(&file)?;
    if metrics.weights_digest() == blake3::hash(weights).to_hex().as_str() {
        return Ok(());
    }
    let weights = dir.join(WEIGHTS);
    Err(Failure::new(
        Kind::Data,
        format!("{}: damaged, or not the weights that {} was written for", weights.display(), file.display()),
    ))
}

fn check_variances(network: &Network, weights: &Weights) -> anyhow::Result<()> {
    for spec in network.tensors().iter().filter(|spec| spec.role == TensorRole::RunningVar) {
        let negative = weights.get(&spec.name)?.data().iter().any(|&variance| variance < 0.0);
        anyhow::ensure!(!negative, "tensor `{}` has negative variances", spec.name);
    }
    Ok(())
}

impl Preprocessing {
    fn check(&self, network: &Network) -> anyhow::Result<()> {
        let input: [usize; 3] = network.input_shape().into();
        anyhow::ensure!(
            self.format_version == FORMAT_VERSION,
            "format_version {} is not {FORMAT_VERSION}, the one that this gram reads",
            self.format_version
        );
        anyhow::ensure!(self.input == input, "input {:?} is not the architecture's {input:?}", self.input);
        let n_classes = network.output_shape().c;
        anyhow::ensure!(self.classes.len() == n_classes, "{} class names for {n_classes} outputs", self.classes.len());
        self.normalisation.check(self.input[0])?;
        Ok(())
    }
}

/// Writes architecture, weights and preprocessing, each file whole or not at all.
pub(crate) fn write(dir: &Path, design: &Design, weights: &Weights, preprocessing: &Preprocessing) -> Result<()> {
    fs::create_dir_all(dir).or_fail_with(Kind::Data, format!("creating {}", dir.display()))?;
    let tensors = gram_export::write_safetensors(weights, &BTreeMap::new())
        .or_fail_with(Kind::Internal, "writing safetensors")?;
    save(&dir.join("architecture.json"), design.to_json().as_bytes())?;
    save(&dir.join(WEIGHTS), &tensors)?;
    save_json(&dir.join("preprocessing.json"), preprocessing)
}

/// Writes a JSON file, whole or not at all.
pub(crate) fn save_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).or_fail_with(Kind::Internal, "writing JSON")?;
    save(path, (text + "\n").as_bytes())
}

/// Writes a file, whole or not at all.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, bytes).or_fail_with(Kind::Data, format!("writing {}", path.display()))
}

/// Reads a text file of reasonable size.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path, MAX_JSON_BYTES)?).or_fail_with(Kind::Data, path.display())
}

fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>> {
    let found = fs::metadata(path).or_fail_with(Kind::Data, path.display())?;
    if !found.is_file() {
        return Err(Failure::new(Kind::Data, format!("{}: not a regular file", path.display())));
    }
    let size = found.len();
    if size > most {
        return Err(Failure::new(
            Kind::Data,
            format!("{}: {size} bytes are more than the {most} that are read", path.display()),
        ));
    }
    fs::read(path).or_fail_with(Kind::Data, path.display())
}

/// The first `n` images of a set as one normalised batch `[n, c, h, w]` in f64, for the reference executor.
pub(crate) fn reference_images(set: &ImageSet, normalisation: &Normalisation, n: usize) -> Result<gram_ir::Tensor> {
    let shape = set.shape();
    let n = n.min(set.len());
    let mut one = vec![0f32; shape.c * shape.h * shape.w];
    let mut data = Vec::with_capacity(n * one.len());
    for i in 0..n {
        normalisation.apply(set.image(i), &mut one);
        data.extend(one.iter().map(|&x| f64::from(x)));
    }
    gram_ir::Tensor::new(vec![n, shape.c, shape.h, shape.w], data).or_fail(Kind::Internal)
}

/// Where a study keeps its winner.
pub(crate) fn best(study: &Path) -> PathBuf {
    study.join("best")
}
