//! Where inputs lie and outputs go: folders of this machine and, with the feature `cloud`, buckets and web addresses.
//!
//! What is written appears under its name as a whole or not at all, and a file that must not be written twice goes to
//! whoever comes first.

mod allow;
mod faults;
mod local;
mod object;
#[cfg(feature = "cloud")]
mod remote;

pub use allow::Allow;
pub use faults::Faults;
pub use local::Lock;
pub use object::{Object, ReadAt, Section};

use crate::BulkError;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
#[cfg(feature = "cloud")]
use std::sync::Arc;

/// A file or an object, and what tells whether it changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ObjectInfo {
    /// Its address as it was asked for: a path or `s3://bucket/key`.
    pub uri: String,
    /// Bytes.
    pub size: u64,
    /// Changes with the content: the bucket's own, or time and length of a file.
    pub etag: String,
}

/// Whether a file was written, or had been written before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is ours.
    New,
    /// Somebody's is there; ours was dropped.
    Existed,
}

/// How buckets are reached.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Settings such as `AWS_REGION` and `GOOGLE_APPLICATION_CREDENTIALS`, by name.
    pub settings: BTreeMap<String, String>,
    /// Open no connection.
    pub offline: bool,
    /// Where tests make things fail.
    pub faults: Faults,
    /// The folder that relative paths of files begin at; `None`: this process's own.
    pub base: Option<PathBuf>,
    /// Where may be read and written; `None`: anywhere.
    pub allow: Option<Allow>,
}

/// Reads from and writes to any address.
#[derive(Clone)]
pub struct Stores {
    options: StoreOptions,
    #[cfg(feature = "cloud")]
    remote: Arc<remote::Remotes>,
}

/// Whether an address is no path of this machine.
pub fn is_remote(uri: &str) -> bool {
    uri.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && scheme != "file")
}

/// The path of an address on this machine.
pub(crate) fn local_path(uri: &str) -> &Path {
    Path::new(uri.strip_prefix("file://").unwrap_or(uri))
}

#[cfg(not(feature = "cloud"))]
fn not_built(uri: &str) -> BulkError {
    BulkError::NotBuilt {
        what: format!("{uri}: this build reads and writes local files only"),
        feature: "cloud",
    }
}

impl Stores {
    /// With these settings.
    pub fn new(options: StoreOptions) -> Stores {
        #[cfg(feature = "cloud")]
        let remote = Arc::new(remote::Remotes::new(&options));
        Stores {
            options,
            #[cfg(feature = "cloud")]
            remote,
        }
    }

    /// The path of an address on this machine, from the folder that relative ones begin at.
    pub(crate) fn path(&self, uri: &str) -> PathBuf {
        let path = local_path(uri);
        self.options.base.as_ref().map_or_else(|| path.to_owned(), |base| base.join(path))
    }

    /// Sees that an address lies where this process may read and write.
    ///
    /// # Errors
    /// [`BulkError::Refused`].
    pub fn permit(&self, uri: &str) -> Result<(), BulkError> {
        let Some(allow) = &self.options.allow else { return Ok(()) };
        if is_remote(uri) { allow.permit_remote(uri) } else { allow.permit_local(&self.path(uri)) }
    }

    /// Whether an address was refused so far, and why: what functions say of rows is no place to lose it.
    ///
    /// # Errors
    /// [`BulkError::Refused`].
    pub(crate) fn refused(&self) -> Result<(), BulkError> {
        self.options.allow.as_ref().map_or(Ok(()), Allow::refused)
    }

    /// What is at an address now.
    ///
    /// # Errors
    /// [`BulkError::Input`] if nothing is, [`BulkError::Refused`].
    pub fn info(&self, uri: &str) -> Result<ObjectInfo, BulkError> {
        self.permit(uri)?;
        if !is_remote(uri) {
            return local::info(uri, &self.path(uri));
        }
        #[cfg(feature = "cloud")]
        return self.remote.info(uri);
        #[cfg(not(feature = "cloud"))]
        Err(not_built(uri))
    }

