//! Reads little-endian fields from a file through a bounded window; every length is checked against the bytes left.

use crate::FormatError;
use crate::error::Field;
use kun_tensor::storage::DataFile;
use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes looked at in one go.
const WINDOW_BYTES: u64 = 1 << 20;

/// Where bytes come from.
pub(crate) trait Source {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// The bytes in `range`.
    fn bytes(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>>;
    /// For errors.
    fn path(&self) -> &Path;
}

impl Source for DataFile {
    fn len(&self) -> u64 {
        DataFile::len(self)
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        DataFile::bytes(self, range)
    }

    fn path(&self) -> &Path {
        DataFile::path(self)
    }
}

impl Source for [u8] {
    fn len(&self) -> u64 {
        u64::try_from(<[u8]>::len(self)).expect("a slice is shorter than 2^64 bytes")
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let start = usize::try_from(range.start).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = usize::try_from(range.end).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Cow::Borrowed(bytes))
    }

    fn path(&self) -> &Path {
        Path::new("")
    }
}

/// A position in a [`Source`].
pub(crate) struct Reader<'a, S: Source + ?Sized> {
    source: &'a S,
    len: u64,
    position: u64,
    window: Cow<'a, [u8]>,
    window_start: u64,
}

impl<'a, S: Source + ?Sized> Reader<'a, S> {
    pub fn new(source: &'a S) -> Reader<'a, S> {
        Reader { source, len: source.len(), position: 0, window: Cow::Borrowed(&[]), window_start: 0 }
    }

    /// Bytes from the start of the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Length of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes not yet read.
    pub fn left(&self) -> u64 {
        self.len.saturating_sub(self.position)
    }

    /// Fails unless `count` items of at least `item_bytes` each are still in the file.
    pub fn require(&self, field: Field<'_>, count: u64, item_bytes: u64) -> Result<(), FormatError> {
        let needed = count.saturating_mul(item_bytes);
        if needed <= self.left() {
            return Ok(());
        }
        Err(FormatError::Truncated {
            field: field.to_string(),
            offset: self.position,
            needed,
            left: self.left(),
        })
    }

    /// The next `count` bytes.
    pub fn take(&mut self, field: Field<'_>, count: u64) -> Result<&[u8], FormatError> {
        self.require(field, count, 1)?;
        let end = self.position.checked_add(count).expect("the end lies in the file");
        let window_bytes = u64::try_from(self.window.len()).expect("a window is shorter than 2^64 bytes");
        if end > self.window_start.saturating_add(window_bytes) {
            let window_end = end.max(self.position.saturating_add(WINDOW_BYTES)).min(self.len);
            self.window = self
                .source
                .bytes(self.position..window_end)
                .map_err(|source| FormatError::Io { path: PathBuf::from(self.source.path()), source })?;
            self.window_start = self.position;
        }
        let start =
            self.position.checked_sub(self.window_start).and_then(|start| usize::try_from(start).ok());
        let stop = end.checked_sub(self.window_start).and_then(|stop| usize::try_from(stop).ok());
        self.position = end;
        let range = start.zip(stop).expect("the window holds the position");
        Ok(self.window.get(range.0..range.1).expect("the window reaches the end"))
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, field: Field<'_>) -> Result<[u8; N], FormatError> {
        let count = u64::try_from(N).expect("a small constant");
        Ok(*self.take(field, count)?.first_chunk().expect("take gives as many bytes as asked for"))
    }

    pub fn u8(&mut self, field: Field<'_>) -> Result<u8, FormatError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub fn u32(&mut self, field: Field<'_>) -> Result<u32, FormatError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, field: Field<'_>) -> Result<u64, FormatError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A string behind its length.
    pub fn string(&mut self, field: Field<'_>, limit: u64) -> Result<String, FormatError> {
        let offset = self.position;
        let declared = self.u64(field)?;
        if declared > limit {
            return Err(FormatError::Limit { field: field.to_string(), offset, declared, limit });
        }
        let bytes = self.take(field, declared)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(FormatError::NotUtf8 {
                field: field.to_string(),
                offset,
                valid: u64::try_from(error.valid_up_to()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// `count` values of `N` bytes each, in chunks: memory is asked for once, after the bytes are known to be there.
    pub fn values<T, const N: usize>(
        &mut self,
        field: Field<'_>,
        count: u64,
        decode: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, FormatError> {
        let width = u64::try_from(N).expect("a small constant");
        self.require(field, count, width)?;
        let mut values = reserved(field, count)?;
        let mut left = count;
        while left > 0 {
            let step = left.min(WINDOW_BYTES.checked_div(width).unwrap_or(1));
            let bytes = self.take(field, step.checked_mul(width).expect("a window's worth"))?;
            values.extend(bytes.as_chunks::<N>().0.iter().copied().map(decode));
            left = left.checked_sub(step).expect("a step is at most what is left");
        }
        Ok(values)
    }
}

/// An empty vector with room for `count` items, whose bytes must already be known to be in the file.
pub(crate) fn reserved<T>(field: Field<'_>, count: u64) -> Result<Vec<T>, FormatError> {
    let size = u64::try_from(size_of::<T>()).unwrap_or(u64::MAX);
    let refused =
        || FormatError::OutOfMemory { field: field.to_string(), needed: count.saturating_mul(size) };
    let mut values = Vec::new();
    let items = usize::try_from(count).map_err(|_| refused())?;
    values.try_reserve_exact(items).map_err(|_| refused())?;
    Ok(values)
}
