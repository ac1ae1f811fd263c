//! WordPiece (`tokenizer.ggml.model` = `bert`): lower-cased words without accents, split greedily into the
//! longest known pieces.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::tokens::TokenTable;
use super::{Kind, TokenizerError, Vocabulary};

/// Longest piece tried, in bytes: keeps the search linear whatever the vocabulary holds.
const MAX_PIECE_BYTES: usize = 256;

/// Splits words into the longest pieces of the vocabulary; a piece that begins a word is stored with `▁`.
#[derive(Debug)]
pub(super) struct WordPiece {
    pub tokens: TokenTable,
    unk: Option<u32>,
}

impl WordPiece {
    /// Takes the tokens out of `vocabulary`; `kinds` is by id.
    pub fn new(vocabulary: &mut Vocabulary, kinds: &[Kind]) -> Result<WordPiece, TokenizerError> {
        let strings = std::mem::take(&mut vocabulary.tokens);
        let mut tokens = TokenTable::with_capacity(strings.len(), strings.iter().map(String::len).sum());
        for ((text, kind), id) in strings.iter().zip(kinds).zip(0u32..) {
            tokens
                .push(text.as_bytes())
                .ok_or_else(|| TokenizerError::Invalid { what: "tokens beyond 4 GiB".into() })?;
            if matches!(kind, Kind::Normal | Kind::UserDefined) {
                tokens.index(id);
            }
        }
        Ok(WordPiece { tokens, unk: vocabulary.unk })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut word = String::from(super::sentencepiece::SPACE);
        let empty = word.len();
        for c in text.nfd() {
            if c.is_whitespace() {
                self.finish(&mut word, ids);
                continue;
            }
            if is_dropped(c) {
                continue;
            }
            let alone = is_alone(c);
            if alone && word.len() > empty {
                self.finish(&mut word, ids);
            }
            word.extend(c.to_lowercase());
            if alone {
                self.finish(&mut word, ids);
            }
        }
        self.finish(&mut word, ids);
    }

    /// Encodes `word` and empties it down to its `▁`.
    fn finish(&self, word: &mut String, ids: &mut Vec<u32>) {
        let empty = super::sentencepiece::SPACE.len_utf8();
        if word.len() > empty {
            let first = ids.len();
            let mut at = 0;
            while at < word.len() {
                let longest = self.tokens.max_bytes().min(MAX_PIECE_BYTES).min(word.len() - at);
                let piece = (1..=longest)
                    .rev()
                    .filter(|len| word.is_char_boundary(at + len))
                    .find_map(|len| self.tokens.find(&word.as_bytes()[at..at + len]).map(|id| (id, len)));
                let Some((id, len)) = piece else {
                    // One unknown part makes the whole word unknown.
                    ids.truncate(first);
                    ids.extend(self.unk);
                    break;
                };
                ids.push(id);
                at += len;
            }
        }
        word.truncate(empty);
    }
}

fn is_dropped(c: char) -> bool {
    matches!(c, '\0' | '\u{FFFD}')
        || matches!(
            c.general_category(),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::PrivateUse
                | GeneralCategory::Surrogate
                | GeneralCategory::NonspacingMark
        )
}

/// Punctuation, ASCII symbols and CJK ideographs are words of their own.
fn is_alone(c: char) -> bool {
    c.is_ascii_punctuation()
        || c.general_category_group() == GeneralCategoryGroup::Punctuation
        || matches!(u32::from(c),
            0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
