//! Reading files, plain or packed, without trusting what they claim.
//!
//! Packing (gzip, xz) is told from the first bytes, not from the name, so a browser that unpacked a download but kept
//! its `.gz` does no harm. Memory grows only with bytes that are really there and never beyond the caller's limit.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::DataError;

/// Memory that an xz file may ask for to be unpacked, in KiB; `xz -9` needs half of it.
const XZ_MEMORY_KIB: u32 = 128 << 10;

const LONGEST_MAGIC: u64 = XZ_MAGIC.len() as u64;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// An open file, unpacked as it is read.
pub(crate) struct Source {
    path: PathBuf,
    reader: Box<dyn Read>,
    /// Length of a plain file; `None` if it is packed.
    plain_len: Option<u64>,
    consumed: u64,
}

impl Source {
    /// Opens a regular file and tells how it is packed.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let len = check_regular(path, "a data file")?;
        let mut file = File::open(path).map_err(|e| DataError::io(path, e))?;
        let mut head = Vec::new();
        (&mut file).take(LONGEST_MAGIC).read_to_end(&mut head).map_err(|e| DataError::io(path, e))?;
        Ok(Self::unpacking(path, head, file, len))
    }

    /// Bytes in memory; `path` is their name in errors.
    pub(crate) fn from_bytes(path: &Path, bytes: &'static [u8]) -> Self {
        let (head, tail) = bytes.split_at(bytes.len().min(LONGEST_MAGIC as usize));
        Self::unpacking(path, head.to_vec(), tail, bytes.len() as u64)
    }

    fn unpacking(path: &Path, head: Vec<u8>, tail: impl Read + 'static, len: u64) -> Self {
        let (gzip, xz) = (head.starts_with(GZIP_MAGIC), head.starts_with(XZ_MAGIC));
        let raw = BufReader::with_capacity(1 << 16, Cursor::new(head).chain(tail));
        let reader: Box<dyn Read> = match (gzip, xz) {
            (true, _) => Box::new(MultiGzDecoder::new(raw)),
            (_, true) => Box::new(XzReader::new_mem_limit(raw, true, XZ_MEMORY_KIB)),
            _ => Box::new(raw),
        };
        Source { path: path.to_owned(), reader, plain_len: (!gzip && !xz).then_some(len), consumed: 0 }
    }

    /// The next `N` bytes, as part of `claim` (say "the header").
    pub(crate) fn header<const N: usize>(&mut self, claim: &str) -> Result<[u8; N], DataError> {
        let expected = self.consumed + N as u64;
        self.read_up_to(N as u64)?.try_into().map_err(|_| self.truncated(claim, expected, self.consumed))
    }

    /// Exactly `len` further bytes, which must be the rest of the file; `claim` says what they are.
    ///
    /// A plain file is measured before anything is reserved; a packed one is unpacked only as far as `len` reaches.
    pub(crate) fn rest(&mut self, len: u64, claim: &str) -> Result<Vec<u8>, DataError> {
        let expected = self.consumed.saturating_add(len);
        if let Some(found) = self.plain_len.filter(|&found| found < expected) {
            return Err(self.truncated(claim, expected, found));
        }
        let bytes = self.read_up_to(len)?;
        if (bytes.len() as u64) < len {
            return Err(self.truncated(claim, expected, self.consumed));
        }
        if !self.read_up_to(1)?.is_empty() {
            return Err(DataError::LeftOver { path: self.path.clone(), claim: claim.to_owned(), expected });
        }
        Ok(bytes)
    }

    /// All bytes that are left, refused once they are more than `limit`.
    pub(crate) fn all(&mut self, limit: u64, claim: &str) -> Result<Vec<u8>, DataError> {
        let bytes = self.read_up_to(limit.saturating_add(1))?;
        if bytes.len() as u64 > limit {
            return Err(DataError::TooLarge {
                path: self.path.clone(),
                claim: claim.to_owned(),
                claimed: self.plain_len.unwrap_or(bytes.len() as u64).into(),
                limit,
                advice: "use fewer images or raise the limit",
            });
        }
        Ok(bytes)
    }

    fn truncated(&self, claim: &str, expected: u64, found: u64) -> DataError {
        DataError::Truncated { path: self.path.clone(), claim: claim.to_owned(), expected, found }
    }

    fn read_up_to(&mut self, len: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(len).read_to_end(&mut bytes);
        self.consumed += bytes.len() as u64;
        match read {
            Ok(_) => Ok(bytes),
            Err(error) if self.plain_len.is_some() => Err(DataError::io(&self.path, error)),
            Err(error) => Err(self.unpacking_failed(&error)),
        }
    }

    fn unpacking_failed(&self, error: &io::Error) -> DataError {
        let reason = match error.kind() {
            io::ErrorKind::OutOfMemory => {
                format!(
                    "unpacking it needs more than {} MiB of memory, pack it again with `xz -9` or less",
                    XZ_MEMORY_KIB >> 10
                )
            }
            io::ErrorKind::UnexpectedEof => "the packed data ends early (truncated)".to_owned(),
            _ => format!("the packed data cannot be unpacked ({error})"),
        };
        DataError::Damaged { path: self.path.clone(), reason }
    }
}

/// Refuses folders, broken links, pipes and devices; gives the length of the file. Links to files are followed.
pub(crate) fn check_regular(path: &Path, expected: &'static str) -> Result<u64, DataError> {
    let wrong = |found| DataError::WrongKind { path: path.to_owned(), found, expected };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(_) if path.is_symlink() => return Err(wrong("a link that leads nowhere")),
        Err(error) => return Err(DataError::io(path, error)),
    };
    match metadata.file_type() {
        kind if kind.is_file() => Ok(metadata.len()),
        kind if kind.is_dir() => Err(wrong("a folder")),
        _ => Err(wrong("a pipe, socket or device")),
    }
}
