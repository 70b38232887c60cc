//! The binary versions of CIFAR-10 and CIFAR-100: records of label bytes and 3,072 pixels, planes red, green, blue.
//!
//! A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::listing::{Listing, unpacked_name};
use crate::names;
use crate::source::Source;
use crate::{DataError, ImageSet, ImageShape};

const SHAPE: ImageShape = ImageShape { c: 3, h: 32, w: 32 };
const N_PIXELS: usize = 3 * 32 * 32;

/// Names of the classes of CIFAR-10 where `batches.meta.txt` is not there.
const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Which of the two, and so what stands before the pixels of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One label byte.
    Cifar10,
    /// A coarse label byte, which is not used, and a fine one.
    Cifar100,
}

impl Kind {
    fn label_bytes(self) -> usize {
        match self {
            Kind::Cifar10 => 1,
            Kind::Cifar100 => 2,
        }
    }

    fn n_classes(self) -> usize {
        match self {
            Kind::Cifar10 => 10,
            Kind::Cifar100 => 100,
        }
    }

    fn names_file(self) -> &'static str {
        match self {
            Kind::Cifar10 => "batches.meta.txt",
            Kind::Cifar100 => "fine_label_names.txt",
        }
    }
}

/// The files of a CIFAR folder.
pub(crate) struct CifarFiles {
    pub(crate) kind: Kind,
    train: Vec<PathBuf>,
    test: Option<PathBuf>,
    names: Option<PathBuf>,
}

impl CifarFiles {
    /// Looks for `data_batch_1.bin` … and `test_batch.bin`, or for `train.bin` and `test.bin`, plain or packed.
    pub(crate) fn find(listing: &Listing) -> Result<Option<Self>, DataError> {
        let (kind, train, test) = if let Some(batches) = batches(listing)? {
            (Kind::Cifar10, batches, "test_batch.bin")
        } else if let Some(train) = listing.packed_or_plain("train.bin") {
            (Kind::Cifar100, vec![train], "test.bin")
        } else {
            return Ok(None);
        };
        let names = listing.packed_or_plain(kind.names_file());
        Ok(Some(CifarFiles { kind, train, test: listing.packed_or_plain(test), names }))
    }

    /// Reads all files side by side: class names, training and test split.
    pub(crate) fn read(&self, max_bytes: u64) -> Result<(Vec<String>, ImageSet, Option<ImageSet>), DataError> {
        let files: Vec<(&PathBuf, u64)> = (self.train.iter().map(|path| (path, max_bytes / self.train.len() as u64)))
            .chain(self.test.iter().map(|path| (path, max_bytes)))
            .collect();
        let read: Vec<_> =
            files.par_iter().map(|&(path, max_bytes)| read_records(path, self.kind, max_bytes)).collect();
        let mut read = read.into_iter().collect::<Result<Vec<_>, _>>()?; // the first error in order of the names
        let test = if self.test.is_some() { read.pop() } else { None };
        let set = |(pixels, labels)| ImageSet::new(SHAPE, pixels, labels);
        Ok((self.classes()?, set(joined(read))?, test.map(set).transpose()?))
    }

    fn classes(&self) -> Result<Vec<String>, DataError> {
        match (&self.names, self.kind) {
            (Some(path), kind) => names::read(path, Some(kind.n_classes())),
            (None, Kind::Cifar10) => Ok(CIFAR10_CLASSES.map(str::to_owned).to_vec()),
            (None, Kind::Cifar100) => Ok((0..100).map(|label| label.to_string()).collect()),
        }
    }
}

/// `data_batch_1.bin` up to the last one there, without a gap.
fn batches(listing: &Listing) -> Result<Option<Vec<PathBuf>>, DataError> {
    let number =
        |name: &str| unpacked_name(name).strip_prefix("data_batch_")?.strip_suffix(".bin")?.parse::<u16>().ok();
    let Some(last) = listing.files().filter_map(number).max() else { return Ok(None) };
    let batch = |number: u16| {
        let name = format!("data_batch_{number}.bin");
        listing.packed_or_plain(&name).ok_or_else(|| DataError::MissingPart {
            path: listing.folder().join(&name),
            beside: format!("data_batch_{last}.bin"),
        })
    };
    (1..=last.max(1)).map(batch).collect::<Result<Vec<_>, _>>().map(Some)
}

type Records = (Vec<u8>, Vec<u32>);

fn read_records(path: &Path, kind: Kind, max_bytes: u64) -> Result<Records, DataError> {
    let record = kind.label_bytes() + N_PIXELS;
    let limit = (max_bytes / N_PIXELS as u64).saturating_mul(record as u64);
    let mut bytes = Source::open(path)?.all(limit, "the file's images")?;
    let n = bytes.len() / record;
    if bytes.len() % record != 0 || n == 0 {
        return Err(DataError::Truncated {
            path: path.to_owned(),
            claim: format!("record {n} of {record} bytes"),
            expected: ((n + 1) * record) as u64,
            found: bytes.len() as u64,
        });
    }
    // The labels are taken out and the pixels closed up in place: no second copy of a large file.
    let mut labels = Vec::with_capacity(n);
    for i in 0..n {
        let label = u32::from(bytes[i * record + kind.label_bytes() - 1]);
        if label as usize >= kind.n_classes() {
            return Err(DataError::LabelOutOfRange {
                path: path.to_owned(),
                record: i,
                label,
                n_classes: kind.n_classes(),
                advice: "fetch the file again",
            });
        }
        labels.push(label);
        let pixels = i * record + kind.label_bytes();
        bytes.copy_within(pixels..pixels + N_PIXELS, i * N_PIXELS);
    }
    bytes.truncate(n * N_PIXELS);
    Ok((bytes, labels))
}

fn joined(parts: Vec<Records>) -> Records {
    let mut parts = parts.into_iter();
    let (mut pixels, mut labels) = parts.next().unwrap_or_default();
    for (more_pixels, more_labels) in parts {
        pixels.extend_from_slice(&more_pixels);
        labels.extend_from_slice(&more_labels);
    }
    (pixels, labels)
}
