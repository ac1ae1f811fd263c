//! What kind of model a file or folder holds.

use crate::EngineError;
use kun_tensor::storage::Access;
use std::path::Path;

/// Whether the model at `path` is one that [`crate::Engine::load_encoder`] loads.
///
/// # Errors
/// [`EngineError::Format`] for what is no model.
pub fn is_encoder(path: &Path) -> Result<bool, EngineError> {
    Ok(kun_models::encoder::is_encoder(&kun_formats::open(path, Access::Mapped)?))
}
