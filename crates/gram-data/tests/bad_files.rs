//! Bad input of every kind: refused with one line that names the file, the reason and what to do.

mod support;

use gram_data::{ImageShape, LoadOptions, load_image};
use support::*;

#[track_caller]
fn check(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn nothing_there() {
    let folder = Folder::new();
    let message = gram_data::open(utf8(&folder.path("no/such")), &LoadOptions::default()).unwrap_err().to_string();
    check(&message, &["no/such: no such file or folder", "optdigits"]);
    check(&folder.refusal(), &["no data set recognised: the folder is empty", "expected train-images-idx3-ubyte"]);
    folder.put("readme.txt", "hello");
    check(&folder.refusal(), &["it holds only readme.txt"]);
    let file = gram_data::open(utf8(&folder.path("readme.txt")), &LoadOptions::default()).unwrap_err().to_string();
    check(&file, &["readme.txt: a single file where the folder of a data set is needed"]);
}

#[test]
fn truncated_idx_plain_and_packed() {
    let images = idx_images(4, 2, 3, &[1; 20]);
    let claim = "truncated: the header's 4 images of 2x3 needs 40 bytes, the file holds 36";
    check(&idx_folder().with("train-images-idx3-ubyte", &images).refusal(), &["train-images-idx3-ubyte: ", claim]);
    for (packed, ending) in [(gz(&images), "gz"), (xz(&images), "xz")] {
        let folder = idx_folder().with(&format!("train-images-idx3-ubyte.{ending}"), packed);
        std::fs::remove_file(folder.path("train-images-idx3-ubyte")).unwrap();
        check(&folder.refusal(), &[&format!("train-images-idx3-ubyte.{ending}: {claim}")]);
    }
    let header = "train-images-idx3-ubyte: truncated: the header needs 16 bytes, the file holds 9";
    check(&idx_folder().with("train-images-idx3-ubyte", &images[..9]).refusal(), &[header]);
    let empty = idx_folder().with("t10k-labels-idx1-ubyte", "");
    check(&empty.refusal(), &["t10k-labels-idx1-ubyte: truncated: the header needs 4 bytes, the file holds 0"]);
    let short = idx_folder().with("train-labels-idx1-ubyte", idx_labels(4, &[0, 1]));
    check(
        &short.refusal(),
        &["train-labels-idx1-ubyte: truncated: the header's 4 labels needs 12 bytes, the file holds 10"],
    );
    let long = idx_folder().with("train-labels-idx1-ubyte", idx_labels(4, &[0, 1, 0, 1, 0]));
    check(&long.refusal(), &["train-labels-idx1-ubyte: bytes left over", "ends at byte 12"]);
}

#[test]
fn cut_and_damaged_packed_files() {
    let images = idx_images(4, 2, 3, &[1; 24]);
    for (packed, ending) in [(gz(&images), "gz"), (xz(&images), "xz")] {
        let name = format!("train-images-idx3-ubyte.{ending}");
        let folder = idx_folder().with(&name, &packed[..packed.len() - 9]);
        std::fs::remove_file(folder.path("train-images-idx3-ubyte")).unwrap();
        check(&folder.refusal(), &[&name, "damaged: the packed data", "replace or remove the file"]);
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        folder.put(&name, flipped);
        check(&folder.refusal(), &[&name]);
    }
}

#[test]
fn wrong_magic() {
    let swapped = idx_folder().with("train-images-idx3-ubyte", idx_labels(4, &[0; 24]));
    let magic = "wrong magic: expected 00000803 (IDX, u8 images in three dimensions), found bytes 00000801";
    check(&swapped.refusal(), &["train-images-idx3-ubyte: ", magic, "fetch the file again"]);
    let text = idx_folder().with("t10k-labels-idx1-ubyte", "<html>not found</html>");
    check(&text.refusal(), &["t10k-labels-idx1-ubyte: wrong magic: expected 00000801", "3c68746d"]);
}

#[test]
fn labels_out_of_range() {
    let far = idx_folder().with("train-labels-idx1-ubyte", idx_labels(4, &[0, 1, 200, 0]));
    check(&far.refusal(), &["train-labels-idx1-ubyte: record 2 has label 200, out of range for 2 classes (0 to 1)"]);
    let unseen = idx_folder().with("t10k-labels-idx1-ubyte", idx_labels(2, &[1, 2]));
    check(&unseen.refusal(), &["t10k-labels-idx1-ubyte: record 1 has label 2, out of range for 2 classes"]);
    let named = idx_folder().with("classes.txt", "shirt\n");
    check(&named.refusal(), &["train-labels-idx1-ubyte: record 1 has label 1, out of range for 1 classes (0 to 0)"]);
    let cifar = Folder::new().with("data_batch_1.bin", cifar10(&[0, 10]));
    check(&cifar.refusal(), &["data_batch_1.bin: record 1 has label 10, out of range for 10 classes (0 to 9)"]);
    let cifar = Folder::new().with("train.bin", cifar100(&[100]));
    check(&cifar.refusal(), &["train.bin: record 0 has label 100, out of range for 100 classes (0 to 99)"]);
}

#[test]
fn claims_of_a_trillion_images_reserve_nothing() {
    // 2^32 - 1 images of 256x1 are 2^40 bytes, and a claim of 2^96 bytes does not overflow either.
    for (n, h, w) in [(u32::MAX, 256, 1), (u32::MAX, u32::MAX, u32::MAX), (1, u32::MAX, u32::MAX)] {
        for pack in [|b: &[u8]| b.to_vec(), gz as fn(&[u8]) -> Vec<u8>, xz] {
            let folder = idx_folder().with("train-images-idx3-ubyte", pack(&idx_images(n, h, w, &[0; 24])));
            let message = folder.refusal();
            check(&message, &["train-images-idx3-ubyte: too large: the header's", "the limit is 8589934592"]);
            check(&message, &[&format!("{n} images of {h}x{w} needs {}", n as u128 * h as u128 * w as u128)]);
        }
    }
    // A claim below the limit that the bytes do not back: 4 GiB.
    let folder = idx_folder().with("train-images-idx3-ubyte", gz(&idx_images(1 << 22, 32, 32, &[0; 24])));
    check(
        &folder.refusal(),
        &["truncated: the header's 4194304 images of 32x32 needs 4294967312 bytes, the file holds 40"],
    );
    let folder = idx_folder().with("train-labels-idx1-ubyte", idx_labels(u32::MAX, &[0; 4]));
    check(&folder.refusal(), &["train-labels-idx1-ubyte: holds 4294967295 labels for 4 images"]);
    let folder = idx_folder().with("train-images-idx3-ubyte", idx_images(0, 2, 3, &[]));
    check(&folder.refusal(), &["train-images-idx3-ubyte: the header's 0 images of 2x3 hold no pixels"]);
}

#[test]
fn more_than_the_limit_is_refused() {
    let limit = |max_bytes| LoadOptions { max_bytes, ..Default::default() };
    check(
        &idx_folder().refusal_with(&limit(23)),
        &["train-images-idx3-ubyte: too large", "needs 24 bytes, the limit is 23"],
    );
    assert!(idx_folder().open_with(&limit(24)).is_ok());
    let cifar = Folder::new().with("data_batch_1.bin", gz(&cifar10(&[1; 9])));
    check(&cifar.refusal_with(&limit(8 * 3072)), &["data_batch_1.bin: too large: the file's images"]);
    assert!(cifar.open_with(&limit(9 * 3072)).is_ok());
    check(
        &image_folder().refusal_with(&limit(4 * 12288 - 1)),
        &["train: too large: 4 images as 3x64x64 needs 49152 bytes"],
    );
    let large = LoadOptions { image_size: Some((4096, 4096)), max_bytes: 1 << 30 };
    let message = gram_data::open("optdigits", &large).unwrap_err().to_string();
    check(&message, &["optdigits: too large: 1797 images resized to 4096x4096"]);
    for size in [(0, 8), (8, 0), (5000, 8)] {
        let options = LoadOptions { image_size: Some(size), ..Default::default() };
        check(
            &gram_data::open("optdigits", &options).unwrap_err().to_string(),
            &["image size: ", "between 1x1 and 4096x4096"],
        );
    }
}

#[test]
fn packed_bombs_are_cut_off() {
    // 64 MiB of zeros in some kilobytes: only as much is unpacked as the header or the limit allows.
    let zeros = vec![0; 64 << 20];
    let mut idx = idx_images(1, 2, 3, &[]);
    idx.extend(&zeros);
    let folder = idx_folder().with("train-images-idx3-ubyte", gz(&idx));
    check(
        &folder.refusal(),
        &["train-images-idx3-ubyte: bytes left over: the header's 1 images of 2x3 ends at byte 22"],
    );
    let folder = Folder::new().with("data_batch_1.bin.gz", gz(&zeros));
    let options = LoadOptions { max_bytes: 1 << 20, ..Default::default() };
    check(&folder.refusal_with(&options), &["data_batch_1.bin.gz: too large"]);
    let folder = Folder::new().with("digits.csv.gz", gz(&[zeros, vec![0]].concat()));
    check(&folder.refusal(), &["digits.csv.gz: too large: the table"]);
}

#[test]
fn cifar_files_that_do_not_add_up() {
    let cut = Folder::new().with("data_batch_1.bin", &cifar10(&[1, 2])[..6000]);
    check(
        &cut.refusal(),
        &["data_batch_1.bin: truncated: record 1 of 3073 bytes needs 6146 bytes, the file holds 6000"],
    );
    check(&Folder::new().with("train.bin", "").refusal(), &["train.bin: truncated: record 0 of 3074 bytes"]);
    let gap = Folder::new().with("data_batch_1.bin", cifar10(&[1])).with("data_batch_3.bin.xz", xz(&cifar10(&[1])));
    check(&gap.refusal(), &["data_batch_2.bin: missing, but needed beside data_batch_3.bin"]);
    let names = Folder::new().with("data_batch_1.bin", cifar10(&[1])).with("batches.meta.txt", "cat\ndog\n");
    check(&names.refusal(), &["batches.meta.txt: class names: 2 names for 10 classes"]);
}

#[test]
fn parts_that_are_missing_or_double() {
    let folder = idx_folder();
    std::fs::remove_file(folder.path("train-labels-idx1-ubyte")).unwrap();
    check(&folder.refusal(), &["train-labels-idx1-ubyte: missing, but needed beside train-images-idx3-ubyte"]);
    let double = idx_folder().with("emnist-train-images-idx3-ubyte", "");
    check(
        &double.refusal(),
        &["emnist-train-images-idx3-ubyte and train-images-idx3-ubyte both look like the training images"],
    );
    let shapes = idx_folder().with("t10k-images-idx3-ubyte", idx_images(2, 3, 2, &[0; 12]));
    check(&shapes.refusal(), &["differ: images of 1x2x3 and of 1x3x2"]);
    let one = idx_folder().with("train-labels-idx1-ubyte", idx_labels(4, &[0; 4]));
    one.put("t10k-labels-idx1-ubyte", idx_labels(2, &[0; 2]));
    check(&one.refusal(), &["all training labels are 0; a data set needs at least two classes"]);
    let both = image_folder().with("valid/cat/x.jpg", jpeg(8, 8, 1));
    check(&both.refusal(), &["val and valid both look like the validation split"]);
}

#[test]
fn text_named_jpg() {
    let folder = image_folder().with("train/dog/notes.jpg", "This is\na text.\n");
    check(
        &folder.refusal(),
        &["train/dog/notes.jpg: not a JPEG or PNG image: its content is text", "remove or hide it"],
    );
    folder.put("train/dog/notes.jpg", "");
    check(&folder.refusal(), &["train/dog/notes.jpg", "the file is empty"]);
    folder.put("train/dog/notes.jpg", [0u8, 1, 2, 3]);
    check(&folder.refusal(), &["train/dog/notes.jpg", "starts like neither"]);
    let message = load_image(folder.path("train/dog/notes.jpg"), ImageShape::new(3, 8, 8)).unwrap_err().to_string();
    check(&message, &["notes.jpg: not a JPEG or PNG image"]);
}

#[test]
fn the_first_bad_image_in_order_is_named() {
    for _ in 0..5 {
        let folder =
            image_folder().with("train/cat/z.jpg", "x").with("train/dog/0.jpg", "y").with("val/cat/0.jpg", "z");
        check(&folder.refusal(), &["train/cat/z.jpg"]);
    }
}

#[test]
fn images_cut_short() {
    for (name, bytes) in [("x.jpg", jpeg(60, 60, 3)), ("x.png", png(60, 60, 3))] {
        for keep in [4, 12, 40, bytes.len() / 2, bytes.len() - 20] {
            let folder = image_folder().with(&format!("train/cat/{name}"), &bytes[..keep]);
            check(&folder.refusal(), &[&format!("train/cat/{name}: ")]);
        }
        let folder = image_folder().with(&format!("train/cat/{name}"), &bytes[..bytes.len() / 2]);
        check(&folder.refusal(), &["damaged: ", "replace or remove the file"]);
    }
}

#[test]
fn images_that_claim_to_be_huge() {
    let mut bytes = jpeg(16, 16, 1);
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap(); // height and width follow 5 bytes later
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    let folder = image_folder().with("train/cat/huge.jpg", &bytes);
    check(
        &folder.refusal(),
        &["train/cat/huge.jpg: too large: an image of 65535x65535 pixels needs 12884508675 bytes"],
    );
    bytes[frame + 5..frame + 9].copy_from_slice(&[0x20, 0, 0x20, 0]);
    folder.put("train/cat/huge.jpg", &bytes);
    check(&folder.refusal(), &["huge.jpg: too large: an image of 8192x8192 pixels", "so it is damaged"]);
    // A PNG's header: signature, length 13, IHDR, width, height, …, checksum over the last 17 bytes.
    let mut bytes = png(16, 16, 1);
    bytes[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let folder = image_folder().with("train/cat/huge.png", bytes);
    check(&folder.refusal(), &["train/cat/huge.png: too large: an image of 65535x65535 pixels"]);
}

#[test]
fn class_folders_that_do_not_hold_images() {
    let empty = image_folder();
    std::fs::create_dir(empty.path("train/cow")).unwrap();
    check(&empty.refusal(), &["train/cow: empty class: the folder holds no images"]);
    empty.put("train/cow/.hidden", "x");
    check(&empty.refusal(), &["train/cow: empty class"]);
    let stray = image_folder().with("train/cat/labels.csv", "a,b");
    check(&stray.refusal(), &["train/cat/labels.csv: not a JPEG or PNG image: its name does not end with"]);
    let nested = image_folder().with("train/cat/more/x.jpg", jpeg(8, 8, 1));
    check(&nested.refusal(), &["train/cat/more: a folder where an image file is needed"]);
    let outside = image_folder().with("train/x.jpg", jpeg(8, 8, 1));
    check(
        &outside.refusal(),
        &["train/x.jpg: an image outside a class folder where a folder for every class is needed"],
    );
    let single = Folder::new().with("cat/x.jpg", jpeg(8, 8, 1));
    check(&single.refusal(), &["1 class folder(s) found; a data set needs at least two classes"]);
    let no_classes = Folder::new();
    std::fs::create_dir(no_classes.path("train")).unwrap();
    check(&no_classes.refusal(), &["train: 0 class folder(s) found"]);
}

#[test]
fn splits_with_different_classes() {
    let folder = image_folder().with("val/cow/x.jpg", jpeg(8, 8, 1)).with("train/pig/x.jpg", jpeg(8, 8, 1));
    check(&folder.refusal(), &["val differ: classes only in the first: `pig`; only in the second: `cow`"]);
    let folder = image_folder().with("val/cow/x.jpg", jpeg(8, 8, 1));
    check(&folder.refusal(), &["only in the first: nothing; only in the second: `cow`"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_broken_ones_named() {
    use std::os::unix::fs::symlink;
    let folder = image_folder();
    symlink(folder.path("train/cat/a.jpg"), folder.path("train/cat/link.jpg")).unwrap();
    assert_eq!(folder.open().unwrap().train.len(), 5);
    symlink(folder.path("nowhere"), folder.path("train/cat/broken.jpg")).unwrap();
    check(&folder.refusal(), &["train/cat/broken.jpg: a link that leads nowhere where an image file is needed"]);
    let idx = idx_folder();
    std::fs::remove_file(idx.path("train-labels-idx1-ubyte")).unwrap();
    symlink(idx.path("nowhere"), idx.path("train-labels-idx1-ubyte")).unwrap();
    check(&idx.refusal(), &["train-labels-idx1-ubyte: a link that leads nowhere where a data file is needed"]);
    let folder = Folder::new();
    std::fs::create_dir(folder.path("data_batch_1.bin")).unwrap();
    check(&folder.refusal(), &["no data set recognised"]);
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("data_batch_2.bin")).unwrap();
    folder.put("data_batch_1x.bin", "");
    std::fs::remove_dir(folder.path("data_batch_1.bin")).unwrap();
    folder.put("data_batch_1.bin", cifar10(&[1]));
    check(&folder.refusal(), &["data_batch_2.bin: a pipe, socket or device where a data file is needed"]);
}

#[test]
fn names_with_line_breaks_stay_on_one_line() {
    let folder = image_folder().with("train/cat/bad\nname.jpg", "x");
    check(&folder.refusal(), &["bad\\nname.jpg: not a JPEG or PNG image"]);
}
