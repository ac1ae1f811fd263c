//! How often a text says the same again, after Gopher (arXiv:2112.11446, A.1.1).
//!
//! Runs of words are counted as datatrove counts them: repeated ones from left to right, without overlap.

use super::minhash::hash;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Shares of a text, of 1, that are repetitions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Repetition {
    /// Lines that stood there before, of all lines.
    pub lines: f64,
    /// Their characters, of all characters.
    pub line_characters: f64,
    /// Paragraphs that stood there before, of all.
    pub paragraphs: f64,
    /// Their characters, of all characters.
    pub paragraph_characters: f64,
    /// Characters in the most frequent run of 2, 3 and 4 words; 0 if it comes once.
    pub top_grams: [f64; 3],
    /// Characters in runs of 5 to 10 words that stood there before.
    pub duplicate_grams: [f64; 6],
}

/// Runs of words are keys already: well mixed numbers.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(32) ^ number;
    }
}

type Build = BuildHasherDefault<Mixed>;

/// Measures the repetitions of a text with these words.
pub(super) fn measure(text: &str, words: &[&str]) -> Repetition {
    let all = text.chars().count();
    let share = |part: usize| if all == 0 { 0.0 } else { (part as f64 / all as f64).min(1.0) };
    let trimmed = text.trim();
    let lines: Vec<&str> = trimmed.split('\n').filter(|line| !line.is_empty()).collect();
    let paragraphs: Vec<&str> =
        trimmed.split("\n\n").map(|text| text.trim_matches('\n')).filter(|text| !text.is_empty()).collect();
    let (again_lines, line_characters) = again(&lines);
    let (again_paragraphs, paragraph_characters) = again(&paragraphs);
    let part = |again: usize, all: usize| if all == 0 { 0.0 } else { again as f64 / all as f64 };
    let grams = Grams::new(words);
    Repetition {
        lines: part(again_lines, lines.len()),
        line_characters: share(line_characters),
        paragraphs: part(again_paragraphs, paragraphs.len()),
        paragraph_characters: share(paragraph_characters),
        // The words of a run are read with one space between.
        top_grams: [2, 3, 4].map(|n| share(grams.top(n))),
        duplicate_grams: [5, 6, 7, 8, 9, 10].map(|n| share(grams.again(n))),
    }
}

/// How many pieces stood there before, and their characters.
fn again(pieces: &[&str]) -> (usize, usize) {
    let mut seen = HashSet::new();
    let repeated = pieces.iter().filter(|piece| !seen.insert(**piece));
    repeated.fold((0, 0), |(count, characters), piece| (count + 1, characters + piece.chars().count()))
}

struct Grams {
    hashes: Vec<u64>,
    /// Characters before each word, and of all.
    before: Vec<usize>,
}

impl Grams {
    fn new(words: &[&str]) -> Grams {
        let mut before = vec![0];
        for word in words {
            before.push(before[before.len() - 1] + word.chars().count());
        }
        Grams { hashes: words.iter().map(|word| hash(word)).collect(), before }
    }

    fn key(&self, start: usize, n: usize) -> u64 {
        self.hashes[start..start + n]
            .iter()
            .fold(0, |key: u64, hash| (key.rotate_left(23) ^ hash).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn characters(&self, start: usize, n: usize) -> usize {
        self.before[start + n] - self.before[start]
    }

    /// Characters in all occurrences of the most frequent run of `n` words, with the spaces in it; the first of equals.
    fn top(&self, n: usize) -> usize {
        let starts = self.hashes.len().saturating_sub(n - 1);
        let mut counts: HashMap<u64, (usize, usize), Build> =
            HashMap::with_capacity_and_hasher(starts, Build::default());
        for start in 0..starts {
            counts.entry(self.key(start, n)).or_insert((0, start)).0 += 1;
        }
        let best = counts.values().max_by_key(|(count, start)| (*count, std::cmp::Reverse(*start)));
        best.filter(|(count, _)| *count > 1)
            .map_or(0, |(count, start)| count * (self.characters(*start, n) + n - 1))
    }

    /// Characters in runs of `n` words that stood there before; overlapping ones count once.
    fn again(&self, n: usize) -> usize {
        let mut seen: HashSet<u64, Build> = HashSet::default();
        let (mut start, mut repeated) = (0, 0);
        while start + n <= self.hashes.len() {
            if seen.insert(self.key(start, n)) {
                start += 1;
            } else {
                repeated += self.characters(start, n);
                start += n;
            }
        }
        repeated
    }
}
