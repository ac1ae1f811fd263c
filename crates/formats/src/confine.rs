//! Which files may be opened: regular ones, and inside a model folder only what belongs to it.

use crate::FormatError;
use crate::error::shown;
use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

/// Levels between a folder of the Hugging Face cache's `snapshots` and a file in it.
const SNAPSHOT_LEVELS: usize = 4;

/// Fails unless `path`, which a person named, leads to a regular file: opening a pipe would wait for ever.
pub(crate) fn regular(path: &Path) -> Result<(), FormatError> {
    let meta = path.metadata().map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
    regular_file(path, &meta)
}

fn regular_file(path: &Path, meta: &Metadata) -> Result<(), FormatError> {
    if meta.is_file() { Ok(()) } else { Err(FormatError::NotRegular { path: path.to_owned() }) }
}

/// The file `name` in `folder`, where `name` comes from the model's file `field`.
pub(crate) fn named(folder: &Path, field: &str, name: &str) -> Result<PathBuf, FormatError> {
    if !is_plain(name) {
        return Err(FormatError::UnsafeName { field: field.to_owned(), name: shown(name) });
    }
    let path = folder.join(name);
    check(&path)?;
    Ok(path)
}

/// The folder `name` in `folder`, where `name` comes from the model's file `field`; it need not exist.
pub(crate) fn folder(folder: &Path, field: &str, name: &str) -> Result<PathBuf, FormatError> {
    let path = folder.join(name);
    let link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    if !is_plain(name) || link {
        return Err(FormatError::UnsafeName { field: field.to_owned(), name: shown(name) });
    }
    Ok(path)
}

fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\', ':', '\0'])
}

/// Fails unless the file at `path`, whose name a model chose, lies in its folder: a regular file with one name,
/// or a link as the Hugging Face cache makes them (`snapshots/<commit>/name` to `blobs/<hash>`).
pub(crate) fn check(path: &Path) -> Result<(), FormatError> {
    let io = |source| FormatError::Io { path: path.to_owned(), source };
    let meta = path.symlink_metadata().map_err(io)?;
    if !meta.is_symlink() {
        regular_file(path, &meta)?;
        return one_name(path, &meta);
    }
    let target = path.canonicalize().map_err(io)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = folder.canonicalize().map_err(io)?;
    let snapshots = folder.ancestors().take(SNAPSHOT_LEVELS).find(|level| level.ends_with("snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|repository| repository.join("blobs"));
    if blobs.is_none() || target.parent() != blobs.as_deref() {
        return Err(FormatError::UnsafeLink { path: path.to_owned() });
    }
    let meta = target.metadata().map_err(io)?;
    regular_file(path, &meta)?;
    one_name(path, &meta)
}

#[cfg(unix)]
fn one_name(path: &Path, meta: &Metadata) -> Result<(), FormatError> {
    match std::os::unix::fs::MetadataExt::nlink(meta) {
        0 | 1 => Ok(()),
        links => Err(FormatError::HardLink { path: path.to_owned(), links }),
    }
}

#[cfg(not(unix))]
fn one_name(_path: &Path, _meta: &Metadata) -> Result<(), FormatError> {
    Ok(())
}
