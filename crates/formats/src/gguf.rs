//! GGUF, versions 2 and 3.

use crate::TensorTable;
use std::collections::BTreeMap;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of one element type, stored compactly.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The metadata of a file, by key, with accessors that check type and range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// By key.
    pub entries: BTreeMap<String, Value>,
}

/// A GGUF model: its metadata and where its tensors lie (split files joined).
#[derive(Debug, Default)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Of the first file.
    pub metadata: Metadata,
    /// Tensors of all files.
    pub tensors: TensorTable,
}
