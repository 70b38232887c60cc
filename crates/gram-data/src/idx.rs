//! The IDX format of the MNIST family: one file of images, one of labels per split.
//!
//! Images: big-endian u32 magic 0x00000803, count, rows, columns, then u8 pixels row by row. Labels: magic 0x00000801,
//! count, then u8.

use std::path::{Path, PathBuf};

use crate::listing::{Listing, unpacked_name};
use crate::names;
use crate::source::Source;
use crate::{DataError, ImageSet, ImageShape};

const IMAGES_MAGIC: [u8; 4] = [0, 0, 8, 3];
const LABELS_MAGIC: [u8; 4] = [0, 0, 8, 1];
/// How names of image and label files end, in the two spellings that are about.
const DASHED: (&str, &str) = ("images-idx3-ubyte", "labels-idx1-ubyte");
const DOTTED: (&str, &str) = ("images.idx3-ubyte", "labels.idx1-ubyte");
/// Optional file of class names beside the data.
const NAMES_FILE: &str = "classes.txt";

/// The files of an IDX folder.
pub(crate) struct IdxFiles {
    folder: PathBuf,
    train: (PathBuf, PathBuf),
    test: Option<(PathBuf, PathBuf)>,
    names: Option<PathBuf>,
}

/// What was read: class names and the two splits.
pub(crate) type IdxData = (Vec<String>, ImageSet, Option<ImageSet>);

impl IdxFiles {
    /// Looks for `*train-images-idx3-ubyte` and its fellows (`t10k` or `test` for the test split; `.idx3` or `-idx3`;
    /// plain or packed); `None` if there is no such file.
    pub(crate) fn find(listing: &Listing) -> Result<Option<Self>, DataError> {
        let train = find_images(listing, "training images", |stem| stem.contains("train"))?;
        let test = find_images(listing, "test images", |stem| stem.contains("t10k") || stem.contains("test"))?;
        let Some(train) = train else {
            return match test {
                None => Ok(None),
                Some(test) => {
                    Err(DataError::MissingPart { path: listing.folder().join("train-images-idx3-ubyte"), beside: test })
                }
            };
        };
        let pair = |images: String| -> Result<(PathBuf, PathBuf), DataError> {
            let plain = unpacked_name(&images);
            let labels_name = match plain.strip_suffix(DASHED.0) {
                Some(stem) => format!("{stem}{}", DASHED.1),
                None => format!("{}{}", plain.strip_suffix(DOTTED.0).unwrap_or_default(), DOTTED.1),
            };
            let labels = listing.packed_or_plain(&labels_name).ok_or_else(|| DataError::MissingPart {
                path: listing.folder().join(&labels_name),
                beside: images.clone(),
            })?;
            Ok((listing.folder().join(images), labels))
        };
        Ok(Some(IdxFiles {
            folder: listing.folder().to_owned(),
            train: pair(train)?,
            test: test.map(pair).transpose()?,
            names: listing.packed_or_plain(NAMES_FILE),
        }))
    }

    /// Reads both splits side by side and checks the labels of both against the classes of the training split.
    pub(crate) fn read(&self, max_bytes: u64) -> Result<IdxData, DataError> {
        let (train, test) = rayon::join(
            || read_split(&self.train, max_bytes),
            || self.test.as_ref().map(|files| read_split(files, max_bytes)).transpose(),
        );
        let (train, test) = (train?, test?);
        let classes = match &self.names {
            Some(path) => names::read(path, None)?,
            None => classes_of(&self.train.1, &train)?,
        };
        check_labels(&self.train.1, &train, classes.len(), "correct the file or name every class in classes.txt")?;
        if let (Some(test), Some((images, labels))) = (&test, &self.test) {
            check_labels(labels, test, classes.len(), "the training labels do not have it: fetch both files again")?;
            if test.shape() != train.shape() {
                return Err(DataError::SplitsDiffer {
                    first: self.train.0.clone(),
                    second: images.clone(),
                    difference: format!("images of {} and of {}", train.shape(), test.shape()),
                });
            }
        }
        if classes.len() < 2 {
            let reason = format!("all training labels are {}", train.labels().first().copied().unwrap_or(0));
            return Err(DataError::TooFew { path: self.folder.clone(), reason });
        }
        Ok((classes, train, test))
    }
}

