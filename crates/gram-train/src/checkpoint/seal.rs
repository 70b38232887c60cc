//! The checksum in a checkpoint's header: the first member of its JSON object, over the rest of the text and all tensors.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;

use super::CheckpointProblem;

/// What stands before the checksum in the header.
const BEFORE_CHECKSUM: &str = "{\"checksum\":\"";

/// What stands between the checksum and the text that it covers.
const AFTER_CHECKSUM: &str = "\",";

/// The header's JSON object with the checksum as its first member.
pub(super) fn seal(header: &str, tensors: &BTreeMap<&str, TensorView<'_>>) -> String {
    let rest = header.strip_prefix('{').expect("invariant: a header is a JSON object");
    format!("{BEFORE_CHECKSUM}{}{AFTER_CHECKSUM}{rest}", checksum(rest, tensors))
}

/// The header's JSON object without the checksum, which must be that of `tensors` and the text, byte for byte.
pub(super) fn unseal(sealed: &str, tensors: &BTreeMap<&str, TensorView<'_>>) -> Result<String, CheckpointProblem> {
    let parts = sealed.strip_prefix(BEFORE_CHECKSUM).and_then(|text| text.split_once(AFTER_CHECKSUM));
    match parts {
        Some((found, rest)) if found == checksum(rest, tensors) => Ok(format!("{{{rest}")),
        _ => Err(CheckpointProblem::Checksum),
    }
}

/// blake3 of the header's text and of name, element type, shape and bytes of every tensor, in the order of their names; every part of
/// variable length stands behind its length. 64 hexadecimal digits.
fn checksum(header: &str, tensors: &BTreeMap<&str, TensorView<'_>>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    part(header.as_bytes());
    for (name, view) in tensors {
        let shape: Vec<u8> = view.shape().iter().flat_map(|&size| (size as u64).to_le_bytes()).collect();
        part(name.as_bytes());
        part(view.dtype().to_string().as_bytes());
        part(&shape);
        part(view.data());
    }
    hasher.finalize().to_hex().to_string()
}