    /// Everything below a prefix of a bucket, in order of names.
    ///
    /// # Errors
    /// [`BulkError::Input`].
    pub fn list_remote(&self, uri: &str) -> Result<Vec<ObjectInfo>, BulkError> {
        #[cfg(feature = "cloud")]
        return self.remote.list(uri);
        #[cfg(not(feature = "cloud"))]
        Err(not_built(uri))
    }

    /// Opens a file or object for reading.
    ///
    /// # Errors
    /// [`BulkError::Input`].
    pub fn open(&self, info: &ObjectInfo) -> Result<Object, BulkError> {
        self.permit(&info.uri)?;
        if !is_remote(&info.uri) {
            return local::open(info, &self.path(&info.uri));
        }
        #[cfg(feature = "cloud")]
        return self.remote.open(info);
        #[cfg(not(feature = "cloud"))]
        Err(not_built(&info.uri))
    }

    /// A folder or prefix to write to.
    ///
    /// # Errors
    /// [`BulkError::NotBuilt`], [`BulkError::Job`] for an address that is none.
    pub fn folder(&self, uri: &str) -> Result<Folder, BulkError> {
        self.permit(uri)?;
        if !is_remote(uri) {
            let root = self.path(uri);
            return Ok(Folder(Kind::Local(local::LocalFolder { root, faults: self.options.faults.clone() })));
        }
        #[cfg(feature = "cloud")]
        return Ok(Folder(Kind::Remote(self.remote.folder(uri)?)));
        #[cfg(not(feature = "cloud"))]
        Err(not_built(uri))
    }
}

/// A folder, or a prefix of a bucket, that a job writes to.
#[derive(Clone)]
pub struct Folder(Kind);

#[derive(Clone)]
enum Kind {
    Local(local::LocalFolder),
    #[cfg(feature = "cloud")]
    Remote(remote::RemoteFolder),
}

impl Folder {
    /// A folder inside.
    pub fn inside(&self, name: &str) -> Folder {
        Folder(match &self.0 {
            Kind::Local(folder) => Kind::Local(folder.inside(name)),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => Kind::Remote(folder.inside(name)),
        })
    }

