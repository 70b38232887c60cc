//! Opening a data set: what lies in a folder decides how it is read.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cifar::{CifarFiles, Kind};
use crate::folder::ImageFolders;
use crate::idx::IdxFiles;
use crate::images::check_size;
use crate::listing::Listing;
use crate::{DataError, ImageSet, optdigits};

/// The name that [`open`] takes for the shipped handwritten digits.
pub const SHIPPED_NAME: &str = "optdigits";

/// How a data set is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Format {
    /// The table of handwritten digits, shipped or in a folder (`digits.csv`).
    Optdigits,
    /// IDX files of the MNIST family.
    Idx,
    /// Binary version of CIFAR-10.
    Cifar10,
    /// Binary version of CIFAR-100, fine labels.
    Cifar100,
    /// Class folders of JPEG and PNG images.
    ImageFolder,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Optdigits => "optdigits",
            Format::Idx => "idx",
            Format::Cifar10 => "cifar10",
            Format::Cifar100 => "cifar100",
            Format::ImageFolder => "image-folder",
        })
    }
}

/// Smallest and largest height and width of images before they were resized, `[h, w]` in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeRange {
    /// Smallest height and smallest width, not necessarily of one image.
    pub min: [u32; 2],
    /// Largest height and largest width, not necessarily of one image.
    pub max: [u32; 2],
}

impl SizeRange {
    pub(crate) fn one(h: u32, w: u32) -> Self {
        SizeRange { min: [h, w], max: [h, w] }
    }

    pub(crate) fn joined(self, other: SizeRange) -> Self {
        let by = |f: fn(u32, u32) -> u32, a: [u32; 2], b: [u32; 2]| [f(a[0], b[0]), f(a[1], b[1])];
        SizeRange { min: by(u32::min, self.min, other.min), max: by(u32::max, self.max, other.max) }
    }
}

/// How [`open`] loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadOptions {
    /// Height and width of the loaded images: the largest centred part with these proportions, resized.
    /// `None`: 64 x 64 for image folders, as stored for all other formats.
    pub image_size: Option<(usize, usize)>,
    /// Most bytes of decoded pixels in one split; 8 GiB by default. A data set that is or claims to be larger is
    /// refused before its memory is reserved.
    pub max_bytes: u64,
}

impl LoadOptions {
    /// Height and width of the images of a folder where nothing else is asked for.
    pub const FOLDER_SIZE: (usize, usize) = (64, 64);
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { image_size: None, max_bytes: 8 << 30 }
    }
}

/// A loaded data set: class names, training split and what is held out.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// `optdigits`, or the name of the folder.
    pub name: String,
    /// How it is stored.
    pub format: Format,
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// The training split. Validation images are drawn from it ([`split`](crate::split)) unless there are given ones.
    pub train: ImageSet,
    /// Validation images that come with the data set: only an image folder with both `val/` and `test/` has them.
    pub validation: Option<ImageSet>,
    /// The test split, if the data set has one.
    pub test: Option<ImageSet>,
    /// blake3 of the loaded content, 64 hexadecimal digits; see [`Dataset::content_digest`].
    pub digest: String,
    /// Sizes before resizing, for image folders.
    pub original_sizes: Option<SizeRange>,
}

