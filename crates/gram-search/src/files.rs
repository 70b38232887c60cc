//! Atomic writes and errors that name the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

pub(crate) trait AtPath<T> {
    fn at(self, path: &Path) -> Result<T, FileError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { path: path.to_owned(), source })
    }
}

/// Replaces a file at once: after a crash there is the old content or the new one. Temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write_atomic(path: &Path, content: &str) -> Result<(), FileError> {
    let temporary = write_temporary(path, content)?;
    fs::rename(&temporary, path).at(path)?;
    sync_parent(path)
}

/// Writes a file unless it exists; the first writer wins. False if it exists already.
pub(crate) fn write_new(path: &Path, content: &str) -> Result<bool, FileError> {
    let temporary = write_temporary(path, content)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).at(&temporary)?;
    match linked {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).at(path),
    }
}

/// Ending of temporary files; whatever has it is left over from a killed process.
pub(crate) const TEMPORARY: &str = "tmp";

fn write_temporary(path: &Path, content: &str) -> Result<PathBuf, FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{TEMPORARY}", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary).at(&temporary)?;
    file.write_all(content.as_bytes()).at(&temporary)?;
    file.sync_all().at(&temporary)?;
    Ok(temporary)
}

/// Makes a rename or link in the file's directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if cfg!(unix) { File::open(parent).and_then(|directory| directory.sync_all()).at(parent) } else { Ok(()) }
}

/// Removes what a killed process left half-written in `directory`.
pub(crate) fn remove_temporaries(directory: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(directory).at(directory)? {
        let path = entry.at(directory)?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            fs::remove_file(&path).at(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_writer_wins_and_nothing_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert!(write_new(&path, "one").unwrap());
        assert!(!write_new(&path, "two").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write_atomic(&path, "three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(folder.path().join("b.json.1.tmp"), "half").unwrap();
        remove_temporaries(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let error = write_atomic(Path::new("/nonexistent/a.json"), "").unwrap_err().to_string();
        assert!(error.contains("/nonexistent/a.json"), "{error}");
    }
}
