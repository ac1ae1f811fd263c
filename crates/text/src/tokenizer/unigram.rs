//! The likeliest pieces of a text (arXiv:1804.10959).

use std::ops::Add;

use super::trie::Trie;

/// How much less likely than the least likely piece an unknown character is.
pub(super) const UNKNOWN_PENALTY: f32 = 10.0;

/// A part of a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub start: usize,
    pub end: usize,
    /// Its number in the trie; `None`: a character that no piece begins with alone.
    pub id: Option<u32>,
}

/// The pieces of `text` whose scores have the highest sum; the longer last piece stays among equals. `score` is that of a
/// piece, `unknown` that of a character which is no piece itself. The sums are in the arithmetic of `S`: implementations
/// differ in it, and with it in their choices.
pub(super) fn best_pieces<S: Copy + Default + PartialOrd + Add<Output = S>>(
    trie: &Trie,
    text: &str,
    unknown: S,
    score: impl Fn(u32) -> S,
) -> Vec<Piece> {
    /// The best way to a place in the text: where its last piece starts, `usize::MAX` if there is none yet.
    #[derive(Clone, Copy)]
    struct Path<S> {
        sum: S,
        start: usize,
        id: Option<u32>,
    }
    let mut paths = vec![Path { sum: S::default(), start: usize::MAX, id: None }; text.len() + 1];
    for (start, c) in text.char_indices() {
        let before = paths[start].sum;
        let mut offer = |len: usize, sum: S, id: Option<u32>| {
            let path = &mut paths[start + len];
            if path.start == usize::MAX || sum > path.sum {
                *path = Path { sum, start, id };
            }
        };
        let mut is_known = false;
        for (len, id) in trie.prefixes(Trie::ROOT, &text.as_bytes()[start..]) {
            offer(len, before + score(id), Some(id));
            is_known |= len == c.len_utf8();
        }
        if !is_known {
            offer(c.len_utf8(), before + unknown, None);
        }
    }
    let mut pieces = Vec::new();
    let mut end = text.len();
    while end > 0 {
        let Path { start, id, .. } = paths[end];
        pieces.push(Piece { start, end, id });
        end = start;
    }
    pieces.reverse();
    pieces
}
