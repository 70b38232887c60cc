//! Published data sets. Without them the tests say so and pass, unless GRAM_REQUIRE_DATA=1.
//!
//! `GRAM_DATA` names the folder that holds them; the default is `shared/data` beside the checkout.

#![allow(clippy::print_stderr)] // a skipped test says so; loading times are worth seeing

use std::path::PathBuf;

use gram_data::{Dataset, Format, ImageShape, LoadOptions, Normalisation, describe, open};

fn data(name: &str) -> Option<PathBuf> {
    let base = std::env::var_os("GRAM_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let path = base.join(name);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("GRAM_REQUIRE_DATA").is_none_or(|v| v != "1"), "{} is needed", path.display());
    eprintln!("skipped: {} is not there; set GRAM_DATA", path.display());
    None
}

fn load(path: &std::path::Path, options: &LoadOptions) -> Dataset {
    let start = std::time::Instant::now();
    let dataset = open(path.to_str().unwrap(), options).unwrap();
    eprintln!("{}: {:.2} s", dataset.name, start.elapsed().as_secs_f64());
    dataset
}

#[test]
fn fashion_mnist() {
    let Some(path) = data("fashion-mnist") else { return };
    let dataset = load(&path, &LoadOptions::default());
    assert_eq!((dataset.format, dataset.train.shape()), (Format::Idx, ImageShape::new(1, 28, 28)));
    assert_eq!(dataset.train.counts(10), [6000; 10]);
    let test = dataset.test.as_ref().unwrap();
    assert_eq!((test.len(), test.counts(10)), (10_000, vec![1000; 10]));
    assert_eq!(dataset.classes.len(), 10);
    // Mean and deviation of the training images as published by many: 0.2860 and 0.3530.
    let norm = Normalisation::of(&dataset.train);
    assert!((norm.mean[0] - 0.2860).abs() < 5e-5 && (norm.std[0] - 0.3530).abs() < 5e-5, "{norm:?}");
}

#[test]
fn cifar_10() {
    let Some(path) = data("cifar-10-batches-bin") else { return };
    let dataset = load(&path, &LoadOptions::default());
    assert_eq!((dataset.format, dataset.train.shape()), (Format::Cifar10, ImageShape::new(3, 32, 32)));
    assert_eq!(dataset.train.counts(10), [5000; 10]);
    let test = dataset.test.as_ref().unwrap();
    assert_eq!(test.counts(10), [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]);
    assert_eq!(dataset.classes[..3], ["airplane", "automobile", "bird"]);
    // Figures of the data's own description, in units of 0..=255.
    let norm = Normalisation::of(&dataset.train);
    for (got, mean) in norm.mean.iter().zip([125.306918, 122.950394, 113.865383]) {
        assert!((f64::from(*got) * 255.0 - mean).abs() < 2e-5, "{norm:?}");
    }
    for (got, std) in norm.std.iter().zip([62.993219, 62.088708, 66.704900]) {
        assert!((f64::from(*got) * 255.0 - std).abs() < 2e-5, "{norm:?}");
    }
}

#[test]
fn cats_and_dogs() {
    let Some(path) = data("cats-dogs") else { return };
    let dataset = load(&path, &LoadOptions::default());
    assert_eq!((dataset.format, dataset.train.shape()), (Format::ImageFolder, ImageShape::new(3, 64, 64)));
    let info = describe(&dataset);
    assert_eq!((info.n_train, info.n_validation, info.n_test), (160, 0, 50));
    let counts: Vec<_> = info.classes.iter().map(|c| (c.name.as_str(), c.n_train, c.n_test)).collect();
    assert_eq!(counts, [("cat", 80, 25), ("dog", 80, 25)]);
    let sizes = info.original_sizes.unwrap();
    assert_eq!((sizes.min, sizes.max), ([50, 74], [500, 500])); // [h, w]
    // Decoding in parallel leaves no trace: again, and on one thread, the same bytes.
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(single.install(|| load(&path, &LoadOptions::default())).digest, dataset.digest);
    let small = load(&path, &LoadOptions { image_size: Some((32, 48)), ..Default::default() });
    assert_eq!(small.train.shape(), ImageShape::new(3, 32, 48));
    assert_ne!(small.digest, dataset.digest);
}

#[test]
fn the_digits_in_a_folder_are_the_shipped_ones() {
    let Some(path) = data("optdigits") else { return };
    let folder = load(&path, &LoadOptions::default());
    let shipped = open("optdigits", &LoadOptions::default()).unwrap();
    assert_eq!((folder.format, &folder.digest), (Format::Optdigits, &shipped.digest));
}
