//! The vocabulary of a `tokenizer.json`: a map from tokens to ids, or a list of pieces with scores, read straight into
//! compact tables.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Highest id of a token.
pub(super) const MAX_ID: u32 = 1 << 22;

/// Tokens in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    text: Vec<u8>,
    ends: Vec<u32>,
    /// The id of each token; empty if they are counted from 0.
    ids: Vec<u32>,
    /// The places of the tokens in the order of their ids; empty if that is the order of the file.
    by_id: Vec<u32>,
    /// The score of each piece, if it is a list of pieces.
    pub scores: Option<Vec<f64>>,
}

impl Vocabulary {
    /// Reads the map or list.
    pub fn read(raw: &RawValue) -> Result<Vocabulary, serde_json::Error> {
        let quotes = raw.get().bytes().filter(|byte| *byte == b'"').count();
        let mut vocabulary = Vocabulary { ends: Vec::with_capacity(quotes / 2), ..Vocabulary::default() };
        let mut json = serde_json::Deserializer::from_str(raw.get());
        json.deserialize_any(Entries(&mut vocabulary))?;
        json.end()?;
        vocabulary.text.shrink_to_fit();
        vocabulary.ends.shrink_to_fit();
        vocabulary.ids.shrink_to_fit();
        Ok(vocabulary)
    }

    /// Number of tokens in the file.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// One more than the highest id.
    pub fn id_count(&self) -> usize {
        match self.by_id.last() {
            Some(place) => self.id(*place) as usize + 1,
            None => self.len(),
        }
    }

    /// The bytes of the token at `place`.
    pub fn at(&self, place: u32) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        &self.text[start as usize..self.ends[place as usize] as usize]
    }

    /// The id of the token at `place`.
    pub fn id(&self, place: u32) -> u32 {
        self.ids.get(place as usize).copied().unwrap_or(place)
    }

    /// The text of token `id`.
    pub fn text(&self, id: u32) -> Option<&str> {
        let place = match self.by_id.is_empty() {
            true => Some(id).filter(|id| (*id as usize) < self.len())?,
            false => {
                let after = self.by_id.partition_point(|place| self.id(*place) <= id);
                *self.by_id.get(after.checked_sub(1)?).filter(|place| self.id(**place) == id)?
            }
        };
        std::str::from_utf8(self.at(place)).ok()
    }

    fn push(&mut self, token: &str) -> Result<(), &'static str> {
        self.text.extend_from_slice(token.as_bytes());
        self.ends.push(u32::try_from(self.text.len()).map_err(|_| "tokens beyond 4 GiB")?);
        Ok(())
    }

    /// Forgets ids that are counted from 0, and orders others.
    fn order(&mut self) {
        if (0..).zip(&self.ids).all(|(place, id)| place == *id) {
            self.ids = Vec::new();
        } else {
            self.by_id = (0..self.ids.len() as u32).collect();
            let ids = &self.ids;
            self.by_id.sort_unstable_by_key(|place| (ids[*place as usize], *place));
        }
    }
}

/// Takes the entries of the map or list.
struct Entries<'v>(&'v mut Vocabulary);

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tokens to ids or a list of pieces with scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.ids = Vec::with_capacity(self.0.ends.capacity());
        while map.next_key_seed(Token(self.0))?.is_some() {
            let id: u32 = map.next_value()?;
            if id >= MAX_ID {
                return Err(A::Error::custom(format!("vocab: id {id}, limit {MAX_ID}")));
            }
            self.0.ids.push(id);
        }
        self.0.order();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut scores = Vec::with_capacity(self.0.ends.capacity());
        while let Some(score) = list.next_element_seed(Piece(self.0))? {
            scores.push(score);
        }
        self.0.scores = Some(scores);
        Ok(())
    }
}

/// Takes one piece of a list and gives its score.
struct Piece<'v>(&'v mut Vocabulary);

impl<'de> DeserializeSeed<'de> for Piece<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<f64, D::Error> {
        from.deserialize_tuple(2, self)
    }
}

impl<'de> Visitor<'de> for Piece<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a piece and its score")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<f64, A::Error> {
        list.next_element_seed(Token(self.0))?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        list.next_element()?.ok_or_else(|| A::Error::custom("a piece without a score"))
    }
}

/// Takes the text of one token.
struct Token<'v>(&'v mut Vocabulary);

impl<'de> DeserializeSeed<'de> for Token<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Token<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_str<E: Error>(self, token: &str) -> Result<(), E> {
        self.0.push(token).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vocabulary, serde_json::Error> {
        Vocabulary::read(&RawValue::from_string(json.into()).unwrap())
    }

    #[test]
    fn tokens_are_found_by_any_ids() {
        let counted = read(r#"{"a":0,"\"é\n":1,"":2}"#).unwrap();
        assert!(counted.ids.is_empty());
        assert_eq!((counted.text(1), counted.text(2), counted.text(3)), (Some("\"é\n"), Some(""), None));
        let scattered = read(r#"{"b":7,"a":0,"c":4194303}"#).unwrap();
        assert_eq!(scattered.id_count(), 1 << 22);
        let texts: Vec<_> = [0, 1, 7, 4_194_303].map(|id| scattered.text(id)).into();
        assert_eq!(texts, [Some("a"), None, Some("b"), Some("c")]);
        let pieces = read(r#"[["<unk>",0],["x",-1.5]]"#).unwrap();
        assert_eq!((pieces.scores.as_deref(), pieces.text(1)), (Some(&[0.0, -1.5][..]), Some("x")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, says) in [
            (r#"{"a":4194304}"#, "id 4194304, limit 4194304"),
            (r#"{"a":-1}"#, "invalid value"),
            (r#"[["a"]]"#, "without a score"),
            (r#"[["a",0,0]]"#, "trailing"),
            (r#""a""#, "expected a map"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(says), "{error} does not say {says}");
        }
    }
}
