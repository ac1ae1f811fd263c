//! Byte-level BPE (Sennrich et al., arXiv:1508.07909, over bytes as in GPT-2) of a GGUF vocabulary.

use super::merges::{Merges, Symbol};
use super::split::{Rule, Splitter};
use super::tokens::TokenTable;
use super::{Kind, TokenizerError, Vocabulary};

/// A symbol that is no token: a byte that the vocabulary lacks.
const NONE: u32 = u32::MAX;

/// Merges the bytes of words into tokens, by rank.
#[derive(Debug)]
pub(super) struct Bpe {
    pub tokens: TokenTable,
    splitter: Splitter,
    whole_words: bool,
    bytes: Box<[u32; 256]>,
    merges: Merges,
    unk: Option<u32>,
}

impl Bpe {
    /// Takes the tokens and merges out of `vocabulary`; `kinds` is by id.
    pub fn new(vocabulary: &mut Vocabulary, rule: &Rule, kinds: &[Kind]) -> Result<Bpe, TokenizerError> {
        let tokens = byte_tokens(&std::mem::take(&mut vocabulary.tokens), kinds)?;
        let strings = std::mem::take(&mut vocabulary.merges);
        let mut merges = Merges::with_capacity(strings.len());
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (rank, merge) in strings.iter().enumerate() {
            let rank = u32::try_from(rank)
                .map_err(|_| TokenizerError::Invalid { what: "tokenizer.ggml.merges: too many".into() })?;
            // The left part may itself begin with a space in vocabularies that are not byte-level.
            let gap = merge.bytes().skip(1).position(|b| b == b' ').map(|at| at + 1);
            let Some((first, second)) = gap.map(|at| (&merge[..at], &merge[at + 1..])) else {
                return Err(TokenizerError::Invalid {
                    what: format!("tokenizer.ggml.merges[{rank}] is not two parts"),
                });
            };
            left.clear();
            right.clear();
            to_bytes(first, &mut left);
            to_bytes(second, &mut right);
            let pair = (tokens.find(&left), tokens.find(&right));
            left.extend_from_slice(&right);
            if let (Some(a), Some(b), Some(whole)) = (pair.0, pair.1, tokens.find(&left))
                && merges.get(a, b).is_none()
            {
                merges.insert(a, b, rank, whole);
            }
        }
        let mut bytes = Box::new([NONE; 256]);
        for byte in 0..=255u8 {
            bytes[usize::from(byte)] = tokens.find(&[byte]).unwrap_or(NONE);
        }
        let splitter = rule.compile()?;
        Ok(Bpe { tokens, splitter, whole_words: rule.whole_words, bytes, merges, unk: vocabulary.unk })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut symbols = Vec::new();
        self.splitter.split(text, &mut |word| {
            if self.whole_words
                && let Some(id) = self.tokens.find(word.as_bytes())
            {
                ids.push(id);
                return;
            }
            symbols.clear();
            symbols.extend(word.bytes().map(|byte| Symbol { id: self.bytes[usize::from(byte)], len: 1 }));
            self.merges.apply(&mut symbols);
            let ids_of = symbols.iter().map(|symbol| symbol.id);
            ids.extend(ids_of.filter_map(|id| if id == NONE { self.unk } else { Some(id) }));
        });
    }
}

/// The tokens as the bytes that they stand for; only those that text may become are indexed.
fn byte_tokens(strings: &[String], kinds: &[Kind]) -> Result<TokenTable, TokenizerError> {
    let mut tokens = TokenTable::with_capacity(strings.len(), strings.iter().map(String::len).sum());
    let mut bytes = Vec::new();
    for (text, kind) in strings.iter().zip(kinds) {
        bytes.clear();
        match kind {
            Kind::Normal => to_bytes(text, &mut bytes),
            _ => bytes.extend_from_slice(text.as_bytes()),
        }
        tokens.push(&bytes).ok_or_else(|| TokenizerError::Invalid { what: "tokens beyond 4 GiB".into() })?;
    }
    for wanted in [Kind::Normal, Kind::UserDefined] {
        for (id, kind) in (0u32..).zip(kinds) {
            if *kind == wanted {
                tokens.index(id);
            }
        }
    }
    Ok(tokens)
}

/// Appends the bytes that byte-level `text` spells: each of its characters stands for one byte.
/// A text with any other character stands for itself.
pub(super) fn to_bytes(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in text.chars() {
        let Some(byte) = byte_of(c) else {
            out.truncate(start);
            out.extend_from_slice(text.as_bytes());
            return;
        };
        out.push(byte);
    }
}

/// GPT-2's printable stand-ins for bytes: visible Latin-1 stands for itself, the 68 other bytes follow at U+0100.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(), // 0x00..=0x20
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(), // 0x7F..=0xA0
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_for_every_byte_once() {
        let mut seen = [false; 256];
        for c in (0x21..=0x143).filter_map(char::from_u32) {
            if let Some(byte) = byte_of(c) {
                assert!(!seen[usize::from(byte)], "{byte}");
                seen[usize::from(byte)] = true;
            }
        }
        assert!(seen.iter().all(|&s| s));
        assert_eq!((byte_of('Ġ'), byte_of('Ċ')), (Some(b' '), Some(b'\n')));
    }
}
