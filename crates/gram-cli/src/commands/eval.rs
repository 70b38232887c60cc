//! `gram eval MODELDIR`.

use std::collections::BTreeMap;

use gram_data::{ImageSet, Splits};
use gram_ir::{Tensor, Weights};
use serde::Serialize;

use crate::args::{EvalArgs, SplitArg};
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::{ModelDir, save};
use crate::output;
use crate::study::training::{evaluate, train_failure};

#[derive(Serialize)]
struct Report {
    split: &'static str,
    top1: f64,
    top5: f64,
    loss: f64,
    n: usize,
}

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let model = ModelDir::open(&args.model)?;
    let splits = model.splits_of(&args.data)?;
    let (split, set) = match args.split {
        SplitArg::Train => ("train", &splits.train),
        SplitArg::Validation => ("validation", &splits.validation),
        SplitArg::Test => ("test", &splits.test),
        SplitArg::OwnTest => ("own-test", own_test(&splits)?),
    };
    let normalisation = &model.preprocessing.normalisation;
    let found = evaluate(&model.network, &model.weights, set, normalisation)?;
    if let Some(path) = &args.outputs {
        save(path, &outputs(&model, set)?)?;
    }
    let report = Report { split, top1: found.top1, top5: found.top5, loss: found.loss, n: found.n };
    if args.json {
        return output::json(&report);
    }
    let percent = |top1: f64| format!("{:.2} %", top1 * 100.0);
    let (top1, top5) = (percent(found.top1), percent(found.top5));
    output::line(format_args!("{split}: top-1 {top1}, top-5 {top5}, loss {:.4} on {} images", found.loss, found.n));
    Ok(())
}

fn own_test(splits: &Splits) -> Result<&ImageSet> {
    splits.own_test.as_ref().ok_or_else(|| {
        let message = "there are no test images apart from the test split: the model was not trained with data.test_per_class, or the \
                       dataset has no test split; use --split test";
        Failure::new(Kind::Usage, message)
    })
}

/// The normalised images (`input`, `[n, c, h, w]`) and what the model makes of them (`logits`, `[n, classes]`), as safetensors.
fn outputs(model: &ModelDir, set: &ImageSet) -> Result<Vec<u8>> {
    let images = crate::model_dir::reference_images(set, &model.preprocessing.normalisation, set.len())?;
    let scores = gram_train::predict(&model.network, &model.weights, &images.to_f32()).map_err(train_failure)?;
    let shape = vec![scores.len(), model.preprocessing.classes.len()];
    let scores = scores.into_iter().flatten().map(f64::from).collect();
    let mut tensors = Weights::new();
    tensors.insert("input", images);
    tensors.insert("logits", Tensor::new(shape, scores).or_fail(Kind::Internal)?);
    gram_export::write_safetensors(&tensors, &BTreeMap::new()).or_fail(Kind::Internal)
}
