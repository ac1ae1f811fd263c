//! ONNX files: protobuf with a graph, and weights inside or in files beside it.

pub mod proto;
pub mod scan;
mod tensor;

pub use tensor::{MAX_RANK, dtype, info};

use crate::error::shown;
use crate::{FormatError, confine};
use bytes::Bytes;
use kun_tensor::storage::{Access, DataFile};
use kun_tensor::{DType, Tensor};
use prost::Message;
use proto::{
    AttributeProto, GraphProto, ModelProto, OptionalProto, SequenceProto, SparseTensorProto, TensorProto,
};
use scan::Kind;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest protobuf message that is read; weights beyond that lie in files of their own.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// An ONNX model on disk.
#[derive(Debug)]
pub struct OnnxFile {
    /// The decoded message. Raw data of tensors borrows from the file.
    pub model: ModelProto,
    folder: Option<PathBuf>,
    /// The mapped file, if it is one.
    file: Option<Arc<DataFile>>,
    externals: BTreeMap<String, DataFile>,
}

/// A mapped file as the owner of its bytes.
struct Mapped(Arc<DataFile>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        match self.0.bytes(0..self.0.len()) {
            Ok(Cow::Borrowed(bytes)) => bytes,
            // Only mapped files are wrapped; one that has shrunk since holds nothing.
            _ => &[],
        }
    }
}

impl OnnxFile {
    /// Opens the model at `path` and every file that it keeps weights in, which must lie in the same folder.
    ///
    /// # Errors
    /// [`FormatError`] naming what is wrong and where.
    pub fn open(path: &Path, access: Access) -> Result<OnnxFile, FormatError> {
        confine::regular(path)?;
        let io = |source| FormatError::Io { path: path.to_owned(), source };
        let file = DataFile::open(path, access).map_err(io)?;
        if file.is_empty() {
            return Err(FormatError::Empty { path: path.to_owned() });
        }
        if file.len() > MAX_FILE_BYTES {
            let error = FormatError::FileTooLarge { declared: file.len(), limit: MAX_FILE_BYTES };
            return Err(error.in_file(path));
        }
        let (bytes, file) = match access {
            Access::Mapped => {
                let file = Arc::new(file);
                (Bytes::from_owner(Mapped(Arc::clone(&file))), Some(file))
            }
            Access::Read => (Bytes::from(file.bytes(0..file.len()).map_err(io)?.into_owned()), None),
        };
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let model = Self::read(bytes, Some(folder), access).map_err(|error| error.in_file(path))?;
        Ok(OnnxFile { file, ..model })
    }

    /// Reads a model from memory; one with weights in other files is refused.
    ///
    /// # Errors
    /// [`FormatError`] naming what is wrong and where.
    pub fn parse(bytes: Bytes) -> Result<OnnxFile, FormatError> {
        Self::read(bytes, None, Access::Read)
    }

    fn read(bytes: Bytes, folder: Option<PathBuf>, access: Access) -> Result<OnnxFile, FormatError> {
        let model: ModelProto = decode(bytes, Kind::Model)?;
        let Some(graph) = &model.graph else { return Err(FormatError::NoGraph) };
        let mut names = Vec::new();
        external_names(graph, &mut names)?;
        for attribute in model.functions.iter().flat_map(|f| &f.node).flat_map(|n| &n.attribute) {
            external_names_of(attribute, &mut names)?;
        }
        let mut externals = BTreeMap::new();
        for name in names {
            if externals.contains_key(&name) {
                continue;
            }
            let Some(folder) = &folder else {
                return Err(FormatError::UnsafeName {
                    field: "external_data".to_owned(),
                    name: shown(&name),
                });
            };
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let path = confine::named(folder, "external_data", &name)?;
            let file = DataFile::open(&path, access)
                .map_err(|source| FormatError::Io { path: path.clone(), source })?;
            externals.insert(name, file);
        }
        Ok(OnnxFile { model, folder, file: None, externals })
    }

