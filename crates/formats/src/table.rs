//! Tensors by name, wherever their bytes lie: one or several GGUF or safetensors files.

use crate::FormatError;
use kun_tensor::DType;
use kun_tensor::storage::DataFile;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first (a GGUF file lists them the other way round).
    pub shape: Vec<usize>,
    /// Index into the table's files.
    pub file: usize,
    /// First byte in that file; the whole range is checked to lie in the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Every tensor of a model.
#[derive(Debug, Default)]
pub struct TensorTable {
    /// By name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// The files that hold the data.
    pub files: Vec<DataFile>,
}

impl TensorTable {
    /// The tensor named `name`.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The bytes `range` of a tensor's data.
    ///
    /// # Errors
    /// [`FormatError::Io`] if the file has become shorter.
    pub fn bytes(&self, tensor: &TensorInfo, range: Range<u64>) -> Result<Cow<'_, [u8]>, FormatError> {
        let file = &self.files[tensor.file];
        file.bytes(tensor.offset + range.start..tensor.offset + range.end.min(tensor.len))
            .map_err(|source| FormatError::Io { path: file.path().to_owned(), source })
    }

    /// Drops the tensor's pages from memory.
    pub fn release(&self, tensor: &TensorInfo) {
        self.files[tensor.file].release(tensor.offset..tensor.offset + tensor.len);
    }
}
