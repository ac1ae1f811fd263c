//! One file from the web to this disk: resumed, verified, and only then under its final name.
//!
//! Bytes go to a partial file whose name is its process's own and which that process keeps
//! locked. A partial without a lock holder is the leftover of a process that died: the next one takes it over,
//! hashes what is there and goes on. The final name appears by one rename after the digest was right.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::{Digest, Hasher};
use crate::disk::{self, Access};
use crate::error::HubError;
use crate::http::{Client, Request, network};
use crate::hub::Progress;

/// Ends the name of a file that is still incomplete.
pub(crate) const PART_SUFFIX: &str = ".kun-part";
const CHUNK_BYTES: usize = 1 << 18;

/// What to fetch and where to put it.
pub(crate) struct Job<'a> {
    pub request: Request,
    /// Exact size, if the source states it.
    pub bytes: Option<u64>,
    /// The digest that the source states. Without one there is no resuming of what another process left.
    pub digest: Option<Digest>,
    /// A ceiling for sources that state no size.
    pub max_bytes: u64,
    /// The final file; its folder exists.
    pub target: &'a Path,
    pub access: Access,
    /// For people.
    pub label: &'a str,
}

/// A complete, verified file that still has its temporary name, locked by this process.
pub(crate) struct Part {
    pub file: File,
    pub path: PathBuf,
    pub bytes: u64,
    pub digest: Digest,
}

impl Part {
    /// Gives the file its final name.
    pub fn commit(self, target: &Path) -> Result<(), HubError> {
        self.file.sync_all().map_err(HubError::io(&self.path))?;
        fs::rename(&self.path, target).map_err(HubError::io(target))?;
        disk::sync_dir(target.parent().expect("a file of the store has a folder"))
    }

    /// Deletes the file.
    pub fn discard(self) -> Result<(), HubError> {
        fs::remove_file(&self.path).map_err(HubError::io(&self.path))
    }
}

/// Fetches `job` unless its target is there already.
///
/// # Errors
/// Network, integrity, disk.
pub(crate) fn fetch_file(
    client: &Client,
    job: &Job<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), HubError> {
    if is_complete(job)? {
        return Ok(());
    }
    match fetch_part(client, job, progress)? {
        Some(part) => part.commit(job.target),
        None => Ok(()),
    }
}

/// Whether the target is there. A blob's name states its digest, so its size is proof enough here; `verify` re-hashes.
fn is_complete(job: &Job<'_>) -> Result<bool, HubError> {
    match fs::metadata(job.target) {
        Ok(found) if found.is_file() => Ok(job.bytes.is_none_or(|bytes| bytes == found.len())),
        _ => Ok(false),
    }
}

