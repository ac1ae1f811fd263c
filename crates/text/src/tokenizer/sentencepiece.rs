//! SentencePiece vocabularies with scores (`tokenizer.ggml.model` = `llama`): pairs merge by the score of
//! what they become, and characters that the vocabulary lacks fall back to byte tokens.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::tokens::TokenTable;
use super::{Kind, TokenizerError, Vocabulary};

/// What a space becomes.
pub(super) const SPACE: char = '▁';
/// The same in UTF-8.
const SPACE_BYTES: &[u8] = "▁".as_bytes();

/// Merges characters into tokens, by score.
#[derive(Debug)]
pub(super) struct SentencePiece {
    pub tokens: TokenTable,
    scores: Vec<f32>,
    bytes: Box<[Option<u32>; 256]>,
    unk: Option<u32>,
    /// Whether a text, and what follows a special token, starts with a space of its own.
    pub space_prefix: bool,
}

struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
}

/// A pair that may merge; the heap gives the best score first, then the leftmost.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    end: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}
impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Pair {}

impl SentencePiece {
    /// Takes the tokens and scores out of `vocabulary`; `kinds` is by id.
    pub fn new(vocabulary: &mut Vocabulary, kinds: &[Kind]) -> Result<SentencePiece, TokenizerError> {
        let strings = std::mem::take(&mut vocabulary.tokens);
        let scores = std::mem::take(&mut vocabulary.scores);
        if scores.len() != strings.len() {
            return Err(TokenizerError::Invalid {
                what: format!(
                    "tokenizer.ggml.scores has {} values for {} tokens",
                    scores.len(),
                    strings.len()
                ),
            });
        }
        let mut tokens = TokenTable::with_capacity(strings.len(), strings.iter().map(String::len).sum());
        let mut bytes = Box::new([None; 256]);
        for ((text, kind), id) in strings.iter().zip(kinds).zip(0u32..) {
            let pushed = match (kind, byte_of(text)) {
                (Kind::Byte, Some(byte)) => {
                    bytes[usize::from(byte)] = Some(id);
                    tokens.push(&[byte])
                }
                _ => tokens.push(text.as_bytes()),
            };
            pushed.ok_or_else(|| TokenizerError::Invalid { what: "tokens beyond 4 GiB".into() })?;
            if matches!(kind, Kind::Normal | Kind::UserDefined) {
                tokens.index(id);
            }
        }
        let space_prefix = vocabulary.add_space_prefix.unwrap_or(true);
        Ok(SentencePiece { tokens, scores, bytes, unk: vocabulary.unk, space_prefix })
    }

    /// Appends the ids of `text`; `opening`: it begins the text or follows a special token.
    pub fn encode(&self, text: &str, opening: bool, ids: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + 8);
        if opening && self.space_prefix {
            escaped.push(SPACE);
        }
        escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        for piece in self.split(&escaped) {
            match self.tokens.find(piece.as_bytes()) {
                Some(id) => ids.push(id),
                None => ids.extend(piece.bytes().filter_map(|b| self.bytes[usize::from(b)].or(self.unk))),
            }
        }
    }

    /// The parts of `escaped` that no two neighbours can be merged in any more.
    pub fn split<'t>(&self, escaped: &'t str) -> Vec<&'t str> {
        let mut symbols: Vec<Symbol> = escaped
            .char_indices()
            .enumerate()
            .map(|(at, (start, c))| Symbol {
                start,
                end: start + c.len_utf8(),
                previous: at.wrapping_sub(1),
                next: at + 1,
            })
            .collect();
        let mut heap = BinaryHeap::new();
        for at in 1..symbols.len() {
            self.offer(escaped, &symbols, at - 1, at, &mut heap);
        }
        while let Some(pair) = heap.pop() {
            let (left, right) = (pair.left, pair.right);
            // Merged since: the left symbol grew or the right one is gone.
            if symbols[left].next != right || symbols[right].end != pair.end || is_gone(&symbols[left]) {
                continue;
            }
            let next = symbols[right].next;
            symbols[left].end = symbols[right].end;
            symbols[left].next = next;
            symbols[right].start = symbols[right].end;
            if next < symbols.len() {
                symbols[next].previous = left;
                self.offer(escaped, &symbols, left, next, &mut heap);
            }
            let previous = symbols[left].previous;
            if previous < symbols.len() {
                self.offer(escaped, &symbols, previous, left, &mut heap);
            }
        }
        symbols.iter().filter(|s| !is_gone(s)).map(|s| &escaped[s.start..s.end]).collect()
    }

    fn offer(&self, text: &str, symbols: &[Symbol], left: usize, right: usize, heap: &mut BinaryHeap<Pair>) {
        let (start, end) = (symbols[left].start, symbols[right].end);
        if end - start > self.tokens.max_bytes() {
            return;
        }
        if let Some(id) = self.tokens.find(&text.as_bytes()[start..end]) {
            heap.push(Pair { score: self.scores[id as usize], left, right, end });
        }
    }

    /// The bytes that token `id` stands for.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        unescape(self.tokens.bytes(id))
    }
}

/// A symbol that another one took in has no bytes left.
fn is_gone(symbol: &Symbol) -> bool {
    symbol.start == symbol.end
}

/// The byte that a token such as `<0x0A>` stands for.
pub(super) fn byte_of(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

/// `piece` with its `▁` as spaces.
pub(super) fn unescape(piece: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.len());
    let mut rest = piece;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE_BYTES) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}
