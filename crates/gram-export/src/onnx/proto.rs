//! The part of the ONNX schema that gram writes and reads.
//!
//! Field numbers are those of `onnx.proto` (ONNX 1.13, IR version 8). The schema is proto2: repeated numbers of attributes and the sizes
//! of tensors are *not* packed there, and at least one engine refuses packed ones, while `prost` packs unless told otherwise.
//! Scalars are optional so that zeros are written too. Fields that are not named here are skipped when reading.

/// `ModelProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Model {
    #[prost(int64, optional, tag = "1")]
    pub(crate) ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) producer_version: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<StringEntry>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    pub(crate) domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub(crate) version: Option<i64>,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StringEntry {
    #[prost(string, optional, tag = "1")]
    pub(crate) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(crate) value: Option<String>,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    pub(crate) name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) value_info: Vec<ValueInfo>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub(crate) name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(crate) op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<Attribute>,
    #[prost(string, optional, tag = "7")]
    pub(crate) domain: Option<String>,
}

/// `AttributeProto`; `kind` is the field `type`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Attribute {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(crate) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(crate) i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(int32, optional, tag = "20")]
    pub(crate) kind: Option<i32>,
}

impl Attribute {
    /// `AttributeType.FLOAT`.
    pub(crate) const FLOAT: i32 = 1;
    /// `AttributeType.INT`.
    pub(crate) const INT: i32 = 2;
    /// `AttributeType.INTS`.
    pub(crate) const INTS: i32 = 7;

    /// An integer.
    pub(crate) fn int(name: &str, value: usize) -> Self {
        Self { name: Some(name.into()), i: Some(value as i64), kind: Some(Self::INT), ..Self::default() }
    }

    /// A list of integers.
    pub(crate) fn ints<const N: usize>(name: &str, values: [usize; N]) -> Self {
        let ints = values.map(|value| value as i64).to_vec();
        Self { name: Some(name.into()), ints, kind: Some(Self::INTS), ..Self::default() }
    }

    /// A number.
    pub(crate) fn float(name: &str, value: f32) -> Self {
        Self { name: Some(name.into()), f: Some(value), kind: Some(Self::FLOAT), ..Self::default() }
    }
}

/// `TensorProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    pub(crate) data_type: Option<i32>,
    #[prost(string, optional, tag = "8")]
    pub(crate) name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(crate) raw_data: Option<Vec<u8>>,
}

/// `TensorProto.DataType.FLOAT`.
pub(crate) const FLOAT32: i32 = 1;
/// `TensorProto.DataType.INT64`.
pub(crate) const INT64: i32 = 7;

/// `ValueInfoProto`; `value_type` is the field `type`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValueInfo {
    #[prost(string, optional, tag = "1")]
    pub(crate) name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(crate) value_type: Option<ValueType>,
}

/// `TypeProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValueType {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorType {
    #[prost(int32, optional, tag = "1")]
    pub(crate) elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: one of the two.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(crate) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) dim_param: Option<String>,
}

impl ValueInfo {
    /// A float tensor whose first axis is the free batch axis and whose others are `axes`.
    pub(crate) fn batched(name: &str, axes: &[usize]) -> Self {
        let batch = Dimension { dim_value: None, dim_param: Some("batch".into()) };
        let fixed = axes.iter().map(|&axis| Dimension { dim_value: Some(axis as i64), dim_param: None });
        let shape = TensorShape { dim: std::iter::once(batch).chain(fixed).collect() };
        let tensor = TensorType { elem_type: Some(FLOAT32), shape: Some(shape) };
        Self { name: Some(name.into()), value_type: Some(ValueType { tensor: Some(tensor) }) }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn integers_are_not_packed() {
        // Field 8, wire type 0 (tag byte 0x40) before each element; packed would be one 0x42 and a length.
        let bytes = Attribute { ints: vec![1, 2], ..Attribute::default() }.encode_to_vec();
        assert_eq!(bytes, [0x40, 1, 0x40, 2]);
        let bytes = Tensor { dims: vec![3, 0], ..Tensor::default() }.encode_to_vec();
        assert_eq!(bytes, [0x08, 3, 0x08, 0]);
    }

    #[test]
    fn zeros_are_written() {
        let bytes = Attribute { i: Some(0), ..Attribute::default() }.encode_to_vec();
        assert_eq!(bytes, [0x18, 0]);
    }
}
