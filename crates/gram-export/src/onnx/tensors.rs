//! Initialisers of an ONNX file: constants that nodes read.

use std::collections::{BTreeMap, BTreeSet};

use gram_ir::{MAX_AXIS, Tensor};

use super::proto;
use super::read::{ReadError, shorten};

/// All initialisers of a graph by name.
pub(super) struct Initialisers<'a> {
    tensors: BTreeMap<&'a str, &'a proto::Tensor>,
    taken: BTreeSet<&'a str>,
}

impl<'a> Initialisers<'a> {
    pub(super) fn new(tensors: &'a [proto::Tensor]) -> Result<Self, ReadError> {
        let mut by_name = BTreeMap::new();
        for tensor in tensors {
            if by_name.insert(tensor.name(), tensor).is_some() {
                return Err(bad(tensor, "it stands twice"));
            }
        }
        Ok(Self { tensors: by_name, taken: BTreeSet::new() })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor that is input `position` of `node`; no other node may take it, so that a file cannot multiply in memory.
    pub(super) fn take(&mut self, node: &proto::Node, position: usize) -> Result<Tensor, ReadError> {
        let tensor = self.find(node, position)?;
        if !self.taken.insert(tensor.name()) {
            return Err(bad(tensor, "two nodes share it"));
        }
        let raw = data::<4>(tensor, proto::FLOAT32)?;
        let data = raw.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect();
        Ok(Tensor::new(shape(tensor)?, data)?)
    }

    /// The shape of the tensor that is input `position` of `node`.
    pub(super) fn shape(&self, node: &proto::Node, position: usize) -> Result<Vec<usize>, ReadError> {
        shape(self.find(node, position)?)
    }

    /// The number that is input `position` of `node`; nodes may share it.
    pub(super) fn scalar(&self, node: &proto::Node, position: usize) -> Result<f32, ReadError> {
        let tensor = self.find(node, position)?;
        match data::<4>(tensor, proto::FLOAT32)? {
            &[bytes] if tensor.dims.is_empty() => Ok(f32::from_le_bytes(bytes)),
            _ => Err(bad(tensor, "expected a single number")),
        }
    }

    /// The integers that are input `position` of `node`; nodes may share them.
    pub(super) fn integers(&self, node: &proto::Node, position: usize) -> Result<Vec<i64>, ReadError> {
        let tensor = self.find(node, position)?;
        if tensor.dims.len() != 1 {
            return Err(bad(tensor, "expected a list of integers"));
        }
        Ok(data::<8>(tensor, proto::INT64)?.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
    }

    fn find(&self, node: &proto::Node, position: usize) -> Result<&'a proto::Tensor, ReadError> {
        let name = node.input.get(position).ok_or_else(|| ReadError::node(node, "it has too few inputs"))?;
        let unknown = || ReadError::UnknownValue { node: shorten(node.name()), value: shorten(name) };
        self.tensors.get(name.as_str()).copied().ok_or_else(unknown)
    }
}

fn shape(tensor: &proto::Tensor) -> Result<Vec<usize>, ReadError> {
    let axis = |&size: &i64| usize::try_from(size).ok().filter(|size| (1..=MAX_AXIS).contains(size));
    let shape = tensor.dims.iter().map(axis).collect::<Option<Vec<_>>>();
    shape.ok_or_else(|| bad(tensor, "an axis is not between 1 and 65536"))
}

/// The elements' bytes: as many as the shape has elements, `WIDTH` each.
fn data<const WIDTH: usize>(tensor: &proto::Tensor, data_type: i32) -> Result<&[[u8; WIDTH]], ReadError> {
    if tensor.data_type != Some(data_type) {
        return Err(bad(tensor, format!("expected data type {data_type}, got {}", tensor.data_type())));
    }
    let elements = shape(tensor)?.into_iter().try_fold(1usize, usize::checked_mul);
    let raw = tensor.raw_data();
    match (elements, raw.as_chunks::<WIDTH>()) {
        (Some(elements), (chunks, [])) if elements == chunks.len() => Ok(chunks),
        _ => Err(bad(
            tensor,
            format!("a shape {:?} does not go with {} bytes of raw data", short_dims(tensor), raw.len()),
        )),
    }
}

fn short_dims(tensor: &proto::Tensor) -> &[i64] {
    &tensor.dims[..tensor.dims.len().min(8)]
}

fn bad(tensor: &proto::Tensor, reason: impl Into<String>) -> ReadError {
    ReadError::Initialiser { name: shorten(tensor.name()), reason: reason.into() }
}
