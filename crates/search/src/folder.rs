//! The files of a folder.

use crate::SearchError;
use kun_tasks::pixels::decode::is_picture;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A longer file is left out.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Folders within folders.
const MAX_DEPTH: usize = 64;

/// Why a file is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    Other,
    TooLong,
    Unreadable,
}

/// Every regular file below `root` in the order of names, as paths from there with `/`. Hidden names and links are left
/// out.
///
/// # Errors
/// [`SearchError::Io`] if `root` itself cannot be read.
pub(crate) fn files(root: &Path) -> Result<Vec<(String, PathBuf)>, SearchError> {
    let mut found = Vec::new();
    let entries = fs::read_dir(root).map_err(|source| SearchError::Io { path: root.to_owned(), source })?;
    walk(entries, "", 0, &mut found);
    found.sort();
    Ok(found)
}

fn walk(entries: fs::ReadDir, prefix: &str, depth: usize, found: &mut Vec<(String, PathBuf)>) {
    for entry in entries.filter_map(Result::ok) {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        if kind.is_file() {
            found.push((path, entry.path()));
        } else if kind.is_dir() && depth < MAX_DEPTH {
            // A folder that may not be read is left out.
            if let Ok(entries) = fs::read_dir(entry.path()) {
                walk(entries, &format!("{path}/"), depth + 1, found);
            }
        }
    }
}

/// The bytes of a file, if they are UTF-8 text.
pub(crate) fn text(path: &Path) -> Result<Vec<u8>, Skipped> {
    let bytes = bytes(path)?;
    if bytes.contains(&0) || std::str::from_utf8(&bytes).is_err() {
        return Err(Skipped::Other);
    }
    Ok(bytes)
}

/// The bytes of a file whose first are those of a picture's format.
pub(crate) fn picture(path: &Path) -> Result<Vec<u8>, Skipped> {
    let bytes = bytes(path)?;
    if is_picture(&bytes) { Ok(bytes) } else { Err(Skipped::Other) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, Skipped> {
    let file = fs::File::open(path).map_err(|_| Skipped::Unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|_| Skipped::Unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(Skipped::TooLong) } else { Ok(bytes) }
}
