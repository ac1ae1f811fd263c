//! Byte-pair encoding of a `tokenizer.json`: characters, or the letters that stand for bytes, are merged by rank.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokenizers::Token;

use super::model::{Fields, Words, lacks, token};
use crate::tokenizer::merges::{Merges, Symbol};
use crate::tokenizer::{TokenizerError, invalid};

/// What stands for a character that the vocabulary lacks.
#[derive(Clone, Copy, Debug)]
enum Unknown {
    /// Nothing: it is left out.
    Nothing,
    Token(u32),
    /// A token that the vocabulary lacks as well.
    Missing,
}

/// Tokens and merges.
#[derive(Debug)]
pub(super) struct Bpe {
    pub words: Words,
    merges: Merges,
    unknown: Unknown,
    fuses_unknown: bool,
    /// The tokens that spell bytes, if they are to be used and all are there.
    bytes: Option<Box<[Option<u32>; 256]>>,
    whole_words: bool,
    prefix: String,
    suffix: String,
}

impl Bpe {
    pub fn new(words: Words, fields: &Fields<'_>) -> Result<Bpe, TokenizerError> {
        let raw = fields.merges.ok_or_else(|| invalid("tokenizer.json: model: missing field `merges`"))?;
        let prefix = fields.continuing_subword_prefix.clone().unwrap_or_default();
        let merges = read_merges(raw, &words, &prefix)
            .map_err(|error| invalid(format!("tokenizer.json: model.merges: {error}")))?;
        let unknown = match fields.unk_token.as_deref().map(|text| words.find(text.as_bytes())) {
            None => Unknown::Nothing,
            Some(None) => Unknown::Missing,
            Some(Some(id)) => Unknown::Token(id),
        };
        let byte = |byte: usize| words.find(format!("<0x{byte:02X}>").as_bytes());
        let bytes = fields.byte_fallback.unwrap_or(false).then(|| Box::new(std::array::from_fn(byte)));
        Ok(Bpe {
            merges,
            unknown,
            fuses_unknown: fields.fuse_unk.unwrap_or(false),
            bytes,
            whole_words: fields.ignore_merges.unwrap_or(false),
            prefix,
            suffix: fields.end_of_word_suffix.clone().unwrap_or_default(),
            words,
        })
    }

    /// `dropout` is for training and not applied.
    pub fn tokenize(&self, word: &str) -> Result<Vec<Token>, TokenizerError> {
        if self.whole_words
            && let Some(id) = self.words.find(word.as_bytes())
        {
            return Ok(vec![token(id, 0, word.len())]);
        }
        let mut symbols = self.symbols(word)?;
        self.merges.apply(&mut symbols);
        let mut end = 0;
        let placed = symbols.iter().map(|symbol| {
            let start = end;
            end += symbol.len as usize;
            token(symbol.id, start, end)
        });
        Ok(placed.collect())
    }

    /// The characters of `word` as tokens.
    fn symbols(&self, word: &str) -> Result<Vec<Symbol>, TokenizerError> {
        let mut symbols = Vec::with_capacity(word.len());
        let mut pending: Option<Symbol> = None;
        let mut spelt = String::new();
        for (at, c) in word.char_indices() {
            let text = &word[at..at + c.len_utf8()];
            let len = text.len() as u32;
            let (prefix, suffix) = (
                if at == 0 { "" } else { &self.prefix },
                if at + text.len() == word.len() { &self.suffix[..] } else { "" },
            );
            let text = if prefix.is_empty() && suffix.is_empty() {
                text
            } else {
                spelt.clear();
                spelt.extend([prefix, text, suffix]);
                &spelt
            };
            if let Some(id) = self.words.find(text.as_bytes()) {
                symbols.extend(pending.take());
                symbols.push(Symbol { id, len });
            } else if let Some(bytes) = self.bytes_of(text) {
                symbols.extend(bytes.map(|id| Symbol { id, len: 1 }));
            } else {
                let id = match self.unknown {
                    Unknown::Nothing => continue,
                    Unknown::Missing => return Err(lacks(word)),
                    Unknown::Token(id) => id,
                };
                let before = pending.take();
                pending = match before.filter(|_| self.fuses_unknown) {
                    Some(before) => Some(Symbol { id, len: before.len + len }),
                    None => Some(Symbol { id, len }),
                };
                symbols.extend(before.filter(|_| !self.fuses_unknown));
            }
        }
        symbols.extend(pending);
        Ok(symbols)
    }

