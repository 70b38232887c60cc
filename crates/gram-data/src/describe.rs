//! What there is to say about a data set, for people and scripts.

use serde::Serialize;

use crate::{Dataset, Format, ImageShape, SizeRange};

/// Facts about a data set; field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Info {
    /// `optdigits`, or the name of the folder.
    pub name: String,
    /// How it is stored.
    pub format: Format,
    /// Training images (validation images are drawn from them).
    pub n_train: usize,
    /// Validation images that come with the data set.
    pub n_validation: usize,
    /// Test images that come with the data set.
    pub n_test: usize,
    /// Shape of the loaded images, `[c, h, w]`.
    pub shape: ImageShape,
    /// The classes in order of their labels.
    pub classes: Vec<ClassInfo>,
    /// Smallest and largest height and width before resizing, for image folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_sizes: Option<SizeRange>,
    /// blake3 of the loaded content, see [`Dataset::content_digest`].
    pub digest: String,
}

/// One class and its number of images in each split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassInfo {
    /// Name of the class.
    pub name: String,
    /// Training images.
    pub n_train: usize,
    /// Validation images that come with the data set.
    pub n_validation: usize,
    /// Test images that come with the data set.
    pub n_test: usize,
}

/// Collects the facts about a data set.
pub fn describe(dataset: &Dataset) -> Info {
    let n_classes = dataset.classes.len();
    let splits = [Some(&dataset.train), dataset.validation.as_ref(), dataset.test.as_ref()];
    let counts = splits.map(|set| set.map_or_else(|| vec![0; n_classes], |set| set.counts(n_classes)));
    let totals = splits.map(|set| set.map_or(0, |set| set.len()));
    let class = |(label, name): (usize, &String)| ClassInfo {
        name: name.clone(),
        n_train: counts[0][label],
        n_validation: counts[1][label],
        n_test: counts[2][label],
    };
    Info {
        name: dataset.name.clone(),
        format: dataset.format,
        n_train: totals[0],
        n_validation: totals[1],
        n_test: totals[2],
        shape: dataset.train.shape(),
        classes: dataset.classes.iter().enumerate().map(class).collect(),
        original_sizes: dataset.original_sizes,
        digest: dataset.digest.clone(),
    }
}
