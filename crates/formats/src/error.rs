//! What can be wrong with a model file.

use std::path::PathBuf;

/// One variant per thing that can be wrong; each names field, offset, declared value and limit where they exist.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
