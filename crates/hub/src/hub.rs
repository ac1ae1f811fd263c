//! The front door.

use std::path::PathBuf;

/// Settings, read from flags, environment and files by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// `HF_HUB_CACHE`, or `$HF_HOME/hub`, or `~/.cache/huggingface/hub`.
    pub cache_dir: PathBuf,
    /// `HF_ENDPOINT`; `None`: the Hub itself.
    pub endpoint: Option<String>,
    /// `HF_TOKEN` or the token file's content.
    pub token: Option<String>,
    /// No connection at all (`--offline`, `HF_HUB_OFFLINE`).
    pub offline: bool,
}

/// A model on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPath {
    /// A `.gguf` file or a folder.
    pub path: PathBuf,
    /// The name that people see.
    pub name: String,
    /// Where it came from, in words (`Hugging Face Hub`, `Python package index`, `local file`).
    pub source: String,
    /// Licence, where the catalogue states it.
    pub license: Option<String>,
}

/// One model in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredModel {
    /// The name that `kun run` takes.
    pub name: String,
    /// A `.gguf` file or a folder.
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Commit or version.
    pub revision: Option<String>,
    /// Last change, seconds since 1970.
    pub modified_unix_s: u64,
}

/// What happens during a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A line for people: what was chosen, where it comes from, which source failed and why.
    Note(String),
    /// A file starts: its name, bytes already here, bytes in all (if known).
    Start {
        /// Name for people.
        name: String,
        /// Resumed from here.
        resumed_bytes: u64,
        /// Size, if the source says it.
        total_bytes: Option<u64>,
    },
    /// This many more bytes are here.
    Advance(u64),
    /// The file is verified and in place.
    Finish,
}

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
}

/// Finds, fetches, lists, checks and removes models.
#[derive(Clone, Debug)]
pub struct Hub {
    options: HubOptions,
}

impl Hub {
    /// A hub with these settings.
    pub fn new(options: HubOptions) -> Hub {
        Hub { options }
    }
    /// The settings.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }
    /// The model's place on this disk, if it is here already; opens no connection.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn locate(&self, name: &str) -> Result<Option<ModelPath>, HubError> {
        let _ = name;
        Ok(None)
    }
    /// The model's place on this disk, fetched if need be. Blocks; `progress` is called from this thread.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn fetch(&self, name: &str, progress: &mut dyn FnMut(Progress)) -> Result<ModelPath, HubError> {
        let _ = progress;
        Err(HubError::NotFound { name: name.to_owned(), why: String::new() })
    }
    /// Every model in the store.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn list(&self) -> Result<Vec<StoredModel>, HubError> {
        Ok(Vec::new())
    }
    /// Removes a stored model; gives the bytes freed. Blobs that other revisions use stay.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn remove(&self, name: &str) -> Result<u64, HubError> {
        let _ = name;
        Ok(0)
    }
    /// Checks the SHA-256 of every file of a stored model against what its source stated; gives files checked and those that differ.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn verify(&self, name: &str) -> Result<(usize, Vec<PathBuf>), HubError> {
        let _ = name;
        Ok((0, Vec::new()))
    }
}
