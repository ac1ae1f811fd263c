//! Finding added tokens (control tokens, user-defined tokens) that are spelt out in a text.

use std::ops::Range;

use super::trie::Trie;
use super::{TokenizerError, invalid};

/// One added token.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub text: String,
    pub id: u32,
    /// Takes the white space before it along.
    pub strips_left: bool,
    /// Takes the white space after it along.
    pub strips_right: bool,
}

/// Finds added tokens: leftmost, then longest.
#[derive(Debug)]
pub(super) struct Matcher {
    trie: Trie,
    tokens: Vec<(u32, bool, bool)>,
}

/// A piece of a text between added tokens, or one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text { text: &'t str, at: usize },
    Token { id: u32, at: usize, len: usize },
}

impl Matcher {
    /// `None` if there are no tokens to find.
    pub fn new(added: Vec<Added>) -> Result<Option<Matcher>, TokenizerError> {
        let added: Vec<Added> = added.into_iter().filter(|token| !token.text.is_empty()).collect();
        if added.is_empty() {
            return Ok(None);
        }
        let trie = Trie::new(0..added.len() as u32, |at| added[at as usize].text.as_bytes())
            .map_err(|what| invalid(format!("added tokens: {what}")))?;
        let tokens = added.iter().map(|t| (t.id, t.strips_left, t.strips_right)).collect();
        Ok(Some(Matcher { trie, tokens }))
    }

    /// The leftmost token in `text` from byte `at` on, the longest of those that begin there: its place and number.
    fn find(&self, text: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
        (at..text.len()).find_map(|start| {
            let (len, token) = self.trie.prefixes(Trie::ROOT, &text[start..]).last()?;
            Some((start..start + len, token as usize))
        })
    }

    /// Cuts `text` at the tokens found outside the `closed` ranges (sorted, apart from each other).
    pub fn cut<'t>(&self, text: &'t str, closed: &[Range<usize>], piece: &mut dyn FnMut(Piece<'t>)) {
        let (mut done, mut at, mut range) = (0, 0, 0);
        while let Some((found, token)) = self.find(text.as_bytes(), at) {
            while closed.get(range).is_some_and(|r| r.end <= found.start) {
                range += 1;
            }
            if closed.get(range).is_some_and(|r| r.start < found.end) {
                // A token may still begin inside the rejected one.
                at = found.start + 1;
                continue;
            }
            let (id, strips_left, strips_right) = self.tokens[token];
            let mut before = &text[done..found.start];
            if strips_left {
                before = before.trim_end();
            }
            if !before.is_empty() {
                piece(Piece::Text { text: before, at: done });
            }
            piece(Piece::Token { id, at: found.start, len: found.len() });
            done = found.end;
            if strips_right {
                done = text.len() - text[done..].trim_start().len();
            }
            at = done;
        }
        if done < text.len() {
            piece(Piece::Text { text: &text[done..], at: done });
        }
    }
}
