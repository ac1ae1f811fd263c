//! What can go wrong between a model's name and its bytes on this disk.

use std::path::{Path, PathBuf};

/// What can go wrong. `cli` maps the kinds to exit codes 3 (missing, not permitted) and 5 (network).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No source has this model.
    #[error("no model `{name}`: {why}")]
    NotFound {
        /// As asked for.
        name: String,
        /// What was tried; what to do.
        why: String,
    },
    /// The source has it, but not for us.
    #[error("not permitted to fetch `{name}`: {why}")]
    NotPermitted {
        /// As asked for.
        name: String,
        /// What to do about it.
        why: String,
    },
    /// A source could not be reached, or broke off.
    #[error("cannot fetch `{name}`: {why}")]
    Network {
        /// As asked for, or the host.
        name: String,
        /// What was tried; which files to bring where for a machine without a network.
        why: String,
    },
    /// Bytes that are not what their source stated.
    #[error("`{file}` is not what its source stated: expected {expected}, got {actual}")]
    Integrity {
        /// The file.
        file: String,
        /// What was stated.
        expected: String,
        /// What came.
        actual: String,
    },
    /// Not enough room.
    #[error("no room in {}: {needed_bytes} bytes needed, {free_bytes} bytes free", path.display())]
    Disk {
        /// The folder.
        path: PathBuf,
        /// Bytes still to be written.
        needed_bytes: u64,
        /// Bytes free for this user.
        free_bytes: u64,
    },
    /// Not a model name.
    #[error("`{name}` is not a model name: {why}")]
    Name {
        /// As asked for.
        name: String,
        /// What is wrong; what to write instead.
        why: String,
    },
    /// A setting that cannot be used.
    #[error("setting `{setting}`: {why}")]
    Setting {
        /// The environment variable, file or option.
        setting: String,
        /// What is wrong.
        why: String,
    },
    /// Reading or writing this disk.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// The kinds of [`HubError`], for exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No source has the model.
    Missing,
    /// The source wants a token or an accepted licence.
    NotPermitted,
    /// A source could not be reached.
    Network,
    /// Bytes differ from what was stated.
    Integrity,
    /// No room.
    Disk,
    /// A name or a setting is wrong.
    Misuse,
    /// This disk.
    Io,
}

impl HubError {
    /// Which kind this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            HubError::NotFound { .. } => ErrorKind::Missing,
            HubError::NotPermitted { .. } => ErrorKind::NotPermitted,
            HubError::Network { .. } => ErrorKind::Network,
            HubError::Integrity { .. } => ErrorKind::Integrity,
            HubError::Disk { .. } => ErrorKind::Disk,
            HubError::Name { .. } | HubError::Setting { .. } => ErrorKind::Misuse,
            HubError::Io { .. } => ErrorKind::Io,
        }
    }

    /// An input/output error at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> HubError + '_ {
        move |source| HubError::Io { path: path.to_owned(), source }
    }

    /// The reason alone, in one line, for a list of sources that failed.
    pub(crate) fn reason(&self) -> String {
        match self {
            HubError::NotFound { why, .. }
            | HubError::NotPermitted { why, .. }
            | HubError::Network { why, .. } => why.clone(),
            HubError::Io { path, source } => format!("{}: {source}", path.display()),
            other => other.to_string(),
        }
    }
}
