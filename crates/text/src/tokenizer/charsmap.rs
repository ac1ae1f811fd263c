//! The `precompiled_charsmap` of SentencePiece's normalizers, in a model file or in a `tokenizer.json`.
//!
//! It holds the size of a table in bytes, the table (a double-array trie, see `darts-clone`), and replacements that
//! each end in a zero byte. The `tokenizers` crate, which reads that of a `tokenizer.json`, trusts every number in it:
//! so all are checked here first.

use serde_json::Value;

use super::{TokenizerError, invalid};

/// Longest replacement: a text never grows by more than this for each byte. Unicode's own longest has 33 bytes.
const MAX_REPLACEMENT: usize = 128;
/// Units of the table come in blocks: a child's place is its parent's with the low bits changed by a byte.
const BLOCK: usize = 256;

/// Replaces prefixes of a text.
#[derive(Debug)]
pub(super) struct CharsMap {
    units: Vec<Unit>,
    replacements: String,
}

/// One unit of the trie, as darts-clone packs it.
#[derive(Clone, Copy, Debug)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }
    fn is_leaf(self) -> bool {
        self.0 >> 31 == 1
    }
    fn value(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }
    fn label(self) -> u32 {
        self.0 & (1 << 31 | 0xff)
    }
    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & 1 << 9) >> 6)) as usize
    }
}

impl CharsMap {
    /// Reads a map that points nowhere outside and lengthens no text without bound.
    ///
    /// # Errors
    /// What it promises beyond what it holds, with the limit.
    pub fn read(bytes: &[u8]) -> Result<CharsMap, String> {
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
        let text =
            std::str::from_utf8(text).map_err(|error| format!("is not text after its table: {error}"))?;
        let longest = text.split('\0').map(str::len).max().unwrap_or(0);
        if longest > MAX_REPLACEMENT {
            return Err(format!("has a replacement of {longest} bytes, limit {MAX_REPLACEMENT}"));
        }
        let units: Vec<Unit> = units.iter().map(|unit| Unit(u32::from_le_bytes(*unit))).collect();
        for (at, unit) in units.iter().enumerate().filter(|(_, unit)| !unit.is_leaf()) {
            let children = at ^ unit.offset();
            let Some(first) = units.get(children) else {
                return Err(format!("unit {at} points to unit {children} of {}", units.len()));
            };
            if unit.has_leaf() && !text.is_char_boundary(first.value()) {
                let (value, len) = (first.value(), text.len());
                return Err(format!("unit {at} points to byte {value} of {len} bytes of text"));
            }
        }
        Ok(CharsMap { units, replacements: text.to_owned() })
    }

    /// What the beginning of `text` becomes, and how many of its bytes that is; `text` is not empty.
    pub fn replace<'t>(&'t self, text: &'t str) -> (&'t str, usize) {
        let found = self.longest(text.as_bytes()).filter(|(_, len)| text.is_char_boundary(*len));
        let replaced = found.and_then(|(at, len)| {
            let tail = self.replacements.get(at..)?;
            Some((tail.split('\0').next().unwrap_or(tail), len))
        });
        replaced.unwrap_or_else(|| one_char(text))
    }

    /// Value and length of the longest key that `text` begins with.
    fn longest(&self, text: &[u8]) -> Option<(usize, usize)> {
        let unit = |at: usize| self.units.get(at).copied();
        let mut at = unit(0)?.offset();
        let mut longest = None;
        for (i, &byte) in text.iter().enumerate() {
            at ^= usize::from(byte);
            let Some(found) = unit(at).filter(|found| found.label() == u32::from(byte)) else { break };
            at ^= found.offset();
            if found.has_leaf() {
                longest = unit(at).map(|leaf| (leaf.value(), i + 1));
            }
        }
        longest
    }
}

/// The first character as it is.
pub(super) fn one_char(text: &str) -> (&str, usize) {
    let len = text.chars().next().map_or(text.len(), char::len_utf8);
    (&text[..len], len)
}

/// Refuses maps anywhere in `value`, found in `field` of a `tokenizer.json`, that [`CharsMap::read`] refuses.
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
    match bytes.and_then(|bytes| CharsMap::read(&bytes)) {
        Ok(_) => Ok(()),
        Err(what) => Err(invalid(format!("{field}: precompiled_charsmap {what}"))),
    }
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
