//! JSON from model files: bounded in size, depth (128, by serde_json) and in the memory that it becomes.

use crate::FormatError;
use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

/// Bytes of memory that any file may become, besides [`GROWTH`] times its size.
const FREE_BYTES: u64 = 8 << 20;
/// How many times its size a file may take in memory.
const GROWTH: u64 = 8;
/// About what an object costs: the node of a tree map.
const OBJECT_BYTES: u64 = 720;
/// About what an entry costs, with the room that growing vectors keep.
const ENTRY_BYTES: u64 = 128;

/// `bytes` as any JSON value.
pub(crate) fn value(field: &str, bytes: &[u8]) -> Result<Value, FormatError> {
    let declared = cost(bytes);
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let limit = size.saturating_mul(GROWTH).saturating_add(FREE_BYTES);
    if declared > limit {
        return Err(FormatError::Amplified { field: field.to_owned(), declared, limit });
    }
    parse(field, 0, bytes)
}

/// `bytes`, which start at `offset` of their file, as `T`.
pub(crate) fn parse<T: DeserializeOwned>(field: &str, offset: u64, bytes: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(bytes).map_err(|source| error(field, offset, bytes, source))
}

/// A parse error with the place in bytes instead of lines.
pub(crate) fn error(field: &str, offset: u64, bytes: &[u8], source: Error) -> FormatError {
    let skipped: usize = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(source.line().saturating_sub(1))
        .map(<[u8]>::len)
        .fold(0, usize::saturating_add);
    let place = u64::try_from(skipped.saturating_add(source.column().saturating_sub(1))).unwrap_or(u64::MAX);
    FormatError::Json { field: field.to_owned(), offset: offset.saturating_add(place), source }
}

/// An upper estimate of the memory that a document becomes, from its punctuation outside strings.
fn cost(bytes: &[u8]) -> u64 {
    let (mut total, mut in_string, mut escaped) = (0u64, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        let bytes = match byte {
            b'"' => {
                in_string = true;
                0
            }
            b'{' => OBJECT_BYTES,
            b'[' | b',' => ENTRY_BYTES,
            _ => 0,
        };
        total = total.saturating_add(bytes);
    }
    total
}
