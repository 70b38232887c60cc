//! Weights as safetensors, under torch's names.

use std::collections::BTreeMap;

use gram_ir::{Tensor, TensorError, Weights};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::ExportError;
use crate::onnx::f32_bytes;

/// The bytes of a safetensors file with `weights` as f32 and `metadata` in its header.
///
/// Names and shapes are torch's, so `load_state_dict(safetensors.torch.load_file(…), strict=False)` works (not strict, since torch's norms
/// also count their batches). Tensors stand in order of names and the bytes depend on the arguments alone. (The `safetensors` crate writes metadata in random order, so the header is written here.)
/// # Errors
/// [`ExportError::BeyondF32`] for the first element that is not finite in f32.
/// # Example
/// ```
/// use std::collections::BTreeMap;
/// use gram_export::{read_safetensors, write_safetensors};
/// use gram_ir::{Tensor, Weights};
/// let mut weights = Weights::new();
/// weights.insert("head.classifier.bias", Tensor::new(vec![2], vec![0.5, -1.0])?);
/// let bytes = write_safetensors(&weights, &BTreeMap::new())?;
/// assert_eq!(read_safetensors(&bytes)?, weights);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_safetensors(weights: &Weights, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, ExportError> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut data = Vec::new();
    for (name, tensor) in weights.iter() {
        let start = data.len();
        data.extend(f32_bytes(name, tensor.data())?);
        let entry = json!({ "dtype": "F32", "shape": tensor.shape(), "data_offsets": [start, data.len()] });
        header.insert(name.into(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The data start at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    Ok(bytes)
}

/// The tensors of a safetensors file, f32 or f64.
///
/// Whether they are those of a network is for [`Weights::check`] to say.
/// # Errors
/// [`SafetensorsError`]; nothing is allocated from a size that was not checked against the file's.
pub fn read_safetensors(bytes: &[u8]) -> Result<Weights, SafetensorsError> {
    let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
    let mut weights = Weights::new();
    // In the file's hash order, but `Weights` sorts by name, and names are unique.
    for (name, view) in file.iter() {
        let tensor = tensor(name, &view)?;
        weights.insert(name, tensor);
    }
    Ok(weights)
}

/// The metadata in the header of a safetensors file.
///
/// # Errors
/// [`SafetensorsError`].
pub fn read_safetensors_metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, SafetensorsError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    Ok(header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn malformed(source: safetensors::SafeTensorError) -> SafetensorsError {
    SafetensorsError::Malformed { reason: source.to_string().chars().take(200).collect() }
}

fn tensor(name: &str, view: &TensorView<'_>) -> Result<Tensor, SafetensorsError> {
    // Widths cannot leave a remainder: the header was checked against the data.
    let data = match view.dtype() {
        Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|&x| f64::from(f32::from_le_bytes(x))).collect(),
        Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|&x| f64::from_le_bytes(x)).collect(),
        dtype => return Err(SafetensorsError::Dtype { name: short(name), dtype: format!("{dtype:?}") }),
    };
    Tensor::new(view.shape().to_vec(), data).map_err(|source| SafetensorsError::Tensor { name: short(name), source })
}

fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Why a safetensors file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// The header, or its agreement with the data, is broken.
    #[error("not a safetensors file: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Numbers of another type than f32 and f64.
    #[error("tensor `{name}` is of type {dtype}; expected F32 or F64")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// Shape and data disagree.
    #[error("tensor `{name}`: {source}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// How they disagree.
        source: TensorError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let mut weights = Weights::new();
        weights.insert("b.weight", Tensor::new(vec![2, 1, 1, 1], vec![1.0, -0.5]).unwrap());
        weights.insert("a.bias", Tensor::new(vec![3], vec![0.25, 3.0, 1e-3f32.into()]).unwrap());
        weights.insert("empty", Tensor::zeros(&[0, 4]));
        weights
    }

    /// A file with this header and eight bytes of data.
    fn file(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()
    }

    #[test]
    fn same_arguments_same_bytes_and_back() {
        let metadata: BTreeMap<_, _> = (0..20).map(|i| (format!("key{i}"), format!("\"{i}\n"))).collect();
        let bytes = write_safetensors(&weights(), &metadata).unwrap();
        assert_eq!(bytes, write_safetensors(&weights(), &metadata).unwrap());
        assert_eq!(read_safetensors(&bytes), Ok(weights()));
        assert_eq!(read_safetensors_metadata(&bytes), Ok(metadata));
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(length.is_multiple_of(8), "data are aligned");
    }

    #[test]
    fn numbers_beyond_f32_are_refused() {
        let mut weights = Weights::new();
        weights.insert("w", Tensor::new(vec![2], vec![0.0, 1e39]).unwrap());
        let message = write_safetensors(&weights, &BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(message, "tensor `w`: element 1 is 1e39, beyond the range of f32");
    }

    #[test]
    fn f64_is_read_and_other_types_are_named() {
        let header = |dtype: &str, shape: &str| {
            file(&format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,8]}}}}"#))
        };
        assert_eq!(read_safetensors(&header("F64", "[1]")).unwrap().get("w"), Ok(&Tensor::zeros(&[1])));
        let message = read_safetensors(&header("F16", "[4]")).unwrap_err().to_string();
        assert_eq!(message, "tensor `w` is of type F16; expected F32 or F64");
        for shape in ["[3]", "[4294967296,4294967296,4294967296]", "[-1]", "[18446744073709551615]"] {
            assert!(
                matches!(read_safetensors(&header("F32", shape)), Err(SafetensorsError::Malformed { .. })),
                "{shape}"
            );
        }
    }

    #[test]
    fn broken_files_are_refused() {
        let bytes = write_safetensors(&weights(), &BTreeMap::new()).unwrap();
        for length in 0..bytes.len() {
            assert!(read_safetensors(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(read_safetensors(&u64::MAX.to_le_bytes()).is_err());
        assert!(read_safetensors(b"this is a text file, not tensors").is_err());
    }
}
