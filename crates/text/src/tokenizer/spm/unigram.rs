//! The likeliest pieces of a text (arXiv:1804.10959), with the library's own sums in f32 and its choice among equals.

use super::invalid;
use crate::tokenizer::tokens::TokenTable;
use crate::tokenizer::{Kind, TokenizerError};

/// How much less likely than the least likely piece an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Pieces and their scores.
#[derive(Debug)]
pub(super) struct Unigram {
    table: TokenTable,
    scores: Vec<f32>,
    unknown: f32,
}

/// The best way to a place in the text.
#[derive(Clone, Copy)]
struct Path {
    score: f32,
    /// Where its last piece starts; `usize::MAX`: there is no way yet.
    start: usize,
}

impl Unigram {
    /// # Errors
    /// [`TokenizerError::Invalid`] if the pieces are too many.
    pub(super) fn new(pieces: &[(String, f32, Kind)]) -> Result<Unigram, TokenizerError> {
        let normal = || pieces.iter().filter(|(.., kind)| *kind == Kind::Normal).map(|(_, score, _)| *score);
        let least = normal().fold(f32::INFINITY, f32::min);
        let most = normal().fold(f32::NEG_INFINITY, f32::max);
        let mut table = TokenTable::with_capacity(pieces.len(), pieces.iter().map(|(t, ..)| t.len()).sum());
        let mut scores = Vec::with_capacity(pieces.len());
        for (text, score, kind) in pieces {
            let id = table.push(text.as_bytes()).ok_or_else(|| invalid("pieces beyond 4 GiB"))?;
            scores.push(match kind {
                // Such pieces go before anything that they could be made of.
                Kind::UserDefined => text.len() as f32 * most - 0.1,
                _ => *score,
            });
            if matches!(kind, Kind::Normal | Kind::UserDefined) {
                table.index(id);
            }
        }
        let least = if least.is_finite() { least } else { 0.0 };
        Ok(Unigram { table, scores, unknown: least - UNKNOWN_PENALTY })
    }

    /// The pieces of `text`; a character that none begins is a piece of its own.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut paths = vec![Path { score: 0.0, start: usize::MAX }; text.len() + 1];
        for (start, c) in text.char_indices() {
            let before = paths[start].score;
            let mut offer = |end: usize, score: f32| {
                let path = &mut paths[end];
                if path.start == usize::MAX || score > path.score {
                    *path = Path { score, start };
                }
            };
            let first = start + c.len_utf8();
            let mut is_known = false;
            let last = (start + self.table.max_bytes()).min(text.len());
            for end in (first..=last).filter(|end| text.is_char_boundary(*end)) {
                if let Some(id) = self.table.find(&text.as_bytes()[start..end]) {
                    offer(end, before + self.scores[id as usize]);
                    is_known |= end == first;
                }
            }
            if !is_known {
                offer(first, before + self.unknown);
            }
        }
        let mut pieces = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let start = paths[end].start;
            pieces.push(&text[start..end]);
            end = start;
        }
        pieces.reverse();
        pieces
    }
}
