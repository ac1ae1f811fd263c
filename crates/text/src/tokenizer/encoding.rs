//! Texts as an encoder reads them: tokens with their places, joined with the special tokens of the model.

use std::ops::Range;

use super::added::Piece;
use super::{Model, Special, Tokenizer, TokenizerError, cut};

/// The tokens of a text, without special tokens, and where each lies in it. All lists have one length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Bytes of the text that each token covers; see [`characters`] for counts of characters.
    pub offsets: Vec<Range<usize>>,
    /// The word that each token belongs to, counted from 0: what the model's splitting of the text left together.
    pub words: Vec<u32>,
}

impl Pieces {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The tokens `range`.
    pub fn slice(&self, range: Range<usize>) -> Pieces {
        Pieces {
            ids: self.ids[range.clone()].to_vec(),
            offsets: self.offsets[range.clone()].to_vec(),
            words: self.words[range].to_vec(),
        }
    }

    /// Appends tokens of the text from byte `at` on, whose places count from there; their words count from 0.
    fn extend(&mut self, ids: &[u32], offsets: &[(usize, usize)], words: &[Option<u32>], at: usize) {
        let first = self.words.last().map_or(0, |word| word + 1);
        self.ids.extend(ids);
        self.offsets.extend(offsets.iter().map(|(start, end)| at + start..at + end));
        self.words.extend(words.iter().map(|word| first + word.unwrap_or(0)));
    }
}

/// Which text of a pair a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Neither: the model's own.
    Special,
    /// The first.
    First,
    /// The second.
    Second,
}

/// What an encoder is given: one text or two, with the special tokens around them. All lists have one length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types (segments), as the model was trained with.
    pub types: Vec<u32>,
    /// Which text each token belongs to.
    pub parts: Vec<Part>,
    /// Bytes of its text that each token covers; empty for special tokens.
    pub offsets: Vec<Range<usize>>,
    /// Words within each text; 0 for special tokens.
    pub words: Vec<u32>,
}

/// One element of the pattern that texts are joined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// A special token and its type.
    Token(u32, u32),
    /// The first text and the type of its tokens.
    First(u32),
    /// The second.
    Second(u32),
}

/// How one text and how two are joined with special tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Joints {
    pub one: Vec<Joint>,
    pub two: Vec<Joint>,
}

impl Joints {
    /// `before text after`, and for two texts `before first after second after` with types 0 and 1.
    pub fn around(before: &[u32], after: &[u32]) -> Joints {
        let tokens = |ids: &[u32], kind| ids.iter().map(|&id| Joint::Token(id, kind)).collect::<Vec<_>>();
        let one = [tokens(before, 0), vec![Joint::First(0)], tokens(after, 0)].concat();
        let two = [one.clone(), vec![Joint::Second(1)], tokens(after, 1)].concat();
        Joints { one, two }
    }

    /// The same with one more token before the second text.
    pub fn between(mut self, token: Option<u32>) -> Joints {
        let second = self.two.iter().position(|joint| matches!(joint, Joint::Second(_)));
        if let (Some(token), Some(second)) = (token, second) {
            self.two.insert(second, Joint::Token(token, 0));
        }
        self
    }

    /// Every special token in the patterns.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        self.one.iter().chain(&self.two).filter_map(|joint| match joint {
            Joint::Token(id, _) => Some(*id),
            _ => None,
        })
    }
}

