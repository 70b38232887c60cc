//! Folders of JPEG and PNG images, one folder a class.
//!
//! Either `train/CLASS/*` with an optional held-out folder beside it, or `CLASS/*` directly. Classes are sorted by
//! name, images by name within their class.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dataset::SizeRange;
use crate::decode::{decode_file, fill};
use crate::listing::Listing;
use crate::{DataError, ImageSet, ImageShape};

const TRAIN_NAMES: [&str; 2] = ["train", "training"];
const VALIDATION_NAMES: [&str; 3] = ["val", "valid", "validation"];
const TEST_NAMES: [&str; 2] = ["test", "testing"];
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// The split folders of an image folder.
pub(crate) struct ImageFolders {
    train: PathBuf,
    validation: Option<PathBuf>,
    test: Option<PathBuf>,
}

/// What was read.
pub(crate) struct FolderData {
    pub(crate) classes: Vec<String>,
    pub(crate) train: ImageSet,
    pub(crate) validation: Option<ImageSet>,
    pub(crate) test: Option<ImageSet>,
    pub(crate) sizes: SizeRange,
}

impl ImageFolders {
    /// Looks for `train/` and its fellows, or else for class folders with images in them.
    ///
    /// One held-out folder, whatever its name, is the test split; with `val/` and `test/` both, each is what it says.
    pub(crate) fn find(listing: &Listing) -> Result<Option<Self>, DataError> {
        let find = |names: &[&str], part| find_folder(listing, names, part);
        if let Some(train) = find(&TRAIN_NAMES, "training split")? {
            let validation = find(&VALIDATION_NAMES, "validation split")?;
            let test = find(&TEST_NAMES, "test split")?;
            return Ok(Some(match test {
                Some(_) => ImageFolders { train, validation, test },
                None => ImageFolders { train, validation: None, test: validation },
            }));
        }
        for name in listing.folders() {
            if Listing::of(&listing.folder().join(name))?.files().any(has_image_ending) {
                return Ok(Some(ImageFolders { train: listing.folder().to_owned(), validation: None, test: None }));
            }
        }
        Ok(None)
    }

    /// Decodes every image to `h` x `w` pixels; one channel if all images of all splits are grey, else three.
    pub(crate) fn read(&self, (h, w): (usize, usize), max_bytes: u64) -> Result<FolderData, DataError> {
        let train = Split::list(&self.train)?;
        let list = |path: &Option<PathBuf>| path.as_deref().map(Split::list).transpose();
        let (validation, test) = (list(&self.validation)?, list(&self.test)?);
        for other in validation.iter().chain(&test) {
            train.check_same_classes(other)?;
        }
        let colour = ImageShape::new(3, h, w);
        let decode = |split: &Split| split.decode(colour, max_bytes);
        let decoded = decode(&train)?;
        let others = [validation.as_ref().map(decode).transpose()?, test.as_ref().map(decode).transpose()?];
        let all = || std::iter::once(&decoded).chain(others.iter().flatten());
        let is_grey = all().all(|split| split.is_grey);
        let sizes = all().map(|split| split.sizes).reduce(SizeRange::joined).unwrap_or(decoded.sizes);
        let [validation, test] = others.map(|split| split.map(|split| split.into_set(colour, is_grey)).transpose());
        Ok(FolderData {
            train: decoded.into_set(colour, is_grey)?,
            classes: train.classes,
            validation: validation?,
            test: test?,
            sizes,
        })
    }
}

/// The one folder inside with a name of `names`, in any case.
fn find_folder(listing: &Listing, names: &[&str], part: &'static str) -> Result<Option<PathBuf>, DataError> {
    let mut found = listing.folders().filter(|name| names.contains(&name.to_lowercase().as_str()));
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(DataError::Ambiguous {
            path: listing.folder().to_owned(),
            part,
            first: first.to_owned(),
            second: second.to_owned(),
        }),
        (first, _) => Ok(first.map(|name| listing.folder().join(name))),
    }
}

fn has_image_ending(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
}

/// The files of one split.
struct Split {
    folder: PathBuf,
    classes: Vec<String>,
    images: Vec<PathBuf>,
    labels: Vec<u32>,
}

