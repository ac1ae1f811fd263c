//! safetensors files, alone or sharded by an index.
//!
//! The layout (<https://huggingface.co/docs/safetensors>) is checked to the letter: a header of JSON that begins with
//! `{`, no name twice, and tensors that cover the rest of the file without hole or overlap.

mod index;
mod parse;

pub use parse::parse;

use crate::error::{FormatError, shown};
use crate::{TensorInfo, TensorTable, confine};
use kun_tensor::storage::{Access, DataFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The index of a sharded model.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Opens the `files`, which lie in the model's own folder.
///
/// # Errors
/// [`FormatError::File`] with what is wrong in which file.
pub fn open(files: &[PathBuf], access: Access) -> Result<TensorTable, FormatError> {
    let mut table = TensorTable::default();
    for path in files {
        add(&mut table, path, "", access)?;
    }
    Ok(table)
}

/// Opens the shards that the index of `folder` names.
pub(crate) fn open_index(folder: &Path, access: Access) -> Result<TensorTable, FormatError> {
    let path = folder.join(INDEX);
    let index = index::read(&path)?;
    let mut table = TensorTable::default();
    for name in &index.files {
        let shard = confine::named(folder, "weight_map", name).map_err(|error| error.in_file(&path))?;
        add(&mut table, &shard, "", access)?;
    }
    for (name, file) in &index.tensors {
        if table.get(name).is_none_or(|info| info.file != *file) {
            let file = index.files.get(*file).map(|file| shown(file)).unwrap_or_default();
            return Err(FormatError::NotInShard { name: shown(name), file }.in_file(&path));
        }
    }
    Ok(table)
}

/// Adds the tensors of a file, `prefix` before their names.
pub(crate) fn add(
    table: &mut TensorTable,
    path: &Path,
    prefix: &str,
    access: Access,
) -> Result<(), FormatError> {
    confine::check(path)?;
    let file =
        DataFile::open(path, access).map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
    if file.is_empty() {
        return Err(FormatError::Empty { path: path.to_owned() });
    }
    let tensors = parse::read(&file).map_err(|error| error.in_file(path))?;
    join(table, prefix, tensors).map_err(|error| error.in_file(path))?;
    table.files.push(file);
    Ok(())
}

fn join(
    table: &mut TensorTable,
    prefix: &str,
    tensors: BTreeMap<String, TensorInfo>,
) -> Result<(), FormatError> {
    let file = table.files.len();
    for (name, mut info) in tensors {
        let name = format!("{prefix}{name}");
        if table.tensors.contains_key(&name) {
            let offset = info.offset;
            return Err(FormatError::Duplicate { what: "tensor", name: shown(&name), offset });
        }
        info.file = file;
        table.tensors.insert(name, info);
    }
    Ok(())
}
