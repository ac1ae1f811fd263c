//! Careful steps on this disk: private folders, no planted links, durable renames, free space.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::HubError;

/// Who may read what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Kun's own store: folders 0700, files 0600.
    Private,
    /// The shared Hugging Face cache: as the user's umask says, so that other programs keep working.
    Shared,
}

/// Makes `dir` and what is missing above it. `dir` itself must be a real folder of this user, not a link.
pub(crate) fn ensure_dir(dir: &Path, access: Access) -> Result<(), HubError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    if access == Access::Private {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir).map_err(HubError::io(dir))?;
    let found = fs::symlink_metadata(dir).map_err(HubError::io(dir))?;
    if !found.is_dir() {
        return Err(planted(dir, "a link or a file stands where a folder of the model store belongs"));
    }
    #[cfg(unix)]
    if access == Access::Private {
        use std::os::unix::fs::MetadataExt;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(planted(dir, "this folder of the model store belongs to another user"));
        }
    }
    #[cfg(not(unix))]
    let _ = access;
    Ok(())
}

fn planted(path: &Path, why: &str) -> HubError {
    HubError::Io {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned()),
    }
}

/// Makes every folder between `root` and the parent of `root/relative`, none of them a link.
pub(crate) fn ensure_parents(root: &Path, relative: &str, access: Access) -> Result<(), HubError> {
    ensure_dir(root, access)?;
    let mut dir = root.to_owned();
    let mut parts: Vec<&str> = relative.split('/').collect();
    parts.pop();
    for part in parts {
        dir.push(part);
        ensure_dir(&dir, access)?;
    }
    Ok(())
}

/// Opens a file for reading and writing without following a link; `fresh`: it must not exist yet.
pub(crate) fn open_own(path: &Path, access: Access, fresh: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if fresh {
        options.create_new(true);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
        options.custom_flags(flags);
        options.mode(if access == Access::Private { 0o600 } else { 0o666 });
    }
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

/// Whether `path` still names the open `file`.
pub(crate) fn is_same_file(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        open.dev() == named.dev() && open.ino() == named.ino()
    }
    #[cfg(not(unix))]
    {
        named.is_file() && open.len() == named.len()
    }
}

/// Makes a rename or a new entry in `dir` survive a crash.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), HubError> {
    #[cfg(unix)]
    File::open(dir).and_then(|d| d.sync_all()).map_err(HubError::io(dir))?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

/// Writes a small file in one step: a reader sees the old one or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], access: Access) -> Result<(), HubError> {
    use std::io::Write;
    let parent = path.parent().expect("a file of the store has a folder");
    let temporary = unique_beside(path);
    let written = open_own(&temporary, access, true).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done.map_err(HubError::io(path))?;
    sync_dir(parent)
}

/// A name beside `path` that no other process or thread uses.
pub(crate) fn unique_beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(
        ".{}-{nanos:x}-{}.kun-tmp",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    path.with_file_name(name)
}

/// Bytes that this user can still write below `dir`; `None` where the system does not say.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(dir).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Room that stays free for everybody else.
const SPARE_BYTES: u64 = 16 << 20;

/// Refuses to begin what cannot end.
pub(crate) fn check_room(dir: &Path, needed_bytes: u64) -> Result<(), HubError> {
    match free_bytes(dir) {
        Some(free_bytes) if needed_bytes > 0 && free_bytes < needed_bytes.saturating_add(SPARE_BYTES) => {
            Err(HubError::Disk { path: dir.to_owned(), needed_bytes, free_bytes })
        }
        _ => Ok(()),
    }
}

/// A failed write: a full disk says how much was still to come.
pub(crate) fn write_error(path: &Path, error: io::Error, still_needed: u64) -> HubError {
    if error.kind() == io::ErrorKind::StorageFull {
        let dir = path.parent().unwrap_or(path);
        return HubError::Disk {
            path: dir.to_owned(),
            needed_bytes: still_needed,
            free_bytes: free_bytes(dir).unwrap_or(0),
        };
    }
    HubError::Io { path: path.to_owned(), source: error }
}

/// Points `link` at `target` (relative) in one step, or copies where the system has no links.
pub(crate) fn link_or_copy(link: &Path, target: &str, access: Access) -> Result<(), HubError> {
    let parent = link.parent().expect("a file of the store has a folder");
    let temporary = unique_beside(link);
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(target, &temporary);
    #[cfg(not(unix))]
    let made: io::Result<()> = Err(io::ErrorKind::Unsupported.into());
    if made.is_err() {
        let source = parent.join(target);
        fs::copy(&source, &temporary).map_err(HubError::io(&source))?;
    }
    let _ = access;
    fs::rename(&temporary, link)
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .map_err(HubError::io(link))?;
    sync_dir(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_link_is_refused() {
        let root = kun_testkit::Scratch::new("planted");
        fs::create_dir(root.folder().join("elsewhere")).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root.folder().join("elsewhere"), root.folder().join("store")).unwrap();
            assert!(ensure_dir(&root.folder().join("store"), Access::Private).is_err());
            assert!(ensure_parents(&root.folder().join("real"), "a/b.gguf", Access::Shared).is_ok());
            std::os::unix::fs::symlink(root.folder().join("elsewhere"), root.folder().join("real/planted"))
                .unwrap();
            assert!(ensure_parents(&root.folder().join("real"), "planted/b.gguf", Access::Shared).is_err());
            std::os::unix::fs::symlink("/etc/hostname", root.folder().join("file")).unwrap();
            assert!(open_own(&root.folder().join("file"), Access::Private, false).is_err());
            assert!(open_own(&root.folder().join("file"), Access::Private, true).is_err());
        }
        assert_eq!(fs::read_dir(root.folder().join("elsewhere")).unwrap().count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn private_means_private() {
        use std::os::unix::fs::PermissionsExt;
        let root = kun_testkit::Scratch::new("private");
        let dir = root.folder().join("a/b");
        ensure_dir(&dir, Access::Private).unwrap();
        write_whole(&dir.join("x"), b"1", Access::Private).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(dir.join("x")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let root = kun_testkit::Scratch::new("room");
        let Err(HubError::Disk { needed_bytes, free_bytes, .. }) = check_room(root.folder(), u64::MAX / 2)
        else {
            panic!("no disk has this much room")
        };
        assert!(needed_bytes > free_bytes);
        check_room(root.folder(), 1).unwrap();
    }
}
