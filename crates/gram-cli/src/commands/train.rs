//! `gram train ARCH`: trains one network and leaves a model folder.

use std::path::Path;

use gram_data::Normalisation;
use gram_ir::{Shape, grouped};
use gram_train::TrainConfig;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::args::TrainArgs;
use crate::failure::{Kind, OrFail, Result};
use crate::model_dir::{Metrics, Preprocessing, read_text, save_json};
use crate::study::config::{DataConfig, FORMAT_VERSION};
use crate::study::load::{defaults, shape_of};
use crate::study::training::{Training, checkpoint_of};
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

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let flag = interrupt::flag()?;
    let over = overrides(args)?;
    let data: DataConfig = match over.get("data") {
        Some(table) => table.clone().try_into().or_fail_with(Kind::Usage, "[data]")?,
        None => DataConfig::default(),
    };
    let dataset = data.open()?;
    let (shape, num_classes) = (shape_of(&dataset), dataset.classes.len());
    let file = resolve(over, shape)?;
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
    let training = Training {
        design: &design,
        network: &network,
        splits: &splits,
        preprocessing: &preprocessing,
        config: &file.train,
        seed: file.seed,
    };
    let checkpoint = checkpoint_of(&args.output);
    let weights = training.run(&checkpoint, flag)?;
    let metrics = training.save(&args.output, &weights)?;
    onnx::export(&args.output.join("model.onnx"), design.name(), &weights, &network, &preprocessing, &splits)?;
    save_json(&args.output.join("metrics.json"), &metrics)?;
    let _ = std::fs::remove_file(&checkpoint);
    if args.json {
        return output::json(&metrics);
    }
    print(&metrics, &args.output);
    Ok(())
}

fn overrides(args: &TrainArgs) -> Result<Table> {
    let mut over = match &args.config {
        Some(path) => {
            let text = read_text(path).map_err(|failure| crate::failure::Failure { kind: Kind::Usage, ..failure })?;
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
    file.train.validate().or_fail_with(Kind::Usage, "[train]")?;
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
