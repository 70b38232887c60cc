//! Files of class names, one a line.

use std::collections::BTreeSet;
use std::path::Path;

use crate::DataError;
use crate::source::Source;

/// Largest file of names, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads class names, one a line, blank lines at the end left out; `expected` is their number where it is known.
pub(crate) fn read(path: &Path, expected: Option<usize>) -> Result<Vec<String>, DataError> {
    let bytes = Source::open(path)?.all(MAX_FILE, "the list of class names")?;
    let refuse = |reason: String| DataError::ClassNames { path: path.to_owned(), reason };
    let text = String::from_utf8(bytes).map_err(|_| refuse("not a text file".into()))?;
    let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_owned()).collect();
    if let Some(expected) = expected.filter(|&expected| expected != names.len()) {
        return Err(refuse(format!("{} names for {expected} classes", names.len())));
    }
    let mut seen = BTreeSet::new();
    for (line, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(refuse(format!("line {} is blank", line + 1)));
        }
        if !seen.insert(name) {
            return Err(refuse(format!("line {} repeats `{name}`", line + 1)));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_at_the_end_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.txt");
        let with = |text: &str, expected| {
            std::fs::write(&path, text).unwrap();
            read(&path, expected).map_err(|e| e.to_string())
        };
        assert_eq!(with("cat\r\ndog \n\n", Some(2)).unwrap(), ["cat", "dog"]);
        assert!(with("cat\ndog\n", Some(3)).unwrap_err().contains("2 names for 3 classes"));
        assert!(with("cat\n\ndog\n", None).unwrap_err().contains("line 2 is blank"));
        assert!(with("cat\ncat\n", None).unwrap_err().contains("line 2 repeats `cat`"));
        assert!(with("", None).unwrap().is_empty());
    }
}
