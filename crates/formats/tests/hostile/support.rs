//! Bytes, folders and checks that the tests share.

use kun_formats::FormatError;
use kun_testkit::peak_memory::peak_of;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A file that must be refused, and what the error must say.
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub says: &'static [&'static str],
}

/// Builds a [`Case`].
pub fn case(name: &'static str, bytes: impl Into<Vec<u8>>, says: &'static [&'static str]) -> Case {
    Case { name, bytes: bytes.into(), says }
}

/// Runs `work` on a file of `file_bytes` and checks the memory that it took.
pub fn bounded<T>(name: &str, file_bytes: usize, work: impl FnOnce() -> T) -> T {
    let (value, peak) = peak_of(work);
    assert!(peak <= 8 * file_bytes + (16 << 20), "{name}: {peak} bytes for a file of {file_bytes}");
    value
}

/// Checks that every case is refused with the words that it must say.
pub fn refuses_all<T>(cases: Vec<Case>, parse: fn(&[u8]) -> Result<T, FormatError>) {
    for Case { name, bytes, says } in cases {
        let outcome = bounded(name, bytes.len(), || parse(&bytes).map(drop));
        says_all(name, outcome, says);
    }
}

/// Checks that `outcome` is an error whose text has all of `says`.
pub fn says_all(name: &str, outcome: Result<(), FormatError>, says: &[&str]) {
    let text = outcome.expect_err(name).chain();
    for word in says {
        assert!(text.contains(word), "{name}: `{text}` does not say `{word}`");
    }
    assert!(text.len() < 1000 && !text.chars().any(char::is_control), "{name}: `{text}` is no clean line");
}

/// Little-endian bytes, one field after the other.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// A GGUF header up to its counts.
    pub fn gguf(tensors: u64, entries: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).u64(tensors).u64(entries)
    }
    /// A GGUF file with one entry of a type, up to its value.
    pub fn entry(key: &str, value_type: u32) -> Raw {
        Raw::gguf(0, 1).text(key).u32(value_type)
    }
    /// A GGUF file with one tensor of four bytes in its data section, its description still to be written.
    pub fn tensor(name: &str) -> Raw {
        Raw::gguf(1, 0).text(name)
    }
    pub fn u8(mut self, value: u8) -> Raw {
        self.0.push(value);
        self
    }
    pub fn u32(mut self, value: u32) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub fn u64(mut self, value: u64) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub fn text(self, text: &str) -> Raw {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }
    pub fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend(bytes);
        self
    }
    pub fn zeros(mut self, count: usize) -> Raw {
        self.0.resize(self.0.len() + count, 0);
        self
    }
    /// Dimensions as a tensor's description writes them, innermost first.
    pub fn dimensions(self, sizes: &[u64]) -> Raw {
        sizes.iter().fold(self.u32(sizes.len() as u32), |raw, size| raw.u64(*size))
    }
}

impl From<Raw> for Vec<u8> {
    fn from(raw: Raw) -> Vec<u8> {
        raw.0
    }
}

/// A folder that is removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kun-formats-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    /// A folder with these files.
    pub fn with(files: &[(&str, &[u8])]) -> Folder {
        let folder = Folder::new();
        for (name, content) in files {
            let path = folder.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    pub fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
