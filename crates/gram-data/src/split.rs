//! Training, validation and test splits, and class-balanced proxy subsets. Everything is drawn per class.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::seeds::{Purpose, stream};
use crate::{DataError, Dataset, ImageSet};

/// How many images [`split`] holds out.
///
/// The defaults are ours: the papers name no split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitConfig {
    /// Validation images per class; `None`: [`validation_fraction`](Self::validation_fraction) decides.
    pub validation_per_class: Option<usize>,
    /// Fraction, in `0.0..1.0`, of the training images of each class that becomes validation images, rounded.
    pub validation_fraction: f64,
    /// Fraction, in `0.0..1.0`, of the images of each class that becomes the test split of a data set without one.
    pub test_fraction: f64,
    /// Test images per class that are drawn out of the training images, even where the data set has a test split: then
    /// that becomes [`Splits::own_test`]. `None`: the data set's own test split, or `test_fraction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_per_class: Option<usize>,
    /// Seed of the validation draw. It has no part in the test draw: which images are test images is a fact about the
    /// data set and `test_fraction` or `test_per_class`, so that runs with other seeds never train on them.
    pub seed: u64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        SplitConfig {
            validation_per_class: None,
            validation_fraction: 0.1,
            test_fraction: 0.2,
            test_per_class: None,
            seed: 0,
        }
    }
}

/// The splits.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Images to train on.
    pub train: ImageSet,
    /// Images that the search may look at.
    pub validation: ImageSet,
    /// Images to be looked at once, at the end.
    pub test: ImageSet,
    /// The data set's own test images, where [`test`](Self::test) was drawn out of its training images instead.
    pub own_test: Option<ImageSet>,
}

/// Indices into the training split of a data set, ascending; together they cover it and no two share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitIndices {
    /// What is left to train on.
    pub train: Vec<usize>,
    /// Drawn for validation; empty if the data set brings its own validation images.
    pub validation: Vec<usize>,
    /// Drawn for test; empty if the data set brings its own test split and no `test_per_class` is asked for.
    pub test: Vec<usize>,
}

/// Splits a data set; draws are per class, without replacement, and seeded.
///
/// # Errors
/// [`DataError::Setting`] if a fraction is not in `0.0..1.0` or a class would be left without training images.
pub fn split(dataset: &Dataset, config: &SplitConfig) -> Result<Splits, DataError> {
    let indices = split_indices(dataset, config)?;
    let given_or_drawn = |given: Option<&ImageSet>, drawn: &[usize]| match given {
        Some(given) => given.clone(),
        None => dataset.train.select(drawn),
    };
    let (test, own_test) = match config.test_per_class {
        Some(_) => (None, dataset.test.clone()),
        None => (dataset.test.as_ref(), None),
    };
    Ok(Splits {
        train: dataset.train.select(&indices.train),
        validation: given_or_drawn(dataset.validation.as_ref(), &indices.validation),
        test: given_or_drawn(test, &indices.test),
        own_test,
    })
}

/// The indices that [`split`] uses.
///
/// # Errors
/// As [`split`].
pub fn split_indices(dataset: &Dataset, config: &SplitConfig) -> Result<SplitIndices, DataError> {
    check_fraction("validation_fraction", config.validation_fraction)?;
    check_fraction("test_fraction", config.test_fraction)?;
    let mut indices = SplitIndices { train: Vec::new(), validation: Vec::new(), test: Vec::new() };
    for (class, mut members) in members_by_class(&dataset.train).into_iter().enumerate() {
        if dataset.test.is_none() || config.test_per_class.is_some() {
            let n_test = match config.test_per_class {
                Some(n) => held_out(dataset, "test_per_class", class, n, members.len())?,
                None => share(members.len(), config.test_fraction),
            };
            indices.test.extend(draw(&mut members, n_test, 0, Purpose::Test, class));
        }
        if dataset.validation.is_none() {
            let n_validation = match config.validation_per_class {
                Some(n) => held_out(dataset, "validation_per_class", class, n, members.len())?,
                None => share(members.len(), config.validation_fraction),
            };
            indices.validation.extend(draw(&mut members, n_validation, config.seed, Purpose::Validation, class));
        }
        indices.train.extend(members);
    }
    for part in [&mut indices.train, &mut indices.validation, &mut indices.test] {
        part.sort_unstable();
    }
    Ok(indices)
}

/// A subset with `images_per_class` images of each class, or all of a class that has fewer, in their old order.
///
/// Which images of a class are kept depends only on the seed and the class, and a larger proxy contains a smaller one.
pub fn proxy_subset(set: &ImageSet, images_per_class: usize, seed: u64) -> ImageSet {
    let mut kept = Vec::new();
    for (class, mut members) in members_by_class(set).into_iter().enumerate() {
        let n = images_per_class.min(members.len());
        kept.extend(draw(&mut members, n, seed, Purpose::Proxy, class));
    }
    kept.sort_unstable();
    set.select(&kept)
}

/// Takes `n` of `members` out; the rest stays, in some order.
fn draw(members: &mut Vec<usize>, n: usize, seed: u64, purpose: Purpose, class: usize) -> Vec<usize> {
    members.shuffle(&mut stream(seed, purpose, class as u64, 0));
    members.drain(..n).collect()
}

/// Indices of the images of each class, ascending.
fn members_by_class(set: &ImageSet) -> Vec<Vec<usize>> {
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (i, &label) in set.labels().iter().enumerate() {
        let class = label as usize;
        if members.len() <= class {
            members.resize_with(class + 1, Vec::new);
        }
        members[class].push(i);
    }
    members
}

/// The fraction of `n` images, rounded; at least one if any is asked for, and at least one is left.
fn share(n: usize, fraction: f64) -> usize {
    let least = usize::from(fraction > 0.0);
    ((n as f64 * fraction).round() as usize).max(least).min(n.saturating_sub(1))
}

fn check_fraction(name: &'static str, fraction: f64) -> Result<(), DataError> {
    if (0.0..1.0).contains(&fraction) {
        return Ok(());
    }
    Err(DataError::setting(name, format!("{fraction} is not in 0.0..1.0")))
}

/// `n` images of a class, or none of a class that has none.
fn held_out(
    dataset: &Dataset,
    setting: &'static str,
    class: usize,
    n: usize,
    n_members: usize,
) -> Result<usize, DataError> {
    if n < n_members || n_members == 0 {
        return Ok(n.min(n_members));
    }
    let name = dataset.classes.get(class).map_or("?", String::as_str);
    let reason = format!(
        "class `{name}` has {n_members} training images left, {n} cannot be held out: use at most {}",
        n_members - 1
    );
    Err(DataError::setting(setting, reason))
}
