//! Unigram models (arXiv:1804.10959) of a `tokenizer.json`.

use tokenizers::Token;

use super::model::{Fields, lacks, token};
use super::vocabulary::Vocabulary;
use crate::tokenizer::trie::Trie;
use crate::tokenizer::unigram::{UNKNOWN_PENALTY, best_pieces};
use crate::tokenizer::{TokenizerError, invalid};

/// Pieces with scores.
#[derive(Debug)]
pub(super) struct Pieces {
    pub vocabulary: Vocabulary,
    trie: Trie,
    scores: Vec<f64>,
    unknown: Option<u32>,
    unknown_score: f64,
    byte_fallback: bool,
}

impl Pieces {
    pub fn new(mut vocabulary: Vocabulary, fields: &Fields<'_>) -> Result<Pieces, TokenizerError> {
        let count = vocabulary.len();
        if let Some(unknown) = fields.unk_id.filter(|id| *id as usize >= count) {
            return Err(invalid(format!("tokenizer.json: model: unk_id {unknown} of {count} pieces")));
        }
        let scores = vocabulary.scores.take().unwrap_or_default();
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let trie = Trie::new(0..count as u32, |place| vocabulary.at(place))
            .map_err(|what| invalid(format!("tokenizer.json: model.vocab: {what}")))?;
        Ok(Pieces {
            vocabulary,
            trie,
            scores,
            unknown: fields.unk_id,
            unknown_score: least - f64::from(UNKNOWN_PENALTY),
            byte_fallback: fields.byte_fallback.unwrap_or(false),
        })
    }

    pub fn find(&self, text: &str) -> Option<u32> {
        self.trie.find(text.as_bytes())
    }

    pub fn tokenize(&self, word: &str) -> Result<Vec<Token>, TokenizerError> {
        let pieces = best_pieces(&self.trie, word, self.unknown_score, |id| self.scores[id as usize]);
        let mut tokens = Vec::with_capacity(pieces.len());
        let mut pieces = pieces.into_iter().peekable();
        while let Some(piece) = pieces.next() {
            let (start, mut end) = (piece.start, piece.end);
            let is_unknown = |id: Option<u32>| id.is_none() || id == self.unknown;
            if !is_unknown(piece.id) {
                tokens.extend(piece.id.map(|id| token(id, start, end)));
                continue;
            }
            // Unknown characters in a row are one token, or one text to spell in bytes.
            while let Some(more) = pieces.next_if(|piece| is_unknown(piece.id)) {
                end = more.end;
            }
            self.unknown_text(&word[start..end], start, &mut tokens)?;
        }
        Ok(tokens)
    }

    /// Appends what stands for `text`, which begins at byte `start` of the word.
    fn unknown_text(&self, text: &str, start: usize, tokens: &mut Vec<Token>) -> Result<(), TokenizerError> {
        let end = start + text.len();
        if let Some(id) = self.find(text) {
            tokens.push(token(id, start, end));
            return Ok(());
        }
        let first = tokens.len();
        if self.byte_fallback {
            let ids = text.bytes().map_while(|byte| self.find(&format!("<0x{byte:02X}>")));
            tokens.extend(ids.map(|id| token(id, start, end)));
            if tokens.len() == first + text.len() {
                return Ok(());
            }
            tokens.truncate(first);
        }
        tokens.push(token(self.unknown.ok_or_else(|| lacks(text))?, start, end));
        Ok(())
    }
}
