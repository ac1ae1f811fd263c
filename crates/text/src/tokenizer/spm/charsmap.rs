//! The table of replacements: a double-array trie (darts-clone) over what is replaced, and the replacements one after the
//! other, each ended by a zero byte.

use super::invalid;
use crate::tokenizer::TokenizerError;

/// Longest replacement, in bytes: a text never grows by more than this for each byte.
const MAX_REPLACEMENT: usize = 64;

/// Replaces prefixes of a text.
#[derive(Debug)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

/// One unit of the trie, as darts-clone packs it.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }
    fn value(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }
    fn label(self) -> u32 {
        self.0 & (1 << 31 | 0xff)
    }
    fn offset(self) -> usize {
        (self.0 >> 10 << ((self.0 & 1 << 9) >> 6)) as usize
    }
}

impl CharsMap {
    /// Reads the table; every replacement is checked once here.
    pub(super) fn new(blob: &[u8]) -> Result<CharsMap, TokenizerError> {
        let broken = || invalid("the table of replacements is cut short");
        let (size, rest) = blob.split_first_chunk::<4>().ok_or_else(broken)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (trie, replacements) = rest.split_at_checked(size).ok_or_else(broken)?;
        if trie.is_empty() || !trie.len().is_multiple_of(4) {
            return Err(invalid(format!("a trie of {} bytes", trie.len())));
        }
        let replacements = std::str::from_utf8(replacements)
            .map_err(|_| invalid("replacements that are no UTF-8"))?
            .to_owned();
        if let Some(long) = replacements.split('\0').map(str::len).find(|len| *len > MAX_REPLACEMENT) {
            return Err(invalid(format!("a replacement of {long} bytes, limit {MAX_REPLACEMENT}")));
        }
        let units = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(CharsMap { units, replacements })
    }

    /// What the beginning of `text` becomes, and how many of its bytes that is; `text` is not empty.
    pub(super) fn replace<'t>(&'t self, text: &'t str) -> (&'t str, usize) {
        let found = self.longest(text.as_bytes()).filter(|(_, len)| text.is_char_boundary(*len));
        let replaced = found.and_then(|(at, len)| {
            let tail = self.replacements.get(at..)?;
            Some((tail.split('\0').next().unwrap_or(tail), len))
        });
        replaced.unwrap_or_else(|| one_char(text))
    }

    /// Value and length of the longest key that `text` begins with.
    fn longest(&self, text: &[u8]) -> Option<(usize, usize)> {
        let unit = |at: usize| self.units.get(at).copied().map(Unit);
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
