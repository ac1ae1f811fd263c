//! The `precompiled_charsmap` of SentencePiece's normalizers, checked before the `tokenizers` crate reads it.
//!
//! It holds the size of a table in bytes, the table (a double-array trie, see `darts-clone`), and replacements that
//! each end in a zero byte. The crate trusts every number in it.

use serde_json::Value;

use super::TokenizerError;

/// Longest replacement; Unicode's own longest has 33 bytes.
const MAX_REPLACEMENT: usize = 128;
/// Units of the table come in blocks: a child's place is its parent's with the low bits changed by a byte.
const BLOCK: usize = 256;

/// Refuses maps in `value`, found in `field`, that promise more than they hold, point outside, or lengthen a text
/// without bound.
///
/// # Errors
/// [`TokenizerError::Invalid`] with the field, the value and the limit.
pub(super) fn check(field: &str, value: &Value) -> Result<(), TokenizerError> {
    let map = match value {
        Value::Array(list) => return list.iter().try_for_each(|inner| check(field, inner)),
        Value::Object(map) => map,
        _ => return Ok(()),
    };
    let Some(encoded) = map.get("precompiled_charsmap") else {
        return map.values().try_for_each(|inner| check(field, inner));
    };
    let bytes = encoded.as_str().and_then(base64).ok_or_else(|| "is not base64".to_owned());
    bytes
        .and_then(|bytes| check_map(&bytes))
        .map_err(|what| TokenizerError::Invalid { what: format!("{field}: precompiled_charsmap {what}") })
}

fn check_map(bytes: &[u8]) -> Result<(), String> {
    let (head, rest) = bytes.split_first_chunk().ok_or_else(|| format!("has {} bytes", bytes.len()))?;
    let size = u32::from_le_bytes(*head) as usize;
    if size > rest.len() {
        return Err(format!("has a table of {size} bytes, {} are there", rest.len()));
    }
    let (table, text) = rest.split_at(size);
    let (units, odd) = table.as_chunks::<4>();
    if units.is_empty() || units.len() % BLOCK != 0 || !odd.is_empty() {
        return Err(format!("has a table of {size} bytes, not a multiple of {}", 4 * BLOCK));
    }
    let text = std::str::from_utf8(text).map_err(|error| format!("is not text after its table: {error}"))?;
    let longest = text.split('\0').map(str::len).max().unwrap_or(0);
    if longest > MAX_REPLACEMENT {
        return Err(format!("has a replacement of {longest} bytes, limit {MAX_REPLACEMENT}"));
    }
    for (at, unit) in units.iter().enumerate() {
        let unit = u32::from_le_bytes(*unit);
        // A unit with the highest bit is a value and has no children.
        if unit >> 31 == 1 {
            continue;
        }
        let children = at ^ ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize;
        let Some(first) = units.get(children) else {
            return Err(format!("unit {at} points to unit {children} of {}", units.len()));
        };
        let value = (u32::from_le_bytes(*first) & !(1 << 31)) as usize;
        if unit & 1 << 8 != 0 && !text.is_char_boundary(value) {
            return Err(format!("unit {at} points to byte {value} of {} bytes of text", text.len()));
        }
    }
    Ok(())
}

/// The bytes of a text in base64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for group in digits.chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            let value = match group.get(at) {
                Some(digit @ b'A'..=b'Z') => digit - b'A',
                Some(digit @ b'a'..=b'z') => digit - b'a' + 26,
                Some(digit @ b'0'..=b'9') => digit - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
                None => 0,
            };
            bits = bits << 6 | u32::from(value);
        }
        let [_, triple @ ..] = u32::to_be_bytes(bits);
        bytes.extend(&triple[..group.len().saturating_sub(1)]);
    }
    Some(bytes)
}
