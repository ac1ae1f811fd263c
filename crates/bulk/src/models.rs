//! Models by name, and what a result depends on in them.

use crate::BulkError;
use crate::error::OutsideError;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Finds models. The command line does it with its hub, fetching what is not there.
pub trait Models: Send + Sync {
    /// The model of that name, or the usual one for `task` (`embed`, `detect`, ..).
    ///
    /// # Errors
    /// The finder's own.
    fn find(&self, task: &str, name: Option<&str>) -> Result<FoundModel, OutsideError>;
}

/// A model on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundModel {
    /// The name that people see.
    pub name: String,
    /// A file or a folder.
    pub path: PathBuf,
}

/// No models: for functions that need none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoModels;

impl Models for NoModels {
    fn find(&self, task: &str, _name: Option<&str>) -> Result<FoundModel, OutsideError> {
        Err(format!("`{task}` needs a model, and there are none here").into())
    }
}

/// Files of a model folder that count, at most.
const MAX_FILES: usize = 10_000;
/// Files up to this size are read whole; of larger ones, the two ends.
const WHOLE_BYTES: u64 = 8 << 20;
const END_BYTES: u64 = 1 << 20;

/// A digest of the files at `path` that changes with their content. It is quick: a file that is a link to a blob named by
/// its SHA-256, as in the Hugging Face cache, counts by that name, and a large file by its size, time and both ends.
///
/// # Errors
/// [`BulkError::Store`].
pub fn digest(path: &Path) -> Result<String, BulkError> {
    let failed = |source| BulkError::store("read", path.display(), source);
    let mut files = Vec::new();
    collect(path, &mut files).map_err(failed)?;
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        add_file(&file, &mut hasher).map_err(failed)?;
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.is_file() {
                files.push(path);
            }
            if files.len() + folders.len() > MAX_FILES {
                return Err(std::io::Error::other("more files than a model has"));
            }
        }
    }
    Ok(())
}

fn add_file(path: &Path, hasher: &mut blake3::Hasher) -> std::io::Result<()> {
    let blob = std::fs::read_link(path)
        .ok()
        .and_then(|to| to.file_name().map(|name| name.to_string_lossy().into_owned()));
    if let Some(name) = blob.filter(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())) {
        hasher.update(name.as_bytes());
        return Ok(());
    }
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    hasher.update(&meta.len().to_le_bytes());
    let mut bytes = Vec::new();
    if meta.len() <= WHOLE_BYTES {
        file.take(WHOLE_BYTES).read_to_end(&mut bytes)?;
    } else {
        (&mut file).take(END_BYTES).read_to_end(&mut bytes)?;
        file.seek(SeekFrom::End(-(END_BYTES as i64)))?;
        file.take(END_BYTES).read_to_end(&mut bytes)?;
        let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        hasher.update(&modified.as_nanos().to_le_bytes());
    }
    hasher.update(&bytes);
    Ok(())
}