/// Name of the one image file whose stem (the name before `images`) is accepted.
fn find_images(
    listing: &Listing,
    part: &'static str,
    accepts: impl Fn(&str) -> bool,
) -> Result<Option<String>, DataError> {
    let mut found: Option<&str> = None;
    for name in listing.files() {
        let plain = unpacked_name(name);
        let stem = plain.strip_suffix(DASHED.0).or_else(|| plain.strip_suffix(DOTTED.0));
        if !stem.is_some_and(&accepts) {
            continue;
        }
        match found {
            Some(first) if unpacked_name(first) != plain => {
                let (first, second) = (first.to_owned(), name.to_owned());
                return Err(DataError::Ambiguous { path: listing.folder().to_owned(), part, first, second });
            }
            Some(_) => {} // the same file plain and packed: the listing gives the plain one first
            None => found = Some(name),
        }
    }
    Ok(found.map(str::to_owned))
}

fn read_split((images, labels): &(PathBuf, PathBuf), max_bytes: u64) -> Result<ImageSet, DataError> {
    let (shape, pixels, n_images) = read_images(images, max_bytes)?;
    let labels = read_labels(labels, n_images)?;
    ImageSet::new(shape, pixels, labels)
}

fn read_images(path: &Path, max_bytes: u64) -> Result<(ImageShape, Vec<u8>, u64), DataError> {
    let mut source = Source::open(path)?;
    check_magic(path, &mut source, IMAGES_MAGIC, "00000803 (IDX, u8 images in three dimensions)")?;
    let dims: [u8; 12] = source.header("the header")?;
    let [n, h, w] = [0, 4, 8].map(|at| u32::from_be_bytes([dims[at], dims[at + 1], dims[at + 2], dims[at + 3]]));
    let claim = format!("the header's {n} images of {h}x{w}");
    if n == 0 || h == 0 || w == 0 {
        return Err(DataError::TooFew { path: path.to_owned(), reason: format!("{claim} hold no pixels") });
    }
    let claimed = u128::from(n) * u128::from(h) * u128::from(w);
    let len = u64::try_from(claimed).ok().filter(|&len| len <= max_bytes).ok_or_else(|| DataError::TooLarge {
        path: path.to_owned(),
        claim: claim.clone(),
        claimed,
        limit: max_bytes,
        advice: "fetch the file again if it has fewer, or raise the limit",
    })?;
    let pixels = source.rest(len, &claim)?;
    Ok((ImageShape::new(1, h as usize, w as usize), pixels, n.into()))
}

fn read_labels(path: &Path, n_images: u64) -> Result<Vec<u32>, DataError> {
    let mut source = Source::open(path)?;
    check_magic(path, &mut source, LABELS_MAGIC, "00000801 (IDX, u8 labels)")?;
    let n_labels = u64::from(u32::from_be_bytes(source.header("the header")?));
    if n_labels != n_images {
        return Err(DataError::CountMismatch { path: path.to_owned(), n_labels, n_images });
    }
    let labels = source.rest(n_labels, &format!("the header's {n_labels} labels"))?;
    Ok(labels.into_iter().map(u32::from).collect())
}

fn check_magic(path: &Path, source: &mut Source, magic: [u8; 4], expected: &'static str) -> Result<(), DataError> {
    let found: [u8; 4] = source.header("the header")?;
    if found != magic {
        return Err(DataError::WrongMagic { path: path.to_owned(), expected, found: found.to_vec() });
    }
    Ok(())
}

/// Class names `0`, `1`, … up to the largest training label.
///
/// A stray label far out would otherwise go unnoticed, so every class in between must have an image. Class 0 may be
/// empty: some of the family count from 1.
fn classes_of(path: &Path, train: &ImageSet) -> Result<Vec<String>, DataError> {
    let counts = train.counts(256);
    let dense = 1 + counts.iter().skip(1).take_while(|&&count| count > 0).count();
    check_labels(
        path,
        train,
        dense,
        "classes in between have no images; correct the file or name every class in classes.txt",
    )?;
    Ok((0..dense).map(|label| label.to_string()).collect())
}

fn check_labels(path: &Path, set: &ImageSet, n_classes: usize, advice: &'static str) -> Result<(), DataError> {
    match set.labels().iter().position(|&label| label as usize >= n_classes) {
        Some(record) => {
            let label = set.label(record);
            Err(DataError::LabelOutOfRange { path: path.to_owned(), record, label, n_classes, advice })
        }
        None => Ok(()),
    }
}
