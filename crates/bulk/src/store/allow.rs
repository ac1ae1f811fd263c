//! Where a process that works for others may read and write.

use super::is_remote;
use crate::BulkError;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Folders of this machine and prefixes of buckets; everything below them is allowed, and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    folders: Vec<PathBuf>,
    prefixes: Vec<String>,
    /// The first address that was refused.
    refused: Arc<Mutex<Option<String>>>,
}

impl Allow {
    /// Reads roots as people write them: a folder that is there, or `s3://bucket/prefix/`.
    ///
    /// # Errors
    /// [`BulkError::Job`] for a folder that is not there or an address that is none.
    pub fn new<S: AsRef<str>>(roots: &[S]) -> Result<Allow, BulkError> {
        let mut allow = Allow::default();
        for root in roots.iter().map(AsRef::as_ref) {
            if is_remote(root) {
                if !is_plain(root) {
                    return Err(BulkError::job(format!(
                        "{root}: expected an address such as s3://bucket/prefix/"
                    )));
                }
                allow.prefixes.push(format!("{}/", root.trim_end_matches('/')));
            } else {
                let folder = Path::new(root).canonicalize();
                allow.folders.push(folder.map_err(|error| BulkError::job(format!("{root}: {error}")))?);
            }
        }
        Ok(allow)
    }

    /// In words.
    pub fn words(&self) -> String {
        let folders = self.folders.iter().map(|folder| folder.display().to_string());
        folders.chain(self.prefixes.iter().cloned()).collect::<Vec<_>>().join(", ")
    }

    /// A copy that has refused nothing yet.
    pub fn fresh(&self) -> Allow {
        Allow { refused: Arc::default(), ..self.clone() }
    }

    pub(super) fn permit_local(&self, path: &Path) -> Result<(), BulkError> {
        match real(path) {
            Some(real) if self.folders.iter().any(|folder| real.starts_with(folder)) => Ok(()),
            _ => Err(self.refuse(&path.display().to_string())),
        }
    }

    pub(super) fn permit_remote(&self, uri: &str) -> Result<(), BulkError> {
        let folder = format!("{}/", uri.trim_end_matches('/'));
        let inside = |prefix: &String| uri.starts_with(prefix.as_str()) || folder == *prefix;
        match is_plain(uri) && self.prefixes.iter().any(inside) {
            true => Ok(()),
            false => Err(self.refuse(uri)),
        }
    }

    fn refuse(&self, uri: &str) -> BulkError {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get_or_insert_with(|| uri.to_owned());
        self.error(uri)
    }

    fn error(&self, uri: &str) -> BulkError {
        let what = format!("not allowed here: this executor reads and writes below {} alone", self.words());
        BulkError::Refused { uri: uri.to_owned(), what }
    }

    pub(super) fn refused(&self) -> Result<(), BulkError> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.as_ref().map_or(Ok(()), |uri| Err(self.error(uri)))
    }
}

/// Whether an address says what it means: no detours, no user, no escapes that become detours, nothing after the path.
fn is_plain(uri: &str) -> bool {
    let Some((_, rest)) = uri.split_once("://") else { return false };
    let detour = |segment: &str| {
        let lower = segment.to_ascii_lowercase();
        matches!(lower.as_str(), "." | "..")
            || ["%2e", "%2f", "%5c"].iter().any(|escape| lower.contains(escape))
    };
    !rest.starts_with('/')
        && !rest.is_empty()
        && !rest.chars().any(|c| matches!(c, '\\' | '@' | '?' | '#') || c.is_control())
        && !rest.split('/').any(detour)
}

/// A path without links, as far as it exists; what does not exist yet has no detours.
fn real(path: &Path) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let mut there = std::path::absolute(path).ok()?;
    loop {
        // A link that leads nowhere is there, and would be followed by whoever writes.
        if there.symlink_metadata().is_ok() {
            let mut found = there.canonicalize().ok()?;
            found.extend(missing.iter().rev());
            return Some(found);
        }
        let last = there.components().next_back()?;
        let Component::Normal(name) = last else { return None };
        missing.push(name.to_owned());
        there.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("kun-allow-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("in/deep")).unwrap();
        std::fs::create_dir_all(folder.join("out")).unwrap();
        folder
    }

    #[test]
    fn allows_what_lies_below_and_nothing_else() {
        let root = folder("below");
        let allow = Allow::new(&[root.join("in").to_str().unwrap(), "s3://bucket/data/"]).unwrap();
        for good in ["in", "in/deep", "in/deep/new/file.parquet", "in/../in/x"] {
            assert!(allow.permit_local(&root.join(good)).is_ok(), "{good}");
        }
        for good in ["s3://bucket/data/x", "s3://bucket/data", "s3://bucket/data/"] {
            assert!(allow.permit_remote(good).is_ok(), "{good}");
        }
        assert!(allow.refused().is_ok());
        for bad in ["out", "in/../out/x", "in/nowhere/../../out", "..", "input"] {
            assert!(allow.permit_local(&root.join(bad)).is_err(), "{bad}");
        }
        for bad in [
            "s3://bucket/database",
            "s3://bucket/data/../x",
            "s3://bucket/data/%2E%2e/x",
            "s3://bucket/data/a%2f..%2fx",
            "s3://bucket",
            "s3://other/data/",
            "s3://me@bucket/data/x",
            "https://bucket/data/x",
            "s3:///etc/passwd",
            "s3://bucket/data/x?versionId=1",
        ] {
            assert!(allow.permit_remote(bad).is_err(), "{bad}");
        }
        let error = allow.refused().unwrap_err().to_string();
        assert!(error.contains("/out") && error.contains("s3://bucket/data/"), "{error}");
        assert!(allow.fresh().refused().is_ok());
        assert!(Allow::new(&["/no/such/folder"]).is_err() && Allow::new(&["s3://"]).is_err());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn follows_links_before_it_judges() {
        let root = folder("links");
        std::os::unix::fs::symlink(root.join("out"), root.join("in/away")).unwrap();
        std::os::unix::fs::symlink(root.join("out/none"), root.join("in/nowhere")).unwrap();
        let allow = Allow::new(&[root.join("in").to_str().unwrap()]).unwrap();
        for bad in ["in/away/x", "in/away", "in/nowhere", "in/nowhere/x"] {
            assert!(allow.permit_local(&root.join(bad)).is_err(), "{bad}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
