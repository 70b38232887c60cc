//! Every format in every packing, and what comes out of it.

mod support;

use gram_data::{Format, ImageShape, LoadOptions, SplitConfig, describe, load_image, open, split};
use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use support::*;

#[test]
fn idx_pixels_labels_and_classes() {
    let dataset = idx_folder().open().unwrap();
    assert_eq!((dataset.format, dataset.train.shape()), (Format::Idx, ImageShape::new(1, 2, 3)));
    assert_eq!(dataset.train.image(1), [6, 7, 8, 9, 10, 11]);
    assert_eq!(dataset.train.labels(), [0, 1, 1, 0]);
    assert_eq!(dataset.classes, ["0", "1"]);
    assert_eq!(dataset.test.unwrap().labels(), [1, 0]);
}

#[test]
fn packing_and_spelling_leave_no_trace_in_the_digest() {
    let plain = idx_folder().open().unwrap();
    for (pack, ending) in [(gz as fn(&[u8]) -> Vec<u8>, ".gz"), (xz, ".xz"), (|b| b.to_vec(), ".gz")] {
        let folder = Folder::new();
        for (part, new) in [("train", "emnist-x-train"), ("t10k", "emnist-x-test")] {
            let source = idx_folder();
            let images = std::fs::read(source.path(&format!("{part}-images-idx3-ubyte"))).unwrap();
            let labels = std::fs::read(source.path(&format!("{part}-labels-idx1-ubyte"))).unwrap();
            folder.put(&format!("{new}-images.idx3-ubyte{ending}"), pack(&images));
            folder.put(&format!("{new}-labels.idx1-ubyte{ending}"), pack(&labels));
        }
        assert_eq!(folder.open().unwrap().digest, plain.digest, "{ending}");
    }
}

#[test]
fn digest_sees_pixels_labels_order_names_and_size() {
    let base = idx_folder().open().unwrap().digest;
    let mut pixels: Vec<u8> = (0..24).collect();
    pixels[23] = 99;
    let digests = [
        idx_folder().with("train-images-idx3-ubyte", idx_images(4, 2, 3, &pixels)).open().unwrap().digest,
        idx_folder().with("train-labels-idx1-ubyte", idx_labels(4, &[0, 1, 0, 1])).open().unwrap().digest,
        idx_folder().with("classes.txt", "shirt\nshoe\n").open().unwrap().digest,
        idx_folder().open_with(&LoadOptions { image_size: Some((4, 4)), ..Default::default() }).unwrap().digest,
    ];
    for (i, digest) in digests.iter().enumerate() {
        assert!(digest.len() == 64 && *digest != base && !digests[..i].contains(digest), "{digests:?}");
    }
}

#[test]
fn digest_is_the_documented_one() {
    // Names "0" and "1"; training 4 of 1x2x3; no validation; test 2 of 1x2x3: spelled out as documented.
    let mut bytes = b"gram-data 1\n".to_vec();
    let number = |bytes: &mut Vec<u8>, n: u64| bytes.extend(n.to_le_bytes());
    number(&mut bytes, 2);
    for name in ["0", "1"] {
        number(&mut bytes, 1);
        bytes.extend(name.bytes());
    }
    for (labels, pixels) in [(&[0u32, 1, 1, 0][..], (0..24).collect::<Vec<u8>>()), (&[1, 0], vec![200; 12])] {
        bytes.push(1);
        for n in [labels.len() as u64, 1, 2, 3] {
            number(&mut bytes, n);
        }
        bytes.extend(labels.iter().flat_map(|label| label.to_le_bytes()));
        bytes.extend(pixels);
        if labels.len() == 4 {
            bytes.push(0); // no validation images of its own
        }
    }
    assert_eq!(idx_folder().open().unwrap().digest, blake3::hash(&bytes).to_hex().to_string());
}

#[test]
fn idx_counting_from_one_keeps_its_labels() {
    let dataset = idx_folder()
        .with("train-labels-idx1-ubyte", idx_labels(4, &[1, 2, 2, 1]))
        .with("t10k-labels-idx1-ubyte", idx_labels(2, &[1, 2]))
        .open()
        .unwrap();
    assert_eq!(dataset.train.counts(3), [0, 2, 2]);
    assert_eq!(dataset.classes, ["0", "1", "2"]);
}

