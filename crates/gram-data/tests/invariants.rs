//! What holds for every data set and every seed: splits, proxies, normalisation, augmentation, batches.

use std::collections::BTreeSet;

use gram_data::{
    Augmentation, Batches, Dataset, Format, ImageSet, ImageShape, LoadOptions, Normalisation, SplitConfig, open,
    proxy_subset, shifted, split, split_indices,
};
use proptest::prelude::*;

/// Images of one pixel row whose first pixels are their number, so that they can be told apart.
fn numbered(labels: Vec<u32>) -> ImageSet {
    let pixels = (0..labels.len() as u32).flat_map(|i| [i as u8, (i >> 8) as u8]).collect();
    ImageSet::new(ImageShape::new(1, 1, 2), pixels, labels).unwrap()
}

fn number(image: &[u8]) -> usize {
    usize::from(image[0]) | usize::from(image[1]) << 8
}

fn dataset(train: ImageSet, test: Option<ImageSet>, n_classes: usize) -> Dataset {
    let classes = (0..n_classes).map(|c| c.to_string()).collect();
    let digest = String::new();
    Dataset {
        name: "t".into(),
        format: Format::Idx,
        classes,
        train,
        validation: None,
        test,
        digest,
        original_sizes: None,
    }
}

fn labels() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0u32..5, 1..200)
}

/// Random images `[c, h, w]`, one to ten of them.
fn images() -> impl Strategy<Value = ImageSet> {
    (1usize..=3, 1usize..=6, 1usize..=6, 1usize..=10).prop_flat_map(|(c, h, w, n)| {
        let pixels = prop::collection::vec(any::<u8>(), n * c * h * w);
        let labels = prop::collection::vec(0u32..3, n);
        (pixels, labels).prop_map(move |(p, l)| ImageSet::new(ImageShape::new(c, h, w), p, l).unwrap())
    })
}