    /// The graph.
    pub fn graph(&self) -> Option<&GraphProto> {
        self.model.graph.as_ref()
    }

    /// The folder that the model lies in, if it came from one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The little-endian bytes of a tensor's elements, one code a byte for types below 8 bits; not for text.
    ///
    /// # Errors
    /// [`FormatError`] if its fields disagree or its file is too short.
    pub fn bytes<'a>(&'a self, tensor: &'a TensorProto) -> Result<Cow<'a, [u8]>, FormatError> {
        let (dtype, _) = info(tensor)?;
        if dtype == DType::Text {
            return tensor::fail(tensor, "text where numbers are needed");
        }
        if tensor.data_location == 1 {
            return tensor::from_stored(tensor, self.external(tensor)?);
        }
        match &tensor.raw_data {
            Some(raw) => tensor::from_stored(tensor, Cow::Borrowed(raw)),
            None => tensor::from_fields(tensor).map(Cow::Owned),
        }
    }

    /// A whole tensor.
    ///
    /// # Errors
    /// As [`OnnxFile::bytes`].
    pub fn tensor(&self, tensor: &TensorProto) -> Result<Tensor, FormatError> {
        if info(tensor)?.0 == DType::Text {
            return tensor::text(tensor);
        }
        tensor::from_bytes(tensor, &self.bytes(tensor)?)
    }

    /// A whole sparse tensor, made dense.
    ///
    /// # Errors
    /// As [`OnnxFile::bytes`].
    pub fn sparse_tensor(&self, sparse: &SparseTensorProto) -> Result<Tensor, FormatError> {
        let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
            return Err(FormatError::OnnxTensor {
                name: String::new(),
                what: "a sparse tensor without values or indices".to_owned(),
            });
        };
        tensor::dense(sparse, &self.tensor(values)?, &self.tensor(indices)?)
    }

    /// Lets the system drop the pages that `tensor` was read from; they are read again when looked at.
    pub fn release(&self, tensor: &TensorProto) {
        if let Ok(Some((file, start, length))) = self.place(tensor) {
            file.release(start..start.saturating_add(length));
            return;
        }
        // Raw data borrows from the map: where it lies in the file follows from its address.
        if let (Some(file), Some(raw)) = (&self.file, &tensor.raw_data)
            && let Ok(Cow::Borrowed(all)) = file.bytes(0..file.len())
            && let Some(start) = raw.as_ptr().addr().checked_sub(all.as_ptr().addr())
            && let Some(end) = start.checked_add(raw.len()).filter(|&end| end <= all.len())
            && let (Ok(start), Ok(end)) = (u64::try_from(start), u64::try_from(end))
        {
            file.release(start..end);
        }
    }

    fn external(&self, tensor: &TensorProto) -> Result<Cow<'_, [u8]>, FormatError> {
        let Some((file, start, length)) = self.place(tensor)? else {
            return tensor::fail(tensor, "`external_data` has no `location` that was opened");
        };
        let end = match start.checked_add(length) {
            Some(end) if end <= file.len() => end,
            end => {
                return Err(FormatError::TensorOutOfBounds {
                    name: shown(&tensor.name),
                    end: end.unwrap_or(u64::MAX),
                    len: file.len(),
                });
            }
        };
        file.bytes(start..end).map_err(|source| FormatError::Io { path: file.path().to_owned(), source })
    }

    /// File, offset and length of a tensor outside the model.
    fn place(&self, tensor: &TensorProto) -> Result<Option<(&DataFile, u64, u64)>, FormatError> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| match entry(key).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => tensor::fail(tensor, format!("`{key}` is no number")),
        };
        let Some(file) = entry("location").and_then(|name| self.externals.get(name)) else {
            return Ok(None);
        };
        let (dtype, dims) = info(tensor)?;
        let needed = tensor::stored_bytes(dtype, dims.iter().product())
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(u64::MAX);
        let length = number("length")?.unwrap_or(needed);
        if length != needed {
            return tensor::fail(tensor, format!("`length` is {length}, {dtype} {dims:?} takes {needed}"));
        }
        Ok(Some((file, number("offset")?.unwrap_or(0), length)))
    }
}

