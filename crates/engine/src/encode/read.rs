//! Texts to what an encoder is given: special tokens around them, and the rule for those that are too long.

use crate::EngineError;
use crate::encode::LoadedEncoder;
use kun_tasks::TaskError;
use kun_text::{Encoding, Pieces, Special};

/// What becomes of a text that is longer than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fitting {
    /// It is an error that says both lengths.
    #[default]
    Refuse,
    /// It is cut, and the answer says so.
    Truncate,
}

/// That a text was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Tokens it has, special tokens included.
    pub tokens: usize,
    /// Tokens that were read.
    pub kept: usize,
}

impl LoadedEncoder {
    /// A text, or two, as the model is given them. Of two, `fitting` cuts the longer one first.
    ///
    /// # Errors
    /// [`EngineError::Task`] if it is too long and may not be cut; those of the tokenizer.
    pub fn read(
        &self,
        first: &str,
        second: Option<&str>,
        fitting: Fitting,
    ) -> Result<(Encoding, Option<Truncated>), EngineError> {
        let pieces = |text: &str| self.tokenizer().pieces(text, Special::Plain);
        let (mut first, mut second) = (pieces(first)?, second.map(pieces).transpose()?);
        let limit = self.info().max_tokens;
        let added = self.tokenizer().added_tokens(second.is_some());
        let tokens = first.len() + second.as_ref().map_or(0, Pieces::len) + added;
        if tokens <= limit {
            return Ok((self.tokenizer().join(&first, second.as_ref()), None));
        }
        if fitting == Fitting::Refuse {
            return Err(too_long(tokens, limit));
        }
        let room = limit.saturating_sub(added);
        match &mut second {
            None => first = first.slice(0..room),
            Some(second) => {
                let (a, b) = longest_first(first.len(), second.len(), room);
                first = first.slice(0..a);
                *second = second.slice(0..b);
            }
        }
        let encoding = self.tokenizer().join(&first, second.as_ref());
        let kept = encoding.ids.len();
        Ok((encoding, Some(Truncated { tokens, kept })))
    }
}

pub(super) fn too_long(tokens: usize, limit: usize) -> EngineError {
    let what = format!("the text has {tokens} tokens, the model takes {limit}");
    EngineError::Task(TaskError::Input { what })
}

/// Lengths of two texts of `a` and `b` tokens after tokens of the longer one are dropped, one by one, until both fit.
fn longest_first(a: usize, b: usize, room: usize) -> (usize, usize) {
    let short = a.min(b);
    // The longer one is cut down to the shorter, then both in turn; the first gives way where they are equal.
    let (short, long) =
        if short + short <= room { (short, room - short) } else { (room / 2, room - room / 2) };
    if a <= b { (short.min(a), long) } else { (long, short.min(b)) }
}

#[cfg(test)]
mod tests {
    use super::longest_first;

    /// As `tokenizers` does it: one token at a time.
    fn one_by_one(mut a: usize, mut b: usize, room: usize) -> (usize, usize) {
        while a + b > room {
            if a > b {
                a -= 1;
            } else {
                b -= 1;
            }
        }
        (a, b)
    }

    #[test]
    fn cuts_the_longer_text_first() {
        assert_eq!(longest_first(10, 3, 8), (5, 3));
        assert_eq!(longest_first(3, 10, 8), (3, 5));
        for (a, b, room) in [(10, 10, 9), (50, 7, 20), (7, 50, 20), (30, 40, 30), (1, 1, 1)] {
            let (x, y) = longest_first(a, b, room);
            let (p, q) = one_by_one(a, b, room);
            assert_eq!(x + y, room);
            assert!(x.abs_diff(p) <= 1 && y.abs_diff(q) <= 1, "{a} {b} {room}: {x} {y}, not {p} {q}");
        }
    }
}
