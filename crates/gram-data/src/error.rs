//! What can be wrong with a data set, each as one line that names the file, the reason and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a data set, an image or a data setting was refused.
///
/// Every message is one line, whatever control characters names and reasons contain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Nothing lies at the path.
    #[error("{}: no such file or folder; check the path, or use the shipped data set `optdigits`", Shown(path))]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },
    /// The operating system refused to list or read.
    #[error("{}: cannot be read: {}; check its permissions and the disk", Shown(path), OneLine(error))]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A folder, broken link, pipe or device lies where a file or a folder of another kind is needed.
    #[error("{}: {found} where {expected} is needed; remove it or put the right one there", Shown(path))]
    WrongKind {
        /// The offending entry.
        path: PathBuf,
        /// What lies there, e.g. `a folder`.
        found: &'static str,
        /// What should lie there, e.g. `an image file`.
        expected: &'static str,
    },
    /// The folder holds nothing that is known as a data set.
    #[error(
        "{}: no data set recognised: {}; expected train-images-idx3-ubyte and its fellows (IDX), data_batch_1.bin (CIFAR-10), \
         train.bin (CIFAR-100), or class folders with JPEG or PNG images, alone or inside train/",
        Shown(path),
        OneLine(reason)
    )]
    NotRecognised {
        /// The folder.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// Two files or folders claim the same part.
    #[error("{}: {} and {} both look like the {part}; keep one of them", Shown(path), OneLine(first), OneLine(second))]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// The part of the data set, e.g. `training images`.
        part: &'static str,
        /// Name of one of the two.
        first: String,
        /// Name of the other.
        second: String,
    },
    /// A file that belongs to the data set is not there.
    #[error("{}: missing, but needed beside {}; fetch the data set again", Shown(path), OneLine(beside))]
    MissingPart {
        /// The file that is not there.
        path: PathBuf,
        /// The file that needs it.
        beside: String,
    },
    /// The first bytes are not those of the format.
    #[error("{}: wrong magic: expected {expected}, found bytes {}; fetch the file again", Shown(path), Hex(found))]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// The bytes and what they mean.
        expected: &'static str,
        /// The first bytes of the (unpacked) file.
        found: Vec<u8>,
    },
    /// The (unpacked) file ends too early for what it claims to hold.
    #[error("{}: truncated: {claim} needs {expected} bytes, the file holds {found}; fetch the file again", Shown(path))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What needs the bytes, e.g. `the header's 60000 images of 28x28`.
        claim: String,
        /// Bytes needed from the start of the unpacked file.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The (unpacked) file goes on behind what it claims to hold.
    #[error(
        "{}: bytes left over: {claim} ends at byte {expected}, but the file goes on; fetch the file again",
        Shown(path)
    )]
    LeftOver {
        /// The file.
        path: PathBuf,
        /// What ends there.
        claim: String,
        /// Where the file should have ended.
        expected: u64,
    },
    /// A packed file, an image or a table does not decode.
    #[error("{}: damaged: {}; replace or remove the file", Shown(path), OneLine(reason))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// More bytes are claimed or present than [`LoadOptions::max_bytes`](crate::LoadOptions::max_bytes) or a fixed limit allows.
    #[error("{}: too large: {claim} needs {claimed} bytes, the limit is {limit}; {advice}", Shown(path))]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// What needs the bytes.
        claim: String,
        /// Bytes claimed (at least).
        claimed: u128,
        /// Bytes allowed.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
    /// Images and labels do not pair up.
    #[error("{}: holds {n_labels} labels for {n_images} images; fetch both files again", Shown(path))]
    CountMismatch {
        /// The label file.
        path: PathBuf,
        /// Labels in it.
        n_labels: u64,
        /// Images in its image file.
        n_images: u64,
    },
    /// A label is not the number of a class.
    #[error("{}: record {record} has label {label}, out of range for {n_classes} classes (0 to {}); {advice}", Shown(path), n_classes.saturating_sub(1))]
    LabelOutOfRange {
        /// The file with the label.
        path: PathBuf,
        /// Index of the record, from 0.
        record: usize,
        /// The label found.
        label: u32,
        /// Number of classes.
        n_classes: usize,
        /// What to do.
        advice: &'static str,
    },
    /// A file of class names does not fit the data.
    #[error("{}: class names: {}; write one name a line, one line a class", Shown(path), OneLine(reason))]
    ClassNames {
        /// The file or folder of the names.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file among images is not a JPEG or PNG.
    #[error("{}: not a JPEG or PNG image: {}; convert, remove or hide it (leading dot)", Shown(path), OneLine(reason))]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// A class folder without a single image.
    #[error("{}: empty class: the folder holds no images; add images or remove the folder", Shown(path))]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
    },
    /// A split without a single image, or a data set with fewer than two classes.
    #[error("{}: {}; a data set needs at least two classes with images", Shown(path), OneLine(reason))]
    TooFew {
        /// The file or folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Two splits have other class folders or image shapes.
    #[error("{} and {} differ: {}; both splits need the same", Shown(first), Shown(second), OneLine(difference))]
    SplitsDiffer {
        /// The training split.
        first: PathBuf,
        /// The held-out split.
        second: PathBuf,
        /// The classes that only one has, or both shapes.
        difference: String,
    },
    /// A setting, not a file, is wrong.
    #[error("{name}: {}", OneLine(reason))]
    Setting {
        /// Name of the setting, e.g. `batch_size`.
        name: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

impl DataError {
    /// Wraps an I/O error, telling "not there" from all the others.
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => DataError::Missing { path: path.to_owned() },
            _ => DataError::Unreadable { path: path.to_owned(), error },
        }
    }

    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Self {
        DataError::Setting { name, reason: reason.into() }
    }
}

/// A path on one line.
struct Shown<'a>(&'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_on_one_line(f, &self.0.to_string_lossy())
    }
}

/// Any text on one line: control characters are written as escapes.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_on_one_line(f, &self.0.to_string())
    }
}

fn write_on_one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => write!(f, "{}", c.escape_default())?,
            c => write!(f, "{c}")?,
        }
    }
    Ok(())
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_line_breaks_stay_on_one_line() {
        let error = DataError::EmptyClass { path: PathBuf::from("a\nb\u{1b}[31m") };
        assert_eq!(
            error.to_string(),
            "a\\nb\\u{1b}[31m: empty class: the folder holds no images; add images or remove the folder"
        );
    }

    #[test]
    fn magic_is_shown_as_hex() {
        let error =
            DataError::WrongMagic { path: "x".into(), expected: "00000803 (IDX images)", found: vec![0, 0, 8, 1] };
        assert!(error.to_string().contains("expected 00000803 (IDX images), found bytes 00000801"), "{error}");
    }
}