proptest! {
    #[test]
    fn splits(labels in labels(), validation in 0.0..0.9f64, test in 0.0..0.9f64, seed: u64, has_test: bool) {
        let n = labels.len();
        let set = numbered(labels);
        let given = has_test.then(|| numbered(vec![0, 1]));
        let data = dataset(set.clone(), given, 5);
        let config = SplitConfig { validation_fraction: validation, test_fraction: test, seed, ..Default::default() };
        let parts = split_indices(&data, &config).unwrap();
        // I1 the parts are disjoint and cover the training images
        let all: BTreeSet<usize> = [&parts.train, &parts.validation, &parts.test].into_iter().flatten().copied().collect();
        prop_assert_eq!(all.len(), n);
        prop_assert_eq!(parts.train.len() + parts.validation.len() + parts.test.len(), n);
        // I2 per class, the drawn counts are the rounded fractions, at least one, and one image stays to train on
        let counts = |part: &[usize]| set.select(part).counts(5);
        let (v, t) = (counts(&parts.validation), counts(&parts.test));
        for (class, &n_class) in set.counts(5).iter().enumerate().filter(|(_, n)| **n > 0) {
            let expect = |n: usize, f: f64| ((n as f64 * f).round() as usize).max(usize::from(f > 0.0)).min(n - 1);
            let n_test = if has_test { 0 } else { expect(n_class, test) };
            prop_assert_eq!(t[class], n_test);
            prop_assert_eq!(v[class], expect(n_class - n_test, validation));
        }
        // I3 the same seed draws the same, and the test draw is the same for every seed
        prop_assert_eq!(&split_indices(&data, &config).unwrap(), &parts);
        let other = split_indices(&data, &SplitConfig { seed: seed ^ 1, ..config }).unwrap();
        prop_assert_eq!(&other.test, &parts.test);
        // I4 `split` hands out these images
        let splits = split(&data, &config).unwrap();
        let numbers: Vec<usize> = (0..splits.validation.len()).map(|i| number(splits.validation.image(i))).collect();
        prop_assert_eq!(numbers, parts.validation);
        prop_assert_eq!(splits.test.len(), if has_test { 2 } else { parts.test.len() });
    }

    #[test]
    fn proxies(labels in labels(), n in 0usize..40, seed: u64) {
        let set = numbered(labels);
        let proxy = proxy_subset(&set, n, seed);
        // I1 every class has n images, or all of its own
        let expected: Vec<usize> = set.counts(5).iter().map(|&count| count.min(n)).collect();
        prop_assert_eq!(proxy.counts(5), expected);
        // I2 images come once, with their own label, in their old order
        let numbers: Vec<usize> = (0..proxy.len()).map(|i| number(proxy.image(i))).collect();
        prop_assert!(numbers.windows(2).all(|w| w[0] < w[1]));
        prop_assert!(numbers.iter().zip(proxy.labels()).all(|(&i, &label)| set.label(i) == label));
        // I3 a larger proxy contains it
        let larger = proxy_subset(&set, n + 3, seed);
        let larger: BTreeSet<usize> = (0..larger.len()).map(|i| number(larger.image(i))).collect();
        prop_assert!(numbers.iter().all(|i| larger.contains(i)));
    }

    #[test]
    fn normalised_training_images_have_mean_0_and_deviation_1(set in images()) {
        let norm = Normalisation::of(&set);
        let shape = set.shape();
        let plane = shape.h * shape.w;
        let mut values = vec![Vec::new(); shape.c];
        let mut out = vec![0.0; shape.c * plane];
        for i in 0..set.len() {
            norm.apply(set.image(i), &mut out);
            for (channel, values) in values.iter_mut().enumerate() {
                values.extend(out[channel * plane..(channel + 1) * plane].iter().map(|&v| f64::from(v)));
            }
        }
        for (channel, values) in values.iter().enumerate() {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            prop_assert!(mean.abs() < 1e-3, "channel {channel}: mean {mean}");
            let floored = norm.std[channel] <= Normalisation::MIN_STD;
            prop_assert!(floored || (std - 1.0).abs() < 1e-3, "channel {channel}: deviation {std}");
        }
    }

    #[test]
    fn shifts_cut_out_of_the_padded_image(set in images(), pad in 0usize..4, corner: (prop::sample::Index, prop::sample::Index), flip: bool) {
        let shape = set.shape();
        let (top, left) = (corner.0.index(2 * pad + 1), corner.1.index(2 * pad + 1));
        let image = set.image(0);
        let mut out = vec![1; image.len()];
        shifted(shape, image, pad, (top, left), flip, &mut out);
        // I1 every pixel is that of an explicitly padded image
        let padded = |c: usize, y: usize, x: usize| {
            let inside = (pad..pad + shape.h).contains(&y) && (pad..pad + shape.w).contains(&x);
            if inside { image[(c * shape.h + y - pad) * shape.w + x - pad] } else { 0 }
        };
        for c in 0..shape.c {
            for y in 0..shape.h {
                for x in 0..shape.w {
                    let source = if flip { shape.w - 1 - x } else { x };
                    prop_assert_eq!(out[(c * shape.h + y) * shape.w + x], padded(c, y + top, source + left));
                }
            }
        }
        // I2 a flip twice is none
        let (mut once, mut twice) = (vec![0; image.len()], vec![0; image.len()]);
        shifted(shape, image, 0, (0, 0), true, &mut once);
        shifted(shape, &once, 0, (0, 0), true, &mut twice);
        prop_assert_eq!(twice, image);
    }

    #[test]
    fn batches_cover_the_set(labels in labels(), batch_size in 1usize..50, seed: u64, epoch in 0u64..100) {
        let n = labels.len();
        let set = numbered(labels);
        let norm = Normalisation { mean: vec![0.0], std: vec![1.0 / 255.0] }; // so that values are pixels again
        let seen = |batches: Batches| -> Vec<usize> {
            let shown = |b: gram_data::Batch| b.pixels.chunks(2).map(|p| p[0].round() as usize + 256 * p[1].round() as usize).collect::<Vec<_>>();
            batches.flat_map(shown).collect()
        };
        // I1 evaluation shows every image once, in order
        let eval = Batches::eval(&set, &norm, batch_size).unwrap();
        prop_assert_eq!(eval.len(), n.div_ceil(batch_size));
        prop_assert_eq!(seen(eval), (0..n).collect::<Vec<_>>());
        // I2 training shows every image once, but for a single one left over
        let train = || Batches::train(&set, &norm, Augmentation::default(), batch_size, seed, epoch).unwrap();
        let shown: BTreeSet<usize> = seen(train()).into_iter().collect();
        let dropped = usize::from(batch_size > 1 && n > 1 && n % batch_size == 1);
        prop_assert_eq!(shown.len(), n - dropped);
        prop_assert_eq!(seen(train()), train().order().to_vec());
        // I3 all batches but the last are full, none is empty, labels go with their images
        let sizes: Vec<usize> = train().map(|b| b.n).collect();
        prop_assert_eq!(sizes.len(), train().len());
        prop_assert!(sizes.split_last().is_none_or(|(last, full)| *last > 0 && full.iter().all(|&s| s == batch_size)));
        let order = train().order().to_vec();
        let labels: Vec<u32> = train().flat_map(|b| b.labels).collect();
        prop_assert!(order.iter().zip(&labels).all(|(&i, &label)| set.label(i) == label));
    }

    #[test]
    fn augmentation_of_an_image_depends_on_seed_epoch_and_index_only(set in images(), seed: u64, epoch: u64, a in 1usize..12, b in 1usize..12) {
        let norm = Normalisation::of(&set);
        let side = set.shape().h.min(set.shape().w);
        let augmentation = Augmentation { pad: (side - 1).min(2), flip: true, cutout: (side - 1).min(3) };
        let by_index = |batch_size: usize| {
            let batches = Batches::train(&set, &norm, augmentation, batch_size, seed, epoch).unwrap();
            let order = batches.order().to_vec();
            let image_len = set.image(0).len();
            let images: Vec<Vec<f32>> = batches.flat_map(|b| b.pixels.chunks(image_len).map(<[f32]>::to_vec).collect::<Vec<_>>()).collect();
            order.into_iter().zip(images).collect::<std::collections::BTreeMap<_, _>>()
        };
        // I1 another batch size (or a shorter epoch) leaves the images as they are
        let (first, second) = (by_index(a), by_index(b));
        for (index, image) in &first {
            prop_assert!(second.get(index).is_none_or(|other| other == image));
        }
        // I2 the same call gives the same
        prop_assert_eq!(by_index(a), first);
    }

    #[test]
    fn cutout_blackens_one_square_and_changes_nothing_else(set in images(), seed: u64, epoch: u64, most in 1usize..8) {
        let shape = set.shape();
        let (norm, side) = (Normalisation { mean: vec![0.0; shape.c], std: vec![1.0; shape.c] }, shape.h.min(shape.w));
        let whole = Augmentation { pad: (side - 1).min(1), flip: true, cutout: 0 };
        let cut = Augmentation { cutout: most.min(side - 1), ..whole };
        let batches = |augmentation| Batches::train(&set, &norm, augmentation, 4, seed, epoch).unwrap();
        prop_assert_eq!(batches(whole).order().to_vec(), batches(cut).order().to_vec());
        for (whole, cut_out) in batches(whole).zip(batches(cut)) {
            let planes = |pixels: &[f32]| pixels.chunks(shape.h * shape.w).map(<[f32]>::to_vec).collect::<Vec<_>>();
            for (whole, cut_out) in planes(&whole.pixels).into_iter().zip(planes(&cut_out.pixels)) {
                let changed: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] != cut_out[i]).collect();
                // I1 shift and flip are those of the same seed without it; what is changed is black
                prop_assert!(changed.iter().all(|&i| cut_out[i] == 0.0));
                // I2 within one square
                let extent = |at: &dyn Fn(usize) -> usize| {
                    let places = || changed.iter().map(|&i| at(i));
                    places().max().zip(places().min()).map_or(0, |(last, first)| last - first + 1)
                };
                prop_assert!(extent(&|i| i / shape.w) <= cut.cutout && extent(&|i| i % shape.w) <= cut.cutout);
                prop_assert!(changed.len() <= cut.cutout * cut.cutout);
            }
        }
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let data = open("optdigits", &LoadOptions::default()).unwrap();
    let norm = Normalisation::of(&data.train);
    let augmentation = Augmentation { pad: 1, flip: true, cutout: 0 };
    let first =
        |seed, epoch| Batches::train(&data.train, &norm, augmentation, 32, seed, epoch).unwrap().next().unwrap();
    assert_eq!(first(1, 0), first(1, 0));
    assert_ne!(first(1, 0), first(1, 1));
    assert_ne!(first(1, 0), first(2, 0));
    let validation = |seed| split_indices(&data, &SplitConfig { seed, ..Default::default() }).unwrap().validation;
    assert_ne!(validation(1), validation(2));
}

