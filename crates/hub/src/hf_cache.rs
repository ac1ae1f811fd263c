//! The Hugging Face cache on this disk, read and written in place.
//!
//! ```text
//! models--ORG--NAME/blobs/DIGEST            content, named by its SHA-256 or Git object
//! models--ORG--NAME/refs/main               a commit
//! models--ORG--NAME/snapshots/COMMIT/FILE   link to ../../blobs/DIGEST
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::disk::{self, Access};
use crate::error::HubError;
use crate::name::{RepoName, is_safe_relative};
use crate::options::read_small;
use crate::select;

/// Entries that one listing looks at; a cache with more is not walked to the end.
const MAX_ENTRIES: usize = 200_000;

/// One repository's folder.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    dir: PathBuf,
}

/// Files of one snapshot that make a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CachedModel {
    pub commit: String,
    /// The first `.gguf`, or the snapshot's folder.
    pub path: PathBuf,
    /// Paths in the repository.
    pub files: Vec<String>,
}

impl RepoCache {
    pub fn new(cache_dir: &Path, repo: &str) -> RepoCache {
        RepoCache { dir: cache_dir.join(format!("models--{}", repo.replace('/', "--"))) }
    }

    /// Every repository of a cache, with its name.
    pub fn all(cache_dir: &Path) -> Vec<(String, RepoCache)> {
        let mut found: Vec<(String, RepoCache)> = names_in(cache_dir)
            .into_iter()
            .filter_map(|name| {
                let repo = name.strip_prefix("models--")?.replace("--", "/");
                Some((repo, RepoCache { dir: cache_dir.join(&name) }))
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    pub fn snapshot_dir(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.hex())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The commit of a branch or tag, as last seen; a commit is its own.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = is_safe_relative(revision)
            .then(|| read_small(&self.dir.join("refs").join(revision)))
            .flatten()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Commits with a snapshot, the newest first.
    pub fn commits(&self) -> Vec<String> {
        let dir = self.dir.join("snapshots");
        let mut found: Vec<String> = names_in(&dir).into_iter().filter(|name| is_commit(name)).collect();
        found.sort_by_key(|name| {
            std::cmp::Reverse(fs::metadata(dir.join(name)).and_then(|m| m.modified()).ok())
        });
        found
    }

    /// The wanted model, complete, in the wanted revision. Without a revision: `main`, else the newest snapshot that has it.
    pub fn locate(&self, repo: &RepoName) -> Option<CachedModel> {
        let commits = match &repo.revision {
            Some(revision) => Vec::from_iter(self.commit_of(revision)),
            None => self.commit_of("main").into_iter().chain(self.commits()).collect(),
        };
        commits.iter().find_map(|commit| self.locate_in(repo, commit))
    }

    fn locate_in(&self, repo: &RepoName, commit: &str) -> Option<CachedModel> {
        let present = self.snapshot_files(commit);
        let names: Vec<&str> = present.iter().map(String::as_str).collect();
        let files: Vec<String> = select::choose(repo, &names).ok()?.into_iter().map(str::to_owned).collect();
        let dir = self.snapshot_dir(commit);
        let first = files.first()?;
        let path = if first.to_ascii_lowercase().ends_with(".gguf") {
            dir.join(first)
        } else {
            folder_is_complete(&dir, &names).then_some(dir)?
        };
        Some(CachedModel { commit: commit.to_owned(), path, files })
    }

    /// Files of a snapshot whose content is here, sorted. A link counts only if it leads to this repository's own blobs.
    pub fn snapshot_files(&self, commit: &str) -> Vec<String> {
        let root = self.snapshot_dir(commit);
        let Ok(home) = self.dir.canonicalize() else { return Vec::new() };
        let mut found = Vec::new();
        let mut open = vec![(root.clone(), String::new())];
        let mut seen = 0;
        while let Some((dir, prefix)) = open.pop() {
            for name in names_in(&dir) {
                seen += 1;
                if seen > MAX_ENTRIES {
                    return found;
                }
                let path = dir.join(&name);
                let relative = format!("{prefix}{name}");
                let Ok(entry) = fs::symlink_metadata(&path) else { continue };
                if entry.is_dir() {
                    open.push((path, format!("{relative}/")));
                } else if is_safe_relative(&relative) && real_content(&path, &home).is_some() {
                    found.push(relative);
                }
            }
        }
        found.sort();
        found
    }

    /// The content behind a snapshot's file, if it lies in this repository's folder.
    pub fn content_of(&self, commit: &str, file: &str) -> Option<PathBuf> {
        real_content(&self.snapshot_dir(commit).join(file), &self.dir.canonicalize().ok()?)
    }

    /// Makes the folders for a download.
    pub fn prepare(&self, commit: &str) -> Result<(), HubError> {
        for dir in
            [self.dir.clone(), self.dir.join("blobs"), self.dir.join("snapshots"), self.snapshot_dir(commit)]
        {
            disk::ensure_dir(&dir, Access::Shared)?;
        }
        Ok(())
    }

    /// Names a blob in a snapshot.
    pub fn link(&self, commit: &str, file: &str, digest: &Digest) -> Result<(), HubError> {
        let snapshot = self.snapshot_dir(commit);
        disk::ensure_parents(&snapshot, file, Access::Shared)?;
        let link = snapshot.join(file);
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{}", digest.hex());
        if fs::read_link(&link).is_ok_and(|now| now == Path::new(&target)) {
            return Ok(());
        }
        disk::link_or_copy(&link, &target, Access::Shared)
    }

    /// Remembers which commit a branch or tag is at.
    pub fn set_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let refs = self.dir.join("refs");
        disk::ensure_parents(&refs, revision, Access::Shared)?;
        disk::write_whole(&refs.join(revision), commit.as_bytes(), Access::Shared)
    }

    /// Takes files out of a snapshot; blobs that nothing else links to go. Gives bytes freed.
    pub fn remove(&self, commit: &str, files: &[String]) -> Result<u64, HubError> {
        let mut blobs: Vec<PathBuf> = Vec::new();
        let snapshot = self.snapshot_dir(commit);
        let mut freed = 0;
        for file in files {
            let path = snapshot.join(file);
            let content = self.content_of(commit, file);
            let bytes = content.as_ref().and_then(|c| fs::metadata(c).ok()).map_or(0, |m| m.len());
            fs::remove_file(&path).map_err(HubError::io(&path))?;
            // A link's blob is still there; a copied file is gone with its name.
            match content.filter(|c| c.exists()) {
                Some(blob) => blobs.push(blob),
                None => freed += bytes,
            }
        }
        remove_empty_dirs(&snapshot);
        let used: std::collections::HashSet<PathBuf> = self
            .commits()
            .iter()
            .flat_map(|c| {
                self.snapshot_files(c).into_iter().filter_map(|f| self.content_of(c, &f)).collect::<Vec<_>>()
            })
            .collect();
        blobs.sort();
        blobs.dedup();
        for blob in blobs.into_iter().filter(|blob| !used.contains(blob)) {
            freed += fs::metadata(&blob).map_or(0, |m| m.len());
            fs::remove_file(&blob).map_err(HubError::io(&blob))?;
        }
        if !snapshot.exists() {
            self.forget(commit);
        }
        Ok(freed)
    }

    /// Drops references to a snapshot that is gone, and the whole folder with the last of them.
    fn forget(&self, commit: &str) {
        if self.commits().is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
            return;
        }
        for name in names_in(&self.dir.join("refs")) {
            if self.commit_of(&name).as_deref() == Some(commit) {
                let _ = fs::remove_file(self.dir.join("refs").join(name));
            }
        }
    }
}

/// Forty hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A regular file below `home`, reached directly or by the cache's own links.
fn real_content(path: &Path, home: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok()?;
    (real.starts_with(home) && real.metadata().ok()?.is_file()).then_some(real)
}

/// Whether a folder of safetensors has everything that loading needs.
pub(crate) fn folder_is_complete(dir: &Path, files: &[&str]) -> bool {
    if select::is_whole_drawing(files) {
        return true;
    }
    let has = |name: &str| files.contains(&name);
    let described = has("config.json")
        && ["tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model"].into_iter().any(has);
    let weights = match read_index(&dir.join("model.safetensors.index.json")) {
        Some(shards) => !shards.is_empty() && shards.iter().all(|shard| has(shard)),
        None => files.iter().any(|f| f.ends_with(".safetensors")),
    };
    described && weights
}

/// The shards that a safetensors index names.
fn read_index(path: &Path) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::HashMap<String, String>,
    }
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(64 << 20).read_to_string(&mut text).ok()?;
    let index: Index = serde_json::from_str(&text).ok()?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort();
    shards.dedup();
    Some(shards)
}

/// Names in a folder that are valid text; none if there is no such folder.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).take(MAX_ENTRIES).collect()
}

fn remove_empty_dirs(dir: &Path) {
    for name in names_in(dir) {
        let path = dir.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            remove_empty_dirs(&path);
        }
    }
    // Fails where something is left, which is what we want.
    let _ = fs::remove_dir(dir);
}

#[cfg(test)]
mod tests;
