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
    index: TokenIndex,
    max_bytes: usize,
}

impl TokenTable {
    /// An empty table for `tokens` tokens of `bytes` bytes in all.
    pub fn with_capacity(tokens: usize, bytes: usize) -> TokenTable {
        TokenTable {
            blob: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(tokens),
            index: TokenIndex::with_capacity(tokens),
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
        let (blob, ends) = (&self.blob, &self.ends);
        self.index.insert(id, |id| bytes_of(blob, ends, id));
        self.max_bytes = self.max_bytes.max(self.bytes(id).len());
    }

    /// The id of the indexed token that is `bytes`.
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.index.find(bytes, |id| self.bytes(id))
    }

    /// The bytes of token `id`; empty beyond the end.
    pub fn bytes(&self, id: u32) -> &[u8] {
        bytes_of(&self.blob, &self.ends, id)
    }

    /// Length in bytes of the longest indexed token.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

fn bytes_of<'t>(blob: &'t [u8], ends: &[u32], id: u32) -> &'t [u8] {
    let id = id as usize;
    let Some(&end) = ends.get(id) else { return &[] };
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &blob[start..end as usize]
}

/// A hash table from bytes to numbers; whoever owns it keeps the bytes and gives them as `bytes_of` a number.
#[derive(Debug)]
pub(super) struct TokenIndex {
    /// Open addressing with linear probing; `number + 1`, 0 is free.
    slots: Vec<u32>,
    hasher: RandomState,
}

impl TokenIndex {
    /// Room for `tokens` numbers.
    pub fn with_capacity(tokens: usize) -> TokenIndex {
        let slots = vec![0; (tokens.max(4) * 2).next_power_of_two()];
        TokenIndex { slots, hasher: RandomState::new() }
    }

    /// Adds `number`; the first of several with equal bytes stays.
    pub fn insert<'t>(&mut self, number: u32, bytes_of: impl Fn(u32) -> &'t [u8]) {
        let slot = self.slot(bytes_of(number), bytes_of);
        if self.slots[slot] == 0 {
            self.slots[slot] = number + 1;
        }
    }

    /// The number that has these bytes.
    pub fn find<'t>(&self, bytes: &[u8], bytes_of: impl Fn(u32) -> &'t [u8]) -> Option<u32> {
        self.slots[self.slot(bytes, bytes_of)].checked_sub(1)
    }

    /// Where `bytes` are, or where they would be.
    fn slot<'t>(&self, bytes: &[u8], bytes_of: impl Fn(u32) -> &'t [u8]) -> usize {
        let mask = self.slots.len() - 1;
        // Truncation keeps the low bits, which is all that a mask needs.
        let mut slot = (self.hasher.hash_one(bytes) as usize) & mask;
        while self.slots[slot].checked_sub(1).is_some_and(|number| bytes_of(number) != bytes) {
            slot = (slot + 1) & mask;
        }
        slot
    }
}