#[test]
fn the_digits_split_as_expected() {
    let data = open("optdigits", &LoadOptions::default()).unwrap();
    let splits = split(&data, &SplitConfig { validation_per_class: Some(20), ..Default::default() }).unwrap();
    // A fifth of 178 182 177 183 181 182 181 179 174 180, rounded:
    assert_eq!(splits.test.counts(10), [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]);
    assert_eq!(splits.validation.counts(10), [20; 10]);
    assert_eq!(splits.train.len(), 1797 - 359 - 200);
}

/// Test images out of the training images of a data set that has a test split: exact per class, apart from everything else, and the same
/// for every seed, which draws validation images only. The data set's own test images are left as they are.
#[test]
fn test_images_can_be_drawn_although_there_is_a_test_split() {
    let digits = open("optdigits", &LoadOptions::default()).unwrap();
    let own = digits.train.select(&[3, 1, 4]);
    let data = Dataset { test: Some(own.clone()), ..digits };
    let config =
        |seed| SplitConfig { test_per_class: Some(20), validation_per_class: Some(10), seed, ..Default::default() };
    let splits = split(&data, &config(1)).unwrap();
    assert_eq!((splits.test.counts(10), splits.validation.counts(10)), (vec![20; 10], vec![10; 10]));
    assert_eq!(splits.train.len(), data.train.len() - 300);
    assert_eq!(splits.own_test.unwrap().labels(), own.labels());
    let (one, two) = (split_indices(&data, &config(1)).unwrap(), split_indices(&data, &config(2)).unwrap());
    assert!(one.test == two.test && one.validation != two.validation);
    let mut all: Vec<usize> = [&one.train[..], &one.validation, &one.test].concat();
    all.sort_unstable();
    assert_eq!(all, (0..data.train.len()).collect::<Vec<_>>());
    let none = split(&data, &SplitConfig::default()).unwrap();
    assert!(none.own_test.is_none() && none.test.len() == 3);
    let many = SplitConfig { test_per_class: Some(1000), ..Default::default() };
    assert!(split(&data, &many).unwrap_err().to_string().starts_with("test_per_class: class `0` has 178"));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let data = open("optdigits", &LoadOptions::default()).unwrap();
    let refusal = |config: SplitConfig| split(&data, &config).unwrap_err().to_string();
    let base = SplitConfig::default();
    for bad in [1.0, -0.1, f64::NAN, f64::INFINITY] {
        assert!(refusal(SplitConfig { validation_fraction: bad, ..base }).starts_with("validation_fraction: "));
        assert!(refusal(SplitConfig { test_fraction: bad, ..base }).starts_with("test_fraction: "));
    }
    let all = SplitConfig { validation_per_class: Some(142), ..base };
    assert_eq!(
        refusal(all),
        "validation_per_class: class `0` has 142 training images left, 142 cannot be held out: use at most 141"
    );
    let norm = Normalisation::of(&data.train);
    assert!(Batches::eval(&data.train, &norm, 0).is_err());
    let wide = Augmentation { pad: 8, flip: false, cutout: 0 };
    assert!(Batches::train(&data.train, &norm, wide, 8, 0, 0).is_err());
    let three = Normalisation { mean: vec![0.0; 3], std: vec![1.0; 3] };
    assert!(Batches::eval(&data.train, &three, 8).is_err());
}

#[test]
fn one_image_alone_is_a_batch() {
    let set = numbered(vec![3]);
    let norm = Normalisation { mean: vec![0.0], std: vec![1.0] };
    assert_eq!(Batches::train(&set, &norm, Augmentation::default(), 8, 0, 0).unwrap().count(), 1);
    let none = numbered(vec![]);
    assert_eq!(Batches::train(&none, &norm, Augmentation::default(), 8, 0, 0).unwrap().count(), 0);
}

#[test]
fn draws_stay_the_same_from_version_to_version() {
    // A new release of the random crates that draws otherwise would silently move images between splits.
    let data = open("optdigits", &LoadOptions::default()).unwrap();
    let parts = split_indices(&data, &SplitConfig { seed: 42, ..Default::default() }).unwrap();
    assert_eq!((&parts.test[..5], &parts.validation[..5]), (&[0, 2, 8, 11, 18][..], &[4, 17, 25, 33, 35][..]));
    let norm = Normalisation::of(&data.train);
    let order = Batches::train(&data.train, &norm, Augmentation::default(), 32, 42, 3).unwrap().order().to_vec();
    assert_eq!(order[..5], [1373, 973, 186, 131, 374]);
}
