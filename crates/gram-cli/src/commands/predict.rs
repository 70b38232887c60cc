//! `gram predict MODELDIR IMAGE…`.

use serde::Serialize;

use crate::args::PredictArgs;
use crate::failure::{Failure, Kind, OrFail, Result};
use crate::model_dir::ModelDir;
use crate::output;
use crate::study::training::train_failure;

#[derive(Serialize)]
struct Prediction<'a> {
    image: String,
    /// Most probable first.
    classes: Vec<Probable<'a>>,
}

#[derive(Serialize)]
struct Probable<'a> {
    class: &'a str,
    probability: f64,
}

pub(crate) fn run(args: &PredictArgs) -> Result<()> {
    let model = ModelDir::open(&args.model)?;
    let shape = model.image_shape();
    let mut pixels = Vec::new();
    let mut one = vec![0f32; shape.c * shape.h * shape.w];
    for path in &args.images {
        let image = gram_data::load_image(path, shape).or_fail(Kind::Data)?;
        model.preprocessing.normalisation.apply(&image, &mut one);
        pixels.extend_from_slice(&one);
    }
    let scores = gram_train::predict(&model.network, &model.weights, &pixels).map_err(train_failure)?;
    if scores.iter().flatten().any(|score| !score.is_finite()) {
        return Err(Failure::new(Kind::Data, "the model's outputs are not finite: its weights are damaged"));
    }
    let predictions: Vec<Prediction<'_>> = args
        .images
        .iter()
        .zip(&scores)
        .map(|(image, scores)| Prediction {
            image: image.display().to_string(),
            classes: ranked(&model, scores, args.top),
        })
        .collect();
    if args.json {
        return output::json(&predictions);
    }
    for prediction in &predictions {
        let shown: Vec<String> = prediction
            .classes
            .iter()
            .map(|found| format!("{} {:.1} %", found.class, found.probability * 100.0))
            .collect();
        output::line(format_args!("{}  {}", prediction.image, shown.join(", ")));
    }
    Ok(())
}

/// The `top` most probable classes of one image.
fn ranked<'a>(model: &'a ModelDir, scores: &[f32], top: usize) -> Vec<Probable<'a>> {
    let classes = &model.preprocessing.classes;
    let mut found: Vec<Probable<'a>> =
        classes.iter().zip(softmax(scores)).map(|(class, probability)| Probable { class, probability }).collect();
    found.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    found.truncate(top.max(1));
    found
}

fn softmax(scores: &[f32]) -> Vec<f64> {
    let largest = scores.iter().fold(f32::NEG_INFINITY, |largest, &score| largest.max(score));
    let exponentials: Vec<f64> = scores.iter().map(|&score| f64::from(score - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|x| x / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_also_for_large_scores() {
        let probabilities = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(probabilities, [0.5, 0.5, 0.0]);
    }
}
