//! Bounds what decoding a hostile file can allocate.
//!
//! Two bytes of a file can claim an empty node, which takes over a hundred in memory, so the messages are counted on the raw bytes
//! before any of them is decoded. Strings and raw data are no threat: they take as much memory as file.

use super::read::ReadError;

/// Most fields of a file: about 30 for each node of the largest network.
pub(crate) const MAX_FIELDS: u64 = 1 << 21;

/// The messages whose parts are counted.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    ValueType,
    TensorType,
    TensorShape,
    /// One without messages or lists of numbers in it.
    Flat,
}

/// What a length-delimited field holds.
enum Part {
    Message(Message),
    PackedNumbers,
    Bytes,
}

impl Message {
    fn part(self, field: u64) -> Part {
        use Part::{Bytes, PackedNumbers};
        let message = match (self, field) {
            (Self::Model, 7) => Self::Graph,
            (Self::Model, 8 | 14) => Self::Flat,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::ValueInfo,
            (Self::Node, 5) => Self::Attribute,
            (Self::ValueInfo, 2) => Self::ValueType,
            (Self::ValueType, 1) => Self::TensorType,
            (Self::TensorType, 2) => Self::TensorShape,
            (Self::TensorShape, 1) => Self::Flat,
            (Self::Attribute, 8) | (Self::Tensor, 1) => return PackedNumbers,
            _ => return Bytes,
        };
        Part::Message(message)
    }
}

/// Refuses files of more than [`MAX_FIELDS`] fields, and those that are no protobuf messages at all.
pub(crate) fn check_fields(bytes: &[u8]) -> Result<(), ReadError> {
    let mut left = MAX_FIELDS;
    count(bytes, Message::Model, &mut left)
}

/// The schema is seven messages deep, so this does not recurse further.
fn count(mut bytes: &[u8], message: Message, left: &mut u64) -> Result<(), ReadError> {
    while !bytes.is_empty() {
        spend(left, 1)?;
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => drop(split(&mut bytes, 8)?),
            5 => drop(split(&mut bytes, 4)?),
            2 => {
                let length = varint(&mut bytes)?;
                let part = split(&mut bytes, length)?;
                match message.part(key >> 3) {
                    Part::Message(message) => count(part, message, left)?,
                    Part::PackedNumbers => spend(left, length)?,
                    Part::Bytes => {}
                }
            }
            wire_type => return Err(malformed(format!("wire type {wire_type}"))),
        }
    }
    Ok(())
}

fn spend(left: &mut u64, fields: u64) -> Result<(), ReadError> {
    *left = left.checked_sub(fields).ok_or(ReadError::TooManyFields)?;
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ReadError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else {
            return Err(malformed("it ends inside a number".into()));
        };
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(malformed("a number of more than ten bytes".into()))
}

fn split<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], ReadError> {
    let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
    let (part, rest) =
        split.ok_or_else(|| malformed(format!("a field of {length} bytes where {} are left", bytes.len())))?;
    *bytes = rest;
    Ok(part)
}

fn malformed(reason: String) -> ReadError {
    ReadError::NotProtobuf { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field `number` of wire type 2 around `part`.
    fn field(number: u8, part: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = part.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(part);
        bytes
    }

    #[test]
    fn empty_nodes_are_counted_before_they_are_decoded() {
        let graph = |nodes: usize| field(7, &[0x0a, 0].repeat(nodes));
        assert_eq!(check_fields(&graph(1000)), Ok(()));
        assert_eq!(check_fields(&graph(MAX_FIELDS as usize)), Err(ReadError::TooManyFields));
    }

    #[test]
    fn packed_numbers_are_counted() {
        let numbers = field(8, &vec![1; MAX_FIELDS as usize]);
        let bytes = field(7, &field(1, &field(5, &numbers)));
        assert_eq!(check_fields(&bytes), Err(ReadError::TooManyFields));
        // The same bytes as raw data of a tensor are free.
        let raw = field(9, &vec![1; MAX_FIELDS as usize]);
        assert_eq!(check_fields(&field(7, &field(5, &raw))), Ok(()));
    }

    #[test]
    fn truncated_and_alien_bytes_are_refused() {
        for bytes in [&b"\x3a\xff\xff\xff\xff\x0f"[..], b"\x3a", b"\x08", b"\x0b", &[0xff; 20], b"\x09123"] {
            assert!(matches!(check_fields(bytes), Err(ReadError::NotProtobuf { .. })), "{bytes:?}");
        }
    }
}
