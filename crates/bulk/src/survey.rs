//! A first pass over all rows of a job, for functions whose answer to one row depends on others.
//!
//! Each split's notes are a file of their own beside the job, written once and the same whoever writes them: so a job
//! that was interrupted goes on, and shards share one pass. What follows from all notes is the same everywhere too.

use crate::store::{Folder, Object};
use crate::{BulkError, Function};
use arrow_array::ArrayRef;
use std::sync::Arc;

/// What a function notes of all rows before it answers the first.
pub trait Survey: Send + Sync {
    /// Notes of a split: `columns` are those that the function reads, piece by piece, `unreadable` rows in them that hold
    /// nothing.
    ///
    /// # Errors
    /// What concerns all rows.
    fn note(&self, notes: &mut Vec<u8>, columns: &[ArrayRef], unreadable: &[usize]) -> Result<(), BulkError>;
    /// The notes of a split in the order in which they are read.
    fn finish(&self, notes: Vec<u8>) -> Vec<u8> {
        notes
    }
    /// What follows from the notes of all splits.
    ///
    /// # Errors
    /// [`BulkError::Store`], [`BulkError::Job`] for more rows than it can hold.
    fn combine(&self, notes: &mut Notes) -> Result<Vec<u8>, BulkError>;
    /// The function that knows it.
    ///
    /// # Errors
    /// [`BulkError::Job`] if `found` is not what [`Survey::combine`] gave.
    fn open(&self, found: &[u8]) -> Result<Arc<dyn Function>, BulkError>;
}

/// Files open at once.
const MAX_OPEN: usize = 256;

/// The notes of all splits, in their order.
pub struct Notes {
    folder: Folder,
    names: Vec<String>,
    open: Vec<Option<Object>>,
    count: usize,
}

impl Notes {
    /// Files of `folder`.
    pub fn new(folder: Folder, names: Vec<String>) -> Notes {
        Notes { folder, open: vec![None; names.len()], names, count: 0 }
    }

    /// How many splits there are.
    pub fn splits(&self) -> usize {
        self.names.len()
    }

    /// Bytes of a split's notes.
    ///
    /// # Errors
    /// [`BulkError::Input`].
    pub fn len(&mut self, split: usize) -> Result<u64, BulkError> {
        Ok(self.object(split)?.size())
    }

    /// Whether there are no splits.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Some bytes of a split's notes.
    ///
    /// # Errors
    /// [`BulkError::Store`], [`BulkError::Input`].
    pub fn read(&mut self, split: usize, offset: u64, buffer: &mut [u8]) -> Result<(), BulkError> {
        let read = self.object(split)?.read_at(offset, buffer);
        read.map_err(|source| BulkError::store("read", self.folder.uri(&self.names[split]), source))
    }

    fn object(&mut self, split: usize) -> Result<&Object, BulkError> {
        if self.open[split].is_none() {
            if self.count >= MAX_OPEN {
                self.open.fill(None);
                self.count = 0;
            }
            self.open[split] = Some(self.folder.open(&self.names[split])?);
            self.count += 1;
        }
        self.open[split].as_ref().ok_or_else(|| BulkError::job("notes came and went"))
    }
}
