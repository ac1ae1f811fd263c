//! The tokens of a vocabulary, kept compactly and found by their bytes.

use std::hash::{BuildHasher, RandomState};

/// Byte strings by id, with a hash table from bytes to id.
///
/// One blob and two arrays of `u32` hold everything: about 20 bytes a token beside its text, so that a
/// vocabulary of 150,000 tokens takes some 4 MB.
#[derive(Debug)]
pub(super) struct TokenTable {
    blob: Vec<u8>,
    ends: Vec<u32>,
    /// Open addressing with linear probing; `id + 1`, 0 is free.
    slots: Vec<u32>,
    hasher: RandomState,
    max_bytes: usize,
}

impl TokenTable {
    /// An empty table for `tokens` tokens of `bytes` bytes in all.
    pub fn with_capacity(tokens: usize, bytes: usize) -> TokenTable {
        TokenTable {
            blob: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(tokens),
            slots: vec![0; (tokens.max(4) * 2).next_power_of_two()],
            hasher: RandomState::new(),
            max_bytes: 0,
        }
    }

    /// Adds the next token; it is not found by [`TokenTable::find`] until [`TokenTable::index`] names it.
    ///
    /// `None` if the table's 4 GiB are full.
    pub fn push(&mut self, bytes: &[u8]) -> Option<u32> {
        let id = u32::try_from(self.ends.len()).ok()?;
        self.blob.extend_from_slice(bytes);
        self.ends.push(u32::try_from(self.blob.len()).ok()?);
        Some(id)
    }

    /// Makes token `id` findable; the first of several equal tokens stays.
    pub fn index(&mut self, id: u32) {
        let mask = self.slots.len() - 1;
        let mut slot = self.slot_of(self.bytes(id));
        loop {
            match self.slots[slot] {
                0 => break,
                taken if self.bytes(taken - 1) == self.bytes(id) => return,
                _ => slot = (slot + 1) & mask,
            }
        }
        self.slots[slot] = id + 1;
        self.max_bytes = self.max_bytes.max(self.bytes(id).len());
    }

    /// The id of the indexed token that is `bytes`.
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut slot = self.slot_of(bytes);
        loop {
            match self.slots[slot] {
                0 => return None,
                taken if self.bytes(taken - 1) == bytes => return Some(taken - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// The bytes of token `id`; empty beyond the end.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        &self.blob[start..end as usize]
    }

    /// Length in bytes of the longest indexed token.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    fn slot_of(&self, bytes: &[u8]) -> usize {
        // Truncation keeps the low bits, which is all that a mask needs.
        (self.hasher.hash_one(bytes) as usize) & (self.slots.len() - 1)
    }
}
