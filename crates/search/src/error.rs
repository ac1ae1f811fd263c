//! What can go wrong.

use std::path::PathBuf;

/// Why an index cannot be built, read or searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// A file or folder cannot be read or written.
    #[error("{path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no index, or a damaged one.
    #[error("{path}: {what}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A vector of another width than the index has: another model made it.
    #[error("a vector of {found} numbers, the index has {wanted}: embed with the index's own model")]
    Width {
        /// Of the vector.
        found: usize,
        /// Of the index.
        wanted: usize,
    },
}
