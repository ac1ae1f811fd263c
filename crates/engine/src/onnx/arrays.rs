//! NumPy array files, in and out.

use crate::EngineError;
use kun_formats::{FormatError, npy};
use kun_tensor::Tensor;
use std::fs;
use std::path::Path;

/// Largest array file that is read.
const MAX_BYTES: u64 = 8 << 30;

/// Reads a NumPy array file.
///
/// # Errors
/// [`EngineError::Format`].
pub fn read(path: &Path) -> Result<Tensor, EngineError> {
    let io = |source| FormatError::Io { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(FormatError::NotRegular { path: path.to_owned() }.into());
    }
    if meta.len() > MAX_BYTES {
        return Err(FormatError::FileTooLarge { declared: meta.len(), limit: MAX_BYTES }.into());
    }
    let bytes = fs::read(path).map_err(io)?;
    let named = |source| FormatError::File { path: path.to_owned(), source: Box::new(source) };
    Ok(npy::read(&bytes).map_err(named)?)
}

/// Writes a NumPy array file.
///
/// # Errors
/// [`EngineError::Format`] if the file cannot be written, or for text.
pub fn write(path: &Path, tensor: &Tensor) -> Result<(), EngineError> {
    let bytes = npy::write(tensor)?;
    fs::write(path, bytes).map_err(|source| FormatError::Io { path: path.to_owned(), source })?;
    Ok(())
}