impl Dataset {
    /// blake3 of class names, shapes, labels and pixels in order, as loaded.
    ///
    /// How the data set is stored does not matter: packed or plain, in one file or five, under this or that name, the
    /// digest is the same. Another image size or order gives another digest.
    ///
    /// Hashed, all numbers little-endian: `gram-data 1\n`; number of classes (u64), for each its length in bytes (u64)
    /// and name (UTF-8); for each of training, validation and test a byte 1 if there is one, else 0, and then: n, c, h,
    /// w (u64 each), n labels (u32 each), the pixels `[n, c, h, w]`.
    pub fn content_digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"gram-data 1\n");
        hasher.update(&(self.classes.len() as u64).to_le_bytes());
        for name in &self.classes {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        for split in [Some(&self.train), self.validation.as_ref(), self.test.as_ref()] {
            hasher.update(&[u8::from(split.is_some())]);
            let Some(set) = split else { continue };
            let shape = set.shape();
            for number in [set.len(), shape.c, shape.h, shape.w] {
                hasher.update(&(number as u64).to_le_bytes());
            }
            for label in set.labels() {
                hasher.update(&label.to_le_bytes());
            }
            for i in 0..set.len() {
                hasher.update(set.image(i));
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Opens the data set in a folder, or the shipped one for the name `optdigits` (write `./optdigits` for a folder of
/// that name).
///
/// What lies in the folder decides the format: IDX files, CIFAR batches, `digits.csv`, or class folders of images, the
/// files plain, `.gz` or `.xz`.
///
/// # Errors
/// [`DataError`], one line that names the file and the reason. A file is believed only as far as its bytes reach:
/// nothing is reserved because a header asks for it.
///
/// # Example
/// ```
/// let digits = gram_data::open("optdigits", &gram_data::LoadOptions::default())?;
/// assert_eq!((digits.train.len(), digits.classes.len()), (1797, 10));
/// # Ok::<(), gram_data::DataError>(())
/// ```
pub fn open(spec: &str, options: &LoadOptions) -> Result<Dataset, DataError> {
    if let Some((h, w)) = options.image_size {
        check_size(h, w)?;
    }
    let mut dataset =
        if spec == SHIPPED_NAME { digits(SHIPPED_NAME, optdigits::shipped()?) } else { open_folder(spec, options)? };
    if let Some((h, w)) = options.image_size.filter(|_| dataset.format != Format::ImageFolder) {
        let resized = |set: &ImageSet| resize(spec, set, (h, w), options.max_bytes);
        dataset.train = resized(&dataset.train)?;
        dataset.test = dataset.test.as_ref().map(resized).transpose()?;
    }
    dataset.digest = dataset.content_digest();
    Ok(dataset)
}

fn open_folder(spec: &str, options: &LoadOptions) -> Result<Dataset, DataError> {
    let folder = Path::new(spec);
    let metadata = std::fs::metadata(folder).map_err(|e| DataError::io(folder, e))?;
    if !metadata.is_dir() {
        let path = folder.to_owned();
        return Err(DataError::WrongKind { path, found: "a single file", expected: "the folder of a data set" });
    }
    let name = folder_name(folder);
    let listing = Listing::of(folder)?;
    if let Some(files) = IdxFiles::find(&listing)? {
        let (classes, train, test) = files.read(options.max_bytes)?;
        return Ok(Dataset::loaded(name, Format::Idx, classes, train, test));
    }
    if let Some(files) = CifarFiles::find(&listing)? {
        let (classes, train, test) = files.read(options.max_bytes)?;
        let format = if files.kind == Kind::Cifar10 { Format::Cifar10 } else { Format::Cifar100 };
        return Ok(Dataset::loaded(name, format, classes, train, test));
    }
    if let Some(path) = listing.packed_or_plain("digits.csv") {
        return Ok(digits(&name, optdigits::read(&path)?));
    }
    if let Some(folders) = ImageFolders::find(&listing)? {
        let data = folders.read(options.image_size.unwrap_or(LoadOptions::FOLDER_SIZE), options.max_bytes)?;
        let mut dataset = Dataset::loaded(name, Format::ImageFolder, data.classes, data.train, data.test);
        dataset.validation = data.validation;
        dataset.original_sizes = Some(data.sizes);
        return Ok(dataset);
    }
    Err(DataError::NotRecognised { path: folder.to_owned(), reason: what_is_there(&listing) })
}

impl Dataset {
    /// A data set whose digest is still to be taken.
    fn loaded(name: String, format: Format, classes: Vec<String>, train: ImageSet, test: Option<ImageSet>) -> Self {
        Dataset { name, format, classes, train, validation: None, test, digest: String::new(), original_sizes: None }
    }
}

fn digits(name: &str, set: ImageSet) -> Dataset {
    Dataset::loaded(name.to_owned(), Format::Optdigits, optdigits::classes(), set, None)
}

fn resize(spec: &str, set: &ImageSet, (h, w): (usize, usize), max_bytes: u64) -> Result<ImageSet, DataError> {
    let claimed = [set.shape().c, h, w].iter().fold(set.len() as u128, |product, &side| product * side as u128);
    if claimed > u128::from(max_bytes) {
        return Err(DataError::TooLarge {
            path: spec.into(),
            claim: format!("{} images resized to {h}x{w}", set.len()),
            claimed,
            limit: max_bytes,
            advice: "use a smaller image size or raise the limit",
        });
    }
    set.resized(h, w)
}

/// The last part of the path, also for `.` and `..`.
fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder.file_name().or_else(|| whole.file_name());
    name.map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn what_is_there(listing: &Listing) -> String {
    let names: Vec<&str> = listing.folders().chain(listing.files()).collect();
    match names.len() {
        0 => "the folder is empty".to_owned(),
        1..=4 => format!("it holds only {}", names.join(", ")),
        n => format!("it holds {} and {} more", names[..3].join(", "), n - 3),
    }
}
