//! A file or object that is read in pieces.

use crate::BulkError;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes at places.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// Those of the disk or the network; [`io::ErrorKind::UnexpectedEof`] if there are fewer bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// An open file or object of known length.
#[derive(Clone)]
pub struct Object {
    source: Arc<dyn ReadAt>,
    size: u64,
    /// What the disk or the network last said.
    failure: Arc<Mutex<Option<String>>>,
}

/// Bytes fetched ahead by a reader.
const AHEAD_BYTES: usize = 1 << 20;
/// Bytes fetched ahead where Parquet reads the head of a page; the page itself is asked for by its length.
const HEAD_BYTES: u64 = 16 << 10;

impl Object {
    /// `size` bytes of `source`.
    pub fn new(source: Arc<dyn ReadAt>, size: u64) -> Object {
        Object { source, size, failure: Arc::default() }
    }

    /// Whether a read has failed: then what was read of it says nothing about the content.
    pub fn failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Why, as an error of the file at `uri`.
    pub fn failure(&self, uri: &str) -> BulkError {
        let what = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        BulkError::Input { uri: uri.to_owned(), what: what.unwrap_or_else(|| "it cannot be read".to_owned()) }
    }

    fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.source.read_at(offset, buffer).inspect_err(|error| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes `start..end`, one after the other; `end` is cut to the object's.
    pub fn reader(&self, start: u64, end: u64) -> BufReader<Section> {
        let end = end.min(self.size);
        let ahead = usize::try_from(end.saturating_sub(start)).unwrap_or(AHEAD_BYTES).clamp(1, AHEAD_BYTES);
        BufReader::with_capacity(ahead, Section { object: self.clone(), at: start, end })
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// Those of [`ReadAt`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.fill(offset, buffer)
    }

    /// All of it.
    ///
    /// # Errors
    /// Those of reading; one longer than `limit` is an error that says so.
    pub fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.size > limit {
            return Err(io::Error::other(format!("{} bytes, at most {limit}", self.size)));
        }
        let mut bytes = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
        self.fill(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// A part of an object as a stream.
pub struct Section {
    object: Object,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        if count > 0 {
            self.object.fill(self.at, &mut buffer[..count])?;
            self.at += count as u64;
        }
        Ok(count)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Length for Object {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Object {
    type T = BufReader<Section>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let ahead = self.size.saturating_sub(start).clamp(1, HEAD_BYTES) as usize;
        Ok(BufReader::with_capacity(ahead, Section { object: self.clone(), at: start, end: self.size }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A forged length is seen before anything is allocated for it.
        let end = start.checked_add(length as u64).filter(|end| *end <= self.size);
        if end.is_none() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of {}", self.size)));
        }
        let mut bytes = vec![0; length];
        self.fill(start, &mut bytes)?;
        Ok(bytes.into())
    }
}