/// Decodes a message after looking it over.
fn decode<M: Message + Default>(bytes: Bytes, kind: Kind) -> Result<M, FormatError> {
    scan::check(&bytes, kind)?;
    M::decode(bytes).map_err(|e| FormatError::Wire {
        field: "message",
        offset: 0,
        what: shown(&e.to_string()),
    })
}

/// Reads a file that holds one `TensorProto`.
///
/// # Errors
/// [`FormatError`] if it does not.
pub fn read_tensor(bytes: Bytes) -> Result<TensorProto, FormatError> {
    decode(bytes, Kind::Tensor)
}

/// Reads a file that holds one `SequenceProto`.
///
/// # Errors
/// [`FormatError`] if it does not.
pub fn read_sequence(bytes: Bytes) -> Result<SequenceProto, FormatError> {
    decode(bytes, Kind::Sequence)
}

/// Reads a file that holds one `OptionalProto`.
///
/// # Errors
/// [`FormatError`] if it does not.
pub fn read_optional(bytes: Bytes) -> Result<OptionalProto, FormatError> {
    decode(bytes, Kind::Optional)
}

/// The tensor of a message that stands alone, its data inside it.
///
/// # Errors
/// [`FormatError`] if its fields disagree.
pub fn lone_tensor(tensor: &TensorProto) -> Result<Tensor, FormatError> {
    let none =
        OnnxFile { model: ModelProto::default(), folder: None, file: None, externals: BTreeMap::new() };
    none.tensor(tensor)
}

/// The files that the tensors of a graph, and of the graphs in it, lie in.
fn external_names(graph: &GraphProto, names: &mut Vec<String>) -> Result<(), FormatError> {
    for tensor in &graph.initializer {
        external_name(tensor, names)?;
    }
    for sparse in &graph.sparse_initializer {
        sparse.values.iter().chain(&sparse.indices).try_for_each(|t| external_name(t, names))?;
    }
    graph.node.iter().flat_map(|node| &node.attribute).try_for_each(|a| external_names_of(a, names))
}

fn external_names_of(attribute: &AttributeProto, names: &mut Vec<String>) -> Result<(), FormatError> {
    attribute.t.iter().try_for_each(|t| external_name(t, names))?;
    attribute.tensors.iter().try_for_each(|t| external_name(t, names))?;
    attribute.g.iter().try_for_each(|g| external_names(g, names))
}

fn external_name(tensor: &TensorProto, names: &mut Vec<String>) -> Result<(), FormatError> {
    match tensor.data_location {
        0 => Ok(()),
        1 => match tensor.external_data.iter().find(|entry| entry.key == "location") {
            Some(entry) => {
                names.push(entry.value.clone());
                Ok(())
            }
            None => tensor::fail(tensor, "`external_data` has no `location`"),
        },
        other => tensor::fail(tensor, format!("`data_location` is {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::proto::{GraphProto, ModelProto, TensorProto};
    use super::{Access, OnnxFile};
    use prost::Message;

    #[test]
    fn released_weights_are_read_again() {
        let raw: Vec<u8> = (0..1u32 << 15).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let tensor = TensorProto {
            name: "w".to_owned(),
            dims: vec![1 << 15],
            data_type: 1,
            raw_data: Some(raw.clone().into()),
            ..TensorProto::default()
        };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        let model = ModelProto { ir_version: 8, graph: Some(graph), ..ModelProto::default() };
        let path = std::env::temp_dir().join(format!("kun-release-{}.onnx", std::process::id()));
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        for access in [Access::Mapped, Access::Read] {
            let file = OnnxFile::open(&path, access).unwrap();
            let tensor = &file.graph().unwrap().initializer[0];
            for _ in 0..2 {
                assert_eq!(file.bytes(tensor).unwrap(), &raw[..]);
                file.release(tensor);
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}
