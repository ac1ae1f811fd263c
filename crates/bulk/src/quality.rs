//! What texts are like, without a model: how long, how repetitive, how much like prose.
//!
//! Measures and limits are those of Gopher (Rae et al., 2021, arXiv:2112.11446, appendix A.1.1 and table A1).

mod minhash;
mod repair;
mod repetition;
mod rules;
mod words;

pub(crate) use minhash::{BANDS, HASHES, Signature, similarity};
pub(crate) use repair::repair;
pub(crate) use repetition::Repetition;
pub(crate) use rules::broken;
pub(crate) use words::{Words, words};

use std::collections::HashSet;

/// Words of English of which a text of some length has at least two (arXiv:2112.11446, A.1.1).
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];
const BULLETS: [char; 7] = ['•', '‣', '▪', '●', '◦', '-', '*'];

/// Figures of one text. Shares are of 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measures {
    /// Characters of Unicode.
    pub characters: usize,
    /// Words between spaces; in scripts without spaces, characters.
    pub words: usize,
    /// Lines that are not empty.
    pub lines: usize,
    /// Whether words stand between spaces: the length of a word means something.
    pub spaced: bool,
    /// Characters a word, mean.
    pub mean_word_length: f64,
    /// `#` and ellipses a word.
    pub symbols_per_word: f64,
    /// Lines that begin with a bullet, share.
    pub bullet_lines: f64,
    /// Lines that end with an ellipsis, share.
    pub ellipsis_lines: f64,
    /// Words with a letter in them, share.
    pub alphabetic_words: f64,
    /// How many of the eight stop words of English it has.
    pub stop_words: usize,
    /// How often it says the same again.
    pub repetition: Repetition,
}

/// Measures a text.
pub(crate) fn measure(text: &str) -> Measures {
    let Words { words, spaced } = words(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let share = |part: usize, all: usize| if all == 0 { 0.0 } else { part as f64 / all as f64 };
    let letters: usize = words.iter().map(|word| word.chars().count()).sum();
    let symbols = text.matches('#').count() + text.matches("...").count() + text.matches('…').count();
    let bullets = lines.iter().filter(|line| line.starts_with(BULLETS)).count();
    let ellipses = lines.iter().filter(|line| line.ends_with("...") || line.ends_with('…')).count();
    let alphabetic = words.iter().filter(|word| word.chars().any(char::is_alphabetic)).count();
    let found: HashSet<String> = words
        .iter()
        .filter(|word| word.len() < 8)
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|word| STOP_WORDS.contains(&word.as_str()))
        .collect();
    Measures {
        characters: text.chars().count(),
        words: words.len(),
        lines: lines.len(),
        spaced,
        mean_word_length: share(letters, words.len()),
        symbols_per_word: share(symbols, words.len()),
        bullet_lines: share(bullets, lines.len()),
        ellipsis_lines: share(ellipses, lines.len()),
        alphabetic_words: share(alphabetic, words.len()),
        stop_words: found.len(),
        repetition: repetition::measure(text, &words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Figures of `tools/golden/gopher.py`, by datatrove's own functions.
    #[test]
    fn measures_are_those_of_datatrove() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/text/gopher.json");
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for case in golden.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = measure(text);
            let near = |name: &str, value: f64| {
                let wanted = case[name].as_f64().unwrap();
                assert!((value - wanted).abs() < 1e-9, "{name} is {value}, not {wanted}: {text:.60}");
            };
            near("words", found.words as f64);
            near("mean_word_length", found.mean_word_length);
            near("symbols_per_word", found.symbols_per_word);
            near("bullet_lines", found.bullet_lines);
            near("ellipsis_lines", found.ellipsis_lines);
            near("alphabetic_words", found.alphabetic_words);
            let repetition = &found.repetition;
            near("duplicate_lines", repetition.lines);
            near("duplicate_line_characters", repetition.line_characters);
            near("duplicate_paragraphs", repetition.paragraphs);
            near("duplicate_paragraph_characters", repetition.paragraph_characters);
            for (at, value) in repetition.top_grams.iter().enumerate() {
                near(&format!("top_{}_gram", at + 2), *value);
            }
            for (at, value) in repetition.duplicate_grams.iter().enumerate() {
                near(&format!("duplicate_{}_grams", at + 5), *value);
            }
        }
    }

    #[test]
    fn scripts_without_spaces_count_by_characters() {
        let found = measure("今天天气很好。我们去公园吧。");
        assert!(!found.spaced && found.words == 12, "{found:?}");
        assert!(measure("The weather is fine today.").spaced);
        assert_eq!(measure(""), Measures { spaced: true, ..Measures::default() });
    }
}
