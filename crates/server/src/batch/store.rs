//! Files and batches on the disk: `files/ID.json` beside `files/ID.data`, `batches/ID.json` beside a folder of what is done.

use super::document::{BatchRecord, FileRecord};
use super::{MAX_BATCHES_OF_KEY, MAX_BYTES_OF_KEY, MAX_FILES_OF_KEY};
use crate::hex;
use kun_engine::Tenant;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Everything that keys have left here.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, FileRecord>,
    batches: BTreeMap<String, BatchRecord>,
}

/// Whether an id is one of ours: it becomes the name of a file.
fn is_id(id: &str, kind: &str) -> bool {
    id.strip_prefix(kind).is_some_and(|rest| {
        (1..=64).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// The name of a key among records.
pub(super) fn owner(tenant: Tenant) -> String {
    hex::encode(&tenant.0)
}

/// The key of a name.
pub(super) fn tenant(owner: &str) -> Tenant {
    Tenant(hex::decode(owner).unwrap_or_default())
}

impl Store {
    /// What is at `root`, made if there is nothing. Only this user may read it.
    pub(super) fn open(root: &Path) -> io::Result<Store> {
        for folder in ["files", "batches", "uploads"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))?;
        }
        // Uploads of a process that is gone.
        for entry in std::fs::read_dir(root.join("uploads"))? {
            std::fs::remove_file(entry?.path())?;
        }
        let inner = Inner {
            files: records(&root.join("files"), |file: &FileRecord| (&file.id, "file-"))?,
            batches: records(&root.join("batches"), |batch: &BatchRecord| (&batch.id, "batch_"))?,
        };
        // A process that ended in the middle of the last step has left its notes.
        for batch in inner.batches.values().filter(|batch| batch.status.ended()) {
            gone(std::fs::remove_dir_all(root.join("batches").join(&batch.id)))?;
        }
        Ok(Store { root: root.to_owned(), inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an upload goes until it is whole.
    pub(super) fn upload(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    /// The content of a file.
    pub(super) fn content(&self, id: &str) -> PathBuf {
        self.root.join("files").join(format!("{id}.data"))
    }

    /// What is done of a batch.
    pub(super) fn work(&self, id: &str) -> PathBuf {
        self.root.join("batches").join(id)
    }

    /// A key's files, oldest first.
    pub(super) fn files(&self, owner: &str) -> Vec<FileRecord> {
        let mut own: Vec<FileRecord> =
            self.inner().files.values().filter(|file| file.owner == owner).cloned().collect();
        own.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        own
    }

    /// A key's file.
    pub(super) fn file(&self, owner: &str, id: &str) -> Option<FileRecord> {
        self.inner().files.get(id).filter(|file| file.owner == owner).cloned()
    }

    /// Whether a key may keep so many more bytes; else, why not.
    pub(super) fn room(&self, owner: &str, bytes: u64) -> Result<(), String> {
        let own = self.files(owner);
        if own.len() >= MAX_FILES_OF_KEY {
            return Err(format!("There are {MAX_FILES_OF_KEY} files already; delete some first."));
        }
        let used: u64 = own.iter().map(|file| file.bytes).sum();
        if used + bytes > MAX_BYTES_OF_KEY {
            return Err(format!("Files would take more than {MAX_BYTES_OF_KEY} bytes; delete some first."));
        }
        Ok(())
    }

    /// Keeps the file at `from`, which is moved.
    pub(super) fn keep(&self, record: FileRecord, from: &Path) -> io::Result<()> {
        std::fs::rename(from, self.content(&record.id))?;
        write(&self.root.join("files"), &record.id, &record)?;
        self.inner().files.insert(record.id.clone(), record);
        Ok(())
    }

    /// Forgets a file.
    pub(super) fn delete(&self, id: &str) -> io::Result<()> {
        self.inner().files.remove(id);
        for ending in ["json", "data"] {
            gone(std::fs::remove_file(self.root.join("files").join(format!("{id}.{ending}"))))?;
        }
        Ok(())
    }

    /// Every batch, oldest first.
    pub(super) fn batches(&self) -> Vec<BatchRecord> {
        let mut all: Vec<BatchRecord> = self.inner().batches.values().cloned().collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// The oldest batch of that kind.
    pub(super) fn oldest(&self, wanted: impl Fn(&BatchRecord) -> bool) -> Option<BatchRecord> {
        let inner = self.inner();
        let found = inner.batches.values().filter(|batch| wanted(batch));
        found.min_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id))).cloned()
    }

    /// How many batches are of that kind.
    pub(super) fn count(&self, wanted: impl Fn(&BatchRecord) -> bool) -> usize {
        self.inner().batches.values().filter(|batch| wanted(batch)).count()
    }

    /// A batch.
    pub(super) fn batch(&self, id: &str) -> Option<BatchRecord> {
        self.inner().batches.get(id).cloned()
    }

    /// Keeps a new batch; a key's oldest ended ones are forgotten when there are too many.
    pub(super) fn begin(&self, record: BatchRecord) -> io::Result<()> {
        write(&self.root.join("batches"), &record.id, &record)?;
        let owner = record.owner.clone();
        self.inner().batches.insert(record.id.clone(), record);
        let own: Vec<BatchRecord> = self.batches().into_iter().filter(|batch| batch.owner == owner).collect();
        let many = own.len().saturating_sub(MAX_BATCHES_OF_KEY);
        for old in own.iter().filter(|batch| batch.status.ended()).take(many) {
            self.inner().batches.remove(&old.id);
            gone(std::fs::remove_file(self.root.join("batches").join(format!("{}.json", old.id))))?;
        }
        Ok(())
    }

    /// Changes a batch and gives it as it is then; counts alone need not survive a stop of the process.
    pub(super) fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut BatchRecord),
    ) -> io::Result<Option<BatchRecord>> {
        let mut inner = self.inner();
        let Some(batch) = inner.batches.get_mut(id) else { return Ok(None) };
        let before = batch.clone();
        change(batch);
        let (after, counts) = (batch.clone(), (batch.total, batch.completed, batch.failed));
        let only_counts =
            BatchRecord { total: counts.0, completed: counts.1, failed: counts.2, ..before } == after;
        if !only_counts {
            write(&self.root.join("batches"), id, &after)?;
        }
        Ok(Some(after))
    }
}

/// Nothing there is as good as removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A record appears as a whole.
fn write(folder: &Path, id: &str, record: &impl Serialize) -> io::Result<()> {
    use io::Write;
    let part = folder.join(format!("{id}.part"));
    let mut file = std::fs::File::create(&part)?;
    file.write_all(&serde_json::to_vec_pretty(record).map_err(io::Error::other)?)?;
    file.sync_all()?;
    std::fs::rename(&part, folder.join(format!("{id}.json")))
}

/// Records that are whole and stand under their own names.
fn records<T: DeserializeOwned>(
    folder: &Path,
    id: impl Fn(&T) -> (&String, &str),
) -> io::Result<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let Ok(record) = serde_json::from_slice::<T>(&std::fs::read(&path)?) else {
            tracing::warn!(path = %path.display(), "no record");
            continue;
        };
        let (name, kind) = id(&record);
        if is_id(name, kind) && path.file_stem().is_some_and(|stem| stem == name.as_str()) {
            found.insert(name.clone(), record);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_names_are_one_to_one() {
        let key = Tenant(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(tenant(&owner(key)), key);
        assert!(is_id("file-abc2", "file-") && is_id("batch_a", "batch_"));
        for bad in ["file-", "file-../a", "file-A", "batch_a", "file-a/b", "file-\0"] {
            assert!(!is_id(bad, "file-"), "{bad}");
        }
    }
}
