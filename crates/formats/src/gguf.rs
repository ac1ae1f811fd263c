//! GGUF, versions 2 and 3, in one file or split into several.
//!
//! The layout is described at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Metadata is copied out of
//! the file at once, so that a file which changes later cannot change what was checked.

mod metadata;
mod parse;
mod split;
mod types;

pub use metadata::{Array, Metadata, Value};
pub(crate) use parse::elements;
pub use parse::{Header, parse};

use crate::error::FormatError;
use crate::{TensorTable, confine};
use kun_tensor::storage::{Access, DataFile};
use std::fs::File;
use std::io::Read;
use std::path::Path;

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

impl Gguf {
    /// Opens a GGUF file and, if it is the first of a split set (`..-00001-of-00003.gguf`), the others beside it.
    ///
    /// # Errors
    /// [`FormatError::File`] with what is wrong in which file; [`FormatError::Io`] for a part that is missing.
    pub fn open(path: &Path, access: Access) -> Result<Gguf, FormatError> {
        confine::regular(path)?;
        let file = open_file(path, access)?;
        let header = parse::read(&file).map_err(|error| error.in_file(path))?;
        let parts = split::parts(path, &header.metadata).map_err(|error| error.in_file(path))?;
        let mut gguf = Gguf { version: header.version, metadata: header.metadata, ..Gguf::default() };
        gguf.add(file, header.tensors)?;
        for (number, part) in (1u64..).zip(&parts) {
            confine::check(part)?;
            let file = open_file(part, access)?;
            let header = parse::read(&file).map_err(|error| error.in_file(part))?;
            split::check_part(&header.metadata, number, &gguf.metadata)
                .map_err(|error| error.in_file(part))?;
            gguf.add(file, header.tensors)?;
        }
        split::check_total(&gguf).map_err(|error| error.in_file(path))?;
        Ok(gguf)
    }

    fn add(&mut self, file: DataFile, tensors: parse::Tensors) -> Result<(), FormatError> {
        let index = self.tensors.files.len();
        if index == 0 {
            self.tensors.tensors = tensors;
        } else {
            for (name, mut info) in tensors {
                info.file = index;
                let offset = info.offset;
                if self.tensors.tensors.contains_key(&name) {
                    let error =
                        FormatError::Duplicate { what: "tensor", name: crate::error::shown(&name), offset };
                    return Err(error.in_file(file.path()));
                }
                self.tensors.tensors.insert(name, info);
            }
        }
        self.tensors.files.push(file);
        Ok(())
    }
}

/// The architecture that the file at `path` names in its first entry, as all writers do; the rest is not read.
pub(crate) fn architecture(path: &Path) -> Option<String> {
    const KEY: &[u8; 20] = b"general.architecture";
    const STRING: u32 = 8;
    confine::regular(path).ok()?;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(128).read_to_end(&mut bytes).ok()?;
    // Behind the magic: version, number of tensors, number of entries.
    let entry = bytes.strip_prefix(b"GGUF")?.get(4 + 8 + 8..)?;
    let entry = entry.strip_prefix(&20u64.to_le_bytes())?.strip_prefix(KEY)?;
    let (len, name) = entry.strip_prefix(&STRING.to_le_bytes())?.split_first_chunk()?;
    let name = name.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    String::from_utf8(name.to_vec()).ok()
}

fn open_file(path: &Path, access: Access) -> Result<DataFile, FormatError> {
    let file =
        DataFile::open(path, access).map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
    if file.is_empty() {
        return Err(FormatError::Empty { path: path.to_owned() });
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
