//! WordPiece models of a `tokenizer.json`: a word is split greedily into the longest known pieces.

use tokenizers::Token;

use super::model::{Fields, lacks, token};
use super::vocabulary::Vocabulary;
use crate::tokenizer::trie::Trie;
use crate::tokenizer::{TokenizerError, invalid};

/// Pieces; those that go on with a word begin with a prefix such as `##`.
#[derive(Debug)]
pub(super) struct WordPiece {
    pub vocabulary: Vocabulary,
    trie: Trie,
    /// Where the pieces that go on with a word hang in the trie, if there are any.
    inner: Option<u32>,
    unknown: Option<u32>,
    max_chars: usize,
}

impl WordPiece {
    pub fn new(vocabulary: Vocabulary, fields: &Fields<'_>) -> Result<WordPiece, TokenizerError> {
        let trie = Trie::new(0..vocabulary.len() as u32, |place| vocabulary.at(place))
            .map_err(|what| invalid(format!("tokenizer.json: model.vocab: {what}")))?;
        let prefix = fields.continuing_subword_prefix.as_deref().unwrap_or("##");
        let unknown = fields.unk_token.as_deref().unwrap_or("[UNK]");
        Ok(WordPiece {
            inner: trie.walk(prefix.as_bytes()),
            unknown: trie.find(unknown.as_bytes()).map(|place| vocabulary.id(place)),
            max_chars: fields.max_input_chars_per_word.unwrap_or(100),
            trie,
            vocabulary,
        })
    }

    pub fn find(&self, text: &str) -> Option<u32> {
        self.trie.find(text.as_bytes()).map(|place| self.vocabulary.id(place))
    }

    pub fn tokenize(&self, word: &str) -> Result<Vec<Token>, TokenizerError> {
        let whole = |unknown: Option<u32>| {
            let id = unknown.ok_or_else(|| lacks(word))?;
            Ok(vec![token(id, 0, word.len())])
        };
        if word.chars().count() > self.max_chars {
            return whole(self.unknown);
        }
        let mut tokens = Vec::new();
        let mut start = 0;
        while start < word.len() {
            let from = if start == 0 { Some(Trie::ROOT) } else { self.inner };
            let longest = from.and_then(|node| self.trie.prefixes(node, &word.as_bytes()[start..]).last());
            // One unknown part makes the whole word unknown.
            let Some((len, place)) = longest else { return whole(self.unknown) };
            tokens.push(token(self.vocabulary.id(place), start, start + len));
            start += len;
        }
        Ok(tokens)
    }
}