/// Fetches `job` to a verified partial file; `None` if another process brought the target meanwhile.
pub(crate) fn fetch_part(
    client: &Client,
    job: &Job<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Part>, HubError> {
    let Some((mut file, path)) = claim_part(job, progress)? else { return Ok(None) };
    match fill(client, job, &mut file, &path, progress) {
        Ok((bytes, digest)) => Ok(Some(Part { file, path, bytes, digest })),
        Err(error) => {
            // What came is kept for the next try only if something can prove it right later.
            let worthless = job.digest.is_none()
                || matches!(error, HubError::Integrity { .. })
                || file.metadata().is_ok_and(|m| m.len() == 0);
            if worthless {
                let _ = fs::remove_file(&path);
            }
            Err(error)
        }
    }
}

/// A partial file of our own: one that a dead process left, or a new one.
fn claim_part(
    job: &Job<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<(File, PathBuf)>, HubError> {
    let dir = job.target.parent().expect("a file of the store has a folder");
    let stem = job.target.file_name().expect("a file of the store has a name").to_string_lossy().into_owned();
    let machine = machine_id();
    let mut told = false;
    loop {
        if is_complete(job)? {
            return Ok(None);
        }
        let mut busy = false;
        for path in leftovers(dir, &stem) {
            let Ok(file) = disk::open_own(&path, job.access, false) else { continue };
            let ours = path.to_string_lossy().contains(&format!(".{machine}-"));
            match file.try_lock() {
                Ok(()) if !disk::is_same_file(&file, &path) => busy = true,
                // A lock of another machine is not to be trusted on a network disk: only an old file counts as left.
                Ok(()) if !ours && !is_old(&file) => {}
                Ok(()) if job.digest.is_none() => drop(fs::remove_file(&path)),
                Ok(()) if has_rival(dir, &stem, &path, job.access) => busy = true,
                Ok(()) => return unless_complete(job, file, path),
                Err(TryLockError::WouldBlock) => busy = true,
                Err(TryLockError::Error(_)) => {}
            }
        }
        if !busy || job.digest.is_none() {
            let (file, path) = new_part(job.target, job.access, job.bytes.unwrap_or(0))?;
            if job.digest.is_none() || !has_rival(dir, &stem, &path, job.access) {
                return unless_complete(job, file, path);
            }
            // Two that looked in the same moment both found nothing: who sees the other steps back for a while.
            let _ = fs::remove_file(&path);
            std::thread::sleep(Duration::from_millis(1 + random() % 100));
            continue;
        }
        if !told {
            progress(Progress::Note(format!("another process is fetching {}; waiting for it", job.label)));
            told = true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The partial file, unless its target came between the look for it and the look for partial files, of which whoever brought
/// it then held none.
fn unless_complete(job: &Job<'_>, file: File, path: PathBuf) -> Result<Option<(File, PathBuf)>, HubError> {
    if !is_complete(job)? {
        return Ok(Some((file, path)));
    }
    let _ = fs::remove_file(&path);
    Ok(None)
}

/// Whether somebody else holds a partial file of the same target.
fn has_rival(dir: &Path, stem: &str, own: &Path, access: Access) -> bool {
    leftovers(dir, stem).iter().filter(|path| *path != own).any(|path| {
        let Ok(file) = disk::open_own(path, access, false) else { return false };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => true,
            // Made in this moment and not locked yet: its maker sees that and makes another.
            Ok(()) if file.metadata().is_ok_and(|m| m.len() == 0) => {
                let _ = fs::remove_file(path);
                false
            }
            _ => false,
        }
    })
}

/// A new partial file for `target`, locked, so that no other process takes it for a dead one's.
pub(crate) fn new_part(
    target: &Path,
    access: Access,
    needed_bytes: u64,
) -> Result<(File, PathBuf), HubError> {
    let dir = target.parent().expect("a file of the store has a folder");
    let stem = target.file_name().expect("a file of the store has a name").to_string_lossy();
    let machine = machine_id();
    loop {
        let path =
            dir.join(format!("{stem}.{machine}-{}-{}{PART_SUFFIX}", std::process::id(), random_suffix()));
        let file =
            disk::open_own(&path, access, true).map_err(|e| disk::write_error(&path, e, needed_bytes))?;
        match file.try_lock() {
            Ok(()) if !disk::is_same_file(&file, &path) => {}
            // Taken over in the moment before the lock: it is theirs now.
            Err(TryLockError::WouldBlock) => {}
            // Where a file system knows no locks, the name alone keeps the file ours.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok((file, path)),
        }
    }
}

/// Deletes partial files of `target` that a dead process left and that nothing can resume.
pub(crate) fn sweep(target: &Path, access: Access) {
    let dir = target.parent().expect("a file of the store has a folder");
    let stem = target.file_name().expect("a file of the store has a name").to_string_lossy();
    let machine = format!(".{}-", machine_id());
    for path in leftovers(dir, &stem) {
        let Ok(file) = disk::open_own(&path, access, false) else { continue };
        let trusted = path.to_string_lossy().contains(&machine) || is_old(&file);
        if trusted && file.try_lock().is_ok() && disk::is_same_file(&file, &path) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn leftovers(dir: &Path, stem: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(PART_SUFFIX))
        })
        .map(|entry| entry.path())
        .collect();
    // The longest first: the most to gain.
    found.sort_by_key(|path| std::cmp::Reverse(fs::symlink_metadata(path).map_or(0, |m| m.len())));
    found
}

fn is_old(file: &File) -> bool {
    let modified = file.metadata().and_then(|m| m.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > Duration::from_secs(3600)))
}

/// A few digits that tell machines on one network disk apart; not an identity.
fn machine_id() -> String {
    let id = crate::options::read_small(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    crate::digest::sha256_hex(id.as_bytes())[..8].to_owned()
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn random_suffix() -> String {
    format!("{:016x}", random())
}

/// What is known about the transfer so far.
struct Transfer {
    hasher: Hasher,
    /// Bytes in the file and in the hasher.
    have: u64,
    /// As the source states it, in the catalogue or in its answer.
    total: Option<u64>,
    started: bool,
    /// What this process wrote is known to belong to this version of the file.
    etag: Option<String>,
}

/// How one attempt ended without an error of ours.
enum Ended {
    Complete,
    /// Try again from where we are; the reason is for people.
    Broken(HubError),
}

fn fill(
    client: &Client,
    job: &Job<'_>,
    file: &mut File,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(u64, Digest), HubError> {
    let mut transfer = take_over(job, file, path)?;
    let mut resumed = transfer.have > 0;
    let (mut pause, mut fruitless) = (client.patience.retry, 0);
    loop {
        let before = transfer.have;
        match attempt(client, job, file, path, &mut transfer, progress)? {
            Ended::Complete => break,
            Ended::Broken(error) => {
                if transfer.have > before {
                    (pause, fruitless) = (client.patience.retry, 0);
                } else {
                    fruitless += 1;
                }
                // Nothing at all yet: another source may do better, so say so at once.
                if fruitless > client.patience.retries
                    || (before == 0 && transfer.have == 0 && !transfer.started)
                {
                    return Err(error);
                }
                resumed |= transfer.have > 0;
                progress(Progress::Note(format!("{}; trying again", error.reason())));
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(30));
            }
        }
    }
    let digest = transfer.hasher.finish();
    match job.digest {
        // The leftover may have been another version's: the file alone is to blame, so fetch it whole, once.
        Some(stated) if stated != digest && resumed => {
            progress(Progress::Note(format!(
                "{}: the part that was here does not fit; fetching it whole",
                job.label
            )));
            truncate(file, path)?;
            fill(client, job, file, path, progress)
        }
        Some(stated) if stated != digest => Err(HubError::Integrity {
            file: job.label.to_owned(),
            expected: stated.to_string(),
            actual: digest.to_string(),
        }),
        _ => {
            progress(Progress::Finish);
            Ok((transfer.have, digest))
        }
    }
}

/// Hashes what an earlier process left.
fn take_over(job: &Job<'_>, file: &mut File, path: &Path) -> Result<Transfer, HubError> {
    let mut hasher = Hasher::new(job.digest, job.bytes);
    let length = file.metadata().map_err(HubError::io(path))?.len();
    let mut have = 0;
    if job.bytes.is_some_and(|bytes| length > bytes) || length > job.max_bytes {
        truncate(file, path)?;
    } else if length > 0 {
        file.seek(SeekFrom::Start(0)).map_err(HubError::io(path))?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let n = file.read(&mut buffer).map_err(HubError::io(path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            have += n as u64;
        }
    }
    Ok(Transfer { hasher, have, total: job.bytes, started: false, etag: None })
}

fn truncate(file: &mut File, path: &Path) -> Result<(), HubError> {
    file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(HubError::io(path))?;
    Ok(())
}

fn restart(job: &Job<'_>, file: &mut File, path: &Path, transfer: &mut Transfer) -> Result<(), HubError> {
    truncate(file, path)?;
    *transfer = Transfer {
        hasher: Hasher::new(job.digest, job.bytes),
        have: 0,
        total: job.bytes,
        started: false,
        etag: None,
    };
    Ok(())
}

/// One request, as far as it goes.
fn attempt(
    client: &Client,
    job: &Job<'_>,
    file: &mut File,
    path: &Path,
    transfer: &mut Transfer,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ended, HubError> {
    if transfer.total.is_some_and(|total| total == transfer.have) && transfer.have > 0 {
        start(job, transfer, progress);
        return Ok(Ended::Complete);
    }
    let request = Request { from: transfer.have, ..job.request.clone() };
    let answer = match client.send(&request) {
        Ok(answer) => answer,
        Err(error) => return Ok(Ended::Broken(error)),
    };
    let url = answer.url.clone();
    let etag = answer.header("etag").map(str::to_owned);
    match answer.status {
        200 => {
            if transfer.have > 0 {
                restart(job, file, path, transfer)?;
            }
        }
        206 if transfer.have > 0 => {
            let range = answer.header("content-range").and_then(parse_content_range);
            let changed = job.digest.is_none() && (transfer.etag.is_none() || transfer.etag != etag);
            let fits = range.is_some_and(|(from, total)| {
                from == transfer.have && total.is_none_or(|t| job.bytes.is_none_or(|b| b == t))
            });
            if changed || !fits {
                restart(job, file, path, transfer)?;
                return Ok(Ended::Broken(network(&url, &"the rest does not fit the beginning")));
            }
        }
        416 if transfer.have > 0 => {
            restart(job, file, path, transfer)?;
            return Ok(Ended::Broken(network(&url, &"the file has become shorter")));
        }
        401 | 403 => {
            return Err(HubError::NotPermitted {
                name: job.label.to_owned(),
                why: format!("{} answered {}", url.host, answer.status),
            });
        }
        404 | 410 => {
            return Err(HubError::NotFound {
                name: job.label.to_owned(),
                why: format!("{url} answered {}", answer.status),
            });
        }
        status => return Ok(Ended::Broken(network(&url, &format!("answered {status}")))),
    }
    transfer.etag = etag;
    let announced = answer
        .header("content-length")
        .and_then(|v| v.parse::<u64>().ok())
        .map(|n| n.saturating_add(transfer.have));
    if let (Some(stated), Some(announced)) = (job.bytes, announced)
        && stated != announced
    {
        return Err(HubError::Integrity {
            file: job.label.to_owned(),
            expected: format!("{stated} bytes"),
            actual: format!("{announced} bytes"),
        });
    }
    transfer.total = job.bytes.or(announced);
    if let Some(total) = transfer.total {
        if total > job.max_bytes {
            return Err(too_long(job, total));
        }
        disk::check_room(path.parent().unwrap_or(path), total.saturating_sub(transfer.have))?;
    }
    start(job, transfer, progress);
    receive(job, answer.into_reader(), &url, file, path, transfer, progress)
}

fn start(job: &Job<'_>, transfer: &mut Transfer, progress: &mut dyn FnMut(Progress)) {
    if !transfer.started {
        transfer.started = true;
        progress(Progress::Start {
            name: job.label.to_owned(),
            resumed_bytes: transfer.have,
            total_bytes: transfer.total,
        });
    }
}

fn too_long(job: &Job<'_>, bytes: u64) -> HubError {
    let limit = job.bytes.unwrap_or(job.max_bytes);
    HubError::Integrity {
        file: job.label.to_owned(),
        expected: format!("at most {limit} bytes"),
        actual: format!("{bytes} bytes or more"),
    }
}

fn receive(
    job: &Job<'_>,
    mut body: impl Read,
    url: &crate::url::Url,
    file: &mut File,
    path: &Path,
    transfer: &mut Transfer,
    progress: &mut dyn FnMut(Progress),
) -> Result<Ended, HubError> {
    let limit = transfer.total.unwrap_or(job.max_bytes).min(job.max_bytes);
    let mut buffer = vec![0; CHUNK_BYTES];
    file.seek(SeekFrom::Start(transfer.have)).map_err(HubError::io(path))?;
    loop {
        let n = match body.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => {
                return Ok(Ended::Broken(network(
                    url,
                    &format!("broke off after {} bytes: {e}", transfer.have),
                )));
            }
        };
        if n == 0 {
            break;
        }
        if transfer.have + n as u64 > limit {
            return Err(too_long(job, transfer.have + n as u64));
        }
        let still_needed = transfer.total.map_or(n as u64, |total| total.saturating_sub(transfer.have));
        file.write_all(&buffer[..n]).map_err(|e| disk::write_error(path, e, still_needed))?;
        transfer.hasher.update(&buffer[..n]);
        transfer.have += n as u64;
        progress(Progress::Advance(n as u64));
    }
    match transfer.total {
        Some(total) if transfer.have < total => {
            Ok(Ended::Broken(network(url, &format!("broke off after {} of {total} bytes", transfer.have))))
        }
        _ => Ok(Ended::Complete),
    }
}

/// `bytes 5-9/10` or `bytes 5-9/*`: the first byte and the whole size.
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests;
