//! What lies in a folder, sorted by name, hidden entries left out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::source::check_regular;

/// Names of packed files end with one of these.
const PACKED: [&str; 2] = [".gz", ".xz"];

/// Names of the files and folders directly inside a folder.
///
/// Links are followed. Names that begin with a dot are hidden and left out.
pub(crate) struct Listing {
    folder: PathBuf,
    files: Vec<String>,
    folders: Vec<String>,
}

impl Listing {
    /// Lists `folder`.
    pub(crate) fn of(folder: &Path) -> Result<Self, DataError> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(|e| DataError::io(folder, e))? {
            let entry = entry.map_err(|e| DataError::io(folder, e))?;
            let name = entry.file_name().into_string().map_err(|_| DataError::WrongKind {
                path: entry.path(),
                found: "a name that is not UTF-8",
                expected: "a name that can be written out",
            })?;
            match () {
                () if name.starts_with('.') => {}
                () if entry.path().is_dir() => folders.push(name),
                () => files.push(name),
            }
        }
        files.sort_unstable();
        folders.sort_unstable();
        Ok(Listing { folder: folder.to_owned(), files, folders })
    }

    /// The folder that was listed.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names of everything that is not a folder, sorted.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Names of the folders inside, sorted.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().map(String::as_str)
    }

    /// Path of the file `name`, or of `name.gz` or `name.xz`; the plain one first.
    pub(crate) fn packed_or_plain(&self, name: &str) -> Option<PathBuf> {
        let candidates = std::iter::once(name.to_owned()).chain(PACKED.iter().map(|ending| format!("{name}{ending}")));
        candidates.into_iter().find(|name| self.files.binary_search(name).is_ok()).map(|name| self.folder.join(name))
    }

    /// Refuses entries that are neither folders nor regular files.
    pub(crate) fn check_files_regular(&self, expected: &'static str) -> Result<(), DataError> {
        self.files().try_for_each(|name| check_regular(&self.folder.join(name), expected).map(|_| ()))
    }
}

/// The name without `.gz` or `.xz`.
pub(crate) fn unpacked_name(name: &str) -> &str {
    PACKED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_comes_before_packed_and_hidden_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.bin", "b.bin.gz", "a.bin.xz", ".hidden"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("sub")).unwrap();
        let listing = Listing::of(dir.path()).unwrap();
        assert_eq!(listing.files().collect::<Vec<_>>(), ["a.bin.xz", "b.bin", "b.bin.gz"]);
        assert_eq!(listing.folders().collect::<Vec<_>>(), ["sub"]);
        assert_eq!(listing.packed_or_plain("b.bin"), Some(dir.path().join("b.bin")));
        assert_eq!(listing.packed_or_plain("a.bin"), Some(dir.path().join("a.bin.xz")));
        assert_eq!(listing.packed_or_plain(".hidden"), None);
        assert_eq!(unpacked_name("x.bin.gz"), "x.bin");
    }
}
