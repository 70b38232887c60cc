//! The shipped handwritten digits, and folders that hold the same table.

use std::path::Path;

use crate::source::Source;
use crate::{DataError, ImageSet, ImageShape};

/// The table as shipped; see `datasets/optdigits/README.md` for its authors and licence (CC BY 4.0).
const SHIPPED: &[u8] = include_bytes!("../../../datasets/optdigits/digits.csv.gz");
/// Largest table read from a folder, in bytes; the shipped one has 262 kB.
const MAX_TABLE: u64 = 64 << 20;
/// Full ink.
const MAX_INK: u32 = 16;
const N_PIXELS: usize = 64;
const N_CLASSES: usize = 10;

/// The 1,797 digits built into the program.
pub(crate) fn shipped() -> Result<ImageSet, DataError> {
    let path = Path::new("optdigits/digits.csv.gz");
    parse(path, &Source::from_bytes(path, SHIPPED).all(MAX_TABLE, "the table")?)
}

/// The same table from a file.
pub(crate) fn read(path: &Path) -> Result<ImageSet, DataError> {
    parse(path, &Source::open(path)?.all(MAX_TABLE, "the table")?)
}

/// Names of the ten digits.
pub(crate) fn classes() -> Vec<String> {
    (0..N_CLASSES).map(|digit| digit.to_string()).collect()
}

/// Rows of 64 pixels of 0 to 16 and a class; a pixel v becomes round(v·255/16), halves up.
fn parse(path: &Path, table: &[u8]) -> Result<ImageSet, DataError> {
    let damaged = |line: usize, reason: &str| DataError::Damaged {
        path: path.to_owned(),
        reason: format!("line {}: {reason}", line + 1),
    };
    let text = std::str::from_utf8(table).map_err(|_| damaged(0, "not a text file"))?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (line, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let mut cells = row.split(',').map(|cell| cell.trim().parse::<u32>());
        for _ in 0..N_PIXELS {
            match cells.next() {
                Some(Ok(ink @ 0..=MAX_INK)) => pixels.push(((ink * 255 + 8) / MAX_INK) as u8),
                _ => return Err(damaged(line, "needs 64 pixels, whole numbers of 0 to 16, and a class")),
            }
        }
        let (Some(Ok(label)), None) = (cells.next(), cells.next()) else {
            return Err(damaged(line, "needs one class after its 64 pixels and nothing else"));
        };
        if label as usize >= N_CLASSES {
            let advice = "correct or remove the line";
            let record = labels.len();
            return Err(DataError::LabelOutOfRange {
                path: path.to_owned(),
                record,
                label,
                n_classes: N_CLASSES,
                advice,
            });
        }
        labels.push(label);
    }
    ImageSet::new(ImageShape::new(1, 8, 8), pixels, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ink: u32, label: &str) -> String {
        vec![ink.to_string(); 64].join(",") + "," + label + "\n"
    }

    #[test]
    fn the_shipped_table_is_whole() {
        let set = shipped().unwrap();
        assert_eq!(set.len(), 1797);
        assert_eq!(set.shape(), ImageShape::new(1, 8, 8));
        assert_eq!(set.counts(10), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        // The first row starts 0,0,5,13,9,1: 5·255/16 = 79.7, 13·255/16 = 207.2, 9·255/16 = 143.4, 255/16 = 15.9.
        assert_eq!(set.image(0)[..6], [0, 0, 80, 207, 143, 16]);
        assert_eq!(set.label(0), 0);
    }

    #[test]
    fn ink_spans_the_bytes() {
        let text = row(0, "1") + &row(8, "2") + &row(16, "3");
        let set = parse(Path::new("t.csv"), text.as_bytes()).unwrap();
        assert_eq!([set.image(0)[0], set.image(1)[0], set.image(2)[63]], [0, 128, 255]); // 8·255/16 = 127.5, up
        assert_eq!(set.labels(), [1, 2, 3]);
    }

    #[test]
    fn bad_rows_are_named() {
        let message = |text: String| parse(Path::new("t.csv"), text.as_bytes()).unwrap_err().to_string();
        assert!(message(row(1, "1") + &row(17, "1")).contains("t.csv: damaged: line 2: needs 64 pixels"));
        assert!(message(row(1, "10")).contains("record 0 has label 10, out of range for 10 classes (0 to 9)"));
        assert!(message(row(1, "1,2")).contains("line 1: needs one class"));
        assert!(message("a,b\n".into()).contains("line 1"));
    }
}
