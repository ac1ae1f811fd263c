//! SentencePiece models (`.spm`, `.model`): a protobuf file with pieces, scores and a table of replacements.
//!
//! Text becomes pieces as the `sentencepiece` library makes them (Unigram and BPE); which ids the pieces have is the
//! affair of whoever owns the vocabulary.

mod protobuf;
mod unigram;
mod vocabulary;

use super::charsmap::{self, CharsMap};
use super::sentencepiece::{self, SentencePiece};
use super::{Kind, TokenizerError, Vocabulary};
use std::collections::HashSet;
use unigram::Unigram;
pub(super) use vocabulary::UnigramVocabulary;

/// What a space becomes.
const SPACE: char = sentencepiece::SPACE;
/// Largest file read.
const MAX_FILE_BYTES: usize = 64 << 20;
/// Most pieces of a file.
const MAX_PIECES: usize = 1 << 20;
/// Longest piece, in bytes.
const MAX_PIECE_BYTES: usize = 1 << 12;
/// Longest text that is encoded at once: beyond, offsets of the algorithms would no longer fit.
const MAX_TEXT_BYTES: usize = 256 << 20;

/// A file's settings, before anything is built from them.
#[derive(Debug)]
struct Description {
    pieces: Vec<(String, f32, Kind)>,
    is_bpe: bool,
    byte_fallback: bool,
    whitespace_as_suffix: bool,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

#[derive(Debug)]
enum Algorithm {
    Unigram(Box<Unigram>),
    Bpe(Box<SentencePiece>),
}

/// Text to pieces and back.
#[derive(Debug)]
pub struct SentencePieceModel {
    description: Description,
    charsmap: Option<CharsMap>,
    known: HashSet<String>,
    algorithm: Algorithm,
}

fn invalid(what: impl Into<String>) -> TokenizerError {
    TokenizerError::Invalid { what: format!("sentencepiece: {}", what.into()) }
}

impl SentencePieceModel {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] naming the field and the limit; no input panics.
    pub fn read(bytes: &[u8]) -> Result<SentencePieceModel, TokenizerError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(invalid(format!("{} bytes, limit {MAX_FILE_BYTES}", bytes.len())));
        }
        SentencePieceModel::build(protobuf::read(bytes)?)
    }

    fn build(mut description: Description) -> Result<SentencePieceModel, TokenizerError> {
        let blob = std::mem::take(&mut description.charsmap);
        let charsmap = match &blob[..] {
            [] => None,
            blob => {
                let read = CharsMap::read(blob);
                Some(read.map_err(|what| invalid(format!("precompiled_charsmap {what}")))?)
            }
        };
        let pieces = &description.pieces;
        if !pieces.iter().any(|(_, _, kind)| *kind == Kind::Unknown) {
            return Err(invalid("no unknown piece"));
        }
        let kinds: Vec<Kind> = pieces.iter().map(|(.., kind)| *kind).collect();
        let matched = |kind: &Kind| matches!(kind, Kind::Normal | Kind::UserDefined);
        let known = pieces.iter().filter(|(.., kind)| matched(kind)).map(|(text, ..)| text.clone()).collect();
        let algorithm = if description.is_bpe {
            let mut vocabulary = Vocabulary {
                tokens: pieces.iter().map(|(text, ..)| text.clone()).collect(),
                scores: pieces.iter().map(|(_, score, _)| *score).collect(),
                ..Vocabulary::default()
            };
            Algorithm::Bpe(Box::new(SentencePiece::new(&mut vocabulary, &kinds)?))
        } else {
            Algorithm::Unigram(Box::new(Unigram::new(pieces)?))
        };
        Ok(SentencePieceModel { charsmap, known, algorithm, description })
    }

    /// All pieces, by their place in the file.
    pub fn pieces(&self) -> impl Iterator<Item = &str> {
        self.description.pieces.iter().map(|(text, ..)| text.as_str())
    }

    /// Number of pieces.
    pub fn piece_count(&self) -> usize {
        self.description.pieces.len()
    }

    /// The pieces of `text`, in order; what the model does not know comes as it is spelt, runs of it as one.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the text is too long.
    pub fn encode(&self, text: &str) -> Result<Vec<String>, TokenizerError> {
        let failed = |what: String| TokenizerError::Encode { what };
        if text.len() > MAX_TEXT_BYTES {
            return Err(failed(format!("{} bytes, limit {MAX_TEXT_BYTES}", text.len())));
        }
        let normal = self.normalize(text);
        if normal.is_empty() {
            return Ok(Vec::new());
        }
        let found = match &self.algorithm {
            Algorithm::Unigram(unigram) => unigram.split(&normal),
            Algorithm::Bpe(merges) => merges.split(&normal),
        };
        let mut pieces: Vec<String> = Vec::with_capacity(found.len());
        let mut after_unknown = false;
        for piece in found {
            let unknown = !self.known.contains(piece);
            if unknown && self.description.byte_fallback {
                pieces.extend(piece.bytes().map(|byte| format!("<0x{byte:02X}>")));
            } else {
                match pieces.last_mut().filter(|_| unknown && after_unknown) {
                    Some(last) => last.push_str(piece),
                    None => pieces.push(piece.to_owned()),
                }
            }
            after_unknown = unknown;
        }
        Ok(pieces)
    }

    /// The text of `pieces`, joined as the library does.
    pub fn decode<'p>(&self, pieces: impl IntoIterator<Item = &'p str>) -> String {
        let mut bytes: Vec<u8> = Vec::new();
        for piece in pieces {
            match sentencepiece::byte_of(piece).filter(|_| self.description.byte_fallback) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend(piece.replace(SPACE, " ").bytes()),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match text.strip_prefix(' ') {
            Some(rest) if self.description.add_dummy_prefix && !self.description.whitespace_as_suffix => {
                rest.to_owned()
            }
            _ => text,
        }
    }

    /// Replaced characters, tidy spaces, and the space before the first word.
    fn normalize(&self, text: &str) -> String {
        let Description { add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, .. } =
            self.description;
        let suffix = self.description.whitespace_as_suffix;
        let space = if escape_whitespaces { SPACE } else { ' ' };
        let replaced = |rest| match &self.charsmap {
            Some(map) => map.replace(rest),
            None => charsmap::one_char(rest),
        };
        let mut rest = text;
        if remove_extra_whitespaces {
            while !rest.is_empty() {
                let (to, used) = replaced(rest);
                if to != " " {
                    break;
                }
                rest = &rest[used..];
            }
        }
        if rest.is_empty() {
            return String::new();
        }
        let mut out = String::with_capacity(text.len() + text.len() / 4 + 3);
        if add_dummy_prefix && !suffix {
            out.push(space);
        }
        let mut after_space = remove_extra_whitespaces;
        while !rest.is_empty() {
            let (to, used) = replaced(rest);
            let kept = if after_space { to.trim_start_matches(' ') } else { to };
            if !kept.is_empty() {
                out.extend(kept.chars().map(|c| if c == ' ' { space } else { c }));
                after_space = kept.ends_with(' ');
            }
            rest = &rest[used..];
            after_space &= remove_extra_whitespaces;
        }
        if remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(space).len());
        }
        if add_dummy_prefix && suffix {
            out.push(space);
        }
        out
    }
}