impl Split {
    fn list(folder: &Path) -> Result<Self, DataError> {
        let listing = Listing::of(folder)?;
        if let Some(stray) = listing.files().find(|name| has_image_ending(name)) {
            return Err(DataError::WrongKind {
                path: folder.join(stray),
                found: "an image outside a class folder",
                expected: "a folder for every class",
            });
        }
        let classes: Vec<String> = listing.folders().map(str::to_owned).collect();
        if classes.len() < 2 {
            let reason = format!("{} class folder(s) found", classes.len());
            return Err(DataError::TooFew { path: folder.to_owned(), reason });
        }
        let mut split = Split { folder: folder.to_owned(), classes, images: Vec::new(), labels: Vec::new() };
        for label in 0..split.classes.len() {
            split.list_class(label)?;
        }
        Ok(split)
    }

    fn list_class(&mut self, label: usize) -> Result<(), DataError> {
        let listing = Listing::of(&self.folder.join(&self.classes[label]))?;
        if let Some(folder) = listing.folders().next() {
            let path = listing.folder().join(folder);
            return Err(DataError::WrongKind { path, found: "a folder", expected: "an image file" });
        }
        listing.check_files_regular("an image file")?;
        for name in listing.files() {
            let path = listing.folder().join(name);
            if !has_image_ending(name) {
                let reason = "its name does not end with .jpg, .jpeg or .png".to_owned();
                return Err(DataError::NotAnImage { path, reason });
            }
            self.images.push(path);
            self.labels.push(label as u32);
        }
        if self.labels.last() != Some(&(label as u32)) {
            return Err(DataError::EmptyClass { path: listing.folder().to_owned() });
        }
        Ok(())
    }

    fn check_same_classes(&self, other: &Split) -> Result<(), DataError> {
        let (mine, theirs): (BTreeSet<&String>, BTreeSet<&String>) =
            (self.classes.iter().collect(), other.classes.iter().collect());
        let only = |a: &BTreeSet<&String>, b: &BTreeSet<&String>| {
            let names: Vec<String> = a.difference(b).map(|name| format!("`{name}`")).collect();
            if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
        };
        if mine == theirs {
            return Ok(());
        }
        let difference = format!(
            "classes only in the first: {}; only in the second: {}",
            only(&mine, &theirs),
            only(&theirs, &mine)
        );
        Err(DataError::SplitsDiffer { first: self.folder.clone(), second: other.folder.clone(), difference })
    }

    /// Decodes all images side by side; the error, if any, is that of the first bad file in order.
    fn decode(&self, shape: ImageShape, max_bytes: u64) -> Result<Decoded, DataError> {
        let image_len = shape.c * shape.h * shape.w;
        let claimed = self.images.len() as u128 * image_len as u128;
        let total = usize::try_from(claimed).ok().filter(|_| claimed <= u128::from(max_bytes));
        let total = total.ok_or_else(|| DataError::TooLarge {
            path: self.folder.clone(),
            claim: format!("{} images as {shape}", self.images.len()),
            claimed,
            limit: max_bytes,
            advice: "use a smaller image size or fewer images, or raise the limit",
        })?;
        let mut pixels = vec![0; total];
        let facts: Vec<Result<(SizeRange, bool), DataError>> = (pixels.par_chunks_mut(image_len))
            .zip(&self.images)
            .map(|(out, path)| {
                let image = decode_file(path)?;
                fill(&image, shape, out);
                Ok((SizeRange::one(image.height(), image.width()), !image.color().has_color()))
            })
            .collect();
        let mut all = (SizeRange::one(0, 0), true);
        for (i, fact) in facts.into_iter().enumerate() {
            let (sizes, is_grey) = fact?;
            all = (if i == 0 { sizes } else { all.0.joined(sizes) }, all.1 && is_grey);
        }
        Ok(Decoded { pixels, labels: self.labels.clone(), sizes: all.0, is_grey: all.1 })
    }
}

/// A decoded split, three channels.
struct Decoded {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    sizes: SizeRange,
    is_grey: bool,
}

impl Decoded {
    /// Drops two of the three equal channels of grey images.
    fn into_set(mut self, shape: ImageShape, grey: bool) -> Result<ImageSet, DataError> {
        if !grey {
            return ImageSet::new(shape, self.pixels, self.labels);
        }
        let plane = shape.h * shape.w;
        for i in 0..self.labels.len() {
            self.pixels.copy_within(3 * i * plane..(3 * i + 1) * plane, i * plane);
        }
        self.pixels.truncate(self.labels.len() * plane);
        self.pixels.shrink_to_fit();
        ImageSet::new(ImageShape { c: 1, ..shape }, self.pixels, self.labels)
    }
}