impl Tokenizer {
    /// The tokens of `text` and their places, without special tokens around them.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn pieces(&self, text: &str, special: Special) -> Result<Pieces, TokenizerError> {
        let whole = 0..text.len();
        let closed = if special == Special::Plain { std::slice::from_ref(&whole) } else { &[] };
        let mut pieces = Pieces::default();
        let mut result = Ok(());
        let mut opening = true;
        cut(self.control.as_ref(), text, closed, &mut |piece| match piece {
            Piece::Token { id, at, len } => {
                pieces.extend(&[id], &[(0, len)], &[None], at);
                opening = true;
            }
            Piece::Text { text: plain, at: start } => {
                cut(self.user_defined.as_ref(), plain, &[], &mut |piece| match piece {
                    Piece::Token { id, at, len } => {
                        pieces.extend(&[id], &[(0, len)], &[None], start + at);
                        opening = true;
                    }
                    Piece::Text { text, at } => {
                        if result.is_ok() {
                            let starts = start + at == 0;
                            result = self.plain_pieces(text, opening, starts, start + at, &mut pieces);
                        }
                        opening = false;
                    }
                });
            }
        });
        result.map(|()| pieces)
    }

    fn plain_pieces(
        &self,
        text: &str,
        opening: bool,
        starts: bool,
        at: usize,
        pieces: &mut Pieces,
    ) -> Result<(), TokenizerError> {
        if let Model::Json(pipeline) = &self.model {
            return pipeline.encode_placed(text, starts, |ids, offsets, words| {
                pieces.extend(ids, offsets, words, at);
            });
        }
        let mut ids = Vec::new();
        self.encode_plain(text, opening, starts, &mut ids)?;
        pieces.extend(&ids, &vec![(0, text.len()); ids.len()], &vec![None; ids.len()], at);
        Ok(())
    }

    /// Whether [`Pieces::offsets`] are those of each token: so with a `tokenizer.json`. With a GGUF vocabulary they are
    /// those of the text between special tokens that it stands in.
    pub fn has_offsets(&self) -> bool {
        matches!(self.model, Model::Json(_))
    }

    /// Whether the vocabulary marks tokens that go on with a word, as WordPiece does: [`Pieces::words`] are words then.
    pub fn marks_words(&self) -> bool {
        match &self.model {
            Model::WordPiece(_) => true,
            Model::Json(pipeline) => pipeline.is_word_piece(),
            Model::Bpe(_) | Model::SentencePiece(_) | Model::Unigram(_) => false,
        }
    }

    /// Special tokens that [`Tokenizer::join`] adds around one text, or around two.
    pub fn added_tokens(&self, two: bool) -> usize {
        let joints = if two { &self.joints.two } else { &self.joints.one };
        joints.iter().filter(|joint| matches!(joint, Joint::Token(..))).count()
    }

    /// Puts the special tokens of the model around one text or two.
    pub fn join(&self, first: &Pieces, second: Option<&Pieces>) -> Encoding {
        let joints = if second.is_some() { &self.joints.two } else { &self.joints.one };
        let mut encoding = Encoding::default();
        for joint in joints {
            let (pieces, kind, part) = match joint {
                Joint::Token(id, kind) => {
                    encoding.ids.push(*id);
                    encoding.types.push(*kind);
                    encoding.parts.push(Part::Special);
                    encoding.offsets.push(0..0);
                    encoding.words.push(0);
                    continue;
                }
                Joint::First(kind) => (Some(first), *kind, Part::First),
                Joint::Second(kind) => (second, *kind, Part::Second),
            };
            let Some(pieces) = pieces else { continue };
            encoding.ids.extend(&pieces.ids);
            encoding.types.extend(std::iter::repeat_n(kind, pieces.len()));
            encoding.parts.extend(std::iter::repeat_n(part, pieces.len()));
            encoding.offsets.extend(pieces.offsets.iter().cloned());
            encoding.words.extend(&pieces.words);
        }
        encoding
    }
}

/// Ranges of bytes of `text` as ranges of characters. Ranges that begin in order cost one pass over the text.
pub fn characters(text: &str, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut byte, mut count) = (0, 0);
    let mut count_to = |at: usize| {
        let at = at.min(text.len());
        let starts = |part: &[u8]| part.iter().filter(|b| (**b as i8) >= -0x40).count();
        if at < byte {
            count -= starts(&text.as_bytes()[at..byte]);
        } else {
            count += starts(&text.as_bytes()[byte..at]);
        }
        byte = at;
        count
    };
    ranges.iter().map(|range| count_to(range.start)..count_to(range.end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_characters_in_any_order() {
        let text = "aé漢字b";
        assert_eq!(
            characters(text, &[0..1, 1..3, 3..9, 9..10, 1..3, 0..99]),
            [0..1, 1..2, 2..4, 4..5, 1..2, 0..5]
        );
    }

    #[test]
    fn joints_surround_one_text_and_separate_two() {
        let joints = Joints::around(&[7], &[8]);
        assert_eq!(joints.one, [Joint::Token(7, 0), Joint::First(0), Joint::Token(8, 0)]);
        assert_eq!(joints.two[3..], [Joint::Second(1), Joint::Token(8, 1)]);
        assert_eq!(joints.tokens().count(), 5);
    }
}