    /// Its path, if it lies on this machine.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Local(folder) => Some(&folder.root),
            #[cfg(feature = "cloud")]
            Kind::Remote(_) => None,
        }
    }

    /// The address of a file in it, for messages.
    pub fn uri(&self, name: &str) -> String {
        match &self.0 {
            Kind::Local(folder) => folder.root.join(name).display().to_string(),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.uri(name),
        }
    }

    /// The content of a small file, if it is there.
    ///
    /// # Errors
    /// [`BulkError::Store`], also for one longer than `limit`.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, BulkError> {
        let read = match &self.0 {
            Kind::Local(folder) => folder.read(name, limit),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.read(name, limit),
        };
        read.map_err(|source| BulkError::store("read", self.uri(name), source))
    }

    /// Writes a file that is not there yet.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn create(&self, name: &str, bytes: Vec<u8>) -> Result<Created, BulkError> {
        let written = match &self.0 {
            Kind::Local(folder) => folder.create(name, &bytes),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.create(name, bytes),
        };
        written.map_err(|source| BulkError::store("write", self.uri(name), source))
    }

    /// Writes a file, in place of what may be there.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn replace(&self, name: &str, bytes: Vec<u8>) -> Result<(), BulkError> {
        let written = match &self.0 {
            Kind::Local(folder) => folder.replace(name, &bytes),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.replace(name, bytes),
        };
        written.map_err(|source| BulkError::store("write", self.uri(name), source))
    }

    /// A file to write little by little; it appears when it is published.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn draft(&self) -> Result<Draft, BulkError> {
        let draft = match &self.0 {
            Kind::Local(folder) => folder.draft(),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.draft(),
        };
        draft.map_err(|source| BulkError::store("write", self.uri(""), source))
    }

    /// Gives a finished draft its name; with [`Created::Existed`] the first one of that name stays.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn publish(&self, draft: Draft, name: &str) -> Result<Created, BulkError> {
        let written = match &self.0 {
            Kind::Local(folder) => folder.publish(draft, name),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.publish(draft, name),
        };
        written.map_err(|source| BulkError::store("write", self.uri(name), source))
    }

    /// Gives a finished draft its name, in place of what may be there.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn publish_over(&self, draft: Draft, name: &str) -> Result<(), BulkError> {
        let written = match &self.0 {
            Kind::Local(folder) => folder.publish_over(draft, name),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.publish_over(draft, name),
        };
        written.map_err(|source| BulkError::store("write", self.uri(name), source))
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn remove(&self, name: &str) -> Result<(), BulkError> {
        let removed = match &self.0 {
            Kind::Local(folder) => folder.remove(name),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.remove(name),
        };
        removed.map_err(|source| BulkError::store("remove", self.uri(name), source))
    }

    /// Names of the files directly in it, in order; none if it does not exist. Unfinished drafts are left out.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn names(&self) -> Result<Vec<String>, BulkError> {
        let names = match &self.0 {
            Kind::Local(folder) => folder.names(),
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.names(),
        };
        names.map_err(|source| BulkError::store("list", self.uri(""), source))
    }

    /// A file in it, to be read.
    ///
    /// # Errors
    /// [`BulkError::Input`].
    pub fn open(&self, name: &str) -> Result<Object, BulkError> {
        match &self.0 {
            Kind::Local(folder) => {
                let path = folder.root.join(name);
                local::open(&local::info(&path.to_string_lossy(), &path)?, &path)
            }
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.open(name),
        }
    }

    /// Sees to it that one process at a time does what `name` stands for. Buckets know no locks: there, files that are
    /// created once keep two apart.
    ///
    /// # Errors
    /// [`BulkError::Busy`], [`BulkError::Store`].
    pub fn lock(&self, name: &str) -> Result<Option<Lock>, BulkError> {
        match &self.0 {
            Kind::Local(folder) => folder.lock(name).map(Some),
            #[cfg(feature = "cloud")]
            Kind::Remote(_) => Ok(None),
        }
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn clear(&self) -> Result<(), BulkError> {
        let cleared = match &self.0 {
            Kind::Local(folder) => match std::fs::remove_dir_all(&folder.root) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            #[cfg(feature = "cloud")]
            Kind::Remote(folder) => folder.clear(),
        };
        cleared.map_err(|source| BulkError::store("remove", self.uri(""), source))
    }

    /// Removes drafts that crashed processes left behind.
    ///
    /// # Errors
    /// [`BulkError::Store`].
    pub fn remove_drafts(&self) -> Result<(), BulkError> {
        match &self.0 {
            Kind::Local(folder) => {
                folder.remove_drafts().map_err(|source| BulkError::store("remove", self.uri(""), source))
            }
            #[cfg(feature = "cloud")]
            Kind::Remote(_) => Ok(()),
        }
    }
}

/// A file that has no name yet. It is gone when dropped.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: Option<std::fs::File>,
    faults: Faults,
    written: u64,
}

impl Draft {
    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.written
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Room beside it for what does not fit the memory.
    pub(crate) fn scratch(&self) -> Scratch {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push("-scratch");
        Scratch { path: self.path.with_file_name(name), file: None, faults: self.faults.clone() }
    }
}

/// A file for a while: it is made when something is written to it, and loses its name at once, so that it is gone with the
/// process, however that ends.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    file: Option<std::fs::File>,
    faults: Faults,
}

impl Scratch {
    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.before("write")?;
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut options = std::fs::File::options();
                let file = options.read(true).write(true).create_new(true).open(&self.path)?;
                let _ = std::fs::remove_file(&self.path);
                none.insert(file)
            }
        };
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)?;
        self.faults.after("write")
    }

    pub(crate) fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.faults.before("write")?;
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let written = file.write(bytes)?;
        self.written += written as u64;
        self.faults.after("write")?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.faults.before("remove").is_ok() {
            // A draft that was published has no name of its own any more.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
