//! Mutated and truncated files: the readers answer `Ok` or `Err`, never panic, and never reserve much.
//!
//! The allocator of this binary gives out 384 MiB in all: any larger allocation fails and ends the test run. What the
//! decoders may ask for (256 MiB for an image, 128 MiB for an xz dictionary) fits; what a mutated header claims does not.

mod support;

use std::alloc::System;
use std::sync::LazyLock;

use cap::Cap;
use gram_data::{ImageShape, load_image};
use proptest::prelude::*;
use proptest::sample::Index;
use support::*;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 384 << 20);

/// Damage to a file: bytes overwritten, then cut, then junk at the end.
#[derive(Clone, Debug)]
struct Damage {
    overwrite: Vec<(Index, u8)>,
    keep: Option<Index>,
    junk: Vec<u8>,
}

impl Damage {
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, value) in &self.overwrite {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(keep) = self.keep {
            bytes.truncate(keep.index(bytes.len() + 1));
        }
        bytes.extend(&self.junk);
        bytes
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let overwrite = prop::collection::vec((any::<Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 0..6);
    let junk = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..20)];
    (overwrite, prop::option::weighted(0.3, any::<Index>()), junk).prop_map(|(overwrite, keep, junk)| Damage {
        overwrite,
        keep,
        junk,
    })
}

/// A message of one line that names a file of the folder, or a data set whose parts agree.
fn check_answer(folder: &Folder) -> Result<(), TestCaseError> {
    match folder.open() {
        Ok(dataset) => {
            let n_classes = dataset.classes.len();
            prop_assert_eq!(dataset.train.counts(n_classes).iter().sum::<usize>(), dataset.train.len());
        }
        Err(error) => {
            let message = error.to_string();
            prop_assert_eq!(message.lines().count(), 1, "{}", message);
            prop_assert!(message.contains(utf8(folder.0.path())), "{}", message);
        }
    }
    Ok(())
}

fn check_image(folder: &Folder, name: &str) -> Result<(), TestCaseError> {
    match load_image(folder.path(name), ImageShape::new(3, 9, 7)) {
        Ok(pixels) => prop_assert_eq!(pixels.len(), 189),
        Err(error) => prop_assert!(error.to_string().lines().count() == 1 && error.to_string().contains(name)),
    }
    Ok(())
}

static IDX_GZ: LazyLock<Vec<u8>> = LazyLock::new(|| gz(&idx_images(4, 2, 3, &(0..24).collect::<Vec<u8>>())));
static IDX_XZ: LazyLock<Vec<u8>> = LazyLock::new(|| xz(&idx_images(4, 2, 3, &(0..24).collect::<Vec<u8>>())));
static CIFAR: LazyLock<Vec<u8>> = LazyLock::new(|| cifar10(&[1, 2]));
static PNG: LazyLock<Vec<u8>> = LazyLock::new(|| png(24, 16, 5));
static JPEG: LazyLock<Vec<u8>> = LazyLock::new(|| jpeg(24, 16, 5));

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn idx(images in damage(), labels in damage()) {
        let folder = idx_folder();
        folder.put("train-images-idx3-ubyte", images.apply(&idx_images(4, 2, 3, &(0..24).collect::<Vec<u8>>())));
        folder.put("train-labels-idx1-ubyte", labels.apply(&idx_labels(4, &[0, 1, 1, 0])));
        check_answer(&folder)?;
    }

    #[test]
    fn packed_idx(damage in damage(), with_xz in any::<bool>()) {
        let folder = idx_folder();
        folder.put("train-images-idx3-ubyte", damage.apply(if with_xz { &IDX_XZ } else { &IDX_GZ }));
        check_answer(&folder)?;
    }

    #[test]
    fn cifar(damage in damage()) {
        check_answer(&Folder::new().with("data_batch_1.bin", damage.apply(&CIFAR)))?;
    }

    #[test]
    fn digits(damage in damage()) {
        let row = "1,".repeat(64) + "3\n";
        check_answer(&Folder::new().with("digits.csv", damage.apply(row.repeat(3).as_bytes())))?;
    }

    #[test]
    fn pictures(damage in damage(), as_png in any::<bool>()) {
        let folder = Folder::new().with("x.jpg", damage.apply(if as_png { &PNG } else { &JPEG }));
        check_image(&folder, "x.jpg")?;
    }

    #[test]
    fn anything(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in 0usize..5) {
        let magics: [&[u8]; 5] = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x1f\x8b\x08", b"\xfd7zXZ\0"];
        let bytes = [magics[magic], &bytes].concat();
        let folder = idx_folder().with("x.png", &bytes).with("train-images-idx3-ubyte", &bytes);
        check_image(&folder, "x.png")?;
        check_answer(&folder)?;
    }
}
