//! Kun's own models: what came from a package index, ModelScope or a plain address.
//!
//! ```text
//! DATA/index/PACKAGE-VERSION/FILE        DATA is $XDG_DATA_HOME/kun/models
//! DATA/modelscope/ORG--NAME--REVISION/FILE
//! DATA/web/HOST-DIGEST/FILE
//! …/kun.json                             name, source, sizes and SHA-256, written when all files are here
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, digest_of};
use crate::disk::{self, Access};
use crate::error::HubError;
use crate::hf_cache::{folder_is_complete, names_in};
use crate::name::is_safe_relative;
use crate::options::read_small;

const RECORD: &str = "kun.json";

/// What `kun.json` says about the files beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The name that `kun run` takes.
    pub name: String,
    /// In words.
    pub source: String,
    pub license: Option<String>,
    /// Commit or version.
    pub revision: Option<String>,
    pub files: Vec<RecordFile>,
}

/// One file as its source stated it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordFile {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

/// One model's folder.
#[derive(Clone, Debug)]
pub(crate) struct StoreDir {
    data_dir: PathBuf,
    dir: PathBuf,
}

impl StoreDir {
    /// `kind` and `key` are ours or checked: single path components.
    pub fn new(data_dir: &Path, kind: &str, key: &str) -> StoreDir {
        debug_assert!(is_safe_relative(kind) && is_safe_relative(key) && !key.contains('/'), "{kind}/{key}");
        StoreDir { data_dir: data_dir.to_owned(), dir: data_dir.join(kind).join(key) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every complete model.
    pub fn all(data_dir: &Path) -> Vec<(StoreDir, Record)> {
        let mut found = Vec::new();
        for kind in ["index", "modelscope", "web"] {
            let mut keys = names_in(&data_dir.join(kind));
            keys.sort();
            for key in keys.into_iter().filter(|key| is_safe_relative(key)) {
                let store = StoreDir::new(data_dir, kind, &key);
                found.extend(store.record().map(|record| (store, record)));
            }
        }
        found
    }

    /// Makes the folders, readable by this user only.
    pub fn prepare(&self) -> Result<(), HubError> {
        let kind = self.dir.parent().expect("a model's folder lies in its kind's");
        for dir in [self.data_dir.as_path(), kind, self.dir.as_path()] {
            disk::ensure_dir(dir, Access::Private)?;
        }
        Ok(())
    }

    /// The record, if every file is here in its full size.
    pub fn record(&self) -> Option<Record> {
        let record: Record = serde_json::from_str(&read_small(&self.dir.join(RECORD))?).ok()?;
        let here = |file: &RecordFile| {
            is_safe_relative(&file.path)
                && fs::symlink_metadata(self.dir.join(&file.path))
                    .is_ok_and(|m| m.is_file() && m.len() == file.bytes)
        };
        (!record.files.is_empty() && record.files.iter().all(here)).then_some(record)
    }

    /// Declares the folder complete.
    pub fn set_record(&self, record: &Record) -> Result<(), HubError> {
        let text = serde_json::to_string_pretty(record).expect("a record has only strings and numbers");
        disk::write_whole(&self.dir.join(RECORD), text.as_bytes(), Access::Private)
    }

    /// What a program opens: the only or first `.gguf`, the only `.onnx`, or the folder.
    pub fn path_of(&self, record: &Record) -> Option<PathBuf> {
        let files: Vec<&str> = record.files.iter().map(|f| f.path.as_str()).collect();
        let ending =
            |end: &str| files.iter().filter(|f| f.to_ascii_lowercase().ends_with(end)).collect::<Vec<_>>();
        if let Some(gguf) = ending(".gguf").first() {
            return Some(self.dir.join(gguf));
        }
        // Graphs describe themselves: those that the record lists are the whole model.
        match ending(".onnx").as_slice() {
            [] => folder_is_complete(&self.dir, &files).then(|| self.dir.clone()),
            _ if !files.iter().all(|f| self.dir.join(f).is_file()) => None,
            [only] => Some(self.dir.join(only)),
            _ => Some(self.dir.clone()),
        }
    }

    /// Files that differ from what the record says.
    pub fn differing(&self, record: &Record) -> Result<Vec<PathBuf>, HubError> {
        let mut bad = Vec::new();
        for file in &record.files {
            let path = self.dir.join(&file.path);
            let stated = Digest::sha256_from_hex(&file.sha256);
            let opened = fs::File::open(&path).map_err(HubError::io(&path))?;
            let fits = match stated {
                Some(stated) => digest_of(opened, stated, file.bytes).map_err(HubError::io(&path))? == stated,
                None => false,
            };
            if !fits {
                bad.push(path);
            }
        }
        Ok(bad)
    }

    /// Deletes the folder; gives bytes freed.
    pub fn remove(&self, record: &Record) -> Result<u64, HubError> {
        // The record goes first: a crash in between leaves files that count for nothing, not a model with holes.
        let path = self.dir.join(RECORD);
        fs::remove_file(&path).map_err(HubError::io(&path))?;
        fs::remove_dir_all(&self.dir).map_err(HubError::io(&self.dir))?;
        Ok(record.files.iter().map(|f| f.bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kun_testkit::Scratch;

    #[test]
    fn a_folder_counts_once_its_record_and_all_files_are_there() {
        let root = Scratch::new("store");
        let store = StoreDir::new(root.folder(), "web", "host-1");
        store.prepare().unwrap();
        let record = Record {
            name: "n".to_owned(),
            source: "s".to_owned(),
            license: None,
            revision: None,
            files: vec![RecordFile {
                path: "a.gguf".to_owned(),
                bytes: 5,
                sha256: crate::digest::sha256_hex(b"hello"),
            }],
        };
        store.set_record(&record).unwrap();
        assert_eq!(store.record(), None);
        fs::write(store.dir().join("a.gguf"), b"hello").unwrap();
        assert_eq!(store.record().as_ref(), Some(&record));
        assert_eq!(store.differing(&record).unwrap(), Vec::<PathBuf>::new());
        fs::write(store.dir().join("a.gguf"), b"hellO").unwrap();
        assert_eq!(store.differing(&record).unwrap(), [store.dir().join("a.gguf")]);
        assert_eq!(StoreDir::all(root.folder()).len(), 1);
        assert_eq!(store.remove(&record).unwrap(), 5);
        assert!(!store.dir().exists());
    }

    #[test]
    fn a_record_that_points_elsewhere_counts_for_nothing() {
        let root = Scratch::new("store-bad");
        let store = StoreDir::new(root.folder(), "web", "x");
        store.prepare().unwrap();
        for path in ["../../etc/hostname", "/etc/hostname", "a/../../x"] {
            let text = format!(
                r#"{{"name":"n","source":"s","license":null,"revision":null,"files":[{{"path":"{path}","bytes":1,"sha256":""}}]}}"#
            );
            fs::write(store.dir().join(RECORD), text).unwrap();
            assert_eq!(store.record(), None, "{path}");
        }
        fs::write(store.dir().join(RECORD), "{").unwrap();
        assert_eq!(store.record(), None);
    }
}