#[test]
fn cifar10_in_two_batches_and_two_packings() {
    let folder = Folder::new()
        .with("data_batch_1.bin", cifar10(&[3, 9]))
        .with("data_batch_2.bin.xz", xz(&cifar10(&[0])))
        .with("test_batch.bin.gz", gz(&cifar10(&[7])));
    let dataset = folder.open().unwrap();
    assert_eq!((dataset.format, dataset.train.shape()), (Format::Cifar10, ImageShape::new(3, 32, 32)));
    assert_eq!(dataset.train.labels(), [3, 9, 0]);
    assert_eq!((dataset.train.image(1)[0], dataset.train.image(1)[1024], dataset.train.image(1)[3071]), (1, 2, 3));
    assert_eq!(dataset.test.unwrap().labels(), [7]);
    assert_eq!((dataset.classes[0].as_str(), dataset.classes[9].as_str()), ("airplane", "truck"));
    folder.put("batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
    assert_eq!(folder.open().unwrap().classes[9], "j");
}

#[test]
fn cifar100_uses_the_fine_label() {
    let folder = Folder::new().with("train.bin", cifar100(&[99, 5])).with("test.bin", cifar100(&[0]));
    let dataset = folder.open().unwrap();
    assert_eq!((dataset.format, dataset.classes.len()), (Format::Cifar100, 100));
    assert_eq!(dataset.train.labels(), [99, 5]);
    assert_eq!(dataset.train.image(1)[0], 1);
}

#[test]
fn image_folder_in_every_layout() {
    let dataset = image_folder().with("train/cat/.hidden", "x").with("notes.txt", "x").open().unwrap();
    assert_eq!((dataset.format, dataset.train.shape()), (Format::ImageFolder, ImageShape::new(3, 64, 64)));
    assert_eq!((dataset.classes.join(" "), dataset.train.labels()), ("cat dog".into(), &[0, 0, 1, 1][..]));
    assert_eq!(dataset.test.as_ref().unwrap().labels(), [0, 1]);
    assert!(dataset.validation.is_none());
    let sizes = dataset.original_sizes.unwrap();
    assert_eq!((sizes.min, sizes.max), ([20, 20], [64, 70]));

    let direct = Folder::new().with("b/1.png", png(9, 9, 1)).with("a/1.png", png(9, 9, 2)).open().unwrap();
    assert_eq!((direct.classes.join(" "), direct.train.len(), direct.test.is_none()), ("a b".into(), 2, true));
}

#[test]
fn validation_and_test_folders_are_both_kept() {
    let folder = image_folder().with("test/cat/d.jpg", jpeg(9, 9, 1)).with("test/dog/d.jpg", jpeg(9, 9, 2));
    folder.put("test/dog/e.jpg", jpeg(9, 9, 3));
    let dataset = folder.open().unwrap();
    assert_eq!((dataset.validation.as_ref().unwrap().len(), dataset.test.as_ref().unwrap().len()), (2, 3));
    let splits = split(&dataset, &SplitConfig::default()).unwrap();
    assert_eq!((splits.train.len(), splits.validation.len(), splits.test.len()), (4, 2, 3));
    assert_eq!(describe(&dataset).n_validation, 2);
}

#[test]
fn grey_folders_have_one_channel_and_mixed_ones_three() {
    let folder = Folder::new().with("a/1.png", grey_png(8, 8, 7)).with("b/1.png", grey_png(8, 8, 200));
    let grey = folder.open_with(&LoadOptions { image_size: Some((2, 2)), ..Default::default() }).unwrap();
    assert_eq!(grey.train.shape(), ImageShape::new(1, 2, 2));
    assert_eq!((grey.train.image(0), grey.train.image(1)), (&[7u8; 4][..], &[200u8; 4][..]));
    folder.put("b/2.png", png(8, 8, 3));
    let mixed = folder.open_with(&LoadOptions { image_size: Some((2, 2)), ..Default::default() }).unwrap();
    assert_eq!((mixed.train.shape().c, mixed.train.image(1)), (3, &[200u8; 12][..]));
    let held_out = Folder::new().with("train/a/1.png", grey_png(8, 8, 7)).with("train/b/1.png", grey_png(8, 8, 9));
    held_out.put("val/a/1.png", png(8, 8, 1));
    held_out.put("val/b/1.png", grey_png(8, 8, 1));
    let dataset = held_out.open().unwrap();
    assert_eq!((dataset.train.shape().c, dataset.test.unwrap().shape().c), (3, 3));
}

#[test]
fn planes_come_in_the_order_red_green_blue() {
    let image = RgbImage::from_fn(4, 2, |x, _| image::Rgb(if x < 2 { [10, 20, 30] } else { [40, 50, 60] }));
    let folder = Folder::new().with("x.png", encoded(image, ImageFormat::Png));
    let pixels = load_image(folder.path("x.png"), ImageShape::new(3, 1, 2)).unwrap();
    assert_eq!(pixels.len(), 6);
    assert!(pixels[0] < pixels[1] && pixels[2] < pixels[3] && pixels[4] < pixels[5], "{pixels:?}");
    let same = load_image(folder.path("x.png"), ImageShape::new(3, 2, 4)).unwrap();
    assert_eq!(same, [10, 10, 40, 40, 10, 10, 40, 40, 20, 20, 50, 50, 20, 20, 50, 50, 30, 30, 60, 60, 30, 30, 60, 60]);
    // BT.709 luma: 0.2126·10 + 0.7152·20 + 0.0722·30 = 18.6.
    let grey = load_image(folder.path("x.png"), ImageShape::new(1, 2, 4)).unwrap();
    assert!((18..=19).contains(&grey[0]), "{grey:?}");
}

#[test]
fn a_wrong_ending_and_transparency_do_no_harm() {
    let clear = RgbaImage::from_pixel(3, 3, image::Rgba([9, 8, 7, 0]));
    let folder = Folder::new().with("clear.jpg", encoded(clear, ImageFormat::Png)); // a PNG named .jpg
    assert_eq!(load_image(folder.path("clear.jpg"), ImageShape::new(3, 1, 1)).unwrap(), [9, 8, 7]);
    let deep = DynamicImage::ImageLuma16(image::ImageBuffer::from_pixel(3, 3, image::Luma([0x8080u16])));
    folder.put("deep.png", encoded(deep, ImageFormat::Png));
    assert_eq!(load_image(folder.path("deep.png"), ImageShape::new(1, 1, 1)).unwrap(), [0x80]);
}

#[test]
fn pictures_of_a_turned_camera_are_put_upright() {
    // Left half black, right half white, and Exif orientation 6: turn a quarter clockwise, so the top becomes black.
    let image = image::GrayImage::from_fn(32, 32, |x, _| image::Luma([if x < 16 { 0 } else { 255 }]));
    let jpeg = encoded(image, ImageFormat::Jpeg);
    let mut exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    exif.extend(b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0");
    let turned = [&jpeg[..2], &exif, &jpeg[2..]].concat();
    let folder = Folder::new().with("turned.jpg", turned).with("straight.jpg", jpeg);
    let corners = |name: &str| {
        let p = load_image(folder.path(name), ImageShape::new(1, 32, 32)).unwrap();
        [p[0], p[31], p[31 * 32], p[31 * 32 + 31]].map(|v| v > 127)
    };
    assert_eq!(corners("straight.jpg"), [false, true, false, true]);
    assert_eq!(corners("turned.jpg"), [false, false, true, true]);
}

#[test]
fn fixed_formats_are_resized_on_request() {
    let dataset = open("optdigits", &LoadOptions { image_size: Some((16, 12)), ..Default::default() }).unwrap();
    assert_eq!((dataset.train.shape(), dataset.train.len()), (ImageShape::new(1, 16, 12), 1797));
}

#[test]
fn info_has_stable_field_names() {
    let info = serde_json::to_value(describe(&image_folder().open().unwrap())).unwrap();
    assert_eq!(info["format"], "image-folder");
    assert_eq!(info["shape"], serde_json::json!([3, 64, 64]));
    assert_eq!((&info["n_train"], &info["n_test"]), (&4.into(), &2.into()));
    assert_eq!(info["classes"][1], serde_json::json!({"name": "dog", "n_train": 2, "n_validation": 0, "n_test": 1}));
    assert_eq!(info["original_sizes"], serde_json::json!({"min": [20, 20], "max": [64, 70]}));
    assert_eq!(info["digest"].as_str().unwrap().len(), 64);
}

#[test]
fn the_digest_of_the_shipped_digits_stays() {
    // A change here is a change of every evaluation key: it needs a new first line in `Dataset::content_digest`.
    let digest = open("optdigits", &LoadOptions::default()).unwrap().digest;
    assert_eq!(digest, "a990cbf50043b1ccdcbedccb974223ed4f667fd2f5957e114541f861359cfe34");
}
