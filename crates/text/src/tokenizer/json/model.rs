//! The `model` of a `tokenizer.json`: how a word becomes ids. The same ids as the `tokenizers` crate gives, from tables a
//! few times smaller than the file, where the crate's own take up to two hundred times its size.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenizers::Token;

use super::bpe::Bpe;
use super::unigram::Pieces;
use super::vocabulary::Vocabulary;
use super::wordpiece::WordPiece;
use crate::tokenizer::tokens::TokenIndex;
use crate::tokenizer::{TokenizerError, invalid};

/// Longest unknown token, prefix and suffix.
const MAX_AFFIX_BYTES: usize = 64;

/// The fields of any model, not read further than needed to know it.
#[derive(Default, Deserialize)]
pub(super) struct Fields<'f> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    vocab: Option<&'f RawValue>,
    #[serde(borrow)]
    pub merges: Option<&'f RawValue>,
    pub unk_token: Option<String>,
    pub unk_id: Option<u32>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    pub fuse_unk: Option<bool>,
    pub byte_fallback: Option<bool>,
    pub ignore_merges: Option<bool>,
    pub max_input_chars_per_word: Option<usize>,
}

/// How a word becomes ids.
#[derive(Debug)]
pub(super) enum Model {
    Bpe(Bpe),
    WordPiece(WordPiece),
    WordLevel(WordLevel),
    Unigram(Pieces),
}

/// Whole words only.
#[derive(Debug)]
pub(super) struct WordLevel {
    words: Words,
    unknown: Option<u32>,
}

/// A vocabulary whose tokens are found by their text.
#[derive(Debug)]
pub(super) struct Words {
    pub vocabulary: Vocabulary,
    index: TokenIndex,
}

impl Words {
    pub fn new(vocabulary: Vocabulary) -> Words {
        let mut index = TokenIndex::with_capacity(vocabulary.len());
        // The last of equal tokens counts, as in any JSON map.
        for place in (0..vocabulary.len() as u32).rev() {
            index.insert(place, |place| vocabulary.at(place));
        }
        Words { vocabulary, index }
    }

    /// The id of the token `text`.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        let place = self.index.find(text, |place| self.vocabulary.at(place))?;
        Some(self.vocabulary.id(place))
    }
}

fn wrong(error: impl std::fmt::Display) -> TokenizerError {
    invalid(format!("tokenizer.json: model: {error}"))
}

impl Model {
    /// Reads the model.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] with what is missing, or the limit.
    pub fn read(raw: &RawValue) -> Result<Model, TokenizerError> {
        let fields: Fields<'_> = serde_json::from_str(raw.get()).map_err(wrong)?;
        let affixes = [&fields.unk_token, &fields.continuing_subword_prefix, &fields.end_of_word_suffix];
        if let Some(long) = affixes.into_iter().flatten().find(|affix| affix.len() > MAX_AFFIX_BYTES) {
            return Err(wrong(format!(
                "an unknown token, prefix or suffix of {} bytes, limit {MAX_AFFIX_BYTES}",
                long.len()
            )));
        }
        let vocab = fields.vocab.ok_or_else(|| wrong("missing field `vocab`"))?;
        let vocabulary = Vocabulary::read(vocab).map_err(wrong)?;
        // Files of before 2020 do not name the type.
        let kind = match &fields.kind {
            Some(kind) => kind.as_str(),
            None if fields.merges.is_some() => "BPE",
            None if vocabulary.scores.is_some() => "Unigram",
            None if fields.max_input_chars_per_word.is_some() => "WordPiece",
            None => "WordLevel",
        };
        if vocabulary.scores.is_some() != (kind == "Unigram") {
            return Err(wrong(format!("vocab: a list is for Unigram and a map for others, here {kind:.60}")));
        }
        match kind {
            "BPE" => Bpe::new(Words::new(vocabulary), &fields).map(Model::Bpe),
            "WordPiece" => WordPiece::new(vocabulary, &fields).map(Model::WordPiece),
            "WordLevel" => {
                let words = Words::new(vocabulary);
                let unknown = fields.unk_token.as_deref().unwrap_or("<unk>");
                Ok(Model::WordLevel(WordLevel { unknown: words.find(unknown.as_bytes()), words }))
            }
            "Unigram" => Pieces::new(vocabulary, &fields).map(Model::Unigram),
            other => Err(wrong(format!("type `{other:.60}` is not BPE, WordPiece, WordLevel or Unigram"))),
        }
    }

    /// The tokens of `word`, which lie in it one after the other.
    pub fn tokenize(&self, word: &str) -> Result<Vec<Token>, TokenizerError> {
        match self {
            Model::Bpe(bpe) => bpe.tokenize(word),
            Model::WordPiece(pieces) => pieces.tokenize(word),
            Model::WordLevel(WordLevel { words, unknown }) => {
                let id = words.find(word.as_bytes()).or(*unknown).ok_or_else(|| lacks(word))?;
                Ok(vec![token(id, 0, word.len())])
            }
            Model::Unigram(pieces) => pieces.tokenize(word),
        }
    }

    /// The id of the token spelt `text`.
    pub fn find(&self, text: &str) -> Option<u32> {
        match self {
            Model::Bpe(bpe) => bpe.words.find(text.as_bytes()),
            Model::WordPiece(pieces) => pieces.find(text),
            Model::WordLevel(level) => level.words.find(text.as_bytes()),
            Model::Unigram(pieces) => pieces.find(text),
        }
    }

    /// How token `id` is spelt.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.vocabulary().text(id)
    }

    /// One more than the highest id.
    pub fn id_count(&self) -> usize {
        self.vocabulary().id_count()
    }

    fn vocabulary(&self) -> &Vocabulary {
        match self {
            Model::Bpe(bpe) => &bpe.words.vocabulary,
            Model::WordPiece(pieces) => &pieces.vocabulary,
            Model::WordLevel(level) => &level.words.vocabulary,
            Model::Unigram(pieces) => &pieces.vocabulary,
        }
    }
}

/// Token `id` at the bytes `start..end` of a word. Its text is not asked for.
pub(super) fn token(id: u32, start: usize, end: usize) -> Token {
    Token::new(id, String::new(), (start, end))
}

/// The error of a word that has characters which the vocabulary has neither tokens for nor an unknown token.
pub(super) fn lacks(word: &str) -> TokenizerError {
    TokenizerError::Encode {
        what: format!("the vocabulary has no token for `{word:.20}` and no unknown token"),
    }
}

#[cfg(test)]
mod tests;
