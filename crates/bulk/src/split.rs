//! Pieces of the input, each with a name that follows from what it is.

use crate::store::ObjectInfo;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::sync::Arc;

/// A piece of the input that is read, worked on and written by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// A digest of what it reads: addresses, their tags and the range.
    pub id: String,
    /// Its place among all splits of the job, from 0.
    pub index: usize,
    /// What it reads.
    pub range: Range,
    /// Rows, where the input tells them.
    pub rows: Option<u64>,
    /// Bytes of the input, about.
    pub bytes: u64,
}

/// What a split reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Range {
    /// Rows of a Parquet file: `rows` of them after `skip` rows, both counted from the row group `group`.
    Rows {
        /// The file.
        object: ObjectInfo,
        /// The first row group.
        group: usize,
        /// Rows before the split's own.
        skip: u64,
        /// Its rows.
        rows: u64,
    },
    /// Bytes of a file of lines or records, from the beginning of one to the beginning of another.
    Bytes {
        /// The file.
        object: ObjectInfo,
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// Rows of an Arrow file: its record batches from `first` on.
    Batches {
        /// The file.
        object: ObjectInfo,
        /// The first record batch.
        first: usize,
        /// How many.
        count: usize,
    },
    /// Whole files, each one row.
    Files {
        /// The files.
        objects: Files,
    },
    /// A file that cannot be read: one row that says why.
    Broken {
        /// The file.
        object: ObjectInfo,
        /// Why.
        what: String,
    },
}

/// Files in a row; a part of them shares the list.
#[derive(Clone)]
pub struct Files {
    all: Arc<[ObjectInfo]>,
    start: usize,
    end: usize,
}

impl Files {
    /// So many of them from the first on, and the others.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn split_at(&self, count: usize) -> (Files, Files) {
        let middle = self.start + count;
        assert!(middle <= self.end, "{count} of {} files", self.len());
        (Files { end: middle, ..self.clone() }, Files { start: middle, ..self.clone() })
    }
}

impl From<Vec<ObjectInfo>> for Files {
    fn from(all: Vec<ObjectInfo>) -> Files {
        Files { start: 0, end: all.len(), all: all.into() }
    }
}

impl Deref for Files {
    type Target = [ObjectInfo];

    fn deref(&self) -> &[ObjectInfo] {
        &self.all[self.start..self.end]
    }
}

impl<'a> IntoIterator for &'a Files {
    type Item = &'a ObjectInfo;
    type IntoIter = std::slice::Iter<'a, ObjectInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Files {
    fn eq(&self, other: &Files) -> bool {
        **self == **other
    }
}

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Files, D::Error> {
        Vec::deserialize(deserializer).map(Files::from)
    }
}

impl Split {
    /// A split of `range`, named by its content.
    pub fn new(index: usize, range: Range, rows: Option<u64>, bytes: u64) -> Split {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        let mut object = |info: &ObjectInfo| {
            add(&info.uri);
            add(&info.etag);
            add(&info.size.to_string());
        };
        let numbers = match &range {
            Range::Rows { object: info, group, skip, rows } => {
                object(info);
                format!("rows {group} {skip} {rows}")
            }
            Range::Bytes { object: info, start, end } => {
                object(info);
                format!("bytes {start} {end}")
            }
            Range::Batches { object: info, first, count } => {
                object(info);
                format!("batches {first} {count}")
            }
            Range::Files { objects } => {
                objects.iter().for_each(object);
                "files".to_owned()
            }
            Range::Broken { object: info, .. } => {
                object(info);
                "broken".to_owned()
            }
        };
        add(&numbers);
        let id = hasher.finalize().to_hex()[..32].to_owned();
        Split { id, index, range, rows, bytes }
    }

    /// The name of its part of the output, without ending: parts sort as splits do.
    pub fn part_name(&self) -> String {
        format!("part-{:06}-{}", self.index, &self.id[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_what_is_read() {
        let object = ObjectInfo { uri: "a".to_owned(), size: 9, etag: "x".to_owned() };
        let bytes = |object: &ObjectInfo, start, end| {
            Split::new(3, Range::Bytes { object: object.clone(), start, end }, None, end - start)
        };
        let split = bytes(&object, 0, 9);
        assert_eq!(split, bytes(&object, 0, 9));
        assert!(split.part_name().starts_with("part-000003-"));
        let changed = ObjectInfo { etag: "y".to_owned(), ..object.clone() };
        let others = [bytes(&object, 0, 8), bytes(&object, 1, 9), bytes(&changed, 0, 9)];
        assert!(others.iter().all(|other| other.id != split.id));
    }
}
