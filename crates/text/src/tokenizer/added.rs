//! Finding added tokens (control tokens, user-defined tokens) that are spelt out in a text.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::TokenizerError;

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
    automaton: AhoCorasick,
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
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(added.iter().map(|token| token.text.as_bytes()))
            .map_err(|error| TokenizerError::Invalid { what: format!("added tokens: {error}") })?;
        let tokens = added.iter().map(|t| (t.id, t.strips_left, t.strips_right)).collect();
        Ok(Some(Matcher { automaton, tokens }))
    }

    /// Cuts `text` at the tokens found outside the `closed` ranges (sorted, apart from each other).
    pub fn cut<'t>(&self, text: &'t str, closed: &[Range<usize>], piece: &mut dyn FnMut(Piece<'t>)) {
        let (mut done, mut at, mut range) = (0, 0, 0);
        while let Some(found) = self.automaton.find(Input::new(text).span(at..text.len())) {
            while closed.get(range).is_some_and(|r| r.end <= found.start()) {
                range += 1;
            }
            if closed.get(range).is_some_and(|r| r.start < found.end()) {
                // A token may still begin inside the rejected one.
                at = found.start() + 1;
                continue;
            }
            let (id, strips_left, strips_right) = self.tokens[found.pattern().as_usize()];
            let mut before = &text[done..found.start()];
            if strips_left {
                before = before.trim_end();
            }
            if !before.is_empty() {
                piece(Piece::Text { text: before, at: done });
            }
            piece(Piece::Token { id, at: found.start(), len: found.len() });
            done = found.end();
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
