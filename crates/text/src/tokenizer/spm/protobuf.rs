//! The few fields of a SentencePiece `ModelProto` that matter; every length is checked against the bytes that are there.

use super::{Description, MAX_PIECE_BYTES, MAX_PIECES, invalid};
use crate::tokenizer::{Kind, TokenizerError};

/// A field's value.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    Other,
}

/// Fields of a message, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
}

fn cut_short() -> TokenizerError {
    invalid("the file ends inside a field")
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, TokenizerError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or_else(cut_short)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(invalid("a number of more than ten bytes"))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], TokenizerError> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.rest.len()).ok_or_else(cut_short)?;
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    /// The next field's number and value.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, TokenizerError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Other
            }
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
            }
            other => return Err(invalid(format!("wire type {other} is not known"))),
        };
        Ok(Some((key >> 3, value)))
    }
}

/// Reads the description out of a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Description, TokenizerError> {
    let mut description = Description {
        pieces: Vec::new(),
        is_bpe: false,
        byte_fallback: false,
        whitespace_as_suffix: false,
        charsmap: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        escape_whitespaces: true,
    };
    let mut fields = Fields { rest: bytes };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(message)) => {
                if description.pieces.len() == MAX_PIECES {
                    return Err(invalid(format!("more than {MAX_PIECES} pieces")));
                }
                description.pieces.push(piece(message)?);
            }
            (2, Value::Bytes(message)) => trainer(message, &mut description)?,
            (3, Value::Bytes(message)) => normalizer(message, &mut description)?,
            (1..=3, _) => return Err(invalid(format!("field {number} is no message"))),
            _ => {}
        }
    }
    if description.pieces.is_empty() {
        return Err(invalid("no pieces"));
    }
    Ok(description)
}

fn piece(message: &[u8]) -> Result<(String, f32, Kind), TokenizerError> {
    let (mut text, mut score, mut kind) = (String::new(), 0.0f32, Kind::Normal);
    let mut fields = Fields { rest: message };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) if bytes.len() > MAX_PIECE_BYTES => {
                return Err(invalid(format!("a piece of {} bytes, limit {MAX_PIECE_BYTES}", bytes.len())));
            }
            (1, Value::Bytes(bytes)) => {
                let spelt = std::str::from_utf8(bytes).map_err(|_| invalid("a piece that is no UTF-8"))?;
                text = spelt.to_owned();
            }
            (2, Value::Fixed32(bits)) => score = f32::from_bits(bits),
            (3, Value::Varint(number)) => {
                kind = match number {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    other => return Err(invalid(format!("a piece of type {other}, not 1 to 6"))),
                }
            }
            _ => {}
        }
    }
    if text.is_empty() || !score.is_finite() {
        return Err(invalid(format!("a piece `{text}` with the score {score}")));
    }
    Ok((text, score, kind))
}

fn trainer(message: &[u8], description: &mut Description) -> Result<(), TokenizerError> {
    let mut fields = Fields { rest: message };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (3, Value::Varint(1)) => description.is_bpe = false,
            (3, Value::Varint(2)) => description.is_bpe = true,
            (3, Value::Varint(other)) => {
                return Err(invalid(format!("model type {other} is not supported (1 Unigram, 2 BPE)")));
            }
            (24, Value::Varint(flag)) => description.whitespace_as_suffix = flag != 0,
            (35, Value::Varint(flag)) => description.byte_fallback = flag != 0,
            _ => {}
        }
    }
    Ok(())
}

fn normalizer(message: &[u8], description: &mut Description) -> Result<(), TokenizerError> {
    let mut fields = Fields { rest: message };
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (2, Value::Bytes(bytes)) => description.charsmap = bytes.to_vec(),
            (3, Value::Varint(flag)) => description.add_dummy_prefix = flag != 0,
            (4, Value::Varint(flag)) => description.remove_extra_whitespaces = flag != 0,
            (5, Value::Varint(flag)) => description.escape_whitespaces = flag != 0,
            _ => {}
        }
    }
    Ok(())
}
