//! Reading tables, plain or gzipped, without trusting them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::TabularError;

/// Bytes of a table when unpacked; the largest that we know (latencies of NAS-Bench-201 on 22 devices) has 2.6 million.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// Rows of a table.
pub(super) const MAX_ROWS: usize = 1 << 20;

/// A table's text and where it is from.
pub(super) struct Text {
    pub(super) path: PathBuf,
    pub(super) content: String,
}

impl Text {
    /// Reads a file that is plain or gzipped (told from its first bytes).
    pub(super) fn read(path: &Path) -> Result<Self, TabularError> {
        let failed = |source| TabularError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).map_err(failed)?;
        let is_gzip = magic == [0x1f, 0x8b];
        let raw = BufReader::new(std::io::Cursor::new(magic).chain(file));
        let mut content = String::new();
        let read = if is_gzip {
            MultiGzDecoder::new(raw).take(MAX_BYTES + 1).read_to_string(&mut content)
        } else {
            raw.take(MAX_BYTES + 1).read_to_string(&mut content)
        };
        if read.map_err(failed)? as u64 > MAX_BYTES {
            return Err(TabularError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
        }
        Ok(Self { path: path.to_owned(), content })
    }

    /// Lines that are not blank, with their numbers from 1; refused when there are too many.
    pub(super) fn lines(&self) -> Result<Vec<(usize, &str)>, TabularError> {
        let lines =
            || self.content.lines().enumerate().map(|(i, line)| (i + 1, line.trim_end())).filter(|l| !l.1.is_empty());
        if lines().nth(MAX_ROWS).is_some() {
            return Err(self.whole(format!("more than {MAX_ROWS} lines")));
        }
        Ok(lines().collect())
    }

    /// An error at a line.
    pub(super) fn at(&self, line: usize, reason: impl Into<String>) -> TabularError {
        TabularError::Line { path: self.path.clone(), line, reason: reason.into() }
    }

    /// An error of the whole file.
    pub(super) fn whole(&self, reason: impl Into<String>) -> TabularError {
        TabularError::Table { path: self.path.clone(), reason: reason.into() }
    }
}

/// A finite number, or why not; `field` is cut so that a hostile file does not fill a terminal.
pub(super) fn number(field: &str) -> Result<f64, String> {
    match field.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("{:?} is not a finite number", shortened(field))),
    }
}

/// The first 40 characters.
pub(super) fn shortened(field: &str) -> String {
    field.chars().take(40).collect()
}

/// Columns of a comma-separated file with a header, picked by name.
pub(super) struct Columns<'a> {
    text: &'a Text,
    header: Vec<&'a str>,
    rows: Vec<(usize, Vec<&'a str>)>,
}

impl<'a> Columns<'a> {
    /// Splits the text; every row has as many fields as the header.
    pub(super) fn split(text: &'a Text) -> Result<Self, TabularError> {
        let lines = text.lines()?;
        let [(_, header), rows @ ..] = lines.as_slice() else {
            return Err(text.whole("the file is empty"));
        };
        let header: Vec<&str> = header.split(',').map(str::trim).collect();
        let mut split = Vec::with_capacity(rows.len());
        for &(line, row) in rows {
            let fields: Vec<&str> = row.split(',').collect();
            if fields.len() != header.len() {
                return Err(text.at(line, format!("{} fields, the header has {}", fields.len(), header.len())));
            }
            split.push((line, fields));
        }
        if split.is_empty() {
            return Err(text.whole("no rows after the header"));
        }
        Ok(Self { text, header, rows: split })
    }

    /// A column's fields with their lines.
    pub(super) fn fields(&self, name: &str) -> Result<impl Iterator<Item = (usize, &'a str)> + '_, TabularError> {
        let Some(column) = self.header.iter().position(|&header| header == name) else {
            let available = self.header.iter().map(|&header| shortened(header)).collect();
            return Err(TabularError::NoColumn { path: self.text.path.clone(), name: name.to_owned(), available });
        };
        Ok(self.rows.iter().map(move |(line, fields)| (*line, fields[column])))
    }

    /// A column of finite numbers.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f64>, TabularError> {
        self.fields(name)?
            .map(|(line, field)| number(field).map_err(|reason| self.text.at(line, format!("{name}: {reason}"))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str) -> Text {
        Text { path: "t.csv".into(), content: content.into() }
    }

    #[test]
    fn errors_name_file_and_line() {
        let message = |content: &str, column: &str| {
            let text = text(content);
            let columns = Columns::split(&text);
            columns.and_then(|columns| columns.numbers(column)).unwrap_err().to_string()
        };
        assert_eq!(message("", "a"), "t.csv: the file is empty");
        assert_eq!(message("a,b\n", "a"), "t.csv: no rows after the header");
        assert_eq!(message("a,b\n\n1\n", "a"), "t.csv:3: 1 fields, the header has 2");
        assert_eq!(message("a,b\n1,NaN\n", "b"), "t.csv:2: b: \"NaN\" is not a finite number");
        assert_eq!(message("a,b\n1,2\n", "c"), "t.csv: no column \"c\"; there are a, b");
    }

    #[test]
    fn gzip_is_told_from_the_first_bytes_and_bombs_are_refused() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let pack = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        std::fs::write(&path, pack(b"a,b\n")).unwrap();
        assert_eq!(Text::read(&path).unwrap().content, "a,b\n");
        std::fs::write(&path, "a,b\n").unwrap();
        assert_eq!(Text::read(&path).unwrap().content, "a,b\n");
        std::fs::write(&path, pack(&vec![b'1'; MAX_BYTES as usize + 1])).unwrap();
        assert!(matches!(Text::read(&path), Err(TabularError::TooLarge { .. })));
        std::fs::write(&path, &pack(b"a,b\n")[..12]).unwrap();
        assert!(matches!(Text::read(&path), Err(TabularError::Read { .. })));
        assert!(matches!(Text::read(&folder.path().join("absent")), Err(TabularError::Read { .. })));
    }
}