    /// The tokens that spell `text` in bytes, if the model has all of them.
    fn bytes_of<'b>(&'b self, text: &'b str) -> Option<impl Iterator<Item = u32> + use<'b>> {
        let table = self.bytes.as_ref()?;
        let ids = move || text.bytes().map(|byte| table[usize::from(byte)]);
        ids().all(|id| id.is_some()).then(|| ids().flatten())
    }
}

fn read_merges(raw: &RawValue, words: &Words, prefix: &str) -> Result<Merges, serde_json::Error> {
    let json = raw.get();
    let quotes = json.bytes().filter(|byte| *byte == b'"').count();
    let pairs = json.trim_start_matches(|c: char| c == '[' || c.is_whitespace());
    let are_pairs = json.len() > pairs.len() + 1 && json[..json.len() - pairs.len()].matches('[').count() > 1;
    let count = if are_pairs { quotes / 4 } else { quotes / 2 };
    let list = List { words, prefix, merges: Merges::with_capacity(count), rank: 0, text: Vec::new() };
    let mut from = serde_json::Deserializer::from_str(json);
    let merges = from.deserialize_seq(list)?;
    from.end()?;
    Ok(merges)
}

/// Takes the merges, each `left right` in one text or a pair of two.
struct List<'w> {
    words: &'w Words,
    prefix: &'w str,
    merges: Merges,
    rank: u32,
    /// The left part, then what both become.
    text: Vec<u8>,
}

impl List<'_> {
    fn find(&self, text: &[u8]) -> Result<u32, String> {
        let lacking = || format!("merge {} has `{:.40}`, no token", self.rank, String::from_utf8_lossy(text));
        self.words.find(text).ok_or_else(lacking)
    }

    fn push(&mut self, right: &str) -> Result<(), String> {
        let rest = right.as_bytes().get(self.prefix.len()..);
        let rest = rest.ok_or_else(|| format!("merge {}: `{right}` lacks the prefix", self.rank))?;
        let (first, second) = (self.find(&self.text)?, self.find(right.as_bytes())?);
        self.text.extend_from_slice(rest);
        let id = self.find(&self.text)?;
        self.merges.insert(first, second, self.rank, id);
        self.rank += 1;
        Ok(())
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Merges, A::Error> {
        while list.next_element_seed(Merge(&mut self))?.is_some() {}
        Ok(self.merges)
    }
}

/// Takes one merge.
struct Merge<'l, 'w>(&'l mut List<'w>);

impl<'de> DeserializeSeed<'de> for Merge<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge of two tokens")
    }

    fn visit_str<E: Error>(self, merge: &str) -> Result<(), E> {
        if merge.starts_with("#version") {
            return Ok(());
        }
        let parts = merge.split_once(' ').filter(|(_, right)| !right.contains(' '));
        let (left, right) = parts
            .ok_or_else(|| E::custom(format!("merge {} is not two parts: `{merge:.40}`", self.0.rank)))?;
        self.0.text.clear();
        self.0.text.extend_from_slice(left.as_bytes());
        self.0.push(right).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<(), A::Error> {
        self.0.text.clear();
        pair.next_element_seed(Part(self.0, Side::Left))?
            .ok_or_else(|| A::Error::invalid_length(0, &"two tokens"))?;
        pair.next_element_seed(Part(self.0, Side::Right))?
            .ok_or_else(|| A::Error::invalid_length(1, &"two tokens"))
    }
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Takes one side of a merge.
struct Part<'l, 'w>(&'l mut List<'w>, Side);

impl<'de> DeserializeSeed<'de> for Part<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Part<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.1 {
            Side::Left => self.0.text.extend_from_slice(text.as_bytes()),
            Side::Right => self.0.push(text).map_err(E::custom)?,
        }
        Ok(())
    }
}
