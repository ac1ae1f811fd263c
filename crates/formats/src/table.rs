//! Tensors by name, wherever their bytes lie: one or several GGUF or safetensors files.

use crate::FormatError;
use kun_tensor::DType;
use kun_tensor::storage::DataFile;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

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

    /// The bytes `range` of a tensor's data, counted from its first byte; an end beyond the tensor is cut to it.
    ///
    /// # Errors
    /// [`FormatError::Io`] if the file has become shorter, or if `tensor` or `range` is none of this table.
    pub fn bytes(&self, tensor: &TensorInfo, range: Range<u64>) -> Result<Cow<'_, [u8]>, FormatError> {
        let eof = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let Some(file) = self.files.get(tensor.file) else {
            return Err(FormatError::Io { path: PathBuf::new(), source: eof() });
        };
        let start = tensor.offset.checked_add(range.start);
        let end = tensor.offset.checked_add(range.end.min(tensor.len));
        let range = start.zip(end).filter(|(start, end)| start <= end);
        range
            .ok_or_else(eof)
            .and_then(|(start, end)| file.bytes(start..end))
            .map_err(|source| FormatError::Io { path: file.path().to_owned(), source })
    }

    /// Drops the tensor's pages from memory; they are read again when looked at.
    pub fn release(&self, tensor: &TensorInfo) {
        let end = tensor.offset.checked_add(tensor.len);
        if let Some((file, end)) = self.files.get(tensor.file).zip(end) {
            file.release(tensor.offset..end);
        }
    }
}
