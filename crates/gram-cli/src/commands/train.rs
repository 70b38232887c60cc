//! `gram train ARCH`: trains one network and leaves a model folder.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use gram_data::Normalisation;
use gram_ir::{Shape, grouped};
use gram_train::{Distillation, TrainConfig};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::args::TrainArgs;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{Metrics, ModelDir, Preprocessing, read_text, seal, sealed};
use crate::study::config::{DataConfig, FORMAT_VERSION};
use crate::study::load::{check_augmentation, check_version, defaults, shape_of};
use crate::study::training::{Training, checkpoint_of, train_failure};
use crate::study::{merge, parse_set};
use crate::{interrupt, onnx, output, source};

/// A training file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainFile {
    format_version: u32,
    seed: u64,
    data: DataConfig,
    train: TrainConfig,
}

/// A training file as people write it: whatever it does not say is left to the defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read only to check a file's fields and name the line of what is wrong")]
struct PartialTrainFile {
    format_version: Option<u32>,
    seed: Option<u64>,
    data: Option<DataConfig>,
    train: Option<TrainConfig>,
}

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let flag = interrupt::flag()?;
    let device = args.device.open().map_err(train_failure)?;
    let over = overrides(args)?;
    let data: DataConfig = match over.get("data") {
        Some(table) => table.clone().try_into().or_fail_with(Kind::Usage, "[data]")?,
        None => DataConfig::default(),
    };
    let dataset = data.open()?;
    let (shape, num_classes) = (shape_of(&dataset), dataset.classes.len());
    let mut file = resolve(over, shape)?;
    let teacher = teacher(args, &mut file.train)?;
    let design = source::load(&args.architecture, Some(shape), Some(num_classes))?;
    let network = design.lower().or_fail_with(Kind::Usage, &args.architecture)?;
    let splits = file.data.split(&dataset)?;
    let preprocessing = Preprocessing {
        format_version: FORMAT_VERSION,
        input: shape.into(),
        classes: dataset.classes.clone(),
        normalisation: Normalisation::of(&splits.train),
        data: file.data.clone(),
        data_digest: dataset.digest.clone(),
    };
    teacher.as_ref().map_or(Ok(()), |(dir, model)| suits(dir, model, &preprocessing))?;
    let training = Training {
        design: &design,
        network: &network,
        splits: &splits,
        preprocessing: &preprocessing,
        config: &file.train,
        seed: file.seed,
        device: &device,
        n_threads: None,
        teacher: teacher.as_ref().map(|(_, model)| model),
    };
    let metrics = train(&training, &args.output, flag)?;
    if args.json {
        return output::json(&metrics);
    }
    print(&metrics, &args.output);
    Ok(())
}

/// The model of `--teacher`; how to learn from it is decided where the configuration does not say.
///
/// # Errors
/// Exit code 4 for a folder without a model, 2 for a word on distillation without a teacher.
fn teacher<'a>(args: &'a TrainArgs, config: &mut TrainConfig) -> Result<Option<(&'a Path, ModelDir)>> {
    let Some(dir) = args.teacher.as_deref() else {
        return match config.distillation {
            Some(_) => Err(Failure::new(Kind::Usage, "[train.distillation] needs a teacher: give --teacher MODELDIR")),
            None => Ok(None),
        };
    };
    config.distillation.get_or_insert_with(Distillation::default);
    Ok(Some((dir, ModelDir::open(dir)?)))
}

/// Refuses a teacher of another task, and says where validation might flatter.
fn suits(dir: &Path, model: &ModelDir, own: &Preprocessing) -> Result<()> {
    let (dir, teacher) = (dir.display(), &model.preprocessing);
    let refuse = |message: String| Err(Failure::new(Kind::Usage, message));
    if teacher.input != own.input {
        let [got, expected] = [teacher.input, own.input].map(Shape::from);
        return refuse(format!("--teacher {dir}: the teacher takes images of {got}, these are {expected}"));
    }
    if teacher.classes != own.classes {
        let (got, expected) = (teacher.classes.join(", "), own.classes.join(", "));
        return refuse(format!("--teacher {dir}: the teacher's classes are {got}; the data's are {expected}"));
    }
    let images = |p: &Preprocessing| (p.data_digest.clone(), p.data.without_path());
    if images(teacher) != images(own) {
        output::note(format_args!(
            "{dir} was trained on other images or another split: it may have seen this training's validation images"
        ));
    }
    Ok(())
}

/// Trains, writes the folder, and seals it; a finished training is not done again.
fn train(training: &Training<'_>, dir: &Path, flag: &AtomicBool) -> Result<Metrics> {
    if dir.join("journal.jsonl").exists() {
        return Err(Failure::new(Kind::Usage, format!("{} holds a study; use another folder", dir.display())));
    }
    std::fs::create_dir_all(dir).or_fail_with(Kind::Data, dir.display())?;
    let lock = dir.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
        .or_fail_with(Kind::Data, lock.display())?;
    if lock.try_lock().is_err() {
        return Err(Failure::new(Kind::Usage, format!("{}: another process trains in this folder", dir.display())));
    }
    if let Some(metrics) = sealed(dir, &training.identity())? {
        return Ok(metrics);
    }
    let checkpoint = checkpoint_of(dir);
    let weights = training.run(&checkpoint, flag)?;
    let mut metrics = training.save(dir, &weights)?;
    let Training { design, network, preprocessing, splits, .. } = training;
    onnx::export(&dir.join("model.onnx"), design.name(), &weights, network, preprocessing, splits)?;
    seal(dir, &mut metrics)?;
    // All that it was for is done; a leftover would only cost space.
    let _ = std::fs::remove_file(&checkpoint);
    Ok(metrics)
}

fn overrides(args: &TrainArgs) -> Result<Table> {
    let mut over = match &args.config {
        Some(path) => {
            let text = read_text(path).map_err(|failure| Failure { kind: Kind::Usage, ..failure })?;
            // On its own first, because only then an error names its line.
            toml::from_str::<PartialTrainFile>(&text).or_fail_with(Kind::Usage, path.display())?;
            toml::from_str(&text).or_fail_with(Kind::Usage, path.display())?
        }
        None => Table::new(),
    };
    merge(
        &mut over,
        Table::from_iter([("data".into(), Table::from_iter([("path".into(), args.data.clone().into())]).into())]),
    );
    if let Some(seed) = args.seed {
        merge(&mut over, Table::from_iter([("seed".into(), i64::try_from(seed).unwrap_or(i64::MAX).into())]));
    }
    for text in &args.set {
        merge(&mut over, parse_set(text)?);
    }
    Ok(over)
}

fn resolve(over: Table, shape: Shape) -> Result<TrainFile> {
    let base = TrainFile {
        format_version: FORMAT_VERSION,
        seed: 0,
        data: DataConfig::default(),
        train: defaults(shape).final_training,
    };
    let mut table = Table::try_from(base).or_fail(Kind::Internal)?;
    merge(&mut table, over);
    let file: TrainFile = table.try_into().or_fail_with(Kind::Usage, "the training's configuration")?;
    check_version(file.format_version)?;
    file.train.validate().or_fail_with(Kind::Usage, "[train]")?;
    check_augmentation("[train]", &file.train, shape)?;
    Ok(file)
}

fn print(metrics: &Metrics, dir: &Path) {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    output::table(&[
        row("MACs", grouped(metrics.macs)),
        row("params", grouped(metrics.params)),
        row("validation top-1", format!("{:.2} %", metrics.validation_top1 * 100.0)),
    ]);
    output::line(dir.display());
}
