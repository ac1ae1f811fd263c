//! Folders of this machine.

use super::{Created, Draft, Faults, Object, ObjectInfo, ReadAt};
use crate::BulkError;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// Names of drafts begin so.
const DRAFT: &str = ".kun-draft-";

fn input_error(uri: &str, error: &io::Error) -> BulkError {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    BulkError::Input { uri: uri.to_owned(), what }
}

fn etag(meta: &fs::Metadata) -> String {
    let modified =
        meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{:x}-{:x}", modified.as_nanos(), meta.len())
}

/// What is at `path`, which people know as `uri`.
pub(super) fn info(uri: &str, path: &Path) -> Result<ObjectInfo, BulkError> {
    let meta = fs::metadata(path).map_err(|error| input_error(uri, &error))?;
    // A pipe or a device would wait for ever, and cannot be read twice.
    if !meta.is_file() {
        return Err(BulkError::Input { uri: uri.to_owned(), what: "it is no regular file".to_owned() });
    }
    Ok(ObjectInfo { uri: uri.to_owned(), size: meta.len(), etag: etag(&meta) })
}

struct LocalFile(File);

impl ReadAt for LocalFile {
    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buffer, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.0, buffer, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn open(info: &ObjectInfo, path: &Path) -> Result<Object, BulkError> {
    let now = self::info(&info.uri, path)?;
    if now != *info {
        let what = "it changed after the job had begun".to_owned();
        return Err(BulkError::Input { uri: info.uri.clone(), what });
    }
    let file = File::open(path).map_err(|error| input_error(&info.uri, &error))?;
    Ok(Object::new(Arc::new(LocalFile(file)), info.size))
}

/// A folder that is made when something is written to it.
#[derive(Clone)]
pub(super) struct LocalFolder {
    pub(super) root: PathBuf,
    pub(super) faults: Faults,
}

/// Kept as long as a lock is held; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl LocalFolder {
    pub(super) fn inside(&self, name: &str) -> LocalFolder {
        LocalFolder { root: self.root.join(name), faults: self.faults.clone() }
    }

    pub(super) fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.root.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("more than {limit} bytes")));
        }
        Ok(Some(bytes))
    }

    pub(super) fn draft(&self) -> io::Result<Draft> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        self.faults.before("open")?;
        fs::create_dir_all(&self.root)?;
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(format!("{DRAFT}{}-{count}-{now:x}", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Draft { path, file: Some(file), faults: self.faults.clone(), written: 0 })
    }

    fn written(&self, bytes: &[u8]) -> io::Result<Draft> {
        let mut draft = self.draft()?;
        draft.write_all(bytes)?;
        Ok(draft)
    }

    /// The draft's bytes are on the disk before any name leads to them.
    fn sync(&self, draft: &mut Draft) -> io::Result<()> {
        let Some(file) = draft.file.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        self.faults.before("sync")?;
        file.sync_all()?;
        self.faults.after("sync")
    }

    /// So that a name survives a loss of power.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.faults.before("sync folder")?;
        if let (true, Some(folder)) = (cfg!(unix), path.parent()) {
            File::open(folder)?.sync_all()?;
        }
        self.faults.after("sync folder")
    }

    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Created> {
        self.publish(self.written(bytes)?, name)
    }

    pub(super) fn publish(&self, mut draft: Draft, name: &str) -> io::Result<Created> {
        self.sync(&mut draft)?;
        let path = self.root.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        self.faults.before("link")?;
        let created = match fs::hard_link(&draft.path, &path) {
            Ok(()) => Created::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Created::Existed,
            // Some file systems have no second names: there, the last one stays, which has the same rows.
            Err(_) if path.exists() => Created::Existed,
            Err(_) => fs::rename(&draft.path, &path).map(|()| Created::New)?,
        };
        self.faults.after("link")?;
        self.sync_folder(&path)?;
        Ok(created)
    }

    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.publish_over(self.written(bytes)?, name)
    }

    pub(super) fn publish_over(&self, mut draft: Draft, name: &str) -> io::Result<()> {
        self.sync(&mut draft)?;
        let path = self.root.join(name);
        self.faults.before("rename")?;
        fs::rename(&draft.path, &path)?;
        self.faults.after("rename")?;
        self.sync_folder(&path)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.before("remove")?;
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.faults.after("remove")
    }

    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.all_names()?;
        names.retain(|name| !name.starts_with(DRAFT));
        names.sort();
        Ok(names)
    }

    fn all_names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    pub(super) fn remove_drafts(&self) -> io::Result<()> {
        for name in self.all_names()?.iter().filter(|name| name.starts_with(DRAFT)) {
            self.remove(name)?;
        }
        Ok(())
    }

    pub(super) fn lock(&self, name: &str) -> Result<Lock, BulkError> {
        let path = self.root.join(name);
        let failed = |source| BulkError::store("lock", path.display(), source);
        fs::create_dir_all(&self.root).map_err(failed)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let what = format!("another kun works on this job ({} is locked)", path.display());
                return Err(BulkError::Busy { what });
            }
            // A file system without locks: files that are created once keep two apart.
            Err(fs::TryLockError::Error(_)) => {}
        }
        Ok(Lock(file))
    }
}
