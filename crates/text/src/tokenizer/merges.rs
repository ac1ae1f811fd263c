//! The merges of byte-pair encoding (Sennrich et al., arXiv:1508.07909) and their application to a word.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};

/// Words of more symbols than this are merged through a heap, so that time stays `n log n`.
const SHORT_WORD: usize = 24;
/// A pair that no token has: the place is free.
const FREE: Merge = Merge { left: u32::MAX, right: u32::MAX, rank: 0, id: 0 };
/// Odd, without pattern: the fraction of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A token in a word and the bytes that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub id: u32,
    pub len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    id: u32,
}

/// Which tokens become which, and how soon: a hash table from two ids to a rank and an id.
#[derive(Debug)]
pub(super) struct Merges {
    /// Open addressing with linear probing; at most three quarters are taken.
    slots: Vec<Merge>,
    taken: usize,
    /// Unknown to whoever wrote a file, so that nobody can aim at one slot.
    seed: u64,
}

impl Merges {
    /// Room for `count` merges.
    pub fn with_capacity(count: usize) -> Merges {
        let slots = vec![FREE; (count.max(4) / 3 * 4 + 4).next_power_of_two()];
        Merges { slots, taken: 0, seed: RandomState::new().hash_one(0) }
    }

    /// `left` and `right` become `id`; ids are below `u32::MAX`. A second merge of the same two replaces the first.
    pub fn insert(&mut self, left: u32, right: u32, rank: u32, id: u32) {
        if (self.taken + 1) * 4 > self.slots.len() * 3 {
            let doubled = vec![FREE; self.slots.len() * 2];
            let old = std::mem::replace(&mut self.slots, doubled);
            for merge in old.into_iter().filter(|merge| merge.left != FREE.left) {
                let slot = self.slot(merge.left, merge.right);
                self.slots[slot] = merge;
            }
        }
        let slot = self.slot(left, right);
        self.taken += usize::from(self.slots[slot].left == FREE.left);
        self.slots[slot] = Merge { left, right, rank, id };
    }

    /// Rank and id of what `left` and `right` become.
    pub fn get(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let found = self.slots[self.slot(left, right)];
        (found.left != FREE.left).then_some((found.rank, found.id))
    }

    /// Where the pair is, or where it would be.
    fn slot(&self, left: u32, right: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mixed =
            u128::from((u64::from(left) << 32 | u64::from(right)) ^ self.seed) * u128::from(MULTIPLIER);
        // Truncation keeps the low bits, which is all that a mask needs.
        let mut slot = (mixed as u64 ^ (mixed >> 64) as u64) as usize & mask;
        loop {
            let found = &self.slots[slot];
            if found.left == FREE.left || (found.left == left && found.right == right) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Merges the symbols of a word: always the lowest rank, and of equal ranks the leftmost.
    pub fn apply(&self, symbols: &mut Vec<Symbol>) {
        if symbols.len() <= SHORT_WORD { self.apply_short(symbols) } else { self.apply_long(symbols) }
    }

    fn pair(&self, symbols: &[Symbol], left: usize, right: usize) -> Option<(u32, u32)> {
        self.get(symbols[left].id, symbols[right].id)
    }

    fn apply_short(&self, symbols: &mut Vec<Symbol>) {
        if symbols.len() < 2 {
            return;
        }
        let mut pairs = [None; SHORT_WORD];
        for (at, pair) in pairs.iter_mut().enumerate().take(symbols.len() - 1) {
            *pair = self.pair(symbols, at, at + 1);
        }
        while symbols.len() > 1 {
            let count = symbols.len() - 1;
            let best = (0..count).filter_map(|at| pairs[at].map(|(rank, id)| (rank, at, id))).min();
            let Some((_, at, id)) = best else { break };
            symbols[at] = Symbol { id, len: symbols[at].len + symbols[at + 1].len };
            symbols.remove(at + 1);
            pairs.copy_within(at + 1..count, at);
            let count = symbols.len() - 1;
            if at > 0 {
                pairs[at - 1] = self.pair(symbols, at - 1, at);
            }
            if at < count {
                pairs[at] = self.pair(symbols, at, at + 1);
            }
        }
    }

    /// The same merges through a heap and a linked list.
    fn apply_long(&self, symbols: &mut Vec<Symbol>) {
        let len = symbols.len();
        let mut next: Vec<usize> = (1..=len).collect();
        let mut previous: Vec<usize> = (0..len).map(|at| at.wrapping_sub(1)).collect();
        let mut alive = vec![true; len];
        let mut heap = BinaryHeap::new();
        for at in 0..len - 1 {
            if let Some((rank, _)) = self.pair(symbols, at, at + 1) {
                heap.push(Reverse((rank, at, symbols[at].id, symbols[at + 1].id)));
            }
        }
        while let Some(Reverse((_, at, left, right))) = heap.pop() {
            let after = next[at];
            // A pair whose members have since been merged elsewhere is stale.
            if !alive[at] || symbols[at].id != left || after >= len || symbols[after].id != right {
                continue;
            }
            let Some((_, id)) = self.get(left, right) else { continue };
            symbols[at] = Symbol { id, len: symbols[at].len + symbols[after].len };
            alive[after] = false;
            next[at] = next[after];
            if next[at] < len {
                previous[next[at]] = at;
                if let Some((rank, _)) = self.pair(symbols, at, next[at]) {
                    heap.push(Reverse((rank, at, id, symbols[next[at]].id)));
                }
            }
            let before = previous[at];
            if before < len
                && let Some((rank, _)) = self.pair(symbols, before, at)
            {
                heap.push(Reverse((rank, before, symbols[before].id, id)));
            }
        }
        let mut at = 0;
        symbols.retain(|_| {
            at += 1;
            alive[at - 1]
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn is_a_map(pairs in prop::collection::vec((0u32..40, 0u32..40, 0u32..1000), 0..400)) {
            let (mut merges, mut map) = (Merges::with_capacity(0), HashMap::new());
            for (rank, (left, right, id)) in (0..).zip(pairs) {
                merges.insert(left, right, rank, id);
                map.insert((left, right), (rank, id));
            }
            for left in 0..41 {
                for right in 0..41 {
                    prop_assert_eq!(merges.get(left, right), map.get(&(left, right)).copied());
                }
            }
        }

        #[test]
        fn short_and_long_words_merge_alike(
            pairs in prop::collection::vec((0u32..6, 0u32..6), 0..30),
            word in prop::collection::vec(0u32..3, 1..=SHORT_WORD),
        ) {
            let mut merges = Merges::with_capacity(30);
            for (rank, (left, right)) in (0..).zip(pairs) {
                merges.insert(left, right, rank, 3 + rank % 3);
            }
            let mut short: Vec<Symbol> = word.iter().map(|&id| Symbol { id, len: 1 }).collect();
            let mut long = short.clone();
            merges.apply_short(&mut short);
            merges.apply_long(&mut long);
            prop_assert_eq!(short.iter().map(|s| s.len as usize).sum::<usize>(), word.len());
            prop_assert_eq!(short, long);
        }
    }
}
