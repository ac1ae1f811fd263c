//! Unigram models of a sentencepiece file, with the library's own sums in f32.

use super::invalid;
use crate::tokenizer::trie::Trie;
use crate::tokenizer::unigram::{UNKNOWN_PENALTY, best_pieces};
use crate::tokenizer::{Kind, TokenizerError};

/// Pieces and their scores.
#[derive(Debug)]
pub(super) struct Unigram {
    trie: Trie,
    scores: Vec<f32>,
    unknown: f32,
}

impl Unigram {
    /// # Errors
    /// [`TokenizerError::Invalid`] if the pieces are too long or too many.
    pub(super) fn new(pieces: &[(String, f32, Kind)]) -> Result<Unigram, TokenizerError> {
        let normal = || pieces.iter().filter(|(.., kind)| *kind == Kind::Normal).map(|(_, score, _)| *score);
        let least = normal().fold(f32::INFINITY, f32::min);
        let most = normal().fold(f32::NEG_INFINITY, f32::max);
        let score = |(text, score, kind): &(String, f32, Kind)| match kind {
            // Such pieces go before anything that they could be made of.
            Kind::UserDefined => text.len() as f32 * most - 0.1,
            _ => *score,
        };
        let matched = |id: &u32| matches!(pieces[*id as usize].2, Kind::Normal | Kind::UserDefined);
        let trie = Trie::new((0..pieces.len() as u32).filter(matched), |id| pieces[id as usize].0.as_bytes())
            .map_err(|what| invalid(format!("pieces: {what}")))?;
        let least = if least.is_finite() { least } else { 0.0 };
        Ok(Unigram { trie, scores: pieces.iter().map(score).collect(), unknown: least - UNKNOWN_PENALTY })
    }

    /// The pieces of `text`; a character that none begins is a piece of its own.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let pieces = best_pieces(&self.trie, text, self.unknown, |id| self.scores[id as usize]);
        pieces.iter().map(|piece| &text[piece.start..piece.end]).collect()
    }
}
